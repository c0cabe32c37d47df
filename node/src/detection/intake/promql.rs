//! The answer of Prometheus' HTTP API to an instant query, as samples. Pure.
//!
//! `POST /api/v1/query` answers `{"status":"success","data":{"resultType":"vector","result":[{"metric":
//! {…},"value":[seconds,"text"]}]}}`; a scalar has no labels, so no instance could be told from it.
//!
//! Series are given away one by one while the answer is read, and nothing else of it is kept: memory is
//! bounded by one series, whatever the answer is made of.

use std::{cell::Cell, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::sample::{LABELS_MAX, NAME, SERIES_BYTES_MAX, Sample};

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

/// What was in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Series given away.
    pub series: usize,
    /// Series whose value is no number, or whose labels are too many or too long.
    pub unread: usize,
}

/// Reads an answer; every series goes by `name` and is given to `each` with its labels.
///
/// # Errors
/// When it cannot be used; series before the fault have been given away by then.
pub fn read(
    body: &[u8],
    name: &str,
    mut each: impl FnMut(&BTreeMap<String, String>, Sample),
) -> Result<Told, BadAnswer> {
    let too_many = Cell::new(false);
    let mut taker = Taker { name, each: &mut each, told: Told::default(), too_many: &too_many };
    let mut json = serde_json::Deserializer::from_slice(body);
    let answer = AnswerSeed(&mut taker).deserialize(&mut json).and_then(|answer| {
        json.end()?;
        Ok(answer)
    });
    if too_many.get() {
        return Err(BadAnswer::TooMany);
    }
    let answer = answer.map_err(|error| BadAnswer::NotJson(error.to_string()))?;
    match answer {
        Answer { success: true, kind: Some(kind), .. } if kind == VECTOR => Ok(taker.told),
        Answer { success: true, kind: Some(kind), .. } => Err(BadAnswer::NotVector(kind)),
        Answer { error_type, error, .. } => {
            Err(BadAnswer::Refused { kind: error_type, text: error })
        }
    }
}

const VECTOR: &str = "vector";
/// Characters kept of what a Prometheus says about itself.
const WORDS_MAX: usize = 200;

/// Where series go.
struct Taker<'a> {
    name: &'a str,
    each: &'a mut dyn FnMut(&BTreeMap<String, String>, Sample),
    told: Told,
    too_many: &'a Cell<bool>,
}

impl Taker<'_> {
    fn take(&mut self, series: Series) {
        let Series { metric: Some(mut labels), value: (seconds, Some(value)) } = series else {
            self.told.unread += 1;
            return;
        };
        labels.insert(NAME.to_owned(), self.name.to_owned());
        // Saturates: a time that is no time is refused as new or old later.
        (self.each)(&labels, Sample { at_ms: (seconds * 1e3) as i64, value });
        self.told.series += 1;
    }
}

/// The whole of it, without its series.
#[derive(Default)]
struct Answer {
    success: bool,
    error_type: String,
    error: String,
    /// The type of the result, when there is one.
    kind: Option<String>,
}

struct AnswerSeed<'i, 'a>(&'i mut Taker<'a>);

impl<'de> DeserializeSeed<'de> for AnswerSeed<'_, '_> {
    type Value = Answer;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Answer, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AnswerSeed<'_, '_> {
    type Value = Answer;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Answer, A::Error> {
        let mut answer = Answer::default();
        while let Some(key) = map.next_key::<Words>()? {
            match key.0.as_str() {
                "status" => answer.success = map.next_value::<Words>()?.0 == "success",
                "errorType" => answer.error_type = map.next_value::<Words>()?.0,
                "error" => answer.error = map.next_value::<Words>()?.0,
                "data" => answer.kind = map.next_value_seed(DataSeed(&mut *self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(answer)
    }
}

/// `data`: gives the type of the result. That stands before it, as Prometheus writes it.
struct DataSeed<'i, 'a>(&'i mut Taker<'a>);

impl<'de> DeserializeSeed<'de> for DataSeed<'_, '_> {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_, '_> {
    type Value = Option<String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("data of an answer")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut kind = None;
        while let Some(key) = map.next_key::<Words>()? {
            match key.0.as_str() {
                "resultType" => kind = Some(map.next_value::<Words>()?.0),
                "result" if kind.as_deref().is_none_or(|kind| kind == VECTOR) => {
                    map.next_value_seed(VectorSeed(&mut *self.0))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(kind)
    }
}

struct VectorSeed<'i, 'a>(&'i mut Taker<'a>);

impl<'de> DeserializeSeed<'de> for VectorSeed<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for VectorSeed<'_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of series")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut series = 0;
        while let Some(one) = seq.next_element::<Series>()? {
            if series == SERIES_MAX {
                self.0.too_many.set(true);
                return Err(A::Error::custom("too many series"));
            }
            series += 1;
            self.0.take(one);
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Series {
    /// `None`: too many labels, or too long ones.
    #[serde(deserialize_with = "labels")]
    metric: Option<BTreeMap<String, String>>,
    /// `None`: no number.
    #[serde(deserialize_with = "value")]
    value: (f64, Option<f64>),
}

fn labels<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Labels;
    impl<'de> Visitor<'de> for Labels {
        type Value = Option<BTreeMap<String, String>>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("labels")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut labels, mut bytes) = (BTreeMap::new(), 0);
            while let Some((name, value)) = map.next_entry::<String, String>()? {
                bytes += name.len() + value.len();
                // What is too much is read over, not kept.
                if labels.len() <= LABELS_MAX && bytes <= SERIES_BYTES_MAX {
                    labels.insert(name, value);
                }
            }
            let fits = labels.len() <= LABELS_MAX && bytes <= SERIES_BYTES_MAX;
            Ok(fits.then_some(labels))
        }
    }
    deserializer.deserialize_map(Labels)
}

fn value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(f64, Option<f64>), D::Error> {
    let (seconds, text) = <(f64, Words)>::deserialize(deserializer)?;
    Ok((seconds, text.0.parse().ok()))
}

/// The beginning of a text.
struct Words(String);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Begun;
        impl Visitor<'_> for Begun {
            type Value = Words;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E>(self, text: &str) -> Result<Words, E> {
                Ok(Words(text.chars().take(WORDS_MAX).collect()))
            }
        }
        deserializer.deserialize_str(Begun)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    type Read = Vec<(BTreeMap<String, String>, Sample)>;

    fn all(body: &[u8], name: &str) -> Result<(Read, Told), BadAnswer> {
        let mut all = Vec::new();
        let told = read(body, name, |labels, sample| all.push((labels.clone(), sample)))?;
        Ok((all, told))
    }

    #[test]
    fn a_vector_is_read_and_named() {
        let body = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"web"},"value":[1435781451.781,"1"]},
            {"metric":{"job":"db"},"value":[1435781451.781,"NaN"]},
            {"metric":{"job":"x"},"value":[1435781451.781,"soon"]}]}}"#;
        let (told, counts) = all(body, "web:up").unwrap();
        assert_eq!(counts, Told { series: 2, unread: 1 });
        assert_eq!(told[0].0[NAME], "web:up");
        assert_eq!(told[0].1, Sample { at_ms: 1_435_781_451_781, value: 1.0 });
        assert!(told[1].1.value.is_nan());
    }

    #[test]
    fn what_is_no_vector_is_named() {
        let refused =
            all(br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#, "a");
        assert_eq!(refused.unwrap_err().to_string(), "Prometheus says bad_data: parse error");
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#;
        assert_eq!(all(scalar, "a"), Err(BadAnswer::NotVector("scalar".to_owned())));
        assert!(matches!(all(b"<html>", "a"), Err(BadAnswer::NotJson(_))));
        let many = vec![serde_json::json!({"metric": {}, "value": [1, "2"]}); SERIES_MAX + 1];
        let many = serde_json::json!({"status": "success", "data": {"resultType": "vector", "result": many}});
        assert_eq!(all(many.to_string().as_bytes(), "a"), Err(BadAnswer::TooMany));
    }

    #[test]
    fn nothing_is_kept_of_what_is_no_series() {
        let wrap = |kind: &str, result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
        };
        let ones = format!("[{}]", vec!["1"; 1 << 20].join(","));
        // What fits no series ends the reading at its first byte.
        assert!(matches!(all(wrap("vector", &ones).as_bytes(), "a"), Err(BadAnswer::NotJson(_))));
        let matrix = wrap("matrix", &ones);
        assert_eq!(all(matrix.as_bytes(), "a"), Err(BadAnswer::NotVector("matrix".to_owned())));
        let labels: Vec<String> = (0..100_000).map(|n| format!(r#""l{n}":"""#)).collect();
        for metric in [labels.join(","), format!(r#""a":"{}""#, "x".repeat(1 << 20))] {
            let one = format!(r#"[{{"metric":{{{metric}}},"value":[1,"2"]}}]"#);
            let (told, counts) = all(wrap("vector", &one).as_bytes(), "a").unwrap();
            assert_eq!((told.len(), counts), (0, Told { series: 0, unread: 1 }));
        }
        let long = format!(r#"{{"status":"error","error":"{}"}}"#, "x".repeat(1 << 20));
        assert!(all(long.as_bytes(), "a").unwrap_err().to_string().len() < 300);
        assert!(all(br#"{"status":"success","data":null}"#, "a").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(value in any::<f64>(), seconds in any::<f64>(), text in ".{0,40}") {
            let vector = serde_json::json!({"status": "success", "data": {"resultType": "vector",
                "result": [{"metric": {"a": text}, "value": [seconds, value.to_string()]}]}});
            prop_assert!(all(vector.to_string().as_bytes(), "a").map_or(0, |told| told.0.len()) <= 1);
            prop_assert!(all(text.as_bytes(), "a").is_err());
        }
    }
}
