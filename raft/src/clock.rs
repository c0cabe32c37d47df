//! The leader's clock: the wall clock, but never behind the law's time and never standing still.
//!
//! The law's time is the greatest `at` it was given. A leader whose wall clock lags behind its
//! predecessor's would leave the law's time frozen until it has caught up, and with it every pause,
//! cooldown and expiry. So a leader carries the law's time on with its monotonic clock: rates are
//! trusted, absolute values are not.

use std::sync::{Arc, Mutex, PoisonError};

use medic_state::Timestamp;
use tokio::time::Instant;

use crate::env::Clock;

/// A clock that is never behind the law's time, and carries it on.
#[derive(Clone)]
pub struct LawClock {
    wall: Arc<dyn Clock>,
    carried: Arc<Mutex<Carried>>,
}

/// The law's time as of a moment.
#[derive(Clone, Copy, Debug)]
struct Carried {
    law: Timestamp,
    at: Instant,
}

impl LawClock {
    /// Carries on from the law's time as applied here now.
    #[must_use]
    pub fn start(wall: Arc<dyn Clock>, law: Timestamp) -> Self {
        Self { wall, carried: Arc::new(Mutex::new(Carried { law, at: Instant::now() })) }
    }

    /// The law's time has moved. When it is ahead of this clock (this node's wall clock was, and was
    /// put right; or it stamped what others sent), it is carried on from there: else everything due
    /// after a pause would wait until the wall clock has caught up.
    pub fn heed(&self, law: Timestamp) {
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        if law > carried.now() {
            *carried = Carried { law, at: Instant::now() };
        }
    }

    /// Milliseconds since the Unix epoch, as a leader stamps its entries.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner).now();
        self.wall.now().max(carried)
    }
}

impl Carried {
    fn now(self) -> Timestamp {
        let elapsed_ms = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.law.0.saturating_add(elapsed_ms))
    }
}

impl std::fmt::Debug for LawClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LawClock").field("carried", &self.carried).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_wall_clock_that_was_ahead_and_is_put_right_stops_no_time() {
        let hand = Arc::new(Hand(AtomicU64::new(1_000)));
        let clock = LawClock::start(hand.clone(), Timestamp(0));
        hand.0.store(500_000, Ordering::Relaxed);
        let law = clock.now();
        hand.0.store(1_000, Ordering::Relaxed);
        clock.heed(law);
        let first = clock.now();
        assert!(first >= law, "never behind the law's time");
        while clock.now() == first {
            // Never standing still: this ends.
            std::thread::yield_now();
        }
    }
}
