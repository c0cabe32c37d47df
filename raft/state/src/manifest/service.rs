//! `Service`: what runs where, how its health is seen, and what it depends on.
//!
//! In `command`, `args`, `env`, probe targets and scrape URLs these placeholders are filled in per
//! instance: `${instance}`, `${service}`, `${port}`, `${config}` (path of the configuration file).

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{Millis, Ppm};

/// A service and its instances.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// What its loss costs.
    #[n(0)]
    #[serde(default)]
    pub criticality: Criticality,
    /// Regimes it falls under, for example `pci` or `hipaa`.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compliance: Vec<String>,
    /// Services (same tenant) that it calls.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// How an agent runs it. Absent: it is watched, not run, by Medic.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessSpec>,
    /// Its instances.
    #[n(4)]
    #[serde(default)]
    pub instances: Vec<InstanceSpec>,
    /// Active checks, run for every instance.
    #[n(5)]
    #[serde(default)]
    pub probes: Vec<ProbeSpec>,
    /// Prometheus exposition to scrape, per instance.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<ScrapeSpec>,
    /// The few series that say how it does; detectors watch these.
    #[n(7)]
    #[serde(default)]
    pub indicators: Vec<IndicatorSpec>,
    /// Service level objective.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<SloSpec>,
}

/// What the loss of a service costs; the business-impact risk starts here.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Criticality {
    /// Nobody would notice today.
    #[n(0)]
    Low,
    /// Some users would.
    #[default]
    #[n(1)]
    Medium,
    /// Most users would.
    #[n(2)]
    High,
    /// The business stands still.
    #[n(3)]
    Critical,
}

/// How an agent runs one instance.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessSpec {
    /// Absolute path of the executable.
    #[n(0)]
    pub command: String,
    /// Its arguments.
    #[n(1)]
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment beside the agent's own minimal one.
    #[n(2)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// How it is stopped.
    #[n(4)]
    #[serde(default)]
    pub stop: StopSpec,
    /// Its configuration file, kept by content hash.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigFile>,
    /// Sent after the configuration changed, for example `SIGHUP`. Absent: the process is restarted.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_signal: Option<String>,
}

/// How a process is stopped: a signal, then, when it outstays `timeout`, SIGKILL.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopSpec {
    /// Signal name.
    #[n(0)]
    #[serde(default = "sigterm")]
    pub signal: String,
    /// Time it is given.
    #[n(1)]
    #[serde(default = "stop_timeout")]
    pub timeout: Millis,
}

impl Default for StopSpec {
    fn default() -> Self {
        Self { signal: sigterm(), timeout: stop_timeout() }
    }
}

fn sigterm() -> String {
    "SIGTERM".to_owned()
}

const fn stop_timeout() -> Millis {
    Millis::from_secs(5)
}

/// A configuration file that the agent writes (atomically) before the first start.
/// Afterwards its content is whatever the file holds; the agent keeps earlier versions by hash.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigFile {
    /// Absolute path; placeholders allowed.
    #[n(0)]
    pub path: String,
    /// First content; placeholders allowed. Absent: the file is there already.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceSpec {
    /// Unique within the service.
    #[n(0)]
    pub name: String,
    /// The agent on its host.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Host name or address that probes dial.
    #[n(2)]
    #[serde(default = "localhost")]
    pub host: String,
    /// Its port, for `${port}`.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Region, for blast radius and shard placement.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Declared but not started until `scale.out`.
    #[n(5)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standby: bool,
    /// It hosts a node of Medic itself: never remediated in parallel with another such instance.
    #[n(6)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quorum_member: bool,
}

fn localhost() -> String {
    "127.0.0.1".to_owned()
}

/// An active check.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "ProbeText", into = "ProbeText")]
pub struct ProbeSpec {
    /// CEL sees it as `probe.<name>`: 1.0 good, 0.0 bad.
    #[n(0)]
    pub name: String,
    /// What is checked.
    #[n(1)]
    pub kind: ProbeKind,
    /// Time between checks.
    #[n(2)]
    pub interval: Millis,
    /// Time one check may take.
    #[n(3)]
    pub timeout: Millis,
    /// Who else looks before a failure counts; absent: the node that watches the instance decides alone.
    #[n(4)]
    pub observers: Option<ObserversSpec>,
}

/// How many nodes look when a check fails, and how many of them must see it fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObserversSpec {
    /// Nodes that look, the one that watches the instance among them: 1 to 7.
    #[n(0)]
    pub of: u32,
    /// Of these, those that must see it fail: 1 to `of`.
    #[n(1)]
    pub agree: u32,
}

/// An active check, as it is written: exactly one of `http`, `tcp`, `grpc`, `process`.
/// (serde cannot refuse unknown keys beside a flattened enum.)
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "ProbeSpec")]
struct ProbeText {
    /// CEL sees it as `probe.<name>`: 1.0 good, 0.0 bad.
    name: String,
    /// GET this URL; 2xx and 3xx are good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http: Option<String>,
    /// Connect to this `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp: Option<String>,
    /// `grpc.health.v1.Health/Check` at this `http(s)://host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    /// `true`: the agent says whether the process lives (and is not stopped).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<bool>,
    /// Time between checks.
    #[serde(default = "probe_interval")]
    interval: Millis,
    /// Time one check may take.
    #[serde(default = "probe_timeout")]
    timeout: Millis,
    /// A failure counts only when so many nodes see it; absent: the node that watches the instance decides
    /// alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observers: Option<ObserversSpec>,
}

impl TryFrom<ProbeText> for ProbeSpec {
    type Error = &'static str;

    fn try_from(text: ProbeText) -> Result<Self, &'static str> {
        let kind = match (text.http, text.tcp, text.grpc, text.process) {
            (Some(url), None, None, None) => ProbeKind::Http(url),
            (None, Some(address), None, None) => ProbeKind::Tcp(address),
            (None, None, Some(url), None) => ProbeKind::Grpc(url),
            (None, None, None, Some(alive)) => ProbeKind::Process(alive),
            _ => return Err("a probe has exactly one of http, tcp, grpc, process"),
        };
        let ProbeText { name, interval, timeout, observers, .. } = text;
        Ok(Self { name, kind, interval, timeout, observers })
    }
}

impl From<ProbeSpec> for ProbeText {
    fn from(probe: ProbeSpec) -> Self {
        let mut text = Self {
            name: probe.name,
            interval: probe.interval,
            timeout: probe.timeout,
            observers: probe.observers,
            ..Self::default()
        };
        match probe.kind {
            ProbeKind::Http(url) => text.http = Some(url),
            ProbeKind::Tcp(address) => text.tcp = Some(address),
            ProbeKind::Grpc(url) => text.grpc = Some(url),
            ProbeKind::Process(alive) => text.process = Some(alive),
        }
        text
    }
}

const fn probe_interval() -> Millis {
    Millis::from_secs(2)
}

const fn probe_timeout() -> Millis {
    Millis::from_secs(1)
}

/// What an active check does.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ProbeKind {
    /// GET this URL; 2xx and 3xx are good.
    #[n(0)]
    Http(#[n(0)] String),
    /// Connect to this `host:port`.
    #[n(1)]
    Tcp(#[n(0)] String),
    /// `grpc.health.v1.Health/Check` at this `http(s)://host:port`.
    #[n(2)]
    Grpc(#[n(0)] String),
    /// The agent says whether the process lives (and is not stopped). The text is ignored.
    #[n(3)]
    Process(#[n(0)] bool),
}

/// Prometheus exposition to scrape.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScrapeSpec {
    /// The URL.
    #[n(0)]
    pub url: String,
    /// Time between scrapes; absent: `DETECTION_INTERVAL`.
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Millis>,
}

/// A derived series of one instance, watched by the detectors; CEL sees it as `metric.<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IndicatorSpec {
    /// Its name, for example `error_rate`, `latency_p99`, `memory`.
    #[n(0)]
    pub name: String,
    /// Where its values come from.
    #[n(1)]
    pub source: IndicatorSource,
    /// A hard limit (a number, or bytes such as `64MiB`): crossing it is a symptom by itself, and
    /// the trend predictor forecasts the crossing.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Only upward deviations count as bad. Default: true.
    #[n(3)]
    #[serde(default = "yes")]
    pub upward_only: bool,
}

const fn yes() -> bool {
    true
}

/// How an indicator is computed from scraped samples. Selectors are Prometheus vector selectors.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum IndicatorSource {
    /// Sum of the matching gauges.
    #[n(0)]
    Gauge(#[n(0)] String),
    /// Increase per second of the sum of the matching counters.
    #[n(1)]
    Rate(#[n(0)] String),
    /// Increase of the first over increase of the second, for example errors over requests.
    #[n(2)]
    Ratio {
        /// Numerator selector.
        #[n(0)]
        of: String,
        /// Denominator selector.
        #[n(1)]
        to: String,
    },
    /// Quantile of a histogram's increase since the last scrape.
    #[n(3)]
    Quantile {
        /// Histogram name without `_bucket`.
        #[n(0)]
        histogram: String,
        /// Which quantile.
        #[n(1)]
        q: Ppm,
    },
}

/// A service level objective.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SloSpec {
    /// Share of good requests.
    #[n(0)]
    pub availability: Ppm,
    /// The indicator whose value is the bad share; default `error_rate`.
    #[n(1)]
    #[serde(default = "error_rate")]
    pub indicator: String,
    /// Window of the error budget.
    #[n(2)]
    #[serde(default = "slo_window")]
    pub window: Millis,
}

fn error_rate() -> String {
    "error_rate".to_owned()
}

const fn slo_window() -> Millis {
    Millis::from_secs(30 * 86_400)
}
