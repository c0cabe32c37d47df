//! Series that others have recorded, as rows of entities: what a range query or a file of OTLP holds.
//!
//! ```text
//!   series {job, instance, …} ─► entity: its `job` and `instance` ─► metric: name and other labels
//!   points of an entity       ─► rows by time; NaN where a metric has no point
//! ```
//!
//! Times of one entity that lie closer than a tenth of its step are one row where no metric stands in it
//! twice: exporters stamp the metrics of one look a few milliseconds apart. Bounded: bytes of a file and
//! points in memory.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufReader, Read},
    path::Path,
};

use jiff::Timestamp;

use super::{
    BacktestError,
    csv::{COLUMNS_MAX, Row, bytes},
    otlp, prometheus,
};

/// The label that holds the metric's name.
pub(super) const NAME: &str = "__name__";
/// Labels that name the entity.
pub(super) const JOB: &str = "job";
pub(super) const INSTANCE: &str = "instance";
/// Bytes of an unpacked file: a month of a hundred series each minute is about 100 MiB.
const BYTES_MAX: u64 = 1 << 30;
/// Points of a file: 16 bytes each, and as much again as rows.
pub(super) const POINTS_MAX: usize = 20_000_000;
/// Bytes at a file's beginning that tell what it is.
const HEAD_BYTES: usize = 4_096;
/// Times closer than this share of the step are one row.
const TOGETHER: f64 = 0.1;

/// A number as such files write it: `NaN`, `+Inf`, `1e3`; infinities are no values here.
pub(super) fn number(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    Some(if value.is_finite() { value } else { f64::NAN })
}

/// What is wrong with JSON, without the place: that stands before it, as in all errors here.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(problem, _)| problem.to_owned())
}

/// The points of one file, by entity and metric.
#[derive(Debug, Default)]
pub struct Gathered {
    by_entity: BTreeMap<String, BTreeMap<String, Vec<(i64, f64)>>>,
    points: usize,
    rated: bool,
}

/// One entity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// `job/instance`, or what there is of them; may be empty.
    pub entity: String,
    /// In the order of the values of a row.
    pub metrics: Vec<String>,
    /// Milliseconds since the epoch and values, in order of time.
    pub rows: Vec<(i64, Vec<f64>)>,
    /// What counts is a rate already.
    pub rated: bool,
}

/// What a file of JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    RangeQuery,
    Otlp,
}

/// Whether a file begins like one of those that are read here.
pub(super) fn is_one(path: &Path) -> Result<bool, BacktestError> {
    Ok(form(path)?.is_some())
}

fn form(path: &Path) -> Result<Option<Form>, BacktestError> {
    let mut head = Vec::new();
    let source = bytes(path).map_err(BacktestError::read(path))?;
    source.take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(BacktestError::read(path))?;
    let head = String::from_utf8_lossy(&head);
    let says = |key: &str| head.contains(&format!("\"{key}\""));
    let otlp = says("resourceMetrics");
    let range = says("resultType") || (says("metric") && says("values"));
    Ok(if otlp { Some(Form::Otlp) } else { range.then_some(Form::RangeQuery) })
}

/// Reads a file: a range query's answer, or lines of OTLP.
///
/// # Errors
/// When it cannot be read, or is neither.
pub fn read(path: &Path) -> Result<Vec<Frame>, BacktestError> {
    let source = bytes(path).map_err(BacktestError::read(path))?;
    let source = Bounded { source, left: BYTES_MAX };
    let mut gathered = Gathered::default();
    // What is neither is told as the one that is asked for more often.
    match form(path)?.unwrap_or(Form::RangeQuery) {
        Form::Otlp => {
            gathered.rated = true;
            otlp::read(path, BufReader::new(source), &mut gathered)?;
        }
        Form::RangeQuery => prometheus::read(path, BufReader::new(source), &mut gathered)?,
    }
    gathered.finish(path)
}

/// Refuses what goes on beyond a bound, compressed bombs among it.
struct Bounded {
    source: Box<dyn Read>,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        let Some(left) = self.left.checked_sub(count as u64) else {
            let problem = format!("more than {BYTES_MAX} bytes: split the file by time");
            return Err(std::io::Error::other(problem));
        };
        self.left = left;
        Ok(count)
    }
}

impl Gathered {
    /// Adds points of one series; its labels are shared out between entity and metric.
    ///
    /// # Errors
    /// When there are too many, in words.
    pub(super) fn add(
        &mut self,
        mut labels: BTreeMap<String, String>,
        points: impl IntoIterator<Item = (i64, f64)>,
    ) -> Result<(), String> {
        let parts = [JOB, INSTANCE].map(|label| labels.remove(label).unwrap_or_default());
        let entity =
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let mut metric = labels.remove(NAME).unwrap_or_default();
        if !labels.is_empty() {
            let rest: Vec<String> =
                labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            // Writing to a text cannot fail.
            write!(metric, "{{{}}}", rest.join(",")).unwrap_or_default();
        }
        if metric.is_empty() {
            "value".clone_into(&mut metric);
        }
        let series = self.by_entity.entry(entity).or_default().entry(metric).or_default();
        let before = series.len();
        series.extend(points);
        self.points += series.len() - before;
        if self.points > POINTS_MAX {
            return Err(too_many());
        }
        Ok(())
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.points == 0
    }

    /// Adds what another question gave.
    ///
    /// # Errors
    /// When both gave the same series, or there are too many points, in words.
    pub(super) fn merge(&mut self, other: Self) -> Result<(), String> {
        for (entity, metrics) in other.by_entity {
            let known = self.by_entity.entry(entity.clone()).or_default();
            for (metric, series) in metrics {
                if known.contains_key(&metric) {
                    return Err(format!(
                        "`{metric}` of `{entity}` came of another query as well: NAME=EXPR names what an \
                         expression gives"
                    ));
                }
                known.insert(metric, series);
            }
        }
        self.points += other.points;
        if self.points > POINTS_MAX { Err(too_many()) } else { Ok(()) }
    }

    /// The entities, in order of their names; `path` is where they are from.
    ///
    /// # Errors
    /// When there is none, or one has too many metrics.
    pub(super) fn finish(self, path: &Path) -> Result<Vec<Frame>, BacktestError> {
        let frames = self.frames();
        if let Some(wide) = frames.iter().find(|frame| frame.metrics.len() > COLUMNS_MAX) {
            let (count, entity) = (wide.metrics.len(), &wide.entity);
            let problem = format!("{count} metrics of `{entity}`; at most {COLUMNS_MAX} are read");
            return Err(BacktestError::Content { path: path.to_owned(), line: 1, problem });
        }
        if frames.is_empty() {
            let expected = "a matrix of Prometheus or OTLP metrics, with at least one point";
            return Err(BacktestError::Nothing { path: path.to_owned(), expected });
        }
        Ok(frames)
    }

    /// The entities, in order of their names.
    #[must_use]
    pub fn frames(self) -> Vec<Frame> {
        let rated = self.rated;
        let with_points = self.by_entity.into_iter().filter_map(|(entity, metrics)| {
            let frame = Frame { rated, ..frame(entity, metrics) };
            (!frame.rows.is_empty()).then_some(frame)
        });
        with_points.collect()
    }
}

fn too_many() -> String {
    format!("more than {POINTS_MAX} points: split it by time")
}

fn frame(entity: String, metrics: BTreeMap<String, Vec<(i64, f64)>>) -> Frame {
    let width = metrics.len();
    let mut by_time: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    let together = (step(metrics.values()) * TOGETHER) as i64;
    let (names, series): (Vec<String>, Vec<_>) = metrics.into_iter().unzip();
    for (column, points) in series.into_iter().enumerate() {
        for (at, value) in points {
            by_time.entry(at).or_insert_with(|| vec![f64::NAN; width])[column] = value;
        }
    }
    let mut rows: Vec<(i64, Vec<f64>)> = Vec::with_capacity(by_time.len());
    for (at, values) in by_time {
        let near = rows.last_mut().filter(|(last, known)| {
            let free = known.iter().zip(&values).all(|(a, b)| a.is_nan() || b.is_nan());
            at - *last <= together && free
        });
        match near {
            Some((_, known)) => {
                for (known, value) in known.iter_mut().zip(values) {
                    if known.is_nan() {
                        *known = value;
                    }
                }
            }
            None => rows.push((at, values)),
        }
    }
    Frame { entity, metrics: names, rows, rated: false }
}

/// The median time between points of the series that has most, milliseconds; 0 of too few.
fn step<'s>(series: impl Iterator<Item = &'s Vec<(i64, f64)>>) -> f64 {
    let Some(longest) = series.max_by_key(|points| points.len()) else { return 0.0 };
    let mut times: Vec<i64> = longest.iter().map(|(at, _)| *at).collect();
    times.sort_unstable();
    let mut gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    gaps.sort_unstable();
    gaps.get(gaps.len() / 2).map_or(0.0, |gap| *gap as f64)
}

impl Frame {
    /// The row of a place, stamped.
    #[must_use]
    pub fn row(&self, at: usize) -> Option<Row> {
        let (at_ms, values) = self.rows.get(at)?;
        let stamp = Timestamp::from_millisecond(*at_ms).map(|stamp| stamp.to_string());
        let timestamp = stamp.unwrap_or_else(|_| at_ms.to_string());
        Some(Row { timestamp, at_ms: Some(*at_ms), values: values.clone() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn looks_a_few_milliseconds_apart_are_one_row() {
        let mut gathered = Gathered::default();
        let at = |offset: i64| (0..5).map(move |i| (i * 10_000 + offset, i as f64));
        gathered.add(labels(&[("__name__", "a"), ("instance", "x")]), at(0)).unwrap();
        gathered.add(labels(&[("__name__", "b"), ("instance", "x")]), at(900)).unwrap();
        gathered.add(labels(&[("__name__", "c"), ("instance", "x")]), at(5_000)).unwrap();
        let frame = gathered.frames().remove(0);
        assert_eq!((frame.entity.as_str(), frame.rows.len()), ("x", 10));
        assert_eq!(&frame.rows[2].1[..2], [1.0, 1.0]);
        assert!(frame.rows[2].1[2].is_nan());
        assert_eq!(frame.row(2).unwrap().timestamp, "1970-01-01T00:00:10Z");
    }

    #[test]
    fn a_series_without_names_is_a_value_and_too_many_points_are_refused() {
        let mut gathered = Gathered::default();
        gathered.add(BTreeMap::new(), [(0, 1.0)]).unwrap();
        gathered.add(labels(&[("__name__", "empty")]), []).unwrap();
        gathered.points = POINTS_MAX;
        assert!(gathered.add(BTreeMap::new(), [(1, 1.0)]).unwrap_err().contains("points"));
        let frames = gathered.frames();
        assert_eq!(frames[0].metrics, ["empty", "value"]);
    }
}
