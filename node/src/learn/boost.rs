//! Gradient-boosted trees with one score.
//!
//! Each round fits a tree to what the rounds before left over, on a share of rows and columns:
//! Friedman, "Stochastic gradient boosting" (2002).

use super::{
    chance::Chance,
    table::{Bins, STEPS_MAX, Table},
    tree::{Ground, Growth, Tree},
};

/// What is being fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Log loss of an event (target 0 or 1); predictions are probabilities.
    Event,
    /// Square loss of a number.
    Number,
}

/// How it is fitted.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Trees.
    pub rounds: usize,
    /// Share of each tree's step that is taken.
    pub rate: f32,
    /// Share of the rows that a tree sees.
    pub rows: f64,
    /// Share of the columns that a tree sees.
    pub columns: f64,
    /// How trees are grown.
    pub growth: Growth,
    /// Seed of its chance.
    pub seed: u64,
}

/// A fitted model.
#[derive(Clone, Debug)]
pub struct Boost {
    loss: Loss,
    bins: Bins,
    base: f32,
    trees: Vec<Tree>,
}

impl Boost {
    /// Fits on the rows named. `targets` and `weights`: one per row of the table.
    #[must_use]
    pub fn fit(
        table: &Table,
        rows: &[usize],
        (targets, weights): (&[f32], &[f32]),
        loss: Loss,
        settings: &Settings,
    ) -> Self {
        let bins = Bins::of(table, rows, STEPS_MAX);
        let data = bins.apply(table);
        let base = start(rows, targets, weights, loss);
        let mut trees = Vec::with_capacity(settings.rounds);
        let mut scores = vec![base; table.rows()];
        let mut slopes = vec![(0.0, 0.0); table.rows()];
        let mut chance = Chance::new(settings.seed);
        for _ in 0..settings.rounds {
            for &row in rows {
                slopes[row] = slope(loss, scores[row], targets[row], weights[row]);
            }
            let mut seen = chance.share(rows, settings.rows);
            let columns = chance.columns(table.width, settings.columns);
            let growth = settings.growth;
            let ground = Ground { data: &data, slopes: &slopes, columns: &columns, growth };
            let mut tree = Tree::grow(ground, &mut seen);
            tree.shrink(settings.rate);
            for &row in rows {
                scores[row] += tree.value(data.row(row));
            }
            trees.push(tree);
        }
        Self { loss, bins, base, trees }
    }

    /// One number a row: a probability for [`Loss::Event`].
    #[must_use]
    pub fn predict(&self, table: &Table) -> Vec<f32> {
        let data = self.bins.apply(table);
        let score = |row| self.trees.iter().map(|tree| tree.value(data.row(row))).sum::<f32>();
        let scores = (0..data.rows()).map(|row| self.base + score(row));
        match self.loss {
            Loss::Event => scores.map(logistic).collect(),
            Loss::Number => scores.collect(),
        }
    }
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn start(rows: &[usize], targets: &[f32], weights: &[f32], loss: Loss) -> f32 {
    let sum = |of: fn(f32, f32) -> f32| -> f64 {
        rows.iter().map(|&row| f64::from(of(targets[row], weights[row]))).sum()
    };
    let weight = sum(|_, weight| weight);
    let mean = if weight > 0.0 { sum(|target, weight| target * weight) / weight } else { 0.0 };
    match loss {
        Loss::Event => {
            let p = mean.clamp(1e-6, 1.0 - 1e-6);
            (p / (1.0 - p)).ln() as f32
        }
        Loss::Number => mean as f32,
    }
}

fn slope(loss: Loss, score: f32, target: f32, weight: f32) -> (f32, f32) {
    match loss {
        Loss::Event => {
            let p = logistic(score);
            // A curvature of nothing would make a leaf of sure rows jump without bound.
            (weight * (p - target), weight * (p * (1.0 - p)).max(1e-6))
        }
        Loss::Number => (weight * (score - target), weight),
    }
}
