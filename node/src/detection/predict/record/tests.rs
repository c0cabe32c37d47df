//! How forecasts are held to what they said.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::detection::predict::forecast::{HORIZON_S, When};

fn forecast(probability: f64, seconds: f64) -> Forecast {
    let when = When { seconds, earliest: seconds * 0.8, latest: seconds * 1.5 };
    Forecast::new((ForecastKind::Capacity, "memory"), probability, 0.9, when, Vec::new()).unwrap()
}

#[test]
fn a_forecast_is_scored_as_first_made_and_once() {
    let mut waiting = Waiting::default();
    waiting.hold(&forecast(0.6, 600.0), 0);
    waiting.hold(&forecast(0.99, 10.0), 590_000);
    waiting.happened(ForecastKind::Capacity, "memory", 600_000);
    waiting.happened(ForecastKind::Capacity, "memory", 601_000);
    let scored = waiting.take(601_000);
    assert_eq!(scored.len(), 1);
    assert_eq!((scored[0].probability, scored[0].outcome), (0.6, Outcome::CameTrue));
    assert!(scored[0].on_time);
}

#[test]
fn what_does_not_come_within_the_horizon_did_not_come_true() {
    let mut waiting = Waiting::default();
    waiting.hold(&forecast(0.6, 600.0), 0);
    assert!(waiting.take((HORIZON_S * 1e3) as u64 - 1).is_empty());
    assert_eq!(waiting.take((HORIZON_S * 1e3) as u64)[0].outcome, Outcome::DidNot);
}

#[test]
fn what_was_prevented_is_not_scored() {
    let (mut waiting, mut record) = (Waiting::default(), Record::default());
    waiting.hold(&forecast(0.9, 600.0), 0);
    waiting.disturbed(&[ForecastKind::Failure]);
    assert!(waiting.take(1).is_empty());
    waiting.disturbed(&[ForecastKind::Capacity]);
    waiting.take(1).into_iter().for_each(|scored| record.note(scored));
    let score = record.scores().remove(0);
    assert_eq!((score.count, score.inconclusive), (0, 1));
    assert!(score.calibration.is_empty());
}

#[test]
fn the_record_corrects_what_is_said() {
    let mut record = Record::default();
    assert_eq!(record.calibrated(ForecastKind::Capacity, 0.9), 0.9);
    for at in 0..100 {
        let outcome = if at % 2 == 0 { Outcome::CameTrue } else { Outcome::DidNot };
        let kind = ForecastKind::Capacity;
        record.note(Scored { kind, probability: 0.9, outcome, on_time: false });
    }
    let corrected = record.calibrated(ForecastKind::Capacity, 0.9);
    assert!((corrected - 0.536).abs() < 0.01, "{corrected}");
    assert_eq!(record.calibrated(ForecastKind::Failure, 0.9), 0.9);
    let mut twice = record.clone();
    twice.add(&record);
    let (score, both) = (record.scores().remove(0), twice.scores().remove(0));
    assert_eq!((both.count, both.brier, both.ece), (200, score.brier, score.ece));
    let bin = score.calibration[0];
    assert_eq!((score.calibration.len(), bin.count, bin.came_true), (1, 100, 0.5));
    assert!((bin.said - 0.9).abs() < 1e-9);
    assert!((score.brier - 0.41).abs() < 1e-9 && (score.ece - 0.4).abs() < 1e-9, "{score:?}");
}

#[test]
fn waiting_is_bounded() {
    let mut waiting = Waiting::default();
    for at in 0..1_000 {
        let mut one = forecast(0.5, 60.0);
        one.subject = at.to_string();
        waiting.hold(&one, 0);
    }
    assert_eq!(waiting.pending.len(), PENDING_MAX);
    let handed = waiting.handed(0, |_| 0);
    let many = handed.iter().chain(&handed).cloned().enumerate();
    let many = many.map(|(at, one)| Waited { subject: format!("other-{at}"), ..one }).collect();
    waiting.take_over(many, (0, 0), |_| 0);
    assert_eq!(waiting.pending.len(), PENDING_MAX);
}

fn outcomes(waiting: &mut Waiting, now_ms: u64) -> Vec<(f64, Outcome, bool)> {
    let scored = waiting.take(now_ms);
    scored.into_iter().map(|one| (one.probability, one.outcome, one.on_time)).collect()
}

#[test]
fn what_waits_is_held_to_what_the_first_watch_said() {
    const DAY: u64 = 86_400_000;
    let (mut first, mut heir) = (Waiting::default(), Waiting::default());
    first.hold(&forecast(0.6, 600.0), 1_000_000);
    heir.hold(&forecast(0.9, 60.0), 5_000);
    let told = first.handed(1_100_000, |_| 7);
    heir.take_over(told.clone(), (10_000, 4_000), |_| 7);
    let mut late = heir.clone();
    // Its 480th to 900th second are the heir's 390th to 810th.
    heir.happened(ForecastKind::Capacity, "memory", 391_000);
    assert_eq!(outcomes(&mut heir, 391_000), [(0.6, Outcome::CameTrue, true)]);
    heir.take_over(told.clone(), (10_000, 4_000), |_| 7);
    assert_eq!(outcomes(&mut heir, 2 * DAY), [], "once");
    assert_eq!(outcomes(&mut late, DAY - 90_001), []);
    assert_eq!(outcomes(&mut late, DAY - 90_000), [(0.6, Outcome::DidNot, false)]);
}

#[test]
fn of_two_words_the_later_counts_and_what_cannot_be_judged_is_left_out() {
    const DAY: u64 = 86_400_000;
    let mut first = Waiting::default();
    first.hold(&forecast(0.6, 600.0), 0);
    let told = first.handed(1_000, |_| 7);
    let taken = |waited: Vec<Waited>, begun_ms: u64, declared: u64| {
        let mut heir = Waiting::default();
        heir.take_over(told.clone(), (1_000, 1_000), |_| 7);
        heir.take_over(waited, (1_000, begun_ms), |_| declared);
        outcomes(&mut heir, 2 * DAY)
    };
    assert_eq!(taken(Vec::new(), 1_000, 7), [], "its first owner has booked it meanwhile");
    assert_eq!(taken(told.clone(), 1_000, 8), [], "with another limit it is another event");
    assert_eq!(taken(told.clone(), DAY, 7), [(0.6, Outcome::Inconclusive, false)]);
    let odd = vec![Waited { probability: f64::NAN, ..told[0].clone() }];
    assert_eq!(taken(odd, 1_000, 7), []);
}
