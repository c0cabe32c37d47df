//! The indicators of an instance, looked at together: the panel that backtests run too.

use crate::detection::detector::{GOOD_AFTER, Panel};

use super::Now;

/// Odd rows in a row that count as a vote: a single one is a flicker.
const ODD_AFTER: u16 = 3;

/// The panel, and how long it has been content or not.
#[derive(Debug)]
pub(super) struct Together {
    pub(super) panel: Panel,
    odd: u16,
    good: u16,
    score: f64,
}

impl Together {
    /// For so many indicators.
    pub(super) fn new(indicators: usize) -> Self {
        Self { panel: Panel::new(indicators), odd: 0, good: 0, score: 0.0 }
    }

    /// Takes the values of one scrape or push, in the order of the indicators' names; `NaN` where there is
    /// none.
    pub(super) fn update(&mut self, row: &[f64], now: Now) {
        let verdict = self.panel.update(i64::try_from(now.wall.0).ok(), row);
        self.score = verdict.score;
        if verdict.alert {
            (self.odd, self.good) = (self.odd.saturating_add(1), 0);
        } else {
            (self.odd, self.good) = (0, self.good.saturating_add(1));
        }
    }

    /// A scrape failed: that says nothing.
    pub(super) const fn no_values(&mut self) {
        (self.odd, self.good) = (0, 0);
    }

    /// How odd, once it has lasted; in units of what is worth telling.
    pub(super) const fn odd(&self) -> Option<f64> {
        if self.odd >= ODD_AFTER { Some(self.score) } else { None }
    }

    /// Content for long enough.
    pub(super) const fn good(&self) -> bool {
        self.good >= GOOD_AFTER
    }
}
