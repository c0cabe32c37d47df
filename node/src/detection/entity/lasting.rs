//! How long latency has been odd: a hiccup is none of it.
//!
//! A callee that stands still for a second or two slows every request of that time, which is as odd as
//! can be, in two scrapes in a row at a short interval. How unlikely each value is does not say whether
//! it lasts; time does. So odd latency that crosses no declared limit weighs nothing before it has been odd in
//! [`LASTS_VALUES`] values in a row (of which only those between the first and the last are wholly within
//! the trouble) and for [`LASTS_MS`].
//!
//! Where scrapes are far apart, that would take long: while such oddness is open the next scrape comes
//! soon ([`super::closer`]). So a lasting fault is told within an interval and [`LASTS_MS`].
//! Deliberately absent: limits, which are facts and need no more than two values.

use std::collections::BTreeMap;

use super::Now;
use crate::detection::detector::{Role, Series};

/// Values in a row: the first and the last may each be touched by a moment alone.
pub(super) const LASTS_VALUES: u16 = 3;
/// Time from the first of them to the last: twice as long as a hiccup of two seconds.
pub(super) const LASTS_MS: u64 = 4_000;

/// When each latency began to be odd.
#[derive(Debug, Default)]
pub(super) struct Lasting {
    since_ms: BTreeMap<String, u64>,
    last_ms: u64,
}

impl Lasting {
    /// Takes note of what a series made of its newest value.
    pub(super) fn note(&mut self, series: &Series, now: Now) {
        if series.role != Role::Latency {
            return;
        }
        self.last_ms = now.mono_ms;
        let streak = series.last.as_ref().map_or(0, |reading| reading.judged.streak);
        match streak {
            0 => drop(self.since_ms.remove(&series.name)),
            1 => drop(self.since_ms.insert(series.name.clone(), now.mono_ms)),
            // A streak that began with another owner is as old as this watch knows it to be.
            _ => drop(self.since_ms.entry(series.name.clone()).or_insert(now.mono_ms)),
        }
    }

    /// Whether the newest value of a series is odd for long enough.
    pub(super) fn lasts(&self, series: &Series) -> bool {
        let streak = series.last.as_ref().map_or(0, |reading| reading.judged.streak);
        let since = self.since_ms.get(&series.name).copied().unwrap_or(self.last_ms);
        series.role != Role::Latency
            || (streak >= LASTS_VALUES && self.last_ms.saturating_sub(since) >= LASTS_MS)
    }

    /// Whether a series is odd, matters, and may or may not last.
    pub(super) fn open(&self, series: &Series) -> bool {
        let Some(reading) = series.last.as_ref() else { return false };
        let beyond = series.limit.is_some_and(|limit| reading.value > limit);
        reading.judged.streak > 0 && reading.matters && !beyond && !self.lasts(series)
    }
}
