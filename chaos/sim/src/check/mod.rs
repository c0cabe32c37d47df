//! The invariants, each held against the history of a run by a checker of its own.
//!
//! A checker keeps its own account of what should be so, from commands and from what reached the
//! world; it never asks the law.

mod acknowledged;
mod audit;
mod budgets;
mod controls;
mod effects;
mod fences;
mod intents;
#[cfg(test)]
pub(crate) mod lab;
mod liveness;
mod plans;
mod quorum;
mod replicas;
mod sagas;
mod shards;
mod time;
mod verdicts;

pub(crate) use self::shards::FAILOVER_MS;

use std::fmt;

use crate::history::Event;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number in docs/ARCHITECTURE.md; zero: a panic.
    pub invariant: u8,
    /// The checker that found it.
    pub checker: &'static str,
    /// When, in simulated milliseconds.
    pub ms: u64,
    /// What was wrong.
    pub text: String,
}

impl Violation {
    /// Code that should never panic did.
    #[must_use]
    pub fn panic(text: String) -> Self {
        Self { invariant: 0, checker: "panics", ms: 0, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, checker, ms, text } = self;
        let (s, ms) = (ms / 1_000, ms % 1_000);
        write!(f, "invariant {invariant} ({checker}) at {s}.{ms:03} s: {text}")
    }
}

/// A checker.
pub type Checker = fn(&[Event]) -> Vec<Violation>;

/// All of them.
pub const CHECKERS: &[Checker] = &[
    fences::check,
    intents::check,
    effects::check,
    sagas::check,
    plans::check,
    acknowledged::check,
    audit::check,
    replicas::check,
    shards::check,
    quorum::check,
    budgets::check,
    controls::check,
    time::check,
    verdicts::check,
    liveness::check,
];

/// Everything that did not hold, in the order of time.
#[must_use]
pub fn all(events: &[Event]) -> Vec<Violation> {
    let mut found: Vec<Violation> = CHECKERS.iter().flat_map(|check| check(events)).collect();
    found.sort_by_key(|violation| violation.ms);
    found
}

/// Collects violations of one invariant.
#[derive(Debug)]
pub(crate) struct Findings {
    invariant: u8,
    checker: &'static str,
    found: Vec<Violation>,
}

impl Findings {
    pub(crate) const fn new(invariant: u8, checker: &'static str) -> Self {
        Self { invariant, checker, found: Vec::new() }
    }

    pub(crate) fn add(&mut self, ms: u64, text: String) {
        let Self { invariant, checker, .. } = *self;
        self.found.push(Violation { invariant, checker, ms, text });
    }

    pub(crate) fn done(self) -> Vec<Violation> {
        self.found
    }
}
