//! Tier 1: the metrics of one entity together.
//!
//! Five witnesses, each in units of its own usual (its running 99 % quantile):
//! * **near**: distance of the row to the nearest of some hundred remembered rows (sum of absolute
//!   differences, each metric in units of its own range). A state of the machine that was never seen is
//!   odd even where every single metric looks usual. Distance to the nearest neighbour: Ramaswamy,
//!   Rastogi & Shim, SIGMOD 2000.
//! * **jolt**: how many metrics leave their own running level at once, and how far.
//! * **beyond**: how far metrics are outside their range.
//! * **apart**: what the common causes of all metrics do not explain ([`Subspace`]).
//! * **jumps**: how rare the jumps of all metrics from one row to the next are ([`Jumps`]).
//!
//! They are added and smoothed, all but the last twice (some rows, some hundred rows): what lasts outweighs
//! what flickers. While the slow sum of the first three says "odd", no row is remembered, so that a long
//! incident does not become the usual; after [`STRANGE_ROWS_MAX`] rows unlike any remembered one, everything is
//! learnt anew. Until then the score may stay high: how rare that is by then, its p-value says.

use minicbor::{Decode, Encode};

use super::{
    histogram::Histogram,
    jumps::Jumps,
    pulse::{VALUE_MAX, step},
    subspace::Subspace,
};

/// The memory is thinned until its rows are so far apart.
const STRIDE_MAX: u32 = 64;
/// Metrics taken in; further ones are judged alone.
const METRICS_MAX: usize = 64;
/// Rows before anything is said.
const WARM_UP: u32 = 400;
/// Strange rows (less ordinary ones) after which their state is the usual one: two days at 5 s. Shorter, and
/// what is learnt anew in the middle of a long incident depends on when it began.
const STRANGE_ROWS_MAX: u32 = 32_768;
/// The slow mean below which rows are remembered, as a share of what is usual.
const CALM: f64 = 0.6;
/// A range is at least this share of the metric's size.
const WIDTH_MIN_SHARE: f64 = 0.02;
/// Share of rows outside a range, on each side.
const OUTSIDE: f32 = 0.001;
/// Steps of a range, as a share of its width.
const RANGE_RATE: f64 = 0.01;
/// Rows after which there are enough remembered ones to be measured against.
const FILLED: u32 = 2048;
/// Strange rows in a row that are still taken as part of the usual.
const STRANGE_TAUGHT_MAX: u32 = 30;
/// The share of rows that are usual.
const USUAL: f64 = 0.99;
/// What is usual is at least this.
const USUAL_MIN: [f64; WITNESSES] = [0.05, 0.5, 0.2, 0.1, 0.1];
/// Witnesses count at most so many times their usual.
const WITNESS_MAX: [f64; WITNESSES] = [20.0, 20.0, 20.0, 5.0, 5.0];
/// Near, jolt, beyond, apart, jumps.
const WITNESSES: usize = 5;
/// Weight of a new row in the fast means.
const FAST_RATE: f64 = 0.3;
/// Weight of a new row in the mean of the jumps.
const JUMPS_RATE: f64 = 0.2;

/// Tunable numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct CrowdTuning {
    /// Weights of near, jolt and beyond.
    pub(super) weight: [f64; 3],
    /// Weights of apart and jumps, beside the mean of those three.
    pub(super) beside: [f64; 2],
    /// Weight of the slow mean beside the fast one.
    pub(super) slow: f64,
    /// Weight of a new row in the slow mean.
    pub(super) slow_rate: f64,
    /// Quantile below which a row is ordinary.
    pub(super) gate: f64,
    /// Remembered rows.
    pub(super) rows: usize,
    /// Rows between two that are remembered.
    pub(super) every: u32,
}

/// What is known of one metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
struct Column {
    #[n(0)]
    high: f32,
    #[n(1)]
    low: f32,
    #[n(2)]
    level: f32,
    #[n(3)]
    scale: f32,
    #[n(4)]
    size: f32,
    #[n(5)]
    last: f32,
}

/// The state of one entity.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Crowd {
    #[n(0)]
    seen: u32,
    #[n(1)]
    columns: Vec<Column>,
    /// Row after row, as many values as there are columns.
    #[n(2)]
    rows: Vec<f32>,
    #[n(3)]
    next: u32,
    /// What the witnesses said so far.
    #[n(4)]
    past: [Histogram; WITNESSES],
    #[n(5)]
    fast: f32,
    #[n(6)]
    slow: f32,
    #[n(7)]
    strange: u32,
    #[n(8)]
    stride: u32,
    #[n(9)]
    subspace: Subspace,
    #[n(10)]
    jumps: Jumps,
    /// Fast and slow mean of apart, mean of jumps.
    #[n(11)]
    beside: [f32; 3],
}

impl Crowd {
    /// For so many metrics.
    #[must_use]
    pub(super) fn new(metrics: usize) -> Self {
        let metrics = metrics.min(METRICS_MAX);
        Self {
            columns: vec![Column::default(); metrics],
            jumps: Jumps::new(metrics),
            ..Self::default()
        }
    }

    /// Whether it has seen enough to speak.
    #[must_use]
    pub(super) fn speaks(&self) -> bool {
        self.past[0].total() >= WARM_UP
    }

    /// Judges a row; `NaN` is taken as the metric's last value. About 1 is usual.
    pub(super) fn update(&mut self, values: &[f64], tuning: &CrowdTuning) -> f64 {
        let before: Vec<f32> = self.columns.iter().map(|column| column.last).collect();
        let row = self.filled(values);
        let widths: Vec<f64> = self.columns.iter().map(Column::width).collect();
        let apart = self.subspace.update(&row, &widths);
        let jumps = if self.seen > 0 { self.jumps.update(&before, &row, &widths) } else { 0.0 };
        let near = self.distance(&row);
        let ordinary = self.past[0].total() < WARM_UP || near < self.past[0].quantile(tuning.gate);
        let (jolt, beyond) = self.columns_on(&row, ordinary);
        let told = self.in_units([near, jolt, beyond, apart, jumps]);
        let calm = f64::from(self.slow) < CALM * tuning.weight.iter().sum::<f64>();
        if (ordinary && calm) || self.stride < STRIDE_MAX {
            self.remember(&row, tuning);
        }
        self.seen = self.seen.saturating_add(1);
        if !self.speaks() {
            return 0.0;
        }
        self.strange = if ordinary { self.strange.saturating_sub(1) } else { self.strange + 1 };
        if self.strange > STRANGE_ROWS_MAX {
            *self = Self::new(self.columns.len());
            return 0.0;
        }
        self.smoothed(told, tuning)
    }

    /// Each witness in units of its usual, which is then learnt on.
    fn in_units(&mut self, witnesses: [f64; WITNESSES]) -> [f64; WITNESSES] {
        let mut told = [0.0; WITNESSES];
        for (k, witness) in witnesses.into_iter().enumerate() {
            told[k] = (witness / self.usual(k)).min(WITNESS_MAX[k]);
            if self.seen >= FILLED && self.strange < STRANGE_TAUGHT_MAX {
                self.past[k].add(witness);
            }
        }
        told
    }

    /// Moves the means on; their weighted mean.
    fn smoothed(&mut self, told: [f64; WITNESSES], tuning: &CrowdTuning) -> f64 {
        let [near, jolt, beyond, apart, jumps] = told;
        let weighted = tuning.weight.iter().zip([near, jolt, beyond]);
        let sum: f64 = weighted.map(|(weight, witness)| weight * witness).sum();
        let total: f64 = tuning.weight.iter().sum();
        let both = |fast: &mut f32, slow: &mut f32, x: f64| {
            let (fast, slow) = (step(fast, x, FAST_RATE), step(slow, x, tuning.slow_rate));
            (fast + tuning.slow * slow) / (1.0 + tuning.slow)
        };
        let first = both(&mut self.fast, &mut self.slow, sum) / total;
        let [fast, slow, mean] = &mut self.beside;
        let apart = both(fast, slow, apart);
        first + tuning.beside[0] * apart + tuning.beside[1] * step(mean, jumps, JUMPS_RATE)
    }

    /// What a witness seldom exceeds.
    fn usual(&self, witness: usize) -> f64 {
        self.past[witness].quantile(USUAL).max(USUAL_MIN[witness])
    }

    fn filled(&mut self, values: &[f64]) -> Vec<f32> {
        let first = self.seen == 0;
        let columns = self.columns.iter_mut().zip(values);
        columns
            .map(|(column, &value)| {
                let value = if value.is_finite() {
                    value.clamp(-VALUE_MAX, VALUE_MAX) as f32
                } else {
                    column.last
                };
                if first {
                    *column = Column { high: value, low: value, level: value, ..*column };
                    column.size = value.abs();
                }
                column.last = value;
                value
            })
            .collect()
    }

    fn columns_on(&mut self, row: &[f32], learning: bool) -> (f64, f64) {
        let young = self.seen < WARM_UP;
        let (mut jolt, mut beyond) = (0.0, 0.0);
        for (column, &value) in self.columns.iter_mut().zip(row) {
            let width = column.width();
            let out = f64::from((value - column.high).max(column.low - value).max(0.0));
            beyond += (out / width).min(3.0);
            let residual = f64::from(value - column.level);
            let scale =
                f64::from(column.scale).max(0.15 * WIDTH_MIN_SHARE * width.max(1e-9) * 10.0);
            jolt += (residual.abs() / scale - 2.0).clamp(0.0, 10.0);
            column.level += (0.1 * residual) as f32;
            let taught = if young { residual.abs() } else { residual.abs().min(4.0 * scale) };
            let rate = (1.0 / (f64::from(self.seen) + 1.0)).max(0.003);
            column.scale += (rate * (taught - f64::from(column.scale))) as f32;
            column.size += (rate * (f64::from(value.abs()) - f64::from(column.size))) as f32;
            if young {
                column.high = column.high.max(value);
                column.low = column.low.min(value);
            } else if learning {
                let stride = (RANGE_RATE.max(40.0 / f64::from(self.seen)) * width) as f32;
                column.high += if value > column.high { stride } else { -OUTSIDE * stride };
                column.low -= if value < column.low { stride } else { -OUTSIDE * stride };
            }
        }
        (jolt, beyond)
    }

    fn distance(&self, row: &[f32]) -> f64 {
        let count = row.len();
        if count == 0 || self.rows.is_empty() {
            return 0.0;
        }
        let unit: Vec<f32> =
            self.columns.iter().map(|column| (1.0 / column.width()) as f32).collect();
        f64::from(nearest(&self.rows, row, &unit))
    }

    /// While it is young every `stride`-th row, evenly over all that was seen; then the newest ordinary ones
    /// take the places of the oldest.
    fn remember(&mut self, row: &[f32], tuning: &CrowdTuning) {
        let count = row.len();
        if self.rows.len() < tuning.rows * count {
            if self.seen.is_multiple_of(self.stride.max(1)) {
                self.rows.extend_from_slice(row);
            }
        } else if self.stride < STRIDE_MAX {
            let thinned = self.rows.chunks_exact(count).step_by(2).flatten().copied().collect();
            self.rows = thinned;
            self.stride = self.stride.max(1) * 2;
        } else if self.seen.is_multiple_of(tuning.every) {
            let at = self.next as usize % tuning.rows * count;
            self.rows[at..at + count].copy_from_slice(row);
            self.next = self.next.wrapping_add(1);
        }
    }
}

/// Distance to the nearest of `rows` (row after row), each metric in its unit. Four rows at a time: one sum after
/// the other would wait for itself at each metric.
fn nearest(rows: &[f32], row: &[f32], unit: &[f32]) -> f32 {
    let count = row.len();
    let apart = |a: f32, b: f32, unit: f32| ((a - b).abs() * unit).min(9.0);
    let mut nearest = f32::MAX;
    let mut fours = rows.chunks_exact(4 * count);
    for four in &mut fours {
        let (first, second) = four.split_at(2 * count);
        let ((a, b), (c, d)) = (first.split_at(count), second.split_at(count));
        let remembered = a.iter().zip(b).zip(c.iter().zip(d));
        let mut sums = [0.0_f32; 4];
        for ((((a, b), (c, d)), value), unit) in remembered.zip(row).zip(unit) {
            for (sum, remembered) in sums.iter_mut().zip([a, b, c, d]) {
                *sum += apart(*remembered, *value, *unit);
            }
        }
        nearest = sums.into_iter().fold(nearest, f32::min);
    }
    for remembered in fours.remainder().chunks_exact(count) {
        let metrics = remembered.iter().zip(row).zip(unit);
        nearest = nearest.min(metrics.map(|((a, b), unit)| apart(*a, *b, *unit)).sum());
    }
    nearest
}

impl Column {
    fn width(&self) -> f64 {
        let range = f64::from(self.high - self.low);
        range.max(WIDTH_MIN_SHARE * f64::from(self.size)).max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_rows_at_a_time_are_as_near_as_one_by_one() {
        let value = |at: usize| (at * 7919 % 1009) as f32 / 100.0;
        for count in [1, 2, 7, 50] {
            let (row, unit): (Vec<f32>, Vec<f32>) =
                (0..count).map(|at| (value(at + 3), 0.1 + value(at + 11))).unzip();
            for remembered in 0..11 {
                let rows: Vec<f32> = (0..remembered * count).map(|at| value(at * 5 + 1)).collect();
                let each = rows.chunks_exact(count).map(|one| {
                    let metrics = one.iter().zip(&row).zip(&unit);
                    metrics
                        .fold(0.0, |sum, ((a, b), unit)| sum + ((a - b).abs() * unit).min(9.0_f32))
                });
                let expected = each.fold(f32::MAX, f32::min);
                assert_eq!(nearest(&rows, &row, &unit).to_bits(), expected.to_bits());
            }
        }
    }
}
