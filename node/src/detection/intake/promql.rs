//! The answer of Prometheus' HTTP API to an instant query, as samples. Pure.
//!
//! `POST /api/v1/query` answers `{"status":"success","data":{"resultType":"vector","result":[{"metric":
//! {…},"value":[seconds,"text"]}]}}`; a scalar has no labels, so no instance could be told from it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::sample::{NAME, SERIES_BYTES_MAX, Sample};

/// Series of one answer that are taken.
pub const SERIES_MAX: usize = 10_000;

/// An answer that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not the API's JSON.
    #[error("it is no answer of Prometheus' query API: {0}")]
    NotJson(String),
    /// Prometheus says that the query is wrong, or failed.
    #[error("Prometheus says {kind}: {text}")]
    Refused {
        /// `bad_data`, `timeout`, …
        kind: String,
        /// Why.
        text: String,
    },
    /// Something else than an instant vector.
    #[error("the result is a {0}: an instant vector is needed")]
    NotVector(String),
    /// Too many.
    #[error("more than {SERIES_MAX} series: aggregate in the query")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    #[serde(default)]
    error_type: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    #[serde(default)]
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

/// One series of an answer: its labels (the name among them) and its value.
pub type Told = (BTreeMap<String, String>, Sample);

/// Reads an answer; every series goes by `name`.
///
/// # Errors
/// When it cannot be used.
pub fn read(body: &[u8], name: &str) -> Result<Vec<Told>, BadAnswer> {
    let not_json = |error: serde_json::Error| BadAnswer::NotJson(error.to_string());
    let answer: Answer = serde_json::from_slice(body).map_err(not_json)?;
    let Some(data) = answer.data.filter(|_| answer.status == "success") else {
        let clipped = |text: String| text.chars().take(200).collect();
        return Err(BadAnswer::Refused {
            kind: clipped(answer.error_type),
            text: clipped(answer.error),
        });
    };
    if data.result_type != "vector" {
        return Err(BadAnswer::NotVector(data.result_type.chars().take(32).collect()));
    }
    let result: Vec<Series> = serde_json::from_value(data.result).map_err(not_json)?;
    if result.len() > SERIES_MAX {
        return Err(BadAnswer::TooMany);
    }
    let told = result.into_iter().filter_map(|series| {
        let (seconds, text) = series.value;
        let value: f64 = text.parse().ok()?;
        let mut labels = series.metric;
        labels.insert(NAME.to_owned(), name.to_owned());
        let bytes: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        // Saturates: a time that is no time is refused as too new or too old later.
        let sample = Sample { at_ms: (seconds * 1e3) as i64, value };
        (bytes <= SERIES_BYTES_MAX).then_some((labels, sample))
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vector_is_read_and_named() {
        let body = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"web"},"value":[1435781451.781,"1"]},
            {"metric":{"job":"db"},"value":[1435781451.781,"NaN"]},
            {"metric":{"job":"x"},"value":[1435781451.781,"soon"]}]}}"#;
        let told = read(body, "web:up").unwrap();
        assert_eq!(told.len(), 2);
        assert_eq!(told[0].0[NAME], "web:up");
        assert_eq!(told[0].1, Sample { at_ms: 1_435_781_451_781, value: 1.0 });
        assert!(told[1].1.value.is_nan());
    }

    #[test]
    fn what_is_no_vector_is_named() {
        let refused =
            read(br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#, "a");
        assert_eq!(refused.unwrap_err().to_string(), "Prometheus says bad_data: parse error");
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#;
        assert_eq!(read(scalar, "a"), Err(BadAnswer::NotVector("scalar".to_owned())));
        assert!(matches!(read(b"<html>", "a"), Err(BadAnswer::NotJson(_))));
        let many = vec![serde_json::json!({"metric": {}, "value": [1, "2"]}); SERIES_MAX + 1];
        let many = serde_json::json!({"status": "success", "data": {"resultType": "vector", "result": many}});
        assert_eq!(read(many.to_string().as_bytes(), "a"), Err(BadAnswer::TooMany));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(value in any::<f64>(), seconds in any::<f64>(), text in ".{0,40}") {
            let vector = serde_json::json!({"status": "success", "data": {"resultType": "vector",
                "result": [{"metric": {"a": text}, "value": [seconds, value.to_string()]}]}});
            prop_assert!(read(vector.to_string().as_bytes(), "a").map_or(0, |told| told.len()) <= 1);
            prop_assert!(read(text.as_bytes(), "a").is_err());
        }
    }
}
