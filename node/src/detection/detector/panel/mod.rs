//! The metrics of one entity, row by row.

use super::level::{Level, Tuning};

/// What a row amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// 0 usual .. 1 anomalous; high when something begins, low again while it lasts.
    pub anomaly: f64,
    /// Higher is odder; stays high while it lasts.
    pub score: f64,
    /// Worth telling.
    pub alert: bool,
}

/// Detectors of one entity.
#[derive(Clone, Debug)]
pub struct Panel {
    levels: Vec<Level>,
}

impl Panel {
    /// For so many metrics.
    #[must_use]
    pub fn new(metrics: usize) -> Self {
        Self { levels: vec![Level::default(); metrics] }
    }

    /// Judges a row, then learns from it. `NaN`: there is no value.
    pub fn update(&mut self, _at_ms: Option<i64>, values: &[f64]) -> Verdict {
        let tuning = Tuning { scale_min: 1e-9, scale_min_share: 0.01, upward_only: false };
        let odd = self.levels.iter_mut().zip(values).filter(|(_, value)| value.is_finite());
        let score = odd
            .map(|(level, &value)| level.update(value, &tuning, true).z.abs())
            .fold(0.0, f64::max);
        Verdict { anomaly: 1.0 - 1.0 / (1.0 + score), score, alert: score > 12.0 }
    }
}
