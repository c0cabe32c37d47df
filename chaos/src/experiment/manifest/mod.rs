//! What an experiment says, as it is written: `kind: Experiment`.
//!
//! The envelope, its care for unknown and duplicate keys, and line and column of every problem are
//! those of Medic's own manifests. Deliberately absent: anything that could widen what may be
//! touched. That stands in the allow-list alone ([`allow`]).

pub mod allow;
mod check;
mod fields;
mod parts;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use medic_api::manifest::{Problem, parse_kind, schema_of};
use medic_state::{Millis, manifest::Metadata, manifest::Rate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use parts::{
    ClockSkew, CommandProbe, Direction, Fill, HttpProbe, Inject, Kill, Kind, Limit, MedicProbe,
    MetricProbe, Network, Node, Partition, Pressure, ProcessMatch, TcpProbe, size,
};

/// A whole experiment.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExperimentSpec {
    /// What is to be learnt; goes into the report.
    #[serde(default)]
    pub description: String,
    /// `local`: a Medic cluster of its own is started for it; targets may then be nodes.
    #[serde(default)]
    pub cluster: Option<ClusterKind>,
    /// What is looked at, every second.
    pub probes: Vec<ProbeSpec>,
    /// What is expected of a system that is well.
    pub steady_state: SteadyState,
    /// What ends the experiment early.
    #[serde(default)]
    pub abort: Vec<AbortSpec>,
    /// What faults may be aimed at.
    pub targets: Vec<TargetSpec>,
    /// What is done to the targets.
    pub faults: Vec<FaultSpec>,
    /// What the times of faults with a `rate` are drawn from.
    #[serde(default)]
    pub seed: u64,
    /// How long faults go on. By default until the last one with a time has ended; needed with `rate`.
    #[serde(default)]
    pub duration: Option<Millis>,
}

/// Where the targets live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClusterKind {
    /// Three nodes of Medic on loopback, started for this experiment and ended with it.
    Local,
}

/// One thing that is looked at: exactly one of `http`, `tcp`, `command`, `metric`, `medic`.
/// Conditions name its fields as `<name>.<field>`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbeSpec {
    /// Letters, digits and `_`; begins with a letter.
    pub name: String,
    /// GET. Fields: `up`, `status` (0: no answer), `latency_ms`.
    #[serde(default)]
    pub http: Option<HttpProbe>,
    /// Connects. Fields: `up`, `latency_ms`.
    #[serde(default)]
    pub tcp: Option<TcpProbe>,
    /// Runs a program, without a shell; the allow-list must name it. Fields: `ok`, `exit`, `latency_ms`.
    #[serde(default)]
    pub command: Option<CommandProbe>,
    /// Reads Prometheus exposition. Fields: `value` (the sum of what is selected), `max`, `min`, `count`.
    #[serde(default)]
    pub metric: Option<MetricProbe>,
    /// Asks a Medic cluster. Fields: `up`, `leader` (0: none), `term`, `nodes`, `live`, `applied`,
    /// `open_incidents`, `freezes`, `incidents`, `attempted`, `successful`, `manual`, `unknown`, `latency_ms`.
    #[serde(default)]
    pub medic: Option<MedicProbe>,
}

/// What is expected.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SteadyState {
    /// CEL over the probes. Checked before anything is done, and when all is undone.
    pub expect: String,
    /// CEL that must also hold while faults are in force; absent: nothing is asked then.
    #[serde(default)]
    pub during: Option<String>,
    /// How long it must hold without a break.
    #[serde(default = "hold")]
    pub hold: Millis,
    /// How long it may take until it has held, before the faults and after them.
    #[serde(default = "within")]
    pub within: Millis,
}

const fn hold() -> Millis {
    Millis::from_secs(2)
}

const fn within() -> Millis {
    Millis::from_secs(30)
}

/// What ends the experiment early. Judged every second, from the first fault to the last undo.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbortSpec {
    /// CEL over the probes.
    pub when: String,
    /// How long it must hold without a break; by default it need be seen only once.
    #[serde(default, rename = "for")]
    pub lasts: Millis,
    /// What follows when it cannot be told for lack of data.
    #[serde(default)]
    pub no_data: NoData,
}

/// What follows from not knowing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum NoData {
    /// An experiment that sees nothing ends.
    #[default]
    Abort,
    /// It goes on.
    Ignore,
}

/// What a fault is aimed at: exactly one of `process`, `container`, `namespace`, `directory`, `node`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetSpec {
    /// What faults call it.
    pub name: String,
    /// A process that runs.
    #[serde(default)]
    pub process: Option<ProcessMatch>,
    /// A container of docker or podman, by its exact name.
    #[serde(default)]
    pub container: Option<String>,
    /// A network namespace, by the name `ip netns` knows.
    #[serde(default)]
    pub namespace: Option<String>,
    /// A directory.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// A node of `cluster: local`.
    #[serde(default)]
    pub node: Option<Node>,
}

/// One fault, once or several times: at a time (`at`, `every`, `times`) or at a `rate`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultSpec {
    /// For the report; by default what it is and of what.
    #[serde(default)]
    pub name: Option<String>,
    /// The target's name.
    pub target: String,
    /// What is done.
    pub inject: Inject,
    /// When, from the first moment of the fault phase.
    #[serde(default)]
    pub at: Millis,
    /// How long, before it is undone. Needed by all but `kill` and `signal`.
    #[serde(default, rename = "for")]
    pub lasts: Option<Millis>,
    /// Again, this long after it began.
    #[serde(default)]
    pub every: Option<Millis>,
    /// How often in all; with `every`.
    #[serde(default)]
    pub times: Option<u32>,
    /// Instead of `every`: how often in the middle, such as `3/1m`; the times are drawn from `seed`.
    #[serde(default)]
    pub rate: Option<Rate>,
}

impl FaultSpec {
    /// What the report calls it.
    #[must_use]
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{} {}", self.inject.kind(), self.target))
    }

    /// How long it is in force; zero: it is done and over.
    #[must_use]
    pub fn in_force(&self) -> Millis {
        match (&self.inject, self.lasts) {
            (Inject::Kill(kill), _) => kill.restart_after.unwrap_or_default(),
            (_, lasts) => lasts.unwrap_or_default(),
        }
    }
}

/// An experiment that was read.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: ExperimentSpec,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Document {
    /// What is to be done.
    Experiment(Experiment),
    /// What may be done.
    AllowList(allow::AllowSpec),
}

/// The kind's name.
pub const KIND: &str = "Experiment";

/// Reads a file that holds one experiment.
///
/// # Errors
/// When it cannot be read; every problem with `file:line:column`.
pub fn read(path: &Path) -> anyhow::Result<Experiment> {
    parse(&text(path)?).map_err(|problems| listed(path, &problems))
}

/// Reads a file that holds one experiment or one allow-list.
///
/// # Errors
/// When it cannot be read; every problem with `file:line:column`.
pub fn read_either(path: &Path) -> anyhow::Result<Document> {
    let text = text(path)?;
    // A misspelt kind is told by the reader of the kind that it is near to.
    let other =
        |problem: &Problem| problem.path == "kind" && !problem.message.contains("did you mean");
    let read = match allow::parse(&text) {
        Err(problems) if problems.iter().any(other) => parse(&text).map(Document::Experiment),
        read => read.map(Document::AllowList),
    };
    read.map_err(|problems| listed(path, &problems))
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Reads the text of one experiment.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str) -> Result<Experiment, Vec<Problem>> {
    let read: Vec<(Metadata, ExperimentSpec)> =
        parse_kind(text, KIND, |_, spec| check::experiment(spec))?;
    one(read).map(|(metadata, spec)| Experiment { name: metadata.name, spec })
}

/// The one document of a text.
fn one<S>(mut documents: Vec<(Metadata, S)>) -> Result<(Metadata, S), Vec<Problem>> {
    let count = documents.len();
    match documents.pop() {
        Some((metadata, spec)) if count == 1 && plain(&metadata.name) => Ok((metadata, spec)),
        found => {
            let message = match found {
                Some((metadata, _)) if count == 1 => format!(
                    "metadata.name: `{}` must be lower-case letters, digits and `-`, at most 63",
                    metadata.name
                ),
                _ => format!("one document is expected, {count} are there"),
            };
            let (path, line, column) = (String::new(), 1, 1);
            Err(vec![Problem { document: 1, path, line, column, message }])
        }
    }
}

/// A name that may become part of a file's.
fn plain(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(good)
}

/// Problems as an error, one a line.
fn listed(path: &Path, problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> =
        problems.iter().map(|problem| format!("{}:{problem}", path.display())).collect();
    anyhow::anyhow!(lines.join("\n"))
}

/// JSON Schema of an experiment.
#[must_use]
pub fn schema() -> serde_json::Value {
    schema_of::<ExperimentSpec>(KIND)
}
