//! What checks found, in a row.

use medic_state::Timestamp;
use minicbor::{Decode, Encode};

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

/// A process, and for how long it has been seen, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Watched {
    /// Its id, on its host.
    #[n(0)]
    pub pid: u32,
    /// When it began, by its host's clock.
    #[n(1)]
    pub started_unix_ms: u64,
    /// Milliseconds for which it had been seen at the checkpoint's time.
    #[n(2)]
    pub age_ms: u64,
}

impl ProcessTrack {
    pub(super) fn watched(&self, now: Now) -> Option<Watched> {
        let age_ms = now.mono_ms.saturating_sub(self.since_ms);
        self.incarnation.map(|(pid, started_unix_ms)| Watched { pid, started_unix_ms, age_ms })
    }

    /// What an earlier owner saw of the process, so that it is no younger here. Whether it is the one seen
    /// here, as far as anybody knows.
    pub(super) fn take_over(&mut self, watched: Option<Watched>, now: Now) -> bool {
        let Some(Watched { pid, started_unix_ms, age_ms }) = watched else {
            return self.incarnation.is_none();
        };
        let theirs = (pid, started_unix_ms);
        let since_ms = now.mono_ms.saturating_sub(age_ms);
        match self.incarnation {
            Some(ours) if ours != theirs => return false,
            Some(_) => self.since_ms = self.since_ms.min(since_ms),
            None => (self.incarnation, self.since_ms) = (Some(theirs), since_ms),
        }
        true
    }
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
