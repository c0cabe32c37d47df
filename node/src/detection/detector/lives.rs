//! A leak across restarts: how fast did it fill in the lives before this one?
//!
//! A process that leaks is the same program after a restart, so the speed of its former lives foretells
//! the present one before its own trend can be told. Each life is one line from its settled beginning to
//! its end. A time is named only when every remembered life rose: an interval of speeds that spans zero
//! is no leak.

use minicbor::{Decode, Encode};

/// Lives remembered.
const LIVES: usize = 4;
/// Lives that must agree.
const LIVES_MIN: usize = 2;
/// A shorter life says nothing of its speed, seconds.
const LIFE_MIN_S: f64 = 120.0;

/// Speeds of former lives, and the ends of the line through the present one.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Lives {
    #[n(0)]
    speeds: Vec<f32>,
    #[n(1)]
    first: Option<Point>,
    #[n(2)]
    last: Option<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Encode, Decode)]
struct Point {
    #[n(0)]
    at_ms: u64,
    #[n(1)]
    value: f64,
}

impl Lives {
    /// Takes a value of the present life, once its process has settled.
    pub fn note(&mut self, at_ms: u64, value: f64) {
        let point = Point { at_ms, value };
        self.first.get_or_insert(point);
        self.last = Some(point);
    }

    /// The process is another.
    pub fn ended(&mut self) {
        let (Some(first), Some(last)) = (self.first.take(), self.last.take()) else { return };
        let seconds = last.at_ms.saturating_sub(first.at_ms) as f64 / 1e3;
        if seconds < LIFE_MIN_S {
            return;
        }
        if self.speeds.len() >= LIVES {
            self.speeds.remove(0);
        }
        self.speeds.push(((last.value - first.value) / seconds) as f32);
    }

    /// Seconds until `limit` from `value`: expected, earliest, latest.
    #[must_use]
    pub fn reach(&self, value: f64, limit: f64) -> Option<(f64, f64, f64)> {
        let mut speeds: Vec<f64> = self.speeds.iter().map(|speed| f64::from(*speed)).collect();
        speeds.sort_unstable_by(f64::total_cmp);
        let (&slowest, &fastest) = (speeds.first()?, speeds.last()?);
        if speeds.len() < LIVES_MIN || slowest <= 0.0 || value >= limit {
            return None;
        }
        let left = limit - value;
        let middle = f64::midpoint(speeds[(speeds.len() - 1) / 2], speeds[speeds.len() / 2]);
        Some((left / middle, left / fastest, left / slowest))
    }

    /// Moves the present life in time; see [`super::Trend::rebase`].
    pub fn rebase(&mut self, then_ms: u64, now_ms: u64) {
        for point in [&mut self.first, &mut self.last].into_iter().flatten() {
            point.at_ms = (point.at_ms + now_ms).saturating_sub(then_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn life(lives: &mut Lives, seconds: u64, speed: f64) {
        (0..=seconds).for_each(|at| lives.note(at * 1_000, 50.0 + speed * at as f64));
        lives.ended();
    }

    #[test]
    fn former_lives_foretell_the_present_one() {
        let mut lives = Lives::default();
        life(&mut lives, 600, 0.1);
        assert_eq!(lives.reach(50.0, 110.0), None, "one life is chance");
        life(&mut lives, 600, 0.2);
        let (expected, earliest, latest) = lives.reach(50.0, 110.0).unwrap();
        assert!((expected - 400.0).abs() < 1.0 && (earliest - 300.0).abs() < 1.0);
        assert!((latest - 600.0).abs() < 1.0);
    }

    #[test]
    fn speeds_that_span_zero_and_short_lives_say_nothing() {
        let mut lives = Lives::default();
        life(&mut lives, 600, 0.1);
        life(&mut lives, 10, 5.0);
        life(&mut lives, 600, -0.05);
        assert_eq!(lives.reach(50.0, 110.0), None);
        (0..10).for_each(|_| life(&mut lives, 600, 0.1));
        assert_eq!(lives.speeds.len(), LIVES);
        assert!(lives.reach(50.0, 110.0).is_some());
        assert_eq!(lives.reach(120.0, 110.0), None, "it is over the limit already");
    }
}
