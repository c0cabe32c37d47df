//! The metrics of one entity, row by row: one verdict for all of them.
//!
//! ```text
//!  metric ─► Pulse (tier 0) ─┬ novelty ─────────────► refractory ─► anomaly  (something begins)
//!  metric ─► Pulse           └ reach ────► which metric is to blame
//!     all ─► Crowd (tier 1) ─┐
//!    only ─► Lone  (tier 2) ─┴► score (stays high as long as it lasts) ─┬─────────► alert ─► goes on
//!                                                             Conformal └ p-value ─┘
//! ```
//!
//! Pure, deterministic, of bounded size, and it travels in checkpoints ([`STATE_VERSION`]). One set of
//! numbers serves every series: whatever differs between them is learnt from their own past.

mod crowd;
mod histogram;
mod jumps;
mod lone;
mod pulse;
mod reach;
mod record;
mod subspace;
#[cfg(test)]
mod tests;

use minicbor::{Decode, Encode};

use crowd::{Crowd, CrowdTuning};
use lone::Lone;
use pulse::Weights;
pub use pulse::{Beat, Pulse};
use reach::ReachTuning;

use super::conformal::Conformal;

/// Version of the state: one that was written by another is not taken over.
const STATE_VERSION: u16 = 3;

/// Weights of the records above and below of each statistic of a [`Pulse`]: value; running means over 3, 8,
/// 24, 72 rows; spread over 96; difference over 12; residual of a slow level; residual of the hour's profile.
/// What weighs nothing was not worth its false alarms.
const WEIGHTS: Weights = [
    (0.5, 2.0),
    (0.2, 0.531),
    (0.4, 0.0),
    (0.0, 1.0),
    (0.736, 0.062),
    (0.0, 0.5),
    (0.188, 0.0),
    (0.0, 1.0),
    (0.0, 0.125),
];
/// Of the value as it is, and of its cube root. The root is for what multiplies or all but vanishes: there a
/// drop to nothing is as far out as a rise, and large values are no noisier than small ones.
const REACH: [ReachTuning; 2] = [
    ReachTuning { weight: 1.0, tail: [0.12, 0.3], below: 0.2, floor: 0.08, rate: 0.006 },
    ReachTuning { weight: 0.9, tail: [0.2, 0.3], below: 1.0, floor: 0.02, rate: 0.01 },
];
const CROWD: CrowdTuning = CrowdTuning {
    weight: [1.0, 0.5, 0.3],
    beside: [0.8, 0.4],
    slow: 4.0,
    slow_rate: 0.01,
    rows: 256,
    gate: 0.9,
    every: 8,
};
/// Novelty that is worth telling: the anomaly is then one half.
const NOVELTY_TELLING: f64 = 0.008_25;
/// Reach that is worth telling, of a single metric.
const REACH_TELLING: f64 = 9.9;
/// Second look at an only metric that is worth telling.
const LONE_TELLING: f64 = 9.4;
/// Score of the crowd that is worth telling.
const CROWD_TELLING: f64 = 0.88;
/// A score that is worth telling is told if no larger share of the entity's rows has one as high.
const RARE: f64 = 0.03;
/// An only metric's alert goes on for at most so many rows after the last that was worth telling, while the score
/// is at least this share of it: one trouble is one alert, not as many as it has peaks. A crowd's score is smooth
/// enough by itself.
const GOES_ON_ROWS: u8 = 8;
const GOES_ON_SHARE: f64 = 0.4;
/// After something new, what follows within this many rows counts as its continuation, unless it is
/// [`REFRACTORY_BEATEN_BY`] times as new. At most a tenth of what was seen, so that short histories are
/// not silenced.
const REFRACTORY_ROWS: u32 = 200;
const REFRACTORY_BEATEN_BY: f64 = 4.0;
const HOUR_MS: i64 = 3_600_000;

impl Pulse {
    /// [`Pulse::update`] with the numbers that are shipped.
    pub fn judge(&mut self, value: f64, hour: Option<u8>) -> Beat {
        self.update(value, hour, &WEIGHTS, &REACH)
    }
}

/// What a row amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// 0 usual .. 1 never seen before; high when something begins, 0 while it goes on. From one half on it
    /// is worth telling.
    pub anomaly: f64,
    /// How far out, in units of what is worth telling; stays high as long as it lasts.
    pub score: f64,
    /// Share of this entity's rows with a score as high: exceeded at its rate even while the rows drift. 1
    /// is usual, and it is never below one in the number of rows seen.
    pub p_value: f64,
    /// Worth telling, and rare enough.
    pub alert: bool,
    /// Not so by itself, but an alert was a few rows ago, and it has not died down since.
    pub goes_on: bool,
    /// The metric that is furthest out, where one is so far out that it is worth telling by itself.
    pub metric: Option<usize>,
    /// And others are as well.
    pub several: bool,
    /// One metric of several gave the score: too little was seen to judge them together.
    pub alone: bool,
}

/// Detectors of one entity.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Panel {
    #[n(0)]
    version: u16,
    #[n(1)]
    pulses: Vec<Pulse>,
    #[n(2)]
    crowd: Option<Crowd>,
    #[n(3)]
    seen: u32,
    /// Row and size of the last novelty told.
    #[n(4)]
    told_at: u32,
    #[n(5)]
    told: f64,
    #[n(6)]
    conformal: Conformal,
    #[n(7)]
    lone: Option<Lone>,
    /// Rows for which the last alert may still go on.
    #[n(8)]
    going_on: u8,
}

impl Panel {
    /// For so many metrics.
    #[must_use]
    pub fn new(metrics: usize) -> Self {
        Self {
            version: STATE_VERSION,
            pulses: vec![Pulse::default(); metrics],
            crowd: (metrics > 1).then(|| Crowd::new(metrics)),
            seen: 0,
            told_at: 0,
            told: 0.0,
            conformal: Conformal::default(),
            lone: (metrics == 1).then(Lone::default),
            going_on: 0,
        }
    }

    /// Whether this state was written by this version, for so many metrics.
    #[must_use]
    pub fn fits(&self, metrics: usize) -> bool {
        self.version == STATE_VERSION && self.pulses.len() == metrics
    }

    /// Judges a row, then learns from it. `NaN`: there is no value. `at_ms`: since the epoch, if known.
    pub fn update(&mut self, at_ms: Option<i64>, values: &[f64]) -> Verdict {
        let hour = at_ms.map(|at| at.div_euclid(HOUR_MS).rem_euclid(24) as u8);
        // Before tier 0 learns the value into the profile that both hold it against.
        let again = self.again(values, hour);
        let (mut novelty, mut reach, mut metric) = (0.0_f64, 0.0_f64, None);
        let mut out = 0_usize;
        for (at, (pulse, &value)) in self.pulses.iter_mut().zip(values).enumerate() {
            if !value.is_finite() {
                continue;
            }
            let beat = pulse.judge(value, hour);
            novelty = novelty.max(beat.novelty);
            out += usize::from(beat.reach >= REACH_TELLING);
            if beat.reach > reach {
                (reach, metric) = (beat.reach, Some(at));
            }
        }
        let metric = metric.filter(|_| reach >= REACH_TELLING);
        let (mut score, mut alone) = (again / LONE_TELLING, false);
        let metric = match &mut self.crowd {
            Some(crowd) => {
                score = crowd.update(values, &CROWD) / CROWD_TELLING;
                // Before it has seen enough, each metric speaks for itself.
                alone = !crowd.speaks();
                if alone {
                    score = reach / REACH_TELLING;
                }
                metric
            }
            None => (score >= 1.0).then_some(0),
        };
        let p_value = self.conformal.update(score);
        let told = self.refractory(novelty);
        self.seen = self.seen.saturating_add(1);
        let alert = score >= 1.0 && p_value <= RARE;
        let goes_on = !alert && self.going_on > 0 && score >= GOES_ON_SHARE;
        self.going_on = match (&self.lone, alert) {
            (Some(_), true) => GOES_ON_ROWS,
            _ => self.going_on.saturating_sub(1),
        };
        let anomaly = told / (told + NOVELTY_TELLING);
        Verdict { anomaly, score, p_value, alert, goes_on, metric, several: out > 1, alone }
    }

    /// The second look at an only metric; 0 where there are several, or no value.
    fn again(&mut self, values: &[f64], hour: Option<u8>) -> f64 {
        match (&mut self.lone, self.pulses.first(), values.first()) {
            (Some(lone), Some(pulse), Some(&value)) if value.is_finite() => {
                lone.update(value, pulse.profiled(hour), hour, &REACH)
            }
            _ => 0.0,
        }
    }

    /// The novelty, unless it goes on with one told before.
    fn refractory(&mut self, novelty: f64) -> f64 {
        let window = (self.seen / 10).min(REFRACTORY_ROWS);
        let over = self.told <= 0.0 || self.seen - self.told_at > window;
        if !over && novelty <= REFRACTORY_BEATEN_BY * self.told {
            return 0.0;
        }
        if novelty > 0.0 && (over || novelty > self.told) {
            (self.told_at, self.told) = (self.seen, novelty);
        }
        novelty
    }
}
