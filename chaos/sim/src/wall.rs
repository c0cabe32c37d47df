//! Real time, for those who wait for a simulation.
//!
//! In this program the C library's clock, and with it `std::time::Instant`, is the simulation's while
//! a thread runs hosts, and stands still elsewhere (`mad-turmoil`): whoever wants the real one asks
//! the kernel.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A stopwatch.
#[derive(Clone, Copy, Debug)]
pub struct Watch(Duration);

impl Watch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(now())
    }

    /// Real time since it was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        now().saturating_sub(self.0)
    }
}

/// Time since the system was booted, as the kernel tells it.
fn now() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    let whole = Duration::from_secs(u64::try_from(tv_sec).unwrap_or_default());
    whole + Duration::from_nanos(u64::try_from(tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_passes_for_it() {
        let watch = Watch::start();
        while watch.elapsed().is_zero() {
            std::hint::spin_loop();
        }
    }
}
