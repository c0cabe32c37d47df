//! An agent's process: the real link to every node, over a simulated host.

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, ready};
use medic_node::{
    action::agent::{
        Options,
        link::{Host, keep_all},
    },
    world::{ActResult, Order, QueryResult},
};
use medic_proto::fleet::v1::{self as wire, query_answer, result};
use medic_raft::{Entropy, env::RngEntropy};
use medic_state::{
    Fence, Millis, NodeId, PlanId, TraceId,
    plan::{Action, Direction, StepKey},
    saga::Outcome,
    symptom::Target,
};
use tokio::{
    sync::watch,
    time::{Instant, interval},
};

use super::{
    net::{CLUSTER, Dialler, api_addr},
    oracle::Oracle,
};
use crate::{coverage::Sometimes, world::Fleet};

/// As the real agent: looked at so often, and reported at least so often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A simulated host, as its agent's links see it.
struct SimHost {
    oracle: Arc<Oracle>,
    fleet: Arc<Fleet>,
    name: String,
}

impl Host for SimHost {
    fn highest_fence(&self) -> u64 {
        self.fleet.highest_fence(&self.name)
    }

    /// What runs there is known from the beginning.
    fn declare(&self, _declaration: wire::Declaration) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn order(&self, order: wire::Order) -> BoxFuture<'static, Option<wire::Result>> {
        let (oracle, fleet) = (self.oracle.clone(), self.fleet.clone());
        Box::pin(carry_out(oracle, fleet, self.name.clone(), order))
    }

    fn query(&self, query: wire::Query) -> BoxFuture<'static, Option<wire::QueryAnswer>> {
        Box::pin(asked(self.fleet.clone(), self.name.clone(), query))
    }
}

async fn carry_out(
    oracle: Arc<Oracle>,
    fleet: Arc<Fleet>,
    name: String,
    order: wire::Order,
) -> Option<wire::Result> {
    let order = order_in(&name, order)?;
    let delay = fleet.throw(0, 0).delay_ms;
    tokio::time::sleep(Duration::from_millis(delay)).await;
    if oracle.newest_fence() > order.fence {
        oracle.recorder.reached(Sometimes::OrderArrivedLate);
    }
    fleet.carry_out(order).await.map(result_out)
}

async fn asked(fleet: Arc<Fleet>, name: String, query: wire::Query) -> Option<wire::QueryAnswer> {
    let wire::Query { key, fence } = query;
    let order = Order {
        key: key_in(&key)?,
        fence: Fence(fence),
        attempt: 0,
        action: Action { name: String::new(), params: std::collections::BTreeMap::new() },
        target: Target { tenant: String::new(), service: String::new(), instance: String::new() },
        agent: name.clone(),
        timeout: Millis(0),
        trace: TraceId::default(),
    };
    let kind = match fleet.clone().asked(order).await {
        QueryResult::NeverBegun => query_answer::Kind::NeverBegun(true),
        QueryResult::Finished(outcome) => {
            query_answer::Kind::Result(result_out(ActResult::Outcome(outcome)))
        }
        QueryResult::CannotTell(_) => {
            let highest = fleet.highest_fence(&name);
            if highest <= fence {
                return None;
            }
            query_answer::Kind::Result(result_out(ActResult::RefusedFence(Fence(highest))))
        }
    };
    Some(wire::QueryAnswer { key, fence, kind: Some(kind) })
}

/// Runs an agent until its process ends.
pub(super) async fn live(
    oracle: Arc<Oracle>,
    fleet: Arc<Fleet>,
    name: String,
    nodes: Vec<NodeId>,
    seed: u64,
) {
    let options = Options {
        name: name.clone(),
        region: String::new(),
        cluster: CLUSTER.to_owned(),
        nodes: nodes.into_iter().map(api_addr).collect(),
        state_dir: std::path::PathBuf::new(),
        tls: None,
    };
    let (publish, reports) = watch::channel(fleet.report(&name));
    let entropy: Arc<dyn Entropy> = Arc::new(RngEntropy::seeded(seed));
    let dial = Arc::new(Dialler(medic_state::rbac::Principal {
        kind: medic_state::rbac::PrincipalKind::Agent,
        name: name.clone(),
    }));
    let host = Arc::new(SimHost { oracle, fleet: fleet.clone(), name: name.clone() });
    let looking = async {
        let (mut every, mut next) = (interval(LOOK_EVERY), Instant::now());
        loop {
            every.tick().await;
            let due = Instant::now() >= next;
            let report = fleet.report(&name);
            if due {
                next = Instant::now() + REPORT_EVERY;
            }
            publish.send_if_modified(|last| {
                let send = due || last.instances != report.instances;
                if send {
                    *last = report;
                }
                send
            });
        }
    };
    tokio::select! {
        () = keep_all(options, host, dial, reports, entropy) => {}
        () = looking => {}
    }
}

/// `PLAN-7/0/do`, as [`StepKey`] writes itself.
fn key_in(text: &str) -> Option<StepKey> {
    let mut parts = text.split('/');
    let plan: PlanId = parts.next()?.parse().ok()?;
    let step = parts.next()?.parse().ok()?;
    let direction = match parts.next()? {
        "do" => Direction::Forward,
        "undo" => Direction::Undo,
        _ => return None,
    };
    Some(StepKey { plan, step, direction })
}

fn order_in(agent: &str, order: wire::Order) -> Option<Order> {
    let target = order.target?;
    Some(Order {
        key: key_in(&order.key)?,
        fence: Fence(order.fence),
        attempt: order.attempt,
        action: Action { name: order.action, params: order.params.into_iter().collect() },
        target: Target {
            tenant: target.tenant,
            service: target.service,
            instance: target.instance,
        },
        agent: agent.to_owned(),
        timeout: Millis(order.timeout_ms),
        trace: TraceId::default(),
    })
}

fn result_out(result: ActResult) -> wire::Result {
    let kind = match result {
        ActResult::RefusedFence(highest) => {
            result::Kind::RefusedFence(wire::RefusedFence { highest: highest.0 })
        }
        ActResult::Outcome(Outcome::Done(evidence)) => result::Kind::Done(wire::Done {
            evidence: evidence.into_iter().collect(),
            already: false,
        }),
        ActResult::Outcome(Outcome::Failed { reason, retryable }) => {
            result::Kind::Failed(wire::Failed { reason, retryable })
        }
        ActResult::Outcome(Outcome::Unknown { reason }) => {
            result::Kind::Unknown(wire::Unknown { reason })
        }
    };
    wire::Result { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        for direction in [Direction::Forward, Direction::Undo] {
            let key = StepKey { plan: PlanId(57), step: 3, direction };
            assert_eq!(key_in(&key.to_string()), Some(key));
        }
        assert_eq!(key_in("PLAN-57/3/dance"), None);
    }
}
