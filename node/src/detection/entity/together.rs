//! The indicators of an instance, looked at together: the panel that backtests run too.

use crate::detection::detector::{GOOD_AFTER, Panel, Verdict};

use super::Now;

/// Odd rows in a row that count as a vote: a single one is a flicker.
const ODD_AFTER: u16 = 3;
/// What began as rare still counts so many rows later, as long as the score is that of something worth
/// telling: an hour at 5 s. By then it is the usual, or somebody else has noticed.
const HELD_ROWS_MAX: u16 = 720;

/// Whoever was out by itself is forgotten after so many rows in which nobody was: ten minutes at 5 s. The panel's
/// slow means begin to tell later, and go on for longer, than a metric is far out.
const BLAMED_ROWS: u16 = 120;

/// Indicators that are looked at together, in the order of their names; further ones are watched each by itself
/// alone. It is the bound of the panel's crowd.
pub(super) const TOGETHER_MAX: usize = 64;

/// Who was so far out by itself that the panel may be odd for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Blame {
    #[default]
    Nobody,
    One(usize),
    Several,
}

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
    /// There is more than one to look at.
    several: bool,
    blame: Blame,
    /// Rows since anybody was to blame.
    unblamed: u16,
}

impl Together {
    /// For so many indicators.
    pub(super) fn new(indicators: usize) -> Self {
        Self {
            panel: Panel::new(indicators),
            odd: 0,
            good: 0,
            held: 0,
            score: 0.0,
            p_value: 1.0,
            several: indicators > 1,
            blame: Blame::Nobody,
            unblamed: 0,
        }
    }

    /// Takes the values of one scrape or push, in the order of the indicators' names; `NaN` where there is
    /// none.
    pub(super) fn update(&mut self, row: &[f64], now: Now) {
        let verdict = self.panel.update(i64::try_from(now.wall.0).ok(), row);
        self.score = verdict.score;
        self.held = if verdict.alert { 0 } else { self.held.saturating_add(1) };
        let lasts = self.odd >= ODD_AFTER && verdict.score >= 1.0 && self.held <= HELD_ROWS_MAX;
        self.lay_blame(&verdict);
        // One metric is no second witness: its own detectors speak for it.
        if (verdict.alert || lasts) && !verdict.alone && self.several {
            let before = if self.odd > 0 { self.p_value } else { 1.0 };
            self.p_value = before.min(verdict.p_value);
            (self.odd, self.good) = (self.odd.saturating_add(1), 0);
        } else {
            (self.odd, self.good) = (0, self.good.saturating_add(1));
        }
    }

    fn lay_blame(&mut self, verdict: &Verdict) {
        self.unblamed = if verdict.metric.is_some() { 0 } else { self.unblamed.saturating_add(1) };
        self.blame = match (verdict.metric, self.blame) {
            (Some(_), _) if verdict.several => Blame::Several,
            (Some(at), before) if self.odd == 0 || before == Blame::Nobody => Blame::One(at),
            (Some(at), Blame::One(before)) if at != before => Blame::Several,
            (None, _) if self.odd == 0 && self.unblamed >= BLAMED_ROWS => Blame::Nobody,
            (_, before) => before,
        };
    }

    /// The one indicator that it is odd for, by its place among their names, if it is one alone.
    pub(super) const fn blamed(&self) -> Option<usize> {
        match self.blame {
            Blame::One(at) => Some(at),
            Blame::Nobody | Blame::Several => None,
        }
    }

    /// A scrape failed: that says nothing.
    pub(super) const fn no_values(&mut self) {
        (self.odd, self.good) = (0, 0);
    }

    /// How odd the last row was.
    #[cfg(test)]
    pub(super) const fn score(&self) -> f64 {
        self.score
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

    /// Ordinary values of the first and the second metric in a row.
    fn usual(row: u32) -> [f64; 2] {
        let noise = |by: u64| (u64::from(row) * by % 101) as f64 / 101.0;
        [10.0 + noise(7_919), 20.0 + noise(104_729) + noise(1_299_709)]
    }

    /// As many metrics, and so many ordinary rows of them.
    fn settled(metrics: usize, rows: u32) -> (Together, Now) {
        let (mut together, mut now) = (Together::new(metrics), Now::default());
        for row in 0..rows {
            now.wall.0 += 5_000;
            together.update(&usual(row)[..metrics], now);
        }
        (together, now)
    }

    /// Rows until it votes, at most `most`.
    fn until_odd(together: &mut Together, mut now: Now, row: &[f64], most: u32) -> Option<u32> {
        (1..=most).find(|_| {
            now.wall.0 += 5_000;
            together.update(row, now);
            together.odd().is_some()
        })
    }

    #[test]
    fn a_vote_needs_three_odd_rows_and_a_failed_scrape_ends_it() {
        let (mut together, now) = settled(2, 4_000);
        assert!(together.good() && together.odd().is_none());
        let after = until_odd(&mut together, now, &[90.0, 95.0], 60);
        assert!(after.is_some_and(|after| after >= u32::from(ODD_AFTER)), "{after:?}");
        assert!(!together.good());
        let (score, p_value) = together.odd().unwrap();
        assert!(score >= 1.0 && p_value > 1e-5 && p_value < 0.03, "{score} {p_value}");
        assert_eq!(together.blamed(), None, "both are out");
        together.no_values();
        assert!(together.odd().is_none() && !together.good());
        let mut heir = Together::new(2);
        heir.panel = together.panel.clone();
        assert!(heir.panel.fits(2));
        heir.update(&[90.0, 95.0], now);
        assert!(!heir.good(), "an heir knows what is usual");
    }

    #[test]
    fn one_metric_casts_no_vote_of_all_together() {
        let (mut together, now) = settled(1, 600);
        assert!(together.good());
        assert_eq!(until_odd(&mut together, now, &[90.0], 60), None, "its own detectors speak");
        assert!(together.panel.update(None, &[900.0]).alert, "the panel does see it");
    }

    #[test]
    fn the_one_that_is_far_out_is_to_blame_until_nobody_was_for_long() {
        let (mut together, mut now) = settled(2, 4_000);
        assert!(until_odd(&mut together, now, &[10.5, 95.0], 200).is_some());
        assert_eq!(together.blamed(), Some(1));
        together.lay_blame(&Verdict { metric: Some(0), ..Verdict::default() });
        assert_eq!(together.blamed(), None, "they are several by now");
        for row in 0..8_000 {
            now.wall.0 += 5_000;
            together.update(&usual(row), now);
        }
        assert_eq!((together.blame, together.odd), (Blame::Nobody, 0));
    }
}
