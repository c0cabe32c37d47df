//! The world as one whole node reaches it: probes and scrapes of the simulated fleet, and orders
//! through the real hub to the agents that are connected to it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use medic_node::{
    action::{
        backends::{FleetWorld, HubView},
        resources::by_node,
    },
    detection::{
        probe::{Failure, Liveness, Outcome as Check, liveness},
        scrape::ScrapeError,
        senses::Senses,
    },
    world::{ActResult, FleetView as _, Observation, Order, QueryResult, Seen, World},
};
use medic_raft::Ledger;
use medic_state::{NodeId, manifest::ProbeKind, saga::Outcome, symptom::Target};
use tokio::time::sleep;

use super::{oracle::Oracle, wires::Reach};
use crate::{
    history::{Sent, What},
    world::Fleet,
};

/// What a node sees.
pub(super) struct Eyes {
    pub(super) fleet: Arc<Fleet>,
    pub(super) node: NodeId,
    pub(super) agents: HubView,
}

#[async_trait]
impl Senses for Eyes {
    async fn probe(&self, target: &Target, kind: &ProbeKind, timeout: Duration) -> Check {
        if let ProbeKind::Process(_) = kind {
            return match liveness(self.agents.seen(target).as_ref()) {
                Liveness::Running => Check::Good,
                Liveness::Unknown => Check::NoData("no agent has reported it lately".to_owned()),
                other @ (Liveness::Paused | Liveness::Dead | Liveness::Stopped) => {
                    Check::Bad(Failure::Process(other))
                }
            };
        }
        let (takes, outcome) = self.fleet.check(self.node, target, kind, timeout);
        sleep(takes).await;
        outcome
    }

    async fn scrape(&self, url: &str, timeout: Duration) -> Result<String, ScrapeError> {
        let host = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let name = host.trim_end_matches(".sim");
        let (takes, body) = self.fleet.expose(self.node, name, timeout);
        sleep(takes).await;
        body
    }

    fn seen(&self, target: &Target) -> Option<Seen> {
        self.agents.seen(target)
    }

    fn connected(&self, agent: &str) -> bool {
        self.agents.connected(agent)
    }
}

/// What a node does: the real backend for agents, and a simulated vendor behind webhooks.
pub(super) struct Hands {
    pub(super) below: Arc<FleetWorld>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) reach: Reach,
}

impl Hands {
    fn note_sent(&self, order: &Order) {
        let node = self.ledger.node();
        let sent = Sent {
            node,
            key: order.key,
            fence: order.fence,
            attempt: order.attempt,
            action: order.action.name.clone(),
            target: order.target.clone(),
            applied: *self.ledger.applied().borrow(),
            newest_fence: self.oracle.newest_fence(),
            quorum_age_ms: self.reach.quorum_age_ms(node),
        };
        let (key, fence, name) = (order.key, order.fence, &order.action.name);
        let recorder = &self.oracle.recorder;
        recorder.trace(format_args!("{node} sends {key} {fence} #{} ({name})", order.attempt));
        recorder.happened(What::Sent(Box::new(sent)));
    }

    /// Somebody else's automation, which keeps neither fence nor key.
    async fn call(&self, order: &Order) -> Outcome {
        let throw = self.fleet.throw(50, 1_500);
        sleep(Duration::from_millis(throw.takes_ms)).await;
        if throw.fails {
            let reason = "the vendor refused the connection".to_owned();
            return Outcome::Failed { reason, retryable: true };
        }
        self.fleet.vendor(order);
        if throw.lost {
            return Outcome::Unknown { reason: "the connection broke".to_owned() };
        }
        Outcome::Done([("status".to_owned(), "200".to_owned())].into())
    }
}

#[async_trait]
impl World for Hands {
    fn ready(&self, order: &Order) -> Result<(), String> {
        self.below.ready(order)
    }

    async fn act(&self, order: &Order) -> ActResult {
        self.note_sent(order);
        if by_node(order) {
            return ActResult::Outcome(self.call(order).await);
        }
        self.below.act(order).await
    }

    async fn query(&self, order: &Order) -> QueryResult {
        self.below.query(order).await
    }

    async fn observe(&self, target: &Target) -> Observation {
        self.below.observe(target).await
    }

    async fn notify(&self, _tenant: &str, _channel: &str, _text: &str) -> Result<(), String> {
        Ok(())
    }
}
