//! The replicated state: one truth, in memory, bounded, equal on every node at equal index.

use std::collections::{BTreeMap, VecDeque};

use minicbor::{Decode, Encode};

use crate::{
    applied::Answer,
    ids::{
        BootId, Digest, Epoch, Fence, IncidentId, NodeId, PlanId, RequestId, ShardId, Timestamp,
    },
    incident::Incident,
    manifest::{ManifestKey, Stored},
    notice::ChannelState,
    saga::Saga,
    symptom::{Fingerprint, Target},
    weight::Weights,
};

/// Number of shards; fixed for the life of a cluster.
pub const SHARDS: u32 = 64;
/// Request ids remembered; at 100 commands a second a retry within 80 seconds is recognised.
pub const MAX_REQUESTS: usize = 8_192;
/// Closed incidents kept in memory; older ones are in the record store alone.
pub const MAX_CLOSED: usize = 256;
/// Version of this state's form; written into snapshots. Form 2 remembers what people were told and
/// what each node understands, form 3 how each channel took it, form 4 how far detectors are believed,
/// form 5 nodes' weights and which are drained.
pub const STATE_VERSION: u32 = 5;

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct State {
    /// [`STATE_VERSION`] of the build that wrote it.
    #[n(0)]
    pub version: u32,
    /// Command set that every member understands.
    #[n(1)]
    pub cluster_version: u32,
    /// Index of the last applied entry.
    #[n(2)]
    pub applied: u64,
    /// The law's time: the greatest `at` so far.
    #[n(3)]
    pub now: Timestamp,
    /// The leader in office.
    #[n(4)]
    pub fence: FenceState,
    /// Nodes that ever registered.
    #[n(5)]
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// Agents that ever connected.
    #[n(6)]
    pub agents: BTreeMap<String, AgentState>,
    /// Declared things.
    #[n(7)]
    pub manifests: BTreeMap<ManifestKey, Stored>,
    /// Owner and epoch of each of the [`SHARDS`].
    #[n(8)]
    pub shards: BTreeMap<ShardId, ShardState>,
    /// Open incidents, and the last [`MAX_CLOSED`] closed ones.
    #[n(9)]
    pub incidents: BTreeMap<IncidentId, Incident>,
    /// Open incident by active fingerprint.
    #[n(10)]
    pub fingerprints: BTreeMap<Fingerprint, IncidentId>,
    /// Sagas of the incidents above.
    #[n(11)]
    pub sagas: BTreeMap<PlanId, Saga>,
    /// Who holds which target. Released by the plan's end, never by a timer.
    #[n(12)]
    pub locks: BTreeMap<Target, PlanId>,
    /// Freezes in force.
    #[n(13)]
    pub freezes: BTreeMap<FreezeScope, FreezeState>,
    /// Starts of plans, newest last, for rates: by (tenant, playbook).
    #[n(14)]
    pub playbook_starts: BTreeMap<(String, String), VecDeque<Timestamp>>,
    /// Starts of plans by (playbook, target).
    #[n(15)]
    pub target_starts: BTreeMap<(String, Target), VecDeque<Timestamp>>,
    /// When the last plan on a target ended, for cooldowns.
    #[n(16)]
    pub target_ends: BTreeMap<Target, Timestamp>,
    /// Breakers by (tenant, playbook).
    #[n(17)]
    pub breakers: BTreeMap<(String, String), Breaker>,
    /// What worked for what.
    #[n(18)]
    pub lessons: BTreeMap<LessonKey, Lesson>,
    /// Request ids seen, oldest first.
    #[n(19)]
    pub request_order: VecDeque<RequestKey>,
    /// Answers to them.
    #[n(20)]
    pub requests: BTreeMap<RequestKey, Remembered>,
    /// Head of the audit chain.
    #[n(21)]
    pub audit: AuditHead,
    /// Totals for metrics.
    #[n(22)]
    pub totals: Totals,
    /// Since when the next step of a begun plan is held back by a control (not by a freeze).
    #[n(23)]
    pub held_since: BTreeMap<PlanId, Timestamp>,
    /// Open incidents that a human reopened, and who: the cause of the plan that follows.
    #[n(24)]
    pub reopened: BTreeMap<IncidentId, String>,
    /// Digest of the text that people were told last about an open incident, on every channel: as
    /// told before version 5, which keeps it for each channel in `Incident::notices`.
    #[cbor(n(25), default)]
    pub told: BTreeMap<IncidentId, Digest>,
    /// Channels that messages were sent to, by tenant and name.
    #[cbor(n(26), default)]
    pub channels: BTreeMap<(String, String), ChannelState>,
    /// How far detectors are believed, by tenant and family of metrics.
    #[cbor(n(27), default)]
    pub weights: Weights,
}

/// The leader in office.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct FenceState {
    /// Its fence.
    #[n(0)]
    pub fence: Fence,
    /// The node.
    #[n(1)]
    pub node: NodeId,
    /// Its incarnation.
    #[n(2)]
    pub boot: BootId,
    /// When it took office.
    #[n(3)]
    pub at: Timestamp,
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeState {
    /// Region.
    #[n(0)]
    pub region: String,
    /// `host:port` of its control API.
    #[n(1)]
    pub api_addr: String,
    /// Its incarnation.
    #[n(2)]
    pub boot: BootId,
    /// Whether the leader hears it.
    #[n(3)]
    pub live: bool,
    /// Since when.
    #[n(4)]
    pub since: Timestamp,
    /// Its build.
    #[n(5)]
    pub version: String,
    /// The newest command set its build understands.
    #[cbor(n(6), default)]
    pub understands: u32,
    /// Its share of the shards relative to others'; zero: none while somebody else can.
    #[cbor(n(7), default)]
    pub weight: u32,
    /// An operator wants it to watch nothing.
    #[cbor(n(8), default)]
    pub drained: bool,
    /// It is about to stop; over when it registers again.
    #[cbor(n(9), default)]
    pub leaving: bool,
}

impl NodeState {
    /// Whether it may go on watching: neither drained nor about to stop.
    #[must_use]
    pub const fn stays(&self) -> bool {
        !self.drained && !self.leaving
    }
}

/// An agent as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct AgentState {
    /// The node it is connected to.
    #[n(0)]
    pub node: Option<NodeId>,
    /// Region.
    #[n(1)]
    pub region: String,
    /// Its build.
    #[n(2)]
    pub version: String,
    /// Since when.
    #[n(3)]
    pub since: Timestamp,
}

/// One shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ShardState {
    /// Who watches it; `None`: nobody yet.
    #[n(0)]
    pub owner: Option<NodeId>,
    /// How many owners it has had.
    #[n(1)]
    pub epoch: Epoch,
    /// Since when.
    #[n(2)]
    pub since: Timestamp,
}

/// What a freeze covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum FreezeScope {
    /// Everything.
    #[n(0)]
    Global,
    /// One tenant.
    #[n(1)]
    Tenant(#[n(0)] String),
    /// Instances of one region.
    #[n(2)]
    Region(#[n(0)] String),
    /// One service.
    #[n(3)]
    Service {
        /// Tenant.
        #[n(0)]
        tenant: String,
        /// Service.
        #[n(1)]
        service: String,
    },
    /// One playbook.
    #[n(4)]
    Playbook {
        /// Tenant.
        #[n(0)]
        tenant: String,
        /// Playbook.
        #[n(1)]
        playbook: String,
    },
    /// One instance: set by the law when an outcome is unknown.
    #[n(5)]
    Target(#[n(0)] Target),
}

impl std::fmt::Display for FreezeScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Global => f.write_str("everything"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Region(region) => write!(f, "region {region}"),
            Self::Service { tenant, service } => write!(f, "service {service} (tenant {tenant})"),
            Self::Playbook { tenant, playbook } => {
                write!(f, "playbook {playbook} (tenant {tenant})")
            }
            Self::Target(target) => write!(f, "target {target} (tenant {})", target.tenant),
        }
    }
}

/// A freeze in force.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FreezeState {
    /// Who set it.
    #[n(0)]
    pub by: String,
    /// Why.
    #[n(1)]
    pub reason: String,
    /// When.
    #[n(2)]
    pub at: Timestamp,
    /// Until when.
    #[n(3)]
    pub until: Option<Timestamp>,
}

/// Stops a playbook that keeps failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Breaker {
    /// Failures in a row.
    #[n(0)]
    pub failures: u32,
    /// Open until then.
    #[n(1)]
    pub open_until: Option<Timestamp>,
}

/// What a lesson is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct LessonKey {
    /// Tenant.
    #[n(0)]
    pub tenant: String,
    /// Class of fault.
    #[n(1)]
    pub class: String,
    /// Playbook.
    #[n(2)]
    pub playbook: String,
}

/// How often a playbook helped with a class of faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Lesson {
    /// Verified.
    #[n(0)]
    pub succeeded: u64,
    /// Failed a step or its verification.
    #[n(1)]
    pub failed: u64,
    /// Could not be told.
    #[n(2)]
    pub inconclusive: u64,
    /// Sum of the time from first step to verdict, milliseconds, over `succeeded`.
    #[n(3)]
    pub heal_ms_sum: u64,
}

/// A request id belongs to its principal: nobody can guess another's answer.
pub type RequestKey = (crate::rbac::Principal, RequestId);

/// The answer to a request id, and what was asked: the same id with another command is refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Remembered {
    /// Digest of the command.
    #[n(0)]
    pub command: Digest,
    /// The answer.
    #[n(1)]
    pub answer: Answer,
    /// Log index of the first application.
    #[n(2)]
    pub index: u64,
}

/// Head of the audit chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AuditHead {
    /// Links so far.
    #[n(0)]
    pub seq: u64,
    /// Hash of the last.
    #[n(1)]
    pub hash: Digest,
}

/// Totals since the cluster began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    /// Incidents opened.
    #[n(0)]
    pub incidents: u64,
    /// Incidents opened by detection (all but those opened by hand).
    #[n(1)]
    pub detected: u64,
    /// Plans whose first step started.
    #[n(2)]
    pub attempted: u64,
    /// Plans verified.
    #[n(3)]
    pub successful: u64,
    /// Incidents that a human took part in: approved, resolved, cancelled by hand, or escalated.
    #[n(4)]
    pub manual: u64,
    /// Plans rolled back.
    #[n(5)]
    pub rolled_back: u64,
    /// Steps whose outcome is unknown.
    #[n(6)]
    pub unknown: u64,
    /// Symptoms refused at a quota.
    #[n(7)]
    pub refused_symptoms: u64,
}
