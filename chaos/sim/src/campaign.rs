//! Many seeds: run beside each other, counted, some run twice.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;

use crate::{
    check::Violation,
    coverage::{Coverage, Sometimes},
    history::lock,
    layer_b::Mark,
    run::{Layer, Plan, run},
};

/// One of so many seeds is run twice and compared.
pub(crate) const TWICE: u64 = 100;
/// Failing seeds kept with their violations; of more, only the number.
const FAILED_MAX: usize = 20;

/// What a campaign found.
#[derive(Debug, Default)]
pub struct Report {
    /// What was simulated.
    pub layer: Layer,
    /// Seeds run.
    pub seeds: u64,
    /// Seeds run twice.
    pub twice: u64,
    /// Simulated time, second runs not counted.
    pub simulated: Duration,
    /// Processor time, second runs not counted.
    pub spent: Duration,
    /// Entries committed.
    pub committed: u64,
    /// Calls of clients that were recorded; none in layer A.
    pub calls: u64,
    /// States reached.
    pub coverage: Coverage,
    /// States reached that only whole nodes reach.
    pub marks: BTreeMap<Mark, u64>,
    /// Failing seeds, the first few.
    pub failed: BTreeMap<u64, Vec<String>>,
    /// How many failed.
    pub failures: u64,
}

impl Report {
    /// Simulated seconds per second of processor time.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.simulated.as_secs_f64() / self.spent.as_secs_f64().max(1e-9)
    }

    /// Seeds in which nothing could be broken after the faults: their drill did not happen.
    #[must_use]
    pub fn without_drill(&self) -> u64 {
        self.seeds.saturating_sub(self.coverage.count(Sometimes::Drilled))
    }

    /// States that were never reached.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let states = self.states();
        states.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }

    /// How often each state was reached that this layer can reach.
    #[must_use]
    pub fn states(&self) -> Vec<(&'static str, u64)> {
        let whole = self.layer == Layer::B;
        let shared = Sometimes::ALL.iter().filter(|one| !whole || one.of_every_layer());
        let shared = shared.map(|one| (one.as_str(), self.coverage.count(*one)));
        let marks = Mark::ALL.iter().filter(|_| whole);
        let count = |mark: &Mark| self.marks.get(mark).copied().unwrap_or_default();
        shared.chain(marks.map(|mark| (mark.as_str(), count(mark)))).collect()
    }

    /// For programs.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let coverage = self.states().into_iter();
        Summary {
            seeds: self.seeds,
            twice: self.twice,
            simulated_hours: self.simulated.as_secs_f64() / 3_600.0,
            speed: self.speed(),
            committed: self.committed,
            failures: self.failures,
            without_drill: self.without_drill(),
            calls: self.calls,
            failed: self.failed.clone(),
            coverage: coverage.map(|(name, count)| (name.to_owned(), count)).collect(),
        }
    }
}

/// A report as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    seeds: u64,
    twice: u64,
    simulated_hours: f64,
    speed: f64,
    committed: u64,
    calls: u64,
    failures: u64,
    without_drill: u64,
    failed: BTreeMap<u64, Vec<String>>,
    coverage: BTreeMap<String, u64>,
}

/// Runs all seeds of layer A over so many threads. `progress` is called now and then.
///
/// # Errors
/// When no thread or runtime can be had.
pub fn campaign(
    seeds: Range<u64>,
    threads: usize,
    progress: &(dyn Fn(&Report) + Sync),
) -> io::Result<Report> {
    over_seeds(Layer::A, seeds, threads, &one, progress)
}

/// Runs `one` for every seed, so many at a time, and adds up what they found; the first error ends it.
pub(crate) fn over_seeds(
    layer: Layer,
    seeds: Range<u64>,
    at_once: usize,
    one: &(dyn Fn(u64) -> io::Result<One> + Sync),
    progress: &(dyn Fn(&Report) + Sync),
) -> io::Result<Report> {
    let next = AtomicU64::new(seeds.start);
    let report = Mutex::new(Report { layer, ..Report::default() });
    let failed: Mutex<Option<io::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..at_once.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || lock(&failed).is_some() {
                        return;
                    }
                    match one(seed) {
                        Ok(one) => {
                            let mut report = lock(&report);
                            merge(&mut report, seed, one);
                            progress(&report);
                        }
                        Err(error) => *lock(&failed) = Some(error),
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_default() {
        Some(error) => Err(error),
        None => Ok(report.into_inner().unwrap_or_default()),
    }
}

/// One seed's share.
pub(crate) struct One {
    pub(crate) report: Report,
    pub(crate) violations: Vec<String>,
}

fn one(seed: u64) -> io::Result<One> {
    let plan = Plan { seed, ..Plan::default() };
    let mut outcome = run(&plan)?;
    let twice = seed.is_multiple_of(TWICE);
    if twice {
        let again = run(&plan)?;
        if again.hash != outcome.hash {
            let text = format!(
                "the same seed gave another trace: {} and {}",
                outcome.hash.short(),
                again.hash.short()
            );
            let (invariant, checker) = (0, "determinism");
            outcome.violations.push(Violation { invariant, checker, ms: 0, text });
        }
    }
    let report = Report {
        layer: Layer::A,
        seeds: 1,
        twice: u64::from(twice),
        simulated: outcome.simulated,
        spent: outcome.spent,
        committed: outcome.committed,
        calls: outcome.calls,
        coverage: outcome.coverage,
        marks: outcome.marks,
        failed: BTreeMap::new(),
        failures: u64::from(!outcome.violations.is_empty()),
    };
    let violations = outcome.violations.iter().map(ToString::to_string).collect();
    Ok(One { report, violations })
}

fn merge(all: &mut Report, seed: u64, one: One) {
    let One { report, violations } = one;
    all.seeds += report.seeds;
    all.twice += report.twice;
    all.simulated += report.simulated;
    all.spent += report.spent;
    all.committed += report.committed;
    all.calls += report.calls;
    for (mark, count) in report.marks {
        *all.marks.entry(mark).or_default() += count;
    }
    all.coverage.merge(&report.coverage);
    all.failures += report.failures;
    if !violations.is_empty() && all.failed.len() < FAILED_MAX {
        all.failed.insert(seed, violations);
    }
}
