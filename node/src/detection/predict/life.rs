//! How long will it last? Remaining life from units that were run until they failed, with an interval.
//!
//! The estimate is boosted trees over [`super::smooth`], of a life clipped at a cap: a unit that shows
//! no wear yet tells nothing of when it will end. The interval is conformal, by the level of the
//! estimate: among units that the trees have not seen, how far was life from estimates about as high?
//! Each unit counts alike, however many rows it has. Vovk et al., "Algorithmic Learning in a Random
//! World" (2005); residuals out of fold: Barber et al., "Predictive inference with the jackknife+" (2021).

use super::{history::History, smooth};
use crate::learn::{Boost, Growth, Loss, Settings, Table, folds};

/// How trees of a life are grown.
const SETTINGS: Settings = Settings {
    rounds: 300,
    rate: 0.05,
    rows: 0.3,
    columns: 0.2,
    growth: Growth { leaves: 16, weight_min: 20.0, rows_min: 20, lambda: 5.0 },
    seed: 1,
};
/// Seed of the folds.
const FOLD_SEED: u64 = 3;
/// Folds within the units that a model learns from, for its residuals.
const INNER_FOLDS: usize = 3;
/// Share of residuals that an estimate's interval is made of: the nearest by level.
const NEAR: f64 = 0.1;

/// Remaining life, in the history's unit of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Life {
    /// Estimate.
    pub expected: f32,
    /// Lower end of the interval.
    pub lower: f32,
    /// Upper end.
    pub upper: f32,
}

/// A fitted model of remaining lives.
#[derive(Clone, Debug)]
pub struct Lives {
    trees: Boost,
    cap: f32,
    /// (estimate, truth less estimate, weight) of units not seen by those who estimated, by estimate.
    missed: Vec<(f32, f32, f32)>,
}

/// Remaining life of each row, at most `cap`: a unit's last row is its end.
#[must_use]
pub fn truths(history: &History, cap: f64) -> Vec<f32> {
    let mut all = vec![0.0; history.rows()];
    for unit in &history.units {
        let end = history.times[unit.end - 1];
        for row in unit.clone() {
            all[row] = (end - history.times[row]).min(cap) as f32;
        }
    }
    all
}

impl Lives {
    /// Fits on the rows named, which are whole units.
    #[must_use]
    pub fn fit(history: &History, features: &Table, cap: f64, rows: &[usize]) -> Self {
        let truths = truths(history, cap);
        let weights = vec![1.0; history.rows()];
        let grow = |rows: &[usize]| {
            Boost::fit(features, rows, (&truths, &weights), Loss::Number, &SETTINGS)
        };
        let units = history.unit_of_rows();
        let groups: Vec<(usize, ())> = rows.iter().map(|&row| (units[row], ())).collect();
        let fold = folds(&groups, INNER_FOLDS, FOLD_SEED + 1);
        let mut missed = Vec::with_capacity(rows.len());
        for turn in 0..INNER_FOLDS {
            let of = |own: bool| -> Vec<usize> {
                let chosen = rows.iter().zip(&fold).filter(|(_, fold)| (**fold == turn) == own);
                chosen.map(|(row, _)| *row).collect()
            };
            let own = of(true);
            let estimates = grow(&of(false)).predict(&features.only(&own));
            for (&row, estimate) in own.iter().zip(estimates) {
                let estimate = estimate.clamp(0.0, cap as f32);
                let weight = 1.0 / history.units[units[row]].len() as f32;
                missed.push((estimate, truths[row] - estimate, weight));
            }
        }
        missed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Self { trees: grow(rows), cap: cap as f32, missed }
    }

    /// Remaining life at each of the rows named, with an interval that holds `share` of the time.
    #[must_use]
    pub fn predict(&self, features: &Table, rows: &[usize], share: f64) -> Vec<Life> {
        let estimates = self.trees.predict(&features.only(rows));
        estimates.into_iter().map(|estimate| self.around(estimate, share)).collect()
    }

    fn around(&self, estimate: f32, share: f64) -> Life {
        let expected = estimate.clamp(0.0, self.cap);
        let count = ((self.missed.len() as f64 * NEAR) as usize).max(1);
        let at = self.missed.partition_point(|(level, ..)| *level < expected);
        let end = (at + count / 2).clamp(count.min(self.missed.len()), self.missed.len());
        let mut near: Vec<(f32, f32)> =
            self.missed[end.saturating_sub(count)..end].iter().map(|m| (m.1, m.2)).collect();
        near.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let (low, high) = shortest(&near, share);
        let bounded = |miss: f32| (expected + miss).clamp(0.0, self.cap);
        Life { expected, lower: bounded(low).min(expected), upper: bounded(high).max(expected) }
    }
}

/// The shortest interval that holds this share of the weight; values are in order. Equal tails would be
/// wider where the cap cuts one of them off, and hold more than they say.
fn shortest(sorted: &[(f32, f32)], share: f64) -> (f32, f32) {
    let total: f64 = sorted.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let (mut held, mut end) = (0.0, 0);
    let mut best: Option<(f32, f32)> = None;
    for &(low, weight) in sorted {
        while held < share * total && end < sorted.len() {
            held += f64::from(sorted[end].1);
            end += 1;
        }
        if held < share * total {
            break;
        }
        let high = sorted[end - 1].0;
        if best.is_none_or(|(from, to)| high - low < to - from) {
            best = Some((low, high));
        }
        held -= f64::from(weight);
    }
    best.unwrap_or((0.0, 0.0))
}

/// Remaining life of each row, by a model that has not seen the row's unit.
#[must_use]
pub fn cross_validated(
    history: &History,
    cap: f64,
    share: f64,
    count: usize,
    mut progress: impl FnMut(usize),
) -> Vec<Life> {
    let features = smooth::features(history);
    let units: Vec<(usize, ())> =
        history.unit_of_rows().into_iter().map(|unit| (unit, ())).collect();
    let fold = folds(&units, count, FOLD_SEED);
    let mut lives = vec![Life::default(); history.rows()];
    for turn in 0..count {
        progress(turn);
        let (own, others): (Vec<usize>, Vec<usize>) =
            (0..history.rows()).partition(|&row| fold[row] == turn);
        let model = Lives::fit(history, &features, cap, &others);
        for (&row, life) in own.iter().zip(model.predict(&features, &own, share)) {
            lives[row] = life;
        }
    }
    lives
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_interval_holds_its_share() {
        // Nine alike and one far off: the far one is left out at 90 %, and taken in at 95 %.
        let values: Vec<(f32, f32)> =
            (0..10).map(|at| (if at == 9 { 50.0 } else { at as f32 }, 1.0)).collect();
        assert_eq!(shortest(&values, 0.9), (0.0, 8.0));
        assert_eq!(shortest(&values, 0.95), (0.0, 50.0));
        assert_eq!(shortest(&[], 0.9), (0.0, 0.0));
        // A weight counts like so many values.
        assert_eq!(shortest(&[(0.0, 1.0), (1.0, 1.0), (9.0, 18.0)], 0.9), (9.0, 9.0));
    }
}
