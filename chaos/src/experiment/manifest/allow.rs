//! `kind: AllowList`: what experiments on this machine may touch, and how.
//!
//! Without one, nothing. It is a file of its own, written by who answers for the machine; no key of
//! an experiment can add to it. A target must match exactly one entry: none is a refusal, and so are
//! two, because then nobody has said which bounds hold.

use std::path::{Path, PathBuf};

use medic_api::manifest::{Finding, Problem, parse_kind, schema_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Kind, ProcessMatch, parts::size};

/// What may be touched.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowSpec {
    /// Targets, each with the faults it may be given.
    #[serde(default)]
    pub targets: Vec<Entry>,
    /// Programs that command probes may run: path and all arguments, exactly.
    #[serde(default)]
    pub commands: Vec<Vec<String>>,
}

/// One target: exactly one of `process`, `container`, `namespace`, `directory`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// A process. Everything said here must be true of the process that is found; a pid file must
    /// be the very one that the experiment names.
    #[serde(default)]
    pub process: Option<ProcessMatch>,
    /// A container, by its exact name.
    #[serde(default)]
    pub container: Option<String>,
    /// A network namespace, by its exact name.
    #[serde(default)]
    pub namespace: Option<String>,
    /// A directory, exactly; not what is below it.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// What may be done to it.
    pub inject: Vec<Kind>,
    /// What starts a killed process again: a command that returns, or the program itself.
    #[serde(default)]
    pub restart: Option<Vec<String>>,
    /// Most that a `fill` may ask for; needed where `inject` names it.
    #[serde(default)]
    pub max_bytes: Option<String>,
}

/// The kind's name.
pub const KIND: &str = "AllowList";

/// Reads an allow-list.
///
/// # Errors
/// When it cannot be read; every problem with `file:line:column`.
pub fn read(path: &Path) -> anyhow::Result<AllowSpec> {
    parse(&super::text(path)?).map_err(|problems| super::listed(path, &problems))
}

/// Reads the text of an allow-list.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str) -> Result<AllowSpec, Vec<Problem>> {
    parse_kind(text, KIND, |_, spec| check(spec)).and_then(super::one).map(|(_, spec)| spec)
}

/// JSON Schema of an allow-list.
#[must_use]
pub fn schema() -> serde_json::Value {
    schema_of::<AllowSpec>(KIND)
}

fn check(spec: &AllowSpec) -> Vec<Finding> {
    let mut found = Vec::new();
    for (i, entry) in spec.targets.iter().enumerate() {
        let at = |key: &str| format!("spec.targets[{i}]{key}");
        let said = [
            entry.process.is_some(),
            entry.container.is_some(),
            entry.namespace.is_some(),
            entry.directory.is_some(),
        ];
        if said.iter().filter(|said| **said).count() != 1 {
            let message = "an entry has exactly one of process, container, namespace, directory";
            found.push(Finding::new(at(""), message));
        }
        if let Some(process) = &entry.process {
            found.extend(process_match(&at(".process"), process));
        }
        if entry.inject.is_empty() {
            found.push(Finding::new(at(".inject"), "name the faults that are allowed"));
        }
        if entry.restart.as_ref().is_some_and(|argv| !absolute(argv)) {
            let message = "a command is an absolute path and its arguments";
            found.push(Finding::new(at(".restart"), message));
        }
        if entry.inject.contains(&Kind::Fill) && entry.max_bytes.as_deref().and_then(size).is_none()
        {
            let message = "what may be filled needs a bound such as `maxBytes: 1GiB`";
            found.push(Finding::new(at(""), message));
        }
    }
    for (i, argv) in spec.commands.iter().enumerate() {
        if !absolute(argv) {
            let message = "a command is an absolute path and its arguments";
            found.push(Finding::new(format!("spec.commands[{i}]"), message));
        }
    }
    found
}

/// Whether it begins with an absolute path.
pub(super) fn absolute(argv: &[String]) -> bool {
    argv.first().is_some_and(|program| program.starts_with('/'))
}

/// What is wrong with a match of a process.
pub(super) fn process_match(path: &str, process: &ProcessMatch) -> Option<Finding> {
    let files = [&process.pid_file, &process.exe];
    if files.iter().all(|file| file.is_none()) {
        return Some(Finding::new(path, "name a pidFile or an exe"));
    }
    let relative = files.into_iter().flatten().find(|file| !file.is_absolute())?;
    Some(Finding::new(path, format!("`{}` is not an absolute path", relative.display())))
}
