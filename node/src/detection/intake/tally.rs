//! The pushed series of one instance: the newest value of each, and the indicators they add up to.
//!
//! Values are taken as they come and added up once the instance has been quiet for a moment, because
//! the series of one scrape arrive in several messages. Rates go by the senders' clock.
//!
//! Invariants: every value kept is finite; time never goes back within a series; a counter's increase
//! is never negative. Deliberately absent: limits on how many series there are (the table's).

use std::sync::Arc;

use super::{
    mapper::{Allowed, Part},
    sample::{Kind, Sample},
};
use crate::detection::{
    counted::{self, Measured},
    indicator::{FIRST_PUSH, Indicators, NO_PUSHED_SERIES, NO_TIME_PUSHED, Source, Values},
};

/// Samples older than this are history, not news.
pub const BEHIND_MAX_MS: i64 = 3_600_000;
/// Samples this far in the future come from a clock that is wrong.
pub const AHEAD_MAX_MS: i64 = 600_000;
/// So many samples in a row that are older than what is held, each newer than the one before: the
/// sender's clock was put back, and what is held is from before that.
const PUT_BACK_AFTER: u8 = 5;
/// A series not heard of for this long has ended, as for Prometheus.
pub const IDLE_MS: u64 = 300_000;
/// Values are added up when nothing came in for this long,
const QUIET_MS: u64 = 500;
/// or when they have waited for this long.
const WAIT_MAX_MS: u64 = 5_000;
/// A counter that appears after its instance has been heard of for this long counts from zero; before
/// it, it may simply not have come in yet.
const KNOWN_MS: u64 = 120_000;

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Taken.
    Taken,
    /// Taken: the series has ended.
    Ended,
    /// The same again.
    Duplicate,
    /// Older than what is held, or another value for the same time.
    OutOfOrder,
    /// Older than [`BEHIND_MAX_MS`].
    TooOld,
    /// Later than [`AHEAD_MAX_MS`].
    TooNew,
    /// Infinite or no number.
    NotFinite,
    /// A counter below zero.
    Negative,
}

/// When something comes in, by the node's two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic.
    pub mono_ms: u64,
    /// The wall's, since 1970.
    pub wall_ms: i64,
}

/// One series.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: Box<[u8]>,
    pub(super) source: u8,
    kind: Kind,
    parts: Box<[(u16, Part)]>,
    at_ms: Option<i64>,
    value: f64,
    /// Value when the indicators were last added up; `None`: not counted yet.
    base: Option<f64>,
    /// It has not been told of as anything else: where it begins, it begins at zero.
    new: bool,
    ended: bool,
    pub(super) heard_ms: u64,
    behind: u8,
    behind_ms: i64,
}

/// All series of one instance.
#[derive(Debug)]
pub(super) struct Tally {
    indicators: Arc<Indicators>,
    pub(super) series: Vec<Option<Held>>,
    /// Places that series have left.
    pub(super) free: Vec<u32>,
    newest_ms: i64,
    counted_ms: Option<i64>,
    first_ms: u64,
    arrived_ms: u64,
    waiting_since_ms: Option<u64>,
}

impl Held {
    pub(super) fn new(key: &[u8], source: usize, parts: Box<[(u16, Part)]>, now: Moment) -> Self {
        Self {
            key: key.into(),
            source: u8::try_from(source).unwrap_or(u8::MAX),
            kind: Kind::Unknown,
            parts,
            at_ms: None,
            value: 0.0,
            base: None,
            new: true,
            ended: false,
            heard_ms: now.mono_ms,
            behind: 0,
            behind_ms: i64::MIN,
        }
    }

    /// Whether it has this key, and this sender may speak for it.
    pub(super) fn is(&self, key: &[u8], allowed: Allowed) -> bool {
        *self.key == *key && allowed.0 >> self.source & 1 == 1
    }

    fn counts(&self) -> bool {
        self.parts.iter().any(|(_, part)| !matches!(part, Part::Gauge))
    }

    /// A metric whose type changes starts anew: across the change there is no increase.
    /// Gives whether it did.
    pub(super) fn told_kind(&mut self, kind: Kind) -> bool {
        if kind == Kind::Unknown || kind == self.kind {
            return false;
        }
        let changed = self.kind != Kind::Unknown;
        self.kind = kind;
        if changed {
            (self.base, self.at_ms, self.new) = (None, None, false);
        }
        if kind.increases() {
            // All of it has happened since it was told of.
            (self.base, self.value) = (Some(0.0), 0.0);
        }
        changed
    }

    fn offer(&mut self, sample: Sample, now: Moment) -> Offered {
        if sample.at_ms > now.wall_ms.saturating_add(AHEAD_MAX_MS) {
            return Offered::TooNew;
        }
        if sample.at_ms < now.wall_ms.saturating_sub(BEHIND_MAX_MS) {
            return Offered::TooOld;
        }
        // Judged first: what is no value says nothing about the sender's clock either.
        if !sample.stale() && !sample.value.is_finite() {
            return Offered::NotFinite;
        }
        if sample.value < 0.0 && self.counts() {
            return Offered::Negative;
        }
        if let Some(held) = self.at_ms
            && sample.at_ms <= held
        {
            if sample.at_ms == held {
                // An increase is known by its time alone: what it has added is in the value.
                let same = sample.value.to_bits() == self.value.to_bits() || sample.stale();
                let known = same || self.kind.increases();
                return if known { Offered::Duplicate } else { Offered::OutOfOrder };
            }
            let newer = sample.at_ms > self.behind_ms;
            self.behind = if newer { self.behind.saturating_add(1) } else { 1 };
            self.behind_ms = sample.at_ms;
            if self.behind < PUT_BACK_AFTER {
                return Offered::OutOfOrder;
            }
            if !self.kind.increases() {
                self.base = None;
            }
        }
        if sample.stale() {
            (self.ended, self.at_ms) = (true, Some(sample.at_ms));
            (self.behind, self.behind_ms) = (0, i64::MIN);
            return Offered::Ended;
        }
        let before = if self.kind.increases() { self.value } else { 0.0 };
        (self.at_ms, self.value, self.ended) = (Some(sample.at_ms), before + sample.value, false);
        (self.behind, self.behind_ms, self.heard_ms) = (0, i64::MIN, now.mono_ms);
        Offered::Taken
    }

    /// Increase since it was last counted, which is now.
    fn increase(&self, known: bool) -> f64 {
        match self.base {
            // Reset: its process restarted, and what it shows is its increase.
            Some(base) if self.value < base => self.value,
            Some(base) => self.value - base,
            None if known && self.new => self.value,
            None => 0.0,
        }
    }
}

/// What one indicator adds up to.
#[derive(Clone, Debug, Default)]
struct Sum {
    of: f64,
    to: f64,
    found: bool,
    /// How many lay at or below a bound.
    buckets: Vec<(f64, f64)>,
    /// How many lay in the bucket that ends there.
    bins: Vec<(f64, f64)>,
}

impl Tally {
    pub(super) fn new(indicators: Arc<Indicators>, now: Moment) -> Self {
        Self {
            indicators,
            series: Vec::new(),
            free: Vec::new(),
            newest_ms: i64::MIN,
            counted_ms: None,
            first_ms: now.mono_ms,
            arrived_ms: now.mono_ms,
            waiting_since_ms: None,
        }
    }

    /// Takes in a series; gives its place.
    pub(super) fn put(&mut self, held: Held) -> u32 {
        let at = self.free.pop().unwrap_or(self.series.len() as u32);
        match self.series.get_mut(at as usize) {
            Some(slot) => *slot = Some(held),
            None => self.series.push(Some(held)),
        }
        at
    }

    /// Offers a sample to a series.
    pub(super) fn offer(&mut self, at: usize, sample: Sample, now: Moment) -> Offered {
        let Some(Some(held)) = self.series.get_mut(at) else { return Offered::OutOfOrder };
        let put_back = held.at_ms.is_some_and(|held| sample.at_ms < held);
        let offered = held.offer(sample, now);
        if matches!(offered, Offered::Taken | Offered::Ended) {
            if put_back && self.newest_ms > sample.at_ms {
                // The clock was put back: times from before say nothing about rates.
                (self.newest_ms, self.counted_ms) = (sample.at_ms, None);
            }
            self.newest_ms = self.newest_ms.max(sample.at_ms);
            self.arrived_ms = now.mono_ms;
            self.waiting_since_ms.get_or_insert(now.mono_ms);
        }
        offered
    }

    /// The indicators, when there is news and it is complete.
    pub(super) fn values(&mut self, now_ms: u64) -> Option<Values> {
        let waiting = now_ms.saturating_sub(self.waiting_since_ms?);
        let quiet = now_ms.saturating_sub(self.arrived_ms);
        (quiet >= QUIET_MS || waiting >= WAIT_MAX_MS).then(|| self.add_up(now_ms))
    }

    fn add_up(&mut self, now_ms: u64) -> Values {
        self.waiting_since_ms = None;
        let known = self.counted_ms.is_some() && now_ms.saturating_sub(self.first_ms) >= KNOWN_MS;
        let mut sums = vec![Sum::default(); self.indicators.list.len()];
        for held in self.series.iter_mut().flatten() {
            let silent = now_ms.saturating_sub(held.heard_ms) >= IDLE_MS;
            if held.ended || silent || held.at_ms.is_none() {
                continue;
            }
            let increase = held.increase(known);
            for (at, part) in &held.parts {
                let Some(sum) = sums.get_mut(usize::from(*at)) else { continue };
                match *part {
                    Part::Gauge => {
                        sum.of += held.value;
                        sum.found = true;
                    }
                    Part::Of => sum.of += increase,
                    Part::To => sum.to += increase,
                    Part::Bucket(bound) if held.kind.is_bin() => {
                        add_bucket(&mut sum.bins, bound, increase);
                    }
                    Part::Bucket(bound) => add_bucket(&mut sum.buckets, bound, increase),
                }
                sum.found |= matches!(part, Part::Of | Part::To);
            }
            held.base = Some(held.value);
        }
        let before = self.counted_ms.replace(self.newest_ms);
        let seconds = before.map(|before| self.newest_ms.saturating_sub(before) as f64 / 1e3);
        let mut values = Values { missing: self.indicators.errors.clone(), ..Values::default() };
        for (indicator, sum) in self.indicators.list.iter().zip(&mut sums) {
            values.note(&indicator.name, measured(&indicator.source, sum, seconds));
        }
        values
    }
}

fn add_bucket(buckets: &mut Vec<(f64, f64)>, bound: f64, increase: f64) {
    match buckets.iter_mut().find(|(known, _)| *known == bound) {
        Some((_, sum)) => *sum += increase,
        None => buckets.push((bound, increase)),
    }
}

fn measured(
    source: &Source,
    sum: &mut Sum,
    seconds: Option<f64>,
) -> Result<Measured, &'static str> {
    match source {
        Source::Gauge(_) if sum.found => Ok(Measured::exact(sum.of)),
        Source::Gauge(_) => Err(NO_PUSHED_SERIES),
        Source::Rate(_) | Source::Ratio { .. } if !sum.found => Err(NO_PUSHED_SERIES),
        Source::Rate(_) => match seconds.ok_or(FIRST_PUSH)? {
            seconds if seconds > 0.0 => Ok(Measured::exact(sum.of / seconds)),
            _ => Err(NO_TIME_PUSHED),
        },
        Source::Ratio { .. } => {
            seconds.ok_or(FIRST_PUSH)?;
            counted::share(sum.of, sum.to).ok_or(counted::NOTHING_COUNTED)
        }
        Source::Quantile { q, .. } => {
            seconds.ok_or(FIRST_PUSH)?;
            sum.bins.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut below = 0.0;
            for (bound, count) in &sum.bins {
                below += count;
                add_bucket(&mut sum.buckets, *bound, below);
            }
            sum.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            counted::quantile(*q, &sum.buckets)
        }
    }
}

#[cfg(test)]
mod tests;
