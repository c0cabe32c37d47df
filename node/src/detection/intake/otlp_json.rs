//! OTLP's JSON form, written as its protobuf form while it is read. Pure.
//!
//! ```text
//!   {"resourceMetrics":[{"resource":…,"scopeMetrics":…}]} ─► fields by a table of names ─► protobuf
//! ```
//!
//! So both forms go one way from here on, and no value of JSON is held in between: memory is bounded by
//! what is written. Names are the protocol's (lower camel case), 64-bit numbers texts or numbers, enum
//! values numbers or names; what the table does not name is read over, as the protocol wants.
//! (`opentelemetry-proto` reads it too, and brings OpenTelemetry's SDK with it.)

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{wire, write::MESSAGE_BYTES_MAX};

/// A field that is heeded: its name, its number, its form.
struct Field(&'static str, u32, Form);

#[derive(Clone, Copy)]
enum Form {
    Text,
    Bool,
    /// `int32`, `int64`, `uint32`.
    Varint,
    /// `sint32`: zigzag.
    Signed,
    /// `fixed64` and `sfixed64`: the same bits.
    Fixed64,
    Double,
    /// An enum, with the names of its values.
    Named(&'static [(&'static str, u64)]),
    Message(&'static [Field]),
}

const TEMPORALITY: Form = Form::Named(&[
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
]);

static ANY: [Field; 6] = [
    Field("stringValue", 1, Form::Text),
    Field("boolValue", 2, Form::Bool),
    Field("intValue", 3, Form::Varint),
    Field("doubleValue", 4, Form::Double),
    Field("arrayValue", 5, Form::Message(&ARRAY)),
    Field("kvlistValue", 6, Form::Message(&LIST)),
];
static ARRAY: [Field; 1] = [Field("values", 1, Form::Message(&ANY))];
static LIST: [Field; 1] = [Field("values", 1, Form::Message(&PAIR))];
static PAIR: [Field; 2] = [Field("key", 1, Form::Text), Field("value", 2, Form::Message(&ANY))];
static RESOURCE: [Field; 1] = [Field("attributes", 1, Form::Message(&PAIR))];

static NUMBER_POINT: [Field; 5] = [
    Field("timeUnixNano", 3, Form::Fixed64),
    Field("asDouble", 4, Form::Double),
    Field("asInt", 6, Form::Fixed64),
    Field("attributes", 7, Form::Message(&PAIR)),
    Field("flags", 8, Form::Varint),
];
static HISTOGRAM_POINT: [Field; 7] = [
    Field("timeUnixNano", 3, Form::Fixed64),
    Field("count", 4, Form::Fixed64),
    Field("sum", 5, Form::Double),
    Field("bucketCounts", 6, Form::Fixed64),
    Field("explicitBounds", 7, Form::Double),
    Field("attributes", 9, Form::Message(&PAIR)),
    Field("flags", 10, Form::Varint),
];
static GAUGE: [Field; 1] = [Field("dataPoints", 1, Form::Message(&NUMBER_POINT))];
static SUM: [Field; 3] = [
    Field("dataPoints", 1, Form::Message(&NUMBER_POINT)),
    Field("aggregationTemporality", 2, TEMPORALITY),
    Field("isMonotonic", 3, Form::Bool),
];
static HISTOGRAM: [Field; 2] = [
    Field("dataPoints", 1, Form::Message(&HISTOGRAM_POINT)),
    Field("aggregationTemporality", 2, TEMPORALITY),
];
static BUCKETS: [Field; 2] =
    [Field("offset", 1, Form::Signed), Field("bucketCounts", 2, Form::Varint)];
static EXPONENTIAL_POINT: [Field; 10] = [
    Field("attributes", 1, Form::Message(&PAIR)),
    Field("timeUnixNano", 3, Form::Fixed64),
    Field("count", 4, Form::Fixed64),
    Field("sum", 5, Form::Double),
    Field("scale", 6, Form::Signed),
    Field("zeroCount", 7, Form::Fixed64),
    Field("positive", 8, Form::Message(&BUCKETS)),
    Field("negative", 9, Form::Message(&BUCKETS)),
    Field("flags", 10, Form::Varint),
    Field("zeroThreshold", 14, Form::Double),
];
static EXPONENTIAL: [Field; 2] = [
    Field("dataPoints", 1, Form::Message(&EXPONENTIAL_POINT)),
    Field("aggregationTemporality", 2, TEMPORALITY),
];
static QUANTILE: [Field; 2] = [Field("quantile", 1, Form::Double), Field("value", 2, Form::Double)];
static SUMMARY_POINT: [Field; 6] = [
    Field("timeUnixNano", 3, Form::Fixed64),
    Field("count", 4, Form::Fixed64),
    Field("sum", 5, Form::Double),
    Field("quantileValues", 6, Form::Message(&QUANTILE)),
    Field("attributes", 7, Form::Message(&PAIR)),
    Field("flags", 8, Form::Varint),
];
static SUMMARY: [Field; 1] = [Field("dataPoints", 1, Form::Message(&SUMMARY_POINT))];
static METRIC: [Field; 6] = [
    Field("name", 1, Form::Text),
    Field("gauge", 5, Form::Message(&GAUGE)),
    Field("sum", 7, Form::Message(&SUM)),
    Field("histogram", 9, Form::Message(&HISTOGRAM)),
    Field("exponentialHistogram", 10, Form::Message(&EXPONENTIAL)),
    Field("summary", 11, Form::Message(&SUMMARY)),
];
static SCOPE_METRICS: [Field; 1] = [Field("metrics", 2, Form::Message(&METRIC))];
static RESOURCE_METRICS: [Field; 2] = [
    Field("resource", 1, Form::Message(&RESOURCE)),
    Field("scopeMetrics", 2, Form::Message(&SCOPE_METRICS)),
];
static METRICS: [Field; 1] = [Field("resourceMetrics", 1, Form::Message(&RESOURCE_METRICS))];

static RECORD: [Field; 5] = [
    Field("timeUnixNano", 1, Form::Fixed64),
    Field("severityNumber", 2, Form::Varint),
    Field("severityText", 3, Form::Text),
    Field("body", 5, Form::Message(&ANY)),
    Field("observedTimeUnixNano", 11, Form::Fixed64),
];
static SCOPE_LOGS: [Field; 1] = [Field("logRecords", 2, Form::Message(&RECORD))];
static RESOURCE_LOGS: [Field; 2] = [
    Field("resource", 1, Form::Message(&RESOURCE)),
    Field("scopeLogs", 2, Form::Message(&SCOPE_LOGS)),
];
static LOGS: [Field; 1] = [Field("resourceLogs", 1, Form::Message(&RESOURCE_LOGS))];

/// A body that is no JSON form of the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no OTLP message in JSON: {0}")]
pub struct BadJson(String);

/// `ExportMetricsServiceRequest` in protobuf.
///
/// # Errors
/// When it is none, or more than [`MESSAGE_BYTES_MAX`] bytes would be written.
pub fn metrics(body: &[u8]) -> Result<Vec<u8>, BadJson> {
    written(body, &METRICS)
}

/// `ExportLogsServiceRequest` in protobuf.
///
/// # Errors
/// When it is none, or more than [`MESSAGE_BYTES_MAX`] bytes would be written.
pub fn logs(body: &[u8]) -> Result<Vec<u8>, BadJson> {
    written(body, &LOGS)
}

fn written(body: &[u8], fields: &'static [Field]) -> Result<Vec<u8>, BadJson> {
    let bad = |error: serde_json::Error| BadJson(error.to_string().chars().take(200).collect());
    let mut out = Vec::new();
    // Nested at most 128 deep: serde_json's own bound.
    let mut json = serde_json::Deserializer::from_slice(body);
    Message(fields, &mut out).deserialize(&mut json).map_err(bad)?;
    json.end().map_err(bad)?;
    Ok(out)
}

/// An object, its heeded fields appended to `1`.
struct Message<'o>(&'static [Field], &'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        object(self.0, map, self.1)
    }
}

fn object<'de, A: MapAccess<'de>>(
    fields: &'static [Field],
    mut map: A,
    out: &mut Vec<u8>,
) -> Result<(), A::Error> {
    while let Some(name) = map.next_key::<Cow<'de, str>>()? {
        match fields.iter().find(|field| field.0 == name) {
            Some(field) => map.next_value_seed(Value(field, out))?,
            None => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if out.len() > MESSAGE_BYTES_MAX {
            return Err(A::Error::custom("it is too large: send less at a time"));
        }
    }
    Ok(())
}

/// The value of a field, or a list of them; appended to `1`.
struct Value<'o>(&'static Field, &'o mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl Value<'_> {
    fn fixed64(&mut self, bits: u64) {
        wire::put_double(self.1, self.0.1, f64::from_bits(bits));
    }

    fn wrong<E: Error>(&self) -> E {
        E::custom(format_args!("`{}` is of another form", self.0.0))
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of `{}`", self.0.0)
    }

    /// `null` is an absent field.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, is: bool) -> Result<(), E> {
        match self.0.2 {
            Form::Bool => wire::put_number(self.1, self.0.1, u64::from(is)),
            _ => return Err(self.wrong()),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, number: u64) -> Result<(), E> {
        match self.0.2 {
            Form::Varint | Form::Named(_) => wire::put_number(self.1, self.0.1, number),
            Form::Signed => {
                let number = number.cast_signed();
                let zigzag = (number << 1) ^ (number >> 63);
                wire::put_number(self.1, self.0.1, zigzag.cast_unsigned());
            }
            Form::Fixed64 => self.fixed64(number),
            Form::Double => wire::put_double(self.1, self.0.1, number as f64),
            Form::Text | Form::Bool | Form::Message(_) => return Err(self.wrong()),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        match self.0.2 {
            Form::Double => self.visit_f64(number as f64),
            _ => self.visit_u64(number.cast_unsigned()),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        match self.0.2 {
            Form::Double => wire::put_double(self.1, self.0.1, number),
            _ => return Err(self.wrong()),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.0.2 {
            Form::Text => {
                wire::put_bytes(self.1, self.0.1, text.as_bytes());
                Ok(())
            }
            Form::Double => match text.parse::<f64>() {
                Ok(number) => self.visit_f64(number),
                Err(_) => Err(self.wrong()),
            },
            Form::Varint | Form::Signed | Form::Fixed64 => {
                match (text.parse::<u64>(), text.parse::<i64>()) {
                    (Ok(number), _) => self.visit_u64(number),
                    (_, Ok(number)) => self.visit_u64(number.cast_unsigned()),
                    (Err(_), Err(_)) => Err(self.wrong()),
                }
            }
            Form::Named(names) => match names.iter().find(|(name, _)| *name == text) {
                Some((_, number)) => self.visit_u64(*number),
                None => Err(self.wrong()),
            },
            Form::Bool | Form::Message(_) => Err(self.wrong()),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Value(self.0, &mut *self.1))?.is_some() {
            if self.1.len() > MESSAGE_BYTES_MAX {
                return Err(A::Error::custom("it is too large: send less at a time"));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Form::Message(fields) = self.0.2 else { return Err(self.wrong()) };
        let mut nested = Vec::new();
        object(fields, map, &mut nested)?;
        wire::put_bytes(self.1, self.0.1, &nested);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
