//! How good were the predictions? Figures that a wrong probability cannot hide from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{hazard::Labels, history::History, life::Life};

/// Groups of equal count that calibration is looked at in.
const GROUPS: usize = 10;

/// Probabilities held against what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Calibration {
    /// Predictions whose outcome is known.
    pub count: usize,
    /// Share of them that came true.
    pub base_rate: f64,
    /// Mean square of what the probability was off by: Brier (1950).
    pub brier: f64,
    /// 1 - Brier / Brier of always saying the base rate; 0 where all outcomes are alike.
    pub brier_skill: f64,
    /// Expected calibration error over ten groups of equal count.
    pub ece: f64,
}

/// Failures within a horizon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FailureFigures {
    /// Over the rows whose outcome is known.
    #[serde(flatten)]
    pub calibration: Calibration,
    /// Units that failed within the horizon of one of their rows.
    pub failed_units: usize,
    /// Probability above which a unit is warned of, so that few healthy ones ever are.
    pub alarm_threshold: f64,
    /// Healthy units warned of in vain, as a share.
    pub false_alarms: f64,
    /// Failed units warned of within the horizon, as a share.
    pub recall: f64,
}

/// Remaining lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LifeFigures {
    /// Rows.
    pub count: usize,
    /// Root of the mean square error.
    pub rmse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Share of lives within their interval.
    pub coverage: f64,
    /// Mean width of the intervals.
    pub width: f64,
}

/// Holds (probability, whether it happened) together.
#[must_use]
pub fn calibration(pairs: &[(f32, bool)]) -> Calibration {
    let count = pairs.len();
    if count == 0 {
        return Calibration::default();
    }
    let truth = |happened: bool| f64::from(u8::from(happened));
    let n = count as f64;
    let base_rate = pairs.iter().map(|(_, happened)| truth(*happened)).sum::<f64>() / n;
    let square = |(p, happened): &(f32, bool)| (f64::from(*p) - truth(*happened)).powi(2);
    let brier = pairs.iter().map(square).sum::<f64>() / n;
    let plain = base_rate * (1.0 - base_rate);
    Calibration {
        count,
        base_rate,
        brier,
        brier_skill: if plain > 0.0 { 1.0 - brier / plain } else { 0.0 },
        ece: calibration_error(pairs),
    }
}

/// Mean distance between what was said and what happened; equal probabilities share a group.
fn calibration_error(pairs: &[(f32, bool)]) -> f64 {
    let mut sorted = pairs.to_vec();
    sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut groups = [0.0f64; GROUPS];
    let mut at = 0;
    for alike in sorted.chunk_by(|a, b| a.0 == b.0) {
        let group = &mut groups[at * GROUPS / sorted.len()];
        for (p, happened) in alike {
            *group += f64::from(*p) - f64::from(u8::from(*happened));
        }
        at += alike.len();
    }
    groups.iter().map(|sum| sum.abs()).sum::<f64>() / sorted.len() as f64
}

/// Failures within the horizon. The threshold is the lowest at which at most `false_alarms` of the units
/// that never failed ever exceed it.
#[must_use]
pub fn of_failures(
    history: &History,
    labels: &Labels,
    probability: &[f32],
    false_alarms: f64,
) -> FailureFigures {
    let known = |row: &usize| labels.known[*row];
    let pairs: Vec<(f32, bool)> = (0..history.rows())
        .filter(known)
        .map(|row| (probability[row], labels.target[row] > 0.0))
        .collect();
    let (mut healthy, mut failing): (Vec<f32>, BTreeMap<usize, f32>) = Default::default();
    for (number, unit) in history.units.iter().enumerate() {
        let rows = || unit.clone().filter(known);
        let top = |rows: &mut dyn Iterator<Item = usize>| {
            rows.map(|row| probability[row]).max_by(f32::total_cmp)
        };
        if let Some(p) = top(&mut rows().filter(|&row| labels.target[row] > 0.0)) {
            failing.insert(number, p);
        } else if !labels.failed[number] {
            healthy.extend(top(&mut rows()));
        }
    }
    healthy.sort_unstable_by(|a, b| b.total_cmp(a));
    let allowed = (false_alarms * healthy.len() as f64) as usize;
    let threshold = healthy.get(allowed).copied().unwrap_or(0.0);
    let over = healthy.iter().filter(|p| **p > threshold).count();
    let caught = failing.values().filter(|p| **p > threshold).count();
    FailureFigures {
        calibration: calibration(&pairs),
        failed_units: failing.len(),
        alarm_threshold: f64::from(threshold),
        false_alarms: over as f64 / healthy.len().max(1) as f64,
        recall: caught as f64 / failing.len().max(1) as f64,
    }
}

/// Remaining lives.
#[must_use]
pub fn of_lives(truths: &[f32], lives: &[Life]) -> LifeFigures {
    let count = truths.len().min(lives.len());
    let mean = |of: &dyn Fn(f64, &Life) -> f64| {
        let all = truths.iter().zip(lives).map(|(truth, life)| of(f64::from(*truth), life));
        all.sum::<f64>() / count.max(1) as f64
    };
    let holds =
        |truth: f64, life: &Life| (f64::from(life.lower)..=f64::from(life.upper)).contains(&truth);
    LifeFigures {
        count,
        rmse: mean(&|truth, life| (f64::from(life.expected) - truth).powi(2)).sqrt(),
        mae: mean(&|truth, life| (f64::from(life.expected) - truth).abs()),
        coverage: mean(&|truth, life| f64::from(u8::from(holds(truth, life)))),
        width: mean(&|_, life| f64::from(life.upper - life.lower)),
    }
}
