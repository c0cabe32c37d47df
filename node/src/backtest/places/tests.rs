//! Which results have a place, and what is said of those that have none.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::{
    super::{detect, inputs::find},
    *,
};

/// One look of one or more instances.
fn answer(instances: &[&str]) -> String {
    let series = instances.iter().map(|name| {
        format!(r#"{{"metric":{{"__name__":"up","instance":"{name}"}},"values":[[1,"1"]]}}"#)
    });
    let series: Vec<String> = series.collect();
    format!(r#"{{"data":{{"resultType":"matrix","result":[{}]}}}}"#, series.join(","))
}

const CSV: &str = "timestamp,v\n1,2\n";

/// The places of what is found there, with all that can be wanted.
fn check(input: &Path, out: &Path) -> Result<Vec<Planned>, BacktestError> {
    plan(input, find(input)?.inputs, Files { out, findings: true, drawing: true })
}

/// What is said of a folder with these files.
fn said(files: &[(&str, &str)]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in"), folder.path().join("out"));
    for (name, text) in files {
        let path = input.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let checked = check(&input, &out).map(drop).map_err(|error| error.to_string());
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
            Err(String::new()),
        ),
        (vec![("web.json", &two), ("web/b.csv", CSV)], expected("web.json", "web/b.csv", "web/b")),
        (vec![("web.json", &two), ("web.jsonl", &two)], expected("web.json", "web.jsonl", "web/a")),
    ] {
        let told = said(&files);
        match clash {
            Err(text) if text.is_empty() => {
                let told = told.unwrap_err();
                assert!(
                    told.contains("in/x/test.csv` and `in/x/test.csv.gz`: nobody knows which"),
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
    let inside = |out: &Path| matches!(check(&input, out), Err(BacktestError::Inside { .. }));
    for out in ["in", "in/out", "in/deep/new/out", "other/../in", "in/../in/out", "link/out"] {
        assert!(inside(&folder.path().join(out)), "{out}");
    }
    for out in ["out", "in-out", "in/../out", "link/../new"] {
        // `..` of a link is the parent of what it leads to.
        assert_eq!(inside(&folder.path().join(out)), out == "link/../new", "{out}");
    }
}

/// All that is in a folder.
fn all(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (path, name) = entry.map(|one| (one.path(), one.file_name())).unwrap();
        let name = name.into_string().unwrap();
        if path.is_dir() {
            let below = all(&path).into_iter();
            found.extend(below.map(|(file, text)| (format!("{name}/{file}"), text)));
        } else {
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    found
}

fn judged(input: &Path, out: &Path) -> Result<detect::Summary, BacktestError> {
    let options = detect::Options { plots: Some(true), ..detect::Options::default() };
    detect::run(input, out, &options, |_, _, _| ())
}

/// What is said where that file has that text; nothing else has changed then.
fn refused(input: &Path, out: &Path, file: &str, text: &str) -> String {
    let before = all(out);
    let path = out.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let error = judged(input, out).unwrap_err();
    assert!(matches!(error, BacktestError::NoResult { .. }), "{error}");
    let mut after = all(out);
    assert_eq!(after.remove(file).as_deref(), Some(text));
    let mut kept = before.clone();
    kept.remove(file);
    assert_eq!(after, kept, "nothing was written before it was told");
    match before.get(file) {
        Some(text) => fs::write(&path, text).unwrap(),
        None => fs::remove_file(&path).unwrap(),
    }
    error.to_string()
}

#[test]
fn what_is_no_result_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let (one, many) = (folder.path().join("web.csv"), folder.path().join("many.json"));
    fs::write(&one, CSV).unwrap();
    fs::write(&many, answer(&["a", "b"])).unwrap();
    for (input, name) in [(&one, "web"), (&many, "many/b")] {
        let out = folder.path().join("out").join(name);
        fs::create_dir_all(&out).unwrap();
        for before in [true, false] {
            for (file, text) in [
                (format!("{name}.csv"), CSV),
                (format!("{name}.csv"), &format!("{HEADER},mine\n")[..]),
                (format!("{name}.svg"), "<svg xmlns=\"http://www.w3.org/2000/svg\"></svg>"),
                (format!("{name}.findings.json"), r#"[{"kind":"mine"}]"#),
                (format!("{name}.findings.json"), r#"{"kind":"mine"}"#),
                ("summary.json".to_owned(), &answer(&["a"])),
                ("summary.json".to_owned(), r#"{"entities":[{"name":"a"}],"passed_over":[]}"#),
                ("summary.json".to_owned(), r#"{"folders":[]}"#),
            ] {
                let said = refused(input, &out, &file, text);
                let expected = format!("{file} is there, and no result of such a backtest");
                assert!(said.contains(&expected), "{said}");
            }
            if before {
                // What is empty is nobody's.
                fs::write(out.join("summary.json"), "").unwrap();
            }
            // The first time there is nothing, then what was there before.
            judged(input, &out).unwrap();
        }
        let first = all(&out);
        assert!(first.contains_key(&format!("{name}.svg")) && first.len() >= 4, "{first:?}");
        judged(input, &out).unwrap();
        assert_eq!(all(&out), first);
    }
    // A folder is no result.
    let out = folder.path().join("new");
    fs::create_dir_all(out.join("web.csv")).unwrap();
    assert!(matches!(judged(&one, &out), Err(BacktestError::NoResult { .. })));
}

#[test]
fn a_history_with_findings_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("web.csv");
    let row = |row: u32| format!("{},{}\n", row * 15, if row > 300 { 9 } else { row % 3 });
    let rows: String = (0..400).map(row).collect();
    fs::write(&input, format!("timestamp,error_rate\n{rows}")).unwrap();
    let out = folder.path().join("out");
    let summary = judged(&input, &out).unwrap();
    assert!(!summary.entities[0].worst.is_empty(), "{summary:?}");
    assert_eq!(judged(&input, &out).unwrap(), summary);
}

#[test]
fn what_is_read_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let said = |name: &str, text: &str, out: &str| {
        fs::write(at(name), text).unwrap();
        let error = judged(&at(name), &at(out)).unwrap_err();
        assert_eq!(fs::read_to_string(at(name)).unwrap(), text);
        assert!(matches!(error, BacktestError::IsRead { .. }), "{error}");
        error.to_string()
    };
    // The answer to a range query, saved under a name that results have.
    let summary = said("summary.json", &answer(&["a"]), "");
    assert!(summary.contains("summary.json is what is read"), "{summary}");
    fs::remove_file(at("summary.json")).unwrap();
    let result = format!("{HEADER}\n0,1,0,0,0,1\n");
    said("old.csv", &result, "");
    fs::create_dir(at("out")).unwrap();
    std::os::unix::fs::symlink(at("old.csv"), at("out/old.csv")).unwrap();
    said("old.csv", &result, "out");
    fs::write(at("linked.csv"), &result).unwrap();
    fs::hard_link(at("linked.csv"), at("out/linked.csv")).unwrap();
    said("linked.csv", &result, "out");
    // A folder of results that is one of what is read.
    fs::create_dir_all(at("in/deep")).unwrap();
    fs::write(at("in/deep/web.csv"), CSV).unwrap();
    std::os::unix::fs::symlink(at("in/deep"), at("out/deep")).unwrap();
    let error = judged(&at("in"), &at("out")).unwrap_err();
    assert!(matches!(error, BacktestError::Inside { .. }), "{error}");
}

#[test]
fn what_is_read_twice_has_the_same_entities() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.json");
    let out = folder.path().join("out");
    fs::write(&path, answer(&["a", "b"])).unwrap();
    let mut planned = check(&path, &out).unwrap().remove(0);
    assert_eq!(planned.names, ["web/a", "web/b"]);
    fs::write(&path, answer(&["a", "c"])).unwrap();
    assert_eq!(planned.frames().unwrap()[1].entity, "b", "kept");
    let error = planned.frames().unwrap_err().to_string();
    assert!(error.ends_with("web.json:1: it holds other entities than when it was first read"));
    fs::write(&path, answer(&["a", "b"])).unwrap();
    assert_eq!(planned.frames().unwrap().len(), 2);
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
