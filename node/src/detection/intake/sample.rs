//! A series as it comes in: labels in place, samples beside them, and what is asked of both.
//!
//! Invariant: a [`SeriesView`] that was checked has a metric name, its labels sorted, none twice, and
//! all of them within bounds, so that its key names it whoever sent it.

use std::{collections::BTreeMap, fmt};

use super::write;

/// Labels of one series, its name among them. Prometheus users rarely exceed 20.
pub const LABELS_MAX: usize = 64;
/// Bytes of a label's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of a label's value.
pub const VALUE_BYTES_MAX: usize = 2_048;
/// Bytes of all names and values of one series together.
pub const SERIES_BYTES_MAX: usize = 8_192;
/// The label that holds the metric's name.
pub const NAME: &str = "__name__";
/// Prometheus' marker "this series has ended", one of the many bit patterns that are no number.
pub const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// A value at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Milliseconds since 1970, by the sender's clock.
    pub at_ms: i64,
    /// Value; may be infinite, no number, or [`STALE_BITS`].
    pub value: f64,
}

/// What a sender says that a series is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// It does not say.
    #[default]
    Unknown,
    /// Goes up and down.
    Gauge,
    /// Goes up, and back to zero when its process restarts.
    Counter,
    /// A series of a classic histogram or summary, or whole histograms.
    Histogram,
    /// Its samples are increases since the one before: of a counter, or of a classic histogram's series.
    Increase,
    /// How many values lay in one bucket of many, `le` being its upper end: not how many lay below it.
    Bin,
    /// The same, as increases.
    BinIncrease,
}

impl Kind {
    /// Whether its samples add up to its value.
    #[must_use]
    pub const fn increases(self) -> bool {
        matches!(self, Self::Increase | Self::BinIncrease)
    }

    /// Whether it is one of bins.
    #[must_use]
    pub const fn is_bin(self) -> bool {
        matches!(self, Self::Bin | Self::BinIncrease)
    }
}

/// One label.
pub type Label<'b> = (&'b str, &'b str);

/// One series of a message, read in place.
#[derive(Clone, Debug, Default)]
pub struct SeriesView<'b> {
    /// Its labels.
    pub labels: Vec<Label<'b>>,
    /// Its labels as they came in, unread, where they are in one piece and in the form of a key; else empty.
    pub unread: &'b [u8],
    /// Its samples, in the order sent.
    pub samples: Vec<Sample>,
    /// Native histograms beside them, which are not read.
    pub histograms: usize,
    /// Exemplars beside them, which are not read.
    pub exemplars: usize,
    /// What the sender says that it is.
    pub kind: Kind,
}

/// What is wrong with a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BadSeries {
    /// No `__name__`, or one that is no metric name.
    Name,
    /// A label without a name, or with one that is none.
    LabelName,
    /// The same label twice.
    Twice,
    /// Too many labels.
    TooMany,
    /// A name or value, or all of them together, too long.
    TooLong,
}

impl BadSeries {
    /// The label of metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Name => "metric_name",
            Self::LabelName => "label_name",
            Self::Twice => "label_twice",
            Self::TooMany => "labels",
            Self::TooLong => "label_length",
        }
    }
}

impl fmt::Display for BadSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("the metric name is missing or is none"),
            Self::LabelName => f.write_str("a label has no proper name"),
            Self::Twice => f.write_str("a label is there twice"),
            Self::TooMany => write!(f, "more than {LABELS_MAX} labels"),
            Self::TooLong => write!(
                f,
                "a label name longer than {NAME_BYTES_MAX} bytes, a value longer than {VALUE_BYTES_MAX}, or more than {SERIES_BYTES_MAX} in all"
            ),
        }
    }
}

impl<'b> SeriesView<'b> {
    /// Makes room for the next one.
    pub fn clear(&mut self) {
        self.labels.clear();
        self.samples.clear();
        self.unread = &[];
        (self.histograms, self.exemplars, self.kind) = (0, 0, Kind::Unknown);
    }

    /// Sorts the labels where the sender has not, drops empty ones (to Prometheus an empty label is
    /// an absent one), and says whether the series is one.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&mut self) -> Result<(), BadSeries> {
        if self.labels.len() > LABELS_MAX {
            return Err(BadSeries::TooMany);
        }
        self.labels.retain(|(_, value)| !value.is_empty());
        if !self.labels.is_sorted_by(|a, b| a.0 < b.0) {
            self.labels.sort_unstable();
        }
        let (mut bytes, mut last, mut named) = (0, "", false);
        for &(name, value) in &self.labels {
            if name.is_empty() || name.bytes().any(|b| b.is_ascii_control()) {
                return Err(BadSeries::LabelName);
            }
            if name == last {
                return Err(BadSeries::Twice);
            }
            bytes += name.len() + value.len();
            if name.len() > NAME_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
                return Err(BadSeries::TooLong);
            }
            if name == NAME {
                named =
                    value.len() <= NAME_BYTES_MAX && !value.bytes().any(|b| b.is_ascii_control());
            }
            last = name;
        }
        match (named, bytes <= SERIES_BYTES_MAX) {
            (false, _) => Err(BadSeries::Name),
            (true, false) => Err(BadSeries::TooLong),
            (true, true) => Ok(()),
        }
    }

    /// The metric's name.
    #[must_use]
    pub fn name(&self) -> &'b str {
        self.label(NAME).unwrap_or_default()
    }

    /// A label's value.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&'b str> {
        self.labels.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// What names it among all series of its tenant: its labels in the form of a version 1 message, so that a
    /// sender that sorts its labels, as it should, sends the very bytes.
    pub fn key(&self, key: &mut Vec<u8>) {
        key.clear();
        for (name, value) in &self.labels {
            write::put_label(key, name, value);
        }
    }

    /// Labels without the name, to be kept.
    #[must_use]
    pub fn owned_labels(&self) -> BTreeMap<String, String> {
        let others = self.labels.iter().filter(|(name, _)| *name != NAME);
        others.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }
}

impl Sample {
    /// Whether it says that the series has ended.
    #[must_use]
    pub const fn stale(&self) -> bool {
        self.value.to_bits() == STALE_BITS
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn view<'b>(labels: &[Label<'b>]) -> SeriesView<'b> {
        SeriesView { labels: labels.to_vec(), ..SeriesView::default() }
    }

    #[test]
    fn labels_are_sorted_and_named_whoever_sent_them() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut one = view(&[(NAME, "up"), ("job", "web"), ("a", "1"), ("empty", "")]);
        let mut other = view(&[("a", "1"), ("job", "web"), (NAME, "up")]);
        one.check().unwrap();
        other.check().unwrap();
        one.key(&mut a);
        other.key(&mut b);
        assert_eq!(a, b);
        assert_eq!(
            (one.name(), one.label("job"), one.owned_labels().len()),
            ("up", Some("web"), 2)
        );
    }

    #[test]
    fn what_is_no_series_is_named() {
        let long = "x".repeat(VALUE_BYTES_MAX + 1);
        let half = "x".repeat(VALUE_BYTES_MAX);
        let many: Vec<String> = (0..10_000).map(|i| format!("l{i}")).collect();
        let cases: [(Vec<Label<'_>>, BadSeries); 7] = [
            (vec![("job", "web")], BadSeries::Name),
            (vec![(NAME, "a\nb")], BadSeries::Name),
            (vec![(NAME, "up"), ("", "x")], BadSeries::LabelName),
            (vec![(NAME, "up"), ("a", "1"), ("a", "2")], BadSeries::Twice),
            (vec![(NAME, "up"), ("a", &long)], BadSeries::TooLong),
            (
                ["a", "b", "c", "d", "e"]
                    .iter()
                    .map(|n| (*n, half.as_str()))
                    .chain([(NAME, "up")])
                    .collect(),
                BadSeries::TooLong,
            ),
            (many.iter().map(|name| (name.as_str(), "v")).collect(), BadSeries::TooMany),
        ];
        for (labels, expected) in cases {
            assert_eq!(view(&labels).check(), Err(expected));
        }
    }
}
