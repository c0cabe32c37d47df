//! Indicators: from samples of one instance to the few derived series that say how it does.
//!
//! Counters need two scrapes: the first gives nothing for `rate`, `ratio` and `quantile`, unless whoever
//! watched before has handed over what it last scraped. A counter that fell was reset (its process
//! restarted): what it shows is its increase. A series that was not there at the previous scrape of the
//! same instance counts from zero: client libraries create `{code="500"}` with the first error, and that
//! first burst must not be lost. One that was there shortly before, and left out by a scrape that was cut short, goes
//! on from what it was.

use std::{collections::BTreeMap, time::Duration};

use medic_state::{
    manifest::{IndicatorSource, ServiceSpec},
    matcher::Selector,
};
use minicbor::{Decode, Encode};

use super::{
    counted::{self, Measured},
    entity::short,
    exposition::{Exposition, Sample},
};

/// Reasons for which an indicator has no value although all is well with what is measured: so little was
/// seen, or nothing happened.
const IDLE: [&str; 6] = [
    FIRST,
    NO_TIME,
    FIRST_PUSH,
    NO_TIME_PUSHED,
    counted::NOTHING_COUNTED,
    counted::NOTHING_OBSERVED,
];
const FIRST: &str = "needs a second scrape";
const NO_TIME: &str = "no time has passed since the last scrape";

/// Whether a reason for having no value says that there was nothing to measure.
#[must_use]
pub(super) fn idle(why: &str) -> bool {
    IDLE.contains(&why)
}

/// Whether it says that a second look gives a value.
#[must_use]
pub(super) fn needs_second(why: &str) -> bool {
    why == FIRST
}

/// Whether it says that no series is there.
#[must_use]
pub(super) fn no_series(why: &str) -> bool {
    [counted::NO_SERIES, NO_PUSHED_SERIES].contains(&why)
}

/// The same, of what is pushed.
pub(super) const FIRST_PUSH: &str = "needs a second sample";
pub(super) const NO_TIME_PUSHED: &str = "no time has passed since the last sample";
pub(super) const NO_PUSHED_SERIES: &str = "no pushed series matches";

/// Every indicator of a service, ready to be computed.
#[derive(Clone, Debug, Default)]
pub struct Indicators {
    /// Those that can be computed.
    pub list: Vec<Indicator>,
    /// Those that cannot, and why, by name.
    pub errors: BTreeMap<String, String>,
}

/// One indicator.
#[derive(Clone, Debug)]
pub struct Indicator {
    /// Its name.
    pub name: String,
    /// Hard limit, in the indicator's own unit.
    pub limit: Option<f64>,
    /// Only upward deviations are bad.
    pub upward_only: bool,
    pub(super) source: Source,
}

/// How an indicator is computed.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Gauge(Selector),
    Rate(Selector),
    Ratio { of: Selector, to: Selector },
    Quantile { buckets: Selector, q: f64 },
}

/// Counters of one instance as last scraped.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    at: Duration,
    series: BTreeMap<String, f64>,
    /// By hashed name, from whoever watched before.
    handed: BTreeMap<u64, f64>,
    /// Those that the last scrapes left out, each with how many did.
    left_out: BTreeMap<String, (f64, u8)>,
    negative: u64,
    /// One of them has fallen: its process is another.
    reset: bool,
}

/// A counter that so many scrapes in a row have left out has ended; if it comes again, it counts from zero.
const LEFT_OUT_MAX: u8 = 12;
/// Counters of one instance that are remembered although they were left out; of more, those that were left out
/// for longest are forgotten.
const REMEMBERED_MAX: usize = 2_048;

/// Counters as they travel: what was last scraped, and when, in milliseconds on the clock of their origin.
/// Names are hashed, for they are many times as long as values.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct HandedCounters {
    #[n(0)]
    at_ms: u64,
    #[n(1)]
    series: BTreeMap<u64, f64>,
}

/// Counters of one instance that travel, at 18 bytes each; who has more is scraped twice before its rates are
/// judged.
const HANDED_MAX: usize = 2_048;
/// Older ones are not gone on from: a rate over so long says little of now.
const HANDED_AGE_MAX_MS: u64 = 120_000;

impl HandedCounters {
    /// On another clock: what was `then` on theirs and ours, at our present time; nothing when they are too old
    /// to be held against.
    #[must_use]
    pub fn rebased(self, then: (u64, u64), now_ms: u64) -> Option<Counters> {
        let (theirs, ours) = then;
        // A clock that began later than they were scraped cannot say when that was.
        let at_ms = ours.checked_sub(theirs.checked_sub(self.at_ms)?)?;
        if self.series.len() > HANDED_MAX || now_ms.saturating_sub(at_ms) > HANDED_AGE_MAX_MS {
            return None;
        }
        let sound = |(_, value): &(u64, f64)| value.is_finite() && *value >= 0.0;
        let handed = self.series.into_iter().filter(sound).collect();
        Some(Counters { at: Duration::from_millis(at_ms), handed, ..Counters::default() })
    }
}

impl Counters {
    /// To travel; nothing where there are none, or too many.
    #[must_use]
    pub fn handed(&self) -> Option<HandedCounters> {
        let mut series = self.handed.clone();
        series.extend(self.series.iter().map(|(key, value)| (short(key.as_bytes()), *value)));
        let at_ms = u64::try_from(self.at.as_millis()).ok()?;
        (1..=HANDED_MAX).contains(&series.len()).then_some(HandedCounters { at_ms, series })
    }

    fn before(&self, key: &str) -> Option<f64> {
        let left_out = || self.left_out.get(key).map(|(value, _)| *value);
        let own = self.series.get(key).copied().or_else(left_out);
        let handed = || self.handed.get(&short(key.as_bytes())).copied();
        own.or_else(|| if self.handed.is_empty() { None } else { handed() })
    }

    /// Remembers of an earlier scrape what this one has left out.
    fn remember(&mut self, previous: Self) {
        // Labels of a process that has begun anew come with their first event, and count from zero.
        if self.reset {
            return;
        }
        let last = previous.series.into_iter().map(|(key, value)| (key, (value, 0)));
        let left_out = previous.left_out.into_iter().chain(last);
        let gone = left_out.filter(|(key, _)| !self.series.contains_key(key));
        let gone = gone.map(|(key, (value, scrapes))| (key, (value, scrapes.saturating_add(1))));
        let mut gone: Vec<_> = gone.filter(|(_, (_, scrapes))| *scrapes <= LEFT_OUT_MAX).collect();
        if gone.len() > REMEMBERED_MAX {
            gone.sort_by_key(|(_, (_, scrapes))| *scrapes);
            gone.truncate(REMEMBERED_MAX);
        }
        self.left_out = gone.into_iter().collect();
    }

    /// When they were scraped.
    #[must_use]
    pub const fn at(&self) -> Duration {
        self.at
    }

    /// Samples below zero among them, which were not counted.
    #[must_use]
    pub const fn negative(&self) -> u64 {
        self.negative
    }
}

/// Values of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// By indicator.
    pub values: BTreeMap<String, f64>,
    /// Of those computed from counted events, the least that the true figure can be taken for: see
    /// [`Measured`].
    pub at_least: BTreeMap<String, f64>,
    /// Why one has none.
    pub missing: BTreeMap<String, String>,
}

impl Indicators {
    /// Reads the selectors and limits of a service.
    #[must_use]
    pub fn of(service: &ServiceSpec) -> Self {
        let mut all = Self::default();
        for spec in &service.indicators {
            let bound = spec.limit.as_deref().map(parse_bound).transpose();
            match (Source::read(&spec.source), bound) {
                (Ok(source), Ok(bound)) => all.list.push(Indicator {
                    name: spec.name.clone(),
                    limit: bound.and_then(Bound::limit),
                    upward_only: spec.upward_only,
                    source,
                }),
                (Err(error), _) | (_, Err(error)) => {
                    all.errors.insert(spec.name.clone(), error);
                }
            }
        }
        all
    }

    /// Whether samples of this metric are needed.
    #[must_use]
    pub fn wants(&self, metric: &str) -> bool {
        let named = |s: &Selector| s.metric.is_empty() || s.metric == metric;
        self.list.iter().any(|indicator| match &indicator.source {
            Source::Gauge(s) | Source::Rate(s) | Source::Quantile { buckets: s, .. } => named(s),
            Source::Ratio { of, to } => named(of) || named(to),
        })
    }

    /// Computes all of them, and remembers the counters for the next time.
    ///
    /// `at` is monotonic time since any fixed point.
    pub fn compute(
        &self,
        exposition: &Exposition,
        at: Duration,
        previous: &mut Option<Counters>,
    ) -> Values {
        let mut now = Counters { at, ..Counters::default() };
        let mut values = Values { missing: self.errors.clone(), ..Values::default() };
        for indicator in &self.list {
            let measured =
                indicator.source.compute(&exposition.samples, previous.as_ref(), &mut now);
            values.note(&indicator.name, measured);
        }
        if let Some(previous) = previous.take() {
            now.remember(previous);
        }
        *previous = Some(now);
        values
    }
}

impl Values {
    /// Takes one in, or why there is none.
    pub(super) fn note(&mut self, name: &str, measured: Result<Measured, &'static str>) {
        let why = match measured {
            Ok(Measured { value, at_least }) if value.is_finite() => {
                if at_least != value {
                    self.at_least.insert(name.to_owned(), at_least);
                }
                self.values.insert(name.to_owned(), value);
                return;
            }
            Ok(_) => "not a finite number",
            Err(why) => why,
        };
        self.missing.insert(name.to_owned(), why.to_owned());
    }

    /// Whether any has none only because its counters were seen for the first time.
    #[must_use]
    pub fn needs_second(&self) -> bool {
        self.missing.values().any(|why| needs_second(why))
    }

    /// By name.
    pub fn measured(&self) -> impl Iterator<Item = (&str, Measured)> {
        self.values.iter().map(|(name, &value)| {
            let at_least = self.at_least.get(name).copied().unwrap_or(value);
            (name.as_str(), Measured { value, at_least })
        })
    }
}

impl Source {
    fn read(source: &IndicatorSource) -> Result<Self, String> {
        let selector = |text: &str| text.parse::<Selector>().map_err(|error| error.to_string());
        Ok(match source {
            IndicatorSource::Gauge(text) => Self::Gauge(selector(text)?),
            IndicatorSource::Rate(text) => Self::Rate(selector(text)?),
            IndicatorSource::Ratio { of, to } => {
                Self::Ratio { of: selector(of)?, to: selector(to)? }
            }
            IndicatorSource::Quantile { histogram, q } => {
                let mut buckets = selector(histogram)?;
                buckets.metric.push_str("_bucket");
                Self::Quantile { buckets, q: f64::from(q.0) / 1e6 }
            }
        })
    }

    fn compute(
        &self,
        samples: &[Sample],
        previous: Option<&Counters>,
        now: &mut Counters,
    ) -> Result<Measured, &'static str> {
        match self {
            Self::Gauge(selector) => {
                let mut found = select(samples, selector).map(|sample| sample.value).peekable();
                let selected = |s: &Sample| selector.selects(&s.name, &s.labels);
                found.peek().ok_or_else(|| match samples.iter().any(selected) {
                    true => counted::NOT_A_NUMBER,
                    false => counted::NO_SERIES,
                })?;
                Ok(Measured::exact(found.sum()))
            }
            Self::Rate(selector) => {
                let (increase, found) = increase(samples, selector, previous, now);
                let before = previous.ok_or(FIRST)?;
                let seconds = now.at.saturating_sub(before.at).as_secs_f64();
                match found {
                    false => Err(counted::NO_SERIES),
                    true if seconds > 0.0 => Ok(Measured::exact(increase / seconds)),
                    true => Err(NO_TIME),
                }
            }
            Self::Ratio { of, to } => {
                let (of, _) = increase(samples, of, previous, now);
                let (to, found) = increase(samples, to, previous, now);
                previous.ok_or(FIRST)?;
                match found {
                    false => Err(counted::NO_SERIES),
                    true => counted::share(of, to).ok_or(counted::NOTHING_COUNTED),
                }
            }
            Self::Quantile { buckets, q } => {
                let increases = bucket_increases(samples, buckets, previous, now);
                previous.ok_or(FIRST)?;
                counted::quantile(*q, &increases)
            }
        }
    }
}

fn select<'s>(
    samples: &'s [Sample],
    selector: &'s Selector,
) -> impl Iterator<Item = &'s Sample> + 's {
    samples.iter().filter(|s| selector.selects(&s.name, &s.labels) && !s.value.is_nan())
}

/// Summed increase of the matching counters, and whether there were any.
fn increase(
    samples: &[Sample],
    selector: &Selector,
    previous: Option<&Counters>,
    now: &mut Counters,
) -> (f64, bool) {
    let mut sum = 0.0;
    let mut found = false;
    for sample in select(samples, selector) {
        sum += one_increase(sample, previous, now);
        found = true;
    }
    (sum, found)
}

fn one_increase(sample: &Sample, previous: Option<&Counters>, now: &mut Counters) -> f64 {
    let key = series_key(sample);
    let before = previous.and_then(|counters| counters.before(&key)).unwrap_or(0.0);
    // A counter that is negative or infinite is none: it counts nothing, and is no start either.
    if !(sample.value.is_finite() && sample.value >= 0.0) {
        now.negative += u64::from(sample.value < 0.0 && sample.value.is_finite());
        now.series.insert(key, before);
        return 0.0;
    }
    now.series.insert(key, sample.value);
    now.reset |= sample.value < before;
    if sample.value >= before { sample.value - before } else { sample.value }
}

fn series_key(sample: &Sample) -> String {
    use std::fmt::Write as _;
    let mut key = sample.name.clone();
    for (name, value) in &sample.labels {
        // Writing into a String cannot fail.
        write!(key, "\u{1}{name}\u{2}{value}").unwrap_or_default();
    }
    key
}

/// Cumulative increases by upper bound, ascending; summed over all matching series.
fn bucket_increases(
    samples: &[Sample],
    selector: &Selector,
    previous: Option<&Counters>,
    now: &mut Counters,
) -> Vec<(f64, f64)> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for sample in select(samples, selector) {
        let Some(bound) = sample.labels.get("le").and_then(|le| le.parse::<f64>().ok()) else {
            continue;
        };
        let increase = one_increase(sample, previous, now);
        match buckets.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, sum)) => *sum += increase,
            None => buckets.push((bound, increase)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

/// What an indicator must keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// A limit: it stays at or below.
    AtMost(f64),
    /// A floor: it stays at or above.
    AtLeast(f64),
}

impl Bound {
    /// The limit, if it is one.
    #[must_use]
    pub const fn limit(self) -> Option<f64> {
        match self {
            Self::AtMost(limit) => Some(limit),
            Self::AtLeast(_) => None,
        }
    }
}

/// Reads a bound: a quantity is a limit, as is `<= 64MiB`; `>= 5GiB` is a floor.
///
/// # Errors
/// As [`parse_quantity`].
pub fn parse_bound(text: &str) -> Result<Bound, String> {
    match text.trim().strip_prefix(">=") {
        Some(floor) => parse_quantity(floor).map(Bound::AtLeast),
        None => parse_quantity(text).map(Bound::AtMost),
    }
}

/// Reads a limit: a number (`0.05`, `1e6`, `80%`), bytes (`64MiB`, `1.5GB`) or a span of time in
/// seconds (`250ms`, `2s`).
///
/// # Errors
/// When it is none of these, negative, or not finite.
pub fn parse_quantity(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 15] = [
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
        ("kB", 1e3),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("B", 1.0),
        ("%", 0.01),
        ("ms", 0.001),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let text = text.trim();
    let text = text.strip_prefix("<=").map_or(text, str::trim_start);
    let (number, unit) = UNITS
        .iter()
        .find_map(|(unit, size)| text.strip_suffix(unit).map(|number| (number, *size)))
        .unwrap_or((text, 1.0));
    match number.trim().parse::<f64>() {
        Ok(value) if (value * unit).is_finite() && value >= 0.0 => Ok(value * unit),
        _ => Err(format!("`{text}` is not a limit such as 0.05, 80%, 64MiB or 250ms")),
    }
}

#[cfg(test)]
mod tests;
