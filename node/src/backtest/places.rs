//! Where results go: each has a place of its own, away from what is read, and what is no result is never written
//! over.
//!
//! ```text
//!   input web.csv, or web/ with train and test ─► OUT/web.csv         one name, one input: else an error that
//!   input web.json with one entity             ─► OUT/web.csv         names both
//!   input web.json with more                   ─► OUT/web/ENTITY.csv
//! ```
//!
//! Each is NAME.csv and, where they are wanted, NAME.findings.json and NAME.svg, with one summary.json for all. A file
//! that is there is written over where [`ours`] knows it for such a result, and never where it is read.
//!
//! All of it is known before anything is judged: a history of hours is not gone through only to fail at its end.

pub(super) mod ours;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Component, Path, PathBuf},
};

use self::ours::{Mark, Sources};
use super::{
    BacktestError,
    inputs::{Form, Input},
    plot,
    series::{self, Frame, POINTS_MAX},
};

/// The first line of every result.
pub(super) const HEADER: &str = "row,timestamp,anomaly_score,score,alert,p_value";
/// Points of several files that are kept until they are judged; of what is more, files are read again.
const KEPT_POINTS_MAX: usize = POINTS_MAX / 4;
/// Characters of an entity's name that its file has.
const FILE_NAME_MAX: usize = 120;

/// The results of one input, by name.
pub(super) fn names<'e>(
    input: &str,
    entities: impl ExactSizeIterator<Item = &'e str>,
) -> Vec<String> {
    if entities.len() == 1 {
        return vec![input.to_owned()];
    }
    let mut taken = BTreeSet::new();
    entities.map(|entity| format!("{input}/{}", file_name(entity, &mut taken))).collect()
}

/// An entity's name as that of a file; never twice the same.
pub(super) fn file_name(entity: &str, taken: &mut BTreeSet<String>) -> String {
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

/// The file of a result.
pub(super) fn of(out: &Path, name: &str) -> PathBuf {
    out.join(format!("{name}.csv"))
}

/// Which files results are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files<'a> {
    pub(super) out: &'a Path,
    pub(super) findings: bool,
    pub(super) drawing: bool,
}

impl Files<'_> {
    /// Where they are summed up.
    pub(super) fn summary(self) -> PathBuf {
        self.out.join("summary.json")
    }

    /// Sees to it that results by these names take the place of nothing but such results.
    ///
    /// # Errors
    /// When one would take that of something else.
    pub(super) fn check(self, names: &[String], sources: &Sources) -> Result<(), BacktestError> {
        ours::free(&self.summary(), Mark::Json(ours::is_summary), sources)?;
        for name in names {
            let path = of(self.out, name);
            ours::free(&path, Mark::Begins(&[HEADER]), sources)?;
            if self.findings {
                let path = path.with_extension("findings.json");
                ours::free(&path, Mark::Json(ours::is_findings), sources)?;
            }
            if self.drawing {
                ours::free(&path.with_extension("svg"), Mark::Begins(&[plot::MARK]), sources)?;
            }
        }
        Ok(())
    }
}

/// An input, and where its results go.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) input: Input,
    /// Of its results, in the order of its entities.
    pub(super) names: Vec<String>,
    /// The entities of JSON, where they are kept.
    frames: Option<Vec<Frame>>,
}

impl Planned {
    /// The entities of JSON.
    ///
    /// # Errors
    /// When they cannot be read, or are others than those that have places.
    pub(super) fn frames(&mut self) -> Result<Vec<Frame>, BacktestError> {
        if let Some(frames) = self.frames.take() {
            return Ok(frames);
        }
        let frames = series::read(&self.input.rows)?;
        if names_of(&self.input, &frames) == self.names {
            return Ok(frames);
        }
        let problem = "it holds other entities than when it was first read".to_owned();
        Err(BacktestError::Content { path: self.input.rows.clone(), line: 1, problem })
    }
}

fn names_of(input: &Input, frames: &[Frame]) -> Vec<String> {
    names(&input.name, frames.iter().map(|frame| frame.entity.as_str()))
}

/// Gives the results of these inputs their places.
///
/// # Errors
/// When two share one, one is taken by what is no result, or they would lie among what is read.
pub(super) fn plan(
    root: &Path,
    inputs: Vec<Input>,
    files: Files<'_>,
) -> Result<Vec<Planned>, BacktestError> {
    let below = if root.is_dir() { Some(real(root)?) } else { None };
    let outside = |folder: &Path| match &below {
        Some(below) if real(folder)?.starts_with(below) => {
            Err(BacktestError::Inside { out: folder.to_owned(), input: root.to_owned() })
        }
        _ => Ok(()),
    };
    outside(files.out)?;
    let read = inputs.iter().flat_map(|input| input.train.iter().chain([&input.rows]));
    let sources = Sources::of(read)?;
    let (alone, mut kept) = (inputs.len() == 1, 0);
    let mut taken: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut planned = Vec::new();
    for input in inputs {
        let (names, frames) = match input.form {
            Form::Csv => (vec![input.name.clone()], None),
            Form::Json => {
                let frames = series::read(&input.rows)?;
                let points: usize =
                    frames.iter().map(|frame| frame.rows.len() * frame.metrics.len()).sum();
                let keeps = alone || kept + points <= KEPT_POINTS_MAX;
                kept += if keeps { points } else { 0 };
                (names_of(&input, &frames), keeps.then_some(frames))
            }
        };
        for name in &names {
            if let Some(first) = taken.insert(name.clone(), input.rows.clone()) {
                let (name, second) = (name.clone(), input.rows);
                return Err(BacktestError::Clash { name, first, second });
            }
            outside(of(files.out, name).parent().unwrap_or(files.out))?;
        }
        files.check(&names, &sources)?;
        planned.push(Planned { input, names, frames });
    }
    Ok(planned)
}

/// A path without links, as far as it is there.
pub(super) fn real(path: &Path) -> Result<PathBuf, BacktestError> {
    let whole = std::path::absolute(path).map_err(BacktestError::read(path))?;
    let mut there = whole.as_path();
    let mut real = loop {
        match (there.canonicalize(), there.parent()) {
            (Ok(real), _) => break real,
            (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
                there = parent;
            }
            (Err(error), _) => return Err(BacktestError::read(path)(error)),
        }
    };
    for part in whole.strip_prefix(there).unwrap_or(Path::new("")).components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            other => real.push(other),
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests;
