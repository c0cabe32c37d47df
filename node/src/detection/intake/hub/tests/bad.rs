//! Samples that are none, at the door: each is counted under its reason, and nothing else is disturbed.

use super::*;
use crate::detection::intake::{
    otlp_json,
    sample::{LABELS_MAX, STALE_BITS},
    wire::{put_bytes, put_double, put_number},
};

/// What became of a version 1 message at the node that watches `solo`.
fn taken(hub: &Hub, version: Version, message: &[u8]) -> Counts {
    let shared = hub.tenant("default").unwrap();
    let walk = hub.walk_of(Allowed(u64::MAX), false);
    walk_through(&shared, version, message, &walk).unwrap().counts
}

const HOUR_MS: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn what_is_no_measurement_is_counted_under_its_reason() {
    let hub = hub(1, TenantSpec::default());
    let now_ms = hub.moment().wall_ms;
    let many: Vec<String> = (0..10_000).map(|n| format!("l{n}")).collect();
    let mut labelled = SOLO.to_vec();
    labelled.extend(many.iter().map(|name| (name.as_str(), "v")));
    let long = "x".repeat(100_000);
    let count: &[(&str, &str)] = &[(NAME, "total"), ("job", "solo")];
    let twice: &[(&str, &str)] = &[(NAME, "load"), ("job", "solo"), ("job", "web")];
    let huge: &[(&str, &str)] = &[(NAME, "load"), ("job", "solo"), ("pod", &long)];
    for (what, labels, at_ms, value, became) in [
        ("no number", SOLO, now_ms, f64::NAN, Became::NotFinite),
        ("infinite", SOLO, now_ms, f64::INFINITY, Became::NotFinite),
        ("the other infinity", SOLO, now_ms, f64::NEG_INFINITY, Became::NotFinite),
        ("the end of a series", SOLO, now_ms, f64::from_bits(STALE_BITS), Became::Stale),
        ("good", SOLO, now_ms + 1, 0.5, Became::Taken),
        ("again", SOLO, now_ms + 1, 0.5, Became::Duplicate),
        ("another value for the same time", SOLO, now_ms + 1, 0.6, Became::OutOfOrder),
        ("late", SOLO, now_ms - 10, 0.5, Became::OutOfOrder),
        ("a clock far behind", SOLO, now_ms - 2 * HOUR_MS, 0.5, Became::TooOld),
        ("a clock far ahead", SOLO, now_ms + 2 * HOUR_MS, 0.5, Became::TooNew),
        ("the end of time", SOLO, i64::MAX, 0.5, Became::TooNew),
        ("the beginning of time", SOLO, i64::MIN, 0.5, Became::TooOld),
        ("a counter below zero", count, now_ms, -1.0, Became::Negative),
        ("ten thousand labels", labelled.as_slice(), now_ms, 1.0, Became::BadSeries),
        ("a label twice", twice, now_ms, 1.0, Became::BadSeries),
        ("a label of 100 kB", huge, now_ms, 1.0, Became::BadSeries),
        ("no name", &SOLO[1..], now_ms, 1.0, Became::BadSeries),
        ("nobody's", &[(NAME, "load"), ("job", "moon")], now_ms, 1.0, Became::Unmapped),
        ("unwanted", &[(NAME, "up"), ("job", "solo")], now_ms, 1.0, Became::Unwanted),
    ] {
        let mut message = Vec::new();
        write::put_series(&mut message, labels.iter().copied(), &[Sample { at_ms, value }]);
        let counts = taken(&hub, Version::V1, &message);
        assert_eq!((counts.of(became), counts.total()), (1, 1), "{what}: {counts:?}");
    }
    // Through all that, one series was watched and its one value kept.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(hub.values(&target("solo", "solo-1")).unwrap().values["load"], 0.5);
    assert!(hub.series() <= 2);
}

/// A task that panicked over its message once gave no answer, and its sender sent it for ever.
#[tokio::test(start_paused = true)]
async fn one_push_of_late_samples_that_are_no_numbers_is_answered() {
    let hub = hub(1, TenantSpec::default());
    let now_ms = hub.moment().wall_ms;
    let samples: Vec<Sample> = (0..600)
        .map(|n| match n {
            0 => Sample { at_ms: now_ms, value: 1.0 },
            n => Sample { at_ms: now_ms - 1_000 + n, value: f64::NAN },
        })
        .collect();
    let mut message = Vec::new();
    write::put_series(&mut message, SOLO.iter().copied(), &samples);
    assert_eq!(hub.push(push(&message)).await.unwrap().samples, 1);
    let counts = taken(&hub, Version::V1, &message);
    assert_eq!((counts.of(Became::Duplicate), counts.of(Became::NotFinite)), (1, 599));
}

/// A new label each time, for as long as it likes.
#[tokio::test(start_paused = true)]
async fn churn_costs_no_more_than_the_quota() {
    let quota = TenantSpec { max_series: Some(50), ..TenantSpec::default() };
    let hub = hub(1, quota);
    let mut refused = 0;
    for round in 0..2_000 {
        let pod = round.to_string();
        let labels = [(NAME, "load"), ("job", "solo"), ("pod", pod.as_str())];
        let counts = taken(&hub, Version::V1, &message(&hub, &[(&labels, 1.0)]));
        refused += counts.of(Became::Limit);
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert_eq!((hub.series(), refused), (50, 1_950));
    // When the churn ends, others have room again.
    tokio::time::advance(Duration::from_secs(600)).await;
    let counts = taken(&hub, Version::V1, &message(&hub, &[(SOLO, 1.0)]));
    assert_eq!((counts.of(Became::Taken), hub.series()), (1, 1));
}

/// A version 2 message with one series of this type.
fn typed(at_ms: i64, value: f64, kind: u64) -> Vec<u8> {
    let mut message = Vec::new();
    for symbol in ["", NAME, "total", "job", "solo"] {
        put_bytes(&mut message, 4, symbol.as_bytes());
    }
    let (mut series, mut sample, mut metadata) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut series, 1, &[1, 2, 3, 4]);
    put_double(&mut sample, 1, value);
    put_number(&mut sample, 2, at_ms.cast_unsigned());
    put_bytes(&mut series, 2, &sample);
    put_number(&mut metadata, 1, kind);
    put_bytes(&mut series, 5, &metadata);
    put_bytes(&mut message, 5, &series);
    message
}

#[tokio::test(start_paused = true)]
async fn a_metric_whose_type_changes_has_no_increase_across_the_change() {
    let hub = hub(1, TenantSpec::default());
    let begun_ms = hub.moment().wall_ms;
    let (counter, gauge) = (1, 2);
    let mut rates = Vec::new();
    for (round, value, kind, changes) in [
        (1, 100.0, counter, 0),
        (2, 110.0, counter, 0),
        (3, 1e9, gauge, 1),
        (4, 120.0, counter, 1),
        (5, 130.0, counter, 0),
        // By now its instance is known for long: a counter that is new would count from zero.
        (200, 2_080.0, counter, 0),
        (201, 1e9, gauge, 1),
        (202, 2_100.0, counter, 1),
        (203, 2_110.0, counter, 0),
    ] {
        let ahead = begun_ms + round * 1_000 - hub.moment().wall_ms;
        tokio::time::advance(Duration::from_millis(ahead.max(0).unsigned_abs())).await;
        let counts = taken(&hub, Version::V2, &typed(begun_ms + round * 1_000, value, kind));
        assert_eq!((counts.of(Became::Taken), counts.type_changes), (1, changes), "{round}");
        tokio::time::advance(Duration::from_secs(1)).await;
        let values = hub.values(&target("solo", "solo-1")).unwrap().values;
        rates.push(values.get("throughput").copied());
    }
    let change = [Some(0.0), Some(0.0), Some(10.0)];
    let expected = [&[None, Some(10.0)][..], &change, &[Some(10.0)], &change].concat();
    assert_eq!(rates, expected);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_attributes_of_a_point_are_refused_and_counted() {
    let hub = hub(1, TenantSpec::default());
    let attribute =
        |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
    let many: Vec<_> = (0..10_000).map(|n| attribute(&format!("l{n}"), "v")).collect();
    let point = serde_json::json!({"asInt": 1, "timeUnixNano": "1", "attributes": many});
    let body = serde_json::json!({"resourceMetrics": [{
        "resource": {"attributes": [attribute("service.name", "solo")]},
        "scopeMetrics": [{"metrics": [{"name": "load", "gauge": {"dataPoints": [point]}}]}],
    }]});
    let metrics = Push {
        form: PushForm::OtlpMetrics,
        body: otlp_json::metrics(body.to_string().as_bytes()).unwrap(),
        ..push(&[])
    };
    let taken = hub.push(metrics).await.unwrap();
    assert_eq!((taken.samples, taken.rejected), (0, 1));
    assert!(taken.refused.unwrap().contains(&format!("more than {LABELS_MAX} labels")));
}
