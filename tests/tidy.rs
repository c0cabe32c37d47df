//! The rules of the house, checked: who may import whom, what the law may depend on, how long a
//! file may grow, and what stands at the top level. See docs/ARCHITECTURE.md.
#![allow(clippy::unwrap_used, reason = "a tidy check that cannot read the tree should fail loudly")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Allowed edges: crate (by folder) to the workspace crates it may name.
const EDGES: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("raft/state", &[]),
    ("raft", &["medic-state", "medic-proto"]),
    ("api", &["medic-raft", "medic-state", "medic-proto"]),
    ("node", &["medic-api", "medic-raft", "medic-state", "medic-proto"]),
    ("chaos", &["medic-node", "medic-api", "medic-state", "medic-proto"]),
    ("chaos/sim", &["medic-api", "medic-node", "medic-proto", "medic-raft", "medic-state"]),
    (
        "tests",
        &["medic-api", "medic-chaos", "medic-node", "medic-proto", "medic-raft", "medic-state"],
    ),
];

/// What the law may depend on: nothing that does I/O, keeps time or draws numbers.
const LAW_DEPENDENCIES: [&str; 8] =
    ["jiff", "minicbor", "regex", "schemars", "serde", "serde_json", "sha2", "thiserror"];

/// What the customer fixed, and what stands beside it.
const TOP_LEVEL: [&str; 14] = [
    "Cargo.toml",
    "Cargo.lock",
    "node",
    "raft",
    "api",
    "proto",
    "chaos",
    "tests",
    "README.md",
    "Makefile",
    "docs",
    "deploy",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];
/// Beside those: configuration that tools look for at the top.
const TOP_LEVEL_TOOLS: [&str; 2] = ["deny.toml", "rustfmt.toml"];

/// A file is one room: past this many lines it is two.
const LINES_MAX: usize = 500;

/// Tests run in the folder of their package. Where it was when they were built is no matter.
fn root() -> PathBuf {
    Path::new("..").canonicalize().unwrap()
}

fn manifest(folder: &str) -> Option<toml::Table> {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).ok()?;
    Some(text.parse().unwrap())
}

fn names(manifest: &toml::Table, section: &str) -> BTreeSet<String> {
    manifest
        .get(section)
        .and_then(toml::Value::as_table)
        .map(|table| table.keys().cloned().collect())
        .unwrap_or_default()
}

fn sources() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(root())
        .into_iter()
        .filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0 || !(name.starts_with('.') || name == "target")
        })
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect();
    files.sort();
    files
}

#[test]
fn imports_run_one_way() {
    let mut wrong = Vec::new();
    for (folder, allowed) in EDGES {
        let Some(manifest) = manifest(folder) else { continue };
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in names(&manifest, section) {
                if name.starts_with("medic-") && !allowed.contains(&name.as_str()) {
                    wrong.push(format!("{folder}/Cargo.toml [{section}] names {name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "edges that DESIGN does not list:\n{}", wrong.join("\n"));
}

#[test]
fn every_member_is_listed_and_inherits_the_lints() {
    let workspace = manifest(".").unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    for member in members {
        let folder = member.as_str().unwrap();
        assert!(
            EDGES.iter().any(|(known, _)| *known == folder),
            "{folder} has no edges listed here"
        );
        let lints = manifest(folder).unwrap();
        let inherits = lints.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(
            inherits.and_then(toml::Value::as_bool),
            Some(true),
            "{folder}/Cargo.toml lacks `[lints] workspace = true`"
        );
    }
}

#[test]
fn the_law_is_pure_by_manifest() {
    let manifest = manifest("raft/state").unwrap();
    let allowed: BTreeSet<String> = LAW_DEPENDENCIES.iter().map(ToString::to_string).collect();
    let extra: Vec<String> =
        names(&manifest, "dependencies").difference(&allowed).cloned().collect();
    assert!(extra.is_empty(), "the law may not depend on {extra:?}");
    let clippy = std::fs::read_to_string(root().join("raft/state/clippy.toml"))
        .expect("raft/state/clippy.toml bans clocks and unordered maps");
    for banned in ["SystemTime::now", "Instant::now", "HashMap", "HashSet"] {
        assert!(clippy.contains(banned), "raft/state/clippy.toml does not ban {banned}");
    }
    let lib = std::fs::read_to_string(root().join("raft/state/src/lib.rs")).unwrap();
    for lint in ["wildcard_enum_match_arm", "float_arithmetic"] {
        assert!(lib.contains(lint), "raft/state/src/lib.rs does not deny clippy::{lint}");
    }
}

#[test]
fn files_are_rooms_not_halls() {
    let long: BTreeMap<String, usize> = sources()
        .into_iter()
        .map(|path| {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            (path.strip_prefix(root()).unwrap().display().to_string(), lines)
        })
        .filter(|(_, lines)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "over {LINES_MAX} lines: {long:#?}");
}

#[test]
fn modules_say_what_they_are_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|path| !std::fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    assert!(silent.is_empty(), "files without a module header: {silent:#?}");
}

#[test]
fn printing_has_one_door() {
    let mut doors: Vec<String> = sources()
        .into_iter()
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let allow = format!("allow({}", "clippy::print_stdout");
            text.contains(&allow)
        })
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    doors.sort();
    assert_eq!(doors, ["node/src/cli/out.rs"], "only the CLI's output door may print");
}

#[test]
fn the_top_level_is_as_agreed() {
    let known: BTreeSet<&str> = TOP_LEVEL.into_iter().chain(TOP_LEVEL_TOOLS).collect();
    let strange: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target" && !known.contains(name.as_str()))
        .collect();
    assert!(strange.is_empty(), "not agreed for the top level: {strange:?}");
}

#[test]
fn the_readme_names_its_commands() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for command in ["make demo", "make test"] {
        assert!(readme.contains(command), "README.md does not name `{command}`");
    }
}

/// What dashboards, alerts and the operator's guide look at is what the nodes show.
#[test]
fn metrics_that_are_named_exist() {
    let shown = sources().into_iter().filter(|path| !path.ends_with("tests/tidy.rs"));
    let shown: String = shown.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut files = vec![root().join("docs/OPERATIONS.md")];
    files.extend(
        walkdir::WalkDir::new(root().join("deploy"))
            .into_iter()
            .map(|entry| entry.unwrap().into_path())
            .filter(|path| path.extension().is_some_and(|e| e == "yml" || e == "json")),
    );
    let (mut seen, mut unknown) = (0, BTreeSet::new());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        // Modules named in log filters are no metrics.
        let text = text.replace("medic_node::", "");
        for name in text.split(word).filter(|w| w.starts_with("medic_") || w.ends_with("_total")) {
            let base = ["_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            seen += 1;
            if !shown.contains(&format!("\"{}\"", base.unwrap_or(name))) {
                unknown.insert(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} names were found: are the files still there?");
    assert!(unknown.is_empty(), "metrics that no node shows: {unknown:#?}");
}

/// Campaigns aim at the failpoints of a list: one that is not on it is never aimed at, and one that
/// is nowhere in the product can never be hit.
#[test]
fn failpoints_and_their_list_are_the_same() {
    let named: BTreeSet<String> =
        medic_node::failpoint::POINTS.iter().map(|name| (*name).to_owned()).collect();
    let mut found = BTreeSet::new();
    for path in sources().into_iter().filter(|path| !path.ends_with("raft/src/failpoint.rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        // The driver picks a name by direction, for one macro.
        for opening in ["crash_point!(\"", "boundary(key, \"", "boundary(job.order.key, \""] {
            for (at, _) in text.match_indices(opening) {
                let call = &text[at..at + text[at..].find(')').unwrap()];
                found.extend(call.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
    assert_eq!(found, named);
}
