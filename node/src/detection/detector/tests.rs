//! Detectors on synthetic, seeded series.
#![allow(clippy::unwrap_used)]

use medic_raft::env::{Entropy as _, RngEntropy};
use medic_state::manifest::ServiceSpec;

use super::*;
use crate::detection::counted::{Measured, share};

const MIB: f64 = 1_048_576.0;
const SETTLED: Moment = Moment { settled: true, suspect: false, treated: false };

/// Seeded noise.
struct Noise(RngEntropy);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(RngEntropy::seeded(seed))
    }

    fn uniform(&self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal (Box–Muller).
    fn normal(&self) -> f64 {
        let radius = (-2.0 * self.uniform().max(1e-300).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

const TUNING: Tuning = Tuning {
    scale_min: 1e-3,
    scale_min_share: 0.05,
    upward_only: true,
    eager: Eager { level: 0.0, cusum: 0.0 },
};

/// Share of points at which the detector is not content.
fn alarm_share(points: impl Iterator<Item = f64>) -> f64 {
    let mut level = Level::default();
    let (mut alarms, mut all) = (0_u32, 0_u32);
    for value in points {
        let judged = level.update(Measured::exact(value), &TUNING, Example::Usual);
        all += u32::from(judged.warm);
        alarms += u32::from(judged.streak >= 2 || judged.shifted);
    }
    f64::from(alarms) / f64::from(all)
}

#[test]
fn noise_and_daily_cycles_are_usual() {
    let noise = Noise::new(1);
    let day = 17_280.0;
    for (name, spread) in [("little", 1.0), ("more", 5.0), ("much", 20.0)] {
        let flat = alarm_share((0..50_000).map(|_| 100.0 + spread * noise.normal()));
        assert!(flat < 1e-3, "{name} noise: {flat}");
        let cycle = alarm_share((0..50_000).map(|i| {
            200.0
                + 100.0 * (f64::from(i) / day * std::f64::consts::TAU).sin()
                + spread * noise.normal()
        }));
        assert!(cycle < 1e-3, "{name} noise on a daily cycle: {cycle}");
    }
    // Heavy tails: one value in fifty is three times as far out.
    let heavy = alarm_share(
        (0..50_000).map(|i| 100.0 + if i % 50 == 0 { 15.0 } else { 5.0 } * noise.normal()),
    );
    assert!(heavy < 1e-3, "heavy tails: {heavy}");
}

#[test]
fn a_level_shift_is_seen_and_not_learned_until_it_has_lasted() {
    let noise = Noise::new(2);
    let mut level = Level::default();
    for _ in 0..200 {
        level.update(Measured::exact(100.0 + 5.0 * noise.normal()), &TUNING, Example::Usual);
    }
    let mut streak = 0;
    for i in 0..100 {
        let judged =
            level.update(Measured::exact(160.0 + 5.0 * noise.normal()), &TUNING, Example::Usual);
        assert!((90.0..115.0).contains(&judged.expected), "learned at {i}: {judged:?}");
        streak = judged.streak;
        assert!(i < 1 || judged.streak >= 2, "{judged:?}");
    }
    assert_eq!(streak, 100);
    let accepted = (0..400).any(|_| {
        level.update(Measured::exact(160.0 + 5.0 * noise.normal()), &TUNING, Example::Usual).usual()
    });
    assert!(accepted, "a shift of half an hour is the new normal");
}

#[test]
fn a_small_lasting_shift_is_seen_by_its_sum() {
    let noise = Noise::new(3);
    let mut level = Level::default();
    for _ in 0..300 {
        level.update(Measured::exact(100.0 + 10.0 * noise.normal()), &TUNING, Example::Usual);
    }
    let seen = (0..40).position(|_| {
        level
            .update(Measured::exact(125.0 + 10.0 * noise.normal()), &TUNING, Example::Usual)
            .shifted
    });
    assert!(seen.is_some_and(|at| at <= 20), "{seen:?}");
}

#[test]
fn tails_and_lines_follow_their_formulas() {
    // Table values of Student's t with 4 degrees of freedom.
    for (t, p) in [(0.0, 0.5), (2.132, 0.05), (3.747, 0.01), (7.173, 0.001)] {
        assert!((student_t4_tail(t) - p).abs() < 2e-4, "{t}");
    }
    assert!(student_t4_tail(999.0) / student_t4_tail(1001.0) < 1.1);
    let line: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), 3.0 + 2.0 * f64::from(i))).collect();
    let fit = theil_sen(&line).unwrap();
    assert!((fit.slope - 2.0).abs() < 1e-12 && (fit.last - 21.0).abs() < 1e-12);
    // S = 45, Var = 125: z = 44 / 11.18 = 3.935.
    assert!((fit.p_up - 4.15e-5).abs() < 1e-6, "{}", fit.p_up);
    let flat: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), f64::from(i % 2))).collect();
    let fit = theil_sen(&flat).unwrap();
    assert!(fit.slope_low <= 0.0 && fit.p_up > 0.01);
}

/// Feeds a trend once a second; gives the second of the first prediction and the prediction.
fn first_prediction(points: impl Iterator<Item = f64>, limit: f64) -> Option<(usize, Prediction)> {
    let mut trend = Trend::default();
    points.enumerate().find_map(|(second, value)| {
        let at_ms = second as u64 * 1000;
        let found = trend.update(at_ms, value, limit, 600.0, at_ms >= SETTLE_MS);
        found.map(|prediction| (second, prediction))
    })
}

#[test]
fn a_leak_is_predicted_early_and_its_time_is_right() {
    for (seed, rate) in [(4, 1.0), (5, 1.5), (6, 2.0), (7, 1.0), (8, 2.0)] {
        let noise = Noise::new(seed);
        let leak_from = 40;
        let memory = |second: i32| {
            let leaked = f64::from((second - leak_from).max(0)) * rate;
            (20.0 + leaked + 0.3 * noise.normal()) * MIB
        };
        let limit = 128.0 * MIB;
        let (second, prediction) = first_prediction((0..160).map(memory), limit).unwrap();
        let after = second as i32 - leak_from;
        assert!(
            (1..=15).contains(&after),
            "predicted {after} s after a leak of {rate} MiB/s began"
        );
        let truth = (128.0 - 20.0) / rate - f64::from(after);
        let error = (prediction.seconds - truth).abs() / truth;
        // The very first prediction still sees some of the flat time before.
        assert!(error < 0.5, "{rate} MiB/s: {} s instead of {truth} s", prediction.seconds);
        let mut trend = Trend::default();
        let mut last = None;
        for second in 0..(leak_from + 25) {
            let at_ms = second as u64 * 1000;
            last = trend.update(at_ms, memory(second), limit, 600.0, at_ms >= SETTLE_MS);
        }
        let truth = (128.0 - 20.0) / rate - 24.0;
        let prediction = last.unwrap();
        let error = (prediction.seconds - truth).abs() / truth;
        assert!(error < 0.2, "{rate} MiB/s: {} s instead of {truth} s", prediction.seconds);
        assert!(
            prediction.earliest <= prediction.seconds && prediction.seconds <= prediction.latest
        );
    }
}

#[test]
fn a_slow_leak_is_predicted_from_the_slow_ring() {
    let noise = Noise::new(9);
    // 0.1 MiB/s with noise that hides it within seconds: the limit is 1,080 s away at first.
    let memory = (0..1_100).map(|i| (20.0 + 0.1 * f64::from(i) + 2.0 * noise.normal()) * MIB);
    let (second, prediction) = first_prediction(memory, 128.0 * MIB).unwrap();
    let truth = 1_080.0 - second as f64;
    assert!(truth > 60.0, "only {truth} s before the limit");
    assert!((prediction.seconds - truth).abs() / truth < 0.35, "{prediction:?} but {truth}");
}

#[test]
fn what_is_no_leak_is_not_predicted() {
    let limit = 128.0 * MIB;
    // A fresh process fills its caches for 20 s, then stays.
    let warm_up = (0..600).map(|i| (5.0 + 60.0 * (1.0 - (-f64::from(i) / 6.0).exp())) * MIB);
    assert_eq!(first_prediction(warm_up, limit), None);
    for seed in 10..30 {
        let noise = Noise::new(seed);
        let flat = (0..2_000).map(|_| (60.0 + 3.0 * noise.normal()) * MIB);
        assert_eq!(first_prediction(flat, limit), None, "noise, seed {seed}");
        // Garbage collection: up for 40 s, down at once. The first ramp may look like a leak; the
        // ones after a descent may not.
        let mut trend = Trend::default();
        let mut late = 0;
        for second in 0..1_000_u64 {
            let value = (30.0 + (second % 40) as f64 + 0.2 * noise.normal()) * MIB;
            let found = trend.update(second * 1000, value, limit, 600.0, second >= 15);
            late += u32::from(found.is_some() && second > 60);
        }
        assert!(late <= 2, "a saw was predicted {late} times, seed {seed}");
    }
}

#[test]
fn the_state_travels_and_stays_small() {
    let service: ServiceSpec = serde_json::from_str(
        r#"{"indicators":[{"name":"memory","source":{"gauge":"rss"},"limit":"128MiB"}]}"#,
    )
    .unwrap();
    let mut series = Series::new(&service.indicators[0], &service);
    let noise = Noise::new(31);
    for second in 0..500_u64 {
        series.update(
            second * 1000,
            Measured::exact((60.0 + noise.normal()) * MIB),
            600.0,
            SETTLED,
        );
    }
    let bytes = medic_state::codec::encode(&series.state);
    assert!(bytes.len() <= 1024, "{} bytes", bytes.len());
    let mut copy = Series::new(&service.indicators[0], &service);
    copy.state = medic_state::codec::decode(&bytes).unwrap();
    for second in 500..600_u64 {
        let value = (60.0 + noise.normal()) * MIB;
        series.update(second * 1000, Measured::exact(value), 600.0, SETTLED);
        copy.update(second * 1000, Measured::exact(value), 600.0, SETTLED);
        assert_eq!(series.last, copy.last);
    }
}

#[test]
fn an_error_burst_is_certain_within_two_values() {
    let service: ServiceSpec = serde_json::from_str(
        r#"{"indicators":[{"name":"error_rate","source":{"ratio":{"of":"e","to":"r"}}}]}"#,
    )
    .unwrap();
    let mut series = Series::new(&service.indicators[0], &service);
    for i in 0..50 {
        series.update(i * 1000, Measured::exact(0.0), 600.0, SETTLED);
    }
    // One failure among few requests is odd and does not matter.
    series.update(50_000, Measured::exact(0.015), 600.0, SETTLED);
    assert!(series.good > 0);
    series.update(51_000, Measured::exact(0.3), 600.0, SETTLED);
    series.update(52_000, Measured::exact(0.4), 600.0, SETTLED);
    let reading = series.last.clone().unwrap();
    assert!(reading.matters && reading.judged.streak == 2 && reading.judged.p_value < 1e-6);
    assert_eq!(series.good, 0);
    for i in 53..56 {
        series.update(i * 1000, Measured::exact(0.0), 600.0, Moment { suspect: true, ..SETTLED });
    }
    assert_eq!(series.good, GOOD_AFTER);
}

#[test]
fn one_failure_of_few_requests_is_neither_odd_nor_beyond_the_limit() {
    let service: ServiceSpec = serde_json::from_str(
        r#"{"indicators":[{"name":"error_rate","source":{"ratio":{"of":"e","to":"r"}},"limit":"0.05"}]}"#,
    )
    .unwrap();
    let mut series = Series::new(&service.indicators[0], &service);
    let mut second = 0;
    let mut scrape = |series: &mut Series, of: f64, requests: f64| {
        second += 1;
        series.update(second * 1000, share(of, requests).unwrap(), 600.0, SETTLED);
        series.last.clone().unwrap()
    };
    for _ in 0..60 {
        scrape(&mut series, 0.0, 11.0);
    }
    for _ in 0..2 {
        let reading = scrape(&mut series, 1.0, 11.0);
        assert!(!reading.crossed && reading.judged.usual(), "{reading:?}");
        assert_eq!(series.good, GOOD_AFTER.max(series.good), "and it counts as good");
    }
    // The same share of many is a fault, and so is most of few.
    let mut other = series.clone();
    for _ in 0..2 {
        scrape(&mut other, 1_000.0, 11_000.0);
        scrape(&mut series, 6.0, 11.0);
    }
    for series in [series, other] {
        let reading = series.last.unwrap();
        assert!(reading.crossed && reading.judged.streak == 2, "{reading:?}");
    }
}

#[test]
fn a_second_value_of_few_events_confirms_a_limit_that_a_first_has_proved_crossed() {
    let of = |failed: f64, requests: f64| share(failed, requests).unwrap();
    let mut limit = Limit::default();
    let [proven, hint, fine] = [of(12.0, 25.0), of(2.0, 5.0), of(0.0, 5.0)];
    assert!(hint.value > 0.2 && hint.at_least < 0.2 && proven.at_least > 0.2);
    assert!((0..9).all(|_| !limit.update(hint, 0.2)), "hints alone prove nothing");
    assert!(!limit.update(proven, 0.2) && limit.update(hint, 0.2));
    assert!(!limit.update(fine, 0.2) && !limit.update(hint, 0.2));
}

/// Share of values at which the level detector begins to speak with a p-value of at most `rate`.
fn spoken(rate: f64, values: impl Iterator<Item = f64>) -> f64 {
    let mut level = Level::default();
    let (mut begun, mut all, mut speaks) = (0_u32, 0_u32, false);
    for value in values {
        let judged = level.update(Measured::exact(value), &TUNING, Example::Usual);
        let low = !judged.usual() && judged.p_value <= rate;
        begun += u32::from(low && !speaks && judged.warm);
        all += u32::from(judged.warm);
        speaks = low;
    }
    f64::from(begun) / f64::from(all)
}

#[test]
fn a_stated_rate_holds_for_noise_that_no_model_was_made_for() {
    let rows = 40_000_u32;
    type Values = Box<dyn FnMut(u32) -> f64>;
    let noises: [(&str, Values); 4] = [
        ("normal", {
            let noise = Noise::new(20);
            Box::new(move |_| 100.0 + 5.0 * noise.normal())
        }),
        ("Cauchy", {
            let noise = Noise::new(21);
            Box::new(move |_| 100.0 + 5.0 * noise.normal() / noise.normal())
        }),
        ("bursts of three", {
            let noise = Noise::new(22);
            let mut left = 0;
            Box::new(move |_| {
                left = if left > 0 { left - 1 } else { 3 * u32::from(noise.uniform() < 0.01) };
                100.0 + 5.0 * noise.normal() + if left > 0 { 80.0 } else { 0.0 }
            })
        }),
        ("autocorrelated", {
            let noise = Noise::new(23);
            let mut at = 0.0;
            Box::new(move |_| {
                at = 0.95 * at + 5.0 * noise.normal();
                100.0 + at
            })
        }),
    ];
    for (name, mut value) in noises {
        let values: Vec<f64> = (0..rows).map(&mut value).collect();
        for rate in [0.01, 0.001] {
            let found = spoken(rate, values.iter().copied());
            assert!(found <= 1.5 * rate + 10.0 / f64::from(rows), "{name}: {found} at {rate}");
        }
    }
}
