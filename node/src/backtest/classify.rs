//! `medic backtest classify`: how far do your own incidents tell their classes?
//!
//! Not how a node classes live, which is by rules. Learns from labelled incidents and is asked about others
//! (cross-validation). Per folder with a `truth.csv` one `predictions.csv`
//! (`case,predicted,confidence,abstain,cause`), and one `summary.json`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    BacktestError,
    cases::{self, Cases},
    places::{
        ours::{self, Mark, Sources},
        real,
    },
    write_json,
};
use crate::intelligence::cases::{Verdict, cross_validated};

/// Folders below the input are looked into this deep.
const DEPTH_MAX: usize = 4;
/// The first line of what is predicted.
const HEAD: [&str; 5] = ["case", "predicted", "confidence", "abstain", "cause"];

/// How one folder's incidents were classed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FolderResult {
    /// Relative name.
    pub name: String,
    /// Incidents.
    pub cases: usize,
    /// Kinds of fault.
    pub classes: usize,
    /// Share of all that were given their right class.
    pub accuracy: f64,
    /// Share that was answered.
    pub coverage: f64,
    /// Share of the answers that were right; absent when there was none.
    pub selective_accuracy: Option<f64>,
    /// Share of all whose first instance was named.
    pub cause: f64,
}

/// How all were.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// By name.
    pub folders: Vec<FolderResult>,
}

/// Classifies the incidents of every folder at or below `input` that has a `truth.csv`. An answer is
/// given where answers were right at least `accuracy` of the times.
///
/// # Errors
/// When something cannot be read or written, or its content makes no sense.
pub fn run(
    input: &Path,
    out: &Path,
    folds: usize,
    accuracy: f64,
    mut progress: impl FnMut(&str),
) -> Result<Summary, BacktestError> {
    let mut folders = Vec::new();
    find(input, DEPTH_MAX, &mut folders)?;
    if folders.is_empty() {
        let expected = "a folder with truth.csv (case, truth, instance) and what was seen";
        return Err(BacktestError::Nothing { path: input.to_owned(), expected });
    }
    let summed = check(input, out, &folders)?;
    let mut summary = Summary::default();
    for folder in folders {
        let below = folder.strip_prefix(input).unwrap_or(&folder);
        let name =
            if below.as_os_str().is_empty() { ".".into() } else { below.display().to_string() };
        progress(&name);
        let read = cases::read(&folder)?;
        if read.cases.len() < 2 * folds {
            let problem = format!("{} cases are too few for {folds} folds", read.cases.len());
            let path = folder.join("truth.csv");
            return Err(BacktestError::Content { path, line: 1, problem });
        }
        let classes = read.classes.len();
        let verdicts =
            cross_validated(&read.cases, &read.labels, classes, (folds, accuracy), |_| ());
        let target = out.join(below);
        fs::create_dir_all(&target).map_err(BacktestError::write(&target))?;
        let path = target.join("predictions.csv");
        write(&path, &read, &verdicts).map_err(BacktestError::write(&path))?;
        summary.folders.push(figures(name, &read, &verdicts));
    }
    write_json(&summed, &summary)?;
    Ok(summary)
}

/// Sees to it that results take the place of nothing but such results, and lie in no folder that is read; where they
/// are summed up.
fn check(input: &Path, out: &Path, folders: &[PathBuf]) -> Result<PathBuf, BacktestError> {
    let read: BTreeMap<PathBuf, &PathBuf> =
        folders.iter().map(|folder| Ok((real(folder)?, folder))).collect::<Result<_, _>>()?;
    let outside = |target: &Path| match read.get(&real(target)?) {
        Some(folder) => {
            Err(BacktestError::Inside { out: target.to_owned(), input: (*folder).clone() })
        }
        None => Ok(()),
    };
    let (summed, sources) = (out.join("summary.json"), Sources::default());
    outside(out)?;
    ours::free(&summed, Mark::Json(ours::is_classified), &sources)?;
    let head = HEAD.join(",");
    for folder in folders {
        let target = out.join(folder.strip_prefix(input).unwrap_or(folder));
        outside(&target)?;
        ours::free(&target.join("predictions.csv"), Mark::Begins(&[&head]), &sources)?;
    }
    Ok(summed)
}

fn find(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), BacktestError> {
    if folder.join("truth.csv").is_file() {
        found.push(folder.to_owned());
    }
    if depth == 0 {
        return Ok(());
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(folder).map_err(BacktestError::read(folder))? {
        let path = entry.map_err(BacktestError::read(folder))?.path();
        if path.is_dir() {
            below.push(path);
        }
    }
    below.sort();
    below.iter().try_for_each(|path| find(path, depth - 1, found))
}

fn figures(name: String, read: &Cases, verdicts: &[Verdict]) -> FolderResult {
    let count = verdicts.len();
    let pairs = || verdicts.iter().zip(&read.labels);
    let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
    let answered = verdicts.iter().filter(|verdict| !verdict.abstain).count();
    let right = pairs().filter(|(verdict, label)| verdict.class == label.class).count();
    let right_answers = pairs().filter(|(v, label)| !v.abstain && v.class == label.class).count();
    let causes = pairs().filter(|(v, label)| v.cause.is_some() && v.cause == label.cause).count();
    FolderResult {
        name,
        cases: count,
        classes: read.classes.len(),
        accuracy: share(right, count),
        coverage: share(answered, count),
        selective_accuracy: (answered > 0).then(|| share(right_answers, answered)),
        cause: share(causes, count),
    }
}

fn write(path: &Path, read: &Cases, verdicts: &[Verdict]) -> std::io::Result<()> {
    let mut writer = ::csv::Writer::from_writer(BufWriter::new(File::create(path)?));
    writer.write_record(HEAD).map_err(std::io::Error::other)?;
    for (at, verdict) in verdicts.iter().enumerate() {
        let cause = verdict.cause.map_or("", |cause| read.cases[at].entities[cause].name.as_str());
        let confidence = format!("{:.4}", verdict.confidence);
        let abstain = if verdict.abstain { "1" } else { "0" };
        let predicted = read.classes.get(verdict.class).map_or("", String::as_str);
        let line = [read.names[at].as_str(), predicted, &confidence, abstain, cause];
        writer.write_record(line).map_err(std::io::Error::other)?;
    }
    writer.into_inner().map_err(|error| error.into_error())?.flush()
}
