//! Past incidents, read from a folder: `truth.csv` with case, truth and instance, and what was seen.
//!
//! * `*.json`: by case, lists of words. Words that name an instance say whom it concerns, the others what
//!   it is; `nodes.json` and `edges.json` name the instances and, as pairs of places, who calls whom.
//! * or `faults.csv` (or `times.csv`) with case and time_unix, and `*.csv` with time_unix, a column of
//!   names and metrics: signs are the metrics that stand out against the half hour before.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    BacktestError,
    csv::{content, reader},
    departures,
};
use crate::intelligence::cases::{Case, Entity, Label, Sign};

/// A file of signs larger than this is no list of alerts.
const JSON_BYTES_MAX: u64 = 1 << 30;
/// Files that are no signs.
const NO_SIGNS: [&str; 2] = ["nodes.json", "edges.json"];

/// Labelled cases.
#[derive(Clone, Debug, Default)]
pub struct Cases {
    /// Names, in the order of truth.csv.
    pub names: Vec<String>,
    /// What was seen.
    pub cases: Vec<Case>,
    /// What they were.
    pub labels: Vec<Label>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

/// One line of truth.csv.
pub(super) struct Truth {
    pub(super) case: String,
    class: String,
    instance: String,
}

/// Reads a folder.
///
/// # Errors
/// When a file cannot be read or makes no sense, or there is nothing to see.
pub fn read(folder: &Path) -> Result<Cases, BacktestError> {
    let truths = truths(&folder.join("truth.csv"))?;
    let entries = fs::read_dir(folder).map_err(BacktestError::read(folder))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(BacktestError::read(folder))?.path());
    }
    paths.sort();
    let named = |path: &PathBuf, names: &[&str]| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(&name))
    };
    let signs: Vec<&PathBuf> = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .filter(|path| !named(path, &NO_SIGNS))
        .collect();
    let times = paths.iter().find(|path| named(path, &["times.csv", "faults.csv"]));
    let cases = match (signs.is_empty(), times) {
        (false, _) => from_lists(folder, &truths, &signs)?,
        (true, Some(times)) => departures::read(times, &paths, &truths)?,
        (true, None) => {
            let expected = "*.json with signs by case, or faults.csv with the time of each case";
            return Err(BacktestError::Nothing { path: folder.to_owned(), expected });
        }
    };
    Ok(labelled(truths, cases))
}

fn labelled(truths: Vec<Truth>, cases: Vec<Case>) -> Cases {
    let mut classes: Vec<String> = truths.iter().map(|truth| truth.class.clone()).collect();
    classes.sort();
    classes.dedup();
    let label = |(truth, case): (&Truth, &Case)| Label {
        class: classes.iter().position(|class| *class == truth.class).unwrap_or_default(),
        cause: case.entities.iter().position(|entity| entity.name == truth.instance),
    };
    let labels = truths.iter().zip(&cases).map(label).collect();
    let names = truths.into_iter().map(|truth| truth.case).collect();
    Cases { names, cases, labels, classes }
}

fn truths(path: &Path) -> Result<Vec<Truth>, BacktestError> {
    let mut reader = reader(path)?;
    let header = reader.headers().map_err(|error| content(path, &error))?.clone();
    let place = |name: &str| {
        header.iter().position(|other| other == name).ok_or_else(|| BacktestError::Content {
            path: path.to_owned(),
            line: 1,
            problem: format!("no column `{name}`"),
        })
    };
    let places = [place("case")?, place("truth")?, place("instance")?];
    let mut truths = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| content(path, &error))?;
        let [case, class, instance] =
            places.map(|at| record.get(at).unwrap_or_default().to_owned());
        truths.push(Truth { case, class, instance });
    }
    Ok(truths)
}

fn from_lists(
    folder: &Path,
    truths: &[Truth],
    files: &[&PathBuf],
) -> Result<Vec<Case>, BacktestError> {
    let mut cases = vec![Case::default(); truths.len()];
    let nodes = json(&folder.join("nodes.json"))?;
    let edges = folder.join("edges.json");
    let edges = if edges.exists() { json(&edges)? } else { Value::Null };
    for (case, truth) in cases.iter_mut().zip(truths) {
        let names = nodes.get(&truth.case).unwrap_or(&nodes).as_array();
        case.entities = names.into_iter().flatten().filter_map(Value::as_str).map(entity).collect();
        let pairs = edges.get(&truth.case).unwrap_or(&edges).as_array();
        let place = |value: Option<&Value>| {
            let at = usize::try_from(value?.as_u64()?).ok()?;
            (at < case.entities.len()).then_some(at)
        };
        let pairs = pairs.into_iter().flatten();
        case.calls =
            pairs.filter_map(|pair| Some((place(pair.get(0))?, place(pair.get(1))?))).collect();
    }
    for path in files {
        let kind = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let all = json(path)?;
        for (case, truth) in cases.iter_mut().zip(truths) {
            let places: BTreeMap<String, usize> =
                case.entities.iter().enumerate().map(|(at, e)| (e.name.clone(), at)).collect();
            for row in all.get(&truth.case).and_then(Value::as_array).into_iter().flatten() {
                let words: Vec<&str> =
                    row.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                case.signs.extend(signs(kind, &words, &places));
            }
        }
    }
    Ok(cases)
}

fn json(path: &Path) -> Result<Value, BacktestError> {
    let size = fs::metadata(path).map_err(BacktestError::read(path))?.len();
    let wrong = |line, problem| BacktestError::Content { path: path.to_owned(), line, problem };
    if size > JSON_BYTES_MAX {
        return Err(wrong(1, format!("{size} B; at most {JSON_BYTES_MAX} are read")));
    }
    let text = fs::read_to_string(path).map_err(BacktestError::read(path))?;
    serde_json::from_str(&text).map_err(|error| wrong(error.line() as u64, error.to_string()))
}

/// The signs of one list of words: for each instance named in it, what the other words say, in full and
/// by their ends, so that a sign seen in many places counts as one.
fn signs(kind: &str, words: &[&str], places: &BTreeMap<String, usize>) -> Vec<Sign> {
    let named: Vec<(usize, &str)> =
        words.iter().filter_map(|word| Some((*places.get(*word)?, *word))).collect();
    let says: Vec<String> = words
        .iter()
        .filter(|word| !places.contains_key(**word))
        .map(|word| plain(word, &named))
        .collect();
    let from = says.len().saturating_sub(2);
    let mut texts = vec![kind.to_owned(), says.join(" "), says[from..].join(" ")];
    texts.extend(says.last().cloned());
    texts.sort();
    texts.dedup();
    let sign = |entity, role: &str, text: &str| Sign {
        entity,
        what: format!("{kind}{role}: {text}"),
        strength: 1.0,
    };
    if named.is_empty() {
        return texts.iter().map(|text| sign(None, "", text)).collect();
    }
    let mut found = Vec::new();
    for (at, (entity, _)) in named.iter().enumerate() {
        let alone = named.len() == 1;
        let inside = named.len() == 2 && named[0] == named[1];
        let role = match (alone, inside, at) {
            (true, ..) => "",
            (_, true, 0) => " within",
            (_, true, _) => continue,
            (_, _, 0) => " out",
            _ => " in",
        };
        found.extend(texts.iter().map(|text| sign(Some(*entity), role, text)));
    }
    found
}

/// A word that means the same at every instance: without the instance's name and without numbers that
/// tell cores, addresses and ports apart. A word that is only a number stays.
fn plain(word: &str, named: &[(usize, &str)]) -> String {
    let word = named
        .iter()
        .find_map(|(_, name)| word.strip_prefix(name)?.strip_prefix('-'))
        .unwrap_or(word);
    if word.bytes().all(|byte| byte.is_ascii_digit()) {
        return word.to_owned();
    }
    // Letters and a figure together (p90, s3) are a name.
    let parts = word.split_inclusive(['_', '.', '/', ':', '-']);
    let part = |part: &str| {
        let bare = part.trim_end_matches(['_', '.', '/', ':', '-']);
        let number = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit());
        if number { format!("#{}", &part[bare.len()..]) } else { part.to_owned() }
    };
    parts.map(part).collect()
}

pub(super) fn entity(name: &str) -> Entity {
    Entity { name: name.to_owned(), service: service(name) }
}

/// The service of an instance by its name: without a number at its end, or the two suffixes that a
/// Kubernetes Deployment gives its pods.
fn service(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('-').collect();
    let hash = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    if let [.., template, pod] = parts.as_slice()
        && hash(pod, 5..=5)
        && hash(template, 8..=10)
        && template.bytes().any(|byte| byte.is_ascii_digit())
    {
        parts.truncate(parts.len() - 2);
        return parts.join("-");
    }
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-');
    if bare.is_empty() { name.to_owned() } else { bare.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_signs() {
        let places = BTreeMap::from([("web-0".to_owned(), 0), ("db-1".to_owned(), 1)]);
        let told = |words: &[&str]| -> Vec<(Option<usize>, String)> {
            signs("t", words, &places).into_iter().map(|sign| (sign.entity, sign.what)).collect()
        };
        let metric = told(&["web-0", "10.0.0.1", "cpu_core_3_pct", "up"]);
        assert!(metric.contains(&(Some(0), "t: cpu_core_#_pct up".to_owned())), "{metric:?}");
        assert!(metric.contains(&(Some(0), "t: up".to_owned())));
        let call = told(&["web-0", "db-1", "/get", "500"]);
        assert!(call.contains(&(Some(0), "t out: 500".to_owned())), "{call:?}");
        assert!(call.contains(&(Some(1), "t in: /get 500".to_owned())));
        let own = told(&["db-1", "db-1", "save", "PD"]);
        assert!(own.iter().all(|(entity, what)| *entity == Some(1) && what.contains("within")));
        assert!(told(&["web-0", "web-0-74"]).contains(&(Some(0), "t: 74".to_owned())));
        assert!(told(&["elsewhere", "up"]).iter().all(|(entity, _)| entity.is_none()));
    }

    #[test]
    fn services_of_instances() {
        for (name, expected) in [
            ("front-end-1", "front-end"),
            ("dbservice2", "dbservice"),
            ("frontend-579b9bff58-t2dbm", "frontend"),
            ("ts-basic-service-5dc8d4f9fd-46997", "ts-basic-service"),
            ("gateway", "gateway"),
            ("42", "42"),
        ] {
            assert_eq!(service(name), expected, "{name}");
        }
    }
}
