//! `Source`, `Role`, `RoleBinding`, `Tenant`, `Channel`.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rbac::Permission;

/// Telemetry that does not come from a service's own probes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceSpec {
    /// What kind of source.
    #[n(0)]
    #[serde(rename = "type")]
    pub kind: SourceKind,
    /// The label of an incoming alert that names the service.
    #[n(1)]
    #[serde(default = "service_label")]
    pub service_label: String,
    /// The label of an incoming alert that names the instance.
    #[n(2)]
    #[serde(default = "instance_label")]
    pub instance_label: String,
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
        Self { max_open_incidents: 500, max_manifests: 5_000, agents: None }
    }
}

/// Where people are told.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum ChannelSpec {
    /// JSON is POSTed here.
    #[n(0)]
    Webhook {
        /// The URL.
        #[n(0)]
        url: String,
    },
}
