//! Configuration files of a node and of an agent, and the environment that overrides them.
//!
//! ```text
//!   node-1.toml ──parse──► checked ──► environment overrides ──► NodeConfig, paths absolute
//! ```
//!
//! Unknown keys are errors: a misspelt key must not silently mean its default. Relative paths are
//! relative to the file they stand in, so that a directory made by `medic init` can be moved.
//! Absent on purpose: anything that replicas must agree on (thresholds and budgets are a `Policy`),
//! except what only the first node of a new cluster needs (`admins`).

mod detection;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use medic_state::{
    Millis, NodeId, Ppm,
    command::{NODE_WEIGHT_DEFAULT, NODE_WEIGHT_MAX},
    decision::ThresholdOverrides,
};
use serde::{Deserialize, Deserializer};

pub use self::detection::DetectionConfig;
use crate::detection::intake::KubeConfig;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; `medic init` writes a working one", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the TOML that is expected.
    #[error("{}: {message}", path.display())]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// A value makes no sense.
    #[error("{}: `{key}`: {problem}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is wrong and what to write instead.
        problem: String,
    },
    /// An environment variable makes no sense.
    #[error("environment variable {name}=`{value}`: expected {expected}")]
    Environment {
        /// Which.
        name: &'static str,
        /// As given.
        value: String,
        /// What would do.
        expected: &'static str,
    },
}

/// Configuration of one node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// Identity of the cluster; equal on all members, and the organization in every certificate.
    pub cluster: String,
    /// This node's number. Never reused.
    pub node: NodeId,
    /// Where it runs; shards prefer owners of their instances' region.
    #[serde(default)]
    pub region: String,
    /// Its share of the shards relative to the other nodes', 0 to [`NODE_WEIGHT_MAX`]; zero: it watches
    /// only while nobody else can.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// Where it keeps its log, snapshots and records.
    pub data_dir: PathBuf,
    /// Where the secrets of channels and sources stand: `<secrets_dir>/<tenant>/<name>`, alike on every node.
    #[serde(default)]
    pub secrets_dir: Option<PathBuf>,
    /// Users who become admins of a new cluster. Ignored once any role binding exists.
    #[serde(default)]
    pub admins: Vec<String>,
    /// Addresses that it listens on.
    pub listen: Listen,
    /// Addresses that others reach it under; those it listens on, where absent.
    #[serde(default)]
    pub advertise: Advertise,
    /// `host:port` of the peer port of every first member, this node included unless it joins.
    #[serde(deserialize_with = "members")]
    pub members: BTreeMap<NodeId, String>,
    /// It joins a cluster that exists: it waits for `medic cluster add` and is no first member.
    #[serde(default)]
    pub join: bool,
    /// Its certificate.
    pub tls: TlsFiles,
    /// Timings of consensus.
    #[serde(default)]
    pub raft: RaftTimings,
    /// Timings of detection.
    #[serde(default)]
    pub detection: DetectionConfig,
    /// Thresholds that replace the policy's on this node.
    #[serde(default)]
    pub decision: DecisionConfig,
    /// Kubernetes clusters whose events are evidence.
    #[serde(default)]
    pub kubernetes: Vec<KubeConfig>,
}

const fn default_weight() -> u32 {
    NODE_WEIGHT_DEFAULT
}

/// Addresses to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Control API and fleet service, mutual TLS.
    pub api: SocketAddr,
    /// Consensus and shard checkpoints, mutual TLS, members only.
    pub peer: SocketAddr,
    /// Metrics, health, telemetry ingest. Plain HTTP: keep it inside.
    pub http: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self { api: any(7440), peer: any(7441), http: any(8080) }
    }
}

/// Addresses that others dial.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Advertise {
    /// `host:port` of the control API.
    pub api: Option<String>,
    /// `host:port` of the peer port; absent: as `members` has it.
    pub peer: Option<String>,
}

/// PEM files of one identity.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the authority that signs everyone.
    pub ca: PathBuf,
    /// Own certificate, followed by intermediates if any.
    pub cert: PathBuf,
    /// Own private key.
    pub key: PathBuf,
}

impl TlsFiles {
    fn rebase(&mut self, base: &Path) {
        for path in [&mut self.ca, &mut self.cert, &mut self.key] {
            *path = base.join(&*path);
        }
    }
}

/// Timings of consensus. A follower campaigns `election_max` plus a random part of
/// `election_min..election_max` after it last heard the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftTimings {
    /// Time between heartbeats.
    pub heartbeat: Millis,
    /// Least election timeout.
    pub election_min: Millis,
    /// Greatest election timeout; also the leader's lease.
    pub election_max: Millis,
    /// Log entries between two snapshots; as many stay in the log behind one.
    pub snapshot_every: u64,
}

impl Default for RaftTimings {
    fn default() -> Self {
        Self {
            heartbeat: Millis(50),
            election_min: Millis(150),
            election_max: Millis(300),
            snapshot_every: 5_000,
        }
    }
}

/// Auto-execute bounds that replace the policy's in decisions this node makes as leader. Set them
/// alike on all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionConfig {
    /// `CONFIDENCE_THRESHOLD`.
    pub confidence_threshold: Option<Ppm>,
    /// `RISK_THRESHOLD`.
    pub risk_threshold: Option<Ppm>,
}

/// Configuration of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Identity of the cluster that it serves.
    pub cluster: String,
    /// Its name, as in its certificate and in `instances[].agent` of Service manifests.
    pub name: String,
    /// Where it runs.
    #[serde(default)]
    pub region: String,
    /// `host:port` of the control API of every node.
    pub nodes: Vec<String>,
    /// Where it keeps its highest fence, its journal and what it runs.
    pub state_dir: PathBuf,
    /// Its certificate.
    pub tls: TlsFiles,
}

impl NodeConfig {
    /// Reads, checks, and applies the environment.
    ///
    /// # Errors
    /// When the file is unreadable, is not the expected TOML, or a value makes no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, |name| std::env::var(name).ok())
    }

    /// Like [`Self::load`], with the environment given.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        path: &Path,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut config: Self = read(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        config.data_dir = base.join(&config.data_dir);
        config.secrets_dir = config.secrets_dir.map(|folder| base.join(folder));
        config.tls.rebase(base);
        for kube in &mut config.kubernetes {
            for path in [&mut kube.ca_file, &mut kube.token_file].into_iter().flatten() {
                *path = base.join(&*path);
            }
        }
        config.override_from(environment)?;
        config.check().map_err(|(key, problem)| ConfigError::Invalid {
            path: path.to_owned(),
            key,
            problem,
        })?;
        Ok(config)
    }

    /// `host:port` that clients and other nodes forward to.
    #[must_use]
    pub fn api_addr(&self) -> String {
        self.advertise.api.clone().unwrap_or_else(|| self.listen.api.to_string())
    }

    /// `host:port` of the peer port as others dial it.
    #[must_use]
    pub fn peer_addr(&self) -> String {
        let among_members = || self.members.get(&self.node).cloned();
        let advertised = self.advertise.peer.clone().or_else(among_members);
        advertised.unwrap_or_else(|| self.listen.peer.to_string())
    }

    /// Thresholds to commit with the decisions of this node.
    #[must_use]
    pub const fn overrides(&self) -> ThresholdOverrides {
        ThresholdOverrides {
            confidence: self.decision.confidence_threshold,
            risk: self.decision.risk_threshold,
        }
    }

    fn override_from(
        &mut self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        if let Some(value) = environment("DETECTION_INTERVAL") {
            self.detection.interval = seconds(&value).ok_or(ConfigError::Environment {
                name: "DETECTION_INTERVAL",
                value,
                expected: "seconds between scrapes, from 0.1 to 3600, such as 5",
            })?;
        }
        let fraction = |name: &'static str| match environment(name) {
            None => Ok(None),
            Some(value) => value.trim().parse().map(Some).map_err(|_| ConfigError::Environment {
                name,
                value,
                expected: "a fraction from 0 to 1 such as 0.8, or a percentage such as 80%",
            }),
        };
        if let Some(value) = fraction("CONFIDENCE_THRESHOLD")? {
            self.decision.confidence_threshold = Some(value);
        }
        if let Some(value) = fraction("RISK_THRESHOLD")? {
            self.decision.risk_threshold = Some(value);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let bad = |key, problem: &str| Err((key, problem.to_owned()));
        check_cluster(&self.cluster)?;
        if self.node.0 == 0 {
            return bad("node", "node numbers start at 1");
        }
        if self.weight > NODE_WEIGHT_MAX {
            let problem = format!(
                "is {}; it is from 0 to {NODE_WEIGHT_MAX}, and {NODE_WEIGHT_DEFAULT} is the default",
                self.weight
            );
            return Err(("weight", problem));
        }
        match self.members.get(&self.node) {
            Some(_) if self.join => return bad("join", "a node that joins is no first member"),
            None if !self.join => {
                let known: Vec<String> = self.members.keys().map(ToString::to_string).collect();
                let known = known.join(", ");
                let problem = format!(
                    "{} is not among {known}; set `join = true` if it is added later",
                    self.node
                );
                return Err(("members", problem));
            }
            Some(own) if self.advertise.peer.as_ref().is_some_and(|peer| peer != own) => {
                let problem = format!("{own} for {} differs from `advertise.peer`", self.node);
                return Err(("members", problem));
            }
            Some(_) | None => {}
        }
        for address in self.members.values() {
            check_address("members", address)?;
        }
        if let Some(address) = &self.advertise.api {
            check_address("advertise.api", address)?;
        } else if self.listen.api.ip().is_unspecified() {
            return bad("advertise.api", "needed when `listen.api` is every interface");
        }
        if let Some(address) = &self.advertise.peer {
            check_address("advertise.peer", address)?;
        }
        let timings = &self.raft;
        if timings.heartbeat.0 == 0
            || timings.election_min.0 < 2 * timings.heartbeat.0
            || timings.election_max <= timings.election_min
        {
            return bad("raft", "needs 0 < 2 × heartbeat <= election_min < election_max");
        }
        if timings.snapshot_every == 0 {
            return bad("raft.snapshot_every", "is at least 1; 5000 is the default");
        }
        self.detection.check()?;
        self.kubernetes.iter().try_for_each(KubeConfig::check)
    }
}

impl AgentConfig {
    /// Reads and checks.
    ///
    /// # Errors
    /// When the file is unreadable, is not the expected TOML, or a value makes no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = read(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        config.state_dir = base.join(&config.state_dir);
        config.tls.rebase(base);
        config.check().map_err(|(key, problem)| ConfigError::Invalid {
            path: path.to_owned(),
            key,
            problem,
        })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        check_cluster(&self.cluster)?;
        if self.name.is_empty() {
            return Err(("name", "is empty; it is the name in the agent's certificate".to_owned()));
        }
        if self.nodes.is_empty() {
            return Err(("nodes", "is empty; list `host:port` of every node's API".to_owned()));
        }
        self.nodes.iter().try_for_each(|address| check_address("nodes", address))
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })
}

fn check_cluster(cluster: &str) -> Result<(), (&'static str, String)> {
    let fits = (1..=63).contains(&cluster.len())
        && cluster.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits {
        Ok(())
    } else {
        let problem = format!("`{cluster}` is not 1 to 63 letters, digits, `-`, `_`, `.`");
        Err(("cluster", problem))
    }
}

fn check_address(key: &'static str, address: &str) -> Result<(), (&'static str, String)> {
    let good = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if good { Ok(()) } else { Err((key, format!("`{address}` is not host:port"))) }
}

/// Seconds, decimals allowed, from 0.1 to 3600.
fn seconds(text: &str) -> Option<Millis> {
    let seconds: f64 = text.trim().parse().ok()?;
    let fits = (0.1..=3600.0).contains(&seconds);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above")]
    fits.then(|| Millis((seconds * 1000.0).round() as u64))
}

/// Members by number; TOML keys are text: `1` or `node-1`.
fn members<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<NodeId, String>, D::Error> {
    use serde::de::Error as _;
    let mut members = BTreeMap::new();
    for (key, address) in BTreeMap::<String, String>::deserialize(d)? {
        let node: NodeId = key.parse().map_err(D::Error::custom)?;
        if members.insert(node, address).is_some() {
            return Err(D::Error::custom(format!("{node} is listed twice")));
        }
    }
    Ok(members)
}
