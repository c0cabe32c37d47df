//! A component that has failed before: its hazard over the next horizon, from its own history.
//!
//! Failures come at a rate that is itself uncertain: gamma, of the failures seen (older ones count less)
//! over the time watched, and a prior of one failure in thirty days. The time to the next is then
//! Lomax: P(none within h) = (β / (β + h))^α. Gelman et al., "Bayesian Data Analysis" (2013), 2.6.

use minicbor::{Decode, Encode};

use super::forecast::{Forecast, ForecastKind, HORIZON_S, When};

/// Failures kept: older ones no longer move the rate.
const KEPT: usize = 16;
/// What is this old counts 1/e.
const FADES_S: f64 = 7.0 * 86_400.0;
/// One failure in thirty days, worth a fiftieth of a failure.
const PRIOR: (f64, f64) = (0.02, 0.6 * 86_400.0);
/// Two watches see one death this far apart, by their clocks, at the most.
const SAME_S: f64 = 10.0;
/// Fewer failures are chance.
const FAILURES_MIN: usize = 2;

/// Failures of one component.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Restarts {
    /// Watched since, seconds since the epoch.
    #[n(0)]
    since: f64,
    /// Newest last, seconds since the epoch.
    #[n(1)]
    failures: Vec<f64>,
}

impl Restarts {
    /// Watched from now on.
    #[must_use]
    pub const fn new(now: f64) -> Self {
        Self { since: now, failures: Vec::new() }
    }

    /// It has failed.
    pub fn failed(&mut self, now: f64) {
        if self.failures.len() >= KEPT {
            // What is forgotten must not count as time without a failure.
            self.since = self.failures.remove(0);
        }
        self.failures.push(now);
    }

    /// Takes in what another watch of the same component has seen. A death that both have seen is one.
    pub fn merge(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        for at in &other.failures {
            if !self.failures.iter().any(|known| (known - at).abs() < SAME_S) {
                self.failures.push(*at);
            }
        }
        self.failures.sort_by(f64::total_cmp);
        while self.failures.len() > KEPT {
            self.since = self.failures.remove(0);
        }
    }

    /// Whether it fails within the horizon.
    #[must_use]
    pub fn forecast(&self, now: f64) -> Option<Forecast> {
        let count = self.failures.len();
        if count < FAILURES_MIN {
            return None;
        }
        let fade = |age: f64| (-age.max(0.0) / FADES_S).exp();
        let alpha = PRIOR.0 + self.failures.iter().map(|at| fade(now - at)).sum::<f64>();
        let beta = PRIOR.1 + FADES_S * (1.0 - fade(now - self.since));
        let at = |share: f64| beta * ((1.0 - share).powf(-1.0 / alpha) - 1.0);
        let probability = 1.0 - (beta / (beta + HORIZON_S)).powf(alpha);
        let when = When { seconds: at(0.5), earliest: at(0.05), latest: at(0.95) };
        let last = self.failures.last().map_or(0.0, |last| now - last);
        let factors = vec![
            format!("it failed {count} times in {:.1} h", (now - self.since) / 3_600.0),
            format!("the last time {:.0} min ago", last / 60.0),
        ];
        let confidence = alpha / (alpha + 2.0);
        Forecast::new((ForecastKind::Failure, "process"), probability, confidence, when, factors)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::learn::Chance;

    const DAY: f64 = 86_400.0;

    #[test]
    fn histories_of_two_watches_are_one() {
        let (mut old, mut new) = (Restarts::new(0.0), Restarts::new(3.0 * DAY));
        (0..20).for_each(|hour| old.failed(f64::from(hour) * 3_600.0));
        // The last death was seen by both.
        new.failed(19.0 * 3_600.0 + 2.0);
        new.failed(3.0 * DAY + 60.0);
        let own = new.clone();
        new.merge(&old);
        assert_eq!(new.failures.len(), KEPT);
        assert_eq!(new.failures.last(), Some(&(3.0 * DAY + 60.0)));
        assert!(new.since < DAY, "what is forgotten is no time without a failure");
        let merged = new.clone();
        new.merge(&old);
        new.merge(&own);
        assert_eq!(new.failures, merged.failures, "whatever comes twice counts once");
    }

    #[test]
    fn once_is_chance_and_often_is_a_rate() {
        let mut restarts = Restarts::new(0.0);
        restarts.failed(DAY);
        assert_eq!(restarts.forecast(DAY + 60.0), None);
        (2..8).for_each(|day| restarts.failed(f64::from(day) * DAY));
        let soon = restarts.forecast(7.0 * DAY + 60.0).unwrap();
        let later = restarts.forecast(17.0 * DAY).map_or(0.0, |forecast| forecast.probability);
        assert!(soon.probability > 0.4 && later < soon.probability / 2.0, "{soon:?}, then {later}");
        assert!(soon.earliest < soon.seconds && soon.seconds < soon.latest);
    }

    #[test]
    fn probabilities_come_true_as_often_as_they_say() {
        // Components with rates of their own, from one failure in two days to four a day.
        let mut chance = Chance::new(4);
        let (mut said, mut came, mut count) = (0.0, 0.0, 0.0);
        for _ in 0..2_000 {
            let rate = 0.5 * 8.0f64.powf(chance.unit()) / DAY;
            let (mut restarts, mut now) = (Restarts::new(0.0), 0.0);
            let ask = (2.0 + 8.0 * chance.unit()) * DAY;
            let next = loop {
                now += -(1.0 - chance.unit()).ln() / rate;
                if now > ask {
                    break now;
                }
                restarts.failed(now);
            };
            if let Some(forecast) = restarts.forecast(ask) {
                said += forecast.probability;
                came += f64::from(u8::from(next <= ask + HORIZON_S));
                count += 1.0;
            }
        }
        assert!(count > 1_500.0 && ((said - came) / count).abs() < 0.08, "{said} {came} {count}");
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut restarts = Restarts::new(0.0);
        (0..1_000).for_each(|at| restarts.failed(f64::from(at)));
        assert_eq!(restarts.failures.len(), KEPT);
    }
}
