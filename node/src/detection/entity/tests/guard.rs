//! What an agent says of the safety of an instance, and what a budget and a certificate say.

use medic_proto::fleet::v1::{HostSample, HostStatus, ProcessGuard};

use super::*;
use crate::detection::{
    health::{Monitor, MonitorHealth, Status},
    probe::Flaw,
};

const WITH_PROCESS: &str = r#"{"process":{"command":"/x"}INDICATORS}"#;
const OF_AGENT: &str = r#"{"name":"web-1","agent":"a"}"#;

fn with_process(indicators: &str) -> Bench {
    Bench::with_spec(&WITH_PROCESS.replace("INDICATORS", indicators), OF_AGENT)
}

impl Bench {
    /// A second in which its process runs, and its agent says this of it.
    fn guarded(&mut self, guard: Option<&ProcessGuard>) -> Option<Change> {
        self.tick();
        let status = InstanceStatus {
            state: ProcessState::Running.into(),
            started_unix_ms: self.started,
            guard: guard.cloned(),
            ..InstanceStatus::default()
        };
        let seen = Seen { status, age: std::time::Duration::ZERO };
        self.entity.on_process(Some(&seen), self.now);
        self.evaluate()
    }

    fn monitor(&self, wanted: Monitor) -> MonitorHealth {
        let health = self.entity.health(self.now);
        health.monitors.into_iter().find(|one| one.monitor == wanted).unwrap()
    }
}

fn all_well() -> ProcessGuard {
    ProcessGuard::default()
}

fn listens() -> ProcessGuard {
    let listeners = vec!["tcp 0.0.0.0:4444".to_owned()];
    ProcessGuard { listeners, unexpected_listeners: 1, ..ProcessGuard::default() }
}

#[test]
fn a_host_alone_is_well_without_a_process() {
    let spec = r#"{"indicators":[{"name":"load","source":{"gauge":"node_load1"}}]}"#;
    let mut bench = Bench::with_spec(spec, OF_AGENT);
    for _ in 0..400 {
        bench.tick();
        bench.entity.on_process(None, bench.now);
        let values = BTreeMap::from([("load".to_owned(), 1.0)]);
        bench.entity.on_beside(Some(Values { values, ..Values::default() }), bench.now);
        assert_eq!(bench.evaluate(), None);
    }
    assert_eq!(bench.entity.health(bench.now).status, Status::Healthy);
    // Its agent is watched all the same.
    bench.circumstances.agent_away = true;
    let lost = (0..15).find_map(|_| {
        bench.tick();
        bench.entity.on_process(None, bench.now);
        bench.evaluate()
    });
    assert_eq!(reported(lost).kind, "agent-lost");
}

#[test]
fn signs_are_findings_that_nobody_declared_and_end_when_they_do() {
    let executable = "/x was replaced".to_owned();
    let replaced = ProcessGuard { executable, ..ProcessGuard::default() };
    let privileges = "Uid 33 became 0".to_owned();
    let gained = ProcessGuard { privilege_changes: 1, privileges, ..ProcessGuard::default() };
    for (guard, indicator, says) in [
        (listens(), "unexpected_listeners", "it listens at tcp 0.0.0.0:4444, undeclared"),
        (replaced, "executable_modified", "/x was replaced since it was started"),
        (gained, "privilege_changes", "its rights changed: Uid 33 became 0"),
    ] {
        let mut bench = with_process("");
        assert_eq!((0..60).find_map(|_| bench.guarded(Some(&all_well()))), None);
        assert_eq!(bench.monitor(Monitor::Security).status, Status::Healthy);
        let symptom = reported(bench.guarded(Some(&guard)));
        assert_eq!((symptom.kind.as_str(), symptom.severity), ("saturation", Severity::Warning));
        assert_eq!(symptom.labels["indicator"], indicator);
        assert_eq!(symptom.summary, format!("not what was started: {says}"));
        assert_eq!(symptom.signals[0].name, format!("metric.{indicator}"));
        assert_eq!(symptom.signals[0].detector, "limit", "classes go by limits that are crossed");
        let security = bench.monitor(Monitor::Security);
        assert_eq!((security.status, security.causes), (Status::Degraded, vec![says.to_owned()]));
        // Another process, not looked at yet, is no proof; three good looks are.
        bench.started = 2;
        assert_eq!((0..5).find_map(|_| bench.guarded(None)), None);
        let ends = (0..6).find_map(|_| bench.guarded(Some(&all_well())));
        assert_eq!(ends, Some(Change::Clear(Kind::Saturation, symptom.fingerprint())));
    }
}

#[test]
fn an_indicator_of_the_same_name_takes_the_place_of_a_sign() {
    let own = r#","indicators":[{"name":"unexpected_listeners",
        "source":{"gauge":"medic_process_unexpected_listeners"}}]"#;
    let mut bench = with_process(own);
    assert_eq!((0..60).find_map(|_| bench.guarded(Some(&listens()))), None);
    // A service that Medic only watches has no such signs either.
    let mut bench = Bench::with_spec("{}", OF_AGENT);
    assert_eq!((0..60).find_map(|_| bench.guarded(Some(&listens()))), None);
}

#[test]
fn a_configuration_of_others_degrades_the_monitor_while_it_is_recent_and_opens_nothing() {
    let config = "/etc/x was changed without an order".to_owned();
    let guard = ProcessGuard { config: config.clone(), ..ProcessGuard::default() };
    let mut bench = with_process("");
    assert_eq!((0..60).find_map(|_| bench.guarded(Some(&all_well()))), None);
    assert_eq!((0..600).find_map(|_| bench.guarded(Some(&guard))), None);
    let security = bench.monitor(Monitor::Security);
    assert_eq!((security.status, security.score), (Status::Degraded, Some(60)));
    assert_eq!(security.causes, std::slice::from_ref(&config));
    // What stands for long is told, and no more.
    assert_eq!((0..10).find_map(|_| bench.guarded(Some(&guard))), None);
    let security = bench.monitor(Monitor::Security);
    assert_eq!((security.status, security.score), (Status::Healthy, Some(95)));
    assert_eq!(security.causes, [config]);
    // Where the agent dates it, that counts, whoever watches since when.
    bench.entity.process.config_changed = bench.now.wall;
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Degraded);
    assert_eq!(bench.guarded(Some(&all_well())), None);
    assert_eq!(bench.monitor(Monitor::Security).score, Some(100));
}

#[test]
fn an_agent_that_tells_nothing_of_safety_is_an_older_one() {
    let mut bench = with_process("");
    assert_eq!((0..400).find_map(|_| bench.guarded(None)), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::NotWatched);
    // What another watch had found is not kept open by it for ever.
    bench.entity.adopt(Kind::Saturation, Timestamp(5));
    assert_eq!((0..60).find_map(|_| bench.guarded(None)), None, "nobody is good, nobody is gone");
    let ends = (0..6).find_map(|_| bench.guarded(Some(&all_well())));
    assert!(matches!(ends, Some(Change::Clear(Kind::Saturation, _))), "{ends:?}");
}

/// A host on which so many logins have failed.
fn counted(failures: f64) -> HostStatus {
    let name = "medic_host_auth_failures_total".to_owned();
    let sample = HostSample { name, value: failures, ..HostSample::default() };
    HostStatus { samples: vec![sample], ..HostStatus::default() }
}

/// A host of which this part cannot be read.
fn unread(part: &str, why: &str) -> HostStatus {
    let missing = [(part.to_owned(), why.to_owned())].into();
    HostStatus { missing, ..HostStatus::default() }
}

impl Bench {
    /// A second in which nobody speaks of its process.
    fn unheard(&mut self) -> Option<Change> {
        self.tick();
        self.entity.on_process(None, self.now);
        self.evaluate()
    }

    /// Five seconds, after which this is told of its host.
    fn hosted(&mut self, host: Option<&HostStatus>) -> Option<Change> {
        (0..5).for_each(|_| self.tick());
        self.entity.on_process(None, self.now);
        self.entity.on_host(host, self.now);
        self.evaluate()
    }
}

#[test]
fn safety_that_nobody_watches_any_more_is_in_error_and_never_healthy() {
    let well = || {
        let mut bench = with_process("");
        assert_eq!((0..60).find_map(|_| bench.guarded(Some(&all_well()))), None);
        assert_eq!(bench.monitor(Monitor::Security).status, Status::Healthy);
        bench
    };
    // Nothing is heard of it.
    let mut bench = well();
    assert_eq!((0..60).find_map(|_| bench.unheard()), None);
    let security = bench.monitor(Monitor::Security);
    assert_eq!((security.status, security.score), (Status::Error, Some(50)));
    assert_eq!(security.causes, ["guard says nothing: its agent does not speak of it"]);
    let symptom = reported(bench.unheard());
    assert_eq!(symptom.kind, "monitor-silent");
    assert!(symptom.summary.contains("infrastructure, security ("), "{}", symptom.summary);
    // The agent is lost: that explains it, and the monitor is in error all the same.
    let mut bench = well();
    bench.circumstances.agent_away = true;
    let told: BTreeSet<String> =
        (0..200).filter_map(|_| bench.unheard()).map(|c| reported(Some(c)).kind).collect();
    assert_eq!(told, BTreeSet::from(["agent-lost".to_owned()]));
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Error);
    // It runs, and whoever looked whether it is what was started looks no more.
    let mut bench = well();
    assert_eq!((0..29).find_map(|_| bench.guarded(None)), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Healthy);
    assert_eq!((0..60).find_map(|_| bench.guarded(None)), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Error);
    let symptom = reported(bench.guarded(None));
    assert!(symptom.summary.contains("silent: security ("), "{}", symptom.summary);
    assert_eq!(bench.guarded(Some(&all_well())), None);
    let ends = bench.guarded(Some(&all_well()));
    assert_eq!(ends, Some(Change::Clear(Kind::MonitorSilent, symptom.fingerprint())));
}

#[test]
fn of_a_process_that_is_new_dead_or_stopped_nobody_must_speak() {
    let mut bench = with_process("");
    assert_eq!((0..60).find_map(|_| bench.guarded(Some(&all_well()))), None);
    bench.started = 2;
    assert_eq!((0..29).find_map(|_| bench.guarded(None)), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Waiting, "it is not looked at yet");
    assert_eq!(bench.guarded(Some(&all_well())), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Healthy);
    for state in [ProcessState::Stopped, ProcessState::Dead] {
        let seconds = (0..200).filter_map(|_| {
            bench.tick();
            bench.process(state);
            bench.evaluate()
        });
        let told: BTreeSet<String> = seconds.map(|c| reported(Some(c)).kind).collect();
        assert!(!told.contains("monitor-silent"), "{told:?}");
        assert_eq!(bench.monitor(Monitor::Security).status, Status::Waiting);
    }
    // A new owner, and an agent that is not there yet.
    let mut bench = with_process("");
    assert_eq!((0..29).find_map(|_| bench.unheard()), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Waiting);
    assert_eq!((0..100).find_map(|_| bench.unheard()), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Error);
}

#[test]
fn failed_logins_that_cannot_be_counted_any_more_are_an_error_with_its_cause() {
    let gone = || unread("auth_failures", "/var/log/btmp: No such file or directory");
    let cause =
        "guard says nothing: its agent cannot read it: /var/log/btmp: No such file or directory";
    let mut bench = Bench::with_spec("{}", OF_AGENT);
    assert_eq!((0..20).find_map(|_| bench.hosted(Some(&counted(7.0)))), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Healthy);
    assert_eq!(bench.hosted(Some(&gone())), None);
    let security = bench.monitor(Monitor::Security);
    assert_eq!((security.status, security.causes), (Status::Error, vec![cause.to_owned()]));
    let symptom = reported((0..12).find_map(|_| bench.hosted(Some(&gone()))));
    assert_eq!(symptom.signals[0].name, "metric.auth_failures");
    let ends = (0..2).find_map(|_| bench.hosted(Some(&counted(7.0))));
    assert_eq!(ends, Some(Change::Clear(Kind::MonitorSilent, symptom.fingerprint())));
    // Its agent is heard no more.
    assert_eq!(bench.hosted(None), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Error);
    // A host that never counted them: nothing ended, and it is not healthy.
    let mut bench = Bench::with_spec("{}", OF_AGENT);
    assert_eq!((0..200).find_map(|_| bench.hosted(Some(&gone()))), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::Error);
    // An agent that does not know of them.
    let mut bench = Bench::with_spec("{}", OF_AGENT);
    assert_eq!((0..200).find_map(|_| bench.hosted(Some(&HostStatus::default()))), None);
    assert_eq!(bench.monitor(Monitor::Security).status, Status::NotWatched);
}

#[test]
fn an_indicator_of_what_its_host_cannot_tell_is_silent_for_that_reason() {
    let spec = r#"{"indicators":[
        {"name":"io_stalled","source":{"rate":"node_pressure_io_stalled_seconds_total"}},
        {"name":"load","source":{"gauge":"node_load1"}}]}"#;
    let mut bench = Bench::with_spec(spec, OF_AGENT);
    let host = unread("pressure.io", "/proc/pressure/io: No such file or directory");
    let second = |bench: &mut Bench, host: &HostStatus| {
        bench.tick();
        bench.entity.on_host(Some(host), bench.now);
        let values = BTreeMap::from([("load".to_owned(), 1.0)]);
        let missing = [("io_stalled".to_owned(), "no series matches".to_owned())].into();
        bench.entity.on_beside(Some(Values { values, missing, ..Values::default() }), bench.now);
        bench.evaluate()
    };
    assert_eq!((0..60).find_map(|_| second(&mut bench, &host)), None);
    let infrastructure = bench.monitor(Monitor::Infrastructure);
    assert_eq!(infrastructure.status, Status::Error);
    let cause = "metric.io_stalled says nothing: its agent cannot read it: \
                 /proc/pressure/io: No such file or directory";
    assert_eq!(infrastructure.causes, [cause]);
    let told = (0..300).find_map(|_| second(&mut bench, &host));
    assert_eq!(reported(told).kind, "monitor-silent", "it is declared, and never had a value");
}

#[test]
fn a_storm_of_logins_is_a_finding_of_the_host_alone() {
    let mut bench = Bench::with_spec("{}", OF_AGENT);
    let mut failures = 1_000.0;
    let mut minutes = |bench: &mut Bench, minutes: u32, each: f64| {
        (0..minutes * 12).find_map(|_| {
            (0..5).for_each(|_| bench.tick());
            failures += each;
            bench.entity.on_process(None, bench.now);
            bench.entity.on_host(Some(&counted(failures)), bench.now);
            bench.evaluate()
        })
    };
    assert_eq!(minutes(&mut bench, 10, 2.0), None, "what the internet does");
    let symptom = reported(minutes(&mut bench, 2, 20.0));
    assert_eq!(symptom.labels["indicator"], "auth_failures");
    assert!(symptom.summary.contains("logins failed on its host within a minute"));
    let ends = minutes(&mut bench, 3, 0.0);
    assert_eq!(ends, Some(Change::Clear(Kind::Saturation, symptom.fingerprint())));
    let mut bench = with_process("");
    assert_eq!(
        minutes(&mut bench, 3, 50.0),
        None,
        "one finding for a host, not one for each service"
    );
}

#[test]
fn a_certificate_that_proves_nothing_is_no_hang() {
    let mut bench = Bench::settled();
    let expired = Outcome::Bad(Failure::Certificate(Flaw::Expired));
    let mut found = None;
    for _ in 0..3 {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.entity.on_probe("http", expired.clone(), bench.now);
        bench.entity.on_probe("tcp", Outcome::Good, bench.now);
        bench.scrape(0.0, 0.05, 20.0);
        found = found.or(bench.evaluate());
    }
    let symptom = reported(found);
    assert_eq!((symptom.kind.as_str(), symptom.severity), ("errors", Severity::Critical));
    let signal = &symptom.signals[0];
    assert_eq!((signal.detector.as_str(), signal.value.as_str()), ("certificate", "expired"));
    let security = bench.monitor(Monitor::Security);
    assert_eq!(security.status, Status::Unhealthy);
    assert!(security.causes[0].contains("the certificate has expired"), "{security:?}");
    assert_eq!(bench.monitor(Monitor::Application).status, Status::Healthy, "tcp and errors");
    let ends = (0..6).find_map(|_| bench.well());
    assert_eq!(ends, Some(Change::Clear(Kind::Errors, symptom.fingerprint())));
}

fn with_budget() -> Bench {
    let spec = r#"{"slo":{"availability":0.999},"scrape":{"url":"http://x/"},"indicators":[
        {"name":"error_rate","source":{"ratio":{"of":"e","to":"r"}},"limit":"0.9"}]}"#;
    Bench::with_spec(spec, r#"{"name":"web-1"}"#)
}

/// So many seconds of this share of failures, scraped every ten; what was told, and after how long.
fn fail(bench: &mut Bench, seconds: u32, share: f64) -> Option<(u32, Change)> {
    (1..=seconds / 10).find_map(|at| {
        (0..10).for_each(|_| bench.tick());
        let values = BTreeMap::from([("error_rate".to_owned(), share)]);
        let values = Values { values, ..Values::default() };
        bench.entity.on_scrape(Ok(&values), bench.now);
        Some((at * 10, bench.evaluate()?))
    })
}

#[test]
fn an_error_budget_that_burns_fast_is_a_finding_and_ends_with_the_failures() {
    // 0.1 % may fail. So many fail from the start: below any limit, and odd to no detector.
    let mut bench = with_budget();
    let (after, change) = fail(&mut bench, 7_200, 0.018).unwrap();
    let symptom = reported(Some(change));
    assert!((3_600..=6_600).contains(&after), "14.4 % of the hour's share after {after} s");
    assert_eq!((symptom.kind.as_str(), symptom.severity), ("errors", Severity::Critical));
    assert!(
        symptom
            .summary
            .starts_with("spending its error budget: the error budget of error_rate burns")
    );
    assert_eq!(symptom.signals[0].name, "slo.budget");
    (0..180).for_each(|_| drop(fail(&mut bench, 10, 0.018)));
    // It is over: nothing is left to act on, though the windows remember for longer.
    let (after, change) = fail(&mut bench, 600, 0.0).unwrap();
    assert!(after <= 60, "{after} s");
    assert_eq!(change, Change::Clear(Kind::Errors, symptom.fingerprint()));
    let performance = bench.monitor(Monitor::Performance);
    assert!(performance.causes[0].contains("burns"), "{performance:?}");
    // A slow burn takes hours and is a warning; what the objective allows is none.
    let mut bench = with_budget();
    let (after, change) = fail(&mut bench, 86_400, 0.008).unwrap();
    assert!(after >= 3_600, "{after} s");
    assert_eq!(reported(Some(change)).severity, Severity::Warning);
    assert_eq!(fail(&mut with_budget(), 86_400, 0.0009), None);
}

#[test]
fn a_budget_whose_indicator_has_no_value_is_in_error_and_one_that_nobody_calls_is_well() {
    let broken = |bench: &mut Bench| {
        bench.tick();
        bench.entity.on_scrape(Err("connection refused".to_owned()), bench.now);
        bench.evaluate()
    };
    let idle = |bench: &mut Bench| {
        bench.tick();
        let why = "nothing was counted since the last scrape".to_owned();
        let missing = [("error_rate".to_owned(), why)].into();
        bench.entity.on_scrape(Ok(&Values { missing, ..Values::default() }), bench.now);
        bench.evaluate()
    };
    let status = |bench: &Bench| bench.monitor(Monitor::Performance).status;
    let mut bench = with_budget();
    assert_eq!((0..29).find_map(|_| broken(&mut bench)), None);
    assert_eq!(status(&bench), Status::Waiting);
    let told = (1..=400).find_map(|at| Some((at, broken(&mut bench)?)));
    let performance = bench.monitor(Monitor::Performance);
    assert_eq!((performance.status, performance.score), (Status::Error, Some(50)));
    assert_eq!(performance.causes, ["budget says nothing: connection refused"]);
    let (after, change) = told.unwrap();
    let symptom = reported(Some(change));
    assert_eq!((after, symptom.kind.as_str()), (301 - 29, "monitor-silent"));
    assert!(symptom.signals.iter().any(|signal| signal.name == "slo.budget"), "{symptom:?}");
    // Nobody has called it yet; then somebody, and nobody any more.
    let mut bench = with_budget();
    assert_eq!((0..400).find_map(|_| idle(&mut bench)), None);
    assert_eq!(status(&bench), Status::Waiting);
    assert_eq!(fail(&mut bench, 60, 0.0), None);
    assert_eq!((0..400).find_map(|_| idle(&mut bench)), None);
    assert_eq!(status(&bench), Status::Healthy);
    // One that burns and falls silent is both.
    let mut bench = with_budget();
    assert!(fail(&mut bench, 7_200, 0.018).is_some());
    broken(&mut bench);
    let performance = bench.monitor(Monitor::Performance);
    assert_eq!((performance.status, performance.score), (Status::Unhealthy, Some(0)));
    assert_eq!(performance.causes.len(), 2, "{performance:?}");
}
