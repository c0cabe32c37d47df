//! Whether a file may be written over: it is a result of before, and nothing that is read now.
//!
//! | file | is a result where it |
//! |---|---|
//! | NAME.csv, predictions.csv | begins with the header that is written |
//! | NAME.svg | begins with the remark that drawings begin with |
//! | NAME.findings.json | is a list of findings, by their keys |
//! | summary.json | is a summary of the same kind of backtest, by its keys |
//!
//! An empty file is nobody's. What is cut short, or of a build that had no mark yet, is not known, and stays.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::super::BacktestError;

/// How a result is known again.
#[derive(Clone, Copy, Debug)]
pub(in crate::backtest) enum Mark<'a> {
    /// It begins with one of these lines.
    Begins(&'a [&'a str]),
    /// It is JSON that this knows.
    Json(fn(BufReader<File>) -> bool),
}

/// Files that are read, whatever they are called: links do not hide them.
#[derive(Clone, Debug, Default)]
pub(in crate::backtest) struct Sources(BTreeSet<(u64, u64)>);

impl Sources {
    /// Of these.
    ///
    /// # Errors
    /// When one is not there.
    pub(in crate::backtest) fn of(
        paths: impl IntoIterator<Item = impl AsRef<Path>>,
    ) -> Result<Self, BacktestError> {
        let id = |path: &Path| {
            let found = fs::metadata(path).map_err(BacktestError::read(path))?;
            Ok((found.dev(), found.ino()))
        };
        paths.into_iter().map(|path| id(path.as_ref())).collect::<Result<_, _>>().map(Self)
    }
}

/// Whether a result may be written there: nothing is, or a result of before.
///
/// # Errors
/// When something else is.
pub(in crate::backtest) fn free(
    path: &Path,
    mark: Mark<'_>,
    sources: &Sources,
) -> Result<(), BacktestError> {
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BacktestError::read(path)(error)),
    };
    if sources.0.contains(&(found.dev(), found.ino())) {
        return Err(BacktestError::IsRead { path: path.to_owned() });
    }
    if found.is_file() && (found.len() == 0 || is_marked(path, mark)?) {
        return Ok(());
    }
    Err(BacktestError::NoResult { path: path.to_owned() })
}

fn is_marked(path: &Path, mark: Mark<'_>) -> Result<bool, BacktestError> {
    let mut file = BufReader::new(File::open(path).map_err(BacktestError::read(path))?);
    let lines = match mark {
        Mark::Begins(lines) => lines,
        Mark::Json(knows) => return Ok(knows(file)),
    };
    let longest = lines.iter().map(|line| line.len() + 1).max().unwrap_or(0);
    let mut begun = Vec::new();
    let read = file.by_ref().take(longest as u64).read_to_end(&mut begun);
    read.map_err(BacktestError::read(path))?;
    let begins = |line: &&str| {
        begun.strip_prefix(line.as_bytes()).is_some_and(|rest| matches!(rest, [] | [b'\n', ..]))
    };
    Ok(lines.iter().any(begins))
}

#[expect(dead_code, reason = "keys that are there")]
#[derive(Deserialize)]
struct FindingKeys {
    kind: IgnoredAny,
    severity: IgnoredAny,
    summary: IgnoredAny,
    p_value: IgnoredAny,
    row: IgnoredAny,
    rows: IgnoredAny,
    signals: IgnoredAny,
}

#[expect(dead_code, reason = "keys that are there")]
#[derive(Deserialize)]
struct SummaryKeys {
    entities: Vec<EntityKeys>,
    passed_over: Vec<IgnoredAny>,
}

#[expect(dead_code, reason = "keys that are there")]
#[derive(Deserialize)]
struct EntityKeys {
    name: IgnoredAny,
    rows_train: IgnoredAny,
    rows: IgnoredAny,
    alert_rows: IgnoredAny,
    anomaly_score_max: IgnoredAny,
}

#[expect(dead_code, reason = "keys that are there")]
#[derive(Deserialize)]
struct PredictedKeys {
    units: IgnoredAny,
    rows: IgnoredAny,
    inputs: IgnoredAny,
    predictions: IgnoredAny,
}

#[expect(dead_code, reason = "keys that are there")]
#[derive(Deserialize)]
struct ClassifiedKeys {
    folders: Vec<FolderKeys>,
}

#[expect(dead_code, reason = "keys that are there")]
#[derive(Deserialize)]
struct FolderKeys {
    name: IgnoredAny,
    cases: IgnoredAny,
    classes: IgnoredAny,
    accuracy: IgnoredAny,
    coverage: IgnoredAny,
    cause: IgnoredAny,
}

fn reads<T: DeserializeOwned>(file: BufReader<File>) -> bool {
    serde_json::from_reader::<_, T>(file).is_ok()
}

pub(in crate::backtest) fn is_findings(file: BufReader<File>) -> bool {
    reads::<Vec<FindingKeys>>(file)
}

pub(in crate::backtest) fn is_summary(file: BufReader<File>) -> bool {
    reads::<SummaryKeys>(file)
}

/// Of what was predicted.
pub(in crate::backtest) fn is_predicted(file: BufReader<File>) -> bool {
    reads::<PredictedKeys>(file)
}

/// Of what was classed.
pub(in crate::backtest) fn is_classified(file: BufReader<File>) -> bool {
    reads::<ClassifiedKeys>(file)
}
