//! What an agent remembers of its orders, and what follows for the next one. In memory; the
//! [`super::journal`] makes it durable, a simulation keeps it as it likes.
//!
//! Invariants: the highest fence never decreases; a key with an outcome is not carried out again,
//! unless that outcome says that it was not done and the order is a later attempt.

use std::collections::{BTreeMap, VecDeque};

use medic_state::planted::{Planted, planted};
use serde::{Deserialize, Serialize};

/// Keys remembered. A leader asks again within minutes; an agent sees this many in weeks.
pub const KEYS_MAX: usize = 10_000;

/// An act about to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Idempotency key.
    pub key: String,
    /// Which attempt.
    pub attempt: u32,
    /// Under which fence.
    pub fence: u64,
    /// When, by this host's wall clock.
    pub at_ms: u64,
    /// What is done.
    pub action: String,
    /// To which instance.
    pub target: String,
    /// Hash of the configuration file before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_before: String,
    /// Hash of the configuration file that is wanted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config_wanted: String,
    /// The process ran: there was nothing for a restore to do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub running: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done; what undo needs and people want to see.
    Done {
        /// By name.
        evidence: BTreeMap<String, String>,
    },
    /// It was not done.
    Failed {
        /// Why.
        reason: String,
        /// Whether another attempt could help.
        retryable: bool,
    },
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The first begin: what undo needs was true then.
    pub first: Begin,
    /// The last begin.
    pub last: Begin,
    /// The last begin's outcome.
    pub outcome: Option<Outcome>,
}

/// Fences, keys, outcomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    highest: u64,
    known: BTreeMap<String, Known>,
    /// Keys by the time of their first begin, oldest first.
    order: VecDeque<String>,
}

impl Book {
    /// The highest fence accepted.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a fence is older than one that was accepted.
    #[must_use]
    pub fn refuses(&self, fence: u64) -> bool {
        fence < self.highest && !planted(Planted::AgentTakesAnyFence)
    }

    /// Accepts a fence.
    pub fn raise(&mut self, fence: u64) {
        self.highest = self.highest.max(fence);
    }

    /// What is known of a key.
    #[must_use]
    pub fn known(&self, key: &str) -> Option<&Known> {
        self.known.get(key)
    }

    /// Everything known, oldest first.
    pub fn all(&self) -> impl Iterator<Item = &Known> {
        self.order.iter().filter_map(|key| self.known.get(key))
    }

    /// The outcome that answers an order without anything being done; `None`: carry it out.
    #[must_use]
    pub fn answer(&self, key: &str, attempt: u32) -> Option<&Outcome> {
        if planted(Planted::AgentForgetsKeys) {
            return None;
        }
        match self.known.get(key)? {
            Known { outcome: Some(Outcome::Failed { .. }), last, .. } if attempt > last.attempt => {
                None
            }
            Known { outcome, .. } => outcome.as_ref(),
        }
    }

    /// An act is about to be done, under an accepted fence.
    pub fn begin(&mut self, begin: Begin) {
        self.raise(begin.fence);
        if let Some(known) = self.known.get_mut(&begin.key) {
            known.last = begin;
            known.outcome = None;
            return;
        }
        self.order.push_back(begin.key.clone());
        let known = Known { first: begin.clone(), last: begin.clone(), outcome: None };
        self.known.insert(begin.key, known);
        while self.order.len() > KEYS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    /// The last begin of a key has an outcome; gives its attempt, if the key is known.
    pub fn finish(&mut self, key: &str, outcome: Outcome) -> Option<u32> {
        let known = self.known.get_mut(key)?;
        known.outcome = Some(outcome);
        Some(known.last.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(attempt: u32, fence: u64) -> Begin {
        Begin {
            key: "k".to_owned(),
            attempt,
            fence,
            at_ms: 0,
            action: "process.restart".to_owned(),
            target: "t".to_owned(),
            config_before: String::new(),
            config_wanted: String::new(),
            running: false,
        }
    }

    #[test]
    fn only_a_later_attempt_after_a_failure_is_carried_out_again() {
        let mut book = Book::default();
        assert!(book.answer("k", 1).is_none());
        book.begin(begin(1, 7));
        assert!(book.answer("k", 1).is_none(), "cut short: it is taken up again");
        let failed = Outcome::Failed { reason: "no".to_owned(), retryable: true };
        assert_eq!(book.finish("k", failed.clone()), Some(1));
        assert_eq!(book.answer("k", 1), Some(&failed));
        assert!(book.answer("k", 2).is_none());
        book.begin(begin(2, 7));
        book.finish("k", Outcome::Done { evidence: BTreeMap::new() });
        assert!(book.answer("k", 3).is_some(), "what is done stays done");
    }

    #[test]
    fn fences_never_decrease() {
        let mut book = Book::default();
        book.raise(7);
        book.raise(5);
        assert!(book.refuses(6) && !book.refuses(7));
        book.begin(begin(1, 9));
        assert_eq!(book.highest(), 9);
    }
}
