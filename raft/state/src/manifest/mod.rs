//! Manifests: what people declare. YAML in the Kubernetes envelope outside, typed here.
//!
//! Every spec refuses unknown keys. Quantities are integers (`Millis`, `Ppm`) or, where only
//! judgement reads them, the text that was written (limits, CEL conditions, matchers), already
//! proven to parse by the door that let the manifest in.

mod access;
mod channel;
mod playbook;
mod policy;
mod service;
mod speak;
mod validate;
mod window;

use std::{collections::BTreeMap, fmt};

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use access::{
    DiscoverySpec, DnsSpec, NamedQuery, QuerySpec, RoleBindingSpec, RoleSpec, SourceKind,
    SourceSpec, Subject, TenantSpec,
};
pub use channel::{
    ChannelRules, ChannelSpec, EmailSpec, EmailTls, PagerdutySpec, SecretRef, SlackSpec,
};
pub use playbook::{
    ApprovalSpec, Escalation, MaxUnavailable, Mode, NoData, OnTimeout, PlaybookScope, PlaybookSpec,
    Rate, RetrySpec, RolloutSpec, SafetyClass, StepSpec, StepTargets, UndoSpec, VerifySpec,
};
pub use policy::{InhibitSpec, PolicySpec, Thresholds};
pub use service::{
    ConfigFile, Criticality, IndicatorSource, IndicatorSpec, InstanceSpec, ObserversSpec,
    ProbeKind, ProbeSpec, ProcessSpec, ScrapeSpec, ServiceSpec, SloSpec, StopSpec,
};
pub use speak::{AuthorizationSpec, BasicAuthSpec, Scheme, Speech, TlsSpec};
pub use validate::{Problem, validate};
pub use window::{MAX_STARTS, MaintenanceWindowSpec, ScheduleSpec, SilenceSpec};

use crate::{
    command::{
        AGENTS_OF_TENANTS_SINCE, ALERTS_SINCE, CHANNELS_SINCE, INTAKE_SINCE, OBSERVERS_SINCE,
    },
    ids::{Digest, Timestamp},
};

/// The tenant that manifests without one belong to.
pub const DEFAULT_TENANT: &str = "default";

/// What is declared, by kind.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "spec")]
pub enum Spec {
    /// A service, its instances, probes and dependencies.
    #[n(0)]
    Service(#[n(0)] ServiceSpec),
    /// What to do about a class of incidents.
    #[n(1)]
    Playbook(#[n(0)] PlaybookSpec),
    /// Decision thresholds and budgets.
    #[n(2)]
    Policy(#[n(0)] PolicySpec),
    /// Where telemetry comes from, beside the services' own.
    #[n(3)]
    Source(#[n(0)] SourceSpec),
    /// Symptoms to ignore for a while.
    #[n(4)]
    Silence(#[n(0)] SilenceSpec),
    /// A planned time in which nothing is remediated.
    #[n(5)]
    MaintenanceWindow(#[n(0)] MaintenanceWindowSpec),
    /// A named set of permissions.
    #[n(6)]
    Role(#[n(0)] RoleSpec),
    /// Who holds a role.
    #[n(7)]
    RoleBinding(#[n(0)] RoleBindingSpec),
    /// A customer, team or environment with quotas of its own.
    #[n(8)]
    Tenant(#[n(0)] TenantSpec),
    /// Where people are told.
    #[n(9)]
    Channel(#[n(0)] ChannelSpec),
}

impl Spec {
    /// The cluster version from which on it may be applied; see [`crate::Command::since`].
    #[must_use]
    pub fn since(&self) -> u32 {
        match self {
            Self::Source(source) if source.says_how_to_speak() => speak::SPEAK_SINCE,
            Self::Source(source) if source.says_whose_labels_win() => access::HONOR_LABELS_SINCE,
            Self::Source(source) if source.beyond_alerts() => INTAKE_SINCE,
            Self::Tenant(tenant)
                if tenant.max_series.is_some() || tenant.max_samples_per_second.is_some() =>
            {
                INTAKE_SINCE
            }
            Self::Tenant(tenant) if tenant.agents.is_some() => AGENTS_OF_TENANTS_SINCE,
            Self::Channel(channel) if channel.is_new() => CHANNELS_SINCE,
            Self::Silence(silence) if silence.schedule.is_some() || silence.duration.is_some() => {
                CHANNELS_SINCE
            }
            Self::MaintenanceWindow(window)
                if window.schedule.is_some() || window.ends_at.is_some() =>
            {
                CHANNELS_SINCE
            }
            Self::Service(service)
                if service.probes.iter().any(|probe| probe.observers.is_some()) =>
            {
                OBSERVERS_SINCE
            }
            Self::Policy(policy) if policy.beyond_thresholds() => ALERTS_SINCE,
            Self::Tenant(_)
            | Self::Channel(_)
            | Self::Service(_)
            | Self::Playbook(_)
            | Self::Policy(_)
            | Self::Source(_)
            | Self::Silence(_)
            | Self::MaintenanceWindow(_)
            | Self::Role(_)
            | Self::RoleBinding(_) => 1,
        }
    }

    /// The kind of this spec.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Playbook(_) => Kind::Playbook,
            Self::Policy(_) => Kind::Policy,
            Self::Source(_) => Kind::Source,
            Self::Silence(_) => Kind::Silence,
            Self::MaintenanceWindow(_) => Kind::MaintenanceWindow,
            Self::Role(_) => Kind::Role,
            Self::RoleBinding(_) => Kind::RoleBinding,
            Self::Tenant(_) => Kind::Tenant,
            Self::Channel(_) => Kind::Channel,
        }
    }
}

/// The kinds of manifests.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cbor(index_only)]
pub enum Kind {
    /// See [`ServiceSpec`].
    #[n(0)]
    Service,
    /// See [`PlaybookSpec`].
    #[n(1)]
    Playbook,
    /// See [`PolicySpec`].
    #[n(2)]
    Policy,
    /// See [`SourceSpec`].
    #[n(3)]
    Source,
    /// See [`SilenceSpec`].
    #[n(4)]
    Silence,
    /// See [`MaintenanceWindowSpec`].
    #[n(5)]
    MaintenanceWindow,
    /// See [`RoleSpec`].
    #[n(6)]
    Role,
    /// See [`RoleBindingSpec`].
    #[n(7)]
    RoleBinding,
    /// See [`TenantSpec`].
    #[n(8)]
    Tenant,
    /// See [`ChannelSpec`].
    #[n(9)]
    Channel,
}

impl Kind {
    /// All kinds, in the order a bundle is applied: what others refer to comes first.
    pub const ALL: [Self; 10] = [
        Self::Tenant,
        Self::Role,
        Self::RoleBinding,
        Self::Channel,
        Self::Policy,
        Self::Source,
        Self::Service,
        Self::Playbook,
        Self::Silence,
        Self::MaintenanceWindow,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Who a manifest is.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Unique within kind and tenant: lower-case letters, digits, `-` and `.`; at most 63 characters.
    #[n(0)]
    pub name: String,
    /// The owning tenant.
    #[n(1)]
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// Free labels; matchers see them.
    #[n(2)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

fn default_tenant() -> String {
    DEFAULT_TENANT.to_owned()
}

/// What identifies a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ManifestKey {
    /// Its kind.
    #[n(0)]
    pub kind: Kind,
    /// Its tenant.
    #[n(1)]
    pub tenant: String,
    /// Its name.
    #[n(2)]
    pub name: String,
}

impl fmt::Display for ManifestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} (tenant {})", self.kind, self.name, self.tenant)
    }
}

/// One declared thing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Manifest {
    /// Who it is.
    #[n(0)]
    pub metadata: Metadata,
    /// What it says.
    #[n(1)]
    #[serde(flatten)]
    pub spec: Spec,
}

impl Manifest {
    /// What identifies it.
    #[must_use]
    pub fn key(&self) -> ManifestKey {
        ManifestKey {
            kind: self.spec.kind(),
            tenant: self.metadata.tenant.clone(),
            name: self.metadata.name.clone(),
        }
    }

    /// Hash of its canonical encoding; plans are pinned to it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&[&crate::codec::encode(self)])
    }
}

/// A manifest as it stands in the state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stored {
    /// As declared.
    #[cbor(n(0), with = "crate::codec::shared")]
    pub manifest: std::sync::Arc<Manifest>,
    /// Log index of the entry that set it.
    #[n(1)]
    pub index: u64,
    /// Who set it.
    #[n(2)]
    pub by: String,
    /// When.
    #[n(3)]
    pub at: Timestamp,
    /// Hash of the manifest.
    #[n(4)]
    pub digest: Digest,
}
