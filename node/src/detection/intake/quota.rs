//! How fast a tenant may send: a bucket of samples that fills again.

/// Series of a tenant per node, where its Tenant manifest does not say.
pub const SERIES_MAX: u32 = 100_000;
/// Samples a second of a tenant per node, where its Tenant manifest does not say.
pub const SAMPLES_PER_SECOND_MAX: u32 = 200_000;
/// Of its samples a second, what a tenant may send of alerts: a thousandth, since each may cost an entry of
/// the log,
const ALERTS_OF_SAMPLES: u32 = 1_000;
/// but never less than this.
const ALERTS_PER_SECOND_MIN: u32 = 10;
/// Seconds of its rate that a tenant may send at once: what piled up while a node was away.
const BURST_S: f64 = 5.0;
/// Longest time that a sender is told to wait.
const WAIT_MAX_S: u64 = 30;

/// Samples that may still be sent.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    level: f64,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(per_second: u32, now_ms: u64) -> Self {
        Self { level: f64::from(per_second) * BURST_S, at_ms: now_ms }
    }

    /// Whether anything may be sent now; takes nothing.
    ///
    /// # Errors
    /// With the seconds to wait.
    pub fn ready(&mut self, per_second: u32, now_ms: u64) -> Result<(), u64> {
        self.take(0, per_second, now_ms)
    }

    /// Takes samples out. Whoever finds anything in it may take all it has to send, and the next one
    /// waits for longer: so a message larger than the bucket is no deadlock.
    ///
    /// # Errors
    /// With the seconds to wait.
    pub fn take(&mut self, samples: usize, per_second: u32, now_ms: u64) -> Result<(), u64> {
        let rate = f64::from(per_second.max(1));
        let passed = now_ms.saturating_sub(self.at_ms) as f64 / 1e3;
        self.at_ms = self.at_ms.max(now_ms);
        self.level = (self.level + passed * rate).min(rate * BURST_S);
        if self.level <= 0.0 {
            let wait = (-self.level / rate).ceil().max(1.0);
            return Err((wait as u64).min(WAIT_MAX_S));
        }
        self.level -= samples as f64;
        Ok(())
    }
}

/// Alerts a second of a tenant that may send so many samples.
#[must_use]
pub const fn alerts_per_second(samples_per_second: u32) -> u32 {
    let share = samples_per_second / ALERTS_OF_SAMPLES;
    if share < ALERTS_PER_SECOND_MIN { ALERTS_PER_SECOND_MIN } else { share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_there_is_anything_left_can_be_asked_for_nothing() {
        let mut bucket = Bucket::full(100, 0);
        for _ in 0..1_000 {
            assert_eq!(bucket.ready(100, 0), Ok(()));
        }
        assert_eq!(bucket.take(700, 100, 0), Ok(()));
        assert_eq!(bucket.ready(100, 0), Err(2));
        assert_eq!(bucket.ready(100, 2_001), Ok(()));
        assert_eq!((alerts_per_second(200_000), alerts_per_second(1)), (200, 10));
    }

    #[test]
    fn a_rate_is_kept_and_a_burst_forgiven() {
        let mut bucket = Bucket::full(100, 0);
        assert_eq!(bucket.take(500, 100, 0), Ok(()));
        assert_eq!(bucket.take(1, 100, 0), Err(1));
        // A message larger than the bucket passes once, and is paid for afterwards.
        assert_eq!(bucket.take(2_000, 100, 1_000), Ok(()));
        assert_eq!(bucket.take(1, 100, 1_000), Err(19));
        assert_eq!(bucket.take(1, 100, 19_000), Err(1));
        assert_eq!(bucket.take(1, 100, 20_001), Ok(()));
    }

    #[test]
    fn over_a_minute_no_more_than_the_rate_passes() {
        let mut bucket = Bucket::full(100, 0);
        let taken =
            (0..60_000).step_by(10).filter(|now| bucket.take(10, 100, *now).is_ok()).count();
        let samples = taken * 10;
        assert!((6_000..=6_600).contains(&samples), "{samples}");
    }
}
