//! When silence is a finding, and what is none.

use super::*;

const BROKEN: &str = "scrape answered HTTP status 503";

impl Bench {
    /// A second with a good process and good probes, whose scrape fails.
    fn unscraped(&mut self) -> Option<Change> {
        self.tick();
        self.process(ProcessState::Running);
        self.probe(&Outcome::Good);
        self.entity.on_scrape(Err(BROKEN.to_owned()), self.now);
        self.evaluate()
    }

    /// The same with a scrape that works, of a service that nobody calls.
    fn idle(&mut self, why: &str) -> Option<Change> {
        self.tick();
        self.process(ProcessState::Running);
        self.probe(&Outcome::Good);
        let missing =
            ["error_rate", "latency_p99"].map(|name| (name.to_owned(), why.to_owned())).into();
        let values = BTreeMap::from([("memory".to_owned(), 2e7)]);
        let values = Values { values, missing, ..Values::default() };
        self.entity.on_scrape(Ok(&values), self.now);
        self.evaluate()
    }

    /// Seconds until something is told, at most `most`.
    fn until(
        &mut self,
        most: u32,
        mut second: impl FnMut(&mut Self) -> Option<Change>,
    ) -> Option<(u32, Change)> {
        (1..=most).find_map(|at| Some((at, second(self)?)))
    }
}

#[test]
fn a_silent_monitor_opens_once_is_never_healthy_and_ends_when_it_speaks() {
    let mut bench = Bench::settled();
    let (after, change) = bench.until(100, Bench::unscraped).unwrap();
    // A minute after the first failed look.
    assert_eq!(after, 61);
    let symptom = reported(Some(change));
    assert_eq!((symptom.kind.as_str(), symptom.severity), ("monitor-silent", Severity::Info));
    let expected = "not fully watched, monitors are silent: infrastructure, application, performance \
                    (scrape answered HTTP status 503)";
    assert_eq!(symptom.summary, expected);
    assert_eq!((symptom.signals.len(), symptom.signals[0].name.as_str()), (3, "metric.error_rate"));
    assert!(!symptom.felt_by_others(), "it explains nothing that others feel");
    let health = bench.entity.health(bench.now);
    assert_eq!(health.status, crate::detection::health::Status::Error);
    // Told again now and then, and nothing else is told.
    let again: Vec<Change> = (0..65).filter_map(|_| bench.unscraped()).collect();
    assert_eq!(again.len(), 2, "{again:?}");
    // One good look is no return; two are.
    assert_eq!(bench.well(), None);
    assert_eq!(bench.unscraped(), None);
    assert_eq!(bench.well(), None);
    assert_eq!(bench.well(), Some(Change::Clear(Kind::MonitorSilent, symptom.fingerprint())));
    assert_eq!(bench.until(100, Bench::well), None);
}

#[test]
fn short_gaps_and_single_looks_are_no_silence() {
    let mut bench = Bench::settled();
    for _ in 0..5 {
        assert_eq!(bench.until(55, Bench::unscraped), None);
        assert_eq!(bench.until(2, Bench::well), None);
    }
    // At an interval of five minutes one failed look lasts long.
    for _ in 0..2 {
        bench.now.mono_ms += 300_000;
        bench.entity.on_scrape(Err(BROKEN.to_owned()), bench.now);
        assert_eq!(bench.evaluate(), None);
    }
    bench.now.mono_ms += 300_000;
    bench.entity.on_scrape(Err(BROKEN.to_owned()), bench.now);
    assert_eq!(reported(bench.evaluate()).kind, "monitor-silent");
}

#[test]
fn a_new_watch_gives_time_to_those_it_never_heard() {
    // A restarted node, or a new owner: agents and exporters come in one by one.
    let mut bench = Bench::new();
    let (after, change) = bench.until(400, Bench::unscraped).unwrap();
    assert_eq!((after, reported(Some(change)).kind.as_str()), (301, "monitor-silent"));
}

#[test]
fn a_new_owner_keeps_what_is_open_until_it_heard_everybody() {
    let mut bench = Bench::new();
    bench.entity.adopt(Kind::MonitorSilent, Timestamp(5));
    assert_eq!(bench.until(60, Bench::unscraped), None);
    let back = bench.until(10, Bench::well);
    assert!(matches!(back, Some((2, Change::Clear(Kind::MonitorSilent, _)))), "{back:?}");
    // One that goes on is told of again, with the time it began.
    let mut bench = Bench::new();
    bench.entity.adopt(Kind::MonitorSilent, Timestamp(5));
    let (_, change) = bench.until(400, Bench::unscraped).unwrap();
    assert_eq!(reported(Some(change)).since, Timestamp(5));
}

#[test]
fn a_service_that_nobody_calls_is_idle_and_not_silent() {
    for why in [
        "nothing was counted since the last scrape",
        "nothing was observed since the last scrape",
        "needs a second scrape",
    ] {
        let mut bench = Bench::settled();
        assert_eq!(bench.until(400, |bench| bench.idle(why)), None);
        let health = bench.entity.health(bench.now);
        assert_eq!(health.status, crate::detection::health::Status::Waiting, "{why}");
    }
    // Counters that were never made are none missed, even after a restart; those that vanish are.
    let mut bench = Bench::new();
    assert_eq!(bench.until(400, |bench| bench.idle("no series matches")), None);
    let mut bench = Bench::settled();
    bench.started = 2;
    assert_eq!(bench.until(400, |bench| bench.idle("no series matches")), None);
    let mut bench = Bench::settled();
    let (_, change) = bench.until(100, |bench| bench.idle("no series matches")).unwrap();
    let symptom = reported(Some(change));
    assert_eq!((symptom.kind.as_str(), symptom.signals.len()), ("monitor-silent", 2));
}

#[test]
fn what_is_explained_treated_or_stopped_on_purpose_is_no_silence() {
    let dead = |bench: &mut Bench| {
        bench.tick();
        bench.process(ProcessState::Dead);
        bench.probe(&REFUSED);
        bench.entity.on_scrape(Err(BROKEN.to_owned()), bench.now);
        bench.evaluate()
    };
    let mut bench = Bench::settled();
    let told: BTreeSet<String> =
        (0..200).filter_map(|_| dead(&mut bench)).map(|c| reported(Some(c)).kind).collect();
    assert_eq!(told, BTreeSet::from(["down".to_owned()]));
    // It is back, and its scrape a minute late: the clock begins with the return.
    bench.started = 2;
    let cleared = bench.until(50, Bench::unscraped);
    assert!(matches!(cleared, Some((_, Change::Clear(Kind::Down, _)))), "{cleared:?}");
    assert_eq!(bench.until(50, Bench::unscraped), None);
    assert_eq!(bench.until(100, Bench::well), None);
    let mut bench = Bench::settled();
    bench.circumstances.treated = true;
    assert_eq!(bench.until(200, Bench::unscraped), None);
    bench.circumstances.treated = false;
    assert_eq!(bench.until(50, Bench::unscraped), None);
    let mut bench = Bench::settled();
    let stopped = |bench: &mut Bench| {
        bench.tick();
        bench.process(ProcessState::Stopped);
        bench.entity.on_scrape(Err(BROKEN.to_owned()), bench.now);
        bench.evaluate()
    };
    assert_eq!(bench.until(200, stopped), None);
}
