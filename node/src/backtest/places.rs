//! Where results go: each has a place of its own, away from what is read, and what is no result is never written
//! over.
//!
//! ```text
//!   input web.csv, or web/ with train and test ─► OUT/web.csv         one name, one input: else an error that
//!   input web.json with one entity             ─► OUT/web.csv         names both
//!   input web.json with more                   ─► OUT/web/ENTITY.csv
//! ```
//!
//! All of it is known before anything is judged: a history of hours is not gone through only to fail at its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use super::{
    BacktestError,
    inputs::{Form, Input},
    series,
};

/// The first line of every result.
pub(super) const HEADER: &str = "row,timestamp,anomaly_score,score,alert,p_value";
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

/// Sees to it that the results of these inputs have places.
///
/// # Errors
/// When two share one, one is taken by what is no result, or they would lie among what is read.
pub(super) fn check(root: &Path, out: &Path, inputs: &[Input]) -> Result<(), BacktestError> {
    if root.is_dir() && real(out)?.starts_with(real(root)?) {
        return Err(BacktestError::Inside { out: out.to_owned(), input: root.to_owned() });
    }
    let mut taken: BTreeMap<String, &Path> = BTreeMap::new();
    for input in inputs {
        let of_input = match input.form {
            Form::Csv => vec![input.name.clone()],
            // Its entities are told apart from each other, and there is nobody else.
            Form::Json if inputs.len() == 1 => Vec::new(),
            Form::Json => {
                let frames = series::read(&input.rows)?;
                names(&input.name, frames.iter().map(|frame| frame.entity.as_str()))
            }
        };
        for name in of_input {
            free(&of(out, &name))?;
            if let Some(first) = taken.insert(name.clone(), &input.rows) {
                let (first, second) = (first.to_owned(), input.rows.clone());
                return Err(BacktestError::Clash { name, first, second });
            }
        }
    }
    Ok(())
}

/// Whether a result may be written there: nothing is, or a result of before.
///
/// # Errors
/// When something else is.
pub(super) fn free(path: &Path) -> Result<(), BacktestError> {
    let mut begun = Vec::new();
    match File::open(path) {
        Ok(file) => {
            let read = file.take(HEADER.len() as u64).read_to_end(&mut begun);
            read.map_err(BacktestError::read(path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(BacktestError::read(path)(error)),
    }
    if begun.is_empty() || begun == HEADER.as_bytes() {
        return Ok(());
    }
    Err(BacktestError::NoResult { path: path.to_owned() })
}

/// A path without links, as far as it is there.
fn real(path: &Path) -> Result<PathBuf, BacktestError> {
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::{super::inputs::find, *};

    /// One look of one or more instances.
    fn answer(instances: &[&str]) -> String {
        let series = instances.iter().map(|name| {
            format!(r#"{{"metric":{{"__name__":"up","instance":"{name}"}},"values":[[1,"1"]]}}"#)
        });
        let series: Vec<String> = series.collect();
        format!(r#"{{"data":{{"resultType":"matrix","result":[{}]}}}}"#, series.join(","))
    }

    const CSV: &str = "timestamp,v\n1,2\n";

    /// What is said of a folder with these files.
    fn said(files: &[(&str, &str)]) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (folder.path().join("in"), folder.path().join("out"));
        for (name, text) in files {
            let path = input.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = find(&input).map_err(|error| error.to_string())?;
        let checked = check(&input, &out, &found.inputs).map_err(|error| error.to_string());
        assert!(!out.exists(), "nothing is written");
        let real = |text: String| text.replace(input.to_str().unwrap(), "in");
        checked.map_err(real)
    }

    #[test]
    fn two_inputs_never_share_a_result() {
        let (one, two) = (answer(&["a"]), answer(&["a", "b"]));
        let expected = |first: &str, second: &str, name: &str| {
            Err(format!(
                "`in/{first}` and `in/{second}` would both have their results in `{name}.csv`: rename one of \
                 them, or judge each with an --out of its own"
            ))
        };
        for (files, clash) in [
            (vec![("web.csv", CSV), ("web.json", &one)], expected("web.csv", "web.json", "web")),
            (vec![("web.csv", CSV), ("web.csv.gz", CSV)], expected("web.csv", "web.csv.gz", "web")),
            (
                vec![("x/train.csv", CSV), ("x/test.csv", CSV), ("x.csv", CSV)],
                expected("x/test.csv", "x.csv", "x"),
            ),
            (
                vec![("x/train.csv", CSV), ("x/test.csv", CSV), ("x/test.csv.gz", CSV)],
                Err("".to_owned()),
            ),
            (
                vec![("web.json", &two), ("web/b.csv", CSV)],
                expected("web.json", "web/b.csv", "web/b"),
            ),
            (
                vec![("web.json", &two), ("web.jsonl", &two)],
                expected("web.json", "web.jsonl", "web/a"),
            ),
        ] {
            let told = said(&files);
            match clash {
                Err(text) if text.is_empty() => {
                    let told = told.unwrap_err();
                    assert!(
                        told.contains("test.csv` and `") && told.contains("test.csv.gz`"),
                        "{told}"
                    );
                }
                clash => assert_eq!(told, clash),
            }
        }
        // Where they share a name and no result, none is in the way of another.
        assert_eq!(said(&[("web.csv", CSV), ("web.json", &two), ("web/c.csv", CSV)]), Ok(()));
    }

    #[test]
    fn results_lie_outside_of_what_is_read_by_whatever_path() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in");
        fs::create_dir_all(input.join("deep")).unwrap();
        fs::write(input.join("web.csv"), CSV).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(input.join("deep"), &link).unwrap();
        let inside = |out: &Path| {
            let checked = check(&input, out, &find(&input).unwrap().inputs);
            matches!(checked, Err(BacktestError::Inside { .. }))
        };
        for out in ["in", "in/out", "in/deep/new/out", "other/../in", "in/../in/out", "link/out"] {
            assert!(inside(&folder.path().join(out)), "{out}");
        }
        for out in ["out", "in-out", "in/../out", "link/../new"] {
            // `..` of a link is the parent of what it leads to.
            assert_eq!(inside(&folder.path().join(out)), out == "link/../new", "{out}");
        }
    }

    #[test]
    fn what_is_no_result_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.csv");
        let said = |text: &str| {
            fs::write(&path, text).unwrap();
            free(&path)
        };
        assert!(free(&path).is_ok() && said("").is_ok());
        assert!(said(&format!("{HEADER}\n0,1,0,0,0,1\n")).is_ok());
        let error = said(CSV).unwrap_err().to_string();
        assert!(error.contains("web.csv is there, and no result"), "{error}");
        let found = find(&path).unwrap();
        let checked = check(&path, folder.path(), &found.inputs);
        assert!(matches!(checked, Err(BacktestError::NoResult { .. })), "a file beside its result");
    }

    #[test]
    fn results_of_before_are_no_histories() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.csv"), CSV).unwrap();
        let old = folder.path().join("old.csv");
        fs::write(&old, format!("{HEADER}\n0,1,0,0,0,1\n")).unwrap();
        let found = find(folder.path()).unwrap();
        assert_eq!((found.inputs.len(), found.passed_over), (1, vec![old.clone()]));
        assert_eq!(find(&old).unwrap().inputs.len(), 1, "one that is named is meant");
    }
}
