//! The leader's clock: the wall clock, but never behind the law's time and never standing still.
//!
//! The law's time is the greatest `at` it was given. A leader whose wall clock lags behind its
//! predecessor's would leave the law's time frozen until it has caught up, and with it every pause,
//! cooldown and expiry. So a leader carries the law's time on with its monotonic clock: rates are
//! trusted, absolute values are not.

use std::sync::Arc;

use medic_raft::{Clock, Ledger, LedgerExt as _};
use medic_state::Timestamp;
use tokio::time::Instant;

/// A clock that starts no earlier than the law's time did.
#[derive(Clone)]
pub struct LawClock {
    wall: Arc<dyn Clock>,
    law_at_start: Timestamp,
    started: Instant,
}

impl LawClock {
    /// Carries on from the law's time as applied here now.
    #[must_use]
    pub fn start(ledger: &dyn Ledger) -> Self {
        Self {
            wall: ledger.env().clock.clone(),
            law_at_start: ledger.read(|state| state.now),
            started: Instant::now(),
        }
    }

    /// Milliseconds since the Unix epoch, as a leader stamps its entries.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let carried = Timestamp(self.law_at_start.0.saturating_add(elapsed_ms));
        self.wall.now().max(carried)
    }
}

impl std::fmt::Debug for LawClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LawClock").field("law_at_start", &self.law_at_start).finish_non_exhaustive()
    }
}
