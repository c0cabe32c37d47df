//! `medic backtest predict`: how far ahead would a model of your own units have seen?
//!
//! Not what a node foretells live, which [`super::detect`] shows: a calibrated learner for histories that no node
//! has. Learns from a history of units and is asked about units it has not seen (cross-validation by unit),
//! so every figure is one of the future. Two kinds of history, told apart by a column of events:
//!
//! * with one: will a unit fail within the horizon? `row,<unit>,<time>,probability`
//! * without: every unit was run until it failed. How long will it last?
//!   `<unit>,<time>,rul,lower,upper`

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    BacktestError,
    history::{self, Columns, Read},
    places::ours::{self, Mark, Sources},
    write_json,
};
use crate::detection::predict::{
    figures::{self, FailureFigures, LifeFigures},
    hazard, life,
};

/// What is to be foreseen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Question {
    /// Failing within this time.
    Failure {
        /// In the unit of the time column.
        horizon: f64,
    },
    /// The remaining life, up to a cap.
    Life {
        /// Longer lives count as this long.
        cap: f64,
    },
}

/// Share of the time that an interval of a life holds.
pub const INTERVAL: f64 = 0.9;
/// Healthy units that may be warned of in vain, as a share.
pub const FALSE_ALARMS: f64 = 0.01;

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Units of the history.
    pub units: usize,
    /// Rows of it.
    pub rows: usize,
    /// Columns learned from.
    pub inputs: Vec<String>,
    /// For failures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureFigures>,
    /// For lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub life: Option<LifeFigures>,
    /// Where the predictions are.
    pub predictions: PathBuf,
}

/// Predicts every row of a history by models that have not seen its unit. `progress` is told before
/// each fold: its number from 0, and how many there are.
///
/// # Errors
/// When something cannot be read or written, or its content makes no sense.
pub fn run(
    input: &Path,
    out: &Path,
    columns: &Columns,
    question: Question,
    folds: usize,
    mut progress: impl FnMut(usize, usize),
) -> Result<Summary, BacktestError> {
    let path = if input.is_dir() { input.join("train.csv.gz") } else { input.to_owned() };
    let (predictions, summed) = (out.join("predictions.csv"), out.join("summary.json"));
    let heads = [failure_head(columns), life_head(columns)].map(|head| csv_line(&head));
    let sources = Sources::of([&path])?;
    ours::free(&predictions, Mark::Begins(&[&heads[0], &heads[1]]), &sources)?;
    ours::free(&summed, Mark::Json(ours::is_predicted), &sources)?;
    let read = history::read(&path, columns)?;
    let units = read.history.units.len();
    if units < folds {
        let problem = format!("{units} units are too few for {folds} folds: each needs a unit");
        return Err(BacktestError::Content { path, line: 1, problem });
    }
    fs::create_dir_all(out).map_err(BacktestError::write(out))?;
    let mut summary = Summary {
        units,
        rows: read.history.rows(),
        inputs: read.inputs.clone(),
        failure: None,
        life: None,
        predictions: predictions.clone(),
    };
    let lines = match question {
        Question::Failure { horizon } => {
            let (labels, outcomes) =
                (hazard::labels(&read.history, &read.outcomes, horizon), &read.outcomes);
            let probability =
                hazard::cross_validated(&read.history, outcomes, horizon, folds, |turn| {
                    progress(turn, folds);
                });
            let figures = figures::of_failures(&read.history, &labels, &probability, FALSE_ALARMS);
            summary.failure = Some(figures);
            failure_lines(&read, columns, &probability)
        }
        Question::Life { cap } => {
            let lives = life::cross_validated(&read.history, cap, INTERVAL, folds, |turn| {
                progress(turn, folds);
            });
            let truths = life::truths(&read.history, cap);
            summary.life = Some(figures::of_lives(&truths, &lives));
            life_lines(&read, columns, &lives)
        }
    };
    write(&predictions, lines).map_err(BacktestError::write(&predictions))?;
    write_json(&summed, &summary)?;
    Ok(summary)
}

fn failure_head(Columns { unit, time, .. }: &Columns) -> Vec<String> {
    ["row", unit, time, "probability"].map(str::to_owned).to_vec()
}

fn life_head(Columns { unit, time, .. }: &Columns) -> Vec<String> {
    [unit, time, "rul", "lower", "upper"].map(str::to_owned).to_vec()
}

/// As it is written, without the end of the line.
fn csv_line(fields: &[String]) -> String {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    // Neither can fail in memory.
    let written = writer.write_record(fields).ok().and_then(|()| writer.into_inner().ok());
    String::from_utf8(written.unwrap_or_default()).unwrap_or_default().trim_end().to_owned()
}

fn failure_lines(read: &Read, columns: &Columns, probability: &[f32]) -> Vec<Vec<String>> {
    let rows = (0..probability.len()).map(|row| {
        let p = format!("{:.6}", probability[row]);
        vec![read.keys[row].clone(), read.names[row].clone(), read.times[row].clone(), p]
    });
    std::iter::once(failure_head(columns)).chain(rows).collect()
}

fn life_lines(read: &Read, columns: &Columns, lives: &[life::Life]) -> Vec<Vec<String>> {
    let rows = lives.iter().enumerate().map(|(row, life)| {
        let mut line = vec![read.names[row].clone(), read.times[row].clone()];
        line.extend([life.expected, life.lower, life.upper].map(|value| format!("{value:.3}")));
        line
    });
    std::iter::once(life_head(columns)).chain(rows).collect()
}

fn write(path: &Path, lines: Vec<Vec<String>>) -> std::io::Result<()> {
    let mut writer = ::csv::Writer::from_writer(BufWriter::new(File::create(path)?));
    for line in lines {
        writer.write_record(line).map_err(std::io::Error::other)?;
    }
    writer.into_inner().map_err(|error| error.into_error())?.flush()
}
