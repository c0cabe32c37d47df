//! One agent's connection to one node: dial, greet, obey, report; dial again.
//!
//! ```text
//!   reports (latest only) ─┐
//!   outcomes (queued)      ├─► AgentMessage stream ─► node
//!                          └── NodeMessage stream  ◄─ node: declaration, order, query
//! ```
//!
//! Invariant: every await here is bounded, by a deadline or by the other side's silence; outcomes
//! wait in a bounded queue for the next connection, reports do not. A node of another cluster is
//! obeyed in nothing.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use backon::BackoffBuilder as _;
use futures::future::BoxFuture;
use medic_proto::fleet::v1::{
    self as wire, agent_message, fleet_client::FleetClient, node_message,
};
use medic_raft::Entropy;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::{Options, instance::ActError, orders, supervisor::Supervisor};

/// What obeys on this host: the supervisor of real processes, or a simulated host. Each call begins
/// at once; what it gives says when it has ended.
pub trait Host: Send + Sync + 'static {
    /// The highest fence accepted.
    fn highest_fence(&self) -> u64;
    /// Takes a declaration in.
    fn declare(&self, declaration: wire::Declaration) -> BoxFuture<'static, ()>;
    /// Carries an order out, once, and says what came of it. `None`: nobody will ever hear.
    fn order(&self, order: wire::Order) -> BoxFuture<'static, Option<wire::Result>>;
    /// Says what became of a key. `None`: it cannot be told, and nothing is answered.
    fn query(&self, query: wire::Query) -> BoxFuture<'static, Option<wire::QueryAnswer>>;
}

/// Everything here blocks: it is done off the runtime's threads.
impl Host for Arc<Supervisor> {
    fn highest_fence(&self) -> u64 {
        Supervisor::highest_fence(self)
    }

    fn declare(&self, declaration: wire::Declaration) -> BoxFuture<'static, ()> {
        let supervisor = Self::clone(self);
        let taken = tokio::task::spawn_blocking(move || {
            if let Err(error) = Supervisor::declare(&supervisor, declaration) {
                tracing::error!(%error, "the declaration is not taken in");
            }
        });
        Box::pin(async move { done("taking a declaration in", taken.await).unwrap_or_default() })
    }

    fn order(&self, order: wire::Order) -> BoxFuture<'static, Option<wire::Result>> {
        let supervisor = Self::clone(self);
        let acting = tokio::task::spawn_blocking(move || Supervisor::order(&supervisor, &order));
        Box::pin(async move { done("carrying an order out", acting.await) })
    }

    fn query(&self, query: wire::Query) -> BoxFuture<'static, Option<wire::QueryAnswer>> {
        let supervisor = Self::clone(self);
        let asking = tokio::task::spawn_blocking(move || Supervisor::query(&supervisor, &query));
        Box::pin(async move { done("answering a question", asking.await) })
    }
}

/// `None`: it panicked, which the panic hook has reported; the node finds out that nobody answers.
fn done<T>(what: &str, joined: Result<T, JoinError>) -> Option<T> {
    joined.inspect_err(|error| tracing::error!(%error, "{what} failed")).ok()
}

/// Connects to a node; plain TCP and TLS unless a simulation brings its own network.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A connection as the endpoint describes it.
    async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error>;
}

/// The real network.
#[derive(Clone, Copy, Debug)]
pub(super) struct NetDial;

#[async_trait]
impl Dial for NetDial {
    async fn connect(&self, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
        endpoint.connect().await
    }
}

/// To connect, and to be welcomed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// A node that answers no ping for so long is gone.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// First and longest pause before dialling again; drawn anew each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// A connection that held so long starts the pauses over.
const HELD: Duration = Duration::from_secs(5);
/// Messages waiting to be sent: outcomes and answers of as many orders.
const QUEUE: usize = 256;
/// Largest declaration taken.
const DECODE_MAX: usize = 16 << 20;
/// Orders and queries under way or waiting, over all nodes.
pub(super) const ORDERS_MAX: usize = 64;

/// What all links of one agent share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) options: Arc<Options>,
    pub(super) host: Arc<dyn Host>,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) reports: watch::Receiver<wire::Report>,
    pub(super) orders: Arc<Semaphore>,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl Shared {
    pub(super) fn new(
        options: Options,
        host: Arc<dyn Host>,
        dial: Arc<dyn Dial>,
        reports: watch::Receiver<wire::Report>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let orders = Arc::new(Semaphore::new(ORDERS_MAX));
        Self { options: Arc::new(options), host, dial, reports, orders, entropy }
    }
}

/// Keeps a host connected to all its nodes, through any network, until it is dropped.
pub async fn keep_all(
    options: Options,
    host: Arc<dyn Host>,
    dial: Arc<dyn Dial>,
    reports: watch::Receiver<wire::Report>,
    entropy: Arc<dyn Entropy>,
) {
    let shared = Shared::new(options, host, dial, reports, entropy);
    let mut links = JoinSet::new();
    for node in &shared.options.nodes {
        links.spawn(keep(shared.clone(), node.clone()));
    }
    while links.join_next().await.is_some() {}
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("`{0}` is not the address of a node: {1}")]
    Address(String, tonic::transport::Error),
    #[error("cannot connect: {0}")]
    Connect(tonic::transport::Error),
    #[error("refused: {0}")]
    Refused(tonic::Status),
    #[error("no welcome within {WELCOME_TIMEOUT:?}")]
    NoWelcome,
    #[error("it belongs to cluster `{found}`, this agent to `{expected}`: check `nodes`")]
    OtherCluster { found: String, expected: String },
    #[error("lost: {0}")]
    Lost(tonic::Status),
    #[error("the node ended the connection")]
    Ended,
}

/// Keeps connected to one node, for ever.
pub(super) async fn keep(shared: Shared, node: String) {
    let (outbound, mut queued) = mpsc::channel::<agent_message::Kind>(QUEUE);
    let mut pauses = self::pauses(&shared);
    loop {
        let began = Instant::now();
        let Err(error) = connected(&shared, &node, &outbound, &mut queued).await;
        let pause = if began.elapsed() > HELD {
            pauses = self::pauses(&shared);
            PAUSE_MIN
        } else {
            pauses.next().unwrap_or(PAUSE_MAX)
        };
        tracing::warn!(node, %error, ?pause, "not connected; dialling again");
        tokio::time::sleep(pause).await;
    }
}

fn pauses(shared: &Shared) -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::default()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .with_jitter()
        .with_jitter_seed(shared.entropy.next_u64())
        .without_max_times()
        .build()
}

async fn dial(shared: &Shared, node: &str) -> Result<Channel, LinkError> {
    let scheme = if shared.options.tls.is_some() { "https" } else { "http" };
    let bad = |error| LinkError::Address(node.to_owned(), error);
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{node}"))
        .map_err(bad)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    if let Some(tls) = &shared.options.tls {
        let host = node.rsplit_once(':').map_or(node, |(host, _)| host);
        let domain = host.trim_start_matches('[').trim_end_matches(']');
        endpoint = endpoint.tls_config(tls.current().tonic_client(domain)).map_err(bad)?;
    }
    // The connect timeout covers TCP alone.
    timeout(CONNECT_TIMEOUT * 2, shared.dial.connect(endpoint))
        .await
        .map_err(|_| LinkError::NoWelcome)?
        .map_err(LinkError::Connect)
}

async fn connected(
    shared: &Shared,
    node: &str,
    outbound: &mpsc::Sender<agent_message::Kind>,
    queued: &mut mpsc::Receiver<agent_message::Kind>,
) -> Result<std::convert::Infallible, LinkError> {
    let channel = dial(shared, node).await?;
    let (up, stream) = mpsc::channel::<wire::AgentMessage>(QUEUE);
    let hello = wire::Hello {
        agent: shared.options.name.clone(),
        region: shared.options.region.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        highest_fence: shared.host.highest_fence(),
    };
    send(&up, agent_message::Kind::Hello(hello)).await?;
    let mut client = FleetClient::new(channel).max_decoding_message_size(DECODE_MAX);
    let greeted = timeout(WELCOME_TIMEOUT, async {
        let mut down = client
            .connect(ReceiverStream::new(stream))
            .await
            .map_err(LinkError::Refused)?
            .into_inner();
        match down.message().await.map_err(LinkError::Refused)? {
            Some(wire::NodeMessage { kind: Some(node_message::Kind::Welcome(welcome)) }) => {
                Ok((down, welcome))
            }
            _ => Err(LinkError::NoWelcome),
        }
    });
    let (mut down, welcome) = greeted.await.map_err(|_| LinkError::NoWelcome)??;
    let expected = &shared.options.cluster;
    if welcome.cluster_id != *expected {
        let (found, expected) = (welcome.cluster_id, expected.clone());
        return Err(LinkError::OtherCluster { found, expected });
    }
    crate::crash_point!("agent_link_connected");
    tracing::info!(node, id = welcome.node_id, "connected");
    let mut reports = shared.reports.clone();
    reports.mark_changed();
    let mut host_told_ms = None;
    loop {
        tokio::select! {
            message = down.message() => match message.map_err(LinkError::Lost)? {
                Some(wire::NodeMessage { kind: Some(kind) }) => obey(shared, kind, outbound),
                // A kind this build does not know.
                Some(wire::NodeMessage { kind: None }) => {}
                None => return Err(LinkError::Ended),
            },
            // Never `None`: `outbound` is held by the caller.
            Some(kind) = queued.recv() => send(&up, kind).await?,
            changed = reports.changed() => {
                if changed.is_err() {
                    return Err(LinkError::Ended);
                }
                let mut report = reports.borrow_and_update().clone();
                // Read less often than reports go out: sent once each.
                let read_ms = report.host.as_ref().map(|host| host.read_unix_ms);
                if read_ms == host_told_ms {
                    report.host = None;
                }
                host_told_ms = read_ms.or(host_told_ms);
                send(&up, agent_message::Kind::Report(report)).await?;
            }
        }
    }
}

/// Hands a message to the connection. One that takes none for long is stuck.
async fn send(
    up: &mpsc::Sender<wire::AgentMessage>,
    kind: agent_message::Kind,
) -> Result<(), LinkError> {
    let sent = up.send_timeout(wire::AgentMessage { kind: Some(kind) }, WELCOME_TIMEOUT).await;
    sent.map_err(|_| LinkError::Ended)
}

/// Carries out what a node said, without keeping the connection waiting.
fn obey(shared: &Shared, kind: node_message::Kind, outbound: &mpsc::Sender<agent_message::Kind>) {
    let host = Arc::clone(&shared.host);
    match kind {
        node_message::Kind::Welcome(_) => {}
        node_message::Kind::Declaration(declaration) => {
            tokio::spawn(host.declare(declaration));
        }
        node_message::Kind::Order(order) => {
            let Ok(permit) = Arc::clone(&shared.orders).try_acquire_owned() else {
                let busy = ActError::retryable("nothing was done: the agent has too many orders");
                return answer(outbound, outcome(&order, orders::failed(&busy)));
            };
            let outbound = outbound.clone();
            let acting = host.order(order.clone());
            tokio::spawn(async move {
                let result = acting.await;
                drop(permit);
                if let Some(result) = result {
                    answer(&outbound, outcome(&order, result));
                }
            });
        }
        node_message::Kind::Query(query) => {
            let Ok(permit) = Arc::clone(&shared.orders).try_acquire_owned() else {
                tracing::warn!(key = query.key, "too many orders under way: a query is dropped");
                return;
            };
            let outbound = outbound.clone();
            let asking = host.query(query);
            tokio::spawn(async move {
                let found = asking.await;
                drop(permit);
                if let Some(found) = found {
                    answer(&outbound, agent_message::Kind::Answer(found));
                }
            });
        }
    }
}

fn outcome(order: &wire::Order, result: wire::Result) -> agent_message::Kind {
    agent_message::Kind::Outcome(wire::OrderOutcome {
        key: order.key.clone(),
        fence: order.fence,
        attempt: order.attempt,
        result: Some(result),
    })
}

/// Queues an answer for this connection or the next. Lost when the queue is full: the journal has it.
fn answer(outbound: &mpsc::Sender<agent_message::Kind>, kind: agent_message::Kind) {
    if outbound.try_send(kind).is_err() {
        tracing::warn!("an outcome is not sent: too many wait for this node; it can ask again");
    }
}
