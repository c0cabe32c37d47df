//! What is wrong is told soon, however far apart scrapes are; and nobody is scraped closely for ever.

use super::{super::closer::CONFIRM_MS, *};

const INTERVAL_MS: u64 = 5_000;
/// All is well before this.
const FROM_MS: u64 = 600_000;

/// Tests that were begun without a finding.
const PROPOSED_BEFORE: u32 = 20;

/// An instance that is scraped each 5 s, or sooner where it asks for that.
struct Scraped {
    bench: Bench,
    clock: u64,
    next: u64,
    scrapes: u32,
}

impl Scraped {
    fn new() -> Self {
        let mut bench = Bench::new();
        // Its shard has been watched for a while: what is proposed needs more proof than at first.
        for _ in 0..PROPOSED_BEFORE {
            bench.stream.begin(crate::detection::lord::LEVEL, bench.now.wall);
        }
        Self { bench, clock: 0, next: INTERVAL_MS, scrapes: 0 }
    }

    /// All has been well until [`FROM_MS`].
    fn settled() -> Self {
        let mut scraped = Self::new();
        while scraped.clock < FROM_MS {
            assert_eq!(scraped.step(0.0, 20.0), None);
        }
        scraped
    }

    /// A tenth of a second, in which the errors and the memory (MiB) are these if they are asked for.
    fn step(&mut self, errors: f64, memory: f64) -> Option<Symptom> {
        self.clock += 100;
        self.bench.now.mono_ms += 100;
        self.bench.now.wall = self.bench.now.wall.plus(Millis(100));
        if self.clock.is_multiple_of(1_000) {
            self.bench.process(ProcessState::Running);
            self.bench.probe(&Outcome::Good);
        }
        if self.clock == self.next {
            self.scrapes += 1;
            self.bench.scrape(errors, 0.05, memory);
            let again = self.bench.entity.look_again().map_or(INTERVAL_MS, |soon| soon.0);
            self.next = self.clock + again.min(INTERVAL_MS);
        }
        let change = self.bench.evaluate();
        change.is_some().then(|| reported(change))
    }

    /// Another node watches it from now on, and starts warm.
    fn moves(&mut self) {
        let checkpoint = self.bench.entity.checkpoint(self.bench.now);
        let mut heir = Bench::new();
        heir.stream = self.bench.stream.clone();
        heir.now = Now { mono_ms: BEGUN_MS + 7_000, wall: self.bench.now.wall };
        heir.entity.restore(checkpoint, heir.now);
        self.bench = heir;
    }

    /// Until it is told, at the latest two minutes after it began; seconds after that.
    fn told_after(begins: u64, errors: f64, memory: impl Fn(f64) -> f64) -> Option<(f64, Symptom)> {
        Self::new().told(begins, errors, memory)
    }

    fn told(
        mut self,
        begins: u64,
        errors: f64,
        memory: impl Fn(f64) -> f64,
    ) -> Option<(f64, Symptom)> {
        let scraped = &mut self;
        let from = scraped.clock.max(FROM_MS) + begins;
        while scraped.clock < from + 120_000 {
            // What is scraped at the end of this step.
            let since = (scraped.clock + 100).saturating_sub(from) as f64 / 1e3;
            let errors = if since > 0.0 { errors } else { 0.0 };
            if let Some(symptom) = scraped.step(errors, memory(since)) {
                return Some((since, symptom));
            }
        }
        None
    }
}

/// When in an interval something begins.
fn phases() -> impl Iterator<Item = u64> {
    (0..INTERVAL_MS).step_by(500)
}

#[test]
fn at_five_seconds_a_leak_is_told_within_fifteen() {
    for begins in phases() {
        // Noise of 0.2 MiB without a generator; a limit of 128 MiB half a minute away.
        let memory = |since: f64| 20.0 + 0.2 * (since * 7.3).sin() + 4.0 * since;
        let (after, symptom) = Scraped::told_after(begins, 0.0, memory).unwrap();
        assert_eq!(symptom.kind, "saturation-predicted");
        assert!(after <= 15.0, "{after} s after a leak that began {begins} ms after a scrape");
    }
}

#[test]
fn a_leak_that_begins_as_the_shard_moves_is_told_as_soon() {
    for begins in phases() {
        let mut scraped = Scraped::settled();
        scraped.moves();
        let memory = |since: f64| 20.0 + 0.2 * (since * 7.3).sin() + 4.0 * since;
        let (after, symptom) = scraped.told(begins, 0.0, memory).unwrap();
        assert_eq!(symptom.kind, "saturation-predicted");
        assert!(after <= 15.0, "{after} s after a leak that began {begins} ms after the move");
    }
}

#[test]
fn at_five_seconds_a_crossed_limit_is_told_within_an_interval_and_a_look() {
    for begins in phases() {
        let (after, symptom) = Scraped::told_after(begins, 0.42, |_| 20.0).unwrap();
        assert_eq!(symptom.kind, "errors");
        let most = (INTERVAL_MS + CONFIRM_MS) as f64 / 1e3;
        assert!(after <= most, "{after} s after errors that began {begins} ms after a scrape");
    }
}

#[test]
fn what_goes_wrong_beside_an_open_finding_is_told_as_soon() {
    for begins in phases() {
        let mut scraped = Scraped::settled();
        let from = FROM_MS + 30_000 + begins;
        let told = loop {
            let full = scraped.clock + 100 > from;
            let symptom = scraped.step(0.42, if full { 200.0 } else { 20.0 });
            if symptom.is_some_and(|symptom| symptom.summary.contains("memory")) {
                break scraped.clock - from;
            }
            assert!(scraped.clock < from + 60_000);
        };
        let most = INTERVAL_MS + CONFIRM_MS + AGAIN_MS;
        assert!(told <= most, "{told} ms, {begins} ms after a scrape");
    }
}

#[test]
fn a_resource_on_another_level_is_looked_at_closely_for_seconds_only() {
    let mut scraped = Scraped::settled();
    let usual = scraped.scrapes;
    assert_eq!(u64::from(usual), FROM_MS / INTERVAL_MS);
    while scraped.clock < 2 * FROM_MS {
        assert_eq!(scraped.step(0.0, 60.0), None, "a step is no leak");
    }
    let more = scraped.scrapes - usual;
    assert!((usual + 8..=usual + 16).contains(&more), "{more} scrapes, usually {usual}");
}
