//! A component that has failed before: its hazard over the next horizon, from its own history.
//!
//! Failures come at a rate that is itself uncertain: gamma, of the failures seen (older ones count less)
//! over the time watched, and a prior of one failure in thirty days. Gelman et al., "Bayesian Data
//! Analysis" (2013), 2.6. The hazard varies about that rate with the time since the last failure, and
//! with how often it failed of late, as it did with others of its service ([`super::recurrence`]):
//! time counts by the ratio of its cell, past time and time to come. So the next is Lomax on such a clock:
//! P(none within h) = (β / (β + x(h)))^α, x(h) being h on that clock; by simulated fleets better than
//! a constant rate wherever failures come in bursts, by wear or with a bad release, and no worse elsewhere.

use minicbor::{Decode, Encode};

use super::{
    forecast::{Forecast, ForecastKind, When},
    recurrence::{self, Baseline, Ratios},
};

/// Failures kept: older ones no longer move the rate.
const KEPT: usize = 16;
/// What is this old counts 1/e.
const FADES_S: f64 = 7.0 * 86_400.0;
/// One failure in thirty days, worth a fiftieth of a failure.
const PRIOR: (f64, f64) = (0.02, 0.6 * 86_400.0);
/// Two watches see one death this far apart, by their clocks, at the most.
const SAME_S: f64 = 10.0;
/// No failure is expected later than this: a hundred years.
const NEVER_S: f64 = 3.2e9;
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

    /// Adds its history to what is known of its service.
    pub fn tell(&self, now: f64, service: &mut Baseline) {
        if self.failures.len() >= FAILURES_MIN {
            let (alpha, beta) = self.posterior(now, &Ratios::default());
            service.note(&self.failures, now, alpha / beta);
        }
    }

    /// Whether it fails within `horizon` seconds, its hazard varying by these ratios.
    #[must_use]
    pub fn forecast(&self, now: f64, horizon: f64, ratios: &Ratios) -> Option<Forecast> {
        let count = self.failures.len();
        if count < FAILURES_MIN {
            return None;
        }
        let (alpha, beta) = self.posterior(now, ratios);
        // What the clock shows after a share of such components has failed again.
        let at =
            |share: f64| self.until(now, beta * ((1.0 - share).powf(-1.0 / alpha) - 1.0), ratios);
        let ahead = self.clock(now, now + horizon, ratios);
        let probability = 1.0 - (beta / (beta + ahead)).powf(alpha);
        let when = When { seconds: at(0.5), earliest: at(0.05), latest: at(0.95) };
        let last = self.failures.last().map_or(0.0, |last| now - last);
        let mut factors = vec![
            format!("it failed {count} times in {:.1} h", (now - self.since) / 3_600.0),
            format!("the last time {:.0} min ago", last / 60.0),
        ];
        let ratio = ahead / horizon.max(1.0);
        if !(0.5..=2.0).contains(&ratio) {
            let how = format!("{ratio:.1} times the failures of any day");
            factors.push(format!("by its service, {how} follow at such a time"));
        }
        let confidence = alpha / (alpha + 2.0);
        let about = (ForecastKind::Failure, "process");
        Some(Forecast::new(about, probability, confidence, when, factors)?.within(horizon))
    }

    /// Its rate, as a gamma: failures, and seconds on the clock of the ratios.
    fn posterior(&self, now: f64, ratios: &Ratios) -> (f64, f64) {
        let fade = |age: f64| (-age.max(0.0) / FADES_S).exp();
        let alpha = PRIOR.0 + self.failures.iter().map(|at| fade(now - at)).sum::<f64>();
        let between = |from: f64, to: f64| FADES_S * (fade(now - to) - fade(now - from)).max(0.0);
        let first = self.failures.first().copied().unwrap_or(now);
        let mut beta = PRIOR.1 + between(self.since, first);
        recurrence::stretches(&self.failures, now, |cell, from, to| {
            beta += ratios.of(cell) * between(from, to);
        });
        (alpha, beta)
    }

    /// What the clock of the ratios shows at `until`, from `now` on, without a further failure.
    fn clock(&self, now: f64, until: f64, ratios: &Ratios) -> f64 {
        let mut shown = 0.0;
        recurrence::after(&self.failures, now, until, |cell, from, to| {
            shown += ratios.of(cell) * (to - from);
        });
        shown
    }

    /// Seconds until that clock shows this much.
    fn until(&self, now: f64, wanted: f64, ratios: &Ratios) -> f64 {
        let (mut shown, mut found) = (0.0, None);
        recurrence::after(&self.failures, now, now + NEVER_S, |cell, from, to| {
            let ratio = ratios.of(cell);
            let more = ratio * (to - from);
            if found.is_none() && shown + more >= wanted {
                found = Some(from - now + (wanted - shown) / ratio.max(f64::MIN_POSITIVE));
            }
            shown += more;
        });
        found.unwrap_or(NEVER_S)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{detection::predict::forecast::HORIZON_S, learn::Chance};

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
        assert_eq!(restarts.forecast(DAY + 60.0, HORIZON_S, &Ratios::default()), None);
        (2..8).for_each(|day| restarts.failed(f64::from(day) * DAY));
        let soon = restarts.forecast(7.0 * DAY + 60.0, HORIZON_S, &Ratios::default()).unwrap();
        let later = restarts
            .forecast(17.0 * DAY, HORIZON_S, &Ratios::default())
            .map_or(0.0, |forecast| forecast.probability);
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
            if let Some(forecast) = restarts.forecast(ask, HORIZON_S, &Ratios::default()) {
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

    /// How failures of a simulated service follow each other.
    #[derive(Clone, Copy, Debug)]
    enum World {
        /// At a constant rate, each component at its own.
        Constant,
        /// Seven of ten failures are followed by another within half an hour or so.
        Bursts,
        /// By wear: Weibull of shape 4.
        Wear,
        /// A bad state, in which it fails every three hours, comes and goes.
        BadRelease,
    }

    impl World {
        fn next(self, rate: f64, bad: &mut bool, chance: &mut Chance) -> f64 {
            let mut wait = || -(1.0 - chance.unit()).ln();
            let (short, draw) = (wait(), wait());
            let likely = |share: f64, chance: &mut Chance| chance.unit() < share;
            match self {
                Self::Constant => draw / rate,
                Self::Bursts if likely(0.7, chance) => short * 1_800.0,
                Self::Bursts => draw / (0.3 * rate),
                Self::Wear => draw.powf(0.25) / (0.906 * rate),
                Self::BadRelease => {
                    let turns = likely(if *bad { 0.15 } else { 0.5 }, chance);
                    let now = std::mem::replace(bad, *bad != turns);
                    if now { draw * 10_800.0 } else { draw / (0.3 * rate) }
                }
            }
        }
    }

    /// Brier scores over many services: of a constant rate, and of the hazard.
    fn brier(world: World) -> (f64, f64) {
        let mut chance = Chance::new(5);
        let (mut constant, mut hazard, mut count) = (0.0, 0.0, 0.0);
        for _ in 0..40 {
            let mut service = Vec::new();
            for _ in 0..30 {
                let rate = 0.15 * 10.0f64.powf(chance.unit()) / DAY;
                let ask = (3.0 + 18.0 * chance.unit()) * DAY;
                let (mut restarts, mut now, mut bad) = (Restarts::new(0.0), 0.0, false);
                let next = loop {
                    now += 20.0 + world.next(rate, &mut bad, &mut chance);
                    if now > ask {
                        break now;
                    }
                    restarts.failed(now);
                };
                service.push((restarts, ask, f64::from(u8::from(next <= ask + HORIZON_S))));
            }
            let mut known = Baseline::default();
            service.iter().for_each(|(restarts, ask, _)| restarts.tell(*ask, &mut known));
            let known = known.ratios(&Ratios::default());
            for (restarts, ask, failed) in &service {
                let said = |ratios: &Ratios| {
                    let told = restarts.forecast(*ask, HORIZON_S, ratios);
                    told.map_or(0.0, |one| one.probability)
                };
                if restarts.failures.len() >= FAILURES_MIN {
                    constant += (said(&Ratios::default()) - failed).powi(2);
                    hazard += (said(&known) - failed).powi(2);
                    count += 1.0;
                }
            }
        }
        assert!(count > 500.0, "{world:?}: {count}");
        (constant / count, hazard / count)
    }

    #[test]
    fn a_hazard_by_history_is_better_than_a_constant_rate() {
        for (world, share) in [
            (World::Constant, 1.01),
            (World::Bursts, 0.8),
            (World::Wear, 0.8),
            (World::BadRelease, 0.8),
        ] {
            let (constant, hazard) = brier(world);
            assert!(hazard < share * constant, "{world:?}: {hazard:.4} against {constant:.4}");
        }
    }
}
