//! `medic backtest detect`: what would have been raised.
//!
//! ```text
//!   rows ─┬► panel ──► NAME.csv: row,timestamp,anomaly_score,score,alert,p_value
//!         └► owner ──► NAME.findings.json: what an owner of the instance would have raised
//! ```
//!
//! and one `summary.json` for all. The panel is one voter of many: its `alert` is no finding.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use medic_state::Millis;
use serde::Serialize;

use super::{
    BacktestError,
    counters::Counters,
    csv::{Row, Table},
    findings::{Finding, Found, Owner},
    inputs::{self, Form, Input},
    places::{self, Files, ours::Sources},
    plot::Plot,
    series::Frame,
    watched::Declared,
    write_json,
};
use crate::detection::detector::{Panel, Verdict};

/// The name of what has neither job nor instance.
const UNNAMED: &str = "all";
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
    /// What would have been raised, by kind.
    pub findings: BTreeMap<String, u64>,
    /// The worst of it.
    pub worst: Vec<Finding>,
    /// What is to be known of how it was watched.
    pub notes: Vec<String>,
}

/// What became of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// In order of their names.
    pub entities: Vec<EntityResult>,
    /// CSV files without a column `timestamp`, and JSON that is no series.
    pub passed_over: Vec<PathBuf>,
}

/// How it is done.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Draw each; by default where there is but one.
    pub plots: Option<bool>,
    /// Alert where the p-value is at most this, instead of where the score is worth telling.
    pub alpha: Option<f64>,
    /// After each so many rows another panel goes on from the checkpoint of the one before, as when a shard
    /// moves.
    pub handover: Option<u64>,
    /// The service whose instances these are.
    pub service: Option<&'a Declared>,
    /// The panel alone: what would have been raised is not asked.
    pub scores_only: bool,
    /// What lies between two rows without times.
    pub step: Millis,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            plots: None,
            alpha: None,
            handover: None,
            service: None,
            scores_only: false,
            step: Millis::from_secs(60),
        }
    }
}

/// Judges every series under `input` and writes the results under `out`. `progress` is told before each
/// entity: its number from 0, how many there are, its name.
///
/// # Errors
/// When something cannot be read or written, or its content makes no sense.
pub fn run(
    input: &Path,
    out: &Path,
    options: &Options<'_>,
    mut progress: impl FnMut(usize, usize, &str),
) -> Result<Summary, BacktestError> {
    let found = inputs::find(input)?;
    let plots = options.plots.unwrap_or(found.inputs.len() == 1);
    let how = How { out, plots, options };
    let planned = places::plan(input, found.inputs, how.files())?;
    fs::create_dir_all(out).map_err(BacktestError::write(out))?;
    let mut summary = Summary { passed_over: found.passed_over, ..Summary::default() };
    let all = planned.len();
    for (number, mut planned) in planned.into_iter().enumerate() {
        progress(number, all, &planned.input.name);
        match planned.input.form {
            Form::Csv => summary.entities.push(of_table(&planned.input, how)?),
            Form::Json => {
                let frames = planned.frames()?;
                for (name, frame) in planned.names.iter().zip(&frames) {
                    summary.entities.push(of_frame(name, frame, how)?);
                }
            }
        }
    }
    write_json(&how.files().summary(), &summary)?;
    Ok(summary)
}

/// Judges entities that are in memory, as [`run`] does; results go by their names.
///
/// # Errors
/// When something cannot be written.
pub fn run_over(
    frames: &[Frame],
    out: &Path,
    options: &Options<'_>,
    mut progress: impl FnMut(usize, usize, &str),
) -> Result<Summary, BacktestError> {
    let mut taken = BTreeSet::new();
    let name = |frame: &Frame| match frame.entity.as_str() {
        "" => places::file_name(UNNAMED, &mut taken),
        entity => places::file_name(entity, &mut taken),
    };
    let names: Vec<String> = frames.iter().map(name).collect();
    let how = How { out, plots: options.plots.unwrap_or(frames.len() == 1), options };
    how.files().check(&names, &Sources::default())?;
    fs::create_dir_all(out).map_err(BacktestError::write(out))?;
    let mut summary = Summary::default();
    for (number, (name, frame)) in names.iter().zip(frames).enumerate() {
        progress(number, frames.len(), name);
        summary.entities.push(of_frame(name, frame, how)?);
    }
    write_json(&how.files().summary(), &summary)?;
    Ok(summary)
}

/// Where results go, and how they come about.
#[derive(Clone, Copy, Debug)]
struct How<'a> {
    out: &'a Path,
    plots: bool,
    options: &'a Options<'a>,
}

impl<'a> How<'a> {
    const fn files(self) -> Files<'a> {
        Files { out: self.out, findings: !self.options.scores_only, drawing: self.plots }
    }

    fn counters(self, metrics: &[String]) -> Counters {
        Counters::named(metrics, self.options.service, self.options.step)
    }

    /// Who would watch it, and what judges all its metrics.
    fn judges(self, name: &str, metrics: &[String], counters: Counters) -> Judges {
        let Options { service, scores_only, step, .. } = *self.options;
        let owner = || Owner::new(name, metrics, service, step, |at| counters.has(at));
        let owner = (!scores_only).then(owner);
        Judges { panel: Panel::new(metrics.len()), owner, counters }
    }
}

/// What sees the rows.
struct Judges {
    panel: Panel,
    owner: Option<Owner>,
    counters: Counters,
}

fn of_table(input: &Input, how: How<'_>) -> Result<EntityResult, BacktestError> {
    let mut table = Table::open(&input.rows)?;
    let metrics = table.metrics().to_vec();
    let mut counters = how.counters(&metrics);
    if !counters.is_empty() {
        for path in input.train.iter().chain([&input.rows]) {
            let mut table = Table::open(path)?;
            counters.look(|row| table.read(row))?;
        }
    }
    let mut judges = how.judges(&input.name, &metrics, counters.settled(&metrics));
    let mut rows_train = 0;
    if let Some(path) = &input.train {
        rows_train = warm_up(&mut judges, path, &table, input)?;
    }
    let mut result = judge(&input.name, &metrics, judges, |row| table.read(row), how)?;
    if let Some(column) = table.unnamed_time() {
        result.notes.push(format!(
            "column `{column}` is judged as a metric: if it says when a row was seen, call it `timestamp`"
        ));
    }
    Ok(EntityResult { rows_train, ..result })
}

fn of_frame(name: &str, frame: &Frame, how: How<'_>) -> Result<EntityResult, BacktestError> {
    let reader = || {
        let mut rows = 0..;
        move |row: &mut Row| {
            let found = rows.next().and_then(|at| frame.row(at));
            let more = found.is_some();
            *row = found.unwrap_or_default();
            Ok(more)
        }
    };
    let mut counters = if frame.rated { Counters::default() } else { how.counters(&frame.metrics) };
    if !counters.is_empty() {
        counters.look(reader())?;
    }
    let judges = how.judges(name, &frame.metrics, counters.settled(&frame.metrics));
    judge(name, &frame.metrics, judges, reader(), how)
}

/// Judges rows as `next` gives them; it says whether there was one.
fn judge(
    name: &str,
    metrics: &[String],
    Judges { mut panel, mut owner, mut counters }: Judges,
    mut next: impl FnMut(&mut Row) -> Result<bool, BacktestError>,
    how: How<'_>,
) -> Result<EntityResult, BacktestError> {
    let mut result =
        EntityResult { name: name.to_owned(), metrics: metrics.len(), ..EntityResult::default() };
    let path = places::of(how.out, name);
    let failed = || BacktestError::write(path.clone());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed())?;
    }
    let shown = |(at, name): (usize, &String)| {
        if counters.has(at) { format!("{name} /s") } else { name.clone() }
    };
    let mut plot =
        how.plots.then(|| Plot::new(&metrics.iter().enumerate().map(shown).collect::<Vec<_>>()));
    let mut file = BufWriter::new(File::create(&path).map_err(failed())?);
    writeln!(file, "{}", places::HEADER).map_err(failed())?;
    let (mut row, mut last_alert) = (Row::default(), None);
    while next(&mut row)? {
        let moves = |every: u64| result.rows > 0 && result.rows.is_multiple_of(every);
        if how.options.handover.is_some_and(moves) {
            let wrong = |problem| BacktestError::Content {
                path: path.clone(),
                line: result.rows + 1,
                problem,
            };
            panel = heir(&panel).map_err(wrong)?;
            owner.as_mut().map_or(Ok(()), Owner::moves).map_err(wrong)?;
        }
        result.values_missing += row.values.iter().filter(|value| value.is_nan()).count() as u64;
        counters.rate(&mut row);
        let mut verdict = panel.update(row.at_ms, &row.values);
        verdict.alert = match how.options.alpha {
            Some(alpha) => verdict.p_value <= alpha,
            None => verdict.alert || verdict.goes_on,
        };
        let Verdict { anomaly, score, alert, p_value, .. } = verdict;
        let (number, stamp, alert) = (result.rows, field(&row.timestamp), u8::from(alert));
        writeln!(file, "{number},{stamp},{anomaly:.9},{score:.6},{alert},{p_value:.3e}")
            .map_err(failed())?;
        if let Some(owner) = &mut owner {
            owner.row(&row);
        }
        if let Some(plot) = &mut plot {
            plot.add(&row.values, &verdict);
        }
        result.count(&verdict, &mut last_alert);
    }
    file.flush().map_err(failed())?;
    let found = owner.map(Owner::ended);
    if let Some(found) = &found {
        write_json(&path.with_extension("findings.json"), &found.findings)?;
        result.take(found);
    }
    result.notes.append(&mut counters.notes);
    if result.rows == 0 {
        result.notes.push("it holds no rows: nothing was judged".to_owned());
    }
    if let Some(plot) = plot {
        let path = path.with_extension("svg");
        let svg = match &found {
            Some(found) => plot.svg(name, &found.findings, &found.indicators),
            None => plot.svg(name, &[], &[]),
        };
        fs::write(&path, svg).map_err(BacktestError::write(&path))?;
    }
    Ok(result)
}

/// A detector that knows of the one before what it is told when a shard moves.
fn heir(panel: &Panel) -> Result<Panel, String> {
    let told = medic_state::codec::encode(panel);
    medic_state::codec::decode(&told).map_err(|error| format!("its checkpoint: {error}"))
}

fn warm_up(
    judges: &mut Judges,
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
        judges.counters.rate(&mut row);
        judges.panel.update(row.at_ms, &row.values);
        if let Some(owner) = &mut judges.owner {
            owner.warm_up(&row);
        }
        rows += 1;
    }
    judges.counters.begin_anew();
    if let Some(owner) = &mut judges.owner {
        owner.warmed_up();
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
    fn take(&mut self, found: &Found) {
        self.findings.clone_from(&found.by_kind);
        self.worst = found.worst();
        self.notes.clone_from(&found.notes);
    }

    fn count(&mut self, verdict: &Verdict, last_alert: &mut Option<u64>) {
        if verdict.alert {
            self.alert_rows += 1;
            let again = last_alert.is_some_and(|last| self.rows - last <= EVENT_GAP_ROWS);
            self.alerts += u64::from(!again);
            *last_alert = Some(self.rows);
        }
        self.anomaly_score_max = self.anomaly_score_max.max(verdict.anomaly);
        self.rows += 1;
    }
}

#[cfg(test)]
mod tests;
