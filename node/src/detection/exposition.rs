//! Prometheus text exposition (format 0.0.4), read strictly and within bounds. OpenMetrics 1.0 text is
//! read as well: what it adds stands in comments or behind `#`, and its times are seconds, not milliseconds.
//!
//! A sample may name its time, and is one of that time then, as for Prometheus: one that is too old to be news, such as
//! of an exporter that stands still, or from the future, is left out and counted. To those who give no time of their
//! own, times say nothing.
//!
//! Our own, because the parser we tried (prometheus-parse 0.2) splits labels at every `,` and `=`,
//! so that `{path="/a,b"}` silently loses its label, ends them at the first `}` even inside quotes,
//! does not know `:` in names, and skips what it cannot read without a word. Selecting the wrong
//! series silently is how a detector goes blind.
//!
//! Samples that nobody asked for cost no allocation. A line that is no sample is counted, and the
//! others are used; a body of which no line is a sample is an error.

use std::collections::{BTreeMap, HashSet};

use super::intake::{sample::Kind, tally::AHEAD_MAX_MS};

/// Bytes of one body: 8 MiB holds some 80,000 series; a larger one is a mistake or an attack.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Samples kept of one body: those that indicators select; a service has a handful.
pub const SAMPLES_MAX: usize = 10_000;
/// Labels of one sample; Prometheus users rarely exceed 20.
pub const LABELS_MAX: usize = 64;

/// A sample that says that it is older is no news: after this time Prometheus takes a series for ended.
pub const BEHIND_MAX_MS: i64 = 300_000;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Metric name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value; may be infinite or not a number.
    pub value: f64,
}

/// A body, read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    /// The samples that were wanted.
    pub samples: Vec<Sample>,
    /// All samples, wanted or not.
    pub total: usize,
    /// Lines that are neither sample nor comment, and wanted samples that repeat a series: the first
    /// counts, as it does for Prometheus.
    pub malformed: usize,
    /// The first of those, as far as it is worth showing.
    pub malformed_first: Option<String>,
    /// Wanted samples of a time that is more than [`BEHIND_MAX_MS`] past or [`AHEAD_MAX_MS`] to come.
    pub untimely: usize,
    /// The first of those.
    pub untimely_first: Option<String>,
}

/// Characters of a line in words about it.
const SHOWN_MAX: usize = 120;

impl Exposition {
    fn refuse(&mut self, line: &str) {
        self.malformed += 1;
        self.malformed_first.get_or_insert_with(|| line.chars().take(SHOWN_MAX).collect());
    }

    /// Whether a sample of this time is news now; one that is not is counted.
    fn is_news(&mut self, line: &str, at_ms: i64, now_ms: i64) -> bool {
        let past = at_ms < now_ms.saturating_sub(BEHIND_MAX_MS);
        let timely = !past && at_ms <= now_ms.saturating_add(AHEAD_MAX_MS);
        if !timely {
            self.untimely += 1;
            self.untimely_first.get_or_insert_with(|| line.chars().take(SHOWN_MAX).collect());
        }
        timely
    }
}

/// What a body says of a sample beside its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its type.
    pub kind: Kind,
    /// Its time, milliseconds since 1970.
    pub at_ms: Option<i64>,
}

/// A body that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpositionError {
    /// No line is a sample.
    #[error("not Prometheus text exposition: none of {0} lines is a sample")]
    NotExposition(usize),
    /// More wanted samples than are kept.
    #[error("more than {SAMPLES_MAX} samples match the indicators: narrow their selectors")]
    TooManySamples,
}

/// Reads a body, whatever times it names; keeps samples whose metric name is `wanted`.
///
/// # Errors
/// When it is not exposition at all, or too much of it is wanted.
pub fn parse(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Exposition, ExpositionError> {
    parse_told(text, wanted, None).map(|(read, _)| read)
}

/// The same, without samples that name a time which is no news now.
///
/// # Errors
/// Like [`parse`].
pub fn parse_at(
    text: &str,
    wanted: impl Fn(&str) -> bool,
    now_ms: i64,
) -> Result<Exposition, ExpositionError> {
    parse_told(text, wanted, Some(now_ms)).map(|(read, _)| read)
}

/// The same, with what is told of each sample kept. Without a `now`, times are not heeded.
///
/// # Errors
/// Like [`parse`].
pub fn parse_told(
    text: &str,
    wanted: impl Fn(&str) -> bool,
    now_ms: Option<i64>,
) -> Result<(Exposition, Vec<Told>), ExpositionError> {
    let (mut read, mut all_told) = (Exposition::default(), Vec::new());
    let mut series: HashSet<(&str, Labels)> = HashSet::new();
    let open_metrics = text.trim_end().lines().next_back() == Some("# EOF");
    // A family's type stands right before its samples.
    let mut family = ("", Kind::Unknown);
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix('#') {
            family = family_of(comment).unwrap_or(family);
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let (name, rest) = split_name(line);
        let Some(Rest { labels, value, time }) = parse_rest(name, rest, wanted(name)) else {
            read.refuse(line);
            continue;
        };
        read.total += 1;
        if let Some(labels) = labels {
            if read.samples.len() == SAMPLES_MAX {
                return Err(ExpositionError::TooManySamples);
            }
            let at_ms = time.filter(|_| now_ms.is_some());
            let at_ms = at_ms.map(|time| millis(time, open_metrics));
            if let (Some(at_ms), Some(now_ms)) = (at_ms, now_ms)
                && !read.is_news(line, at_ms, now_ms)
            {
                continue;
            }
            if !series.insert((name, labels.clone())) {
                read.refuse(line);
                continue;
            }
            read.samples.push(Sample { name: name.to_owned(), labels, value });
            let kind = if is_of(name, family.0) { family.1 } else { Kind::Unknown };
            all_told.push(Told { kind, at_ms });
        }
    }
    if read.total == 0 && read.malformed > 0 {
        return Err(ExpositionError::NotExposition(read.malformed));
    }
    Ok((read, all_told))
}

/// A time as it is written: seconds in OpenMetrics.
fn millis(word: &str, open_metrics: bool) -> i64 {
    let number = || word.parse::<f64>().unwrap_or_default();
    // Beyond what fits is far in the past or in the future all the same.
    if open_metrics {
        (number() * 1e3).round() as i64
    } else {
        word.parse().unwrap_or_else(|_| number() as i64)
    }
}

/// What `TYPE name type` says, without its `#`.
fn family_of(comment: &str) -> Option<(&str, Kind)> {
    let mut words = comment.split_ascii_whitespace();
    let (Some("TYPE"), Some(name), Some(kind)) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    let kind = match kind {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" | "gaugehistogram" | "summary" => Kind::Histogram,
        _ => Kind::Unknown,
    };
    Some((name, kind))
}

/// Whether a sample of this name is of the family. OpenMetrics' counters are named without `_total`.
fn is_of(name: &str, family: &str) -> bool {
    let rest = if family.is_empty() { None } else { name.strip_prefix(family) };
    rest.is_some_and(|rest| matches!(rest, "" | "_total" | "_bucket" | "_sum" | "_count"))
}

fn split_name(line: &str) -> (&str, &str) {
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(line.len());
    line.split_at(end)
}

type Labels = BTreeMap<String, String>;

/// What follows a name.
struct Rest<'t> {
    /// Absent: they are not wanted.
    labels: Option<Labels>,
    value: f64,
    /// As it is written; it is a number.
    time: Option<&'t str>,
}

/// Labels only when `keep`; `None`: malformed.
fn parse_rest<'t>(name: &str, rest: &'t str, keep: bool) -> Option<Rest<'t>> {
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    let mut labels = keep.then(Labels::new);
    let rest = rest.trim_start();
    let after = match rest.strip_prefix('{') {
        Some(inner) => parse_labels(inner, labels.as_mut())?,
        None => rest,
    };
    let mut words = after.split_ascii_whitespace();
    let value = parse_value(words.next()?)?;
    // An optional time; exemplars (`# {…}`) are ignored.
    let time = words.next().filter(|word| *word != "#");
    if time.is_some_and(|word| word.parse::<f64>().is_err()) {
        return None;
    }
    Some(Rest { labels, value, time })
}

/// Go's spelling: `+Inf`, `-Inf`, `NaN`, decimal and exponent forms.
fn parse_value(word: &str) -> Option<f64> {
    // Rust also reads `infinity` and `inf`; Prometheus does too, in any case.
    word.parse().ok()
}

/// Reads `a="b",c="d"}`; gives what follows the brace.
fn parse_labels<'t>(mut text: &'t str, mut into: Option<&mut Labels>) -> Option<&'t str> {
    for _ in 0..=LABELS_MAX {
        text = text.trim_start();
        if let Some(after) = text.strip_prefix('}') {
            return Some(after);
        }
        let (name, rest) = split_name(text);
        if name.is_empty() {
            return None;
        }
        let rest = rest.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?;
        let end = closing_quote(rest)?;
        if let Some(labels) = into.as_deref_mut() {
            labels.insert(name.to_owned(), unescape(&rest[..end]));
        }
        text = rest[end + 1..].trim_start();
        match text.strip_prefix(',') {
            Some(after) => text = after,
            None if text.starts_with('}') => {}
            None => return None,
        }
    }
    None
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => plain.push('\n'),
            Some(escaped @ ('"' | '\\')) => plain.push(escaped),
            Some(other) => plain.extend(['\\', other]),
            None => plain.push('\\'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> Exposition {
        parse(text, |_| true).unwrap()
    }

    #[test]
    fn reads_the_formats_own_example() {
        let text = r#"
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf -3982045
job:latency:p99{le="0.05",} NaN
"#;
        let read = all(text);
        assert_eq!((read.total, read.malformed), (6, 0));
        assert_eq!(read.samples[2].labels["path"], "C:\\DIR\\FILE.TXT");
        assert_eq!(read.samples[2].labels["error"], "Cannot find file:\n\"FILE.TXT\"");
        assert!(read.samples[4].value.is_infinite() && read.samples[5].value.is_nan());
        assert_eq!(read.samples[5].name, "job:latency:p99");
    }

    #[test]
    fn openmetrics_is_read_as_well() {
        let read = all("# TYPE reqs counter\n# UNIT reqs seconds\n\
             reqs_total{code=\"200\"} 5 1395066363.5 # {trace_id=\"x\"} 1.0 1395066363.4\n\
             reqs_created{code=\"200\"} 1.395066363e+09\n\
             lat_bucket{le=\"+Inf\"} 7 # {} 0.5\n# EOF\n");
        let values: Vec<(&str, f64)> =
            read.samples.iter().map(|sample| (sample.name.as_str(), sample.value)).collect();
        let expected = [("reqs_total", 5.0), ("reqs_created", 1.395066363e9), ("lat_bucket", 7.0)];
        assert_eq!((values.as_slice(), read.malformed), (expected.as_slice(), 0));
    }

    #[test]
    fn a_sample_has_the_type_of_its_family() {
        let (_, told) = parse_told(
            "a 1\n# TYPE a counter\na 1\n# HELP x TYPE a gauge\na 2\nab 2\n# TYPE r counter\nr_total 1\n\
             # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\na 5\n# TYPE g gauge\ng 1\n# TYPE u\ng 1\n# TYPE w whatever\nw 1\n",
            |_| true,
            None,
        )
        .unwrap();
        let kinds: Vec<Kind> = told.iter().map(|told| told.kind).collect();
        use Kind::{Counter as C, Gauge as G, Histogram as H, Unknown as U};
        // The second `a` and the second `g` are repeated: the first counts.
        assert_eq!(kinds, [U, U, C, H, H, G, U]);
    }

    #[test]
    fn a_sample_is_of_the_time_that_it_names() {
        let now = 1_700_000_000_000;
        let text = "a 1 1699999999000\nb 1\nc 1 1699999700000\nd 1 1699999699999\ne 1 1700000600001\n\
                    f 1 NaN\ng 1 1699999999000.0\nh 1 99999999999999999999\n";
        let (read, told) = parse_told(text, |_| true, Some(now)).unwrap();
        let names: Vec<&str> = read.samples.iter().map(|sample| sample.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "g"]);
        let times: Vec<Option<i64>> = told.iter().map(|told| told.at_ms).collect();
        let second_ago = Some(now - 1_000);
        assert_eq!(times, [second_ago, None, Some(now - BEHIND_MAX_MS), second_ago]);
        assert_eq!((read.untimely, read.malformed, read.total), (4, 0, 8));
        assert_eq!(read.untimely_first.as_deref(), Some("d 1 1699999699999"));
        assert_eq!(parse_at(text, |name| name == "d", now).unwrap().untimely, 1);
        // OpenMetrics' are seconds; and whoever does not ask is told of none.
        let open = "a_total 1 1699999999.5 # {} 1\n# EOF\n";
        let (_, told) = parse_told(open, |_| true, Some(now)).unwrap();
        assert_eq!(told[0].at_ms, Some(now - 500));
        let (read, told) = parse_told(text, |_| true, None).unwrap();
        assert_eq!((read.samples.len(), read.untimely), (8, 0));
        assert!(told.iter().all(|told| told.at_ms.is_none()));
    }

    #[test]
    fn what_other_parsers_lose_is_kept() {
        let read = all("a{path=\"/x,y=z}\",b=\"{\"} 1 # {trace_id=\"x\"} 0.5\n");
        assert_eq!(read.samples[0].labels["path"], "/x,y=z}");
        assert_eq!(read.samples[0].value, 1.0);
    }

    #[test]
    fn malformed_lines_are_counted_and_the_others_used() {
        let read = all(
            "good 1\nbad\n1bad 2\nbad{a=} 1\nbad{a=\"b\" 1\nbad{a=\"b} 1\nbad x\nbad 1 x\n{} 1\n",
        );
        assert_eq!((read.total, read.malformed), (1, 8));
        assert_eq!(
            parse("<html><body>Not Found</body></html>", |_| true),
            Err(ExpositionError::NotExposition(1))
        );
        assert_eq!(all("# only comments\n").total, 0);
    }

    #[test]
    fn a_repeated_series_counts_once() {
        let read =
            all("mem{a=\"1\",b=\"2\"} 5\nmem{b=\"2\",a=\"1\"} 7\nmem{a=\"1\"} 1\nmem 2\nmem 2\n");
        let values: Vec<f64> = read.samples.iter().map(|sample| sample.value).collect();
        assert_eq!(values, [5.0, 1.0, 2.0]);
        assert_eq!((read.total, read.malformed), (5, 2));
    }

    #[test]
    fn labels_and_samples_are_bounded() {
        let many: String = (0..10_000).map(|i| format!("l{i}=\"v\",")).collect();
        let read = all(&format!("ok 1\nhuge{{{many}}} 1\n"));
        assert_eq!((read.total, read.malformed), (1, 1));
        let series: String = (0..=SAMPLES_MAX).map(|i| format!("s{{i=\"{i}\"}} 1\n")).collect();
        assert_eq!(parse(&series, |_| true), Err(ExpositionError::TooManySamples));
        let read = parse(&series, |name| name != "s").unwrap();
        assert_eq!((read.total, read.samples.len()), (SAMPLES_MAX + 1, 0));
    }

    #[test]
    fn agrees_with_another_parser_on_plain_text() {
        let text = "a 1\nb{x=\"1\",y=\"2\"} 2.5\nc{z=\"q\"} -1e3 1395066363000\n";
        let theirs =
            prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        let ours = all(text);
        assert_eq!(theirs.samples.len(), ours.samples.len());
        for (their, our) in theirs.samples.iter().zip(&ours.samples) {
            assert_eq!(their.metric, our.name);
            assert!(our.labels.iter().all(|(k, v)| their.labels.get(k) == Some(v.as_str())));
            assert_eq!(their.value, prometheus_parse::Value::Untyped(our.value));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z{}\",=\\\\ 0-9.#\n\u{e9}]{0,200}") {
            let read = parse(&text, |_| true);
            prop_assert!(read.is_ok() || matches!(read, Err(ExpositionError::NotExposition(_))));
        }
    }
}
