//! OTLP metrics as the collector's file exporter writes them: one `ExportMetricsServiceRequest` a line,
//! as JSON (OTLP specification, "JSON Protobuf encoding").
//!
//! Gauges and sums that go both ways are values. Sums that only grow become rates a second, whether
//! cumulative or deltas; histograms become the rate of `_count` and the `_mean` of what was observed
//! since the point before. A cumulative sum that falls has begun anew. Exponential histograms and
//! summaries are not read. An entity is a `service.instance.id` of a `service.name`, or a `host.name`.

use std::{collections::BTreeMap, io::BufRead, path::Path};

use serde::{Deserialize, Deserializer, de};

use super::{
    BacktestError,
    series::{Gathered, INSTANCE, JOB, NAME, number, without_place},
};

/// A longer line is no batch of metrics.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// A point of which its sender says that there is no value.
const NO_VALUE_FLAG: u32 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch {
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceMetrics {
    #[serde(default)]
    resource: Resource,
    #[serde(default)]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Default, Deserialize)]
struct Resource {
    #[serde(default)]
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
struct ScopeMetrics {
    #[serde(default)]
    metrics: Vec<Metric>,
}

#[derive(Deserialize)]
struct Metric {
    name: String,
    gauge: Option<Points>,
    sum: Option<Points>,
    histogram: Option<Points>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Points {
    #[serde(default)]
    data_points: Vec<Point>,
    /// Enums are numbers; the names are accepted as well.
    #[serde(default)]
    aggregation_temporality: Temporality,
    #[serde(default)]
    is_monotonic: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Temporality {
    #[default]
    Unspecified,
    Delta,
    Cumulative,
}

impl<'de> Deserialize<'de> for Temporality {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Number(number) if number.as_u64() == Some(1) => Ok(Self::Delta),
            serde_json::Value::Number(number) if number.as_u64() == Some(2) => Ok(Self::Cumulative),
            serde_json::Value::String(name) if name.ends_with("_DELTA") => Ok(Self::Delta),
            serde_json::Value::String(name) if name.ends_with("_CUMULATIVE") => {
                Ok(Self::Cumulative)
            }
            _ => Ok(Self::Unspecified),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Point {
    #[serde(default)]
    attributes: Vec<Attribute>,
    time_unix_nano: Figure,
    start_time_unix_nano: Option<Figure>,
    as_double: Option<Figure>,
    as_int: Option<Figure>,
    count: Option<Figure>,
    sum: Option<Figure>,
    #[serde(default)]
    flags: u32,
}

/// A number, or one in quotes, as 64-bit integers and NaN are.
#[derive(Clone, Copy)]
struct Figure(f64);

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let found = match &value {
            serde_json::Value::Number(number) => number.as_f64(),
            serde_json::Value::String(text) => number(text),
            _ => None,
        };
        found.map(Self).ok_or_else(|| {
            let text = value.to_string();
            de::Error::custom(format!("`{}` is not a number", super::csv::shortened(&text)))
        })
    }
}

#[derive(Deserialize)]
struct Attribute {
    key: String,
    #[serde(default)]
    value: serde_json::Value,
}

impl Attribute {
    /// Its value in words; lists and the like as JSON.
    fn text(&self) -> String {
        let inner = self.value.as_object().and_then(|object| object.values().next());
        match inner {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

/// Reads a file of such lines.
///
/// # Errors
/// When a line is none.
pub(super) fn read(
    path: &Path,
    mut source: impl BufRead,
    into: &mut Gathered,
) -> Result<(), BacktestError> {
    let mut rates = Rates::default();
    let mut bytes = Vec::new();
    for line in 1u64.. {
        let wrong =
            |problem: String| BacktestError::Content { path: path.to_owned(), line, problem };
        bytes.clear();
        let mut bounded = std::io::Read::take(&mut source, LINE_BYTES_MAX + 1);
        let count = bounded.read_until(b'\n', &mut bytes).map_err(|e| wrong(e.to_string()))?;
        if count == 0 {
            return Ok(());
        }
        if count as u64 > LINE_BYTES_MAX {
            return Err(wrong(format!("a line is longer than {LINE_BYTES_MAX} B")));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let batch: Batch = serde_json::from_slice(bytes.trim_ascii_end()).map_err(|error| {
            let (column, problem) = (error.column(), without_place(&error));
            wrong(format!("no OTLP metrics as JSON: column {column}: {problem}"))
        })?;
        for of_resource in batch.resource_metrics {
            rates.resource(of_resource, into).map_err(wrong)?;
        }
    }
    Ok(())
}

/// The point before, of every series that only grows.
#[derive(Default)]
struct Rates {
    last: BTreeMap<BTreeMap<String, String>, (f64, f64, f64)>,
}

impl Rates {
    fn resource(
        &mut self,
        of_resource: ResourceMetrics,
        into: &mut Gathered,
    ) -> Result<(), String> {
        let own: BTreeMap<&str, String> = of_resource
            .resource
            .attributes
            .iter()
            .map(|one| (one.key.as_str(), one.text()))
            .collect();
        let mut base = BTreeMap::new();
        let named =
            [("service.name", JOB), ("service.instance.id", INSTANCE), ("host.name", INSTANCE)];
        for (from, to) in named {
            if let Some(value) = own.get(from) {
                base.entry(to.to_owned()).or_insert_with(|| value.clone());
            }
        }
        let metrics = of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
        for metric in metrics {
            self.metric(&base, metric, into)?;
        }
        Ok(())
    }

    fn metric(
        &mut self,
        base: &BTreeMap<String, String>,
        metric: Metric,
        into: &mut Gathered,
    ) -> Result<(), String> {
        let forms = [(metric.gauge, false), (metric.sum, false), (metric.histogram, true)];
        for (points, histogram) in forms {
            let Some(points) = points else { continue };
            let grows = histogram || points.is_monotonic;
            let deltas = points.aggregation_temporality == Temporality::Delta;
            for point in points.data_points {
                if point.flags & NO_VALUE_FLAG != 0 {
                    continue;
                }
                let mut labels = base.clone();
                labels.extend(point.attributes.iter().map(|one| (one.key.clone(), one.text())));
                let mut named = |suffix: &str| {
                    let name = format!("{}{suffix}", metric.name);
                    labels.insert(NAME.to_owned(), name);
                    labels.clone()
                };
                let at = (point.time_unix_nano.0 / 1e6) as i64;
                let value = point.as_double.or(point.as_int);
                let (Some(Figure(value)), false) = (value, histogram) else {
                    let count = point.count.map_or(f64::NAN, |count| count.0);
                    let total = point.sum.map_or(f64::NAN, |sum| sum.0);
                    let (count, total, seconds) =
                        self.since(named("_count"), &point, (count, total), deltas);
                    into.add(named("_count"), [(at, count / seconds)])?;
                    into.add(named("_mean"), [(at, total / count)])?;
                    continue;
                };
                let value = if grows {
                    let (more, _, seconds) = self.since(named(""), &point, (value, 0.0), deltas);
                    more / seconds
                } else {
                    value
                };
                into.add(named(""), [(at, value)])?;
            }
        }
        Ok(())
    }

    /// By how much two sums have grown since the point before, and in how many seconds; NaN where
    /// nobody can know.
    fn since(
        &mut self,
        series: BTreeMap<String, String>,
        point: &Point,
        (first, second): (f64, f64),
        deltas: bool,
    ) -> (f64, f64, f64) {
        let now = point.time_unix_nano.0 / 1e9;
        let started = point.start_time_unix_nano.map_or(f64::NAN, |at| at.0 / 1e9);
        let before = self.last.insert(series, (now, first, second));
        let (then, was_first, was_second) = match before {
            _ if deltas => (started, 0.0, 0.0),
            // What began anew counts from its start.
            Some((then, was, _)) if first < was => (then.max(started), 0.0, 0.0),
            Some(before) => before,
            None => (f64::NAN, f64::NAN, f64::NAN),
        };
        let seconds = Some(now - then).filter(|seconds| *seconds > 0.0).unwrap_or(f64::NAN);
        (first - was_first, second - was_second, seconds)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(text: &str) -> Result<Gathered, String> {
        let mut gathered = Gathered::default();
        let read = read(Path::new("metrics.jsonl"), text.as_bytes(), &mut gathered);
        read.map(|()| gathered).map_err(|error| error.to_string())
    }

    fn line(metric: &str) -> String {
        let attributes = r#"[{"key":"service.name","value":{"stringValue":"web"}},
            {"key":"service.instance.id","value":{"stringValue":"web-1"}}]"#;
        let text = format!(
            r#"{{"resourceMetrics":[{{"resource":{{"attributes":{attributes}}},
            "scopeMetrics":[{{"scope":{{}},"metrics":[{metric}]}}]}}]}}"#
        );
        text.replace('\n', " ") + "\n"
    }

    #[test]
    fn gauges_are_values_and_what_grows_is_a_rate() {
        let at = |seconds: u64| format!("\"{}\"", (1_700_000_000 + seconds) * 1_000_000_000);
        let gauge = |t: u64, v: &str| {
            line(&format!(
                r#"{{"name":"queue","gauge":{{"dataPoints":[{{"timeUnixNano":{},"asDouble":{v},
                "attributes":[{{"key":"shard","value":{{"intValue":"3"}}}}]}}]}}}}"#,
                at(t)
            ))
        };
        let sum = |t: u64, v: u64| {
            line(&format!(
                r#"{{"name":"requests","sum":{{"aggregationTemporality":2,"isMonotonic":true,
                "dataPoints":[{{"timeUnixNano":{},"asInt":"{v}"}}]}}}}"#,
                at(t)
            ))
        };
        let histogram = |t: u64, count: u64, total: f64| {
            line(&format!(
                r#"{{"name":"latency","histogram":{{"aggregationTemporality":1,"dataPoints":[
                {{"startTimeUnixNano":{},"timeUnixNano":{},"count":"{count}","sum":{total}}}]}}}}"#,
                at(t - 10),
                at(t)
            ))
        };
        let text = [
            gauge(10, "7.5"),
            sum(10, 100),
            histogram(10, 20, 4.0),
            "\n".to_owned(),
            gauge(20, "\"NaN\""),
            sum(20, 150),
            histogram(20, 0, 0.0),
            // It began anew.
            sum(30, 30),
        ];
        let frames = of(&text.concat()).unwrap().frames();
        assert_eq!((frames.len(), frames[0].entity.as_str()), (1, "web/web-1"));
        let frame = &frames[0];
        assert_eq!(frame.metrics, ["latency_count", "latency_mean", "queue{shard=3}", "requests"]);
        let known = |row: usize| -> Vec<Option<f64>> {
            frame.rows[row].1.iter().map(|v| (!v.is_nan()).then_some(*v)).collect()
        };
        assert_eq!(known(0), [Some(2.0), Some(0.2), Some(7.5), None]);
        assert_eq!(known(1), [Some(0.0), None, None, Some(5.0)]);
        assert_eq!(known(2), [None, None, None, Some(3.0)]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let good =
            line(r#"{"name":"x","gauge":{"dataPoints":[{"timeUnixNano":"1","asInt":"1"}]}}"#);
        for (bad, expected) in [
            ("{", "metrics.jsonl:3: no OTLP metrics as JSON: column 1: "),
            ("{\"resourceSpans\":[]}", "missing field `resourceMetrics`"),
            (
                &line(r#"{"name":"x","gauge":{"dataPoints":[{"timeUnixNano":"soon"}]}}"#),
                "is not a number",
            ),
        ] {
            let error = of(&format!("{good}\n{bad}\n")).map(|_| ()).unwrap_err();
            assert!(error.starts_with("metrics.jsonl:3: ") && error.contains(expected), "{error}");
        }
    }
}
