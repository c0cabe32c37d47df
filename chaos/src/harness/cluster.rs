//! A cluster of real `medic` processes, on loopback or in network namespaces: nodes, agents, credentials, and clients.
//!
//! It is set up the way a user would: `medic init` makes the credentials, configuration files say
//! who listens where, then `medic serve` and `medic agent` run as processes of their own.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use medic_proto::v1 as pb;

use super::{
    client::{self, Addresses, Client, Dialer},
    ports::free_block,
    process::Process,
};
use crate::{netns::Network, relay::Way};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Folder for everything.
    pub dir: PathBuf,
    /// Number of nodes.
    pub nodes: u64,
    /// Agents, by name.
    pub agents: Vec<String>,
    /// Users that get credentials; `admin` among them.
    pub users: Vec<String>,
    /// The `medic` binary.
    pub medic: PathBuf,
    /// Environment of every node.
    pub node_env: Vec<(String, String)>,
    /// Environment of every agent.
    pub agent_env: Vec<(String, String)>,
    /// Whether peers are told the address of a relay instead of each other's; the caller runs the
    /// relays, on [`Ports::relay`].
    pub peer_relays: bool,
    /// The network whose places nodes have; without one they are on loopback, each with its own ports.
    pub network: Option<Network>,
    /// Places (blocks of ports, which agents know from the beginning) for nodes that join later.
    pub spare: u64,
    /// Log entries between two snapshots; the node's default where absent.
    pub snapshot_every: Option<u64>,
    /// Heartbeat, least and greatest election timeout, milliseconds. The default suits a machine
    /// that also runs the fleet and the tests.
    pub timings_ms: [u64; 3],
}

impl ClusterOptions {
    /// A cluster under `dir` of the `medic` binary that stands beside this program.
    #[must_use]
    pub fn new(dir: &Path, nodes: u64, agents: Vec<String>) -> Self {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("medic")));
        Self {
            dir: dir.to_owned(),
            nodes,
            agents,
            users: vec!["admin".to_owned()],
            medic: beside.unwrap_or_else(|| PathBuf::from("medic")),
            node_env: Vec::new(),
            agent_env: Vec::new(),
            peer_relays: false,
            network: None,
            spare: 0,
            snapshot_every: None,
            timings_ms: [100, 300, 600],
        }
    }
}

/// Where one node is.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Its address.
    pub host: Ipv4Addr,
    /// Control API.
    pub api: u16,
    /// Peers.
    pub peer: u16,
    /// HTTP.
    pub http: u16,
    /// A relay in front of the peer port.
    pub relay: u16,
}

impl Ports {
    /// `host:port` of its control API.
    fn api_address(&self) -> String {
        format!("{}:{}", self.host, self.api)
    }

    /// On loopback, from a first port of its own.
    const fn here(base: u16) -> Self {
        Self {
            host: Ipv4Addr::LOCALHOST,
            api: base,
            peer: base + 1,
            http: base + 2,
            relay: base + 3,
        }
    }

    /// On an address of its own, as `medic init --hosts` has it.
    const fn on(host: Ipv4Addr) -> Self {
        Self { host, api: BASE, peer: BASE + 1, http: 8_080, relay: BASE + 3 }
    }
}

/// First port of a node that has an address of its own.
const BASE: u16 = 7_440;

/// A cluster. Dropping it kills its processes.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    ports: BTreeMap<u64, Ports>,
    /// Places that no node has.
    free: Vec<Ports>,
    addresses: Addresses,
    nodes: BTreeMap<u64, Process>,
    agents: BTreeMap<String, Process>,
}

/// Between looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);

impl Cluster {
    /// Makes credentials and configuration; starts nothing.
    ///
    /// # Errors
    /// When `medic init` fails or files cannot be written.
    pub async fn prepare(options: ClusterOptions) -> anyhow::Result<Self> {
        let places = options.nodes + options.spare;
        let mut free: Vec<Ports> = match &options.network {
            Some(network) => {
                (1..=u8::try_from(places)?).map(|place| Ports::on(network.address(place))).collect()
            }
            None => {
                let base = free_block(u16::try_from(10 * places)?)?;
                (base..).step_by(10).map(Ports::here).take(usize::try_from(places)?).collect()
            }
        };
        let ports =
            (1..=options.nodes).zip(free.drain(..usize::try_from(options.nodes)?)).collect();
        let (nodes, agents) = (BTreeMap::new(), BTreeMap::new());
        let addresses = Addresses::default();
        let mut cluster = Self { options, ports, free, addresses, nodes, agents };
        cluster.init().await?;
        cluster.adjust()?;
        Ok(cluster)
    }

    async fn init(&self) -> anyhow::Result<()> {
        let options = &self.options;
        let base = self.ports.values().next().context("a cluster of no nodes")?.api;
        let mut command = tokio::process::Command::new(&options.medic);
        command.args(["init", "--cluster", "local"]).arg("--out").arg(&options.dir);
        command.args(["--nodes", &options.nodes.to_string(), "--base-port", &base.to_string()]);
        command.args(["--users", &options.users.join(",")]);
        if options.network.is_some() {
            let hosts: Vec<String> = self.ports.values().map(|p| p.host.to_string()).collect();
            command.args(["--hosts", &hosts.join(",")]);
        }
        if !options.agents.is_empty() {
            command.args(["--agents", &options.agents.join(",")]);
        }
        let output = command
            .output()
            .await
            .with_context(|| format!("running {}", options.medic.display()))?;
        if !output.status.success() {
            bail!("`medic init` failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Sets the timings of consensus, and describes the processes.
    fn adjust(&mut self) -> anyhow::Result<()> {
        let logs = self.options.dir.join("logs");
        std::fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        for id in self.ports.keys().copied().collect::<Vec<_>>() {
            self.describe(id)?;
        }
        for agent in self.options.agents.clone() {
            let config = self.agent_config(&agent);
            if !self.free.is_empty() {
                know_places(&config, &self.free)?;
            }
            let args = args("agent", &config);
            let log = logs.join(format!("agent-{agent}.log"));
            let name = format!("agent-{agent}");
            let mut process = Process::new(&name, &self.options.medic, args, log);
            process.set_env(&borrowed(&self.options.agent_env));
            self.agents.insert(agent, process);
        }
        Ok(())
    }

    /// Completes the configuration of a node that has ports, and describes its process.
    fn describe(&mut self, node: u64) -> anyhow::Result<()> {
        let path = self.node_config(node);
        let mut text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        if self.options.peer_relays {
            text = self.through_relays(node, &text)?;
        }
        let mut config: toml::Table = text.parse()?;
        let [heartbeat, least, greatest] = self.options.timings_ms.map(|ms| format!("{ms}ms"));
        let mut raft = toml::Table::new();
        raft.insert("heartbeat".to_owned(), heartbeat.into());
        raft.insert("election_min".to_owned(), least.into());
        raft.insert("election_max".to_owned(), greatest.into());
        if let Some(every) = self.options.snapshot_every {
            raft.insert("snapshot_every".to_owned(), i64::try_from(every)?.into());
        }
        config.insert("raft".to_owned(), raft.into());
        std::fs::write(&path, toml::to_string(&config)?)?;
        let name = format!("node-{node}");
        let log = self.options.dir.join(format!("logs/{name}.log"));
        let mut process = Process::new(&name, &self.options.medic, args("serve", &path), log);
        process.set_env(&borrowed(&self.options.node_env));
        process.set_netns(self.netns(node));
        self.nodes.insert(node, process);
        self.addresses.set(node, self.ports(node).map(|ports| ports.api_address()));
        Ok(())
    }

    /// Prepares a node that joins, in a place that is free: a certificate, and a configuration with
    /// which it waits to be added. It is not started. Gives the address its peers are told.
    ///
    /// # Errors
    /// When no place is free, the number was used before, or files cannot be written.
    pub async fn join(&mut self, node: u64) -> anyhow::Result<String> {
        let ports = self.free.pop().context("no place is free for another node")?;
        let (number, base) = (node.to_string(), ports.api.to_string());
        let output = tokio::process::Command::new(&self.options.medic)
            .args(["certs", "issue", "--host", &ports.host.to_string(), "--node", &number])
            .args(["--base-port", &base])
            .arg("--dir")
            .arg(&self.options.dir)
            .output()
            .await?;
        if !output.status.success() {
            self.free.push(ports);
            bail!("`medic certs issue` failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        self.ports.insert(node, ports);
        self.describe(node)?;
        let peer = if self.options.peer_relays { ports.relay } else { ports.peer };
        Ok(format!("{}:{peer}", ports.host))
    }

    /// Ends the process of a node that is no member any more; its place is free again.
    ///
    /// # Errors
    /// When the process cannot be ended.
    pub async fn leave(&mut self, node: u64) -> anyhow::Result<()> {
        self.addresses.set(node, None);
        if let Some(mut process) = self.nodes.remove(&node) {
            process.kill().await?;
        }
        self.free.extend(self.ports.remove(&node));
        Ok(())
    }

    /// A node's configuration with the relays in the place of the peers.
    fn through_relays(&self, node: u64, text: &str) -> anyhow::Result<String> {
        let mut config: toml::Table = text.parse()?;
        let relays: BTreeMap<String, String> = self
            .ports
            .iter()
            .map(|(id, ports)| (id.to_string(), format!("{}:{}", ports.host, ports.relay)))
            .collect();
        let own = relays.get(&node.to_string()).cloned().unwrap_or_default();
        let advertise = config.get_mut("advertise").and_then(toml::Value::as_table_mut);
        advertise.context("no [advertise] in the configuration")?.insert("peer".into(), own.into());
        // Who joins learns of the others from the one that adds it.
        if config.get("join").is_none() {
            config.insert("members".to_owned(), toml::Value::try_from(relays)?);
        }
        Ok(toml::to_string(&config)?)
    }

    /// Folder of everything.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Ports of a node.
    #[must_use]
    pub fn ports(&self, node: u64) -> Option<Ports> {
        self.ports.get(&node).copied()
    }

    /// The way of a node's relay: where it is told to listen, and what is behind it.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn way(&self, node: u64) -> anyhow::Result<Way> {
        let ports = self.ports(node).with_context(|| format!("there is no node-{node}"))?;
        let at = |port| SocketAddr::from((ports.host, port));
        Ok(Way { listen: at(ports.relay), to: at(ports.peer), netns: self.netns(node) })
    }

    /// The network namespace of a node; none on loopback.
    fn netns(&self, node: u64) -> Option<PathBuf> {
        self.options.network.as_ref()?.at(self.ports(node)?.host)
    }

    /// Configuration file of a node.
    #[must_use]
    pub fn node_config(&self, node: u64) -> PathBuf {
        self.options.dir.join(format!("node-{node}.toml"))
    }

    /// Configuration file of an agent.
    #[must_use]
    pub fn agent_config(&self, agent: &str) -> PathBuf {
        self.options.dir.join(format!("agent-{agent}.toml"))
    }

    /// Data folder of a node.
    #[must_use]
    pub fn data_dir(&self, node: u64) -> PathBuf {
        self.options.dir.join(format!("data/node-{node}"))
    }

    /// A client with a user's certificate, on whichever node answers.
    ///
    /// # Errors
    /// When the user has no certificate, or no node answers.
    pub async fn client(&self, user: &str) -> anyhow::Result<Client> {
        let addresses: Vec<String> = self.ports.values().map(Ports::api_address).collect();
        client::connect(&addresses, &self.material(user)?).await
    }

    /// A client of one node.
    ///
    /// # Errors
    /// When the user has no certificate, or the node does not answer.
    pub async fn client_of(&self, node: u64, user: &str) -> anyhow::Result<Client> {
        let ports = self.ports(node).with_context(|| format!("there is no node-{node}"))?;
        client::connect(&[ports.api_address()], &self.material(user)?).await
    }

    /// What connects to any node with a user's certificate, independent of this handle.
    ///
    /// # Errors
    /// When the user has no certificate.
    pub fn dialer(&self, user: &str) -> anyhow::Result<Dialer> {
        Ok(Dialer::new(self.addresses.clone(), self.material(user)?))
    }

    /// Credentials of a user.
    ///
    /// # Errors
    /// When the user has none.
    pub fn material(&self, user: &str) -> anyhow::Result<medic_node::security::Material> {
        let files = self.tls_files(medic_node::security::Unit::Users, user);
        let now = wall_clock();
        Ok(medic_node::security::load(&files, "local", medic_node::security::Unit::Users, now)?)
    }

    /// Certificate files of an identity.
    #[must_use]
    pub fn tls_files(
        &self,
        unit: medic_node::security::Unit,
        name: &str,
    ) -> medic_node::config::TlsFiles {
        let layout = medic_node::security::Layout(self.options.dir.clone());
        medic_node::config::TlsFiles {
            ca: layout.ca_cert(),
            cert: layout.cert(unit, name),
            key: layout.key(unit, name),
        }
    }

    /// Starts all nodes and agents.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        self.nodes.values_mut().try_for_each(Process::start)?;
        self.agents.values_mut().try_for_each(Process::start)
    }

    /// A node's process.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn node_mut(&mut self, node: u64) -> anyhow::Result<&mut Process> {
        self.nodes.get_mut(&node).with_context(|| format!("there is no node-{node}"))
    }

    /// An agent's process.
    ///
    /// # Errors
    /// When there is no such agent.
    pub fn agent_mut(&mut self, agent: &str) -> anyhow::Result<&mut Process> {
        self.agents.get_mut(agent).with_context(|| format!("there is no agent {agent}"))
    }

    /// The leader, as the nodes that answer say.
    ///
    /// # Errors
    /// When no node knows one.
    pub async fn leader(&self) -> anyhow::Result<u64> {
        let mut client = self.client("admin").await?;
        let status = client.cluster().status(pb::StatusRequest {}).await?.into_inner();
        if status.leader == 0 { bail!("no leader is known") } else { Ok(status.leader) }
    }

    /// Waits for a leader that has fenced.
    ///
    /// # Errors
    /// When there is none in time; names a log to look at.
    pub async fn wait_for_leader(&mut self, patience: Duration) -> anyhow::Result<u64> {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(leader) = self.leader().await {
                return Ok(leader);
            }
            if let Some(process) = self.nodes.values_mut().find_map(|p| p.ended().then_some(p)) {
                bail!("{} ended; see {}", process.name(), process.log().display());
            }
            if Instant::now() > deadline {
                bail!(
                    "no leader after {patience:?}; see {}",
                    self.options.dir.join("logs").display()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends all processes.
    ///
    /// # Errors
    /// When one cannot be ended.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        for process in self.agents.values_mut().chain(self.nodes.values_mut()) {
            process.stop().await?;
        }
        Ok(())
    }
}

fn args(what: &str, config: &Path) -> Vec<String> {
    vec![what.to_owned(), "--config".to_owned(), config.display().to_string()]
}

/// Adds the places of later nodes to those that an agent dials.
fn know_places(config: &Path, places: &[Ports]) -> anyhow::Result<()> {
    let mut table: toml::Table = std::fs::read_to_string(config)?.parse()?;
    let nodes = table.get_mut("nodes").and_then(toml::Value::as_array_mut);
    let nodes = nodes.context("no `nodes` in the configuration of an agent")?;
    nodes.extend(places.iter().map(|place| place.api_address().into()));
    std::fs::write(config, toml::to_string(&table)?)
        .with_context(|| format!("writing {}", config.display()))
}

fn borrowed(env: &[(String, String)]) -> Vec<(&str, &str)> {
    env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

/// What the system's clock says now: what certificates are held against.
#[must_use]
pub fn wall_clock() -> medic_state::Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    medic_state::Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
