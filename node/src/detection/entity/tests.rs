//! What one entity reports, and when it takes it back.
#![allow(clippy::unwrap_used)]

mod closer;
mod figures;
mod guard;
mod handover;
mod lasting;
mod missed;
mod silence;

use medic_proto::fleet::v1::{InstanceStatus, ProcessState};

use super::*;
use crate::detection::{lord::Stream, probe::Failure};

const SPEC: &str = r#"{"process":{"command":"/x"},
    "probes":[{"name":"http","http":"http://x/"},{"name":"tcp","tcp":"x:1"}],
    "indicators":[
      {"name":"error_rate","source":{"ratio":{"of":"e","to":"r"}},"limit":"0.05"},
      {"name":"latency_p99","source":{"quantile":{"histogram":"d","q":0.99}}},
      {"name":"memory","source":{"gauge":"m"},"limit":"128MiB"}]}"#;

/// An entity with a clock that ticks by the second.
struct Bench {
    entity: Entity,
    now: Now,
    circumstances: Circumstances,
    stream: Stream,
    started: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(r#"{"name":"web-1","agent":"a"}"#)
    }

    fn with(instance: &str) -> Self {
        Self::with_spec(SPEC, instance)
    }

    fn with_spec(service: &str, instance: &str) -> Self {
        let service: ServiceSpec = serde_json::from_str(service).unwrap();
        let instance: InstanceSpec = serde_json::from_str(instance).unwrap();
        let target = Target {
            tenant: "default".to_owned(),
            service: "web".to_owned(),
            instance: instance.name.clone(),
        };
        let now = Now { mono_ms: 1_000_000, wall: Timestamp(1_700_000_000_000) };
        let lead = Millis::from_secs(600);
        let entity = Entity::new(target, "shard-1".to_owned(), &service, &instance, lead, now);
        let (circumstances, stream) = (Circumstances::default(), Stream::default());
        Self { entity, now, circumstances, stream, started: 1 }
    }

    fn tick(&mut self) {
        self.now.mono_ms += 1000;
        self.now.wall = self.now.wall.plus(Millis(1000));
    }

    fn process(&mut self, state: ProcessState) {
        let status = InstanceStatus {
            state: state.into(),
            started_unix_ms: self.started,
            last_exit: "signal 9".to_owned(),
            config_changed_unix_ms: self.now.wall.0 - 5_000,
            previous_config_hash: "abc".to_owned(),
            ..InstanceStatus::default()
        };
        let seen = Seen { status, age: std::time::Duration::ZERO };
        self.entity.on_process(Some(&seen), self.now);
    }

    fn probe(&mut self, outcome: &Outcome) {
        self.entity.on_probe("http", outcome.clone(), self.now);
        self.entity.on_probe("tcp", outcome.clone(), self.now);
    }

    fn scrape(&mut self, errors: f64, latency: f64, memory_mib: f64) {
        let values = Values {
            values: BTreeMap::from([
                ("error_rate".to_owned(), errors),
                ("latency_p99".to_owned(), latency),
                ("memory".to_owned(), memory_mib * 1_048_576.0),
            ]),
            ..Values::default()
        };
        self.entity.on_scrape(Ok(&values), self.now);
    }

    /// Evaluates and plays the law: every change is admitted.
    fn evaluate(&mut self) -> Option<Change> {
        let mut prover = Prover { stream: &mut self.stream, level: crate::detection::lord::LEVEL };
        let change = self.entity.evaluate(&self.circumstances, &mut prover, self.now);
        match &change {
            Some(Change::Report(kind, symptom)) => self.entity.told(*kind, symptom, true, self.now),
            Some(Change::Clear(kind, _)) => self.entity.cleared(*kind),
            None => {}
        }
        change
    }

    /// A second in which all is well.
    fn well(&mut self) -> Option<Change> {
        self.tick();
        self.process(ProcessState::Running);
        self.probe(&Outcome::Good);
        self.scrape(0.0, 0.05, 20.0);
        self.evaluate()
    }

    fn settled() -> Self {
        let mut bench = Self::new();
        for _ in 0..60 {
            assert_eq!(bench.well(), None);
        }
        bench
    }
}

fn reported(change: Option<Change>) -> Symptom {
    match change {
        Some(Change::Report(_, symptom)) => *symptom,
        other => panic!("a report was expected, not {other:?}"),
    }
}

const REFUSED: Outcome = Outcome::Bad(Failure::Refused);
const TIMEOUT: Outcome = Outcome::Bad(Failure::Timeout);

#[test]
fn a_death_is_reported_at_once_repeated_slowly_and_cleared_by_good_data() {
    let mut bench = Bench::settled();
    bench.tick();
    bench.process(ProcessState::Dead);
    let symptom = reported(bench.evaluate());
    assert_eq!((symptom.kind.as_str(), symptom.severity), ("down", Severity::Critical));
    assert_eq!(symptom.summary, "down: the process has died (signal 9)");
    assert_eq!(symptom.labels["process"], "dead");
    assert_eq!(symptom.labels["config_changed_ms"], "5000");
    assert_eq!(symptom.labels["previous_config"], "abc");
    assert_eq!(symptom.source, "shard-1");
    let mut reports = 0;
    for _ in 0..65 {
        bench.tick();
        bench.process(ProcessState::Dead);
        bench.probe(&REFUSED);
        bench.entity.on_scrape(Err("scrape answered HTTP status 503".to_owned()), bench.now);
        reports += u32::from(bench.evaluate().is_some());
    }
    // Once because the probes joined, twice for the time.
    assert_eq!(reports, 3);
    bench.started = 2;
    let mut changes = Vec::new();
    for _ in 0..10 {
        changes.extend(bench.well());
    }
    assert_eq!(changes, [Change::Clear(Kind::Down, symptom.fingerprint())]);
}

#[test]
fn probes_need_two_failures() {
    for (outcome, kind) in [
        (REFUSED, "down"),
        (TIMEOUT, "unresponsive"),
        (Outcome::Bad(Failure::Status(500)), "errors"),
    ] {
        let mut bench = Bench::settled();
        bench.tick();
        bench.probe(&outcome);
        assert_eq!(bench.evaluate(), None);
        assert_eq!(
            bench.entity.probe_again("http"),
            Some(Millis(2_000)),
            "the first is looked at again"
        );
        bench.tick();
        bench.probe(&outcome);
        assert_eq!(reported(bench.evaluate()).kind, kind);
        assert_eq!(bench.entity.probe_again("http"), None);
    }
    let mut bench = Bench::settled();
    for _ in 0..10 {
        bench.tick();
        bench.probe(&Outcome::NoData("no descriptors left".to_owned()));
        bench.entity.on_scrape(Err("scrape answered HTTP status 503".to_owned()), bench.now);
        bench.entity.on_process(None, bench.now);
        assert_eq!(bench.evaluate(), None, "no data is not bad");
    }
}

#[test]
fn a_pause_is_no_death() {
    let mut bench = Bench::settled();
    let mut first = None;
    for _ in 0..3 {
        bench.tick();
        bench.process(ProcessState::Paused);
        bench.probe(&TIMEOUT);
        first = first.or_else(|| bench.evaluate());
    }
    let symptom = reported(first);
    assert_eq!(symptom.kind, "unresponsive");
    assert_eq!(symptom.labels["process"], "paused");
}

#[test]
fn what_was_stopped_on_purpose_or_just_started_is_well() {
    let mut bench = Bench::settled();
    for _ in 0..20 {
        bench.tick();
        bench.process(ProcessState::Stopped);
        bench.probe(&REFUSED);
        assert_eq!(bench.evaluate(), None);
    }
    bench.started = 2;
    for _ in 0..3 {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&REFUSED);
        assert_eq!(bench.evaluate(), None, "it is still starting");
    }
    bench.tick();
    bench.process(ProcessState::Running);
    bench.probe(&REFUSED);
    assert_eq!(reported(bench.evaluate()).kind, "down");
    let mut standby = Bench::with(r#"{"name":"web-2","standby":true}"#);
    for _ in 0..20 {
        standby.tick();
        standby.probe(&REFUSED);
        assert_eq!(standby.evaluate(), None);
    }
}

#[test]
fn treatment_raises_nothing_new_and_hides_nothing_after_it() {
    let mut bench = Bench::settled();
    bench.circumstances.treated = true;
    for _ in 0..10 {
        bench.tick();
        bench.process(ProcessState::Dead);
        bench.probe(&REFUSED);
        assert_eq!(bench.evaluate(), None);
    }
    bench.circumstances.treated = false;
    assert_eq!(reported(bench.evaluate()).kind, "down");
}

#[test]
fn errors_are_one_finding_and_stay_until_good_values_come() {
    let mut bench = Bench::settled();
    let mut reports = Vec::new();
    for _ in 0..5 {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&Outcome::Good);
        bench.scrape(0.42, 0.2, 20.0);
        reports.extend(bench.evaluate());
    }
    assert_eq!(reports.len(), 1, "{reports:?}");
    let symptom = reported(reports.pop());
    assert_eq!((symptom.kind.as_str(), symptom.severity), ("errors", Severity::Critical));
    assert_eq!(symptom.labels["indicator"], "error_rate");
    assert!(
        symptom.summary.contains("error_rate is 42.0 %, above its limit of 5.0 %"),
        "{}",
        symptom.summary
    );
    // That it is slow as well may be a hiccup yet.
    let signals: Vec<&str> = symptom.signals.iter().map(|signal| signal.name.as_str()).collect();
    assert_eq!(signals, ["metric.error_rate"]);
    // No traffic, no values: not good, not repeated.
    for _ in 0..60 {
        bench.tick();
        bench.probe(&Outcome::Good);
        bench.entity.on_scrape(Err("scrape answered HTTP status 503".to_owned()), bench.now);
        assert_eq!(bench.evaluate(), None);
    }
    let changes: Vec<Change> = (0..4).filter_map(|_| bench.well()).collect();
    assert_eq!(changes, [Change::Clear(Kind::Errors, symptom.fingerprint())]);
}

#[test]
fn limits_that_predictions_were_wrong_about_are_told_of_once_they_are_crossed() {
    let mut bench = Bench::settled();
    bench.circumstances.doubted = BTreeSet::from(["memory".to_owned()]);
    let (mut told, mut foretold) = (Vec::new(), false);
    for second in 0..90_u32 {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&Outcome::Good);
        bench.scrape(0.0, 0.05, 20.0 + 1.5 * f64::from(second));
        foretold |= !bench.entity.limits_foretold().is_empty();
        told.extend(bench.evaluate());
    }
    assert!(foretold);
    let kinds: Vec<&str> = told.into_iter().map(|change| reported_kind(&change)).collect();
    assert!(kinds.contains(&"saturation") && !kinds.contains(&"saturation-predicted"), "{kinds:?}");
}

fn reported_kind(change: &Change) -> &'static str {
    match change {
        Change::Report(kind, _) | Change::Clear(kind, _) => kind.as_str(),
    }
}

#[test]
fn a_leak_is_reported_before_its_limit_and_cleared_by_a_restart() {
    let mut bench = Bench::settled();
    let mut found = None;
    for second in 0..15_u32 {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&Outcome::Good);
        bench.scrape(0.0, 0.05, 20.0 + 1.5 * f64::from(second));
        found = found.or_else(|| bench.evaluate());
    }
    let symptom = reported(found);
    assert_eq!(
        (symptom.kind.as_str(), symptom.severity),
        ("saturation-predicted", Severity::Warning)
    );
    assert!(
        symptom.predicted() && symptom.summary.contains("limit of 128 MiB"),
        "{}",
        symptom.summary
    );
    bench.started = 2;
    let changes: Vec<Change> = (0..6).filter_map(|_| bench.well()).collect();
    assert_eq!(changes, [Change::Clear(Kind::SaturationPredicted, symptom.fingerprint())]);
}

#[test]
fn a_fault_that_outlives_its_incident_is_told_again() {
    let mut bench = Bench::settled();
    bench.tick();
    bench.process(ProcessState::Dead);
    reported(bench.evaluate());
    for _ in 0..2 {
        bench.tick();
        bench.process(ProcessState::Dead);
        assert_eq!(bench.evaluate(), None);
    }
    bench.circumstances.unheld.insert(Kind::Down);
    assert_eq!(reported(bench.evaluate()).kind, "down");
}

#[test]
fn an_adopted_finding_is_cleared_when_all_is_well_and_reported_when_it_is_not() {
    let mut bench = Bench::new();
    bench.entity.adopt(Kind::Errors, Timestamp(5));
    let mut changes = Vec::new();
    for _ in 0..6 {
        changes.extend(bench.well());
    }
    assert!(matches!(changes[..], [Change::Clear(Kind::Errors, _)]), "{changes:?}");
    let mut bench = Bench::new();
    bench.entity.adopt(Kind::Errors, Timestamp(5));
    let mut changes = Vec::new();
    for _ in 0..60 {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&Outcome::Good);
        bench.scrape(0.42, 0.05, 20.0);
        changes.extend(bench.evaluate());
    }
    assert!(
        !changes.is_empty() && !changes.iter().any(|c| matches!(c, Change::Clear(..))),
        "{changes:?}"
    );
    assert_eq!(reported(changes.pop()).since, Timestamp(5));
}

#[test]
fn a_lost_agent_is_a_finding_of_its_own() {
    let mut bench = Bench::settled();
    bench.circumstances.agent_away = true;
    let mut found = None;
    for second in 0..12 {
        bench.tick();
        bench.entity.on_process(None, bench.now);
        bench.probe(&Outcome::Good);
        let change = bench.evaluate();
        assert!(change.is_none() || second >= 9, "after {second} s");
        found = found.or(change);
    }
    assert_eq!(reported(found).kind, "agent-lost");
    bench.circumstances.agent_away = false;
    let changes: Vec<Change> = (0..6).filter_map(|_| bench.well()).collect();
    assert!(matches!(changes[..], [Change::Clear(Kind::AgentLost, _)]), "{changes:?}");
}

#[test]
fn checkpoints_carry_what_the_detectors_know() {
    let bench = Bench::settled();
    let bytes = medic_state::codec::encode(&bench.entity.checkpoint(bench.now));
    let checkpoint: EntityCheckpoint = medic_state::codec::decode(&bytes).unwrap();
    let mut other = Bench::new();
    other.now.mono_ms = 77_000;
    other.entity.restore(checkpoint, other.now);
    // Without a warm-up: latency that lasts is odd at once.
    let mut found = None;
    for _ in 0..5 {
        other.tick();
        other.scrape(0.0, 3.0, 20.0);
        found = found.or(other.evaluate());
    }
    assert_eq!(reported(found).kind, "latency");
}

#[test]
fn a_scrape_that_fails_puts_its_monitors_in_error_and_says_why() {
    use crate::detection::health::{Monitor, Status};
    let mut bench = Bench::settled();
    let health = bench.entity.health(bench.now);
    assert_eq!((health.status, health.score), (Status::Healthy, Some(100)), "{health:?}");
    bench.tick();
    bench.process(ProcessState::Running);
    bench.probe(&Outcome::Good);
    bench.entity.on_scrape(Err("scrape answered HTTP status 503".to_owned()), bench.now);
    let health = bench.entity.health(bench.now);
    assert_eq!((health.status, health.score), (Status::Error, Some(50)));
    let of = |wanted| health.monitors.iter().find(|one| one.monitor == wanted).unwrap();
    let performance = of(Monitor::Performance);
    assert_eq!(performance.status, Status::Error);
    assert!(performance.causes[0].ends_with("scrape answered HTTP status 503"), "{performance:?}");
    assert_eq!(of(Monitor::Security).status, Status::NotWatched);
    // A dead process weighs more, and one that was stopped on purpose is not ill.
    bench.process(ProcessState::Dead);
    let health = bench.entity.health(bench.now);
    assert_eq!((health.status, health.score), (Status::Unhealthy, Some(0)));
    bench.process(ProcessState::Stopped);
    assert_eq!(bench.entity.health(bench.now).status, Status::Stopped);
}

/// After how many seconds of such scrapes something is reported.
fn reported_after(bench: &mut Bench, errors: f64, latency: f64) -> Option<u32> {
    (1..60).find(|_| {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&Outcome::Good);
        bench.scrape(errors, latency, 20.0);
        bench.evaluate().is_some()
    })
}

#[test]
fn a_detector_that_cried_wolf_is_slower_and_a_fact_is_not() {
    use medic_state::weight::Detector::{Cusum, Level};
    let mut bench = Bench::settled();
    assert_eq!(reported_after(&mut bench, 0.0, 3.0), Some(5), "once it has lasted");
    let lesson =
        ["latency_p99", "error_rate"].map(|name| [(name, Level, -700), (name, Cusum, -700)]);
    let lesson = trust::tests::trust(&lesson.concat());
    let mut bench = Bench::settled();
    bench.circumstances.trust = lesson.clone();
    assert_eq!(reported_after(&mut bench, 0.0, 3.0), Some(13), "eight seconds more");
    let mut bench = Bench::settled();
    bench.circumstances.trust = lesson;
    let crossed = reported_after(&mut bench, 0.42, 0.05);
    assert!(crossed.is_some_and(|after| after <= 2), "a limit has no weight: {crossed:?}");
}
