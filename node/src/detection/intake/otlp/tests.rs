//! Tests of the translation of OTLP metrics.
#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::detection::intake::{
    wire::{put_bytes, put_double, put_number, put_varint},
    write::{Version, read},
};

const AT_NS: u64 = 1_700_000_000_123_000_000;

fn message(parts: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    parts.iter().for_each(|(field, bytes)| put_bytes(&mut out, *field, bytes));
    out
}

fn attribute(name: &str, value: &str) -> Vec<u8> {
    message(&[(1, name.as_bytes()), (2, &message(&[(1, value.as_bytes())]))])
}

fn put_fixed(out: &mut Vec<u8>, field: u32, bits: u64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&bits.to_le_bytes());
}

fn point(value: f64) -> Vec<u8> {
    let mut out = message(&[(7, &attribute("http.route", "/a"))]);
    put_fixed(&mut out, 3, AT_NS);
    put_double(&mut out, 4, value);
    out
}

fn request(metrics: &[Vec<u8>]) -> Vec<u8> {
    let resource = message(&[
        (1, &attribute("service.name", "web")),
        (1, &attribute("service.instance.id", "web-1")),
    ]);
    let metrics: Vec<(u32, &[u8])> = metrics.iter().map(|metric| (2, metric.as_slice())).collect();
    message(&[(1, &message(&[(2, &message(&metrics)), (1, &resource)]))])
}

fn series(translated: &Translated) -> Vec<(String, f64)> {
    let mut all = Vec::new();
    read(Version::V1, &translated.message, |view, _| {
        view.check().unwrap();
        assert_eq!(view.label("service"), Some("web"));
        assert_eq!(view.label("instance"), Some("web-1"));
        assert_eq!(view.samples[0].at_ms, 1_700_000_000_123);
        let le = view.label("le").or_else(|| view.label("quantile"));
        let le = le.map(|le| format!(" {le}")).unwrap_or_default();
        all.push((format!("{}{le}", view.name()), view.samples[0].value));
    })
    .unwrap();
    all
}

fn sum(temporality: u64) -> Vec<u8> {
    let mut sum = message(&[(1, &point(7.0))]);
    put_number(&mut sum, 2, temporality);
    put_number(&mut sum, 3, 1);
    message(&[(1, b"http.requests"), (7, &sum)])
}

#[test]
fn gauges_sums_and_histograms_become_series() {
    let gauge = message(&[(1, b"process.memory"), (5, &message(&[(1, &point(64.5))]))]);
    let mut bars = point(0.0)[..0].to_vec();
    put_fixed(&mut bars, 3, AT_NS);
    put_fixed(&mut bars, 4, 10);
    put_double(&mut bars, 5, 2.5);
    let packed =
        |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    put_bytes(&mut bars, 6, &packed(&[4, 5, 1]));
    put_bytes(&mut bars, 7, &packed(&[0.1_f64.to_bits(), 0.5_f64.to_bits()]));
    let mut histogram = message(&[(1, &bars)]);
    put_number(&mut histogram, 2, 2);
    let histogram = message(&[(1, b"latency"), (9, &histogram)]);
    let translated = translate(&request(&[gauge, sum(2), histogram]), true).unwrap();
    let expected = [
        ("process_memory", 64.5),
        ("http_requests", 7.0),
        ("latency_count", 10.0),
        ("latency_sum", 2.5),
        ("latency_bucket 0.1", 4.0),
        ("latency_bucket 0.5", 9.0),
        ("latency_bucket +Inf", 10.0),
    ];
    let expected: Vec<(String, f64)> = expected.map(|(n, v)| (n.to_owned(), v)).to_vec();
    assert_eq!((series(&translated), translated.unread), (expected, 0));
}

#[test]
fn points_without_a_value_end_their_series_and_types_are_told() {
    let kinds = |metric: &[u8]| {
        let mut all = Vec::new();
        let translated = translate(&request(&[metric.to_vec()]), true).unwrap();
        read(Version::V1, &translated.message, |view, _| {
            view.check().unwrap();
            all.push((view.name().to_owned(), view.kind, view.samples[0].stale()));
        })
        .unwrap();
        all
    };
    let one = |name: &str, kind, stale| vec![(name.to_owned(), kind, stale)];
    let mut gone = point(0.0);
    put_number(&mut gone, 8, NO_VALUE_FLAG);
    let gauge = message(&[(1, b"mem"), (5, &message(&[(1, &gone)]))]);
    assert_eq!(kinds(&gauge), one("mem", Kind::Gauge, true));
    assert_eq!(kinds(&sum(2)), one("http_requests", Kind::Counter, false));
    let mut open = message(&[(1, &point(3.0))]);
    put_number(&mut open, 2, 2);
    let open = message(&[(1, b"open"), (7, &open)]);
    assert_eq!(kinds(&open), one("open", Kind::Gauge, false), "it may shrink");
    let mut bars = Vec::new();
    put_fixed(&mut bars, 3, AT_NS);
    put_bytes(&mut bars, 7, &0.5_f64.to_bits().to_le_bytes());
    put_number(&mut bars, 10, NO_VALUE_FLAG);
    let mut histogram = message(&[(1, &bars)]);
    put_number(&mut histogram, 2, 2);
    let ended = kinds(&message(&[(1, b"lat"), (9, &histogram)]));
    let names: Vec<&str> = ended.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(names, ["lat_count", "lat_sum", "lat_bucket", "lat_bucket"]);
    assert!(ended.iter().all(|(_, kind, stale)| *kind == Kind::Histogram && *stale));
}

fn kinds(translated: &Translated) -> Vec<Kind> {
    let mut all = Vec::new();
    read(Version::V1, &translated.message, |view, _| all.push(view.kind)).unwrap();
    all
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

/// Buckets from an offset on.
fn buckets(offset: i64, counts: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, 1, zigzag(offset));
    let mut packed = Vec::new();
    counts.iter().for_each(|count| put_varint(&mut packed, *count));
    put_bytes(&mut out, 2, &packed);
    out
}

fn exponential(temporality: u64, scale: i64, positive: &[u8], negative: &[u8]) -> Vec<u8> {
    let mut bars = Vec::new();
    put_fixed(&mut bars, 3, AT_NS);
    put_fixed(&mut bars, 4, 12);
    put_double(&mut bars, 5, 2.5);
    put_number(&mut bars, 6, zigzag(scale));
    put_fixed(&mut bars, 7, 3);
    put_bytes(&mut bars, 8, positive);
    put_bytes(&mut bars, 9, negative);
    let mut histogram = message(&[(1, &bars)]);
    put_number(&mut histogram, 2, temporality);
    message(&[(1, b"lat"), (10, &histogram)])
}

#[test]
fn deltas_are_increases_and_of_no_use_to_older_members() {
    let translated = translate(&request(&[sum(1)]), true).unwrap();
    assert_eq!(series(&translated), [("http_requests".to_owned(), 7.0)]);
    assert_eq!((kinds(&translated), translated.unread), (vec![Kind::Increase], 0));
    let translated = translate(&request(&[sum(1)]), false).unwrap();
    assert_eq!((translated.unread, translated.message.len()), (1, 0));
    // A change of what may shrink, and a sum that says nothing of the kind.
    let mut open = message(&[(1, &point(3.0))]);
    put_number(&mut open, 2, 1);
    let open = message(&[(1, b"open"), (7, &open)]);
    let translated = translate(&request(&[open, sum(0)]), true).unwrap();
    assert_eq!((translated.unread, translated.samples), (2, 0));
}

#[test]
fn exponential_histograms_become_buckets_of_their_own() {
    // At scale 3 two buckets each make one: 1 to 2^(1/8) .. 2^(3/8), and [-1, -2^(-1/8)) .
    let metric = exponential(2, 3, &buckets(0, &[1, 2, 0, 4]), &buckets(-1, &[1]));
    let translated = translate(&request(&[metric]), true).unwrap();
    let quarter = 0.25_f64.exp2();
    let expected = [
        ("lat_count".to_owned(), 12.0),
        ("lat_sum".to_owned(), 2.5),
        ("lat_bucket 0".to_owned(), 3.0),
        (format!("lat_bucket {quarter}"), 3.0),
        (format!("lat_bucket {}", 0.5_f64.exp2()), 4.0),
        (format!("lat_bucket -{}", (-0.25_f64).exp2()), 1.0),
        ("lat_bucket +Inf".to_owned(), 1.0),
    ];
    assert_eq!((series(&translated), translated.unread), (expected.to_vec(), 0));
    let (whole, bin) = (Kind::Histogram, Kind::Bin);
    assert_eq!(kinds(&translated), [whole, whole, bin, bin, bin, bin, bin]);
    let increases = exponential(1, 3, &buckets(0, &[1]), &[]);
    let translated = translate(&request(&[increases]), true).unwrap();
    let (whole, bin) = (Kind::Increase, Kind::BinIncrease);
    assert_eq!(kinds(&translated), [whole, whole, bin, bin, bin]);
    // More buckets than are held, and members that know none.
    let wide = exponential(2, 2, &buckets(-500, &vec![1; 1_000]), &[]);
    let translated = translate(&request(&[wide]), true).unwrap();
    assert_eq!((translated.samples, translated.unread), (0, 1));
    let metric = exponential(2, 3, &buckets(0, &[1]), &[]);
    let translated = translate(&request(&[metric]), false).unwrap();
    assert_eq!((translated.samples, translated.unread), (0, 1));
    // Coarse ones of a count that goes on would begin with what their neighbours held.
    for (temporality, expected) in [(2, (0, 1)), (1, (5, 0))] {
        let coarse = exponential(temporality, 1, &buckets(0, &[1]), &[]);
        let translated = translate(&request(&[coarse]), true).unwrap();
        assert_eq!((translated.samples, translated.unread), expected);
    }
    let fine = exponential(2, 20, &buckets(0, &vec![1; 500_000]), &[]);
    assert_eq!(translate(&request(&[fine]), true).unwrap().samples, 6);
}

#[test]
fn summaries_become_quantiles() {
    let mut told = Vec::new();
    put_fixed(&mut told, 3, AT_NS);
    put_fixed(&mut told, 4, 9);
    put_double(&mut told, 5, 4.5);
    let mut pair = Vec::new();
    put_double(&mut pair, 1, 0.99);
    put_double(&mut pair, 2, 0.25);
    put_bytes(&mut told, 6, &pair);
    let metric = message(&[(1, b"lat"), (11, &message(&[(1, &told)]))]);
    for increases in [true, false] {
        let translated = translate(&request(std::slice::from_ref(&metric)), increases).unwrap();
        let expected = [("lat_count", 9.0), ("lat_sum", 4.5), ("lat 0.99", 0.25)];
        let expected: Vec<(String, f64)> = expected.map(|(n, v)| (n.to_owned(), v)).to_vec();
        assert_eq!((series(&translated), translated.unread), (expected, 0));
    }
}

#[test]
fn gzip_is_opened_within_bounds() {
    let pack = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    assert_eq!(open(&pack(b"abc")).unwrap(), b"abc");
    assert!(matches!(open(b"abc"), Err(BadOtlp::Gzip(_))));
    assert_eq!(open(&pack(&vec![0; MESSAGE_BYTES_MAX + 1])), Err(BadOtlp::TooLarge));
}

#[test]
fn a_small_message_does_not_become_a_large_one() {
    let resource = attribute("long", &"x".repeat(2_000));
    let points: Vec<u8> = (0..20_000).flat_map(|_| message(&[(1, &[])])).collect();
    let metric = message(&[(1, b"m"), (5, &points)]);
    let body = message(&[(
        1,
        &message(&[(1, &message(&[(1, &resource)])), (2, &message(&[(2, &metric)]))]),
    )]);
    assert!(body.len() < 100_000);
    assert_eq!(translate(&body, true), Err(BadOtlp::TooMany));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..200, to in any::<u8>()) {
        prop_assert!(translate(&bytes, true).map_or(0, |t| t.samples) <= bytes.len());
        let bars = exponential(2, 3, &buckets(0, &[1, 2]), &buckets(-1, &[1]));
        let mut damaged = request(&[sum(2), sum(1), bars]);
        let at = at % damaged.len();
        damaged[at] = to;
        prop_assert!(translate(&damaged, true).map_or(0, |t| t.samples) <= damaged.len());
        prop_assert!(open(&bytes).map_or(0, |opened| opened.len()) <= MESSAGE_BYTES_MAX);
    }
}
