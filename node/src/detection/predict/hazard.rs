//! Will it fail within the horizon? The hazard of one period, the horizon, from the history of many.
//!
//! ```text
//!  unit:   row ────── row ── row ─────── end      failed within the horizon of a row: 1
//!                                                 seen to run longer: 0
//!                                                 seen for a part of it: 0, by the share of the
//!                                                 failures that come within that part
//! ```
//!
//! So a unit whose record ends early still says that it lived so long, and the newest rows, of which
//! nobody knows the outcome yet, do not look like failures. Discrete-time hazards: Singer and Willett,
//! "It's about time" (1993). The odds are boosted trees over [`super::changes`].

use super::{
    changes,
    history::{History, InputKind, Rates},
};
use crate::learn::{Boost, Growth, Loss, Settings, Table, folds};

/// How trees of a hazard are grown: by many small steps, since few large ones fit the chance of few failures.
const SETTINGS: Settings = Settings {
    rounds: 600,
    rate: 0.03,
    rows: 0.6,
    columns: 0.4,
    growth: Growth { leaves: 31, weight_min: 5.0, rows_min: 20, lambda: 5.0 },
    seed: 1,
};
/// Seed of the folds.
const FOLD_SEED: u64 = 7;

/// How each row ended: one entry per row of the history.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// When the row was over.
    pub until: Vec<f64>,
    /// Whether the unit failed then.
    pub failed: Vec<bool>,
}

/// What each row is worth to learn from.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// 1: failed within the horizon.
    pub target: Vec<f32>,
    /// How much of the horizon was seen, as the share of failures that come within it.
    pub weight: Vec<f32>,
    /// Whether the outcome is known for the whole horizon.
    pub known: Vec<bool>,
    /// Whether each unit failed at last.
    pub failed: Vec<bool>,
}

/// Labels rows by what became of their units.
#[must_use]
pub fn labels(history: &History, outcomes: &Outcomes, horizon: f64) -> Labels {
    let rows = history.rows();
    let mut found = Labels {
        target: vec![0.0; rows],
        weight: vec![1.0; rows],
        known: vec![true; rows],
        failed: Vec::with_capacity(history.units.len()),
    };
    let mut leads: Vec<f64> = Vec::new();
    let mut cut_short: Vec<(usize, f64)> = Vec::new();
    for unit in &history.units {
        let end = outcomes.until[unit.clone()].iter().copied().fold(f64::MIN, f64::max);
        let failed = outcomes.failed[unit.clone()].contains(&true);
        found.failed.push(failed);
        for row in unit.clone() {
            let left = end - history.times[row];
            if failed && left <= horizon {
                found.target[row] = 1.0;
                leads.push(left);
            } else if left < horizon {
                found.known[row] = false;
                cut_short.push((row, left));
            }
        }
    }
    leads.sort_unstable_by(f64::total_cmp);
    for (row, left) in cut_short {
        let seen = leads.partition_point(|lead| *lead <= left);
        found.weight[row] = seen as f32 / leads.len().max(1) as f32;
    }
    found
}

/// A fitted hazard.
#[derive(Clone, Debug)]
pub struct Hazard {
    rates: Vec<Rates>,
    trees: Boost,
}

impl Hazard {
    /// Fits on the rows named. `features` are [`changes::features`] of the history.
    #[must_use]
    pub fn fit(history: &History, features: &Table, labels: &Labels, rows: &[usize]) -> Self {
        let seen: Vec<usize> =
            rows.iter().copied().filter(|&row| labels.weight[row] > 0.0).collect();
        let aims = (labels.target.as_slice(), labels.weight.as_slice());
        let words = history.of_kind(InputKind::Category);
        let rates: Vec<Rates> =
            words.iter().map(|&column| Rates::of(history, column, &seen, aims)).collect();
        let table = with_rates(history, features, &rates, &all_rows(history));
        let trees = Boost::fit(&table, &seen, aims, Loss::Event, &SETTINGS);
        Self { rates, trees }
    }

    /// The probability of failing within the horizon, for each of the rows named.
    #[must_use]
    pub fn predict(&self, history: &History, features: &Table, rows: &[usize]) -> Vec<f32> {
        self.trees.predict(&with_rates(history, features, &self.rates, rows))
    }
}

/// The probability of each row, by a hazard that has not seen the row's unit.
#[must_use]
pub fn cross_validated(
    history: &History,
    outcomes: &Outcomes,
    horizon: f64,
    count: usize,
    mut progress: impl FnMut(usize),
) -> Vec<f32> {
    let features = changes::features(history, horizon);
    let labels = labels(history, outcomes, horizon);
    let units = history.unit_of_rows();
    let kinds: Vec<(usize, bool)> = units.iter().copied().zip(outcomes.failed.clone()).collect();
    let fold = folds(&kinds, count, FOLD_SEED);
    let mut probability = vec![0.0; history.rows()];
    for turn in 0..count {
        progress(turn);
        let (own, others): (Vec<usize>, Vec<usize>) =
            all_rows(history).into_iter().partition(|&row| fold[row] == turn);
        let hazard = Hazard::fit(history, &features, &labels, &others);
        for (row, p) in own.iter().zip(hazard.predict(history, &features, &own)) {
            probability[*row] = p.clamp(0.0, 1.0);
        }
    }
    probability
}

fn all_rows(history: &History) -> Vec<usize> {
    (0..history.rows()).collect()
}

fn with_rates(history: &History, features: &Table, rates: &[Rates], rows: &[usize]) -> Table {
    let mut table = Table::new(features.width + rates.len());
    for &row in rows {
        let rates = rates.iter().map(|rate| rate.at(history, row));
        table.push(features.row(row).iter().copied().chain(rates));
    }
    table
}
