//! One connected agent: its queue, who waits for its answers, when it was last heard.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use medic_proto::fleet::v1::{self as wire, node_message, query_answer};
use medic_state::Digest;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::FleetError;

/// Messages queued towards one agent. An agent that does not read this many has stopped.
pub(super) const QUEUE: usize = 256;
/// Answers awaited from one agent at a time; the budgets of the law are far below.
const WAITING_MAX: usize = 256;

/// Identifies what is waited for: key, attempt and fence of an order; attempt 0 for a query.
type Awaited = (String, u32, u64);

/// One connected agent.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) agent: String,
    /// Tells this connection from earlier ones of the same agent.
    pub(super) serial: u64,
    pub(super) region: String,
    pub(super) version: String,
    pub(super) since: Instant,
    /// Ends the connection.
    pub(super) closed: CancellationToken,
    outbound: mpsc::Sender<wire::NodeMessage>,
    orders: Mutex<BTreeMap<Awaited, oneshot::Sender<wire::Result>>>,
    queries: Mutex<BTreeMap<Awaited, oneshot::Sender<query_answer::Kind>>>,
    declared: Mutex<Option<Digest>>,
}

/// Locks through a poisoned lock: what these maps hold is valid between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    pub(super) fn new(
        hello: wire::Hello,
        serial: u64,
        outbound: mpsc::Sender<wire::NodeMessage>,
    ) -> Self {
        Self {
            agent: hello.agent,
            serial,
            region: hello.region,
            version: hello.version,
            since: Instant::now(),
            closed: CancellationToken::new(),
            outbound,
            orders: Mutex::default(),
            queries: Mutex::default(),
            declared: Mutex::default(),
        }
    }

    /// Queues a message. A full queue ends the connection: the agent does not read.
    pub(super) fn send(&self, kind: node_message::Kind) -> Result<(), FleetError> {
        let message = wire::NodeMessage { kind: Some(kind) };
        match self.outbound.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(agent = self.agent, "the agent does not read; closing");
                self.close();
                Err(FleetError::Lost)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(FleetError::Lost),
        }
    }

    /// Ends the connection; whoever waits on it learns at once.
    pub(super) fn close(&self) {
        self.closed.cancel();
        lock(&self.orders).clear();
        lock(&self.queries).clear();
    }

    /// Sends an order and gives where its outcome will arrive.
    pub(super) fn order(
        &self,
        order: &wire::Order,
    ) -> Result<oneshot::Receiver<wire::Result>, FleetError> {
        let awaited = (order.key.clone(), order.attempt, order.fence);
        let outcome = wait_for(&mut lock(&self.orders), awaited)?;
        self.send(node_message::Kind::Order(order.clone()))?;
        Ok(outcome)
    }

    /// Sends a query and gives where its answer will arrive.
    pub(super) fn query(
        &self,
        query: &wire::Query,
    ) -> Result<oneshot::Receiver<query_answer::Kind>, FleetError> {
        let awaited = (query.key.clone(), 0, query.fence);
        let answer = wait_for(&mut lock(&self.queries), awaited)?;
        self.send(node_message::Kind::Query(query.clone()))?;
        Ok(answer)
    }

    /// Hands an outcome to its waiter; gives it back when nobody waits.
    pub(super) fn finished(&self, outcome: &wire::OrderOutcome) -> bool {
        let awaited = (outcome.key.clone(), outcome.attempt, outcome.fence);
        let waiter = lock(&self.orders).remove(&awaited);
        match (waiter, &outcome.result) {
            (Some(waiter), Some(result)) => waiter.send(result.clone()).is_ok(),
            _ => false,
        }
    }

    /// Hands an answer to its waiter.
    pub(super) fn answered(&self, answer: wire::QueryAnswer) {
        let waiter = lock(&self.queries).remove(&(answer.key, 0, answer.fence));
        if let (Some(waiter), Some(kind)) = (waiter, answer.kind)
            && waiter.send(kind).is_err()
        {
            tracing::debug!(agent = self.agent, "an answer came after its asker had left");
        }
    }

    /// Sends a declaration unless its content was the last thing sent.
    pub(super) fn declare(&self, declaration: wire::Declaration, digest: Digest) {
        let mut declared = lock(&self.declared);
        if *declared == Some(digest) {
            return;
        }
        if self.send(node_message::Kind::Declaration(declaration)).is_ok() {
            *declared = Some(digest);
        }
    }
}

fn wait_for<T>(
    waiting: &mut BTreeMap<Awaited, oneshot::Sender<T>>,
    awaited: Awaited,
) -> Result<oneshot::Receiver<T>, FleetError> {
    waiting.retain(|_, waiter| !waiter.is_closed());
    if waiting.len() >= WAITING_MAX {
        return Err(FleetError::Busy);
    }
    let (waiter, receiver) = oneshot::channel();
    waiting.insert(awaited, waiter);
    Ok(receiver)
}
