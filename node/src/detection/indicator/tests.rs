//! Indicators from scraped samples, good and bad.
#![allow(clippy::unwrap_used)]

use super::{super::exposition::parse, *};

fn service(indicators: &str) -> ServiceSpec {
    serde_json::from_str(&format!("{{\"indicators\":[{indicators}]}}")).unwrap()
}

/// Computes over several scrapes, a second apart; gives what each gave.
fn compute(indicators: &str, bodies: &[&str]) -> Vec<Values> {
    let all = Indicators::of(&service(indicators));
    let mut counters = None;
    bodies
        .iter()
        .zip(1_u64..)
        .map(|(body, second)| {
            let read = parse(body, |name| all.wants(name)).unwrap();
            all.compute(&read, Duration::from_secs(second), &mut counters)
        })
        .collect()
}

#[test]
fn gauges_are_summed_at_once() {
    let got = compute(
        r#"{"name":"m","source":{"gauge":"mem{kind=\"a\"}"}},{"name":"none","source":{"gauge":"absent"}}"#,
        &["mem{kind=\"a\",x=\"1\"} 3\nmem{kind=\"a\",x=\"2\"} 4\nmem{kind=\"b\"} 100\n"],
    );
    assert_eq!(got[0].values, BTreeMap::from([("m".to_owned(), 7.0)]));
    assert_eq!(got[0].missing["none"], "no series matches");
}

#[test]
fn not_a_number_is_no_data() {
    let got = compute(r#"{"name":"m","source":{"gauge":"g"}}"#, &["g NaN\n", "g +Inf\n"]);
    assert!(got[0].values.is_empty() && got[1].values.is_empty());
    assert_eq!(got[0].missing["m"], counted::NOT_A_NUMBER);
}

#[test]
fn counters_below_zero_are_no_measurements_and_are_counted() {
    let all = Indicators::of(&service(r#"{"name":"r","source":{"rate":"c"}}"#));
    let mut counters = None;
    let mut rates = Vec::new();
    for (second, body) in (1..).zip(["c 100\n", "c -5\nc{a=\"1\"} +Inf\n", "c 110\n"]) {
        let read = parse(body, |name| all.wants(name)).unwrap();
        let values = all.compute(&read, Duration::from_secs(second), &mut counters).values;
        rates.push((values.get("r").copied(), counters.as_ref().map_or(0, Counters::negative)));
    }
    assert_eq!(rates, [(None, 0), (Some(0.0), 1), (Some(10.0), 0)]);
}

#[test]
fn rates_need_two_scrapes_and_survive_resets_and_new_series() {
    let got = compute(
        r#"{"name":"r","source":{"rate":"c"}}"#,
        &["c 100\n", "c 110\n", "c 5\n", "c 5\nc{code=\"500\"} 7\n"],
    );
    assert!(got[0].values.is_empty());
    let rates: Vec<f64> = got[1..].iter().map(|values| values.values["r"]).collect();
    assert_eq!(rates, [10.0, 5.0, 7.0]);
}

#[test]
fn what_a_torn_scrape_left_out_goes_on_from_what_it_was_and_what_has_ended_from_zero() {
    let indicator = r#"{"name":"r","source":{"rate":"c"}}"#;
    let rates = |bodies: &[&str]| -> Vec<f64> {
        compute(indicator, bodies)[1..].iter().map(|values| values.values["r"]).collect()
    };
    let (whole, torn) = ("c{a=\"1\"} 10\nc{a=\"2\"} 5000\n", "c{a=\"1\"} 10\n");
    let after = "c{a=\"1\"} 10\nc{a=\"2\"} 5003\n";
    assert_eq!(rates(&[whole, torn, after]), [0.0, 3.0]);
    let mut bodies = vec![whole];
    bodies.resize(usize::from(LEFT_OUT_MAX) + 1, torn);
    bodies.push(after);
    assert_eq!(rates(&bodies).last(), Some(&3.0), "left out as often as is forgiven");
    // A process that began anew counts from zero, whatever the one before had.
    let reset = "c{a=\"1\"} 1\n";
    assert_eq!(rates(&[whole, reset, "c{a=\"1\"} 1\nc{a=\"2\"} 5100\n"]), [1.0, 5_100.0]);
    bodies.insert(1, torn);
    assert_eq!(rates(&bodies).last(), Some(&5_003.0), "it has ended, and begins anew");
}

#[test]
fn counters_that_are_others_at_each_scrape_are_remembered_within_bounds() {
    let all = Indicators::of(&service(r#"{"name":"r","source":{"rate":"c"}}"#));
    let mut counters = None;
    for second in 1..=20_u64 {
        let body: String = (0..1_000).map(|n| format!("c{{n=\"{second}-{n}\"}} 1\n")).collect();
        let read = parse(&body, |name| all.wants(name)).unwrap();
        let _ = all.compute(&read, Duration::from_secs(second), &mut counters);
        let remembered = counters.as_ref().map_or(0, |counters| counters.left_out.len());
        assert!(remembered <= REMEMBERED_MAX, "{remembered}");
    }
}

#[test]
fn ratios_say_nothing_when_nothing_was_counted() {
    let got = compute(
        r#"{"name":"error_rate","source":{"ratio":{"of":"req{code=~\"5..\"}","to":"req"}}}"#,
        &[
            "req{code=\"200\"} 10\n",
            "req{code=\"200\"} 16\nreq{code=\"503\"} 2\n",
            "req{code=\"200\"} 16\nreq{code=\"503\"} 2\n",
        ],
    );
    assert_eq!(got[1].values["error_rate"], 0.25);
    assert!(got[2].values.is_empty());
}

#[test]
fn quantiles_interpolate_as_prometheus_does() {
    let body = |a: u32, b: u32, all: u32| {
        format!(
            "d_bucket{{le=\"0.1\"}} {a}\nd_bucket{{le=\"0.5\"}} {b}\nd_bucket{{le=\"+Inf\"}} {all}\nd_count {all}\n"
        )
    };
    let first = body(100, 100, 100);
    let got = compute(
        r#"{"name":"p50","source":{"quantile":{"histogram":"d","q":0.5}}},{"name":"p99","source":{"quantile":{"histogram":"d","q":0.99}}}"#,
        &[&first, &body(100, 110, 110), &body(100, 110, 120), &body(100, 110, 120)],
    );
    // Ten observations in (0.1, 0.5]: the median in the middle of the bucket.
    assert!((got[1].values["p50"] - 0.3).abs() < 1e-9);
    // Ten beyond 0.5: the highest finite bound.
    assert_eq!(got[2].values["p99"], 0.5);
    assert_eq!(got[3].missing["p50"], "nothing was observed since the last scrape");
}

#[test]
fn quantities_are_read_with_their_units() {
    for (text, value) in [
        ("0.05", 0.05),
        ("80%", 0.8),
        ("64MiB", 67_108_864.0),
        ("1.5 GB", 1.5e9),
        ("250ms", 0.25),
        ("2s", 2.0),
        ("1e6", 1e6),
    ] {
        assert_eq!(parse_quantity(text), Ok(value), "{text}");
    }
    for text in ["", "x", "MiB", "-1", "NaN", "inf", "1 2", "1e308GB"] {
        assert!(parse_quantity(text).is_err(), "{text}");
    }
    let bad = Indicators::of(&service(
        r#"{"name":"a","source":{"gauge":"x{"}},{"name":"b","source":{"gauge":"x"},"limit":"lots"}"#,
    ));
    assert_eq!((bad.list.len(), bad.errors.len()), (0, 2));
}
