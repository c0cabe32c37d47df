//! Do several metrics jump at once? Jumps from row to row, each by how rare it is for its metric.
//!
//! One rare jump is nothing among many metrics. The surprises (`-ln p`) of a row are added up, those of
//! everyday jumps left out: as Fisher combines p-values, without his independence, hence in units of what
//! the sum usually is.

use minicbor::{Decode, Encode};

use super::super::conformal::Conformal;

/// Surprises up to this are left out: a jump that one row in seven has.
const EVERYDAY: f64 = 2.0;
/// Jumps are told from rest by this share of the metric's range.
const REST: f64 = 0.02;

/// How far each metric usually jumps.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct Jumps {
    #[n(0)]
    metrics: Vec<Conformal>,
}

impl Jumps {
    /// For so many metrics.
    pub(super) fn new(metrics: usize) -> Self {
        Self { metrics: vec![Conformal::default(); metrics] }
    }

    /// The sum of the surprises of the jumps from one row to the next.
    pub(super) fn update(&mut self, from: &[f32], to: &[f32], widths: &[f64]) -> f64 {
        let moves = from.iter().zip(to).zip(widths);
        let jump = |((from, to), width): ((&f32, &f32), &f64)| f64::from((to - from).abs()) / width;
        let all = self.metrics.iter_mut().zip(moves.map(jump));
        all.map(|(known, jump)| (-known.update(jump + REST).ln() - EVERYDAY).max(0.0)).sum()
    }
}
