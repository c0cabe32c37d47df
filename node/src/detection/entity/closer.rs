//! How soon an instance is scraped or probed again when the last look left a question open.
//!
//! | the last value | next look after |
//! |---|---|
//! | a resource above what it usually is, below its limit | [`RISING_MS`]: a trend needs eight points |
//! | beyond a limit, or odd failures, for the first time | [`CONFIRM_MS`]: two values in a row count |
//! | a probe failed for the first time | [`CONFIRM_MS`] |
//! | counters for the first time, with none from whoever watched before | [`SECOND_MS`]: rates need two |
//! | of an open finding, good again | [`CONFIRM_MS`]: three in a row end it |
//! | from before a treatment ended ([`super::figures`]) | [`CONFIRM_MS`] |
//! | odd latency that may be a hiccup ([`super::lasting`]) | [`CONFIRM_MS`] |
//!
//! So what is wrong is told within an interval and some seconds, however far apart scrapes are, and so is that
//! it is over. Each question ends by itself: two or three values answer most; a resource that stays on another
//! level is looked at [`RISES_FOR`] times. Deliberately absent: an indicator that speaks for an open finding that
//! names what is wrong.

use std::collections::BTreeSet;

use medic_state::Millis;

use super::{Entity, lasting::Lasting, votes::first_failure};
use crate::detection::{
    detector::{GOOD_AFTER, Series},
    ensemble::{Kind, Voter},
    indicator::needs_second,
};

/// The next look at something that two values settle, or that may or may not last.
pub(super) const CONFIRM_MS: u64 = 2_000;
/// The next look at something that fills up.
pub(super) const RISING_MS: u64 = 500;
/// The second look at counters.
pub(in crate::detection) const SECOND_MS: u64 = 2_000;
/// Values in a row above the usual after which a resource is on another level, for all that is known.
const RISES_FOR: u16 = 16;

/// How soon a series asks for its next value; `None`: when its time comes.
fn asked(series: &Series, lasting: &Lasting) -> Option<u64> {
    if series.rises(RISES_FOR) {
        return Some(RISING_MS);
    }
    (series.first_of_two() || lasting.open(series)).then_some(CONFIRM_MS)
}

/// Whether so many good outcomes in a row leave open whether a finding is over.
const fn ending(good: u16) -> bool {
    0 < good && good < GOOD_AFTER
}

impl Entity {
    /// How soon it should be scraped again, where the last values left a question open.
    #[must_use]
    pub fn look_again(&self) -> Option<Millis> {
        // That something is unusual says not yet what; that one thing is wrong, nothing of another.
        let named = self.active.iter().filter(|(kind, _)| **kind != Kind::Anomaly);
        let named: BTreeSet<&Voter> = named.flat_map(|(_, active)| &active.voters).collect();
        let of_series = |series: &Series| {
            let known = !named.is_empty() && named.contains(&Voter::Series(series.name.clone()));
            if known {
                ending(series.good).then_some(CONFIRM_MS)
            } else {
                asked(series, &self.lasting)
            }
        };
        let open = self.series.values().filter_map(of_series).min();
        let first = self.silence.values().any(|why| needs_second(why)).then_some(SECOND_MS);
        let after = self.figures.awaited().then_some(CONFIRM_MS);
        [open, first, after].into_iter().flatten().min().map(Millis)
    }

    /// How soon a probe should be tried again: its last failure was the first, or it is good again for the first
    /// times.
    #[must_use]
    pub fn probe_again(&self, name: &str) -> Option<Millis> {
        let track = self.probes.get(name)?;
        let named = || {
            let voter = Voter::Probe(name.to_owned());
            self.active.values().any(|active| active.voters.contains(&voter))
        };
        let open = first_failure(track) || (ending(track.good) && named());
        open.then_some(Millis(CONFIRM_MS))
    }
}
