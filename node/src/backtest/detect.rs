//! `medic backtest detect`: what would have been raised.
//!
//! For each entity a CSV with `row,timestamp,anomaly_score,score,alert`, and one `summary.json` for all.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    BacktestError,
    csv::{Row, Table},
    inputs::{self, Input},
};
use crate::detection::detector::Panel;

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
    /// CSV files without a column `timestamp`.
    pub passed_over: Vec<PathBuf>,
}

/// Judges every series under `input` and writes the results under `out`. `progress` is told before each
/// entity: its number from 0, how many there are, its name.
///
/// # Errors
/// When something cannot be read or written, or its content makes no sense.
pub fn run(
    input: &Path,
    out: &Path,
    mut progress: impl FnMut(usize, usize, &str),
) -> Result<Summary, BacktestError> {
    let found = inputs::find(input)?;
    fs::create_dir_all(out).map_err(BacktestError::write(out))?;
    let mut summary = Summary { passed_over: found.passed_over, ..Summary::default() };
    for (number, input) in found.inputs.iter().enumerate() {
        progress(number, found.inputs.len(), &input.name);
        summary.entities.push(judge(input, out)?);
    }
    let path = out.join("summary.json");
    let text = serde_json::to_string_pretty(&summary).map_err(std::io::Error::other);
    text.and_then(|text| fs::write(&path, text + "\n")).map_err(BacktestError::write(&path))?;
    Ok(summary)
}

fn judge(input: &Input, out: &Path) -> Result<EntityResult, BacktestError> {
    let mut table = Table::open(&input.rows)?;
    let mut panel = Panel::new(table.metrics().len());
    let mut result = EntityResult {
        name: input.name.clone(),
        metrics: table.metrics().len(),
        ..EntityResult::default()
    };
    let mut row = Row::default();
    if let Some(path) = &input.train {
        let mut train = Table::open(path)?;
        if train.metrics() != table.metrics() {
            let problem = format!("the columns differ from those of {}", input.rows.display());
            return Err(BacktestError::Content { path: path.clone(), line: 1, problem });
        }
        while train.read(&mut row)? {
            panel.update(row.at_ms, &row.values);
            result.rows_train += 1;
        }
    }
    let path = out.join(format!("{}.csv", input.name));
    let failed = || BacktestError::write(path.clone());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed())?;
    }
    let mut file = BufWriter::new(File::create(&path).map_err(failed())?);
    writeln!(file, "row,timestamp,anomaly_score,score,alert").map_err(failed())?;
    let mut last_alert = None;
    while table.read(&mut row)? {
        let verdict = panel.update(row.at_ms, &row.values);
        let (number, stamp) = (result.rows, &row.timestamp);
        writeln!(
            file,
            "{number},{stamp},{},{},{}",
            verdict.anomaly,
            verdict.score,
            u8::from(verdict.alert)
        )
        .map_err(failed())?;
        if verdict.alert {
            result.alert_rows += 1;
            let again = last_alert.is_some_and(|last| number - last <= EVENT_GAP_ROWS);
            result.alerts += u64::from(!again);
            last_alert = Some(number);
        }
        result.values_missing += row.values.iter().filter(|value| value.is_nan()).count() as u64;
        result.anomaly_score_max = result.anomaly_score_max.max(verdict.anomaly);
        result.rows += 1;
    }
    file.flush().map_err(failed())?;
    Ok(result)
}
