//! The directory that `medic init` makes: an authority, identities, and configuration that starts.
//!
//! ```text
//!   DIR/ca.crt ca.key(0600)              medic.toml      contexts of the command line
//!   DIR/nodes/node-1.{crt,key}           node-1.toml …   `medic serve --config DIR/node-1.toml`
//!   DIR/agents/NAME.{crt,key}            agent-NAME.toml `medic agent --config …`
//!   DIR/users/NAME.{crt,key}             data/, agents/NAME.state/  made at first start
//! ```
//!
//! Paths inside are relative: the directory can be moved, or handed out host by host, without
//! `ca.key`, which nothing but `medic certs` needs.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use medic_state::Timestamp;

use super::{
    Authority, Identity, Issued, SecurityError, Subject, Unit, check_name, inspect,
    texts::{self, NodeText, Place},
};
use crate::config::RaftTimings;

/// Days the authority is good for.
const AUTHORITY_DAYS: u32 = 3_650;

/// What `medic init` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitPlan {
    /// Name and identity of the cluster.
    pub cluster: String,
    /// Where everything goes.
    pub out: PathBuf,
    /// Number of nodes.
    pub nodes: u32,
    /// Host of each node. Empty: all on this machine, each with its own ports.
    pub hosts: Vec<String>,
    /// Region of each node; the last one serves for the rest. Empty: none.
    pub regions: Vec<String>,
    /// Agents by name.
    pub agents: Vec<String>,
    /// Users by name; the first is bound to the admin role.
    pub users: Vec<String>,
    /// First port: API, then peer, then HTTP; nodes on one machine are ten ports apart.
    pub base_port: u16,
    /// Days certificates are good for.
    pub days: u32,
    /// Folder on every host under which nodes and agents keep their data; absent: beside their
    /// configuration.
    pub data_dir: Option<PathBuf>,
}

/// Where things stand in that directory.
#[derive(Clone, Debug)]
pub struct Layout(pub PathBuf);

impl Layout {
    /// Certificate of the authority.
    #[must_use]
    pub fn ca_cert(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    /// Key of the authority.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    /// Certificate of an identity.
    #[must_use]
    pub fn cert(&self, unit: Unit, name: &str) -> PathBuf {
        self.0.join(unit.as_str()).join(format!("{name}.crt"))
    }

    /// Key of an identity.
    #[must_use]
    pub fn key(&self, unit: Unit, name: &str) -> PathBuf {
        self.0.join(unit.as_str()).join(format!("{name}.key"))
    }

    /// Configuration of a node.
    #[must_use]
    pub fn node_config(&self, node: u32) -> PathBuf {
        self.0.join(format!("node-{node}.toml"))
    }

    /// Configuration of an agent.
    #[must_use]
    pub fn agent_config(&self, name: &str) -> PathBuf {
        self.0.join(format!("agent-{name}.toml"))
    }

    /// Contexts of the command line.
    #[must_use]
    pub fn contexts(&self) -> PathBuf {
        self.0.join("medic.toml")
    }

    /// Every certificate of an identity there is.
    ///
    /// # Errors
    /// When a certificate cannot be read.
    pub fn identities(&self) -> Result<Vec<(PathBuf, Identity)>, SecurityError> {
        let mut found = Vec::new();
        for unit in [Unit::Nodes, Unit::Agents, Unit::Users] {
            let Ok(entries) = std::fs::read_dir(self.0.join(unit.as_str())) else { continue };
            let mut paths: Vec<PathBuf> = entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.extension().is_some_and(|ending| ending == "crt"))
                .collect();
            paths.sort();
            for path in paths {
                let identity = inspect(&path)?.swap_remove(0);
                found.push((path, identity));
            }
        }
        Ok(found)
    }

    fn authority(&self) -> Result<Authority, SecurityError> {
        Authority::open(&self.ca_cert(), &self.ca_key())
    }
}

impl InitPlan {
    fn check(&self) -> Result<(), SecurityError> {
        let bad = |text: String| Err(SecurityError::BadRequest(text));
        if !(1..=9).contains(&self.nodes) {
            return bad(format!("{} nodes: a cluster has 1 to 9, best 3 or 5", self.nodes));
        }
        if !self.hosts.is_empty() && self.hosts.len() != self.nodes as usize {
            return bad(format!("{} hosts for {} nodes", self.hosts.len(), self.nodes));
        }
        if self.users.is_empty() {
            return bad("no users: at least one is needed, to be the first admin".to_owned());
        }
        if !(1..=3_650).contains(&self.days) {
            return bad(format!("{} days: certificates are good for 1 to 3650", self.days));
        }
        if u32::from(self.base_port) + 10 * self.nodes > 65_535 || self.base_port == 0 {
            return bad(format!("base port {} leaves no room for all nodes", self.base_port));
        }
        let mut names: Vec<&String> = self.users.iter().collect();
        names.sort();
        names.dedup();
        if names.len() != self.users.len() {
            return bad("a user is named twice".to_owned());
        }
        self.agents.iter().chain(&self.users).try_for_each(|name| check_name(name))
    }

    fn place(&self, node: u32) -> Place {
        match self.hosts.get(node as usize - 1) {
            Some(host) => Place::on(host, self.base_port),
            None => {
                #[allow(clippy::cast_possible_truncation, reason = "at most 9 nodes")]
                let base = self.base_port + 10 * (node as u16 - 1);
                Place::here(base)
            }
        }
    }

    fn node_config(&self, node: u32) -> String {
        let peer = |n| {
            let Place { host, peer, .. } = self.place(n);
            (u64::from(n), format!("{host}:{peer}"))
        };
        let text = NodeText {
            cluster: &self.cluster,
            node,
            region: self.region(node),
            place: self.place(node),
            admin: self.users.first().map(String::as_str),
            members: (1..=self.nodes).map(peer).collect(),
            raft: RaftTimings::default(),
            data: self.data(&format!("node-{node}"), &format!("data/node-{node}")),
        };
        text.render()
    }

    fn contexts(&self) -> String {
        let nodes = self.api_addresses();
        let head = texts::contexts(self.users.first().map_or("", String::as_str));
        self.users
            .iter()
            .fold(head, |text, user| text + &texts::context(&self.cluster, user, &nodes))
    }

    fn region(&self, node: u32) -> &str {
        let at = self.regions.get(node as usize - 1);
        at.or(self.regions.last()).map_or("", String::as_str)
    }

    /// Data of a node or agent; `beside` where no folder was asked for.
    fn data(&self, name: &str, beside: &str) -> String {
        self.data_dir
            .as_ref()
            .map_or_else(|| beside.to_owned(), |dir| dir.join(name).display().to_string())
    }

    fn api_addresses(&self) -> Vec<String> {
        (1..=self.nodes).map(|n| self.place(n)).map(|p| format!("{}:{}", p.host, p.api)).collect()
    }
}

/// Makes the directory. Refuses one that already holds an authority.
///
/// # Errors
/// When the plan makes no sense, or a file cannot be written.
pub fn init(plan: &InitPlan, now: Timestamp) -> Result<Layout, SecurityError> {
    plan.check()?;
    let layout = Layout(plan.out.clone());
    if layout.ca_key().exists() {
        return Err(SecurityError::Exists { path: layout.ca_key() });
    }
    let (authority, ca) = Authority::create(&plan.cluster, now, AUTHORITY_DAYS)?;
    write_identity(&layout.ca_cert(), &layout.ca_key(), &ca)?;
    let make = |unit, name: &str, hosts: Vec<String>| {
        let subject = Subject { name: name.to_owned(), cluster: plan.cluster.clone(), unit, hosts };
        let issued = authority.issue(&subject, now, plan.days)?;
        write_identity(&layout.cert(unit, name), &layout.key(unit, name), &issued)
    };
    for node in 1..=plan.nodes {
        make(Unit::Nodes, &format!("node-{node}"), vec![plan.place(node).host])?;
        write(&layout.node_config(node), &plan.node_config(node), 0o644)?;
    }
    for name in &plan.agents {
        make(Unit::Agents, name, Vec::new())?;
        let state = plan.data(&format!("agent-{name}"), &texts::agent_state(name));
        let nodes = plan.api_addresses();
        let text = texts::agent(&plan.cluster, name, &nodes, plan.region(1), &state);
        write(&layout.agent_config(name), &text, 0o644)?;
    }
    for name in &plan.users {
        make(Unit::Users, name, Vec::new())?;
    }
    write(&layout.contexts(), &plan.contexts(), 0o644)?;
    Ok(layout)
}

/// One more identity, for a cluster that exists.
#[derive(Clone, Debug)]
pub enum Newcomer {
    /// A node: its number, the hosts it is dialled under (the first is told to the others), its
    /// first port where it does not follow from the others'.
    Node {
        /// Its number.
        node: u32,
        /// Hosts.
        hosts: Vec<String>,
        /// First port.
        base_port: Option<u16>,
    },
    /// An agent, and the API addresses of the nodes it dials.
    Agent {
        /// Its name.
        name: String,
        /// `host:port` each.
        nodes: Vec<String>,
    },
    /// A user, and the API addresses for their context.
    User {
        /// Their name.
        name: String,
        /// `host:port` each.
        nodes: Vec<String>,
    },
}

/// Files that were made for a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Name in the certificate.
    pub name: String,
    /// The certificate; its key is beside it.
    pub cert: PathBuf,
    /// Configuration, or the file of contexts that has one more.
    pub config: PathBuf,
}

/// Issues one more identity into a directory made by [`init`], with the configuration it needs.
///
/// # Errors
/// When there is such an identity already, or a file cannot be read or written.
pub fn issue(
    layout: &Layout,
    who: Newcomer,
    days: u32,
    now: Timestamp,
) -> Result<Made, SecurityError> {
    let cluster = inspect(&layout.ca_cert())?.swap_remove(0).cluster;
    let (unit, name, hosts, config, text) = match who {
        Newcomer::Node { node, hosts, base_port } => {
            let Some(first) = hosts.first().filter(|_| node > 0) else {
                let text = "a node needs a number above 0, and a --host that others dial it under";
                return Err(SecurityError::BadRequest(text.to_owned()));
            };
            let text = texts::joining(layout, node, first, base_port)?;
            (Unit::Nodes, format!("node-{node}"), hosts, layout.node_config(node), text)
        }
        Newcomer::Agent { name, nodes } => {
            let text = texts::agent(&cluster, &name, &nodes, "", &texts::agent_state(&name));
            (Unit::Agents, name.clone(), Vec::new(), layout.agent_config(&name), text)
        }
        Newcomer::User { name, nodes } => {
            let path = layout.contexts();
            let before = std::fs::read_to_string(&path).unwrap_or_else(|_| texts::contexts(&name));
            let text = before + &texts::context(&cluster, &name, &nodes);
            (Unit::Users, name, Vec::new(), path, text)
        }
    };
    check_name(&name)?;
    let cert = layout.cert(unit, &name);
    if cert.exists() {
        let text = format!("{} exists already; `medic certs renew` replaces it", cert.display());
        return Err(SecurityError::BadRequest(text));
    }
    let subject = Subject { name: name.clone(), cluster, unit, hosts };
    let issued = layout.authority()?.issue(&subject, now, days)?;
    write_identity(&cert, &layout.key(unit, &name), &issued)?;
    write(&config, &text, 0o644)?;
    Ok(Made { name, cert, config })
}

/// One certificate that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Its file.
    pub path: PathBuf,
    /// Who.
    pub name: String,
    /// Good until, before and now.
    pub until: (Timestamp, Timestamp),
}

/// Replaces keys and certificates of everyone whose certificate ends before `before`, or who is
/// named. Running nodes and agents notice by themselves.
///
/// # Errors
/// When a file cannot be read or written, or nobody has that name.
pub fn renew(
    layout: &Layout,
    names: &[String],
    before: Timestamp,
    days: u32,
    now: Timestamp,
) -> Result<Vec<Renewal>, SecurityError> {
    let authority = layout.authority()?;
    let identities = layout.identities()?;
    if let Some(name) = names.iter().find(|n| !identities.iter().any(|(_, i)| i.name == **n)) {
        let text = format!("there is no certificate of `{name}` in {}", layout.0.display());
        return Err(SecurityError::BadRequest(text));
    }
    let mut renewed = Vec::new();
    for (path, identity) in identities {
        let wanted = if names.is_empty() {
            identity.not_after < before
        } else {
            names.contains(&identity.name)
        };
        let (true, Some(unit)) = (wanted, Unit::from_name(&identity.unit)) else { continue };
        let Identity { name, cluster, hosts, not_after, .. } = identity;
        let subject = Subject { name: name.clone(), cluster, unit, hosts };
        let issued = authority.issue(&subject, now, days)?;
        write_identity(&path, &layout.key(unit, &name), &issued)?;
        let until = (not_after, inspect(&path)?[0].not_after);
        renewed.push(Renewal { path, name, until });
    }
    Ok(renewed)
}

fn write_identity(cert: &Path, key: &Path, issued: &Issued) -> Result<(), SecurityError> {
    write(key, &issued.key, 0o600)?;
    write(cert, &issued.cert, 0o644)
}

/// Writes beside and renames: a reader sees the old file or the new one, never half of it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), SecurityError> {
    let failed = |source| SecurityError::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(mode).open(&beside).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)
}
