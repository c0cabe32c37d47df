//! Commands that need no cluster: validate and contexts; and reading manifests, for `apply` too.

use std::{io::Read as _, path::PathBuf};

use medic_api::manifest::{Problem, parse_bundle};
use medic_state::manifest::Manifest;
use serde::Serialize;

use super::{
    args::{ContextCommand, ValidateArgs},
    context,
    error::CliError,
    out::Out,
    render::{Style, Table, words::plural},
};

/// A text with manifests, and where it came from.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// Reads files, directories and standard input.
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut found = Vec::new();
    for path in paths {
        let unreadable = |error: std::io::Error| {
            CliError::Usage(format!("cannot read {}: {error}", path.display()))
        };
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let limit = medic_api::manifest::MAX_BYTES as u64 + 1;
            std::io::stdin().take(limit).read_to_string(&mut text).map_err(unreadable)?;
            found.push(Source { name: "(stdin)".to_owned(), text });
        } else if path.is_dir() {
            let before = found.len();
            directory(path, 0, &mut found).map_err(unreadable)?;
            if found.len() == before {
                let text = format!("{} holds no .yaml, .yml or .json file", path.display());
                return Err(CliError::Usage(text));
            }
        } else {
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            found.push(Source { name: path.display().to_string(), text });
        }
    }
    Ok(found)
}

/// Directories below this are not looked into: a link back up would never end.
const DEPTH_MAX: usize = 8;

fn directory(path: &std::path::Path, depth: usize, found: &mut Vec<Source>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(path)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        let wanted = entry
            .extension()
            .is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known));
        if entry.is_dir() && depth < DEPTH_MAX {
            directory(&entry, depth + 1, found)?;
        } else if wanted {
            let text = std::fs::read_to_string(&entry)?;
            found.push(Source { name: entry.display().to_string(), text });
        }
    }
    Ok(())
}

/// A problem and the file it is in.
#[derive(Serialize)]
pub(super) struct Located {
    pub(super) file: String,
    #[serde(flatten)]
    pub(super) problem: Problem,
}

/// Checks every source.
pub(super) fn parse(sources: &[Source]) -> (Vec<Manifest>, Vec<Located>) {
    let mut manifests = Vec::new();
    let mut problems = Vec::new();
    for source in sources {
        match parse_bundle(&source.text) {
            Ok(parsed) => manifests.extend(parsed),
            Err(found) => problems.extend(
                found.into_iter().map(|problem| Located { file: source.name.clone(), problem }),
            ),
        }
    }
    (manifests, problems)
}

/// The problems, as compilers write them.
pub(super) fn problem_text(problems: &[Located]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|Located { file, problem }| {
            let colon = if problem.line > 0 { ":" } else { ": " };
            format!("{file}{colon}{problem}")
        })
        .collect();
    lines.join("\n")
}

/// `medic validate`.
pub(super) fn validate(args: &ValidateArgs) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
    let sources = sources(&args.files)?;
    let (manifests, problems) = parse(&sources);
    if manifests.is_empty() && problems.is_empty() {
        return Err(CliError::Usage("there is no manifest in these files".to_owned()));
    }
    out.list(&problems, |problems| {
        if problems.is_empty() {
            let verb = if manifests.len() == 1 { "is" } else { "are" };
            return format!("{} {verb} good", plural(manifests.len(), "manifest"));
        }
        problem_text(problems)
    })?;
    match problems.len() {
        0 => Ok(()),
        1 => Err(CliError::Failed("one problem was found".to_owned())),
        count => Err(CliError::Failed(format!("{count} problems were found"))),
    }
}

/// `medic context …`.
pub(super) fn contexts(command: ContextCommand) -> Result<(), CliError> {
    match command {
        ContextCommand::List { config, output } => {
            let contexts = context::read(&context::path(config.as_ref())?)?;
            let out = Out::new(output.output);
            out.value(&contexts.contexts, |all| {
                let mut table = Table::new(["", "NAME", "CLUSTER", "TENANT", "NODES"]);
                for (name, one) in all {
                    let mark = if *name == contexts.current { "*" } else { "" };
                    table.row([
                        mark.to_owned(),
                        name.clone(),
                        one.cluster.clone(),
                        one.tenant.clone(),
                        one.nodes.join(" "),
                    ]);
                }
                table.render(&Style::new(out.color()))
            })
        }
        ContextCommand::Use { name, config, output } => {
            let path = context::path(config.as_ref())?;
            context::make_current(&path, &name)?;
            let now = serde_json::json!({ "current": name, "file": path });
            Out::new(output.output).value(&now, |_| format!("now working as {name}"))
        }
    }
}
