//! One indicator of one instance, with the detectors that suit it.

use medic_state::manifest::{IndicatorSource, IndicatorSpec, ServiceSpec};
use minicbor::{Decode, Encode};

use super::{
    calibrated::Example,
    level::{Eager, Judged, Level, Tuning},
    limit::Limit,
    lives::Lives,
    trend::{Prediction, Trend},
};
use crate::detection::{
    counted::Measured,
    indicator::parse_quantity,
    predict::{budget::Objective, forecast::HORIZON_S},
};

/// What an indicator measures; decides which kind of finding it speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Share or rate of failures.
    Errors,
    /// Time that users wait.
    Latency,
    /// Something that fills up, with a limit.
    Resource,
    /// Anything else, for example traffic: odd values support other findings.
    Other,
}

impl Role {
    /// By name and by how it is computed.
    #[must_use]
    pub fn of(spec: &IndicatorSpec) -> Self {
        let name = spec.name.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| name.contains(word));
        match &spec.source {
            _ if says(&["error", "fail", "5xx"]) => Self::Errors,
            // Calls that go wrong are failures, whoever is to blame.
            IndicatorSource::Ratio { .. }
                if says(&["upstream", "dependency"])
                    && says(&["timeout", "refused", "resolve", "dns"]) =>
            {
                Self::Errors
            }
            IndicatorSource::Quantile { .. } => Self::Latency,
            // How many were timed a second, or how long they took in all, is nobody's wait.
            IndicatorSource::Rate(_) => Self::Other,
            _ if says(&["latency", "duration", "response_time"]) => Self::Latency,
            IndicatorSource::Gauge(_) if spec.limit.is_some() => Self::Resource,
            _ => Self::Other,
        }
    }
}

/// Share of failures that is worth an incident even when it is statistically odd below it.
pub const ERRORS_MATTER: f64 = 0.02;
/// Latency that is worth an incident, as a multiple of the usual one.
const LATENCY_MATTERS: f64 = 1.5;
/// And in seconds: nobody waits noticeably for less (Nielsen, "Usability Engineering" (1993), chapter 5,
/// has the figure). Whose users do notice declares a limit, which needs neither.
const LATENCY_MATTERS_S: f64 = 0.1;
/// Deviations of what has a limit are measured in steps of at least this share of it.
const LIMIT_SHARE: f64 = 0.01;
/// And are worth a word from this share of it on: a deployment moves a small figure a little.
const LIMIT_MATTERS: f64 = 0.1;
/// Burn rate at which a 30-day error budget lasts two days: Google, "The Site Reliability Workbook"
/// (2018), chapter 5, the fast-burn page.
const BURN_RATE: f64 = 14.4;
/// Values in the usual range after which an indicator counts as good again.
pub const GOOD_AFTER: u16 = 3;

/// What one value of one indicator amounts to.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The value.
    pub value: f64,
    /// The level detector's word.
    pub judged: Judged,
    /// The declared (or SLO-derived) limit is crossed.
    pub crossed: bool,
    /// The limit will be reached within the lead.
    pub prediction: Option<Prediction>,
    /// The limit will be reached within the horizon.
    pub foreseen: Option<Prediction>,
    /// Odd, and by so much that users may notice.
    pub matters: bool,
}

/// What goes on while a value is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The process is past its first seconds.
    pub settled: bool,
    /// A finding that this indicator speaks for is active, so its values are no examples of the usual.
    pub suspect: bool,
    /// The value reaches back into a treatment: what that does is no example of the usual either.
    pub treated: bool,
}

/// The state of one indicator's detectors, and how it is to be read.
#[derive(Clone, Debug)]
pub struct Series {
    /// Indicator name.
    pub name: String,
    /// What it measures.
    pub role: Role,
    /// It is so many a second.
    pub per_second: bool,
    /// Its limit.
    pub limit: Option<f64>,
    /// How far ahead is looked for it, seconds.
    pub horizon_s: f64,
    tuning: Tuning,
    /// What travels in checkpoints.
    pub state: SeriesState,
    /// The last value's reading.
    pub last: Option<Reading>,
    /// Good values in a row.
    pub good: u16,
}

/// The part of a series that travels in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct SeriesState {
    #[n(0)]
    level: Level,
    #[n(1)]
    limit: Limit,
    #[n(2)]
    trend: Trend,
    #[n(3)]
    lives: Lives,
}

impl SeriesState {
    /// See [`Trend::rebase`].
    pub fn rebase(&mut self, then_ms: u64, now_ms: u64) {
        self.trend.rebase(then_ms, now_ms);
        self.lives.rebase(then_ms, now_ms);
    }
}

impl Series {
    /// A fresh one.
    #[must_use]
    pub fn new(spec: &IndicatorSpec, service: &ServiceSpec) -> Self {
        let role = Role::of(spec);
        let declared = spec.limit.as_deref().and_then(|text| parse_quantity(text).ok());
        let limit = declared.or_else(|| slo_limit(spec, service));
        let (scale_min, scale_min_share) = match role {
            // Half a percentage point: one failure among a few hundred requests is no shift.
            Role::Errors => (0.005, 0.1),
            Role::Latency => (0.001, 0.1),
            Role::Resource | Role::Other => {
                (limit.map_or(1e-9, |limit| (limit * LIMIT_SHARE).max(1e-9)), 0.05)
            }
        };
        Self {
            name: spec.name.clone(),
            role,
            per_second: matches!(spec.source, IndicatorSource::Rate(_)),
            limit,
            horizon_s: HORIZON_S,
            tuning: Tuning {
                scale_min,
                scale_min_share,
                upward_only: spec.upward_only,
                eager: Eager::default(),
            },
            state: SeriesState::default(),
            last: None,
            good: 0,
        }
    }

    /// From now on speaks so much sooner than usual.
    pub fn heed(&mut self, eager: Eager) {
        self.tuning.eager = eager;
    }

    /// Takes a value.
    pub fn update(&mut self, at_ms: u64, measured: Measured, lead_s: f64, moment: Moment) {
        let Measured { value, at_least } = measured;
        let Moment { settled, suspect, treated } = moment;
        let example = match (suspect, self.harmless(value)) {
            _ if treated => Example::Suspect,
            (false, _) => Example::Usual,
            (true, true) => Example::Harmless,
            (true, false) => Example::Suspect,
        };
        let judged = self.state.level.update(measured, &self.tuning, example);
        let crossed = self.limit.is_some_and(|limit| self.state.limit.update(measured, limit));
        let foreseen = match (self.role, self.limit) {
            (Role::Resource, Some(limit)) => {
                if settled {
                    self.state.lives.note(at_ms, value);
                }
                self.state.trend.update(at_ms, value, limit, self.horizon_s.max(lead_s), settled)
            }
            _ => None,
        };
        let prediction = foreseen.filter(|foreseen| foreseen.seconds <= lead_s);
        let matters = self.matters(value, judged.expected);
        let beyond = self.limit.is_some() && self.state.limit.beyond();
        // An odd resource is no trouble in itself: only its limit and its trend are.
        let telling = matches!(self.role, Role::Errors | Role::Latency);
        let odd = telling && !judged.usual() && judged.warm && matters;
        let unknown = !judged.warm && suspect && !self.harmless(at_least);
        let good = !(beyond || prediction.is_some() || odd || unknown);
        self.good = if good { self.good.saturating_add(1) } else { 0 };
        self.last = Some(Reading { value, judged, crossed, prediction, foreseen, matters });
    }

    /// Of what usually matters, the share that does here: half at full eagerness.
    fn share(&self) -> f64 {
        let Eager { level, cusum } = self.tuning.eager;
        1.0 - 0.5 * level.max(cusum)
    }

    /// Whether users may notice.
    fn matters(&self, value: f64, expected: f64) -> bool {
        let share = self.share();
        match self.role {
            Role::Errors => value >= ERRORS_MATTER * share,
            Role::Latency => {
                let times = 1.0 + (LATENCY_MATTERS - 1.0) * share;
                value >= LATENCY_MATTERS_S * share && value >= times * expected
            }
            Role::Resource | Role::Other => {
                let least = LIMIT_MATTERS * share;
                self.limit.is_none_or(|limit| (value - expected).abs() >= least * limit.abs())
            }
        }
    }

    /// Whether its last value says something of which it takes two in a row: the first beyond a limit,
    /// or the first odd share of failures.
    #[must_use]
    pub fn first_of_two(&self) -> bool {
        let Some(reading) = self.last.as_ref() else { return false };
        let beyond = self.limit.is_some() && self.state.limit.beyond() && !reading.crossed;
        let failing = self.role == Role::Errors && reading.matters && reading.judged.streak == 1;
        beyond || failing
    }

    /// Whether it fills up as it does not usually, for at most so many values in a row.
    #[must_use]
    pub fn rises(&self, most: u16) -> bool {
        let (Some(reading), Some(limit)) = (self.last.as_ref(), self.limit) else { return false };
        let Judged { z, streak, .. } = reading.judged;
        let rising = z > 0.0 && (1..=most).contains(&streak) && self.state.trend.begun();
        self.role == Role::Resource && rising && reading.value < limit
    }

    /// There was no value: neither good nor bad, and nothing to vote with.
    pub fn no_value(&mut self) {
        self.last = None;
        self.good = 0;
    }

    /// The process is another: what it fills starts from nothing.
    pub fn process_changed(&mut self) {
        self.state.trend.reset();
        self.state.lives.ended();
    }

    /// Seconds until the limit by the speed of former lives of the process: expected, earliest, latest.
    #[must_use]
    pub fn former_lives(&self, value: f64) -> Option<(f64, f64, f64)> {
        self.state.lives.reach(value, self.limit.filter(|_| self.role == Role::Resource)?)
    }

    /// A value that nobody would call bad, whatever the detectors have (not) learned.
    fn harmless(&self, value: f64) -> bool {
        match (self.role, self.limit) {
            (Role::Errors, limit) => {
                let matters = ERRORS_MATTER * self.share();
                value < limit.unwrap_or(matters).min(matters)
            }
            // Without a limit nothing else is known: what a new owner sees must become the usual.
            (_, limit) => limit.is_none_or(|limit| value < limit),
        }
    }
}

/// An SLO without a declared limit gives one: the fast-burn rate.
fn slo_limit(spec: &IndicatorSpec, service: &ServiceSpec) -> Option<f64> {
    let slo = service.slo.as_ref().filter(|slo| slo.indicator == spec.name)?;
    Some((BURN_RATE * Objective::of(slo).allowed).clamp(0.01, 0.5))
}
