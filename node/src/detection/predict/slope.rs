//! Will a value cross a bound that its detectors do not follow it to: fall to a floor, or, being a latency,
//! rise to its limit?
//!
//! The same trend as that of limits ([`Trend`]), which rises: what falls is taken as what was used up since
//! it was first seen. A latency goes up and down with load, smoothly and within minutes: its trend is
//! one of means over a minute, so that it takes eight minutes of a rise to foresee any.

use medic_state::manifest::{IndicatorSource, IndicatorSpec};
use minicbor::{Decode, Encode};

use super::forecast::{Fact, Forecast, ForecastKind, Opening, When, crossing};
use crate::detection::{
    beside::names_host,
    counted::Measured,
    detector::{Limit, Prediction, Role, Trend},
    indicator::{Bound, parse_bound},
};

/// From the first to the last value of a mean, a scrape of 5 s less than a minute.
const MINUTE_MS: u64 = 55_000;

/// What travels in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct SlopeState {
    #[n(0)]
    trend: Trend,
    #[n(1)]
    limit: Limit,
    /// The first value, from which a fall is counted.
    #[n(2)]
    origin: Option<f64>,
}

/// One indicator, and the bound that it nears.
#[derive(Clone, Debug)]
pub struct Slope {
    bound: Bound,
    /// It is a figure of the host, which outlives the process.
    of_host: bool,
    /// What travels.
    pub state: SlopeState,
    value: f64,
    minute: Minute,
    foreseen: Option<Prediction>,
}

/// The mean of the present minute.
#[derive(Clone, Copy, Debug, Default)]
struct Minute {
    from_ms: u64,
    sum: f64,
    count: u32,
}

impl Minute {
    /// Takes a value; gives the mean once the minute is over.
    fn take(&mut self, at_ms: u64, value: f64) -> Option<f64> {
        if self.count == 0 {
            self.from_ms = at_ms;
        }
        (self.sum, self.count) = (self.sum + value, self.count + 1);
        let over = at_ms.saturating_sub(self.from_ms) >= MINUTE_MS;
        over.then(|| std::mem::take(self)).map(|done| done.sum / f64::from(done.count))
    }
}

impl Slope {
    /// Of an indicator with a floor, or of a latency with a limit.
    #[must_use]
    pub fn of(spec: &IndicatorSpec) -> Option<Self> {
        let bound = parse_bound(spec.limit.as_deref()?).ok()?;
        let followed = matches!(bound, Bound::AtMost(_)) && Role::of(spec) != Role::Latency;
        let of_host = matches!(&spec.source, IndicatorSource::Gauge(text) if names_host(text));
        (!followed).then(|| Self {
            bound,
            of_host,
            state: SlopeState::default(),
            value: f64::NAN,
            minute: Minute::default(),
            foreseen: None,
        })
    }

    /// Takes a value; looks `horizon` seconds ahead. `settled`: the process is past its first seconds.
    pub fn note(&mut self, at_ms: u64, value: f64, horizon: f64, settled: bool) {
        self.value = value;
        let origin = *self.state.origin.get_or_insert(value);
        let (risen, limit) = match self.bound {
            Bound::AtLeast(floor) => {
                self.state.limit.update(Measured::exact(-value), -floor);
                (origin - value, origin - floor)
            }
            Bound::AtMost(limit) => {
                self.state.limit.update(Measured::exact(value), limit);
                let Some(mean) = self.minute.take(at_ms, value) else { return };
                (mean, limit)
            }
        };
        let settled = settled || self.of_host;
        self.foreseen = self.state.trend.update(at_ms, risen, limit, horizon, settled);
    }

    /// There was no value.
    pub const fn no_value(&mut self) {
        self.foreseen = None;
    }

    /// The process is another.
    pub fn process_changed(&mut self) {
        if !self.of_host {
            self.state.trend.reset();
            (self.state.origin, self.minute) = (None, Minute::default());
            self.foreseen = None;
        }
    }

    /// Goes on from what another watch knew; see [`Trend::rebase`].
    pub fn learn(&mut self, mut state: SlopeState, then_ms: u64, now_ms: u64) {
        state.trend.rebase(then_ms, now_ms);
        self.state = state;
    }

    /// Whether the bound is crossed.
    #[must_use]
    pub const fn crossed(&self) -> bool {
        self.state.limit.crossed()
    }

    /// What its crossing is.
    #[must_use]
    pub const fn kind(&self) -> ForecastKind {
        match self.bound {
            Bound::AtLeast(_) => ForecastKind::Capacity,
            Bound::AtMost(_) => ForecastKind::Performance,
        }
    }

    /// That it will cross.
    #[must_use]
    pub fn forecast(&self, subject: &str, horizon: f64) -> Option<Forecast> {
        let Prediction { seconds, earliest, latest, slope, p_value } = self.foreseen?;
        let how = match self.bound {
            Bound::AtLeast(floor) => format!("falling to its floor of {floor}"),
            Bound::AtMost(limit) => format!("rising to its limit of {limit}"),
        };
        let value = self.value;
        let factors = vec![format!("{value} and {how} by {slope:.3e} a second (p {p_value:.1e})")];
        let when = When { seconds, earliest, latest };
        let told = crossing((self.kind(), subject), when, (p_value, horizon), factors)?;
        Some(told.opening(Opening::WithinLead))
    }

    /// That it is below its floor; limits have a detector.
    #[must_use]
    pub fn fact(&self, subject: &str) -> Option<Fact> {
        let Bound::AtLeast(floor) = self.bound else { return None };
        let fact = || Fact::Depleted { subject: subject.to_owned(), value: self.value, floor };
        (self.crossed() && self.value.is_finite()).then(fact)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{detection::predict::forecast::HORIZON_S, learn::Chance};

    const GIB: f64 = 1_073_741_824.0;

    fn slope(name: &str, source: serde_json::Value, limit: &str) -> Option<Slope> {
        let spec = serde_json::json!({"name": name, "source": source, "limit": limit});
        Slope::of(&serde_json::from_value(spec).unwrap())
    }

    fn available() -> Slope {
        let gauge = serde_json::json!({"gauge": "node_filesystem_avail_bytes{mountpoint=\"/\"}"});
        slope("disk_available", gauge, ">= 5GiB").unwrap()
    }

    #[test]
    fn what_falls_is_foreseen_to_reach_its_floor_and_is_a_fact_below_it() {
        let (mut disk, mut chance) = (available(), Chance::new(1));
        let per_s = 0.01 * GIB;
        let at = |second: u64, jitter: f64| 50.0 * GIB - per_s * second as f64 + jitter;
        for second in (0..1_000).step_by(5) {
            disk.note(second * 1_000, at(second, 1e6 * chance.unit()), HORIZON_S, true);
        }
        let told = disk.forecast("disk_available", HORIZON_S).unwrap();
        assert_eq!((told.kind, told.opening), (ForecastKind::Capacity, Opening::WithinLead));
        assert!((told.seconds - 3_505.0).abs() < 100.0, "{told:?}");
        assert!(told.earliest < told.seconds && told.seconds < told.latest);
        assert!(told.probability > 0.95 && told.confidence > 0.5, "{told:?}");
        assert_eq!(disk.fact("disk_available"), None);
        // A restart of the process empties no disk.
        disk.process_changed();
        (0..2).for_each(|second| disk.note(4_600_000 + second, 4.0 * GIB, HORIZON_S, true));
        assert!(matches!(disk.fact("disk_available"), Some(Fact::Depleted { .. })));
        assert!(disk.forecast("disk_available", HORIZON_S).is_none());
    }

    #[test]
    fn what_wanders_or_is_given_back_is_not_foreseen() {
        let (mut disk, mut chance) = (available(), Chance::new(2));
        for second in (0..200_000u64).step_by(5) {
            // Logs fill a tenth of it each hour, and are rotated away.
            let filled = 5.0 * GIB * (second % 3_600) as f64 / 3_600.0;
            let value = 50.0 * GIB - filled + 0.2 * GIB * chance.unit();
            disk.note(second * 1_000, value, HORIZON_S, true);
            let told = disk.forecast("disk_available", HORIZON_S);
            let within = told.filter(|one| one.probability >= 0.8 && second > 7_200);
            assert_eq!(within, None, "at {second} s");
        }
    }

    #[test]
    fn it_follows_what_no_detector_follows() {
        let gauge = |name: &str| serde_json::json!({"gauge": name});
        assert!(slope("memory", gauge("m"), "64MiB").is_none(), "a limit has its own trend");
        let quantile = serde_json::json!({"quantile": {"histogram": "d", "q": 0.99}});
        let latency = slope("latency_p99", quantile, "250ms").unwrap();
        assert_eq!(latency.kind(), ForecastKind::Performance);
        assert!(slope("inodes", gauge("node_filesystem_files_free"), "lots").is_none());
    }

    /// A day of p99 at a 5 s scrape, in seconds: noise, a daily swing of half, and every two hours a burst
    /// of load that nearly doubles it within minutes and passes. Never at its limit of 250 ms.
    fn healthy(second: u64, noisy: f64, chance: &mut Chance) -> f64 {
        let day = (second as f64 / 86_400.0 * std::f64::consts::TAU).sin();
        let (since, ramp) = ((second % 7_200) as f64, 120.0 + (second / 7_200) as f64 * 40.0);
        let burst = (since / ramp).min(((2.0 * ramp + 300.0 - since) / ramp).max(0.0)).min(1.0);
        let noise: f64 = (0..4).map(|_| chance.unit() - 0.5).sum::<f64>() * noisy;
        0.05 * (1.0 + 0.5 * day) * (1.0 + 0.8 * burst) * noise.exp()
    }

    fn opens(latency: &Slope) -> bool {
        latency.forecast("latency_p99", HORIZON_S).is_some_and(|one| {
            one.probability >= 0.8 && one.confidence >= 0.5 && one.seconds <= 600.0
        })
    }

    #[test]
    fn latencies_are_foreseen_before_their_limit_and_seldom_in_vain() {
        let quantile = serde_json::json!({"quantile": {"histogram": "d", "q": 0.99}});
        let latency = || slope("latency_p99", quantile.clone(), "250ms").unwrap();
        let (mut false_alarms, mut foreseen) = (0, 0);
        for seed in 0..20 {
            let (mut one, mut chance, mut open) = (latency(), Chance::new(seed), false);
            // From smooth to noise of a fifth.
            let noisy = 0.35 * seed as f64 / 20.0;
            for second in (0..86_400).step_by(5) {
                one.note(second * 1_000, healthy(second, noisy, &mut chance), HORIZON_S, true);
                let now = opens(&one);
                false_alarms += u32::from(now && !open);
                open = now;
            }
            // Then it gets slower for half an hour, until it is at its limit.
            let early = (0..1_740u64).step_by(5).any(|second| {
                let slower = 0.2 * second as f64 / 1_800.0;
                let at = 86_400 + second;
                let value = (0.05 + slower) * (1.0 + 0.05 * chance.unit());
                one.note(at * 1_000, value, HORIZON_S, true);
                opens(&one)
            });
            foreseen += u32::from(early);
        }
        let found = format!("{false_alarms} false alarms in 20 days, {foreseen} of 20 foreseen");
        assert!(false_alarms <= 2 && foreseen >= 18, "{found}");
    }
}
