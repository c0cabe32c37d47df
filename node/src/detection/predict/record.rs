//! Predictions held against what happened.
//!
//! ```text
//!  forecast ─► Pending (one a subject, as first made) ─┬ it happened in time ───► came true
//!                                                      ├ its horizon has passed ► did not
//!                                                      └ somebody stepped in, or
//!                                                        a new certificate came ► inconclusive, not scored
//! ```
//!
//! A forecast is scored as it was first made: repeating it nearer to the event earns nothing. What was
//! prevented by a treatment proves nothing either way. The record corrects later probabilities: what was
//! said before, by tenths, is weighed against how often it came true. Bounded: one forecast a subject,
//! ten sums a kind.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::forecast::{Forecast, ForecastKind};

/// Forecasts that wait for their outcome, per instance.
const PENDING_MAX: usize = 32;
/// What ends by a date is waited for this long beyond its horizon, since it is seen only when looked at.
const DATE_SLACK_S: f64 = 3_600.0;
/// Tenths of probability.
const BINS: usize = 10;
/// Largest count that a float holds exactly.
const SUM_MAX: f64 = (1_u64 << 53) as f64;
/// Outcomes that what is said now is worth when it is corrected by the past.
const PRIOR: f64 = 10.0;

/// What became of a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened within the horizon.
    CameTrue,
    /// It did not.
    DidNot,
    /// Somebody stepped in, or nobody could see.
    Inconclusive,
}

impl Outcome {
    /// As in labels of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CameTrue => "came_true",
            Self::DidNot => "did_not",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A forecast with its outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Of what kind.
    pub kind: ForecastKind,
    /// What was said.
    pub probability: f64,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether it came within the interval that was named; only for what came true.
    pub on_time: bool,
}

/// A forecast that waits; times are on the monotonic clock, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pending {
    probability: f64,
    earliest_ms: u64,
    latest_ms: u64,
    due_ms: u64,
}

/// The forecasts of one instance that wait for their outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waiting {
    pending: BTreeMap<(ForecastKind, String), Pending>,
    scored: Vec<Scored>,
}

impl Waiting {
    /// Holds a forecast to what it says, unless an earlier one about the same still waits.
    pub fn hold(&mut self, forecast: &Forecast, now_ms: u64) {
        let key = (forecast.kind, forecast.subject.clone());
        if self.pending.len() >= PENDING_MAX || self.pending.contains_key(&key) {
            return;
        }
        let after = |seconds: f64| now_ms.saturating_add((seconds * 1e3) as u64);
        let slack = if by_date(forecast.kind) { DATE_SLACK_S } else { 0.0 };
        let pending = Pending {
            probability: forecast.probability,
            earliest_ms: after(forecast.earliest),
            latest_ms: after(forecast.latest),
            due_ms: after(forecast.horizon + slack),
        };
        self.pending.insert(key, pending);
    }

    /// It has happened.
    pub fn happened(&mut self, kind: ForecastKind, subject: &str, now_ms: u64) {
        if let Some(pending) = self.pending.remove(&(kind, subject.to_owned())) {
            let on_time = (pending.earliest_ms..=pending.latest_ms).contains(&now_ms);
            self.end(kind, pending, Outcome::CameTrue, on_time);
        }
    }

    /// Somebody has seen to it in time: that it did not happen speaks not against the forecast.
    pub fn prevented(&mut self, kind: ForecastKind, subject: &str) {
        if let Some(pending) = self.pending.remove(&(kind, subject.to_owned())) {
            self.end(kind, pending, Outcome::Inconclusive, false);
        }
    }

    /// Somebody stepped in: what was foreseen of these kinds can no longer be seen.
    pub fn disturbed(&mut self, kinds: &[ForecastKind]) {
        let all = std::mem::take(&mut self.pending);
        for (key, pending) in all {
            if kinds.contains(&key.0) {
                self.end(key.0, pending, Outcome::Inconclusive, false);
            } else {
                self.pending.insert(key, pending);
            }
        }
    }

    /// Ends what is due, and gives all that has ended since the last time.
    pub fn take(&mut self, now_ms: u64) -> Vec<Scored> {
        let all = std::mem::take(&mut self.pending);
        for (key, pending) in all {
            if pending.due_ms <= now_ms {
                // A date fails to come only where it was moved, which is told; else nobody could see.
                let missed = by_date(key.0);
                let outcome = if missed { Outcome::Inconclusive } else { Outcome::DidNot };
                self.end(key.0, pending, outcome, false);
            } else {
                self.pending.insert(key, pending);
            }
        }
        std::mem::take(&mut self.scored)
    }

    fn end(&mut self, kind: ForecastKind, pending: Pending, outcome: Outcome, on_time: bool) {
        let probability = pending.probability;
        self.scored.push(Scored { kind, probability, outcome, on_time });
    }
}

/// Whether it happens at a date that is known beforehand.
fn by_date(kind: ForecastKind) -> bool {
    kind == ForecastKind::SecurityRisk
}

/// Sums over outcomes of forecasts about as likely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Encode, Decode)]
struct Sums {
    #[n(0)]
    count: f64,
    #[n(1)]
    said: f64,
    #[n(2)]
    came_true: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
struct Tally {
    #[n(0)]
    bins: [Sums; BINS],
    #[n(1)]
    square: f64,
    #[n(2)]
    on_time: u64,
    #[n(3)]
    inconclusive: u64,
}

/// How good forecasts were.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Record {
    #[n(0)]
    by_kind: BTreeMap<ForecastKind, Tally>,
}

/// Forecasts about as likely, and how many of them came true.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    /// From this probability, up to a tenth above it.
    pub from: f64,
    /// How many they are.
    pub count: u64,
    /// What they said, in the mean.
    pub said: f64,
    /// Share that came true.
    pub came_true: f64,
}

/// The figures of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Of what kind.
    pub kind: ForecastKind,
    /// Forecasts with an outcome.
    pub count: u64,
    /// Those that came true.
    pub came_true: u64,
    /// Those that nobody could judge.
    pub inconclusive: u64,
    /// Mean square of what probabilities were off by.
    pub brier: f64,
    /// Mean distance between what was said and what happened, by tenths of probability.
    pub ece: f64,
    /// Share of what came true that came within its interval.
    pub coverage: f64,
    /// Tenths of probability in which something was said.
    pub calibration: Vec<Bin>,
}

impl Record {
    /// Adds the outcomes of another.
    pub fn add(&mut self, other: &Self) {
        for (kind, theirs) in &other.by_kind {
            let own = self.by_kind.entry(*kind).or_default();
            for (bin, theirs) in own.bins.iter_mut().zip(&theirs.bins) {
                bin.count += theirs.count;
                bin.said += theirs.said;
                bin.came_true += theirs.came_true;
            }
            own.square += theirs.square;
            own.on_time = own.on_time.saturating_add(theirs.on_time);
            own.inconclusive = own.inconclusive.saturating_add(theirs.inconclusive);
        }
    }

    /// Whether it can have come about by [`Self::note`]: one that came from elsewhere may hold anything.
    #[must_use]
    pub fn sums(&self) -> bool {
        let exact = |sum: &f64| (0.0..=SUM_MAX).contains(sum);
        self.by_kind.values().all(|tally| {
            let sums = tally.bins.iter().flat_map(|bin| [bin.count, bin.said, bin.came_true]);
            sums.chain([tally.square]).all(|sum| exact(&sum))
        })
    }

    /// Takes an outcome.
    pub fn note(&mut self, scored: Scored) {
        let tally = self.by_kind.entry(scored.kind).or_default();
        let came_true = match scored.outcome {
            Outcome::Inconclusive => {
                tally.inconclusive = tally.inconclusive.saturating_add(1);
                return;
            }
            Outcome::CameTrue => 1.0,
            Outcome::DidNot => 0.0,
        };
        let bin = &mut tally.bins[bin(scored.probability)];
        bin.count += 1.0;
        bin.said += scored.probability;
        bin.came_true += came_true;
        tally.square += (scored.probability - came_true).powi(2);
        tally.on_time = tally.on_time.saturating_add(scored.on_time.into());
    }

    /// A probability, corrected by how often such ones came true.
    #[must_use]
    pub fn calibrated(&self, kind: ForecastKind, probability: f64) -> f64 {
        let Some(tally) = self.by_kind.get(&kind) else { return probability };
        let bin = tally.bins[bin(probability)];
        (bin.came_true + PRIOR * probability) / (bin.count + PRIOR)
    }

    /// The figures, by kind; a kind without an outcome is absent.
    #[must_use]
    pub fn scores(&self) -> Vec<Score> {
        self.by_kind.iter().map(|(kind, tally)| tally.score(*kind)).collect()
    }
}

impl Tally {
    fn score(&self, kind: ForecastKind) -> Score {
        let sum = |of: fn(&Sums) -> f64| self.bins.iter().map(of).sum::<f64>();
        let (count, came_true) = (sum(|bin| bin.count), sum(|bin| bin.came_true));
        let per = |value: f64, of: f64| if of > 0.0 { value / of } else { 0.0 };
        Score {
            kind,
            count: count as u64,
            came_true: came_true as u64,
            inconclusive: self.inconclusive,
            brier: per(self.square, count),
            ece: per(sum(|bin| (bin.said - bin.came_true).abs()), count),
            coverage: per(self.on_time as f64, came_true),
            calibration: self.calibration(),
        }
    }
}

impl Tally {
    fn calibration(&self) -> Vec<Bin> {
        let bins = self.bins.iter().enumerate().filter(|(_, sums)| sums.count > 0.0);
        let shown = bins.map(|(at, sums)| Bin {
            from: at as f64 / BINS as f64,
            count: sums.count as u64,
            said: sums.said / sums.count,
            came_true: sums.came_true / sums.count,
        });
        shown.collect()
    }
}

fn bin(probability: f64) -> usize {
    ((probability * BINS as f64) as usize).min(BINS - 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::detection::predict::forecast::{HORIZON_S, When};

    fn forecast(probability: f64, seconds: f64) -> Forecast {
        let when = When { seconds, earliest: seconds * 0.8, latest: seconds * 1.5 };
        Forecast::new((ForecastKind::Capacity, "memory"), probability, 0.9, when, Vec::new())
            .unwrap()
    }

    #[test]
    fn a_forecast_is_scored_as_first_made_and_once() {
        let mut waiting = Waiting::default();
        waiting.hold(&forecast(0.6, 600.0), 0);
        waiting.hold(&forecast(0.99, 10.0), 590_000);
        waiting.happened(ForecastKind::Capacity, "memory", 600_000);
        waiting.happened(ForecastKind::Capacity, "memory", 601_000);
        let scored = waiting.take(601_000);
        assert_eq!(scored.len(), 1);
        assert_eq!((scored[0].probability, scored[0].outcome), (0.6, Outcome::CameTrue));
        assert!(scored[0].on_time);
    }

    #[test]
    fn what_does_not_come_within_the_horizon_did_not_come_true() {
        let mut waiting = Waiting::default();
        waiting.hold(&forecast(0.6, 600.0), 0);
        assert!(waiting.take((HORIZON_S * 1e3) as u64 - 1).is_empty());
        assert_eq!(waiting.take((HORIZON_S * 1e3) as u64)[0].outcome, Outcome::DidNot);
    }

    #[test]
    fn what_was_prevented_is_not_scored() {
        let (mut waiting, mut record) = (Waiting::default(), Record::default());
        waiting.hold(&forecast(0.9, 600.0), 0);
        waiting.disturbed(&[ForecastKind::Failure]);
        assert!(waiting.take(1).is_empty());
        waiting.disturbed(&[ForecastKind::Capacity]);
        waiting.take(1).into_iter().for_each(|scored| record.note(scored));
        let score = record.scores().remove(0);
        assert_eq!((score.count, score.inconclusive), (0, 1));
        assert!(score.calibration.is_empty());
    }

    #[test]
    fn the_record_corrects_what_is_said() {
        let mut record = Record::default();
        assert_eq!(record.calibrated(ForecastKind::Capacity, 0.9), 0.9);
        for at in 0..100 {
            let outcome = if at % 2 == 0 { Outcome::CameTrue } else { Outcome::DidNot };
            let kind = ForecastKind::Capacity;
            record.note(Scored { kind, probability: 0.9, outcome, on_time: false });
        }
        let corrected = record.calibrated(ForecastKind::Capacity, 0.9);
        assert!((corrected - 0.536).abs() < 0.01, "{corrected}");
        assert_eq!(record.calibrated(ForecastKind::Failure, 0.9), 0.9);
        let mut twice = record.clone();
        twice.add(&record);
        let (score, both) = (record.scores().remove(0), twice.scores().remove(0));
        assert_eq!((both.count, both.brier, both.ece), (200, score.brier, score.ece));
        let bin = score.calibration[0];
        assert_eq!((score.calibration.len(), bin.count, bin.came_true), (1, 100, 0.5));
        assert!((bin.said - 0.9).abs() < 1e-9);
        assert!((score.brier - 0.41).abs() < 1e-9 && (score.ece - 0.4).abs() < 1e-9, "{score:?}");
    }

    #[test]
    fn waiting_is_bounded() {
        let mut waiting = Waiting::default();
        for at in 0..1_000 {
            let mut one = forecast(0.5, 60.0);
            one.subject = at.to_string();
            waiting.hold(&one, 0);
        }
        assert_eq!(waiting.pending.len(), PENDING_MAX);
    }
}
