//! A hiccup of a callee is no incident; what lasts is told soon, however far apart scrapes are.

use super::*;

/// What was seen at gateways: usually 6.8 ms, and 229 ms while a callee stood still.
const USUAL: f64 = 0.0068;
const SLOW: f64 = 0.229;

impl Bench {
    /// A gateway that is scraped each second, after so many seconds of the usual.
    fn gateway() -> Self {
        let mut bench = Self::new();
        for _ in 0..120 {
            assert_eq!(bench.second(USUAL), None);
        }
        bench
    }

    fn second(&mut self, latency: f64) -> Option<Change> {
        self.tick();
        self.process(ProcessState::Running);
        self.probe(&Outcome::Good);
        self.scrape(0.0, latency, 20.0);
        self.evaluate()
    }
}

#[test]
fn a_hiccup_of_a_callee_is_no_incident_and_what_lasts_is_one() {
    let mut bench = Bench::gateway();
    for _ in 0..20 {
        // A second or two touch three scrapes, and the queue drains in a fourth.
        for slow in 1..=4 {
            for _ in 0..slow {
                assert_eq!(bench.second(SLOW), None, "{slow} slow seconds");
            }
            for _ in 0..15 {
                assert_eq!(bench.second(USUAL), None);
            }
        }
    }
    let told: Vec<(u32, Change)> =
        (1..=10).filter_map(|at| Some((at, bench.second(SLOW)?))).collect();
    assert_eq!((told.len(), told[0].0), (1, 5), "{told:?}");
    let symptom = reported(told.into_iter().next().map(|(_, change)| change));
    assert_eq!(symptom.kind, "latency");
    assert!(symptom.summary.contains("usually 6.8"), "{}", symptom.summary);
}

#[test]
fn a_crossed_limit_needs_two_values_as_ever() {
    let mut bench = Bench::settled();
    bench.tick();
    bench.scrape(0.42, 0.05, 20.0);
    assert_eq!(bench.evaluate(), None);
    bench.tick();
    bench.scrape(0.42, 0.05, 20.0);
    assert_eq!(reported(bench.evaluate()).kind, "errors");
}

/// Milliseconds from a change of latency at `begins` (for `lasts`) to the report, with scrapes each 5 s, or
/// sooner where the entity asks for that. Figures are of the time since the scrape before.
fn seen_after(begins: u64, lasts: u64) -> Option<u64> {
    let mut bench = Bench::new();
    let (mut before, mut next, mut clock) = (0, 5_000, 0);
    while clock < 600_000 + begins + 60_000 {
        clock += 100;
        bench.now.mono_ms += 100;
        bench.now.wall = bench.now.wall.plus(Millis(100));
        if clock % 1_000 == 0 {
            bench.process(ProcessState::Running);
            bench.probe(&Outcome::Good);
        }
        if clock == next {
            let from = 600_000 + begins;
            let touched = before < from + lasts && clock > from;
            bench.scrape(0.0, if touched { SLOW } else { USUAL }, 20.0);
            before = clock;
            let again = bench.entity.look_again();
            next = clock + again.map_or(5_000, |soon| soon.0.min(5_000));
        }
        if let Some(change) = bench.evaluate() {
            assert_eq!(reported(Some(change)).kind, "latency");
            return Some(clock - 600_000 - begins);
        }
    }
    None
}

#[test]
fn at_five_seconds_a_lasting_fault_is_told_within_nine_and_a_hiccup_never() {
    let phases = || (0..5_000).step_by(500);
    let slowest = phases().map(|begins| seen_after(begins, 120_000).unwrap()).max().unwrap();
    assert!((5_000..=9_000).contains(&slowest), "{slowest} ms");
    for lasts in [1_000, 2_000] {
        assert!(phases().all(|begins| seen_after(begins, lasts).is_none()), "{lasts} ms");
    }
}
