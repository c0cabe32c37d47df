//! Is this more than was ever seen? A record, by how much, and how usual records are here.
//!
//! `margin = (x - highest) / (highest - lowest)`, likewise below. Records of independent values become
//! rare by themselves (the n-th is one with probability 1/n: Rényi, 1962), so no scale, period or
//! distribution has to be known. A statistic that sets records again and again (a trend, a heavy
//! tail) is believed less: its margins are divided by `1 + habit / HABIT`, `habit` being the recent sum of
//! margins.

use minicbor::{Decode, Encode};

/// Values before the first record counts.
const WARM_UP: u16 = 150;
/// Recent margins that halve the belief.
const HABIT: f64 = 0.2;
/// A margin counts at most this much towards the habit.
const HABIT_STEP_MAX: f64 = 0.2;
/// Rows over which a habit is forgotten.
const HABIT_ROWS: f64 = 1000.0;

/// Highest and lowest so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Record {
    #[n(0)]
    high: f32,
    #[n(1)]
    low: f32,
    #[n(2)]
    habit: f32,
    #[n(3)]
    seen: u16,
}

impl Record {
    /// Takes a value; gives the margin above the highest and below the lowest so far, discounted.
    pub(super) fn update(&mut self, value: f64) -> (f64, f64) {
        if self.seen == 0 {
            (self.high, self.low, self.seen) = (value as f32, value as f32, 1);
            return (0.0, 0.0);
        }
        let (high, low) = (f64::from(self.high), f64::from(self.low));
        if value <= high && value >= low {
            // Nothing new, as nearly always: no division.
            self.seen = self.seen.saturating_add(u16::from(self.seen < WARM_UP));
            self.habit *= (1.0 - 1.0 / HABIT_ROWS) as f32;
            return (0.0, 0.0);
        }
        let range = (high - low).max(1e-3 * value.abs()).max(1e-12);
        let above = (value - high).max(0.0) / range;
        let below = (low - value).max(0.0) / range;
        self.high = self.high.max(value as f32);
        self.low = self.low.min(value as f32);
        if self.seen < WARM_UP {
            self.seen += 1;
            return (0.0, 0.0);
        }
        let habit = f64::from(self.habit);
        let belief = 1.0 / (1.0 + habit / HABIT);
        let learned = habit + above.max(below).min(HABIT_STEP_MAX);
        self.habit = (learned * (1.0 - 1.0 / HABIT_ROWS)) as f32;
        (above * belief, below * belief)
    }
}
