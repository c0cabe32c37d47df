//! The world as one node reaches it: its senses, and its hands.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use medic_node::{
    action::resources::by_node,
    detection::{Observer, probe::Outcome as Check, scrape::ScrapeError, senses::Senses},
    topology,
    world::{ActResult, Observation, Order, QueryResult, Seen, World},
};
use medic_raft::{Ledger as _, LedgerExt as _};
use medic_state::{manifest::ProbeKind, saga::Outcome, symptom::Target};
use tokio::time::sleep;

use super::fleet::Fleet;
use crate::{
    coverage::Sometimes,
    history::{Did, Reached, Sent, What, lock},
    layer_a::{Consensus, SimLedger},
};

/// What a node sees.
#[derive(Debug)]
pub struct NodeSenses {
    fleet: Arc<Fleet>,
    ledger: Arc<SimLedger>,
}

impl NodeSenses {
    /// Of one incarnation of a node.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>, ledger: Arc<SimLedger>) -> Arc<Self> {
        Arc::new(Self { fleet, ledger })
    }
}

#[async_trait]
impl Senses for NodeSenses {
    async fn probe(&self, target: &Target, kind: &ProbeKind, timeout: Duration) -> Check {
        if self.ledger.awake().await.is_err() {
            return Check::NoData("the process has ended".to_owned());
        }
        let (takes, outcome) = self.fleet.check(self.ledger.node(), target, kind, timeout);
        if !takes.is_zero() {
            sleep(takes).await;
        }
        outcome
    }

    async fn scrape(&self, url: &str, timeout: Duration) -> Result<String, ScrapeError> {
        if self.ledger.awake().await.is_err() {
            return Err(ScrapeError::Local("the process has ended".to_owned()));
        }
        let host = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
        let name = host.trim_end_matches(".sim");
        let (takes, body) = self.fleet.expose(self.ledger.node(), name, timeout);
        sleep(takes).await;
        body
    }

    fn seen(&self, target: &Target) -> Option<Seen> {
        self.fleet.seen(self.ledger.node(), target)
    }

    fn connected(&self, agent: &str) -> bool {
        self.fleet.connected(self.ledger.node(), agent)
    }
}

/// What a node does.
pub struct NodeWorld {
    fleet: Arc<Fleet>,
    ledger: Arc<SimLedger>,
    consensus: Arc<Consensus>,
    observer: Observer,
}

impl NodeWorld {
    /// Of one incarnation of a node.
    #[must_use]
    pub fn new(
        fleet: Arc<Fleet>,
        ledger: Arc<SimLedger>,
        consensus: Arc<Consensus>,
        observer: Observer,
    ) -> Arc<Self> {
        Arc::new(Self { fleet, ledger, consensus, observer })
    }

    /// The process is stopped or has ended: what is under way in it goes no further.
    async fn awake(&self) {
        if self.ledger.awake().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn note_sent(&self, order: &Order) {
        let node = self.ledger.node();
        let (newest_fence, quorum_age_ms) = self.consensus.truth(node);
        let sent = Sent {
            node,
            key: order.key,
            fence: order.fence,
            attempt: order.attempt,
            action: order.action.name.clone(),
            target: order.target.clone(),
            applied: *self.ledger.applied().borrow(),
            newest_fence,
            quorum_age_ms,
        };
        self.fleet.recorder.trace(format_args!(
            "{node} sends {} {} #{} ({})",
            order.key, order.fence, order.attempt, order.action.name
        ));
        self.fleet.recorder.happened(What::Sent(Box::new(sent)));
    }

    /// An order on its way: it goes on without whoever sent it.
    async fn through_agent(&self, order: &Order) -> Option<ActResult> {
        let (fleet, consensus, order) = (self.fleet.clone(), self.consensus.clone(), order.clone());
        let travels = {
            let mut inner = lock(&fleet.inner);
            let delayed = inner.mood.delayed;
            let ms = if inner.rng.chance(delayed, 100) {
                inner.rng.between(1_000, 8_000)
            } else {
                inner.rng.between(1, 8)
            };
            Duration::from_millis(ms)
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            sleep(travels).await;
            if consensus.truth(medic_state::NodeId(0)).0 > order.fence {
                fleet.recorder.reached(Sometimes::OrderArrivedLate);
            }
            if let Some(result) = fleet.carry_out(order).await {
                // The sender may have gone.
                drop(sender.send(result));
            }
        });
        receiver.await.ok()
    }

    /// Somebody else's automation, which keeps neither fence nor key.
    async fn call(&self, order: &Order) -> Outcome {
        let fleet = &self.fleet;
        let (takes, lost, fails) = {
            let mut inner = lock(&fleet.inner);
            let mood = inner.mood;
            let takes = inner.rng.between(50, 1_500);
            let lost = inner.rng.chance(mood.answers_lost, 100);
            (takes, lost, inner.rng.chance(mood.failed, 100))
        };
        if fails {
            sleep(Duration::from_millis(takes)).await;
            let reason = "the vendor refused the connection".to_owned();
            return Outcome::Failed { reason, retryable: true };
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (fleet, order) = (fleet.clone(), order.clone());
        tokio::spawn(async move {
            sleep(Duration::from_millis(takes)).await;
            fleet.vendor(&order);
            if !lost {
                // The sender may have gone.
                sender.send(()).unwrap_or_default();
            }
        });
        match receiver.await {
            Ok(()) => Outcome::Done([("status".to_owned(), "200".to_owned())].into()),
            Err(_) => Outcome::Unknown { reason: "the connection broke".to_owned() },
        }
    }
}

impl Fleet {
    pub(crate) fn vendor(&self, order: &Order) {
        self.recorder.reached(Sometimes::OpaqueCalled);
        if let Some(one) = lock(&self.inner).instances.get_mut(&order.target.instance) {
            one.cured_by(super::Cure::Call);
        }
        let medic_node::world::Order { key, fence, attempt, .. } = *order;
        self.recorder.trace(format_args!("vendor: {key} {fence} #{attempt}"));
        let agent = "vendor".to_owned();
        let reached = Reached { agent, fenced: false, key, fence, attempt, did: Did::Effect };
        self.recorder.happened(What::Reached(Box::new(reached)));
    }
}

#[async_trait]
impl World for NodeWorld {
    fn ready(&self, order: &Order) -> Result<(), String> {
        if by_node(order) || self.fleet.connected(self.ledger.node(), &order.agent) {
            return Ok(());
        }
        Err(format!("agent `{}` is not connected to this node", order.agent))
    }

    async fn act(&self, order: &Order) -> ActResult {
        self.note_sent(order);
        let limit = order.timeout.as_duration() + Duration::from_secs(1);
        if by_node(order) {
            let called = tokio::time::timeout(limit, self.call(order)).await;
            self.awake().await;
            let reason = "no answer in time".to_owned();
            return ActResult::Outcome(called.unwrap_or(Outcome::Unknown { reason }));
        }
        self.awake().await;
        if !self.fleet.connected(self.ledger.node(), &order.agent) {
            let reason = format!("agent `{}` is not connected", order.agent);
            return ActResult::Outcome(Outcome::Failed { reason, retryable: true });
        }
        let answered = tokio::time::timeout(limit, self.through_agent(order)).await;
        self.awake().await;
        match answered {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => {
                let reason = format!("agent `{}`: no answer", order.agent);
                ActResult::Outcome(Outcome::Unknown { reason })
            }
        }
    }

    async fn query(&self, order: &Order) -> QueryResult {
        self.awake().await;
        if by_node(order) {
            let why = "nobody on the other side of a webhook remembers keys".to_owned();
            return QueryResult::CannotTell(why);
        }
        sleep(Duration::from_millis(4)).await;
        if !self.fleet.connected(self.ledger.node(), &order.agent) {
            return QueryResult::CannotTell(format!("agent `{}` is not connected", order.agent));
        }
        let answer = self.fleet.clone().asked(order.clone()).await;
        self.awake().await;
        answer
    }

    async fn observe(&self, target: &Target) -> Observation {
        self.awake().await;
        let found = self.ledger.read(|state| {
            let service = topology::service(state, &target.tenant, &target.service)?.clone();
            let instance = topology::instance(state, target)?.clone();
            Some((service, instance))
        });
        let Some((service, instance)) = found else {
            return Observation {
                at: self.ledger.env().clock.now(),
                errors: [("target".to_owned(), format!("{target} is not declared"))].into(),
                ..Observation::default()
            };
        };
        self.observer.observe(&target.tenant, &target.service, &service, &instance).await
    }

    async fn notify(&self, _tenant: &str, _channel: &str, _text: &str) -> Result<(), String> {
        self.awake().await;
        Ok(())
    }
}
