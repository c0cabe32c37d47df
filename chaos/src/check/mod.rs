//! Checkers: what a campaign left behind, held against the invariants of docs/ARCHITECTURE.md.
//!
//! ```text
//!   calls of clients ──► register, replay, lists                    1
//!   journals of agents, audit chain ──► acts                        2 3 4 11 12
//!   plans as seen while they ran, and at the end ──► plans          5 6
//!   audit chains and status of every node ──► nodes                 7 8 9 10
//!   kills in the fleet, audit chain ──► reported                    10
//!   what a webhook received, audit chain ──► told                   messages to people, with 4
//!   how long it took after each heal                                14
//!   ends of processes, audit chain ──► deposed                      leaders lost in mid-remediation
//! ```
//!
//! A checker is a function of what it is given and reads no clock, except for the cap on its own
//! search: what could not be decided counts as a violation, never as a pass.

pub mod acts;
pub mod chain;
pub mod deposed;
pub mod journal;
pub mod linear;
pub mod lists;
pub mod nodes;
pub mod plans;
pub mod register;
pub mod replay;
pub mod reported;
pub mod told;

use std::path::PathBuf;

use serde::Serialize;

/// Titles of the invariants, by number.
pub const TITLES: [&str; 14] = [
    "Every call to the control API fits one linearizable history",
    "Fences accepted by a target never decrease; each is a committed one",
    "No act without a committed StartStep under its fence, with the plan before it",
    "At most one effective application per plan, step and direction",
    "Every started step ends, as its agent says; unwinding is in reverse, over started steps only",
    "Plans in flight at a crash are resumed or rolled back, as the same plan",
    "What was acknowledged is on every member after convergence, where it was said to be",
    "The audit chain has no gap, is equal on all nodes, and verifies offline",
    "Equal applied index means equal state hash",
    "One owner per shard and epoch; what lasts is reported though its watcher died",
    "A node without quorum starts nothing new",
    "Plans in flight, unknown ones among them, never exceed the budget",
    "1–12 hold under skewed wall clocks",
    "After faults heal: one leader, all caught up, reads and writes served, within 30 s",
];

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// In a sentence.
    pub what: String,
    /// The shortest evidence, a line each.
    pub evidence: Vec<String>,
    /// Where to look.
    pub files: Vec<PathBuf>,
}

impl Violation {
    /// One without evidence beyond its sentence.
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), evidence: Vec::new(), files: Vec::new() }
    }

    /// With lines of evidence.
    #[must_use]
    pub fn with(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    /// With a file to look at.
    #[must_use]
    pub fn see(mut self, file: impl Into<PathBuf>) -> Self {
        self.files.push(file.into());
        self
    }
}

/// What one invariant came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Its number, from 1.
    pub invariant: u8,
    /// How many things were checked; zero means that nothing is known.
    pub checked: u64,
    /// What they are.
    pub of: String,
    /// What was wrong.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// A verdict.
    #[must_use]
    pub fn new(invariant: u8, checked: usize, of: &str, violations: Vec<Violation>) -> Self {
        let checked = u64::try_from(checked).unwrap_or(u64::MAX);
        Self { invariant, checked, of: of.to_owned(), violations }
    }

    /// Its title.
    #[must_use]
    pub fn title(&self) -> &'static str {
        TITLES.get(usize::from(self.invariant).wrapping_sub(1)).copied().unwrap_or_default()
    }

    /// Whether nothing was wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}
