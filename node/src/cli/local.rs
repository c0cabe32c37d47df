//! Commands that need no cluster: init, certs, validate, schema, contexts.

use std::{io::Read as _, path::PathBuf};

use medic_api::manifest::{Problem, parse_bundle};
use medic_raft::env::{Clock as _, SystemClock};
use medic_state::{Millis, Timestamp, manifest::Manifest, time::format_rfc3339};
use serde::Serialize;

use super::{
    args::{CertsCommand, ContextCommand, InitArgs, IssueArgs, ValidateArgs},
    context,
    error::CliError,
    out::Out,
    render::{Style, Table, span, words::plural},
};
use crate::security::{self, InitPlan, Layout, SecurityError, Unit};

impl From<SecurityError> for CliError {
    fn from(error: SecurityError) -> Self {
        match error {
            SecurityError::BadRequest(_)
            | SecurityError::BadName { .. }
            | SecurityError::Exists { .. } => Self::Usage(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// `medic init`.
pub(super) fn init(args: InitArgs, out: &Out) -> Result<(), CliError> {
    let nodes = args.nodes;
    let plan = InitPlan {
        cluster: args.cluster,
        out: args.out,
        nodes,
        hosts: args.hosts,
        regions: args.regions,
        agents: args.agents,
        users: args.users,
        base_port: args.base_port,
        days: args.days,
        data_dir: args.data_dir,
    };
    let layout = security::init(&plan, SystemClock.now())?;
    let dir = layout.0.display();
    let mut text = format!(
        "{dir} holds cluster {}: its authority, {}, {}, {}.\n\
         Keep {dir}/ca.key safe: only `medic certs` needs it.\n\nNext:\n",
        plan.cluster,
        plural(nodes as usize, "node"),
        plural(plan.agents.len(), "agent"),
        plural(plan.users.len(), "user")
    );
    for node in 1..=nodes {
        text += &format!("  medic serve --config {}\n", layout.node_config(node).display());
    }
    for agent in &plan.agents {
        text += &format!("  medic agent --config {}\n", layout.agent_config(agent).display());
    }
    text +=
        &format!("  export MEDIC_CONFIG={}\n  medic cluster status", layout.contexts().display());
    out.text(&text)
}

/// `medic certs …`.
pub(super) fn certs(command: CertsCommand) -> Result<(), CliError> {
    let now = SystemClock.now();
    match command {
        CertsCommand::Issue(args) => issue(args, now),
        CertsCommand::Show { paths, output } => show(&paths, &Out::new(output.output), now),
        CertsCommand::Renew { dir, names, within, days } => {
            let renewed = security::renew(&Layout(dir), &names, now.plus(within), days, now)?;
            let out = Out::new(super::args::Format::Table);
            if renewed.is_empty() {
                return out.text(&format!("nothing to do: no certificate ends within {within}"));
            }
            let mut table = Table::new(["NAME", "WAS GOOD UNTIL", "IS GOOD UNTIL", "FILE"]);
            for renewal in renewed {
                let (before, after) = renewal.until;
                table.row([
                    renewal.name,
                    format_rfc3339(before),
                    format_rfc3339(after),
                    renewal.path.display().to_string(),
                ]);
            }
            out.text(&table.render(&Style::new(out.color())))
        }
    }
}

fn issue(args: IssueArgs, now: Timestamp) -> Result<(), CliError> {
    let layout = Layout(args.dir);
    let (unit, name) = match (args.node, args.agent, args.user) {
        (Some(node), _, _) => (Unit::Nodes, format!("node-{node}")),
        (_, Some(agent), _) => (Unit::Agents, agent),
        (_, _, Some(user)) => (Unit::Users, user),
        (None, None, None) => {
            return Err(CliError::Usage("name a --node, an --agent or a --user".to_owned()));
        }
    };
    let mut nodes = args.nodes;
    if nodes.is_empty() && unit == Unit::Agents {
        let contexts = context::read(&layout.contexts())?;
        nodes = contexts.contexts.into_values().next().map(|c| c.nodes).unwrap_or_default();
    }
    let path = security::issue(&layout, unit, &name, args.hosts, args.days, &nodes, now)?;
    let out = Out::new(super::args::Format::Table);
    out.text(&format!("{} is for {name}, good for {} days", path.display(), args.days))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    name: String,
    cluster: String,
    unit: String,
    hosts: Vec<String>,
    serial: String,
    not_before: String,
    not_after: String,
    left_ms: u64,
    file: PathBuf,
}

fn show(paths: &[PathBuf], out: &Out, now: Timestamp) -> Result<(), CliError> {
    let mut shown = Vec::new();
    for path in paths {
        let found = if path.is_dir() {
            Layout(path.clone()).identities()?
        } else {
            security::inspect(path)?.into_iter().map(|one| (path.clone(), one)).collect()
        };
        shown.extend(found.into_iter().map(|(file, one)| Shown {
            name: one.name,
            cluster: one.cluster,
            unit: if one.authority { "authority".to_owned() } else { one.unit },
            hosts: one.hosts,
            serial: one.serial,
            not_before: format_rfc3339(one.not_before),
            not_after: format_rfc3339(one.not_after),
            left_ms: one.not_after.since(now).0,
            file,
        }));
    }
    out.list(&shown, |shown| {
        let style = Style::new(out.color());
        let mut table = Table::new(["NAME", "FOR", "CLUSTER", "GOOD UNTIL", "LEFT", "FILE"]);
        for one in shown {
            let left = match one.left_ms {
                0 => style.bad("expired"),
                ms if ms < Millis::from_secs(30 * 86_400).0 => style.warn(&span(ms)),
                ms => span(ms),
            };
            table.row([
                one.name.clone(),
                one.unit.clone(),
                one.cluster.clone(),
                one.not_after.clone(),
                left,
                one.file.display().to_string(),
            ]);
        }
        table.render(&style)
    })
}

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
    out.list(&problems, |problems| {
        if problems.is_empty() {
            return format!("{} manifests are good", manifests.len());
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
        ContextCommand::Use { name, config } => {
            let path = context::path(config.as_ref())?;
            context::make_current(&path, &name)?;
            Out::new(super::args::Format::Table).text(&format!("now working as {name}"))
        }
    }
}
