//! What an owner would have raised, from histories made here.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path};

use super::{
    super::detect::{EntityResult, Options, run},
    *,
};

const MIB: f64 = 1_048_576.0;
/// Unix seconds of the first row.
const BEGUN: u64 = 1_700_000_000;

fn declared() -> Declared {
    let spec = r#"{"indicators":[
        {"name":"memory","source":{"gauge":"m"},"limit":"128MiB"},
        {"name":"error_rate","source":{"ratio":{"of":"e","to":"r"}},"limit":"0.05"},
        {"name":"free","source":{"gauge":"f"},"limit":">= 5GiB"}],
        "slo":{"availability":0.999}}"#;
    Declared {
        tenant: "shop".to_owned(),
        name: "web".to_owned(),
        spec: serde_json::from_str(spec).unwrap(),
    }
}

/// A little of what no generator made.
fn noise(row: u64) -> f64 {
    (row * 7919 % 101) as f64 / 101.0
}

/// Rows so many seconds apart.
fn history(columns: &str, step: u64, rows: u64, row: impl Fn(u64) -> String) -> String {
    let mut text = format!("timestamp,{columns}\n");
    for number in 0..rows {
        writeln!(text, "{},{}", BEGUN + step * number, row(number)).unwrap();
    }
    text
}

fn judged(text: &str, service: Option<&Declared>) -> (EntityResult, Vec<serde_json::Value>) {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("web-1.csv");
    fs::write(&input, text).unwrap();
    let out = folder.path().join("out");
    let options = Options { service, ..Options::default() };
    let mut summary = run(&input, &out, &options, |_, _, _| {}).unwrap();
    let told = fs::read_to_string(out.join("web-1.findings.json")).unwrap();
    (summary.entities.remove(0), serde_json::from_str(&told).unwrap())
}

fn stamp(seconds: u64) -> Option<String> {
    Some(format_rfc3339(Timestamp((BEGUN + seconds) * 1_000)))
}

#[test]
fn a_limit_that_is_crossed_is_told_at_its_second_row_and_ends_with_three_good_ones() {
    let full = |row| if (300..320).contains(&row) { 150.0 } else { 20.0 };
    let text = history("memory", 60, 400, |row| format!("{}", (full(row) + noise(row)) * MIB));
    let (result, told) = judged(&text, Some(&declared()));
    assert_eq!(result.findings, BTreeMap::from([("saturation".to_owned(), 1)]), "{result:?}");
    let one = &result.worst[0];
    assert_eq!((one.kind.as_str(), one.severity), ("saturation", Severity::Critical));
    assert_eq!((one.row, one.row_until, one.rows), (301, Some(322), 21));
    assert_eq!((&one.raised, &one.until), (&stamp(301 * 60), &stamp(322 * 60)));
    assert!(one.since <= one.raised && one.since >= stamp(299 * 60), "{one:?}");
    assert!(one.summary.contains("above its limit of 128 MiB"), "{}", one.summary);
    assert_eq!((one.indicator.as_deref(), one.p_value), (Some("memory"), 0.0));
    assert!(one.signals.iter().any(|signal| signal.detector == "limit"), "{one:?}");
    assert_eq!(told, [serde_json::to_value(one).unwrap()]);
    assert_eq!(result.notes[0], "declared, and no column: `error_rate`, `free`");
    // Without its manifest nobody knows what is too much.
    let (result, _) = judged(&text, None);
    assert!(!result.findings.contains_key("saturation"), "{result:?}");
    assert!(result.notes[0].starts_with("no column has a limit"), "{result:?}");
}

#[test]
fn a_leak_is_told_before_its_limit_and_is_open_at_the_end() {
    let leaked = |row: u64| 20.0 + 0.5 * row.saturating_sub(300) as f64 + 0.2 * noise(row);
    // At 5 s: it is full after row 516.
    let text = history("memory", 5, 500, |row| format!("{}", leaked(row) * MIB));
    let (result, _) = judged(&text, Some(&declared()));
    let found = result.worst.iter().find(|one| one.kind == "saturation-predicted").unwrap();
    assert!((390..420).contains(&found.row) && found.row_until.is_none(), "{found:?}");
    assert!(found.until.is_none() && found.time_to_event_s.unwrap() > 400.0, "{found:?}");
    assert!(!result.findings.contains_key("saturation"), "{result:?}");
}

#[test]
fn values_that_are_missing_are_neither_good_nor_bad_and_silence_is_told_as_such() {
    let row = |row: u64| match row {
        150 | 160..162 => ",0.0".to_owned(),
        // What is a share of nothing says no less than usual.
        200..300 => format!("{},", (20.0 + noise(row)) * MIB),
        // Over the limit, and between two rows of it nothing.
        400..420 if row.is_multiple_of(2) => ",0.0".to_owned(),
        400..420 => format!("{},0.0", 150.0 * MIB),
        500..600 => ",0.0".to_owned(),
        _ => format!("{},0.0", (20.0 + noise(row)) * MIB),
    };
    let (result, told) = judged(&history("memory,error_rate", 60, 700, row), Some(&declared()));
    let kinds: Vec<_> = told.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["saturation", "monitor-silent"], "{result:?}");
    assert!((401..=405).contains(&told[0]["row"].as_u64().unwrap()), "{told:?}");
    assert!((420..430).contains(&told[0]["row_until"].as_u64().unwrap()), "{told:?}");
    assert!((502..=505).contains(&told[1]["row"].as_u64().unwrap()), "{told:?}");
    assert!((600..605).contains(&told[1]["row_until"].as_u64().unwrap()), "{told:?}");
}

#[test]
fn what_has_run_out_and_a_budget_that_burns_are_told() {
    let row = |row: u64| {
        let free = if (200..220).contains(&row) { 4.0 } else { 50.0 };
        let failing = if (300..400).contains(&row) { 0.03 } else { 0.0 };
        format!("{},{failing}", (free + noise(row)) * 1024.0 * MIB)
    };
    let (result, _) = judged(&history("free,error_rate", 60, 500, row), Some(&declared()));
    let of = |kind: &str| result.worst.iter().find(|one| one.kind == kind);
    let empty = of("depleted").unwrap();
    assert!((200..205).contains(&empty.row), "{empty:?}");
    let errors = of("errors").unwrap();
    assert!((300..340).contains(&errors.row) && errors.row_until.is_some(), "{errors:?}");
}

#[test]
fn training_teaches_and_tells_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pair = folder.path().join("in/web");
    fs::create_dir_all(&pair).unwrap();
    let full = |row: u64, from: u64| if row >= from { 150.0 } else { 20.0 };
    let text = |from: u64| {
        history("memory", 60, 200, |row| format!("{}", (full(row, from) + noise(row)) * MIB))
    };
    let service = declared();
    let told = |train: &str, test: &str| {
        fs::write(pair.join("train.csv"), train).unwrap();
        fs::write(pair.join("test.csv"), test).unwrap();
        let options = Options { service: Some(&service), ..Options::default() };
        let out = folder.path().join("out");
        run(&folder.path().join("in"), &out, &options, |_, _, _| {}).unwrap().entities.remove(0)
    };
    assert!(told(&text(100), &text(999)).findings.is_empty(), "its fault was before");
    // What was wrong then and is wrong still is told anew.
    let still = told(&text(100), &text(0));
    assert_eq!((still.worst.len(), still.worst[0].row), (1, 0), "{still:?}");
}

#[test]
fn rows_without_times_are_a_step_apart_and_rows_out_of_order_are_left_out() {
    let full = |row: u64| if (100..120).contains(&row) { 150.0 } else { 20.0 };
    let line = |row: u64| format!("{}\n", (full(row) + noise(row)) * MIB);
    let text = format!("memory\n{}", (0..200).map(line).collect::<String>());
    let (result, _) = judged(&text, Some(&declared()));
    let one = &result.worst[0];
    assert_eq!((one.row, one.row_until), (101, Some(122)), "{one:?}");
    assert!(one.since.is_none() && one.raised.is_none() && one.until.is_none(), "{one:?}");
    assert!(result.notes.iter().any(|note| note.contains("taken as 1m apart")), "{result:?}");
    let hour_again = |row: u64| BEGUN + 60 * if row >= 100 { row - 60 } else { row };
    let line = |row: u64| format!("{},{}\n", hour_again(row), (full(row) + noise(row)) * MIB);
    let text = format!("timestamp,memory\n{}", (0..200).map(line).collect::<String>());
    let (result, _) = judged(&text, Some(&declared()));
    assert!(result.findings.is_empty(), "{result:?}");
    assert!(result.notes.iter().any(|note| note.starts_with("60 rows no later")), "{result:?}");
}

#[test]
fn the_columns_of_the_panel_are_the_same_with_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("web.csv");
    let odd = |row: u64| if row >= 580 { 90.0 } else { 10.0 + noise(row) };
    fs::write(&input, history("a,error_rate", 60, 600, |row| format!("{},0.1", odd(row)))).unwrap();
    let written = |out: &Path, options: &Options<'_>| {
        let summary = run(&input, out, options, |_, _, _| {}).unwrap();
        (summary, fs::read(out.join("web.csv")).unwrap())
    };
    let service = declared();
    let (alone, both) = (folder.path().join("alone"), folder.path().join("both"));
    let only = Options { scores_only: true, ..Options::default() };
    let (summary, scores) = written(&alone, &only);
    assert!(summary.entities[0].findings.is_empty() && !alone.join("web.findings.json").exists());
    for service in [None, Some(&service)] {
        let (_, same) = written(&both, &Options { service, ..Options::default() });
        assert!(same == scores);
    }
    let svg = fs::read_to_string(both.join("web.svg")).unwrap();
    assert!(svg.contains("<title>errors (critical), 2023-11-14T"), "{svg}");
}

#[test]
fn what_is_told_in_full_is_bounded_and_all_is_counted() {
    let mut book = Book::default();
    let symptom = |severity| Symptom {
        target: medic_state::symptom::Target {
            tenant: String::new(),
            service: String::new(),
            instance: String::new(),
        },
        kind: "errors".to_owned(),
        severity,
        summary: format!("{severity}"),
        p_value: medic_state::Ppm(10),
        signals: Vec::new(),
        since: Timestamp(0),
        time_to_event: None,
        labels: BTreeMap::new(),
        source: String::new(),
    };
    for _ in 0..FINDINGS_MAX + 5 {
        for severity in [Severity::Warning, Severity::Critical, Severity::Info] {
            book.note(Timestamp(0), false, Told::Report(Box::new(symptom(severity))));
        }
        book.rows += 1;
        book.note(Timestamp(0), false, Told::Clear("errors"));
    }
    assert_eq!(book.found.findings.len(), FINDINGS_MAX);
    assert_eq!(book.found.by_kind["errors"], FINDINGS_MAX as u64 + 5);
    let first = &book.found.findings[0];
    assert_eq!((first.severity, first.summary.as_str()), (Severity::Critical, "critical"));
    assert_eq!((first.row, first.row_until), (0, Some(1)));
}
