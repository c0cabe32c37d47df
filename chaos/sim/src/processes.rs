//! Many seeds, a process each: what a process inherits from the run before (the chance of `select!`,
//! the keys of hash maps) is nothing that a seed decides.
//!
//! A child is this program with `run --layer b --seed N --json`; its last line is a [`Told`].

use std::{
    collections::BTreeMap, io, ops::Range, os::unix::process::ExitStatusExt as _, path::Path,
    process::Command, time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    campaign::{One, Report, TWICE, over_seeds},
    check::Violation,
    coverage::{Coverage, Sometimes},
    layer_b::Mark,
    run::{Layer, Outcome, Plan},
    shrink::Tried,
};

/// How a process ends that panics while it panics.
const SIGABRT: i32 = 6;

/// What a child says of its run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// Its seed.
    pub seed: u64,
    /// Hash over its trace.
    pub trace: String,
    /// Broken invariants.
    pub violations: Vec<String>,
    /// The checkers that found them, the first first.
    pub checkers: Vec<String>,
    /// Faults in its schedule.
    pub faults: usize,
    /// Simulated time.
    pub simulated_ms: u64,
    /// Processor time of the simulation: of everything told, this alone may differ between two runs.
    pub spent_us: u64,
    /// Entries committed.
    pub committed: u64,
    /// Calls recorded.
    pub calls: u64,
    /// States reached.
    pub reached: BTreeMap<String, u64>,
}

impl Told {
    /// What is told of an outcome.
    #[must_use]
    pub fn of(seed: u64, outcome: &Outcome) -> Self {
        let shared = Sometimes::ALL.iter();
        let shared = shared.map(|one| (one.as_str().to_owned(), outcome.coverage.count(*one)));
        let own = outcome.marks.iter().map(|(one, count)| (one.as_str().to_owned(), *count));
        Self {
            seed,
            trace: outcome.hash.to_string(),
            violations: outcome.violations.iter().map(ToString::to_string).collect(),
            checkers: outcome.violations.iter().map(|one| one.checker.to_owned()).collect(),
            faults: outcome.schedule.len(),
            simulated_ms: u64::try_from(outcome.simulated.as_millis()).unwrap_or(u64::MAX),
            spent_us: u64::try_from(outcome.spent.as_micros()).unwrap_or(u64::MAX),
            committed: outcome.committed,
            calls: outcome.calls,
            reached: shared.chain(own).filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl Told {
    /// A panic in the midst of tidying up after another one: nothing else is known of the run.
    fn aborted(seed: u64, complaint: &str) -> Self {
        let first: Vec<&str> = complaint.lines().filter(|line| !line.is_empty()).take(2).collect();
        Self {
            seed,
            trace: String::new(),
            violations: vec![Violation::panic(first.join(" ")).to_string()],
            checkers: vec![Violation::panic(String::new()).checker.to_owned()],
            faults: 0,
            simulated_ms: 0,
            spent_us: 0,
            committed: 0,
            calls: 0,
            reached: BTreeMap::new(),
        }
    }

    /// What a shrinker has to know.
    #[must_use]
    pub fn tried(self) -> Tried {
        Tried { checkers: self.checkers, faults: self.faults }
    }
}

/// Runs one plan of layer B in a process of its own.
///
/// # Errors
/// When the child cannot be started, or says nothing that can be read.
pub fn ask(program: &Path, plan: &Plan) -> io::Result<Told> {
    let Plan { seed, keep, planted, .. } = plan;
    let mut command = Command::new(program);
    command.args(["run", "--layer", "b", "--json", "--seed", &seed.to_string()]);
    if let Some(keep) = keep {
        let keep: Vec<String> = keep.iter().map(ToString::to_string).collect();
        command.args(["--keep", &keep.join(",")]);
    }
    if let Some(planted) = planted {
        command.args(["--planted", planted.name()]);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if output.status.signal() == Some(SIGABRT) {
        return Ok(Told::aborted(*seed, &complaint));
    }
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| {
        io::Error::other(format!(
            "seed {seed} ended with {} and said {last:?} ({error}): {complaint}",
            output.status
        ))
    })
}

/// Runs all seeds, so many processes at a time. `progress` is called now and then.
///
/// # Errors
/// When a child cannot be started or read.
pub fn campaign(
    program: &Path,
    seeds: Range<u64>,
    at_once: usize,
    progress: &(dyn Fn(&Report) + Sync),
) -> io::Result<Report> {
    over_seeds(Layer::B, seeds, at_once, &|seed| one(program, seed), progress)
}

fn one(program: &Path, seed: u64) -> io::Result<One> {
    let plan = Plan { layer: Layer::B, seed, ..Plan::default() };
    let mut told = ask(program, &plan)?;
    let twice = seed.is_multiple_of(TWICE);
    if twice {
        let again = Told { spent_us: told.spent_us, ..ask(program, &plan)? };
        if again != told {
            told.violations.push(format!(
                "invariant 0 (determinism): the same seed gave another trace: {} and {}",
                told.trace, again.trace
            ));
        }
    }
    let count = |name: &str| told.reached.get(name).copied().unwrap_or_default();
    let mut coverage = Coverage::default();
    for state in Sometimes::ALL {
        coverage.add(*state, count(state.as_str()));
    }
    let marks = Mark::ALL.iter().map(|mark| (*mark, count(mark.as_str()))).collect();
    let report = Report {
        layer: Layer::B,
        seeds: 1,
        twice: u64::from(twice),
        simulated: Duration::from_millis(told.simulated_ms),
        spent: Duration::from_micros(told.spent_us),
        committed: told.committed,
        calls: told.calls,
        coverage,
        marks,
        failed: BTreeMap::new(),
        failures: u64::from(!told.violations.is_empty()),
    };
    Ok(One { report, violations: told.violations })
}
