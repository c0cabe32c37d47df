//! Configuration files as `medic init` and `medic certs issue` write them: they start as they are, and
//! say what each line is for.

use std::{collections::BTreeMap, path::PathBuf};

use super::{Layout, SecurityError};
use crate::config::{NodeConfig, RaftTimings};

/// Addresses of one node.
pub(super) struct Place {
    pub(super) host: String,
    pub(super) listen: &'static str,
    pub(super) api: u16,
    pub(super) peer: u16,
    pub(super) http: u16,
}

impl Place {
    /// On this machine, each node with its own ports.
    pub(super) fn here(base: u16) -> Self {
        let host = "127.0.0.1".to_owned();
        Self { host, listen: "127.0.0.1", api: base, peer: base + 1, http: base + 2 }
    }

    /// On a host of its own.
    pub(super) fn on(host: &str, base: u16) -> Self {
        let host = host.to_owned();
        Self { host, listen: "0.0.0.0", api: base, peer: base + 1, http: 8080 }
    }
}

/// What the configuration of a node says.
pub(super) struct NodeText<'a> {
    pub(super) cluster: &'a str,
    pub(super) node: u32,
    pub(super) region: &'a str,
    pub(super) place: Place,
    /// First admin; a node that joins has none to name.
    pub(super) admin: Option<&'a str>,
    /// Peer addresses by node.
    pub(super) members: BTreeMap<u64, String>,
    pub(super) raft: RaftTimings,
    /// Its data folder.
    pub(super) data: String,
}

impl NodeText<'_> {
    pub(super) fn render(&self) -> String {
        let Self { cluster, node, region, place, admin, members, raft, data } = self;
        let Place { host, listen, api, peer, http } = place;
        let role = match admin {
            Some(admin) => format!(
                "# Become admins of the new cluster; ignored once a RoleBinding exists.\nadmins = [{admin:?}]\n"
            ),
            None => format!(
                "# No first member: it waits for `medic cluster add {node} {host}:{peer}`.\njoin = true\n"
            ),
        };
        let mut text = format!(
            r#"# Node {node} of cluster {cluster}. Start it with: medic serve --config node-{node}.toml
cluster = {cluster:?}
node = {node}
region = {region:?}
data_dir = {data:?}
{role}
[listen]
api = "{listen}:{api}"      # control API and agents, mutual TLS
peer = "{listen}:{peer}"     # consensus, mutual TLS, members only
http = "{listen}:{http}"     # metrics, health, telemetry ingest: plain, keep it inside

[advertise]
api = "{host}:{api}"
peer = "{host}:{peer}"

[tls]
ca = "ca.crt"
cert = "nodes/node-{node}.crt"
key = "nodes/node-{node}.key"

"#
        );
        if *raft != RaftTimings::default() {
            let RaftTimings { heartbeat, election_min, election_max, snapshot_every } = raft;
            text += &format!(
                "[raft]                          # alike on all nodes\nheartbeat = \"{heartbeat}\"\nelection_min = \"{election_min}\"\nelection_max = \"{election_max}\"\nsnapshot_every = {snapshot_every}\n\n"
            );
        }
        text += "[members]                       # the first members, by their peer address\n";
        for (other, address) in members {
            text += &format!("{other} = {address:?}\n");
        }
        text
    }
}

/// The configuration of a node that joins the cluster whose first nodes are configured in `layout`.
/// `host` is where others reach it; `base_port` its first port, where it is not what follows from
/// the others'.
///
/// # Errors
/// When no node's configuration is there to go by, or it is not good.
pub(super) fn joining(
    layout: &Layout,
    node: u32,
    host: &str,
    base_port: Option<u16>,
) -> Result<String, SecurityError> {
    let bad = |error: String| SecurityError::BadRequest(error);
    let model = model(layout).map_err(|error| bad(error.to_string()))?.ok_or_else(|| {
        bad(format!(
            "{} holds no configuration of another node to go by; write node-{node}.toml by hand",
            layout.0.display()
        ))
    })?;
    let here =
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let beside = || {
        let (own, other) = (u64::from(node), model.node.0);
        let base = u64::from(model.listen.api.port()) + 10 * own;
        base.checked_sub(10 * other).and_then(|port| u16::try_from(port).ok())
    };
    let base = match (base_port, here) {
        (Some(port), _) => Some(port),
        (None, true) => beside(),
        (None, false) => Some(model.listen.api.port()),
    };
    let base = base.filter(|port| (1..=u16::MAX - 2).contains(port)).ok_or_else(|| {
        bad(format!("no ports are left for node {node}; choose with --base-port"))
    })?;
    let place = if here {
        Place { host: host.to_owned(), ..Place::here(base) }
    } else {
        Place::on(host, base)
    };
    let mut members: BTreeMap<u64, String> =
        model.members.iter().map(|(node, address)| (node.0, address.clone())).collect();
    members.insert(model.node.0, model.peer_addr());
    let text = NodeText {
        cluster: &model.cluster,
        node,
        region: &model.region,
        place,
        admin: None,
        members,
        raft: model.raft,
        data: data_beside(layout, &model, node),
    };
    Ok(text.render())
}

/// Data of a newcomer: beside that of the others, where they have a folder of their own for it.
fn data_beside(layout: &Layout, model: &NodeConfig, node: u32) -> String {
    let name = format!("node-{node}");
    match model.data_dir.parent() {
        Some(parent) if parent != layout.0.join("data") => parent.join(name).display().to_string(),
        Some(_) | None => format!("data/{name}"),
    }
}

/// The configuration of the first node that has one.
fn model(layout: &Layout) -> Result<Option<NodeConfig>, crate::config::ConfigError> {
    let Ok(entries) = std::fs::read_dir(&layout.0) else { return Ok(None) };
    let is_node = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("node-") && name.ends_with(".toml")
    };
    let first = entries.filter_map(|entry| entry.ok().map(|e| e.path())).filter(is_node).min();
    first.map(|path| NodeConfig::load_with(&path, |_| None)).transpose()
}

/// Where an agent keeps its state unless told otherwise.
pub(super) fn agent_state(name: &str) -> String {
    format!("agents/{name}.state")
}

pub(super) fn agent(
    cluster: &str,
    name: &str,
    nodes: &[String],
    region: &str,
    state: &str,
) -> String {
    format!(
        r#"# Agent {name} of cluster {cluster}. Start it with: medic agent --config agent-{name}.toml
cluster = {cluster:?}
name = {name:?}
region = {region:?}
nodes = {nodes:?}
state_dir = {state:?}

[tls]
ca = "ca.crt"
cert = "agents/{name}.crt"
key = "agents/{name}.key"
"#
    )
}

/// The head of the file of contexts.
pub(super) fn contexts(current: &str) -> String {
    format!(
        "# Contexts of the medic command line: point MEDIC_CONFIG here, or merge this into \
         ~/.config/medic/config.toml.\ncurrent = {current:?}\n"
    )
}

/// One context of the directory's own file.
pub(super) fn context(cluster: &str, user: &str, nodes: &[String]) -> String {
    format!(
        "\n[contexts.{user:?}]\ncluster = {cluster:?}\nnodes = {nodes:?}\nca = \"ca.crt\"\n\
         cert = \"users/{user}.crt\"\nkey = \"users/{user}.key\"\ntenant = \"default\"\n"
    )
}
