//! What one check has found, time after time.

use super::Now;
use crate::detection::probe::{Failure, Liveness, Outcome};

/// Outcomes of one check in a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub(super) last: Option<Outcome>,
    pub(super) bad: u16,
    pub(super) good: u16,
    pub(super) heard_ms: u64,
}

impl Track {
    pub(super) fn note(&mut self, outcome: Outcome, now: Now) {
        match &outcome {
            Outcome::Good | Outcome::Bad(Failure::Process(Liveness::Stopped)) => {
                self.good = self.good.saturating_add(1);
                self.bad = 0;
            }
            Outcome::Bad(_) => {
                self.bad = self.bad.saturating_add(1);
                self.good = 0;
            }
            Outcome::NoData(_) => (self.good, self.bad) = (0, 0),
        }
        if !matches!(outcome, Outcome::NoData(_)) {
            self.heard_ms = now.mono_ms;
        }
        self.last = Some(outcome);
    }
}
