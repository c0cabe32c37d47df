//! Isotonic calibration: the non-decreasing curve closest to what happened.
//!
//! Pool adjacent violators: Ayer et al., "An empirical distribution function for sampling with
//! incomplete information" (1955). Between the middles of two pools the curve is a line.

/// A fitted curve from scores to probabilities.
#[derive(Clone, Debug, Default)]
pub struct Isotonic {
    points: Vec<(f32, f32)>,
}

impl Isotonic {
    /// Fits to (score, outcome 0 or 1, weight).
    #[must_use]
    pub fn fit(mut seen: Vec<(f32, f32, f32)>) -> Self {
        seen.retain(|(score, _, weight)| score.is_finite() && *weight > 0.0);
        seen.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        // Sums of weighted scores, of weighted outcomes, of weights.
        let mut pools: Vec<(f64, f64, f64)> = Vec::new();
        for (score, outcome, weight) in seen {
            let weight = f64::from(weight);
            let mut last = (f64::from(score) * weight, f64::from(outcome) * weight, weight);
            while let Some(before) = pools.pop_if(|before| before.1 / before.2 >= last.1 / last.2) {
                last = (before.0 + last.0, before.1 + last.1, before.2 + last.2);
            }
            pools.push(last);
        }
        let points = pools.iter().map(|(s, y, w)| ((s / w) as f32, (y / w) as f32)).collect();
        Self { points }
    }

    /// The probability at a score; the score itself when nothing was fitted.
    #[must_use]
    pub fn at(&self, score: f32) -> f32 {
        let after = self.points.partition_point(|(at, _)| *at < score);
        let before = after.checked_sub(1).and_then(|at| self.points.get(at));
        match (before, self.points.get(after)) {
            (Some(&(x0, y0)), Some(&(x1, y1))) if x1 > x0 => {
                y0 + (y1 - y0) * (score - x0) / (x1 - x0)
            }
            (Some(&(_, y)), _) | (None, Some(&(_, y))) => y,
            (None, None) => score,
        }
    }
}
