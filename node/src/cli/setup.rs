//! `medic init` and `medic certs …`: a cluster's directory, and the identities in it.

use std::path::{Path, PathBuf};

use medic_raft::env::{Clock as _, SystemClock};
use medic_state::{Millis, Timestamp, time::format_rfc3339};
use serde::Serialize;

use super::{
    args::{CertsCommand, InitArgs, IssueArgs},
    context,
    error::CliError,
    out::Out,
    render::{Style, Table, span, words::plural},
};
use crate::{
    config::NodeConfig,
    security::{self, InitPlan, Layout, Made, Newcomer, SecurityError},
};

/// Certificates that end within this are worth a colour.
const SOON: Millis = Millis::from_secs(30 * 86_400);

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

/// A directory that was made, and what to start.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    cluster: String,
    dir: PathBuf,
    nodes: Vec<PathBuf>,
    agents: Vec<PathBuf>,
    users: Vec<String>,
    contexts: PathBuf,
}

/// `medic init`.
pub(super) fn init(args: InitArgs) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
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
    let made = Directory {
        cluster: plan.cluster,
        nodes: (1..=nodes).map(|node| layout.node_config(node)).collect(),
        agents: plan.agents.iter().map(|agent| layout.agent_config(agent)).collect(),
        users: plan.users,
        contexts: layout.contexts(),
        dir: layout.0,
    };
    out.value(&made, next_steps)
}

fn next_steps(made: &Directory) -> String {
    let dir = made.dir.display();
    let mut text = format!(
        "{dir} holds cluster {}: its authority, {}, {}, {}.\n\
         Keep {dir}/ca.key safe: only `medic certs` needs it.\n\nNext:\n",
        made.cluster,
        plural(made.nodes.len(), "node"),
        plural(made.agents.len(), "agent"),
        plural(made.users.len(), "user")
    );
    for node in &made.nodes {
        text += &format!("  medic serve --config {}\n", node.display());
    }
    for agent in &made.agents {
        text += &format!("  medic agent --config {}\n", agent.display());
    }
    text += &format!("  export MEDIC_CONFIG={}\n  medic cluster status", made.contexts.display());
    text
}

/// `medic certs …`.
pub(super) fn certs(command: CertsCommand) -> Result<(), CliError> {
    let now = SystemClock.now();
    match command {
        CertsCommand::Issue(args) => issue(args, now),
        CertsCommand::Show { paths, output } => show(&paths, &Out::new(output.output), now),
        CertsCommand::Renew { dir, names, within, days, output } => {
            let renewed = security::renew(&Layout(dir), &names, now.plus(within), days, now)?;
            renewals(&renewed, within, &Out::new(output.output))
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Renewed {
    name: String,
    was_good_until: String,
    is_good_until: String,
    file: PathBuf,
}

fn renewals(renewed: &[security::Renewal], within: Millis, out: &Out) -> Result<(), CliError> {
    let renewed: Vec<Renewed> = renewed
        .iter()
        .map(|one| Renewed {
            name: one.name.clone(),
            was_good_until: format_rfc3339(one.until.0),
            is_good_until: format_rfc3339(one.until.1),
            file: one.path.clone(),
        })
        .collect();
    out.list(&renewed, |renewed| {
        if renewed.is_empty() {
            return format!("nothing to do: no certificate ends within {within}");
        }
        let mut table = Table::new(["NAME", "WAS GOOD UNTIL", "IS GOOD UNTIL", "FILE"]);
        for one in renewed {
            table.row([
                one.name.clone(),
                one.was_good_until.clone(),
                one.is_good_until.clone(),
                one.file.display().to_string(),
            ]);
        }
        table.render(&Style::new(out.color()))
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Issued {
    name: String,
    cert: PathBuf,
    config: PathBuf,
    next: Vec<String>,
}

fn issue(args: IssueArgs, now: Timestamp) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
    let layout = Layout(args.dir);
    let nodes = match args.nodes {
        nodes if nodes.is_empty() && args.node.is_none() => nodes_of(&layout)?,
        nodes => nodes,
    };
    let (node, user) = (args.node, args.user.clone());
    let who = match (args.node, args.agent, args.user) {
        (Some(node), _, _) => Newcomer::Node { node, hosts: args.hosts, base_port: args.base_port },
        (_, Some(name), _) => Newcomer::Agent { name, nodes },
        (_, _, Some(name)) => Newcomer::User { name, nodes },
        (None, None, None) => {
            return Err(CliError::Usage("name a --node, an --agent or a --user".to_owned()));
        }
    };
    let Made { name, cert, config } = security::issue(&layout, who, args.days, now)?;
    let file = config.display();
    let next = match (node, user) {
        (Some(node), _) => {
            let peer = NodeConfig::load(&config).map_err(CliError::failed)?.peer_addr();
            vec![
                format!("medic serve --config {file}"),
                format!("medic cluster add {node} {peer}"),
                format!("medic cluster promote {node}"),
            ]
        }
        (None, Some(user)) => vec![
            format!("medic apply -f -     a RoleBinding with subjects: [{{user: {user}}}]"),
            format!("medic get incidents --config {file} --context {user}"),
        ],
        (None, None) => vec![format!("medic agent --config {file}")],
    };
    out.value(&Issued { name, cert, config, next }, |made| {
        let mut text = format!(
            "{} is for {}, good for {} days; {} is written.\n\nNext:",
            made.cert.display(),
            made.name,
            args.days,
            made.config.display()
        );
        for line in &made.next {
            text += &format!("\n  {line}");
        }
        text
    })
}

/// The nodes' API addresses, as the directory's own contexts have them.
fn nodes_of(layout: &Layout) -> Result<Vec<String>, CliError> {
    let contexts = context::read(&layout.contexts())?;
    Ok(contexts.contexts.into_values().next().map(|context| context.nodes).unwrap_or_default())
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

fn identities(path: &Path) -> Result<Vec<(PathBuf, security::Identity)>, SecurityError> {
    if path.is_dir() {
        return Layout(path.to_owned()).identities();
    }
    Ok(security::inspect(path)?.into_iter().map(|one| (path.to_owned(), one)).collect())
}

fn show(paths: &[PathBuf], out: &Out, now: Timestamp) -> Result<(), CliError> {
    let mut shown = Vec::new();
    for path in paths {
        shown.extend(identities(path)?.into_iter().map(|(file, one)| Shown {
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
                ms if ms < SOON.0 => style.warn(&span(ms)),
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
