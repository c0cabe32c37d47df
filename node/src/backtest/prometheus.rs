//! The answer of Prometheus to a range query (`/api/v1/query_range`), from a file.
//!
//! ```text
//!   {"status": "success", "data": {"resultType": "matrix", "result": [
//!       {"metric": {"__name__": "up", "instance": "web-1"}, "values": [[1700000000, "1"], …]}, …]}}
//! ```
//!
//! Native histograms beside `values` are not read.

use std::{borrow::Cow, collections::BTreeMap, io::Read, path::Path};

use serde::{Deserialize, Deserializer, de};

use super::{
    BacktestError,
    series::{Gathered, NAME, number, without_place},
};

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    status: String,
    #[serde(default)]
    error: String,
    #[serde(rename = "errorType", default)]
    error_type: String,
    #[serde(default)]
    warnings: Vec<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType", default)]
    kind: String,
    #[serde(default)]
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Sample>,
    /// An instant answer has one of these instead.
    value: Option<de::IgnoredAny>,
}

/// `[seconds, "value"]`.
struct Sample(i64, f64);

impl<'de> Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (seconds, text) = <(f64, Cow<'de, str>)>::deserialize(deserializer)?;
        let ms = (seconds * 1e3).round();
        if !ms.is_finite() {
            return Err(de::Error::custom(format!("{seconds} is not a time")));
        }
        let value = number(&text).ok_or_else(|| {
            de::Error::custom(format!("`{}` is not a number", super::csv::shortened(&text)))
        })?;
        Ok(Self(ms as i64, value))
    }
}

/// What is wrong with an answer, and the line where.
pub(super) struct Bad {
    line: usize,
    pub(super) problem: String,
}

/// Reads an answer from a file.
///
/// # Errors
/// When it is none, or an answer to another question.
pub(super) fn read(
    path: &Path,
    source: impl Read,
    into: &mut Gathered,
) -> Result<(), BacktestError> {
    let taken = take(source, None, into);
    taken.map(|_| ()).map_err(|Bad { line, problem }| BacktestError::Content {
        path: path.to_owned(),
        line: line as u64,
        problem,
    })
}

/// Takes the series of an answer in; gives what it warns of. `unnamed`: how series without a name are called.
///
/// # Errors
/// When it is none, or an answer to another question.
pub(super) fn take(
    source: impl Read,
    unnamed: Option<&str>,
    into: &mut Gathered,
) -> Result<Vec<String>, Bad> {
    let wrong = |problem: String| Bad { line: 1, problem };
    let answer: Answer = serde_json::from_reader(source).map_err(|error| {
        let problem = if error.is_io() {
            error.to_string()
        } else {
            format!("no answer of Prometheus to a range query: {}", without_place(&error))
        };
        Bad { line: error.line().max(1), problem }
    })?;
    let Some(data) = answer.data else {
        let said = if answer.error.is_empty() { &answer.status } else { &answer.error };
        return Err(wrong(format!("Prometheus answered without data: {said}")));
    };
    let instant = data.result.iter().any(|series| series.value.is_some());
    if data.kind != "matrix" || instant {
        let kind = if data.kind.is_empty() { "nothing" } else { &data.kind };
        return Err(wrong(format!(
            "the result is `{kind}`, not `matrix`: ask /api/v1/query_range"
        )));
    }
    for mut series in data.result {
        if let Some(name) = unnamed {
            series.metric.entry(NAME.to_owned()).or_insert_with(|| name.to_owned());
        }
        let points = series.values.into_iter().map(|Sample(at, value)| (at, value));
        into.add(series.metric, points).map_err(wrong)?;
    }
    Ok(answer.warnings)
}

/// Why Prometheus refuses, where it says so.
pub(super) fn refusal(body: &[u8]) -> Option<String> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    (!answer.error.is_empty()).then(|| format!("{}: {}", answer.error_type, answer.error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn of(text: &str) -> Result<Gathered, String> {
        let mut gathered = Gathered::default();
        let path = Path::new("answer.json");
        let read = read(path, text.as_bytes(), &mut gathered);
        read.map(|()| gathered).map_err(|error| error.to_string())
    }

    #[test]
    fn a_matrix_is_read_by_instance() {
        let text = r#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"up","job":"web","instance":"a:80"},"values":[[1700000000,"1"],[1700000015.5,"NaN"]]},
            {"metric":{"__name__":"load","job":"web","instance":"a:80","cpu":"0"},"values":[[1700000000,"0.5"],[1700000015.5,"+Inf"]]},
            {"metric":{"__name__":"up","job":"web","instance":"b:80"},"values":[[1700000000,"0"]]}]}}"#;
        let frames = of(text).unwrap().frames();
        let names: Vec<&str> = frames.iter().map(|frame| frame.entity.as_str()).collect();
        assert_eq!(names, ["web/a:80", "web/b:80"]);
        assert_eq!(frames[0].metrics, ["load{cpu=0}", "up"]);
        assert_eq!(frames[0].rows[0], (1_700_000_000_000, vec![0.5, 1.0]));
        let (at, values) = &frames[0].rows[1];
        assert_eq!(*at, 1_700_000_015_500);
        assert!(values.iter().all(|value| value.is_nan()), "an infinity is no value either");
    }

    #[test]
    fn what_is_something_else_is_named_with_its_line() {
        for (text, expected) in [
            ("", "answer.json:1: no answer of Prometheus"),
            ("[1]", "answer.json:1: no answer"),
            (r#"{"status":"error","error":"too many"}"#, "answered without data: too many"),
            (
                r#"{"data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]}]}}"#,
                "the result is `vector`, not `matrix`",
            ),
            (
                "{\"data\":{\"resultType\":\"matrix\",\"result\":[\n{\"values\":[[1,\"x1\"]]}]}}",
                "answer.json:2: no answer of Prometheus to a range query: `x1` is not a number",
            ),
            (
                "{\"data\":{\"resultType\":\"matrix\",\"result\":[\n\n{\"values\":[[1]]}]}}",
                "answer.json:3: ",
            ),
        ] {
            let error = of(text).map(|_| ()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
