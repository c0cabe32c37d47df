//! What is foreseen of one instance: of what kind, how likely, when, why, and what to do about it.
//!
//! Four kinds, each made where its evidence is: a bound that a trend will cross ([`crossing`]), a process
//! that has failed before ([`super::restarts`]), an error budget that is being spent
//! ([`super::budget`]), a certificate that ends ([`super::expiry`]).
//!
//! Invariant: every forecast names its horizon and can be held against what happened
//! ([`super::record`]).

use medic_state::Millis;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::detection::detector::normal_tail;

/// How far ahead is looked, where nothing else is configured.
pub const HORIZON_S: f64 = 86_400.0;
/// Nothing about the future is surer than this.
const PROBABILITY_MAX: f64 = 0.99;
/// Less likely events are no forecast.
pub const PROBABILITY_MIN: f64 = 0.1;

/// Kinds of forecasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Encode, Decode)]
#[serde(rename_all = "kebab-case")]
pub enum ForecastKind {
    /// A component will fail.
    #[n(0)]
    Failure,
    /// Something will be full.
    #[n(1)]
    Capacity,
    /// Users will notice: the error budget will be spent.
    #[n(2)]
    Performance,
    /// A protection will end.
    #[n(3)]
    SecurityRisk,
}

impl ForecastKind {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Failure, Self::Capacity, Self::Performance, Self::SecurityRisk];

    /// As in labels of metrics and symptoms.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Capacity => "capacity",
            Self::Performance => "performance",
            Self::SecurityRisk => "security-risk",
        }
    }

    /// What people can do before it happens.
    #[must_use]
    pub const fn actions(self) -> &'static [&'static str] {
        match self {
            Self::Failure => &["drain it and replace it", "look at its last exits"],
            Self::Capacity => &["recycle the instance", "raise the limit", "find what fills it"],
            Self::Performance => &["hold back rollouts", "find what fails", "shed load"],
            Self::SecurityRisk => &["renew the certificate"],
        }
    }
}

/// Kinds of predictions that open an incident before anything broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Opens {
    /// A component that keeps failing will fail again.
    pub failure: bool,
    /// An error budget will be spent.
    pub performance: bool,
    /// A certificate ends.
    pub security_risk: bool,
}

impl Default for Opens {
    /// A certificate's end is certain, and no other symptom comes before it.
    fn default() -> Self {
        Self { failure: false, performance: false, security_risk: true }
    }
}

/// How far ahead is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizons {
    /// For what is estimated.
    pub general: Millis,
    /// For the end of a certificate, which is written in it: to get a new one takes people days.
    pub certificate: Millis,
}

impl Default for Horizons {
    fn default() -> Self {
        Self { general: Millis::from_secs(86_400), certificate: Millis::from_secs(14 * 86_400) }
    }
}

/// When a forecast may open an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Opening {
    /// Whatever its time.
    #[n(0)]
    WithinHorizon,
    /// Once it is nearer than `detection.lead`.
    #[n(1)]
    WithinLead,
    /// Not by itself: a detector tells of it, or it is too early to.
    #[n(2)]
    Elsewhere,
}

/// What has come to pass, and is told by no detector.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A certificate ended so many seconds ago.
    Expired {
        /// The indicator.
        subject: String,
        /// Seconds since its end.
        since: f64,
    },
    /// A value is below its floor.
    Depleted {
        /// The indicator.
        subject: String,
        /// The value.
        value: f64,
        /// Its floor.
        floor: f64,
    },
}

/// One forecast.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// Of what kind.
    pub kind: ForecastKind,
    /// What it is about: an indicator, or `process`.
    pub subject: String,
    /// That it happens within the horizon.
    pub probability: f64,
    /// How much the evidence is worth, from 0 to 1.
    pub confidence: f64,
    /// Expected time from now, seconds.
    pub seconds: f64,
    /// Early end of the interval (90 % or more).
    pub earliest: f64,
    /// Late end of it.
    pub latest: f64,
    /// How far ahead was looked, seconds.
    pub horizon: f64,
    /// What speaks for it.
    pub factors: Vec<String>,
    /// What can be done.
    pub actions: &'static [&'static str],
    /// When it may open an incident.
    #[serde(skip)]
    pub opening: Opening,
}

/// When something happens, by a model: seconds from now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct When {
    /// Expected.
    pub seconds: f64,
    /// Early end.
    pub earliest: f64,
    /// Late end.
    pub latest: f64,
}

impl Forecast {
    /// A forecast for the default horizon; `None` when it is too unlikely to tell.
    #[must_use]
    pub fn new(
        (kind, subject): (ForecastKind, &str),
        probability: f64,
        confidence: f64,
        when: When,
        factors: Vec<String>,
    ) -> Option<Self> {
        (probability >= PROBABILITY_MIN).then(|| Self {
            kind,
            subject: subject.to_owned(),
            probability: probability.min(PROBABILITY_MAX),
            confidence: confidence.clamp(0.0, 1.0),
            seconds: when.seconds.max(0.0),
            earliest: when.earliest.max(0.0),
            latest: when.latest.max(when.seconds),
            horizon: HORIZON_S,
            factors,
            actions: kind.actions(),
            opening: Opening::WithinHorizon,
        })
    }

    /// The same, looking this many seconds ahead.
    #[must_use]
    pub const fn within(mut self, horizon: f64) -> Self {
        self.horizon = horizon;
        self
    }

    /// The same, to be told of otherwise.
    #[must_use]
    pub const fn opening(mut self, opening: Opening) -> Self {
        self.opening = opening;
        self
    }
}

/// A bound will be crossed. `when` follows from the interval (95 %) of a slope that is above zero, so
/// speeds are the inverse of times: the probability is that of a speed which gets there within `horizon`
/// seconds, the slope being normal about its estimate.
#[must_use]
pub fn crossing(
    about: (ForecastKind, &str),
    when: When,
    (p_value, horizon): (f64, f64),
    factors: Vec<String>,
) -> Option<Forecast> {
    let speed = |seconds: f64| 1.0 / seconds.max(1.0);
    let spread = (speed(when.earliest) - speed(when.latest)) / (2.0 * 1.96);
    let margin = speed(when.seconds) - speed(horizon);
    let probability = match spread > 0.0 {
        true => 1.0 - normal_tail(margin / spread),
        false => f64::from(u8::from(margin >= 0.0)),
    };
    // An interval as wide as its middle is worth nothing.
    let tightness = 1.0 - (when.latest - when.earliest) / (when.latest + when.earliest).max(1.0);
    let confidence = tightness * (1.0 - p_value);
    Some(Forecast::new(about, probability, confidence, when, factors)?.within(horizon))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn within(seconds: f64, earliest: f64, latest: f64) -> Option<Forecast> {
        let about = (ForecastKind::Capacity, "memory");
        crossing(about, When { seconds, earliest, latest }, (1e-4, HORIZON_S), Vec::new())
    }

    #[test]
    fn a_crossing_is_as_likely_as_its_slope_allows() {
        assert!(within(3_600.0, 3_000.0, 4_500.0).unwrap().probability > 0.98);
        let at_the_horizon = within(HORIZON_S, 0.8 * HORIZON_S, 1.4 * HORIZON_S).unwrap();
        assert!((at_the_horizon.probability - 0.5).abs() < 0.01);
        assert!(within(3.0 * HORIZON_S, 2.5 * HORIZON_S, 4.0 * HORIZON_S).is_none());
        let (tight, wide) = (within(600.0, 550.0, 660.0), within(600.0, 200.0, 6_000.0));
        assert!(tight.unwrap().confidence > wide.unwrap().confidence);
    }
}
