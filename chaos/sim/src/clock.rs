//! Clocks and chance of one simulated node. The wall clock is skewed, drifts and jumps; monotonic
//! time is the runtime's and is the same for everybody.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use medic_raft::{Clock, Entropy, Env, env::RngEntropy};
use medic_state::Timestamp;
use tokio::time::Instant;

use crate::{history::lock, rng::Rng};

/// Where the wall clocks of all nodes begin: 14 November 2023, 22:13:20 UTC.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// Where a run is in simulated time.
#[derive(Clone, Debug)]
pub enum Time {
    /// Since this instant of the one runtime in which everything runs.
    Runtime(Instant),
    /// As whoever drives several runtimes counts: milliseconds.
    Ticks(Arc<AtomicU64>),
}

impl Time {
    /// Simulated milliseconds since the run began.
    #[must_use]
    pub fn ms(&self) -> u64 {
        match self {
            Self::Runtime(begun) => u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            Self::Ticks(ms) => ms.load(Ordering::Acquire),
        }
    }
}

/// A wall clock that may lie.
#[derive(Debug)]
pub struct SkewedClock {
    time: Time,
    lie: Mutex<Lie>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lie {
    offset_ms: i64,
    /// Milliseconds gained per 1,000.
    drift: i64,
}

impl SkewedClock {
    /// True for now.
    #[must_use]
    pub fn new(time: Time) -> Arc<Self> {
        Arc::new(Self { time, lie: Mutex::default() })
    }

    /// Jumps by so much.
    pub fn jump(&self, by_ms: i64) {
        lock(&self.lie).offset_ms += by_ms;
    }

    /// Gains (or loses) so many milliseconds per second from the beginning on.
    pub fn drift(&self, per_second_ms: i64) {
        lock(&self.lie).drift = per_second_ms;
    }

    /// True again.
    pub fn mend(&self) {
        *lock(&self.lie) = Lie::default();
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.time.ms()).unwrap_or(i64::MAX);
        let Lie { offset_ms, drift } = *lock(&self.lie);
        let lied = elapsed + offset_ms + elapsed / 1_000 * drift;
        Timestamp(EPOCH_MS.saturating_add_signed(lied))
    }
}

/// Clock and chance of one incarnation of a node.
#[must_use]
pub fn env(clock: Arc<SkewedClock>, rng: &mut Rng) -> Env {
    let entropy: Arc<dyn Entropy> = Arc::new(RngEntropy::seeded(rng.next_u64()));
    Env { clock, entropy }
}
