//! Which files of a folder are series, and where their results go.
//!
//! * A folder with `test.csv` and `train.csv` (or `.csv.gz`) is one entity: `train` warms it up, `test`
//!   is judged, the result is `FOLDER.csv`. What else lies in it is not looked at.
//! * Any other `*.csv` or `*.csv.gz` with a column `timestamp` is one entity; the result has its name.
//! * A CSV without that column is passed over, and named in the summary.

use std::path::{Path, PathBuf};

use super::{BacktestError, csv::Table};

/// Folders below this are not looked into: a link back up would never end.
const DEPTH_MAX: usize = 16;
/// More files than this are more likely a mistaken path than a wish.
const FILES_MAX: usize = 100_000;

/// One entity to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Relative name without ending, `/` between folders.
    pub name: String,
    /// Rows that warm the detectors up and get no verdict.
    pub train: Option<PathBuf>,
    /// Rows to judge.
    pub rows: PathBuf,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In order of their names.
    pub inputs: Vec<Input>,
    /// CSV files that are no series.
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
        let name = stem(&name).unwrap_or(&name).to_owned();
        found.inputs.push(Input { name, train: None, rows: root.to_owned() });
    }
    if found.inputs.is_empty() {
        let expected = "*.csv or *.csv.gz files with a column `timestamp`, or folders with \
                        train.csv.gz beside test.csv.gz";
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
    let pair = |stem: &str| {
        let ending = [".csv", ".csv.gz"].map(|ending| folder.join(format!("{stem}{ending}")));
        ending.into_iter().find(|path| path.is_file())
    };
    if let (Some(train), Some(rows), false) = (pair("train"), pair("test"), prefix.is_empty()) {
        found.inputs.push(Input { name: prefix, train: Some(train), rows });
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
        } else if let Some(stem) = stem(&name) {
            if found.inputs.len() >= FILES_MAX || !Table::open(&path)?.has_timestamp() {
                found.passed_over.push(path);
            } else {
                found.inputs.push(Input { name: relative(stem), train: None, rows: path });
            }
        }
    }
    Ok(())
}

/// The name without `.csv` or `.csv.gz`.
fn stem(name: &str) -> Option<&str> {
    name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".csv")
}
