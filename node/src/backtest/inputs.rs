//! Which files of a folder are series, and where their results go.
//!
//! * A folder with `test.csv` and `train.csv` (or `.csv.gz`) is one entity: `train` warms it up, `test`
//!   is judged, the result is `FOLDER.csv`. What else lies in it is not looked at.
//! * Any other `*.csv` or `*.csv.gz` with a column `timestamp` is one entity; the result has its name.
//! * A `*.json` or `*.jsonl` (or `.gz` of it) that begins like the answer to a range query of Prometheus
//!   or like lines of OTLP metrics holds one entity or more: see [`super::series`].
//! * A CSV without that column is passed over, as are results of a backtest and other JSON, and named in the
//!   summary.

use std::path::{Path, PathBuf};

use super::{BacktestError, csv::Table, series};

/// Folders below this are not looked into: a link back up would never end.
const DEPTH_MAX: usize = 16;
/// More files than this are more likely a mistaken path than a wish.
const FILES_MAX: usize = 100_000;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One entity, rows of CSV.
    Csv,
    /// Entities in JSON.
    Json,
}

/// One file to be judged: an entity, or with [`Form::Json`] maybe more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Relative name without ending, `/` between folders.
    pub name: String,
    /// Rows that warm the detectors up and get no verdict.
    pub train: Option<PathBuf>,
    /// Rows to judge.
    pub rows: PathBuf,
    /// What that file is.
    pub form: Form,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In order of their names.
    pub inputs: Vec<Input>,
    /// CSV and JSON files that are no series.
    pub passed_over: Vec<PathBuf>,
}

/// Looks through a folder, or takes a single file.
///
/// # Errors
/// When something cannot be read, or there is nothing to judge.
pub fn find(root: &Path) -> Result<Found, BacktestError> {
    let mut found = Found::default();
    if root.is_dir() {
        walk(root, String::new(), 0, &mut found)?;
    } else {
        let name = root.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let (name, form) = stem(&name).unwrap_or((&name, Form::Csv));
        let rows = root.to_owned();
        found.inputs.push(Input { name: name.to_owned(), train: None, rows, form });
    }
    if found.inputs.is_empty() {
        let expected = "*.csv or *.csv.gz files with a column `timestamp`, folders with \
                        train.csv.gz beside test.csv.gz, answers to range queries (*.json) or OTLP \
                        metrics (*.jsonl)";
        return Err(BacktestError::Nothing { path: root.to_owned(), expected });
    }
    found.inputs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk(
    folder: &Path,
    prefix: String,
    depth: usize,
    found: &mut Found,
) -> Result<(), BacktestError> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
        .map_err(BacktestError::read(folder))?;
    entries.sort();
    let all = |stem: &str| -> Vec<PathBuf> {
        let ending = [".csv", ".csv.gz"].map(|ending| folder.join(format!("{stem}{ending}")));
        ending.into_iter().filter(|path| path.is_file()).collect()
    };
    let (mut train, mut rows) = (all("train"), all("test"));
    if let (Some(first), Some(judged), false) = (train.pop(), rows.pop(), prefix.is_empty()) {
        for (other, one) in [(train.pop(), &first), (rows.pop(), &judged)] {
            if let Some(other) = other {
                return Err(BacktestError::Either { first: other, second: one.clone() });
            }
        }
        found.inputs.push(Input {
            name: prefix,
            train: Some(first),
            rows: judged,
            form: Form::Csv,
        });
        return Ok(());
    }
    for path in entries {
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            continue;
        };
        let relative = |stem: &str| match prefix.as_str() {
            "" => stem.to_owned(),
            prefix => format!("{prefix}/{stem}"),
        };
        if path.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, relative(&name), depth + 1, found)?;
            }
        } else if let Some((stem, form)) = stem(&name) {
            let fits = found.inputs.len() < FILES_MAX
                && match form {
                    Form::Csv => Table::open(&path)?.is_history(),
                    Form::Json => series::is_one(&path)?,
                };
            if fits {
                found.inputs.push(Input { name: relative(stem), train: None, rows: path, form });
            } else {
                found.passed_over.push(path);
            }
        }
    }
    Ok(())
}

/// The name without its ending, and what that says.
fn stem(name: &str) -> Option<(&str, Form)> {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    let forms = [(".csv", Form::Csv), (".json", Form::Json), (".jsonl", Form::Json)];
    forms.into_iter().find_map(|(ending, form)| Some((plain.strip_suffix(ending)?, form)))
}
