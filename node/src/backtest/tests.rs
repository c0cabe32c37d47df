//! Predictions and classes from small histories made here.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path};

use super::{
    BacktestError, classify,
    history::{self, Columns},
    predict::{self, Question},
};
use crate::learn::Chance;

fn columns(event: bool) -> Columns {
    let named = |name: &str| event.then(|| name.to_owned());
    Columns {
        unit: "unit".to_owned(),
        time: "hour".to_owned(),
        until: named("until"),
        event: named("failed"),
        ignore: Vec::new(),
    }
}

/// Drives whose errors rise in their last hours, and drives that never fail.
fn drives(count: u32) -> String {
    let mut text = "unit,hour,until,failed,model,errors\n".to_owned();
    let mut chance = Chance::new(3);
    for unit in 0..count {
        let fails = unit % 4 == 0;
        let mut errors = 0;
        for hour in 0..20 {
            errors += if fails && hour >= 14 { 5 } else { u32::from(chance.unit() < 0.1) };
            let ends = u32::from(fails && hour == 19);
            writeln!(
                text,
                "d{unit},{},{},{ends},m{},{errors}",
                hour * 10,
                hour * 10 + 10,
                unit % 3
            )
            .unwrap();
        }
    }
    text
}

#[test]
fn failures_are_foretold_of_units_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("drives.csv");
    fs::write(&input, drives(80)).unwrap();
    let out = folder.path().join("out");
    let question = Question::Failure { horizon: 50.0 };
    let summary = predict::run(&input, &out, &columns(true), question, 2, |_, _| ()).unwrap();
    let figures = summary.failure.unwrap();
    assert!(figures.calibration.brier_skill > 0.5 && figures.recall > 0.8, "{figures:?}");
    assert!(figures.false_alarms <= predict::FALSE_ALARMS, "{figures:?}");
    // The last rows of the healthy: nobody knows yet, so they are not among the scored.
    assert_eq!(figures.calibration.count, 80 * 20 - 60 * 4);
    let lines = fs::read_to_string(out.join("predictions.csv")).unwrap();
    assert_eq!(lines.lines().next(), Some("row,unit,hour,probability"));
    assert_eq!(lines.lines().count(), 80 * 20 + 1);
    again_over_nothing_else(&out, || {
        predict::run(&input, &out, &columns(true), question, 2, |_, _| ()).map(drop)
    });
    // What is read is a result of before: it stays too.
    let read = out.join("predictions.csv");
    let error = predict::run(&read, &out, &columns(true), question, 2, |_, _| ()).unwrap_err();
    assert!(matches!(error, BacktestError::IsRead { .. }), "{error}");
}

/// Writes results over those of before, and never over what somebody has put in their place.
fn again_over_nothing_else(out: &Path, run: impl Fn() -> Result<(), BacktestError>) {
    run().unwrap();
    for name in ["predictions.csv", "summary.json"] {
        let path = out.join(name);
        let ours = fs::read_to_string(&path).unwrap();
        for text in ["case,mine\n", r#"{"folders":[{"name":"mine"}]}"#, "{}"] {
            fs::write(&path, text).unwrap();
            let error = run().unwrap_err();
            assert!(matches!(error, BacktestError::NoResult { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, ours).unwrap();
    }
}

#[test]
fn remaining_lives_have_intervals_that_hold() {
    let mut text = "unit,hour,wear,noise\n".to_owned();
    let mut chance = Chance::new(8);
    for unit in 0..24 {
        let life = 60 + chance.below(40) as u32;
        for hour in 0..life {
            let wear = (f64::from(life - hour) / -20.0).exp() + 0.05 * chance.unit();
            writeln!(text, "e{unit},{hour},{wear:.4},{:.3}", chance.unit()).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("engines.csv");
    fs::write(&input, text).unwrap();
    let question = Question::Life { cap: 50.0 };
    let summary =
        predict::run(&input, folder.path(), &columns(false), question, 2, |_, _| ()).unwrap();
    let figures = summary.life.unwrap();
    assert!(figures.rmse < 8.0, "{figures:?}");
    assert!((0.8..=0.99).contains(&figures.coverage), "{figures:?}");
}

#[test]
fn what_is_wrong_with_a_history_is_said_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    for (text, expected) in [
        ("unit,hour,until,failed\na,1,2,0\na,0,1,0\n", ":3: `a` goes back in time"),
        ("unit,hour,until,failed\na,1,2,0\nb,1,2,0\na,2,3,0\n", ":4: rows of `a` do not stand"),
        ("unit,hour,until,failed\na,1,2,7\n", ":2: column `failed`: 7 is neither 0 nor 1"),
        ("unit,hour,until,failed\na,soon,2,0\n", ":2: column `hour`: `soon` is not a number"),
        ("unit,hour,until\na,1,2\n", ":1: no column `failed`"),
        ("unit,hour,until,failed\n", "holds no series"),
    ] {
        fs::write(&path, text).unwrap();
        let error = history::read(&path, &columns(true)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn incidents_are_classed_from_lists_of_signs() {
    let folder = tempfile::tempdir().unwrap();
    let (mut truth, mut signs) = ("case,truth,instance\n".to_owned(), serde_json::Map::new());
    for case in 0..24 {
        let (class, instance) = (["full", "slow"][case % 2], format!("web-{}", case % 3));
        writeln!(truth, "c{case},{class},{instance}").unwrap();
        let metric = ["disk_used", "latency_p99"][case % 2];
        let seen = serde_json::json!([[instance, metric, "up"], ["web-0", "cpu", "down"]]);
        signs.insert(format!("c{case}"), seen);
    }
    fs::write(folder.path().join("truth.csv"), truth).unwrap();
    let text = serde_json::Value::Object(signs).to_string();
    fs::write(folder.path().join("metrics.json"), text).unwrap();
    fs::write(folder.path().join("nodes.json"), r#"["web-0","web-1","web-2"]"#).unwrap();
    let out = folder.path().join("out");
    let summary = classify::run(folder.path(), &out, 3, 0.9, |_| ()).unwrap();
    assert_eq!(summary.folders.len(), 1);
    assert_eq!(summary.folders[0].accuracy, 1.0, "{summary:?}");
    assert!(summary.folders[0].coverage > 0.8, "{summary:?}");
    let nothing = classify::run(&out, &out, 3, 0.9, |_| ());
    assert!(matches!(nothing, Err(BacktestError::Nothing { .. })));
    again_over_nothing_else(&out, || classify::run(folder.path(), &out, 3, 0.9, |_| ()).map(drop));
    // Results among the signs would be taken for some.
    std::os::unix::fs::symlink(folder.path(), out.join("link")).unwrap();
    for among in [folder.path().to_owned(), out.join("link")] {
        let inside = classify::run(folder.path(), &among, 3, 0.9, |_| ());
        assert!(matches!(inside, Err(BacktestError::Inside { .. })), "{inside:?}");
    }
}
