//! What checks found, in a row.

use medic_state::Timestamp;

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

/// The process, as its agent tells.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessTrack {
    pub(super) track: Track,
    pub(super) liveness: Liveness,
    pub(super) incarnation: Option<(u32, u64)>,
    pub(super) since_ms: u64,
    pub(super) last_exit: String,
    pub(super) config_changed: Timestamp,
    pub(super) previous_config: String,
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
