//! What became of the samples of a push, by reason.

use std::fmt::Write as _;

use medic_state::text::head;
use metrics::counter;

use super::{
    mapper::NotWatched, otlp::BINS_MAX, sample::BadSeries, table::Refused, tally::Offered,
};
use crate::detection::metrics::Metric;

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Result {
    /// Watched from now on.
    Taken,
    /// It marks the end of its series.
    Stale,
    /// Known already.
    Duplicate,
    /// Older than what is known.
    OutOfOrder,
    /// Too old to be news.
    TooOld,
    /// From the future.
    TooNew,
    /// Infinite or no number.
    NotFinite,
    /// A counter below zero.
    Negative,
    /// It names no declared instance.
    Unmapped,
    /// No indicator selects it.
    Unwanted,
    /// Not its sender's.
    Foreign,
    /// The tenant has its number of series.
    Limit,
    /// Its shard moves: nobody owns it just now, or not who was asked.
    NoOwner,
    /// A native histogram of remote write, or what OTLP's translation leaves out: of a form that is not read.
    Histogram,
    /// Of a series that is none.
    BadSeries,
}

impl Result {
    /// All of them, in the order of their numbers on the wire.
    pub const ALL: [Self; 15] = [
        Self::Taken,
        Self::Stale,
        Self::Duplicate,
        Self::OutOfOrder,
        Self::TooOld,
        Self::TooNew,
        Self::NotFinite,
        Self::Negative,
        Self::Unmapped,
        Self::Unwanted,
        Self::Foreign,
        Self::Limit,
        Self::NoOwner,
        Self::Histogram,
        Self::BadSeries,
    ];

    /// The label of metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
            Self::OutOfOrder => "out_of_order",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::NotFinite => "not_finite",
            Self::Negative => "negative_counter",
            Self::Unmapped => "unmapped",
            Self::Unwanted => "unwanted",
            Self::Foreign => "foreign",
            Self::Limit => "series_limit",
            Self::NoOwner => "no_owner",
            Self::Histogram => "unread_form",
            Self::BadSeries => "bad_series",
        }
    }

    const fn at(self) -> usize {
        self as usize
    }
}

impl From<Offered> for Result {
    fn from(offered: Offered) -> Self {
        match offered {
            Offered::Taken => Self::Taken,
            Offered::Ended => Self::Stale,
            Offered::Duplicate => Self::Duplicate,
            Offered::OutOfOrder => Self::OutOfOrder,
            Offered::TooOld => Self::TooOld,
            Offered::TooNew => Self::TooNew,
            Offered::NotFinite => Self::NotFinite,
            Offered::Negative => Self::Negative,
        }
    }
}

impl From<Refused> for Result {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Limit,
            Refused::NotWatched(NotWatched::Unmapped) => Self::Unmapped,
            Refused::NotWatched(NotWatched::Unwanted) => Self::Unwanted,
            Refused::NotWatched(NotWatched::Foreign) => Self::Foreign,
        }
    }
}

/// Samples by what became of them, with an example of what was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    counts: [u64; Result::ALL.len()],
    bad: Option<BadSeries>,
    example: Option<String>,
    /// Series whose type changed.
    pub type_changes: u64,
}

/// Bytes of an example in an answer.
const EXAMPLE_BYTES_MAX: usize = 120;

impl Counts {
    /// From the wire.
    #[must_use]
    pub fn read(counts: &[u64], example: String) -> Self {
        let mut all = Self { example: Some(example).filter(|e| !e.is_empty()), ..Self::default() };
        for (kept, given) in all.counts.iter_mut().zip(counts) {
            *kept = *given;
        }
        all
    }

    /// For the wire.
    #[must_use]
    pub fn written(&self) -> (Vec<u64>, String) {
        (self.counts.to_vec(), self.example.clone().unwrap_or_default())
    }

    /// So many samples went this way.
    pub fn add(&mut self, result: Result, samples: usize) {
        self.counts[result.at()] += u64::try_from(samples).unwrap_or(u64::MAX);
    }

    /// Samples of a series that is none.
    pub fn add_bad(&mut self, bad: BadSeries, samples: usize) {
        self.add(Result::BadSeries, samples.max(1));
        self.bad.get_or_insert(bad);
    }

    /// So many samples of this metric were refused.
    pub fn add_refused(&mut self, result: Result, samples: usize, name: &str) {
        self.add(result, samples);
        if matches!(result, Result::Limit | Result::Foreign) {
            self.note_example(name);
        }
    }

    /// The name of a metric of which a sample was no measurement, or too old to be one.
    pub fn note_example(&mut self, name: &str) {
        if self.example.is_none() {
            self.example = Some(head(name, EXAMPLE_BYTES_MAX).to_owned());
        }
    }

    /// Both together.
    pub fn merge(&mut self, other: Self) {
        for (kept, given) in self.counts.iter_mut().zip(other.counts) {
            *kept = kept.saturating_add(given);
        }
        self.bad = self.bad.or(other.bad);
        self.example = self.example.take().or(other.example);
        self.type_changes += other.type_changes;
    }

    /// How many went this way.
    #[must_use]
    pub const fn of(&self, result: Result) -> u64 {
        self.counts[result.at()]
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Taken, or known already.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.of(Result::Taken) + self.of(Result::Stale) + self.of(Result::Duplicate)
    }

    /// What the sender should know of, if anything.
    #[must_use]
    pub fn complaint(&self, tenant: &str, series_max: usize) -> Option<String> {
        let mut text = String::new();
        let mut say = |part: std::fmt::Arguments<'_>| {
            // Writing into a String cannot fail.
            text.write_fmt(part).unwrap_or_default();
            text.push_str("; ");
        };
        if let Some(bad) = self.bad {
            say(format_args!(
                "{} samples are of no proper series: {bad}",
                self.of(Result::BadSeries)
            ));
        }
        if self.of(Result::Limit) > 0 {
            say(format_args!(
                "{} samples are of new series beyond the {series_max} that tenant `{tenant}` may have on a node",
                self.of(Result::Limit)
            ));
        }
        if self.of(Result::Foreign) > 0 {
            say(format_args!(
                "{} samples match no Source that this sender may speak for",
                self.of(Result::Foreign)
            ));
        }
        if self.of(Result::TooNew) > 0 {
            say(format_args!(
                "{} samples are more than ten minutes ahead: set the sender's clock",
                self.of(Result::TooNew)
            ));
        }
        if self.of(Result::TooOld) > 0 {
            say(format_args!(
                "{} samples are more than an hour old: set the sender's clock, or send what is new first",
                self.of(Result::TooOld)
            ));
        }
        if self.of(Result::NotFinite) > 0 {
            say(format_args!("{} samples are infinite or no numbers", self.of(Result::NotFinite)));
        }
        if self.of(Result::Negative) > 0 {
            say(format_args!("{} samples of counters are below zero", self.of(Result::Negative)));
        }
        if let Some(unread) = self.unread().filter(|_| self.known() == 0) {
            say(format_args!("{unread}"));
        }
        if text.is_empty() {
            return None;
        }
        let example = self.example.as_deref().map(|e| format!("`{e}` is among them; "));
        Some(format!("{text}{}{} samples were taken", example.unwrap_or_default(), self.known()))
    }

    /// How many the sender should know were not taken, and why: what [`Self::complaint`] and
    /// [`Self::unread`] speak of.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        Self::REJECTED.into_iter().fold(0, |sum, result| sum.saturating_add(self.of(result)))
    }

    /// What a sender can mend. Late, repeated and unwanted samples are none of it: they are what a sender
    /// that repeats, or sends all it has, sends.
    const REJECTED: [Result; 8] = [
        Result::BadSeries,
        Result::Limit,
        Result::Foreign,
        Result::TooOld,
        Result::TooNew,
        Result::NotFinite,
        Result::Negative,
        Result::Histogram,
    ];

    /// Into the node's metrics, with whose it is: what a sender should know was not taken.
    pub fn record_refused(&self, tenant: &str, door: &'static str, source: &str) {
        for result in Self::REJECTED.into_iter().filter(|result| self.of(*result) > 0) {
            let labels = [
                ("tenant", tenant.to_owned()),
                ("door", door.to_owned()),
                ("source", source.to_owned()),
                ("result", result.label().to_owned()),
            ];
            counter!(Metric::IntakeRefused.name(), &labels).increment(self.of(result));
        }
    }

    /// What was of a form that is not read, in words.
    #[must_use]
    pub fn unread(&self) -> Option<String> {
        let unread = self.of(Result::Histogram);
        (unread > 0).then(|| {
            format!(
                "{unread} are of a form that is not read: native histograms of remote write; sums and histograms without \
                 a temporality, changes of sums that may shrink, exponential histograms of more than {BINS_MAX} buckets \
                 (and deltas and all exponential ones while a member is of an older build); lines without a text"
            )
        })
    }

    /// Into the node's metrics.
    pub fn record(&self, door: &'static str) {
        for result in Result::ALL.into_iter().filter(|result| self.of(*result) > 0) {
            counter!(Metric::IntakeSamples.name(), "door" => door, "result" => result.label())
                .increment(self.of(result));
        }
        if self.type_changes > 0 {
            counter!(Metric::IntakeTypeChanges.name()).increment(self.type_changes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn numbers_on_the_wire_are_positions() {
        for (at, result) in Result::ALL.into_iter().enumerate() {
            assert_eq!(result.at(), at);
        }
        let mut counts = Counts::default();
        counts.add(Result::Taken, 5);
        counts.add_refused(Result::Limit, 2, &"é".repeat(200));
        let (numbers, example) = counts.written();
        assert_eq!(Counts::read(&numbers, example), counts);
    }

    #[test]
    fn the_sender_hears_what_it_can_mend_and_nothing_else() {
        let mut counts = Counts::default();
        counts.add(Result::Taken, 5);
        counts.add(Result::Unwanted, 500);
        counts.add(Result::Duplicate, 1);
        counts.add(Result::OutOfOrder, 1);
        counts.add(Result::Histogram, 1);
        assert_eq!(counts.complaint("blue", 10), None);
        counts.add_refused(Result::Limit, 2, "http_requests_total");
        counts.add(Result::NotFinite, 3);
        counts.add(Result::Negative, 4);
        counts.add(Result::TooOld, 5);
        counts.add_bad(BadSeries::TooMany, 1);
        let said = counts.complaint("blue", 10).unwrap();
        for part in [
            "`http_requests_total` is among them",
            "the 10 that tenant `blue`",
            "64 labels",
            "3 samples are infinite or no numbers",
            "4 samples of counters are below zero",
            "5 samples are more than an hour old",
            "6 samples were taken",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(counts.rejected(), 1 + 2 + 3 + 4 + 5 + 1);
    }
}
