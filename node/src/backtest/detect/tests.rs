//! Which files are judged, and what stands in their results.
#![allow(clippy::unwrap_used)]

use super::*;

fn series(rows: usize, odd_from: usize) -> String {
    let mut text = "timestamp,value,label\n".to_owned();
    for row in 0..rows {
        let noise = (row * 7919 % 101) as f64 / 101.0;
        let value = if row >= odd_from { 90.0 } else { 10.0 } + noise;
        let at = 1_700_000_000 + row * 60;
        text.push_str(&format!("{at},{value},{}\n", u8::from(row % 2 == 0)));
    }
    text
}

#[test]
fn a_folder_is_judged_file_by_file() {
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(input.path().join("group/pair")).unwrap();
    fs::write(input.path().join("group/web.csv"), series(600, 580)).unwrap();
    fs::write(input.path().join("group/pair/train.csv"), "a,b\n1,2\n2,3\n").unwrap();
    fs::write(input.path().join("group/pair/test.csv"), "a,b\n1,\n").unwrap();
    fs::write(input.path().join("group/pair/labels.csv"), "row,label\n0,1\n").unwrap();
    fs::write(input.path().join("index.csv"), "series,rows\nx,y\n").unwrap();
    let summary = run(
        input.path(),
        out.path(),
        &Options { plots: Some(true), ..Options::default() },
        |_, _, _| {},
    )
    .unwrap();
    let names: Vec<&str> = summary.entities.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["group/pair", "group/web"]);
    assert_eq!(summary.passed_over, [input.path().join("index.csv")]);
    let pair = &summary.entities[0];
    assert_eq!((pair.rows_train, pair.rows, pair.values_missing), (2, 1, 1));
    let web = &summary.entities[1];
    assert_eq!((web.metrics, web.rows, web.alerts), (1, 600, 1), "label is no metric");
    let text = fs::read_to_string(out.path().join("group/web.csv")).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("row,timestamp,anomaly_score,score,alert,p_value"));
    assert!(lines.next().unwrap().starts_with("0,1700000000,0.000000000,"));
    let alert = |line: &str| line.split(',').nth(4) == Some("1");
    assert_eq!(text.lines().position(alert), Some(581));
    assert!(lines.next().unwrap().ends_with(",1.000e0"), "the first rows are usual");
    let stated = run(
        input.path(),
        out.path(),
        &Options { alpha: Some(0.01), ..Options::default() },
        |_, _, _| {},
    )
    .unwrap();
    let text = fs::read_to_string(out.path().join("group/web.csv")).unwrap();
    let (usual, fault): (Vec<(usize, &str)>, Vec<_>) =
        text.lines().enumerate().skip(1).partition(|(row, _)| *row <= 580);
    let alerts = |rows: &[(usize, &str)]| rows.iter().filter(|(_, line)| alert(line)).count();
    assert!(alerts(&usual) <= 5, "one in a hundred of 580: {stated:?}");
    assert!(alerts(&fault) >= 10, "{stated:?}");
    let stated = run(
        input.path(),
        out.path(),
        &Options { alpha: Some(0.001), ..Options::default() },
        |_, _, _| {},
    )
    .unwrap();
    assert_eq!(stated.entities[1].alert_rows, 0, "600 rows cannot tell one in a thousand");
    assert!(out.path().join("group/web.svg").is_file());
    assert!(out.path().join("summary.json").is_file());
}

#[test]
fn whoever_goes_on_from_a_checkpoint_judges_as_if_nothing_had_moved() {
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(input.path().join("web.csv"), series(600, 580)).unwrap();
    let judged = |handover| {
        run(input.path(), out.path(), &Options { handover, ..Options::default() }, |_, _, _| {})
            .unwrap();
        fs::read_to_string(out.path().join("web.csv")).unwrap()
    };
    let stays = judged(None);
    assert!(stays.lines().any(|line| line.split(',').nth(4) == Some("1")));
    // Among them at each row, and within the fault.
    for every in [1, 7, 290, 585] {
        assert_eq!(judged(Some(every)), stays, "every {every} rows");
    }
}

/// All that watches an instance moves, not the panel alone: what would have been raised is the same.
#[test]
fn an_instance_that_moves_is_told_of_as_one_that_never_did() {
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let noise = |row: u64, of: u64| ((row * 7_919 + of * 104_729) % 1_009) as f64 / 1_009.0;
    let mut text = "timestamp,error_rate,latency_p99,load\n".to_owned();
    for row in 0..3_200_u64 {
        // Two faults: well before a move, and through one.
        let faulty = (1_200..1_230).contains(&row) || (2_765..2_800).contains(&row);
        let (errors, slow) = if faulty { (0.3, 4.0) } else { (0.0, 1.0) };
        let values = [0.01 * noise(row, 0) + errors, slow * (0.1 + 0.02 * noise(row, 1))];
        let [errors, latency] = values;
        let at = 1_700_000_000 + row * 15;
        text.push_str(&format!("{at},{errors},{latency},{}\n", 10.0 + noise(row, 2)));
    }
    fs::write(input.path().join("web.csv"), text).unwrap();
    let judged = |handover| {
        let summary = run(
            input.path(),
            out.path(),
            &Options { handover, ..Options::default() },
            |_, _, _| {},
        );
        let read = |name: &str| fs::read_to_string(out.path().join(name)).unwrap();
        (summary.unwrap().entities[0].findings.clone(), read("web.findings.json"), read("web.csv"))
    };
    let stays = judged(None);
    assert!(stays.0.values().sum::<u64>() >= 2, "{}", stays.1);
    for every in [1_510, 2_777] {
        assert_eq!(judged(Some(every)), stays, "every {every} rows");
    }
}

#[test]
fn what_counts_is_judged_by_how_fast_it_does() {
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The same rates, once counted, with a reset among them.
    let rate = |row: u64| if row >= 580 { 90.0 } else { 10.0 + (row * 7919 % 101) as f64 / 101.0 };
    let (mut rates, mut counts) =
        ("timestamp,load\n".to_owned(), "timestamp,load_total\n".to_owned());
    let mut counted = 0.0;
    for row in 0..600 {
        let at = 1_700_000_000 + row * 60;
        counted = if row == 200 { 0.0 } else { counted } + rate(row) * 60.0;
        let first = if row == 0 { String::new() } else { rate(row).to_string() };
        rates.push_str(&format!("{at},{first}\n"));
        counts.push_str(&format!("{at},{counted}\n"));
    }
    fs::write(input.path().join("rates.csv"), rates).unwrap();
    fs::write(input.path().join("counts.csv"), counts).unwrap();
    let summary = run(input.path(), out.path(), &Options::default(), |_, _, _| {}).unwrap();
    let [counted, rated] = &summary.entities[..] else { panic!("{summary:?}") };
    assert_eq!((counted.alerts, rated.alerts), (1, 1), "{summary:?}");
    assert_eq!((counted.values_missing, rated.values_missing), (0, 1));
    let note = |one: &EntityResult| one.notes.iter().any(|note| note.contains("judged as rates"));
    assert!(note(counted) && !note(rated), "{summary:?}");
    let alerts = |name: &str| -> Vec<usize> {
        let text = fs::read_to_string(out.path().join(name)).unwrap();
        let alert =
            |(row, line): (usize, &str)| (line.split(',').nth(4) == Some("1")).then_some(row);
        text.lines().enumerate().filter_map(alert).collect()
    };
    assert_eq!(alerts("counts.csv"), alerts("rates.csv"));
}

#[test]
fn entities_in_memory_have_results_by_their_names() {
    let out = tempfile::tempdir().unwrap();
    let frame = |entity: &str| Frame {
        entity: entity.to_owned(),
        metrics: vec!["load".to_owned()],
        rows: (0..5).map(|row| (row * 60_000, vec![1.0])).collect(),
        rated: false,
    };
    let frames = [frame(""), frame("web/a:80"), frame("web/a_80")];
    let judged = || run_over(&frames, out.path(), &Options::default(), |_, _, _| {});
    let summary = judged().unwrap();
    let names: Vec<&str> = summary.entities.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["all", "web_a_80", "web_a_80-2"]);
    assert!(judged().is_ok(), "results of before are written over");
    fs::write(out.path().join("web_a_80.csv"), "mine\n").unwrap();
    assert!(matches!(judged(), Err(BacktestError::NoResult { .. })));
}

#[test]
fn answers_of_prometheus_and_files_of_otlp_are_judged_by_entity() {
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let points = |shift: usize| {
        let value =
            move |row: usize| if row >= 580 + shift { 90.0 } else { 10.0 + (row % 7) as f64 };
        (0..600).map(move |row| (1_700_000_000 + row * 60, value(row)))
    };
    let series = |instance: &str, shift: usize| {
        let values: Vec<String> =
            points(shift).map(|(at, value)| format!("[{at},\"{value}\"]")).collect();
        format!(
            "{{\"metric\":{{\"__name__\":\"load\",\"job\":\"web\",\"instance\":\"{instance}\"}},\n\
             \"values\":[{}]}}",
            values.join(",")
        )
    };
    let result = [series("../a:80", 0), series("b:80", 5)].join(",");
    let answer = format!(
        "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{result}]}}}}"
    );
    fs::write(input.path().join("range.json"), answer).unwrap();
    let lines = points(0).map(|(at, value)| {
        format!(
            "{{\"resourceMetrics\":[{{\"scopeMetrics\":[{{\"metrics\":[{{\"name\":\"load\",\"gauge\":\
             {{\"dataPoints\":[{{\"timeUnixNano\":\"{at}000000000\",\"asDouble\":{value}}}]}}}}]}}]}}]}}\n"
        )
    });
    fs::write(input.path().join("otel.jsonl"), lines.collect::<String>()).unwrap();
    fs::write(input.path().join("other.json"), "{\"nodes\": []}").unwrap();
    let summary = run(input.path(), out.path(), &Options::default(), |_, _, _| {}).unwrap();
    let found: Vec<_> =
        summary.entities.iter().map(|one| (one.name.as_str(), one.rows, one.alerts)).collect();
    let expected = [("otel", 600, 1), ("range/web_.._a_80", 600, 1), ("range/web_b_80", 600, 1)];
    assert_eq!(found, expected);
    assert_eq!(summary.passed_over, [input.path().join("other.json")]);
    let text = fs::read_to_string(out.path().join("range/web_b_80.csv")).unwrap();
    assert!(text.lines().nth(1).unwrap().starts_with("0,2023-11-14T22:13:20Z,"), "{text}");
    // A file that is named is read, and says what is wrong with it.
    let other = input.path().join("other.json");
    let error = run(&other, out.path(), &Options::default(), |_, _, _| {}).unwrap_err().to_string();
    assert!(error.contains("other.json:1: Prometheus answered without data"), "{error}");
}

#[test]
fn bad_content_is_named_with_its_place() {
    let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = input.path().join("bad.csv");
    for (text, expected) in [
        ("timestamp,v\n1,2\n2,x1\n", "bad.csv:3: column `v`: `x1` is not a number"),
        ("timestamp,v\nsoon,2\n", "bad.csv:2: column `timestamp`: `soon` is not a time"),
        ("timestamp,v\n1,2\n2,3,4\n", "bad.csv:3: 3 fields where the header has 2"),
    ] {
        fs::write(&path, text).unwrap();
        let error = run(input.path(), out.path(), &Options::default(), |_, _, _| {}).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    fs::write(&path, "time,v\nsoon,2\n").unwrap();
    let error = run(&path, out.path(), &Options::default(), |_, _, _| {}).unwrap_err().to_string();
    assert!(error.contains("`soon` is not a number") && error.contains("`timestamp`"), "{error}");
    for (text, note) in [("Time,v\n5,2\n", "call it `timestamp`"), ("timestamp,v\n", "no rows")] {
        fs::write(&path, text).unwrap();
        let summary = run(&path, out.path(), &Options::default(), |_, _, _| {}).unwrap();
        let notes = &summary.entities[0].notes;
        assert!(notes.iter().any(|told| told.contains(note)), "{notes:?}");
    }
    fs::write(&path, format!("timestamp,v\n1,{}\n", "9".repeat(2 << 20))).unwrap();
    let error = run(input.path(), out.path(), &Options::default(), |_, _, _| {}).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = run(empty.path(), out.path(), &Options::default(), |_, _, _| {}).unwrap_err();
    assert!(error.to_string().contains("holds no series"), "{error}");
}
