//! An error budget that is being spent: when will it be gone?
//!
//! The share of failures is integrated over time (what lies a window back fades out) and compared with
//! what the objective allows over its window: Google, "The Site Reliability Workbook" (2018), chapter
//! 5. The present speed is a running mean over about an hour, with its own standard error.

use medic_state::manifest::SloSpec;
use minicbor::{Decode, Encode};

use super::forecast::{Forecast, ForecastKind, When};
use crate::detection::detector::normal_tail;

/// Reach of the running mean.
const SPEED_S: f64 = 3_600.0;
/// Time watched before anything is said.
const WATCHED_MIN_S: f64 = 900.0;
/// A gap longer than this between two values is not time that was watched.
pub(in crate::detection) const GAP_MAX_S: f64 = 120.0;

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Share of failures that is allowed.
    pub allowed: f64,
    /// Over this time, seconds.
    pub window: f64,
}

/// What was spent.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Budget {
    /// Seconds of full failure within the window.
    #[n(0)]
    spent: f64,
    /// Time watched, seconds.
    #[n(1)]
    watched: f64,
    /// Present share of failures.
    #[n(2)]
    speed: f64,
    /// Its variance from value to value.
    #[n(3)]
    variance: f64,
    /// Mean time between values, seconds.
    #[n(4)]
    step: f64,
}

impl Objective {
    /// What a service has set itself.
    #[must_use]
    pub fn of(slo: &SloSpec) -> Self {
        Self {
            allowed: 1.0 - f64::from(slo.availability.0) / 1e6,
            window: slo.window.as_duration().as_secs_f64(),
        }
    }
}

impl Budget {
    /// A share of failures, `elapsed` seconds after the one before.
    pub fn note(&mut self, failures: f64, elapsed: f64, objective: Objective) {
        let failures = failures.clamp(0.0, 1.0);
        let elapsed = elapsed.clamp(0.0, GAP_MAX_S);
        self.spent = self.spent * (1.0 - elapsed / objective.window.max(1.0)) + failures * elapsed;
        self.watched += elapsed;
        let share = (elapsed / self.watched.clamp(1.0, SPEED_S)).min(1.0);
        let off = failures - self.speed;
        self.speed += share * off;
        self.variance += share * (off * off - self.variance);
        self.step += share * (elapsed - self.step);
    }

    /// What another watch of the same objective knows, where it has watched for longer.
    pub fn merge(&mut self, other: &Self) {
        if other.watched > self.watched {
            self.clone_from(other);
        }
    }

    /// Whether the budget is gone.
    #[must_use]
    pub fn gone(&self, objective: Objective) -> bool {
        self.spent >= objective.allowed * objective.window
    }

    /// Whether it will be gone within `horizon` seconds.
    #[must_use]
    pub fn forecast(&self, subject: &str, objective: Objective, horizon: f64) -> Option<Forecast> {
        let left = objective.allowed * objective.window - self.spent;
        if self.watched < WATCHED_MIN_S || left <= 0.0 || self.speed <= objective.allowed {
            return None;
        }
        let values = (self.watched.min(SPEED_S) / self.step.max(1.0)).max(1.0);
        let error = (self.variance / values).sqrt();
        let low = self.speed - 1.645 * error;
        if low <= 0.0 {
            return None;
        }
        let when = When {
            seconds: left / self.speed,
            earliest: left / (self.speed + 1.645 * error),
            latest: left / low,
        };
        let margin = self.speed - left / horizon;
        let probability = match error > 0.0 {
            true => 1.0 - normal_tail(margin / error),
            false => f64::from(u8::from(margin >= 0.0)),
        };
        let factors = vec![
            format!("{:.2} % fail, {:.2} % may", self.speed * 100.0, objective.allowed * 100.0),
            format!("{:.0} % of the budget is left", 100.0 * left / (left + self.spent)),
        ];
        let confidence = (low / self.speed) * (self.watched / SPEED_S).min(1.0);
        let about = (ForecastKind::Performance, subject);
        Some(Forecast::new(about, probability, confidence, when, factors)?.within(horizon))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::detection::predict::forecast::HORIZON_S;

    const OBJECTIVE: Objective = Objective { allowed: 0.001, window: 30.0 * 86_400.0 };

    fn spend(budget: &mut Budget, failures: f64, hours: f64) {
        (0..(hours * 720.0) as u32).for_each(|_| budget.note(failures, 5.0, OBJECTIVE));
    }

    #[test]
    fn it_tells_when_the_budget_is_gone() {
        let mut budget = Budget::default();
        spend(&mut budget, 0.05, 2.0);
        let forecast = budget.forecast("error_rate", OBJECTIVE, HORIZON_S).unwrap();
        // 2,592 s of failure are allowed, 360 are spent, 0.05 a second are being spent.
        assert!((forecast.seconds - 2_232.0 / 0.05).abs() < 1_000.0, "{}", forecast.seconds);
        assert!(forecast.probability > 0.9);
        spend(&mut budget, 0.05, forecast.seconds / 3_600.0 + 0.5);
        assert!(budget.gone(OBJECTIVE));
        assert_eq!(budget.forecast("error_rate", OBJECTIVE, HORIZON_S), None);
    }

    #[test]
    fn what_the_objective_allows_is_no_forecast() {
        let mut budget = Budget::default();
        spend(&mut budget, 0.0005, 4.0);
        assert_eq!(budget.forecast("error_rate", OBJECTIVE, HORIZON_S), None);
        let mut young = Budget::default();
        spend(&mut young, 0.5, 0.1);
        assert_eq!(young.forecast("error_rate", OBJECTIVE, HORIZON_S), None);
    }

    #[test]
    fn a_gap_is_not_counted_as_failure() {
        let mut budget = Budget::default();
        budget.note(1.0, 86_400.0, OBJECTIVE);
        assert!(budget.spent <= GAP_MAX_S);
    }
}
