//! Tests of the reading of OTLP in JSON.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{super::otlp, *};

/// The example of the protocol's own documentation, cut to what is read.
const EXAMPLE: &str = r#"{"resourceMetrics":[{
    "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]},
    "scopeMetrics":[{"scope":{"name":"my.library","version":"1.0.0"},"metrics":[
      {"name":"my.counter","unit":"1","sum":{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[
        {"asDouble":5,"startTimeUnixNano":"1544712660300000000","timeUnixNano":"1544712660300000000",
         "attributes":[{"key":"my.attr","value":{"stringValue":"some value"}}]}]}},
      {"name":"my.gauge","gauge":{"dataPoints":[{"asInt":"-10","timeUnixNano":1544712660300000000}]}},
      {"name":"my.histogram","histogram":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE",
        "dataPoints":[{"timeUnixNano":"1544712660300000000","count":"2","sum":2,"bucketCounts":["1","1"],
          "explicitBounds":[1],"min":0,"max":2}]}},
      {"name":"my.exponential","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[
        {"timeUnixNano":"1544712660300000000","count":"4","sum":9,"scale":0,"zeroCount":"1",
         "positive":{"offset":-1,"bucketCounts":["2","0","1"]}}]}},
      {"name":"my.summary","summary":{"dataPoints":[{"timeUnixNano":"1544712660300000000","count":"7","sum":3,
         "quantileValues":[{"quantile":0.99,"value":0.5}]}]}},
      {"name":"my.odd","sum":{"aggregationTemporality":0,"dataPoints":[{"asInt":"1"}]}}
    ]}]}]}"#;

#[test]
fn the_protocols_own_example_is_read() {
    let translated = otlp::translate(&metrics(EXAMPLE.as_bytes()).unwrap(), true).unwrap();
    assert_eq!((translated.samples, translated.unread), (15, 1));
    let mut told = Vec::new();
    super::super::write::read(super::super::write::Version::V1, &translated.message, |view, _| {
        view.check().unwrap();
        assert_eq!(view.label("service"), Some("my.service"));
        assert_eq!(view.samples[0].at_ms, 1_544_712_660_300);
        told.push((view.name().to_owned(), view.samples[0].value));
    })
    .unwrap();
    let told: Vec<(&str, f64)> = told.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(
        told,
        [
            ("my_counter", 5.0),
            ("my_gauge", -10.0),
            ("my_histogram_count", 2.0),
            ("my_histogram_sum", 2.0),
            ("my_histogram_bucket", 1.0),
            ("my_histogram_bucket", 2.0),
            ("my_exponential_count", 4.0),
            ("my_exponential_sum", 9.0),
            ("my_exponential_bucket", 1.0),
            ("my_exponential_bucket", 2.0),
            ("my_exponential_bucket", 1.0),
            ("my_exponential_bucket", 0.0),
            ("my_summary_count", 7.0),
            ("my_summary_sum", 3.0),
            ("my_summary", 0.5),
        ]
    );
}

#[test]
fn what_is_no_such_message_is_named() {
    for (body, says) in [
        ("", "EOF"),
        ("[]", "an object"),
        (r#"{"resourceMetrics":5}"#, "`resourceMetrics` is of another form"),
        (r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":{}}]}]}]}"#, "`name`"),
        (r#"{"resourceMetrics":[]} trailing"#, "trailing"),
        (&format!(r#"{{"resourceMetrics":{}"#, "[".repeat(100_000)), "recursion"),
    ] {
        let said = metrics(body.as_bytes()).unwrap_err().to_string();
        assert!(said.contains(says), "{body:.60}: {said}");
    }
    assert_eq!(
        metrics(br#"{"unknown":[{"x":1}],"resourceMetrics":null}"#).unwrap(),
        Vec::<u8>::new()
    );
}

#[test]
fn a_body_that_grows_is_refused() {
    let points = format!("[{}]", vec![r#"{"asInt":1}"#; 2_000_000].join(","));
    let body = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"gauge":{{"dataPoints":{points}}}}}]}}]}}]}}"#
    );
    assert!(metrics(body.as_bytes()).unwrap_err().to_string().contains("too large"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}:,\"a-zA-Z0-9.\\\\ -]{0,200}") {
        let told = metrics(text.as_bytes());
        prop_assert!(told.map_or(0, |out| out.len()) <= 10 * text.len());
    }

    /// One byte of a good message is another.
    #[test]
    fn damage_is_refused_or_read(at in 0..EXAMPLE.len(), to in any::<u8>()) {
        let mut body = EXAMPLE.as_bytes().to_vec();
        body[at] = to;
        if let Ok(out) = metrics(&body) {
            prop_assert!(otlp::translate(&out, true).is_ok());
        }
    }
}
