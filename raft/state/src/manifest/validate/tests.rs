//! Tests of the checks: a sound manifest has no problem, and each spoilt one exactly the expected.
#![allow(clippy::unwrap_used)]

use super::{Problem, validate};
use crate::{
    ids::{Millis, Ppm, Timestamp},
    law::tests::lab::{TENANT, binding, manifest, playbook, service},
    manifest::{
        InhibitSpec, MaintenanceWindowSpec, ObserversSpec, PlaybookSpec, PolicySpec, ProbeKind,
        ProbeSpec, Rate, ScheduleSpec, ServiceSpec, SilenceSpec, Spec, TenantSpec, UndoSpec,
    },
};

/// How a manifest is spoilt, and where that is told.
type Spoilt<T> = (fn(&mut T), &'static str);

fn paths(problems: &[Problem]) -> Vec<&str> {
    problems.iter().map(|problem| problem.path.as_str()).collect()
}

fn check(spec: Spec) -> Vec<Problem> {
    validate(&manifest("thing", TENANT, spec))
}

#[test]
fn sound_manifests_have_no_problems() {
    for spec in [
        Spec::Service(service(&["a", "b"], &["c"])),
        Spec::Playbook(playbook()),
        Spec::Policy(PolicySpec::default()),
        binding("viewer", &["ann"]),
        Spec::Tenant(TenantSpec::default()),
    ] {
        assert_eq!(check(spec), []);
    }
    assert_eq!(validate(&manifest("all", "*", binding("viewer", &["ann"]))), []);
}

#[test]
fn names_are_names() {
    for name in ["", "Big", "a b", "-a", "a-", "a/b", "ä", &"x".repeat(64)] {
        let problems = validate(&manifest(name, TENANT, Spec::Playbook(playbook())));
        assert_eq!(paths(&problems), ["metadata.name"], "{name}");
    }
    let problems = validate(&manifest("a", "*", Spec::Playbook(playbook())));
    assert_eq!(paths(&problems), ["metadata.tenant"]);
}

#[test]
fn each_spoilt_playbook_is_told_where() {
    let spoilt: [Spoilt<PlaybookSpec>; 10] = [
        (|p| p.steps.clear(), "spec.steps"),
        (|p| p.steps.push(p.steps[0].clone()), "spec.steps[1].name"),
        (|p| p.steps[0].action = "rm.rf".into(), "spec.steps[0].action"),
        (|p| p.steps[0].retry.max = 11, "spec.steps[0].retry.max"),
        (|p| p.matchers = vec!["class=crash".into()], "spec.match[0]"),
        (
            |p| {
                let undo = UndoSpec { action: "config.replace".into(), params: [].into() };
                p.steps[0].undo = Some(undo);
            },
            "spec.steps[0].undo.params",
        ),
        (
            |p| {
                p.steps[0].params.insert("force".into(), "yes".into());
            },
            "spec.steps[0].params.force",
        ),
        (|p| p.scope.max_attempts = 0, "spec.scope.maxAttempts"),
        (|p| p.scope.per_target = Rate { count: 0, per: Millis(1) }, "spec.scope.perTarget"),
        (|p| p.approval.min_approvers = 0, "spec.approval.minApprovers"),
    ];
    for (spoil, path) in spoilt {
        let mut playbook = playbook();
        spoil(&mut playbook);
        assert_eq!(paths(&check(Spec::Playbook(playbook))), [path]);
    }
}

#[test]
fn each_spoilt_service_is_told_where() {
    let spoilt: [Spoilt<ServiceSpec>; 3] = [
        (|s| s.instances.push(s.instances[0].clone()), "spec.instances[2].name"),
        (|s| s.depends_on.push("thing".into()), "spec.dependsOn[0]"),
        (|s| s.instances[0].name = "A".into(), "spec.instances[0].name"),
    ];
    for (spoil, path) in spoilt {
        let mut service = service(&["a", "b"], &[]);
        spoil(&mut service);
        assert_eq!(paths(&check(Spec::Service(service))), [path]);
    }
}

#[test]
fn observers_agree_among_themselves_and_are_few() {
    let told = |kind: ProbeKind, of: u32, agree: u32| {
        let mut service = service(&["a"], &[]);
        let (interval, timeout) = (Millis(2_000), Millis(1_000));
        let observers = Some(ObserversSpec { of, agree });
        service.probes = vec![ProbeSpec { name: "up".into(), kind, interval, timeout, observers }];
        let problems = check(Spec::Service(service));
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let tcp = || ProbeKind::Tcp("${host}:1".into());
    for (of, agree) in [(1, 1), (3, 2), (7, 7)] {
        assert_eq!(told(tcp(), of, agree), [""; 0], "{agree} of {of}");
    }
    let at = "spec.probes[0].observers";
    assert_eq!(told(tcp(), 8, 2), [format!("{at}.of: 1 to 7")]);
    assert_eq!(told(tcp(), 3, 0), [format!("{at}.agree: 1 to `of`, which is 3")]);
    assert_eq!(told(tcp(), 3, 4), [format!("{at}.agree: 1 to `of`, which is 3")]);
    assert_eq!(told(tcp(), 0, 0).len(), 2);
    let process = told(ProbeKind::Process(true), 3, 2);
    assert!(process[0].contains("agent's word"), "{process:?}");
}

#[test]
fn times_and_bounds_make_sense() {
    let silence = SilenceSpec {
        matchers: Vec::new(),
        starts_at: Timestamp(2),
        ends_at: Timestamp(1),
        comment: String::new(),
        schedule: None,
        duration: None,
    };
    assert_eq!(paths(&check(Spec::Silence(silence))), ["spec.match", "spec.endsAt"]);
    let window = MaintenanceWindowSpec {
        matchers: vec![r#"a="b""#.into()],
        starts_at: Timestamp(0),
        duration: Millis(2),
        every: Some(Millis(2)),
        comment: String::new(),
        schedule: None,
        ends_at: None,
    };
    assert_eq!(paths(&check(Spec::MaintenanceWindow(window.clone()))), ["spec.every"]);
    let schedule = ScheduleSpec {
        cron: "0 2 * * *".into(),
        timezone: "UTC".into(),
        starts: vec![Timestamp(1)],
    };
    let planned = MaintenanceWindowSpec {
        every: None,
        schedule: Some(schedule.clone()),
        ends_at: Some(Timestamp(9)),
        ..window
    };
    assert_eq!(check(Spec::MaintenanceWindow(planned.clone())), []);
    let endless = MaintenanceWindowSpec { ends_at: None, ..planned.clone() };
    assert_eq!(paths(&check(Spec::MaintenanceWindow(endless))), ["spec.endsAt"]);
    let never = Some(ScheduleSpec { starts: Vec::new(), ..schedule });
    let never = MaintenanceWindowSpec { schedule: never, ..planned };
    assert_eq!(paths(&check(Spec::MaintenanceWindow(never))), ["spec.schedule"]);
    let policy = PolicySpec { max_blast_radius: Ppm(0), ..PolicySpec::default() };
    assert_eq!(paths(&check(Spec::Policy(policy))), ["spec.maxBlastRadius"]);
}

#[test]
fn inhibition_is_bounded_and_says_what_is_wrong() {
    let rule = InhibitSpec {
        name: "store-down".into(),
        source: vec![r#"kind="down""#.into()],
        target: vec![r#"severity="warning""#.into()],
        equal: vec!["region".into()],
    };
    let found = |inhibit: Vec<InhibitSpec>| {
        check(Spec::Policy(PolicySpec { inhibit, ..PolicySpec::default() }))
    };
    assert_eq!(found(vec![rule.clone()]), []);
    assert_eq!(paths(&found(vec![rule.clone(), rule.clone()])), ["spec.inhibit[1].name"]);
    assert!(paths(&found(vec![rule.clone(); 33])).contains(&"spec.inhibit"));
    let same = InhibitSpec { target: rule.source.clone(), ..rule.clone() };
    assert_eq!(paths(&found(vec![same])), ["spec.inhibit[0].target"]);
    let none = InhibitSpec { source: Vec::new(), ..rule.clone() };
    assert_eq!(paths(&found(vec![none])), ["spec.inhibit[0].source"]);
    let broken = InhibitSpec { target: vec!["severity=warning".into()], ..rule.clone() };
    assert_eq!(paths(&found(vec![broken])), ["spec.inhibit[0].target[0]"]);
    let label = InhibitSpec { equal: vec!["a b".into()], ..rule };
    assert_eq!(paths(&found(vec![label])), ["spec.inhibit[0].equal[0]"]);
    let policy = PolicySpec {
        refractory: Some(Millis(u64::MAX)),
        max_recurrences: Some(0),
        ..PolicySpec::default()
    };
    assert_eq!(paths(&check(Spec::Policy(policy))), ["spec.refractory", "spec.maxRecurrences"]);
}
