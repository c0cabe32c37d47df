//! The outside world as judgement's helpers see it: observe, act, ask what became of an act.
//!
//! One production implementation (agents, probes, HTTP) in `action::backends`, and simulated ones in
//! tests. Nothing here decides.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use medic_proto::fleet::v1::HostStatus;
use medic_state::{
    Fence, Millis, Timestamp, TraceId,
    notice::{Delivery, Telling},
    plan::{Action, StepKey},
    saga::Outcome,
    symptom::Target,
};

/// What was seen of one target at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// When.
    pub at: Timestamp,
    /// Probe name to good or bad. A probe that could not be run at all (for example because the
    /// agent is away) is absent: no data is never "passed".
    pub probes: BTreeMap<String, bool>,
    /// Indicator name to value, in the indicator's own unit. Absent: no data.
    pub metrics: BTreeMap<String, f64>,
    /// What could not be observed, and why, by name.
    pub errors: BTreeMap<String, String>,
}

/// One act, as ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Idempotency key.
    pub key: StepKey,
    /// Fence of the ordering leader.
    pub fence: Fence,
    /// From 1.
    pub attempt: u32,
    /// What to do.
    pub action: Action,
    /// To whom.
    pub target: Target,
    /// Through which agent; empty: this node itself.
    pub agent: String,
    /// Time it may take.
    pub timeout: Millis,
    /// Trace.
    pub trace: TraceId,
}

/// What came of ordering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActResult {
    /// An outcome, perhaps unknown.
    Outcome(Outcome),
    /// The target has accepted a higher fence: this node is no longer leader.
    RefusedFence(Fence),
}

/// What became of an earlier order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryResult {
    /// It has an outcome.
    Finished(Outcome),
    /// It was never begun, and under an older fence never will be.
    NeverBegun,
    /// Nobody can tell (yet).
    CannotTell(String),
}

/// The outside world.
#[async_trait]
pub trait World: Send + Sync + 'static {
    /// Whether an order could be sent at all now; if not, why not.
    ///
    /// # Errors
    /// With the reason, for example that the agent is not connected.
    fn ready(&self, order: &Order) -> Result<(), String> {
        let _ = order;
        Ok(())
    }
    /// Carries an order out. Ends within the order's timeout plus a second.
    async fn act(&self, order: &Order) -> ActResult;
    /// Asks what became of an order.
    async fn query(&self, order: &Order) -> QueryResult;
    /// Looks at one target: all its probes and indicators, once. Ends within seconds.
    async fn observe(&self, target: &Target) -> Observation;
    /// Sends a message to a channel, once, and says what is known of its fate.
    async fn tell(&self, telling: &Telling) -> Delivery {
        let text: Vec<&str> = telling.notices.iter().map(|notice| notice.text.as_str()).collect();
        match self.notify(&telling.tenant, &telling.channel, &text.join("\n")).await {
            Ok(()) => Delivery::Delivered,
            Err(error) => Delivery::Failed(error),
        }
    }
    /// Tells a channel something in words: what [`World::tell`] comes down to in a world where a
    /// message is text and always has an answer.
    async fn notify(&self, tenant: &str, channel: &str, _text: &str) -> Result<(), String> {
        Err(format!("there is no channel `{channel}` of tenant `{tenant}` in this world"))
    }
}

/// What an agent last said about an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// As reported.
    pub status: medic_proto::fleet::v1::InstanceStatus,
    /// How long ago it was received, by this node's monotonic clock.
    pub age: std::time::Duration,
}

/// Reports of agents, as received by this node.
pub trait FleetView: Send + Sync + 'static {
    /// The last report about an instance.
    fn seen(&self, target: &Target) -> Option<Seen>;
    /// Whether the agent is connected to this node.
    fn connected(&self, agent: &str) -> bool;
    /// What the agent last said of its host, and how long ago it was received.
    fn host(&self, agent: &str) -> Option<(Arc<HostStatus>, std::time::Duration)> {
        let _ = agent;
        None
    }
}
