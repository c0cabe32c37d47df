//! `medic backtest detect`: what would have been raised.
//!
//! For each entity a CSV with `row,timestamp,anomaly_score,score,alert,p_value`, and one `summary.json` for all.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    BacktestError,
    csv::{Row, Table},
    inputs::{self, Form, Input},
    plot::Plot,
    series::{self, Frame},
};
use crate::detection::detector::{Panel, Verdict};

/// Characters of an entity's name that its file has.
const FILE_NAME_MAX: usize = 120;
/// Alert rows at most this far apart are one event, in the summary.
const EVENT_GAP_ROWS: u64 = 10;

/// What became of one entity.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EntityResult {
    /// Relative name.
    pub name: String,
    /// Metrics judged together.
    pub metrics: usize,
    /// Rows of the warm-up file.
    pub rows_train: u64,
    /// Rows judged.
    pub rows: u64,
    /// Values that were missing.
    pub values_missing: u64,
    /// Rows with an alert.
    pub alert_rows: u64,
    /// Alerts, when rows close together are one.
    pub alerts: u64,
    /// The highest `anomaly_score`.
    pub anomaly_score_max: f64,
}

/// What became of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// In order of their names.
    pub entities: Vec<EntityResult>,
    /// CSV files without a column `timestamp`, and JSON that is no series.
    pub passed_over: Vec<PathBuf>,
}

/// Judges every series under `input` and writes the results under `out`. `progress` is told before each
/// entity: its number from 0, how many there are, its name. `plots`: beside each result; by default when
/// there is but one. `alpha`: alert where the p-value is at most this, instead of where the score is worth
/// telling. `handover`: after each so many rows another detector goes on from the checkpoint of the one before,
/// as when a shard moves.
///
/// # Errors
/// When something cannot be read or written, or its content makes no sense.
pub fn run(
    input: &Path,
    out: &Path,
    plots: Option<bool>,
    (alpha, handover): (Option<f64>, Option<u64>),
    mut progress: impl FnMut(usize, usize, &str),
) -> Result<Summary, BacktestError> {
    let found = inputs::find(input)?;
    fs::create_dir_all(out).map_err(BacktestError::write(out))?;
    let mut summary = Summary { passed_over: found.passed_over, ..Summary::default() };
    let plots = plots.unwrap_or(found.inputs.len() == 1);
    let how = How { out, plots, alpha, handover };
    for (number, input) in found.inputs.iter().enumerate() {
        progress(number, found.inputs.len(), &input.name);
        match input.form {
            Form::Csv => summary.entities.push(of_table(input, how)?),
            Form::Json => summary.entities.extend(of_frames(input, how)?),
        }
    }
    let path = out.join("summary.json");
    let text = serde_json::to_string_pretty(&summary).map_err(std::io::Error::other);
    text.and_then(|text| fs::write(&path, text + "\n")).map_err(BacktestError::write(&path))?;
    Ok(summary)
}

/// Where results go, whether they are drawn, from which p-value on a row alerts, and after how many rows another
/// detector goes on.
#[derive(Clone, Copy, Debug)]
struct How<'a> {
    out: &'a Path,
    plots: bool,
    alpha: Option<f64>,
    handover: Option<u64>,
}

fn of_table(input: &Input, how: How<'_>) -> Result<EntityResult, BacktestError> {
    let mut table = Table::open(&input.rows)?;
    let mut panel = Panel::new(table.metrics().len());
    let mut rows_train = 0;
    if let Some(path) = &input.train {
        rows_train = warm_up(&mut panel, path, &table, input)?;
    }
    let metrics = table.metrics().to_vec();
    let result = judge(&input.name, &metrics, panel, |row| table.read(row), how)?;
    Ok(EntityResult { rows_train, ..result })
}

/// The entities of one file: under its name where it holds one, else in a folder of that name.
fn of_frames(input: &Input, how: How<'_>) -> Result<Vec<EntityResult>, BacktestError> {
    let frames = series::read(&input.rows)?;
    let alone = frames.len() == 1;
    let mut taken = BTreeSet::new();
    let mut results = Vec::with_capacity(frames.len());
    for frame in frames {
        let name = if alone {
            input.name.clone()
        } else {
            format!("{}/{}", input.name, file_name(&frame.entity, &mut taken))
        };
        results.push(of_frame(&name, &frame, how)?);
    }
    Ok(results)
}

fn of_frame(name: &str, frame: &Frame, how: How<'_>) -> Result<EntityResult, BacktestError> {
    let mut rows = 0..;
    let next = |row: &mut Row| {
        let found = rows.next().and_then(|at| frame.row(at));
        let more = found.is_some();
        *row = found.unwrap_or_default();
        Ok(more)
    };
    judge(name, &frame.metrics, Panel::new(frame.metrics.len()), next, how)
}

/// An entity's name as that of a file; never twice the same.
fn file_name(entity: &str, taken: &mut BTreeSet<String>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let plain: String = entity.chars().take(FILE_NAME_MAX).map(plain).collect();
    let base = if plain.starts_with('.') || plain.is_empty() { format!("_{plain}") } else { plain };
    let mut name = base.clone();
    for number in 2.. {
        if taken.insert(name.clone()) {
            break;
        }
        name = format!("{base}-{number}");
    }
    name
}

/// Judges rows as `next` gives them; it says whether there was one.
fn judge(
    name: &str,
    metrics: &[String],
    mut panel: Panel,
    mut next: impl FnMut(&mut Row) -> Result<bool, BacktestError>,
    how: How<'_>,
) -> Result<EntityResult, BacktestError> {
    let mut result =
        EntityResult { name: name.to_owned(), metrics: metrics.len(), ..EntityResult::default() };
    let path = how.out.join(format!("{name}.csv"));
    let failed = || BacktestError::write(path.clone());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed())?;
    }
    let mut plot = how.plots.then(|| Plot::new(metrics));
    let mut file = BufWriter::new(File::create(&path).map_err(failed())?);
    writeln!(file, "row,timestamp,anomaly_score,score,alert,p_value").map_err(failed())?;
    let (mut row, mut last_alert) = (Row::default(), None);
    while next(&mut row)? {
        let moves = |every: u64| result.rows > 0 && result.rows.is_multiple_of(every);
        if how.handover.is_some_and(moves) {
            panel = heir(&panel).map_err(|problem| BacktestError::Content {
                path: path.clone(),
                line: result.rows + 1,
                problem,
            })?;
        }
        let mut verdict = panel.update(row.at_ms, &row.values);
        verdict.alert = match how.alpha {
            Some(alpha) => verdict.p_value <= alpha,
            None => verdict.alert || verdict.goes_on,
        };
        let Verdict { anomaly, score, alert, p_value, .. } = verdict;
        let (number, stamp, alert) = (result.rows, field(&row.timestamp), u8::from(alert));
        writeln!(file, "{number},{stamp},{anomaly:.9},{score:.6},{alert},{p_value:.3e}")
            .map_err(failed())?;
        if let Some(plot) = &mut plot {
            plot.add(&row.values, &verdict);
        }
        result.count(&row, &verdict, &mut last_alert);
    }
    file.flush().map_err(failed())?;
    if let Some(plot) = plot {
        let path = path.with_extension("svg");
        fs::write(&path, plot.svg(name)).map_err(BacktestError::write(&path))?;
    }
    Ok(result)
}

/// A detector that knows of the one before what it is told when a shard moves.
fn heir(panel: &Panel) -> Result<Panel, String> {
    let told = medic_state::codec::encode(panel);
    medic_state::codec::decode(&told).map_err(|error| format!("its checkpoint: {error}"))
}

fn warm_up(
    panel: &mut Panel,
    path: &Path,
    table: &Table,
    input: &Input,
) -> Result<u64, BacktestError> {
    let mut train = Table::open(path)?;
    if train.metrics() != table.metrics() {
        let problem = format!("the columns differ from those of {}", input.rows.display());
        return Err(BacktestError::Content { path: path.to_owned(), line: 1, problem });
    }
    let (mut row, mut rows) = (Row::default(), 0);
    while train.read(&mut row)? {
        panel.update(row.at_ms, &row.values);
        rows += 1;
    }
    Ok(rows)
}

/// A field of a CSV, quoted where it must be.
fn field(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

impl EntityResult {
    fn count(&mut self, row: &Row, verdict: &Verdict, last_alert: &mut Option<u64>) {
        if verdict.alert {
            self.alert_rows += 1;
            let again = last_alert.is_some_and(|last| self.rows - last <= EVENT_GAP_ROWS);
            self.alerts += u64::from(!again);
            *last_alert = Some(self.rows);
        }
        self.values_missing += row.values.iter().filter(|value| value.is_nan()).count() as u64;
        self.anomaly_score_max = self.anomaly_score_max.max(verdict.anomaly);
        self.rows += 1;
    }
}

#[cfg(test)]
mod tests {
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
        let summary =
            run(input.path(), out.path(), Some(true), (None, None), |_, _, _| {}).unwrap();
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
        let stated = run(input.path(), out.path(), None, (Some(0.01), None), |_, _, _| {}).unwrap();
        let text = fs::read_to_string(out.path().join("group/web.csv")).unwrap();
        let (usual, fault): (Vec<(usize, &str)>, Vec<_>) =
            text.lines().enumerate().skip(1).partition(|(row, _)| *row <= 580);
        let alerts = |rows: &[(usize, &str)]| rows.iter().filter(|(_, line)| alert(line)).count();
        assert!(alerts(&usual) <= 5, "one in a hundred of 580: {stated:?}");
        assert!(alerts(&fault) >= 10, "{stated:?}");
        let stated =
            run(input.path(), out.path(), None, (Some(0.001), None), |_, _, _| {}).unwrap();
        assert_eq!(stated.entities[1].alert_rows, 0, "600 rows cannot tell one in a thousand");
        assert!(out.path().join("group/web.svg").is_file());
        assert!(out.path().join("summary.json").is_file());
    }

    #[test]
    fn whoever_goes_on_from_a_checkpoint_judges_as_if_nothing_had_moved() {
        let (input, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(input.path().join("web.csv"), series(600, 580)).unwrap();
        let judged = |handover| {
            run(input.path(), out.path(), None, (None, handover), |_, _, _| {}).unwrap();
            fs::read_to_string(out.path().join("web.csv")).unwrap()
        };
        let stays = judged(None);
        assert!(stays.lines().any(|line| line.split(',').nth(4) == Some("1")));
        // Among them at each row, and within the fault.
        for every in [1, 7, 290, 585] {
            assert_eq!(judged(Some(every)), stays, "every {every} rows");
        }
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
        let summary = run(input.path(), out.path(), None, (None, None), |_, _, _| {}).unwrap();
        let found: Vec<_> =
            summary.entities.iter().map(|one| (one.name.as_str(), one.rows, one.alerts)).collect();
        let expected =
            [("otel", 600, 1), ("range/web_.._a_80", 600, 1), ("range/web_b_80", 600, 1)];
        assert_eq!(found, expected);
        assert_eq!(summary.passed_over, [input.path().join("other.json")]);
        let text = fs::read_to_string(out.path().join("range/web_b_80.csv")).unwrap();
        assert!(text.lines().nth(1).unwrap().starts_with("0,2023-11-14T22:13:20Z,"), "{text}");
        // A file that is named is read, and says what is wrong with it.
        let other = input.path().join("other.json");
        let error =
            run(&other, out.path(), None, (None, None), |_, _, _| {}).unwrap_err().to_string();
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
            let error =
                run(input.path(), out.path(), None, (None, None), |_, _, _| {}).unwrap_err();
            assert!(error.to_string().ends_with(expected), "{error}");
        }
        fs::write(&path, format!("timestamp,v\n1,{}\n", "9".repeat(2 << 20))).unwrap();
        let error = run(input.path(), out.path(), None, (None, None), |_, _, _| {}).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        let error = run(empty.path(), out.path(), None, (None, None), |_, _, _| {}).unwrap_err();
        assert!(error.to_string().contains("holds no series"), "{error}");
    }
}
