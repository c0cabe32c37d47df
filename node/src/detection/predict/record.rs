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
//!
//! What waits travels with the instance, as [`Waited`]: what came true is booked at once and what did not after a
//! day, so to drop it at each move of a shard would drop mostly what did not.

use std::collections::{BTreeMap, BTreeSet};

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
    /// It was made by another watch.
    handed: bool,
}

/// A forecast that waits, as it travels. Times are milliseconds after that of the checkpoint; below zero: before.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Waited {
    #[n(0)]
    kind: ForecastKind,
    #[n(1)]
    subject: String,
    /// What the subject was: a hash of how it is declared.
    #[n(2)]
    declared: u64,
    #[n(3)]
    probability: f64,
    #[n(4)]
    earliest_ms: i64,
    #[n(5)]
    latest_ms: i64,
    #[n(6)]
    due_ms: i64,
}

/// The forecasts of one instance that wait for their outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Waiting {
    pending: BTreeMap<Key, Pending>,
    scored: Vec<Scored>,
    /// What has ended in this watch, as far as there is room: an earlier owner's word does not bring it back.
    ended: BTreeSet<Key>,
}

type Key = (ForecastKind, String);

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
            handed: false,
        };
        self.pending.insert(key, pending);
    }

    /// What waits, to travel. `declared`: how each subject is.
    pub fn handed(&self, now_ms: u64, declared: impl Fn(&str) -> u64) -> Vec<Waited> {
        let after = |at_ms: u64| {
            let clock = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
            clock(at_ms).saturating_sub(clock(now_ms))
        };
        let waited = |((kind, subject), pending): (&Key, &Pending)| Waited {
            kind: *kind,
            subject: subject.clone(),
            declared: declared(subject),
            probability: pending.probability,
            earliest_ms: after(pending.earliest_ms),
            latest_ms: after(pending.latest_ms),
            due_ms: after(pending.due_ms),
        };
        self.pending.iter().map(waited).collect()
    }

    /// Goes on from what waited in another watch, at a time that is `came_ms` here; `begun_ms`: when this one began.
    /// It was made first, and so takes the place of what was made here about the same; of two such words the
    /// later one counts, which no longer has what has ended meanwhile. What is declared otherwise here is
    /// left out, and what was due before anybody looked again is not scored.
    pub fn take_over(
        &mut self,
        waited: Vec<Waited>,
        (came_ms, begun_ms): (u64, u64),
        declared: impl Fn(&str) -> u64,
    ) {
        self.pending.retain(|_, pending| !pending.handed);
        let sound = |one: &Waited| {
            (0.0..=1.0).contains(&one.probability) && one.declared == declared(&one.subject)
        };
        for one in waited.into_iter().take(PENDING_MAX).filter(sound) {
            let key = (one.kind, one.subject);
            let room = self.pending.len() < PENDING_MAX || self.pending.contains_key(&key);
            if !room || self.ended.contains(&key) {
                continue;
            }
            let at = |ms: i64| came_ms.saturating_add_signed(ms);
            let pending = Pending {
                probability: one.probability,
                earliest_ms: at(one.earliest_ms),
                latest_ms: at(one.latest_ms),
                due_ms: at(one.due_ms),
                handed: true,
            };
            if pending.due_ms <= begun_ms {
                self.pending.remove(&key);
                self.end(key, pending, Outcome::Inconclusive, false);
            } else {
                self.pending.insert(key, pending);
            }
        }
    }

    /// It has happened.
    pub fn happened(&mut self, kind: ForecastKind, subject: &str, now_ms: u64) {
        let key = (kind, subject.to_owned());
        if let Some(pending) = self.pending.remove(&key) {
            let on_time = (pending.earliest_ms..=pending.latest_ms).contains(&now_ms);
            self.end(key, pending, Outcome::CameTrue, on_time);
        }
    }

    /// Somebody has seen to it in time: that it did not happen speaks not against the forecast.
    pub fn prevented(&mut self, kind: ForecastKind, subject: &str) {
        let key = (kind, subject.to_owned());
        if let Some(pending) = self.pending.remove(&key) {
            self.end(key, pending, Outcome::Inconclusive, false);
        }
    }

    /// Somebody stepped in: what was foreseen of these kinds can no longer be seen.
    pub fn disturbed(&mut self, kinds: &[ForecastKind]) {
        let all = std::mem::take(&mut self.pending);
        for (key, pending) in all {
            if kinds.contains(&key.0) {
                self.end(key, pending, Outcome::Inconclusive, false);
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
                self.end(key, pending, outcome, false);
            } else {
                self.pending.insert(key, pending);
            }
        }
        std::mem::take(&mut self.scored)
    }

    fn end(&mut self, key: Key, pending: Pending, outcome: Outcome, on_time: bool) {
        let (kind, probability) = (key.0, pending.probability);
        self.scored.push(Scored { kind, probability, outcome, on_time });
        if self.ended.len() < PENDING_MAX {
            self.ended.insert(key);
        }
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
mod tests;
