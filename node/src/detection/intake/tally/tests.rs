//! Tests of one instance's pushed series.
#![allow(clippy::unwrap_used)]

use medic_state::manifest::ServiceSpec;
use proptest::prelude::*;

use super::*;
use crate::detection::intake::sample::STALE_BITS;

const SPEC: &str = r#"
indicators:
  - {name: memory, source: {gauge: mem}}
  - {name: traffic, source: {rate: reqs}}
  - {name: error_rate, source: {ratio: {of: errs, to: reqs}}}
  - {name: latency, source: {quantile: {histogram: lat, q: 0.5}}}
"#;
const WALL: i64 = 1_700_000_000_000;

fn tally() -> Tally {
    let spec: ServiceSpec = serde_saphyr::from_str(SPEC).unwrap();
    Tally::new(Arc::new(Indicators::of(&spec)), at(0))
}

fn at(second: u64) -> Moment {
    Moment { mono_ms: second * 1_000, wall_ms: WALL + second as i64 * 1_000 }
}

fn series(tally: &mut Tally, name: &str, parts: &[(u16, Part)]) -> usize {
    tally.put(Held::new(name.as_bytes(), 0, parts.into(), at(0))) as usize
}

fn sample(second: u64, value: f64) -> Sample {
    Sample { at_ms: WALL + second as i64 * 1_000, value }
}

/// Deltas: each is an increase, and is known by its time when it comes again.
#[test]
fn increases_add_up_and_count_once() {
    let mut all = tally();
    let reqs = series(&mut all, "reqs", &[(1, Part::Of)]);
    let told = |all: &mut Tally| all.series[reqs].as_mut().unwrap().told_kind(Kind::Increase);
    let mut offer = |second, value| {
        assert!(!told(&mut all));
        let offered = all.offer(reqs, sample(second, value), at(second));
        (offered, all.values(second * 1_000 + 500).and_then(|v| v.values.get("traffic").copied()))
    };
    assert_eq!(offer(0, 50.0), (Offered::Taken, None));
    assert_eq!(offer(10, 30.0), (Offered::Taken, Some(3.0)));
    assert_eq!(offer(10, 30.0), (Offered::Duplicate, None));
    assert_eq!(offer(5, 9.0), (Offered::OutOfOrder, None));
    assert_eq!(offer(20, 20.0), (Offered::Taken, Some(2.0)), "smaller, and no restart");
    assert_eq!(offer(30, -1.0), (Offered::Negative, None));
    assert_eq!(offer(40, 0.0), (Offered::Taken, Some(0.0)));
    // The sender's clock is put back: what was counted stays counted.
    for second in 31..35 {
        assert_eq!(offer(second, 1.0).0, Offered::OutOfOrder);
    }
    assert_eq!(offer(35, 7.0).0, Offered::Taken);
    assert_eq!(offer(45, 20.0), (Offered::Taken, Some(2.0)));
    assert!(all.series[reqs].as_mut().unwrap().told_kind(Kind::Counter), "it is another now");
}

/// Exponential histograms: a bucket appears when something lies in it, and all below it stays what it was.
#[test]
fn bins_are_counted_by_themselves() {
    let mut all = tally();
    let mut bins = Vec::new();
    let mut values = None;
    let rounds: [&[(f64, f64)]; 12] = [
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6 + 90.0), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6 + 190.0), (8.0, 1.0), (f64::INFINITY, 0.0)],
        &[(1.0, 1e6 + 190.0), (8.0, 101.0), (f64::INFINITY, 0.0)],
    ];
    let mut medians = Vec::new();
    for (second, round) in (0..).step_by(15).zip(rounds) {
        for (bound, count) in round {
            let at_bound = bins.iter().position(|(known, _)| known == bound).unwrap_or_else(|| {
                let name = format!("lat {bound}");
                bins.push((*bound, series(&mut all, &name, &[(3, Part::Bucket(*bound))])));
                bins.len() - 1
            });
            let which = bins[at_bound].1;
            all.series[which].as_mut().unwrap().told_kind(Kind::Bin);
            assert_eq!(all.offer(which, sample(second, *count), at(second)), Offered::Taken);
        }
        values = all.values(second * 1_000 + 500);
        medians.push(values.as_ref().and_then(|v| v.values.get("latency").copied()));
    }
    assert!(values.is_some());
    assert_eq!(medians[9], Some(0.5), "half way through the first");
    let at_ten = medians[10].unwrap();
    assert!(at_ten < 1.0, "one slow one is no slow half: {at_ten}");
    assert_eq!(medians[11], Some(4.5), "all of them slow");
}

#[test]
fn series_add_up_once_it_is_quiet() {
    let mut all = tally();
    let mem = series(&mut all, "mem", &[(0, Part::Gauge)]);
    let other = series(&mut all, "mem2", &[(0, Part::Gauge)]);
    let reqs = series(&mut all, "reqs", &[(1, Part::Of), (2, Part::To)]);
    let errs = series(&mut all, "errs", &[(2, Part::Of)]);
    let low = series(&mut all, "lat1", &[(3, Part::Bucket(0.1))]);
    let high = series(&mut all, "lat2", &[(3, Part::Bucket(f64::INFINITY))]);
    for (second, [m, n, r, e, l, h]) in
        [(0, [5.0, 2.0, 100.0, 1.0, 10.0, 20.0]), (15, [6.0, 2.0, 400.0, 31.0, 40.0, 80.0])]
    {
        for (which, value) in [(mem, m), (other, n), (reqs, r), (errs, e), (low, l), (high, h)] {
            assert_eq!(all.offer(which, sample(second, value), at(second)), Offered::Taken);
        }
        assert_eq!(all.values(second * 1_000 + 499), None, "not while it comes in");
        let values = all.values(second * 1_000 + 500).unwrap();
        assert_eq!(all.values(second * 1_000 + 600), None, "no news");
        if second == 0 {
            assert_eq!(values.values.keys().collect::<Vec<_>>(), ["memory"]);
            assert_eq!(values.missing["traffic"], "needs a second sample");
        } else {
            let got: Vec<f64> =
                ["memory", "traffic", "error_rate"].iter().map(|n| values.values[*n]).collect();
            assert_eq!(got, [8.0, 20.0, 0.1]);
            assert_eq!(values.values["latency"], 0.1);
        }
    }
    // A stream that never pauses is added up all the same.
    for tick in 0..50 {
        let moment = Moment { mono_ms: 30_000 + tick * 100, wall_ms: WALL + 30_000 };
        all.offer(mem, Sample { at_ms: WALL + 30_000 + tick as i64, value: 1.0 }, moment);
    }
    assert!(all.values(35_000).is_some());
}

#[test]
fn what_comes_twice_late_or_mad_is_told_apart() {
    let mut all = tally();
    let mem = series(&mut all, "mem", &[(0, Part::Gauge)]);
    let reqs = series(&mut all, "reqs", &[(1, Part::Of)]);
    let now = at(100);
    let cases = [
        (mem, sample(100, 1.0), Offered::Taken),
        (mem, sample(100, 1.0), Offered::Duplicate),
        (mem, sample(100, 2.0), Offered::OutOfOrder),
        (mem, sample(99, 1.0), Offered::OutOfOrder),
        (mem, sample(101, f64::NAN), Offered::NotFinite),
        (mem, sample(101, f64::NEG_INFINITY), Offered::NotFinite),
        (mem, sample(101, -5.0), Offered::Taken),
        (mem, Sample { at_ms: i64::MAX, value: 1.0 }, Offered::TooNew),
        (mem, Sample { at_ms: i64::MIN, value: 1.0 }, Offered::TooOld),
        (mem, Sample { at_ms: WALL - 4_000_000, value: 1.0 }, Offered::TooOld),
        (reqs, sample(100, -1.0), Offered::Negative),
        (reqs, sample(100, 7.0), Offered::Taken),
        (reqs, sample(101, f64::from_bits(STALE_BITS)), Offered::Ended),
    ];
    for (which, sample, expected) in cases {
        assert_eq!(all.offer(which, sample, now), expected, "{sample:?}");
    }
    let values = all.values(101_000).unwrap();
    assert_eq!(values.values["memory"], -5.0);
    assert_eq!(values.missing["traffic"], "no pushed series matches", "it has ended");
}

#[test]
fn counters_that_reset_appear_or_change_type_have_no_false_increase() {
    let mut all = tally();
    let one = series(&mut all, "reqs1", &[(1, Part::Of)]);
    let rate =
        |all: &mut Tally, second: u64| all.values(second * 1_000 + 500).unwrap().values["traffic"];
    all.offer(one, sample(0, 1_000.0), at(0));
    all.values(500).unwrap();
    all.offer(one, sample(10, 50.0), at(10));
    assert_eq!(rate(&mut all, 10), 5.0, "a reset counts from zero");
    // A second series that is merely late counts nothing at first,
    let two = series(&mut all, "reqs2", &[(1, Part::Of)]);
    all.offer(one, sample(20, 60.0), at(20));
    all.offer(two, sample(20, 9_000.0), at(20));
    assert_eq!(rate(&mut all, 20), 1.0);
    // one that is born later does.
    let three = series(&mut all, "reqs3", &[(1, Part::Of)]);
    all.offer(three, sample(200, 90.0), at(200));
    assert_eq!(rate(&mut all, 200), 0.5);
    let held = all.series[one].as_mut().unwrap();
    assert!(!held.told_kind(Kind::Counter));
    assert!(held.told_kind(Kind::Gauge));
    all.offer(one, sample(210, 5_000.0), at(210));
    assert!(rate(&mut all, 210) < 501.0);
}

#[test]
fn a_clock_put_back_is_followed_after_a_few_samples() {
    let mut all = tally();
    let mem = series(&mut all, "mem", &[(0, Part::Gauge)]);
    all.offer(mem, sample(500, 1.0), at(0));
    let mut seen = Vec::new();
    for second in 1..=6 {
        seen.push(all.offer(mem, sample(second, 2.0), at(second)));
    }
    assert_eq!(seen[..4], [Offered::OutOfOrder; 4]);
    assert_eq!(seen[4..], [Offered::Taken; 2]);
    assert_eq!(all.values(7_000).unwrap().values["memory"], 2.0);
}

/// Late ones that are never taken neither count towards a clock put back nor cost a counter its base.
#[test]
fn any_number_of_late_samples_that_are_none_moves_nothing() {
    let mut all = tally();
    let reqs = series(&mut all, "reqs", &[(1, Part::Of)]);
    all.offer(reqs, sample(1_000, 50.0), at(1_000));
    all.values(1_000_500).unwrap();
    for n in 1..=600 {
        assert_eq!(all.offer(reqs, sample(n, f64::NAN), at(1_000)), Offered::NotFinite);
        assert_eq!(all.offer(reqs, sample(n, -1.0), at(1_000)), Offered::Negative);
    }
    all.offer(reqs, sample(1_010, 60.0), at(1_010));
    assert_eq!(all.values(1_010_500).unwrap().values["traffic"], 1.0);
}

#[test]
fn silent_series_are_not_counted() {
    let mut all = tally();
    let (one, two) = (
        series(&mut all, "mem", &[(0, Part::Gauge)]),
        series(&mut all, "mem2", &[(0, Part::Gauge)]),
    );
    all.offer(one, sample(0, 1.0), at(0));
    all.offer(two, sample(0, 2.0), at(0));
    assert_eq!(all.values(500).unwrap().values["memory"], 3.0);
    all.offer(two, sample(301, 2.0), at(301));
    assert_eq!(all.values(301_500).unwrap().values["memory"], 2.0);
}

proptest! {
    #[test]
    fn whatever_comes_values_are_finite_and_rates_not_negative(
        samples in proptest::collection::vec((0_usize..4, -2_000_i64..2_000, any::<f64>()), 1..200),
    ) {
        let mut all = tally();
        let which = [
            series(&mut all, "mem", &[(0, Part::Gauge)]),
            series(&mut all, "reqs", &[(1, Part::Of), (2, Part::To)]),
            series(&mut all, "errs", &[(2, Part::Of)]),
            series(&mut all, "lat", &[(3, Part::Bucket(f64::INFINITY))]),
        ];
        for (n, (series, second, value)) in samples.iter().enumerate() {
            let sample = Sample { at_ms: WALL + second * 1_000, value: *value };
            all.offer(which[*series], sample, at(n as u64));
            if let Some(values) = all.values(n as u64 * 1_000 + 500) {
                prop_assert!(values.values.values().all(|value| value.is_finite()));
                prop_assert!(values.values.get("traffic").is_none_or(|rate| *rate >= 0.0));
            }
        }
    }
}
