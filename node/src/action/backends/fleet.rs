//! The production [`World`]: agents over their streams, probes and scrapes by this node, webhooks,
//! channels.
//!
//! ```text
//!            act, query ─► FleetHub ─► agent          (its fence, its journal of keys)
//!   World ── observe ────► Observer ─► probes, scrape, the agents' reports
//!            act ────────► Webhooks ─► HTTP           (nobody's fence)
//!            tell ───────► Channels ─► people
//! ```

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use medic_api::fleet::{FleetError, FleetHub};
use medic_proto::fleet::v1::{self as wire, query_answer, result};
use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{
    Fence,
    manifest::{Kind, Manifest, ManifestKey, Spec},
    notice::{Delivery, Telling},
    saga::Outcome,
    symptom::Target,
};

use super::{
    channel::{About, Channels},
    webhook::Webhooks,
};
use crate::{
    action::resources::by_node,
    detection::observe::Observer,
    world::{ActResult, FleetView, Observation, Order, QueryResult, Seen, World},
};

/// What a hub received from agents.
#[derive(Clone, Debug)]
pub struct HubView(pub Arc<FleetHub>);

impl FleetView for HubView {
    fn seen(&self, target: &Target) -> Option<Seen> {
        self.0.status(target).map(|(status, age)| Seen { status, age })
    }

    fn connected(&self, agent: &str) -> bool {
        self.0.connected(agent)
    }

    fn host(&self, agent: &str) -> Option<(Arc<wire::HostStatus>, std::time::Duration)> {
        self.0.host(agent)
    }
}

/// The world as one node reaches it.
pub struct FleetWorld {
    hub: Arc<FleetHub>,
    ledger: Arc<dyn Ledger>,
    observer: Observer,
    webhooks: Webhooks,
    channels: Channels,
}

impl FleetWorld {
    /// Over the agents that are connected to this node.
    #[must_use]
    pub fn new(
        hub: Arc<FleetHub>,
        ledger: Arc<dyn Ledger>,
        secrets_dir: Option<PathBuf>,
    ) -> Arc<Self> {
        let observer = Observer::new(Arc::new(HubView(hub.clone())), ledger.env().clone());
        let channels = Channels::new(hub.cluster_id().to_owned(), secrets_dir);
        Arc::new(Self { hub, ledger, observer, webhooks: Webhooks::new(), channels })
    }

    /// With eyes of its own.
    #[must_use]
    pub fn with(hub: Arc<FleetHub>, ledger: Arc<dyn Ledger>, observer: Observer) -> Arc<Self> {
        let channels = Channels::new(hub.cluster_id().to_owned(), None);
        Arc::new(Self { hub, ledger, observer, webhooks: Webhooks::new(), channels })
    }

    fn manifest(&self, kind: Kind, tenant: &str, name: &str) -> Option<Arc<Manifest>> {
        let key = ManifestKey { kind, tenant: tenant.to_owned(), name: name.to_owned() };
        self.ledger.read(|state| state.manifests.get(&key).map(|stored| stored.manifest.clone()))
    }

    /// Carries an order out through its agent.
    async fn through_agent(&self, order: &Order) -> ActResult {
        let target = &order.target;
        let message = wire::Order {
            key: order.key.to_string(),
            fence: order.fence.0,
            node_id: self.ledger.node().0,
            action: order.action.name.clone(),
            params: order.action.params.clone().into_iter().collect(),
            target: Some(wire::InstanceKey {
                tenant: target.tenant.clone(),
                service: target.service.clone(),
                instance: target.instance.clone(),
            }),
            timeout_ms: order.timeout.0,
            trace_id: order.trace.to_string(),
            attempt: order.attempt,
        };
        let about = |error: FleetError| format!("agent `{}`: {error}", order.agent);
        match self.hub.order(&order.agent, message).await {
            Ok(result) => outcome(result),
            Err(error @ (FleetError::NotConnected | FleetError::Busy)) => {
                ActResult::Outcome(Outcome::Failed { reason: about(error), retryable: true })
            }
            Err(error @ (FleetError::Lost | FleetError::TimedOut)) => {
                ActResult::Outcome(Outcome::Unknown { reason: about(error) })
            }
        }
    }

    /// The outcome that came in after its order had been given up here.
    fn late(&self, order: &Order) -> Option<Outcome> {
        let late = self.hub.late_outcome(&order.agent, &order.key.to_string())?;
        match outcome(late.result.filter(|_| late.attempt == order.attempt)?) {
            ActResult::Outcome(known @ (Outcome::Done(_) | Outcome::Failed { .. })) => Some(known),
            ActResult::Outcome(Outcome::Unknown { .. }) | ActResult::RefusedFence(_) => None,
        }
    }
}

#[async_trait]
impl World for FleetWorld {
    fn ready(&self, order: &Order) -> Result<(), String> {
        if by_node(order) || self.hub.connected(&order.agent) {
            return Ok(());
        }
        Err(format!("agent `{}` is not connected to this node", order.agent))
    }

    async fn act(&self, order: &Order) -> ActResult {
        if !by_node(order) {
            return self.through_agent(order).await;
        }
        if order.action.name == "webhook.call" {
            return ActResult::Outcome(self.webhooks.call(order).await);
        }
        let reason =
            format!("`{}` is carried out by an agent, and the step names none", order.action.name);
        ActResult::Outcome(Outcome::Failed { reason, retryable: false })
    }

    async fn query(&self, order: &Order) -> QueryResult {
        if by_node(order) {
            let why = "nobody on the other side of a webhook remembers keys".to_owned();
            return QueryResult::CannotTell(why);
        }
        let asked = self.hub.query(&order.agent, &order.key.to_string(), order.fence.0).await;
        match asked {
            Ok(query_answer::Kind::NeverBegun(_)) => QueryResult::NeverBegun,
            Ok(query_answer::Kind::Result(result)) => match outcome(result) {
                ActResult::Outcome(known) => QueryResult::Finished(known),
                ActResult::RefusedFence(highest) => {
                    QueryResult::CannotTell(format!("the agent has accepted {highest}"))
                }
            },
            Err(error) => match self.late(order) {
                Some(known) => QueryResult::Finished(known),
                None => QueryResult::CannotTell(format!("agent `{}`: {error}", order.agent)),
            },
        }
    }

    async fn observe(&self, target: &Target) -> Observation {
        let manifest = self.manifest(Kind::Service, &target.tenant, &target.service);
        if let Some(manifest) = &manifest
            && let Spec::Service(service) = &manifest.spec
            && let Some(instance) = service.instances.iter().find(|i| i.name == target.instance)
        {
            return self.observer.observe(&target.tenant, &target.service, service, instance).await;
        }
        let why = format!("{target} is not a declared instance");
        Observation {
            at: self.ledger.env().clock.now(),
            errors: [("target".to_owned(), why)].into(),
            ..Observation::default()
        }
    }

    async fn tell(&self, telling: &Telling) -> Delivery {
        let manifest = self.manifest(Kind::Channel, &telling.tenant, &telling.channel);
        let Some(Spec::Channel(channel)) = manifest.as_ref().map(|manifest| &manifest.spec) else {
            let (channel, tenant) = (&telling.channel, &telling.tenant);
            return Delivery::Failed(format!("there is no channel `{channel}` in `{tenant}`"));
        };
        let incident = telling.notices.first().map(|notice| notice.incident);
        let about = self.ledger.read(|state| {
            let incident = incident.and_then(|id| state.incidents.get(&id))?;
            let class = incident.decision.as_ref().map(|made| made.proposal.class.clone());
            Some(About {
                target: Some(incident.target.clone()),
                class: class.unwrap_or_default(),
                opened_at: incident.opened_at,
            })
        });
        self.channels.tell(channel, telling, &about.unwrap_or_default()).await
    }
}

impl std::fmt::Debug for FleetWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetWorld").field("hub", &self.hub).finish_non_exhaustive()
    }
}

/// An agent's result in the law's terms.
fn outcome(result: wire::Result) -> ActResult {
    ActResult::Outcome(match result.kind {
        Some(result::Kind::Done(done)) => {
            let mut evidence: std::collections::BTreeMap<_, _> =
                done.evidence.into_iter().collect();
            // The version that was replaced is the one that `config.restore` is to bring back.
            if let Some(previous) = evidence.get("previous_hash").cloned() {
                evidence.insert("undo.hash".to_owned(), previous);
            }
            if done.already {
                evidence.insert("already".to_owned(), "true".to_owned());
            }
            Outcome::Done(evidence)
        }
        Some(result::Kind::Failed(failed)) => {
            Outcome::Failed { reason: failed.reason, retryable: failed.retryable }
        }
        Some(result::Kind::Unknown(unknown)) => Outcome::Unknown { reason: unknown.reason },
        Some(result::Kind::RefusedFence(refused)) => {
            return ActResult::RefusedFence(Fence(refused.highest));
        }
        None => Outcome::Unknown { reason: "the agent's answer was empty".to_owned() },
    })
}
