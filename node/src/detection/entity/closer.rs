//! How soon an instance is scraped or probed again when the last look left a question open.
//!
//! | the last value | next look after |
//! |---|---|
//! | a resource above what it usually is, below its limit | [`RISING_MS`]: a trend needs eight points |
//! | beyond a limit, or odd failures, for the first time | [`CONFIRM_MS`]: two values in a row count |
//! | a probe failed for the first time | [`CONFIRM_MS`] |
//! | counters for the first time, with none from whoever watched before | [`SECOND_MS`]: rates need two |
//! | odd latency that may be a hiccup ([`super::lasting`]) | [`CONFIRM_MS`] |
//!
//! So what is wrong is told within an interval and some seconds, however far apart scrapes are. Each question
//! ends by itself: a second value answers the first two; a resource that stays on another level is looked at
//! [`RISES_FOR`] times. Deliberately absent: whoever has an open finding that names
//! what is wrong.

use medic_state::Millis;

use super::lasting::Lasting;
use crate::detection::detector::Series;

/// The next look at something that two values settle, or that may or may not last.
pub(super) const CONFIRM_MS: u64 = 2_000;
/// The next look at something that fills up.
pub(super) const RISING_MS: u64 = 500;
/// The second look at counters.
pub(in crate::detection) const SECOND_MS: u64 = 2_000;
/// Values in a row above the usual after which a resource is on another level, for all that is known.
const RISES_FOR: u16 = 16;

/// How soon a series asks for its next value; `None`: when its time comes.
pub(super) fn look_again(series: &Series, lasting: &Lasting) -> Option<Millis> {
    if series.rises(RISES_FOR) {
        return Some(Millis(RISING_MS));
    }
    (series.first_of_two() || lasting.open(series)).then_some(Millis(CONFIRM_MS))
}
