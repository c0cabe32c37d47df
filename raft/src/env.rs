//! The outside world's two subtle inputs, wall clock and chance, behind traits.
//!
//! Production reads the machine; a simulation seeds and skews them per node. Timers are tokio's,
//! which a simulation already owns.

use std::{sync::Arc, time::SystemTime};

use medic_state::{RequestId, Timestamp, TraceId};
use rand::{RngCore, rngs::StdRng};

/// Wall clock.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Randomness, and the ids made from it.
pub trait Entropy: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// A fresh request id.
    fn request_id(&self) -> RequestId {
        RequestId(format!("{:016x}{:016x}", self.next_u64(), self.next_u64()))
    }

    /// A fresh trace id.
    fn trace_id(&self) -> TraceId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next_u64().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next_u64().to_be_bytes());
        TraceId(bytes)
    }
}

/// A seeded or machine-seeded generator.
#[derive(Debug)]
pub struct RngEntropy(std::sync::Mutex<StdRng>);

impl RngEntropy {
    /// Seeded by the operating system.
    #[must_use]
    pub fn from_os() -> Self {
        use rand::SeedableRng as _;
        Self(std::sync::Mutex::new(StdRng::from_os_rng()))
    }

    /// Seeded by hand: the same sequence every time.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        use rand::SeedableRng as _;
        Self(std::sync::Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Entropy for RngEntropy {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next_u64()
    }
}

/// Both, as they are handed around.
#[derive(Clone)]
pub struct Env {
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Env {
    /// The real ones.
    #[must_use]
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), entropy: Arc::new(RngEntropy::from_os()) }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}
