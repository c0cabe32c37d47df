//! The panel on synthetic, seeded rows.
#![allow(clippy::unwrap_used)]

mod lone;

use medic_raft::env::{Entropy as _, RngEntropy};

use super::*;

struct Noise(RngEntropy);

impl Noise {
    fn uniform(&self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn normal(&self) -> f64 {
        let radius = (-2.0 * self.uniform().max(1e-300).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

fn noise(seed: u64) -> Noise {
    Noise(RngEntropy::seeded(seed))
}

/// A value of a series at a row.
type Shape = fn(&Noise, u32) -> f64;

const MINUTE: i64 = 60_000;

#[test]
fn one_series_costs_what_was_promised() {
    let bytes = size_of::<Pulse>();
    assert!(bytes <= 512, "{bytes} B per series");
}

#[test]
fn usual_rows_are_seldom_told_of() {
    let shapes: [(&str, Shape); 5] = [
        ("normal", |noise, _| 100.0 + 5.0 * noise.normal()),
        ("cubed", |noise, _| 100.0 + noise.normal().powi(3)),
        ("exponential", |noise, _| -noise.uniform().max(1e-12).ln()),
        ("daily", |noise, row| {
            100.0 + 60.0 * (f64::from(row) / 1440.0 * std::f64::consts::TAU).sin() + noise.normal()
        }),
        ("flat", |_, _| 42.0),
    ];
    for (name, shape) in shapes {
        let (mut panel, noise) = (Panel::new(1), noise(7));
        let (mut alerts, mut news) = (0, 0);
        for row in 0..50_000_u32 {
            let at = i64::from(row) * MINUTE;
            let verdict = panel.update(Some(at), &[shape(&noise, row)]);
            alerts += u32::from(verdict.alert);
            news += u32::from(verdict.anomaly >= 0.5);
        }
        // At a stated rate of one in a thousand: told of at most twice that, begun at most that.
        assert!(alerts <= 100, "{name}: {alerts} of 50,000 rows");
        assert!(news <= 50, "{name}: {news} beginnings in 50,000 rows");
    }
}

#[test]
fn a_spike_is_told_at_once_and_a_lasting_shift_is_new_only_once() {
    let (mut panel, noise) = (Panel::new(1), noise(3));
    for row in 0..1_000 {
        panel.update(Some(row * MINUTE), &[10.0 + noise.normal()]);
    }
    let first = panel.update(Some(1_000 * MINUTE), &[60.0]);
    assert!(first.alert && first.anomaly > 0.5 && first.metric == Some(0), "{first:?}");
    let later: Vec<Verdict> = (1_001..1_010)
        .map(|row| panel.update(Some(row * MINUTE), &[60.0 + noise.normal()]))
        .collect();
    assert!(later.iter().all(|verdict| verdict.anomaly < 0.5), "{later:?}");
    assert!(later.iter().all(|verdict| verdict.alert), "{later:?}");
}

/// Three metrics that follow one load; `broken`: the third does not.
fn machine(noise: &Noise, row: u32, broken: bool) -> [f64; 3] {
    let load = 50.0 + 30.0 * (f64::from(row) / 700.0).sin() + 4.0 * noise.normal();
    let third = if broken { 100.0 - load } else { load };
    [load + noise.normal(), 2.0 * load + noise.normal(), third + noise.normal()]
}

#[test]
fn metrics_that_part_company_are_seen_though_each_is_usual() {
    let (mut panel, noise) = (Panel::new(3), noise(5));
    let mut worst = 0.0_f64;
    for row in 0..12_000 {
        let verdict = panel.update(None, &machine(&noise, row, false));
        worst = if row > 6_000 { worst.max(verdict.score) } else { 0.0 };
    }
    let broken: Vec<f64> =
        (12_000..12_300).map(|row| panel.update(None, &machine(&noise, row, true)).score).collect();
    let later = &broken[50..];
    let held = later.iter().filter(|score| **score > worst).count();
    assert!(held * 10 >= later.len() * 9, "above {worst} in {held} of {} rows", later.len());
    assert!(later.iter().any(|score| *score >= 1.0), "{later:?}");
}

#[test]
fn before_all_are_judged_together_each_speaks_for_itself() {
    let (mut panel, noise) = (Panel::new(3), noise(23));
    let mut alerts = 0;
    for row in 0..1_000 {
        alerts += u32::from(panel.update(None, &machine(&noise, row, false)).alert);
    }
    assert!(alerts <= 2, "{alerts} of 1,000 usual rows");
    let [load, _, third] = machine(&noise, 1_000, false);
    let verdict = panel.update(None, &[load, 900.0, third]);
    assert!(verdict.alert && verdict.metric == Some(1), "{verdict:?}");
}

#[test]
fn the_state_travels_and_holes_are_no_news() {
    let (mut panel, noise) = (Panel::new(3), noise(9));
    let row = |noise: &Noise, row: u32| {
        let mut values = machine(noise, row, false);
        if row.is_multiple_of(5) {
            values[1] = f64::NAN;
        }
        values
    };
    for at in 0..3_000 {
        panel.update(Some(i64::from(at) * MINUTE), &row(&noise, at));
    }
    let bytes = medic_state::codec::encode(&panel);
    assert!(bytes.len() < 16_384, "{} B for three metrics", bytes.len());
    let mut copy: Panel = medic_state::codec::decode(&bytes).unwrap();
    assert!(copy.fits(3) && !copy.fits(4));
    for at in 3_000..3_500 {
        let values = row(&noise, at);
        let now = Some(i64::from(at) * MINUTE);
        assert_eq!(panel.update(now, &values), copy.update(now, &values));
    }
}

#[test]
fn what_common_causes_explain_is_no_residual() {
    let (mut subspace, noise) = (subspace::Subspace::default(), noise(13));
    let widths = [100.0, 200.0, 100.0, 1.0];
    let row = |row: u32, broken: bool| {
        let [a, b, c] = machine(&noise, row, broken);
        [a as f32, b as f32, c as f32, 7.0]
    };
    let (mut usual, mut broken) = (0.0, 0.0);
    for at in 0..6_000 {
        let residual = subspace.update(&row(at, false), &widths);
        usual += if at >= 5_000 { residual / 1e3 } else { 0.0 };
    }
    // The load is far from its mean in these rows, which is what the third metric does not follow.
    for at in 6_200..6_300 {
        broken += subspace.update(&row(at, true), &widths) / 100.0;
    }
    assert!(broken > 3.0 * usual, "{usual} as usual, {broken} when one does not follow");
    assert_eq!(subspace.update(&[1.0], &[1.0]), 0.0, "another number of metrics begins anew");
}

#[test]
fn jumps_that_come_together_are_rarer_than_each() {
    let (mut jumps, noise) = (jumps::Jumps::new(3), noise(17));
    let widths = [10.0; 3];
    let row = || [0.0; 3].map(|_: f64| noise.normal() as f32);
    let (mut last, mut most) = (row(), 0.0_f64);
    for at in 0..5_000 {
        let next = row();
        let sum = jumps.update(&last, &next, &widths);
        most = if at > 2_000 { most.max(sum) } else { 0.0 };
        last = next;
    }
    let one = jumps.update(&last, &[last[0] + 9.0, last[1], last[2]], &widths);
    let all = jumps.update(&last, &last.map(|value| value + 9.0), &widths);
    assert!(one > 0.0 && all > 2.0 * one && all > most, "{one} of one, {all} of all, {most} usual");
}

#[test]
fn the_largest_numbers_there_are_leave_no_lasting_harm() {
    let (mut panel, noise) = (Panel::new(2), noise(19));
    let mut row = |at: i64, values: [f64; 2]| panel.update(Some(at * MINUTE), &values);
    for at in 0..3_000 {
        row(at, [10.0 + noise.normal(), 20.0 + noise.normal()]);
    }
    for (at, odd) in [f64::MAX, f64::MIN, 1e300, -1e300, f64::MIN_POSITIVE].into_iter().enumerate()
    {
        let verdict = row(3_000 + at as i64, [odd, -odd]);
        assert!(verdict.score.is_finite() && verdict.anomaly.is_finite(), "{odd}: {verdict:?}");
    }
    for at in 3_005..9_000 {
        let verdict = row(at, [10.0 + noise.normal(), 20.0 + noise.normal()]);
        assert!(verdict.score.is_finite() && verdict.p_value > 0.0, "{at}: {verdict:?}");
    }
    assert!(!row(9_000, [10.0, 20.0]).alert);
}
