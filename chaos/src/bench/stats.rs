//! What many measured times come to: nearest-rank percentiles, in milliseconds.

use std::time::Duration;

use serde::Serialize;

/// A set of times.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    /// How many there are.
    pub(super) count: usize,
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    /// With fewer than 100 times this is the greatest.
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl Summary {
    /// Of these times; `None` of none.
    pub(super) fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let max = *times.last()?;
        let rank = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).copied().unwrap_or(max)
        };
        Some(Self {
            count: times.len(),
            p50_ms: ms(rank(50)),
            p90_ms: ms(rank(90)),
            p99_ms: ms(rank(99)),
            max_ms: ms(max),
        })
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ranks_are_nearest() {
        assert!(Summary::of(Vec::new()).is_none());
        let one = Summary::of(vec![Duration::from_micros(1_500)]).unwrap();
        assert_eq!((one.p50_ms, one.p99_ms, one.max_ms), (1.5, 1.5, 1.5));
        let many = Summary::of((1..=200).rev().map(Duration::from_millis).collect()).unwrap();
        let found = (many.p50_ms, many.p90_ms, many.p99_ms, many.max_ms);
        assert_eq!(found, (100.0, 180.0, 198.0, 200.0));
    }
}
