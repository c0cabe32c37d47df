//! The second look at an only metric, on synthetic, seeded rows.

use super::noise;
use crate::detection::detector::panel::{
    Beat, GOES_ON_ROWS, LONE_TELLING, Panel, Pulse, REACH, REACH_TELLING, Verdict, lone::Lone,
};

const HOUR: i64 = 3_600_000;

/// Tier 0 and tier 2 over the same rows, one each hour.
#[derive(Default)]
struct Both {
    pulse: Pulse,
    lone: Lone,
}

impl Both {
    /// How far out by each, in units of what is worth telling.
    fn update(&mut self, row: u32, value: f64) -> (f64, f64) {
        let hour = Some((row % 24) as u8);
        let again = self.lone.update(value, self.pulse.profiled(hour), hour, &REACH);
        let Beat { reach, .. } = self.pulse.judge(value, hour);
        (reach / REACH_TELLING, again / LONE_TELLING)
    }
}

#[test]
fn an_hour_that_is_rough_every_day_is_no_news_and_the_same_at_another_hour_is() {
    let (mut first, mut second) = (0, 0);
    for seed in 0..10 {
        let (mut both, noise) = (Both::default(), noise(seed));
        let rough = |row: u32| {
            let spread = if row % 24 == 3 { 30.0 } else { 1.0 };
            100.0 + spread * noise.normal()
        };
        for row in 0..60 * 24 {
            let (reach, again) = both.update(row, rough(row));
            if row > 20 * 24 {
                first += u32::from(reach >= 1.0);
                second += u32::from(again >= 1.0);
            }
        }
        let mut last = 0.0;
        for row in 60 * 24..=60 * 24 + 12 {
            let value = if row % 24 == 12 { 200.0 } else { rough(row) };
            last = both.update(row, value).1;
        }
        assert!(last >= 1.0, "{last} at noon");
    }
    assert!(2 * second < first, "{first} rows told by tier 0, {second} by tier 2");
}

#[test]
fn bursts_in_many_rows_do_not_pass_for_noise() {
    let (mut both, noise) = (Both::default(), noise(29));
    // Ten rows in fifty, at no hour in particular.
    let (mut quiet, mut told, mut told_before) = (0.0_f64, 0, 0);
    for row in 0..1_500 {
        let burst = row % 50 >= 40;
        let value = 30.0 + 3.0 * noise.normal() + if burst { 40.0 } else { 0.0 };
        let (reach, again) = both.update(row, value);
        if row < 500 {
            continue;
        }
        if burst {
            told += u32::from(again >= 1.0);
            told_before += u32::from(reach >= 1.0);
        } else if row % 50 > 5 {
            quiet = quiet.max(again);
        }
    }
    assert!(quiet < 0.6, "{quiet} between bursts");
    assert!(told >= 20 && told_before == 0, "{told} of 200 rows, {told_before} by tier 0");
}

#[test]
fn a_shift_that_lasts_is_told_though_no_row_of_it_is_alone() {
    let (mut both, noise) = (Both::default(), noise(31));
    let mut usual = 0.0_f64;
    for row in 0..1_000 {
        let (_, again) = both.update(row, 100.0 + 10.0 * noise.normal());
        usual = if row > 100 { usual.max(again) } else { 0.0 };
    }
    let rows: Vec<(f64, f64)> = (1_000..1_012).map(|row| both.update(row, 160.0)).collect();
    assert!(usual < 0.8 && rows[0].1 < 1.0, "{usual} as usual, {rows:?}");
    assert!(rows.iter().all(|(reach, _)| *reach < 1.0), "{rows:?}");
    assert!(rows.iter().any(|(_, again)| *again >= 1.0), "{rows:?}");
}

#[test]
fn an_alert_goes_on_for_some_rows_and_no_longer() {
    let (mut panel, noise) = (Panel::new(1), noise(37));
    let mut at = 0;
    let mut row = |value: f64| {
        at += 1;
        panel.update(Some(at * HOUR), &[value])
    };
    for _ in 0..1_000 {
        assert!(!row(100.0 + noise.normal()).goes_on, "what has not begun cannot go on");
    }
    let first = row(200.0);
    assert!(first.alert && !first.goes_on, "{first:?}");
    let after: Vec<Verdict> = (0..30).map(|_| row(150.0)).collect();
    assert!(after.iter().all(|one| !one.alert), "{after:?}");
    let on = after.iter().take_while(|one| one.goes_on).count();
    assert_eq!(on, usize::from(GOES_ON_ROWS), "{after:?}");
    assert!(after[on].score >= 0.4, "not because it died down: {:?}", after[on]);
    assert!(after[on..].iter().all(|one| !one.goes_on), "{after:?}");
}

#[test]
fn the_second_look_travels_and_is_small() {
    let (mut panel, noise) = (Panel::new(1), noise(41));
    for at in 0..700 {
        panel.update(Some(at * HOUR), &[100.0 + noise.normal()]);
    }
    panel.update(Some(700 * HOUR), &[300.0]);
    let bytes = medic_state::codec::encode(&panel);
    assert!(bytes.len() < 2_048 && size_of::<Lone>() <= 400, "{} B", bytes.len());
    let mut copy: Panel = medic_state::codec::decode(&bytes).unwrap();
    assert!(copy.fits(1));
    for at in 701..900 {
        let value = if at < 720 { 120.0 } else { 100.0 } + noise.normal();
        let now = Some(at * HOUR);
        assert_eq!(panel.update(now, &[value]), copy.update(now, &[value]));
    }
}
