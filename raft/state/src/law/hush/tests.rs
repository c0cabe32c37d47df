//! Tests of what people are not told for the time being.
#![allow(clippy::unwrap_used)]

use crate::{
    applied::Reply,
    command::{Command, NoteTold, OUTCOMES_SINCE, ToldOn},
    ids::{IncidentId, Millis, Timestamp},
    law::tests::lab::*,
    manifest::{
        ChannelSpec, InhibitSpec, MaintenanceWindowSpec, PolicySpec, ScheduleSpec, SilenceSpec,
        SlackSpec, Spec,
    },
    notice::{Delivery, NoticeKind},
    symptom::{ALERT_KIND, ALERT_SOURCE, Severity, Symptom},
};

fn lab() -> Lab {
    let mut lab = Lab::new();
    let url = Some("http://chat/".to_owned());
    let slack = SlackSpec { url, url_from: None, rules: None };
    lab.apply("chat", Spec::Channel(ChannelSpec::Slack(slack)));
    lab
}

pub(in crate::law) fn silence(lab: &mut Lab, matchers: &[&str], secs: u64) {
    let spec = SilenceSpec {
        matchers: matchers.iter().map(ToString::to_string).collect(),
        starts_at: Timestamp(0),
        ends_at: Timestamp(lab.now + secs * 1_000),
        comment: "known".into(),
        schedule: None,
        duration: None,
    };
    lab.apply("hush", Spec::Silence(spec));
}

fn rule(name: &str, source: &str, target: &str, equal: &[&str]) -> InhibitSpec {
    InhibitSpec {
        name: name.into(),
        source: vec![source.into()],
        target: vec![target.into()],
        equal: equal.iter().map(ToString::to_string).collect(),
    }
}

fn inhibit(lab: &mut Lab, rules: Vec<InhibitSpec>) {
    let policy = PolicySpec { inhibit: rules, ..PolicySpec::default() };
    lab.apply("default", Spec::Policy(policy));
}

/// An incident that a human is needed for.
fn escalated(lab: &mut Lab, service: &str, instance: &str, kind: &str) -> IncidentId {
    let id = lab.report(service, instance, kind);
    lab.propose(id, lab.proposal(None)).unwrap();
    id
}

/// Tells everything that is owed; gives what was told of which incident.
fn told(lab: &mut Lab) -> Vec<(IncidentId, NoticeKind)> {
    let mut told = Vec::new();
    while let Some(telling) = lab.state.tellings(&|_, _, _| false).next.pop() {
        lab.now = lab.now.max(telling.not_before.0);
        let mut notices = telling.notices.iter().map(|one| (one.incident, one.digest(), one.kind));
        let (incident, text, kind) = notices.next().unwrap();
        told.extend(telling.notices.iter().map(|one| (one.incident, one.kind)));
        let (channel, also) = (telling.channel.clone(), notices.collect());
        let on = Some(ToldOn { channel, kind, delivery: Delivery::Delivered, also });
        lab.node(1, Command::NoteTold(NoteTold { incident, text, on })).unwrap();
    }
    told
}

fn why(lab: &Lab, id: IncidentId) -> Option<String> {
    lab.state.hushed(lab.incident(id))
}

#[test]
fn a_silence_after_the_fact_keeps_the_page_back_until_it_ends_and_then_it_comes_once() {
    let mut lab = lab();
    let id = escalated(&mut lab, "web", "w", "down");
    silence(&mut lab, &[r#"service="web""#], 60);
    assert_eq!(told(&mut lab), []);
    assert_eq!(why(&lab, id).unwrap(), "silenced by hush: known");
    assert!(lab.state.tellings(&|_, _, _| false).nobody.is_empty());
    lab.fence(2);
    assert_eq!(told(&mut lab), [], "the next leader keeps quiet too");
    lab.fence(1);
    assert_eq!(lab.state.next_due(), Some(Timestamp(lab.now + 60_000)));
    lab.wait(60);
    assert_eq!(why(&lab, id), None);
    assert_eq!(told(&mut lab), [(id, NoticeKind::NeedsHuman)]);
    assert_eq!(told(&mut lab), []);
    assert_eq!(lab.state.next_due(), None);
}

#[test]
fn a_silence_that_is_taken_back_or_a_second_symptom_lets_people_be_told() {
    let mut lab = lab();
    let id = escalated(&mut lab, "web", "w", "down");
    let other = escalated(&mut lab, "db", "d", "down");
    silence(&mut lab, &[r#"kind="down""#], 60);
    assert_eq!(told(&mut lab), []);
    assert_eq!(lab.report("web", "w", "saturation"), id);
    assert_eq!(told(&mut lab), [(id, NoticeKind::NeedsHuman)], "that one is not silenced");
    let key = crate::manifest::ManifestKey {
        kind: crate::manifest::Kind::Silence,
        tenant: TENANT.into(),
        name: "hush".into(),
    };
    lab.root(Command::DeleteManifest(key)).unwrap();
    assert_eq!(told(&mut lab), [(other, NoticeKind::NeedsHuman)]);
}

#[test]
fn what_ends_a_page_goes_out_and_what_ended_in_silence_was_never_told() {
    let mut lab = lab();
    let paged = escalated(&mut lab, "web", "w", "down");
    assert_eq!(told(&mut lab), [(paged, NoticeKind::NeedsHuman)]);
    silence(&mut lab, &[r#"kind="down""#], 60);
    lab.root(Command::ResolveIncident(Lab::note(paged))).unwrap();
    assert_eq!(told(&mut lab), [(paged, NoticeKind::Resolved)]);

    lab.wait(60);
    let quiet = escalated(&mut lab, "db", "d", "down");
    silence(&mut lab, &[r#"kind="down""#], 60);
    lab.root(Command::ResolveIncident(Lab::note(quiet))).unwrap();
    lab.wait(60);
    assert_eq!(told(&mut lab), []);
}

#[test]
fn nobody_is_paged_in_a_maintenance_window_nor_in_a_silence_that_comes_again() {
    let mut lab = lab();
    let id = escalated(&mut lab, "web", "w", "down");
    let starts = vec![Timestamp(lab.now), Timestamp(lab.now + 3_600_000)];
    let schedule = || {
        let (cron, timezone) = ("0 * * * *".to_owned(), "UTC".to_owned());
        Some(ScheduleSpec { cron, timezone, starts: starts.clone() })
    };
    let window = MaintenanceWindowSpec {
        matchers: vec![r#"service="web""#.into()],
        starts_at: Timestamp(lab.now),
        duration: Millis(60_000),
        every: None,
        comment: "upgrade".into(),
        schedule: schedule(),
        ends_at: Some(Timestamp(lab.now + 9_000_000)),
    };
    lab.apply("upgrade", Spec::MaintenanceWindow(window));
    let spec = SilenceSpec {
        matchers: vec![r#"service="web""#.into()],
        starts_at: Timestamp(lab.now),
        ends_at: Timestamp(lab.now + 9_000_000),
        comment: "hourly job".into(),
        schedule: schedule(),
        duration: Some(Millis(90_000)),
    };
    lab.apply("job", Spec::Silence(spec));
    assert_eq!(told(&mut lab), []);
    assert_eq!(why(&lab, id).unwrap(), "maintenance window upgrade: upgrade");
    assert_eq!(lab.state.next_due(), Some(Timestamp(lab.now + 60_000)));
    lab.wait(60);
    assert_eq!(why(&lab, id).unwrap(), "silenced by job: hourly job");
    assert_eq!(lab.state.next_due(), Some(Timestamp(lab.now + 30_000)));
    lab.wait(30);
    assert_eq!(told(&mut lab), [(id, NoticeKind::NeedsHuman)]);
}

#[test]
fn what_the_source_makes_plain_is_told_once_the_source_is_gone() {
    let mut lab = lab();
    inhibit(&mut lab, vec![rule("store-down", r#"service="db""#, r#"kind="saturation""#, &[])]);
    let effect = escalated(&mut lab, "web", "w", "saturation");
    assert_eq!(why(&lab, effect), None);
    let source = escalated(&mut lab, "db", "d", "down");
    assert_eq!(told(&mut lab), [(source, NoticeKind::NeedsHuman)]);
    let said = format!("inhibited by {source} (down of db/d), rule store-down");
    assert_eq!(why(&lab, effect).unwrap(), said);
    lab.fence(2);
    assert_eq!(told(&mut lab), []);
    lab.fence(1);
    lab.clear("db", "d", "down").unwrap();
    assert_eq!(told(&mut lab), [(effect, NoticeKind::NeedsHuman)]);
    assert_eq!(told(&mut lab), []);
}

#[test]
fn labels_that_must_be_equal_tell_regions_apart() {
    let mut lab = lab();
    let severe = r#"severity="critical""#;
    inhibit(&mut lab, vec![rule("worse", severe, r#"severity="warning""#, &["region"])]);
    let mut there = |service: &str, instance: &str, region: &str, severity| {
        let mut symptom = symptom(service, instance, "down");
        symptom.severity = severity;
        if !region.is_empty() {
            symptom.labels.insert("region".into(), region.into());
        }
        let id = lab.report_with(symptom);
        lab.propose(id, lab.proposal(None)).unwrap();
        id
    };
    let cause = there("db", "d", "eu", Severity::Critical);
    let same = there("api", "a", "eu", Severity::Warning);
    let other = there("web", "w", "us", Severity::Warning);
    let none = there("web", "x", "", Severity::Warning);
    let hushed = |id| why(&lab, id).is_some();
    assert_eq!([cause, same, other, none].map(hushed), [false, true, false, false]);
}

#[test]
fn what_matches_both_sides_is_not_inhibited_by_its_like() {
    let mut lab = lab();
    inhibit(&mut lab, vec![rule("down", r#"kind="down""#, r#"kind=~"down|saturation""#, &[])]);
    let first = escalated(&mut lab, "db", "d", "down");
    let second = escalated(&mut lab, "web", "w", "down");
    let third = escalated(&mut lab, "api", "a", "saturation");
    assert_eq!([first, second, third].map(|id| why(&lab, id).is_some()), [false, false, true]);
}

#[test]
fn of_two_that_inhibit_each_other_the_older_is_told_and_then_the_other() {
    let mut lab = lab();
    let (db, web) = (r#"service="db""#, r#"service="web""#);
    inhibit(&mut lab, vec![rule("one", db, web, &[]), rule("two", web, db, &[])]);
    let older = escalated(&mut lab, "web", "w", "down");
    let younger = escalated(&mut lab, "db", "d", "down");
    assert_eq!(told(&mut lab), [(older, NoticeKind::NeedsHuman)]);
    assert!(why(&lab, younger).unwrap().contains("rule two"));
    lab.root(Command::ResolveIncident(Lab::note(older))).unwrap();
    let both = [(older, NoticeKind::Resolved), (younger, NoticeKind::NeedsHuman)];
    let mut said = told(&mut lab);
    said.sort_unstable();
    assert_eq!(said, both);
}

#[test]
fn a_ring_of_three_tells_its_oldest_and_hushes_what_hangs_on_it() {
    let mut lab = lab();
    let service = |name: &str| format!(r#"service="{name}""#);
    let (db, api) = (service("db"), service("api"));
    let (x, y) = (r#"instance="x""#, r#"instance="w""#);
    // db → api → web/w → db, and web/x hangs on api.
    let rules = vec![
        rule("one", &db, &api, &[]),
        rule("two", &api, y, &[]),
        rule("three", y, &db, &[]),
        rule("four", &api, x, &[]),
    ];
    inhibit(&mut lab, rules);
    let tail = escalated(&mut lab, "web", "x", "down");
    let ids = [("api", "a"), ("db", "d"), ("web", "w")]
        .map(|(service, instance)| escalated(&mut lab, service, instance, "down"));
    assert_eq!(ids.map(|id| why(&lab, id).is_some()), [false, true, true], "the oldest is told");
    assert!(why(&lab, tail).is_some(), "older than the ring, and not in it");
}

#[test]
fn what_others_say_of_a_standing_alert_is_kept_though_a_silence_covers_it() {
    let alert = |names: &[&str]| Symptom {
        source: format!("{ALERT_SOURCE}/prometheus"),
        summary: names.join(", "),
        ..symptom("api", "a", ALERT_KIND)
    };
    for (version, kept) in [(OUTCOMES_SINCE, "Slow"), (OUTCOMES_SINCE - 1, "Slow, Burning")] {
        let mut lab = lab();
        lab.state.cluster_version = version;
        let id = lab.report_with(alert(&["Slow", "Burning"]));
        silence(&mut lab, &["service=\"api\""], 600);
        let before = lab.incident(id).symptoms.values().next().map(|known| known.count);
        assert!(matches!(lab.report_symptom(alert(&["Slow"])), Ok(Reply::Noted(_))));
        let known = lab.incident(id).symptoms.values().next().unwrap();
        assert_eq!(known.symptom.summary, kept, "by command set {version}");
        assert_eq!(Some(known.count), before, "it counts as no report");
    }
}
