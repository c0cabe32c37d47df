//! The parts of an experiment: probes, matches of processes, and the faults themselves.

use std::{fmt, path::PathBuf};

use medic_api::manifest::parse_quantity;
use medic_state::{Millis, Ppm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const fn second() -> Millis {
    Millis::from_secs(1)
}

/// GET of a URL; redirects are not followed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpProbe {
    /// `http://…` or `https://…`.
    pub url: String,
    /// Time it may take, up to 5s.
    #[serde(default = "second")]
    pub timeout: Millis,
}

/// A connection that is closed at once.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpProbe {
    /// `host:port`.
    pub address: String,
    /// Time it may take, up to 5s.
    #[serde(default = "second")]
    pub timeout: Millis,
}

/// A program and its arguments.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandProbe {
    /// Absolute path, then arguments; the allow-list must name exactly these.
    pub argv: Vec<String>,
    /// Time it may take, up to 5s; then it is killed.
    #[serde(default = "second")]
    pub timeout: Millis,
}

/// A metric of an exposition endpoint.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricProbe {
    /// `http://…/metrics`.
    pub url: String,
    /// Prometheus matchers: `http_requests_total{code=~"5.."}`.
    pub select: String,
    /// Time it may take, up to 5s.
    #[serde(default = "second")]
    pub timeout: Millis,
}

/// A Medic cluster, as a user.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MedicProbe {
    /// File of contexts; by default what `medic` would use. With `cluster: local`: leave it out.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// Context; by default the current one.
    #[serde(default)]
    pub context: Option<String>,
    /// Time it may take, up to 5s.
    #[serde(default = "second")]
    pub timeout: Millis,
}

/// Which process. All that is said must be so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessMatch {
    /// A file that holds its process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_file: Option<PathBuf>,
    /// Its program, exactly: what `/proc/PID/exe` points to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<PathBuf>,
    /// Its arguments, exactly and all, without the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
}

impl fmt::Display for ProcessMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.pid_file.iter().map(|path| format!("pid file {}", path.display())));
        parts.extend(self.exe.iter().map(|path| path.display().to_string()));
        parts.extend(self.args.iter().map(|args| args.join(" ")));
        write!(f, "{}", parts.join(" "))
    }
}

/// Which node of a cluster that was started for the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// Whoever leads when the fault begins.
    Leader,
    /// The follower with the lowest number when the fault begins.
    Follower,
    /// Node 1.
    #[serde(rename = "node-1")]
    Node1,
    /// Node 2.
    #[serde(rename = "node-2")]
    Node2,
    /// Node 3.
    #[serde(rename = "node-3")]
    Node3,
}

/// What is done to a target.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Inject {
    /// SIGKILL (or `docker kill`).
    Kill(Kill),
    /// SIGSTOP, undone by SIGCONT (or `docker pause`).
    Pause,
    /// Another signal, by name: `HUP`, `TERM`, `USR1`, … Nothing undoes it.
    Signal(String),
    /// Slow, lossy or narrow network (`tc`).
    Network(Network),
    /// Packets are dropped (`nft`).
    Partition(Partition),
    /// Limits on CPU and memory (cgroups).
    Limit(Limit),
    /// Work and memory beside the target, in its own cgroup.
    Pressure(Pressure),
    /// A file that takes room.
    Fill(Fill),
    /// The target's wall clock goes wrong; only what was started for the experiment.
    ClockSkew(ClockSkew),
}

/// Kinds of faults, as allow-lists name them.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "as in Inject")]
pub enum Kind {
    Kill,
    Pause,
    Signal,
    Network,
    Partition,
    Limit,
    Pressure,
    Fill,
    ClockSkew,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Signal => "signal",
            Self::Network => "network",
            Self::Partition => "partition",
            Self::Limit => "limit",
            Self::Pressure => "pressure",
            Self::Fill => "fill",
            Self::ClockSkew => "clockSkew",
        })
    }
}

impl Inject {
    /// Which kind it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Kill(_) => Kind::Kill,
            Self::Pause => Kind::Pause,
            Self::Signal(_) => Kind::Signal,
            Self::Network(_) => Kind::Network,
            Self::Partition(_) => Kind::Partition,
            Self::Limit(_) => Kind::Limit,
            Self::Pressure(_) => Kind::Pressure,
            Self::Fill(_) => Kind::Fill,
            Self::ClockSkew(_) => Kind::ClockSkew,
        }
    }
}

/// Death, and perhaps a new start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kill {
    /// Started again after this, unless it runs again already: a process by the allow-list's
    /// `restart`, a container by `docker start`. Absent: whoever supervises it has to.
    #[serde(default)]
    pub restart_after: Option<Millis>,
}

/// A bad network.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// Added to every packet that leaves (needs netem).
    #[serde(default)]
    pub delay: Millis,
    /// Up to this much more or less.
    #[serde(default)]
    pub jitter: Millis,
    /// Share of packets that are lost.
    #[serde(default)]
    pub loss: Ppm,
    /// Bandwidth, as `tc` writes it: `1mbit`. Not together with the others.
    #[serde(default)]
    pub rate: Option<String>,
    /// Network device; absent: all but `lo`.
    #[serde(default)]
    pub interface: Option<String>,
}

/// A wall.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Partition {
    /// What is dropped.
    #[serde(default)]
    pub direction: Direction,
    /// Only from and to these addresses or networks; empty: all.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Only from and to these ports (TCP and UDP); empty: all.
    #[serde(default)]
    pub ports: Vec<u16>,
}

/// Which packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Coming and going.
    #[default]
    Both,
    /// Coming.
    In,
    /// Going.
    Out,
}

/// Less than it is used to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Share of one core: `20%`.
    #[serde(default)]
    pub cpu: Option<Ppm>,
    /// Memory: `256MiB`.
    #[serde(default)]
    pub memory: Option<String>,
}

/// Noisy neighbours.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pressure {
    /// Threads that do nothing but work, up to 64.
    #[serde(default)]
    pub cpu: u32,
    /// Memory that is held, up to 64GiB: `512MiB`.
    #[serde(default)]
    pub memory: Option<String>,
}

/// A full disk, or nearly.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fill {
    /// Most that is taken, where there is room; more than the allow-list's `maxBytes` is refused.
    pub bytes: String,
    /// What is left free whatever `bytes` says; 64MiB by default.
    #[serde(default = "leave")]
    pub leave: String,
}

fn leave() -> String {
    "64MiB".to_owned()
}

/// A wrong clock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClockSkew {
    /// How wrong.
    pub by: Millis,
    /// Behind instead of ahead.
    #[serde(default)]
    pub behind: bool,
}

/// Bytes of a size such as `64MiB`; nothing when it is none.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded above it")]
pub fn size(text: &str) -> Option<u64> {
    let bytes = parse_quantity(text).ok()?;
    (!text.contains('%') && (0.0..=1e15).contains(&bytes)).then_some(bytes as u64)
}
