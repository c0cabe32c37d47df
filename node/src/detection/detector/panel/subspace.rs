//! Do the metrics still move together as they used to? The residual of their first principal components.
//!
//! Each metric is taken in units of its running standard deviation about its running mean; the components
//! are learnt row by row by candid covariance-free incremental PCA (Weng, Zhang & Hwang, IEEE TPAMI 25
//! (2003)). What two of them leave of a row is what its common causes (load, time of day) do not explain.
//! Rows teach with clipped values, and each ever less, down to a share of [`ROWS_REMEMBERED`].

use minicbor::{Decode, Encode};

/// Components.
const COMPONENTS: usize = 2;
/// Rows before it speaks.
const WARM_UP: u32 = 400;
/// A new row weighs at least one in so many.
const ROWS_REMEMBERED: f64 = 20_000.0;
/// A standard deviation is at least this share of the metric's range.
const DEVIATION_MIN_SHARE: f64 = 0.03;
/// Deviations are clipped so far out, when they are judged and when they teach.
const JUDGED_MAX: f32 = 20.0;
const TAUGHT_MAX: f32 = 6.0;

/// Means, variances and components.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Subspace {
    #[n(0)]
    seen: u32,
    #[n(1)]
    means: Vec<f32>,
    #[n(2)]
    variances: Vec<f32>,
    /// One component after the other; their lengths are the variances along them.
    #[n(3)]
    components: Vec<f32>,
}

impl Subspace {
    /// Judges a row, then learns from it. `widths`: the range of each metric, above 0.
    pub(super) fn update(&mut self, row: &[f32], widths: &[f64]) -> f64 {
        let metrics = row.len();
        if self.seen == 0 {
            self.means = row.to_vec();
            self.variances = vec![0.0; metrics];
            self.components = vec![0.0; COMPONENTS * metrics];
        }
        // A state from elsewhere is only as good as its lengths.
        if self.means.len() != metrics || self.components.len() != COMPONENTS * metrics {
            *self = Self::default();
            return 0.0;
        }
        let deviations = self.deviations(row, widths);
        let mut left: Vec<f32> =
            deviations.iter().map(|z| z.clamp(-JUDGED_MAX, JUDGED_MAX)).collect();
        for component in self.components.chunks_exact(metrics) {
            take_away(&mut left, component);
        }
        let residual = f64::from(left.iter().map(|z| z * z).sum::<f32>()).sqrt();
        let known = self.seen >= WARM_UP;
        self.learn(row, deviations);
        if known { residual } else { 0.0 }
    }

    fn deviations(&self, row: &[f32], widths: &[f64]) -> Vec<f32> {
        let of = |((value, mean), (variance, width)): ((&f32, &f32), (&f32, &f64))| {
            let least = DEVIATION_MIN_SHARE * width;
            let unit = f64::from(*variance).sqrt().max(least).max(1e-9);
            (f64::from(value - mean) / unit) as f32
        };
        row.iter().zip(&self.means).zip(self.variances.iter().zip(widths)).map(of).collect()
    }

    fn learn(&mut self, row: &[f32], deviations: Vec<f32>) {
        self.seen = self.seen.saturating_add(1);
        let weight = (1.0 / f64::from(self.seen)).max(1.0 / ROWS_REMEMBERED) as f32;
        let young = self.seen < WARM_UP;
        let known = self.means.iter_mut().zip(&mut self.variances);
        for (((mean, variance), &value), &z) in known.zip(row).zip(&deviations) {
            let clip = if young { 1.0 } else { TAUGHT_MAX / z.abs().max(TAUGHT_MAX) };
            let step = (value - *mean) * clip;
            *mean += weight * step;
            *variance += weight * (step * step - *variance);
        }
        let mut left: Vec<f32> =
            deviations.into_iter().map(|z| z.clamp(-TAUGHT_MAX, TAUGHT_MAX)).collect();
        for component in self.components.chunks_exact_mut(row.len()) {
            let length = component.iter().map(|c| c * c).sum::<f32>().sqrt();
            if length < 1e-6 {
                component.copy_from_slice(&left);
                return;
            }
            let along = dot(component, &left) / length;
            for (c, z) in component.iter_mut().zip(&left) {
                *c += weight * (along * z - *c);
            }
            take_away(&mut left, component);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Subtracts what lies along a component.
fn take_away(left: &mut [f32], component: &[f32]) {
    let square = dot(component, component);
    if square > 1e-12 {
        let along = dot(component, left) / square;
        left.iter_mut().zip(component).for_each(|(z, c)| *z -= along * c);
    }
}
