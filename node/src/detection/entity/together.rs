//! The indicators of an instance, looked at together: the panel that backtests run too.

use crate::detection::detector::{GOOD_AFTER, Panel};

use super::Now;

/// Odd rows in a row that count as a vote: a single one is a flicker.
const ODD_AFTER: u16 = 3;
/// What began as rare still counts so many rows later, as long as the score is that of something worth
/// telling: an hour at 5 s. By then it is the usual, or somebody else has noticed.
const HELD_ROWS_MAX: u16 = 720;

/// Indicators that are looked at together, in the order of their names; further ones are watched each by itself
/// alone. It is the bound of the panel's crowd.
pub(super) const TOGETHER_MAX: usize = 64;

/// The panel, and how long it has been content or not.
#[derive(Debug)]
pub(super) struct Together {
    pub(super) panel: Panel,
    odd: u16,
    good: u16,
    /// Rows since the last rare one.
    held: u16,
    score: f64,
    p_value: f64,
}

impl Together {
    /// For so many indicators.
    pub(super) fn new(indicators: usize) -> Self {
        Self { panel: Panel::new(indicators), odd: 0, good: 0, held: 0, score: 0.0, p_value: 1.0 }
    }

    /// Takes the values of one scrape or push, in the order of the indicators' names; `NaN` where there is
    /// none.
    pub(super) fn update(&mut self, row: &[f64], now: Now) {
        let verdict = self.panel.update(i64::try_from(now.wall.0).ok(), row);
        self.score = verdict.score;
        self.held = if verdict.alert { 0 } else { self.held.saturating_add(1) };
        let lasts = self.odd >= ODD_AFTER && verdict.score >= 1.0 && self.held <= HELD_ROWS_MAX;
        // One metric is no second witness: its own detectors speak for it.
        if (verdict.alert || lasts) && !verdict.alone {
            let before = if self.odd > 0 { self.p_value } else { 1.0 };
            self.p_value = before.min(verdict.p_value);
            (self.odd, self.good) = (self.odd.saturating_add(1), 0);
        } else {
            (self.odd, self.good) = (0, self.good.saturating_add(1));
        }
    }

    /// A scrape failed: that says nothing.
    pub(super) const fn no_values(&mut self) {
        (self.odd, self.good) = (0, 0);
    }

    /// How odd, once it has lasted, in units of what is worth telling; and the least p-value since it began.
    pub(super) const fn odd(&self) -> Option<(f64, f64)> {
        if self.odd >= ODD_AFTER { Some((self.score, self.p_value)) } else { None }
    }

    /// Content for long enough.
    pub(super) const fn good(&self) -> bool {
        self.good >= GOOD_AFTER
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_beyond_the_bound_is_not_looked_at_together() {
        let bytes = |metrics| medic_state::codec::encode(&Panel::new(metrics)).len();
        let added = |metrics| bytes(metrics) - bytes(metrics - 1);
        let alone = added(TOGETHER_MAX + 1);
        assert_eq!(added(TOGETHER_MAX + 2), alone, "beyond it each is watched by itself alone");
        assert!(added(TOGETHER_MAX) > alone, "within it there is a place among the others too");
    }

    #[test]
    fn a_vote_needs_three_odd_rows_and_a_failed_scrape_ends_it() {
        let mut together = Together::new(1);
        let mut now = Now::default();
        for row in 0..600_u32 {
            now.wall.0 += 5_000;
            together.update(&[10.0 + f64::from(row * 7919 % 101) / 101.0], now);
        }
        assert!(together.good() && together.odd().is_none());
        for odd in [false, false, true, true] {
            now.wall.0 += 5_000;
            together.update(&[90.0], now);
            assert_eq!(together.odd().is_some(), odd);
            assert!(!together.good());
        }
        let (score, p_value) = together.odd().unwrap();
        assert!(score >= 1.0 && p_value > 1e-4 && p_value < 0.01, "{score} {p_value}");
        together.no_values();
        assert!(together.odd().is_none() && !together.good());
        let mut heir = Together::new(1);
        heir.panel = together.panel.clone();
        assert!(heir.panel.fits(1));
        heir.update(&[90.0], now);
        assert!(!heir.good(), "an heir knows what is usual");
    }
}
