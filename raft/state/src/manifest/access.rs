//! `Source`, `Role`, `RoleBinding`, `Tenant`.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::speak::{AuthorizationSpec, BasicAuthSpec, Scheme, TlsSpec};
use crate::{ids::Millis, rbac::Permission};

/// Telemetry that does not come from a service's own probes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSpec {
    /// What kind of source.
    #[n(0)]
    #[serde(rename = "type")]
    pub kind: SourceKind,
    /// The label of an incoming alert or series that names the service.
    #[n(1)]
    #[serde(default = "service_label")]
    pub service_label: String,
    /// The label of an incoming alert or series that names the instance, by its name or `host:port`.
    #[n(2)]
    #[serde(default = "instance_label")]
    pub instance_label: String,
    /// Only series with these labels are the source's; others are refused and counted. Absent: all.
    #[n(3)]
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matchers: Option<Vec<String>>,
    /// SHA-256, hexadecimal, of the bearer token that pushes of this source must carry.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_sha256: Option<String>,
    /// For `prometheus`: what is asked of it.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<QuerySpec>,
    /// For `scrape`: where the exposition endpoints are.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<DiscoverySpec>,
}

impl SourceSpec {
    /// Whether a build of the first command sets can read it.
    #[must_use]
    pub fn beyond_alerts(&self) -> bool {
        self.kind != SourceKind::Alertmanager
            || self.matchers.is_some()
            || self.token_sha256.is_some()
            || self.query.is_some()
            || self.scrape.is_some()
    }

    /// Whether it says whose labels win.
    pub(super) fn says_whose_labels_win(&self) -> bool {
        self.scrape.as_ref().is_some_and(|scrape| scrape.honor_labels.is_some())
    }
}

/// Instant queries to a Prometheus (or what speaks its API).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuerySpec {
    /// Where: `http://prometheus:9090`; `/api/v1/query` is appended.
    #[n(0)]
    pub url: String,
    /// Time between two rounds.
    #[n(1)]
    #[serde(default = "source_interval")]
    pub interval: Millis,
    /// What is asked in each round.
    #[n(2)]
    pub queries: Vec<NamedQuery>,
    /// For an `https` URL: whom to trust, and what to show.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<TlsSpec>>,
    /// Sent with each query.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Box<AuthorizationSpec>>,
    /// Sent with each query, instead.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<Box<BasicAuthSpec>>,
}

/// One query, and the name that its results go by.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedQuery {
    /// Metric name of the results; indicators select it.
    #[n(0)]
    pub name: String,
    /// PromQL whose result is an instant vector.
    #[n(1)]
    pub query: String,
}

/// Endpoints to scrape: a list, a file, a name, or all three.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiscoverySpec {
    /// `host:port`.
    #[n(0)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Name of a file in the nodes' discovery folder, in Prometheus' `file_sd` form (JSON or YAML).
    #[n(1)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// A name to resolve.
    #[n(2)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSpec>,
    /// Path of the exposition.
    #[n(3)]
    #[serde(default = "metrics_path")]
    pub path: String,
    /// Time between two scrapes.
    #[n(4)]
    #[serde(default = "source_interval")]
    pub interval: Millis,
    /// Labels given to everything that is scraped. A series' own label of the same name becomes
    /// `exported_…`, as for Prometheus, unless `honorLabels` says otherwise.
    #[n(5)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The series' own labels win over those given here and over `instance`: for endpoints that speak for
    /// others, such as another Prometheus (`/federate`) or a push gateway. Absent: no.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honor_labels: Option<bool>,
    /// Absent: `http`. `__scheme__` of a target in `file` wins.
    #[n(7)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Query parameters of each scrape. `__param_NAME` of a target in `file` wins.
    #[n(8)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<BTreeMap<String, Vec<String>>>,
    /// For `https`: whom to trust, and what to show.
    #[n(9)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<TlsSpec>>,
    /// Sent with each scrape.
    #[n(10)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Box<AuthorizationSpec>>,
    /// Sent with each scrape, instead.
    #[n(11)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<Box<BasicAuthSpec>>,
    /// A sample that names its time is one of that time. Absent: yes; no: all are of the scrape's.
    #[n(12)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honor_timestamps: Option<bool>,
}

/// The cluster version from which on a scrape may honour the labels of its series.
pub(super) const HONOR_LABELS_SINCE: u32 = 8;

/// A name to resolve.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsSpec {
    /// The name. One that begins with `_` (`_metrics._tcp.example.org`) is one of SRV records.
    #[n(0)]
    pub name: String,
    /// The port on each of its addresses; SRV records have their own.
    #[n(1)]
    pub port: u16,
}

const fn source_interval() -> Millis {
    Millis::from_secs(15)
}

fn metrics_path() -> String {
    "/metrics".to_owned()
}

fn service_label() -> String {
    "service".to_owned()
}

fn instance_label() -> String {
    "instance".to_owned()
}

/// Kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// Alertmanager posts to `/api/v1/alertmanager/<tenant>`.
    #[n(0)]
    Alertmanager,
    /// Prometheus (or what speaks its protocol) remote-writes to `/api/v1/write`.
    #[n(1)]
    RemoteWrite,
    /// OpenTelemetry metrics and logs come to `/v1/metrics` and `/v1/logs`.
    #[n(2)]
    Otlp,
    /// A Prometheus is asked.
    #[n(3)]
    Prometheus,
    /// Exposition endpoints are found and scraped.
    #[n(4)]
    Scrape,
}

/// A named set of permissions beside the built-in viewer, responder, approver, operator, admin.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleSpec {
    /// What it opens.
    #[n(0)]
    pub permissions: Vec<Permission>,
}

/// Gives a role, within the binding's tenant, to subjects. In tenant `*`: within every tenant.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleBindingSpec {
    /// Built-in role, or a `Role` of the same tenant.
    #[n(0)]
    pub role: String,
    /// Who.
    #[n(1)]
    pub subjects: Vec<Subject>,
}

/// Someone a role is given to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Subject {
    /// The user whose certificate carries this name.
    #[n(0)]
    User(#[n(0)] String),
}

/// A tenant and its quotas.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TenantSpec {
    /// Open incidents it may hold; further symptoms are refused and counted.
    #[n(0)]
    pub max_open_incidents: u32,
    /// Manifests it may hold.
    #[n(1)]
    pub max_manifests: u32,
    /// Agents its services may run processes on: names, or beginnings of names followed by `*`.
    /// Absent: any agent for tenant `default`, none for another one. A command on a host is that
    /// host's, so a tenant gets hosts by being given them.
    #[n(2)]
    pub agents: Option<Vec<String>>,
    /// Series that detectors of this tenant watch, per node; further ones are refused and counted.
    /// Absent: 100,000.
    #[n(3)]
    pub max_series: Option<u32>,
    /// Samples a second that a node takes in for this tenant; who sends more is told to wait.
    /// Absent: 200,000.
    #[n(4)]
    pub max_samples_per_second: Option<u32>,
}

impl TenantSpec {
    /// Whether services of this tenant may run processes on an agent.
    #[must_use]
    pub fn may_run_on(&self, tenant: &str, agent: &str) -> bool {
        match &self.agents {
            None => tenant == super::DEFAULT_TENANT,
            Some(agents) => agents.iter().any(|known| match known.strip_suffix('*') {
                Some(beginning) => agent.starts_with(beginning),
                None => known == agent,
            }),
        }
    }
}

impl Default for TenantSpec {
    fn default() -> Self {
        Self {
            max_open_incidents: 500,
            max_manifests: 5_000,
            agents: None,
            max_series: None,
            max_samples_per_second: None,
        }
    }
}
