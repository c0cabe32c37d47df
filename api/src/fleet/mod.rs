//! The node's side of the fleet: agents dial in, orders go down, reports and outcomes come up.
//!
//! ```text
//!   agent ──hello──► Connect ──► Session ──► sessions[agent]      order(), query() ──► Session
//!     ▲                │                                                                 │
//!     └─ Declaration ◄─┴─ declarations (built when Service manifests change)             │
//!        Order, Query ◄──────────────────────────────────────────────────────────────────┘
//!        Report ────────► seen[target]       Outcome, Answer ───► whoever waits, else `late`
//! ```
//!
//! Invariants: an agent is who its certificate says, and may speak only of instances that are
//! declared to run on it; one session per agent, the newest; every queue and map is bounded.
//! Deliberately absent: any decision about *what* to order or whether this node may. That is the
//! caller's; the agent refuses an old fence.

mod declaration;
mod marks;
mod serve;
mod session;
mod strange;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::{DashMap, mapref::entry::Entry};
use medic_proto::fleet::v1::{self as wire, query_answer};
use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{NodeId, rbac::Principal, symptom::Target};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use declaration::Declarations;
use prost::Message as _;
use session::{Session, lock};

/// How often an agent reports.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// An agent silent for so long is gone.
pub const SILENCE: Duration = Duration::from_secs(3);
/// Agents connected at a time.
const AGENTS_MAX: usize = 1_024;
/// Beyond an order's own timeout.
const GRACE: Duration = Duration::from_secs(1);
/// How long an order waits for its agent to be connected at all.
const CONNECT_GRACE: Duration = Duration::from_secs(1);
/// How long a query may take, reconnection and an act in flight included.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Outcomes that nobody waited for, and how long they are kept. The agent's journal keeps them too.
const LATE_MAX: usize = 1_024;
const LATE_KEPT: Duration = Duration::from_secs(600);
/// Bytes of one late outcome or of one instance's status; an honest one has some hundred. With the
/// bounds on their number, what agents can make a node remember is bounded.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Samples and bytes of what an agent says of its host, kept per agent; an honest one sends some 500.
const HOST_SAMPLES_MAX: usize = 1_024;
const HOST_BYTES_MAX: usize = 128 * 1024;
/// Manifests are looked at this often at most, however fast the log grows.
const DECLARE_EVERY: Duration = Duration::from_millis(100);

/// An order or query that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// The agent was not connected to this node: nothing was sent.
    #[error("the agent is not connected to this node; nothing was sent to it")]
    NotConnected,
    /// Too much is in flight to this agent: nothing was sent.
    #[error("too many orders are in flight to this agent; nothing was sent to it")]
    Busy,
    /// Sent, and the connection was lost for good: it may have been carried out or not.
    #[error("the connection to the agent was lost before its answer; ask again under the same key")]
    Lost,
    /// Sent, and no answer came in time: it may have been carried out or not.
    #[error("the agent did not answer in time; ask again under the same key")]
    TimedOut,
}

/// Finds who speaks in what the door put into the request.
type Identify = dyn Fn(&tonic::Extensions) -> Result<Principal, tonic::Status> + Send + Sync;

/// An outcome that nobody waited for, and who said it.
struct Late {
    at: Instant,
    agent: String,
    outcome: wire::OrderOutcome,
}

/// All agents that are connected to this node.
pub struct FleetHub {
    node: NodeId,
    cluster_id: String,
    ledger: Arc<dyn Ledger>,
    identify: Box<Identify>,
    /// Read by every probe, order and report at once: one lock per shard of the map. A guard is
    /// never held across an await, nor while another is taken.
    sessions: DashMap<String, Arc<Session>>,
    /// Changes whenever a session comes or goes.
    changed: watch::Sender<u64>,
    seen: DashMap<Target, (wire::InstanceStatus, Instant)>,
    /// What connected agents say of their hosts, by agent: each speaks for its own alone.
    hosts: DashMap<String, (Arc<wire::HostStatus>, Instant)>,
    declarations: Mutex<Arc<Declarations>>,
    late: Mutex<VecDeque<Late>>,
    strange: strange::Strange,
    serial: AtomicU64,
    /// What the hub does by itself, until somebody watches over it.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl std::fmt::Debug for FleetHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetHub").field("node", &self.node).finish_non_exhaustive()
    }
}

impl FleetHub {
    /// A hub whose door puts a [`Principal`] into the request's extensions.
    /// Must be called within a tokio runtime; its tasks end when the hub is dropped.
    #[must_use]
    pub fn new(node: NodeId, cluster_id: String, ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Self::with_identify(node, cluster_id, ledger, |extensions| {
            extensions.get::<Principal>().cloned().ok_or_else(|| {
                tonic::Status::unauthenticated("no client certificate: use mutual TLS")
            })
        })
    }

    /// The cluster it belongs to.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// A hub with its own way to tell who speaks.
    #[must_use]
    pub fn with_identify(
        node: NodeId,
        cluster_id: String,
        ledger: Arc<dyn Ledger>,
        identify: impl Fn(&tonic::Extensions) -> Result<Principal, tonic::Status>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        let hub = Arc::new(Self {
            node,
            cluster_id,
            ledger,
            identify: Box::new(identify),
            sessions: DashMap::new(),
            changed: watch::Sender::new(0),
            seen: DashMap::new(),
            hosts: DashMap::new(),
            declarations: Mutex::default(),
            late: Mutex::default(),
            strange: strange::Strange::default(),
            serial: AtomicU64::new(0),
            tasks: Mutex::default(),
        });
        hub.refresh_declarations();
        let mut tasks = JoinSet::new();
        tasks.spawn(Self::keep_declared(Arc::downgrade(&hub), hub.ledger.applied()));
        tasks.spawn(marks::keep_marked(Arc::downgrade(&hub)));
        *lock(&hub.tasks) = Some(tasks);
        hub
    }

    /// Watches over what the hub does by itself, until the hub is dropped.
    ///
    /// # Errors
    /// When one of its tasks panicked: agents would go on with old declarations, and the law with old
    /// marks, while the node looks well.
    pub async fn watch_over(hub: Arc<Self>) -> Result<(), tokio::task::JoinError> {
        let tasks = lock(&hub.tasks).take();
        drop(hub);
        let mut tasks = tasks.unwrap_or_default();
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        Ok(())
    }

    /// Orders an act and waits for its outcome, for the order's timeout and a second.
    ///
    /// A connection that is lost meanwhile is waited for, and the same order sent again: its key
    /// makes that safe.
    ///
    /// # Errors
    /// When there is no outcome; the error says whether anything was sent.
    pub async fn order(&self, agent: &str, order: wire::Order) -> Result<wire::Result, FleetError> {
        let deadline = Instant::now() + Duration::from_millis(order.timeout_ms) + GRACE;
        self.ask(agent, deadline, |session| session.order(&order)).await
    }

    /// Asks what became of a key. Also raises the agent's fence, so that no older leader's order
    /// under any key can follow.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn query(
        &self,
        agent: &str,
        key: &str,
        fence: u64,
    ) -> Result<query_answer::Kind, FleetError> {
        let query = wire::Query { key: key.to_owned(), fence };
        let deadline = Instant::now() + QUERY_TIMEOUT;
        self.ask(agent, deadline, |session| session.query(&query)).await
    }

    async fn ask<T>(
        &self,
        agent: &str,
        deadline: Instant,
        send: impl Fn(&Session) -> Result<oneshot::Receiver<T>, FleetError>,
    ) -> Result<T, FleetError> {
        let mut sent = false;
        loop {
            let patience =
                if sent { deadline } else { deadline.min(Instant::now() + CONNECT_GRACE) };
            let Some(session) = self.session(agent, patience).await else {
                return Err(if sent { FleetError::Lost } else { FleetError::NotConnected });
            };
            medic_raft::crash_point!("fleet_before_send");
            let answer = match send(&session) {
                Ok(answer) => answer,
                Err(FleetError::Busy) => {
                    return Err(if sent { FleetError::Lost } else { FleetError::Busy });
                }
                Err(_) => {
                    self.depart(&session);
                    continue;
                }
            };
            sent = true;
            medic_raft::crash_point!("fleet_after_send");
            match timeout_at(deadline, answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                // Lost with its session: wait for the next one.
                Ok(Err(_)) => self.depart(&session),
                Err(_) => return Err(FleetError::TimedOut),
            }
        }
    }

    /// The agent's session, waiting for one until `deadline`.
    async fn session(&self, agent: &str, deadline: Instant) -> Option<Arc<Session>> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(session) = self.sessions.get(agent).map(|found| Arc::clone(&found)) {
                return Some(session);
            }
            if !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return None;
            }
        }
    }

    /// An outcome that came after its order had been given up, as told by the agent that was ordered:
    /// another's word about this key counts for nothing.
    #[must_use]
    pub fn late_outcome(&self, agent: &str, key: &str) -> Option<wire::OrderOutcome> {
        let late = lock(&self.late);
        let theirs = |late: &&Late| late.agent == agent && late.outcome.key == key;
        late.iter().rev().find(theirs).map(|late| late.outcome.clone())
    }

    /// What was last reported about an instance, and how long ago by this node's monotonic clock.
    #[must_use]
    pub fn status(&self, target: &Target) -> Option<(wire::InstanceStatus, Duration)> {
        self.seen.get(target).map(|seen| (seen.0.clone(), seen.1.elapsed()))
    }

    /// Whether the agent is connected to this node and was heard within [`SILENCE`].
    #[must_use]
    pub fn connected(&self, agent: &str) -> bool {
        self.sessions.contains_key(agent)
    }

    /// Names of all connected agents, sorted.
    #[must_use]
    pub fn agents(&self) -> Vec<String> {
        self.sessions().into_iter().map(|session| session.agent.clone()).collect()
    }

    /// All sessions, by the agents' names: what follows from them must not depend on hashes.
    fn sessions(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self.sessions.iter().map(|found| Arc::clone(found.value())).collect();
        all.sort_by(|a, b| a.agent.cmp(&b.agent));
        all
    }

    /// Lets an agent in; its earlier session, if any, ends.
    fn admit(&self, session: Session) -> Result<Arc<Session>, tonic::Status> {
        let session = Arc::new(session);
        // Counted before: the map must not be asked for its size while one of its guards is held.
        let full = self.sessions.len() >= AGENTS_MAX;
        let replaced = match self.sessions.entry(session.agent.clone()) {
            Entry::Occupied(mut taken) => Some(taken.insert(Arc::clone(&session))),
            Entry::Vacant(_) if full => {
                let full = format!("{AGENTS_MAX} agents are connected to this node already");
                return Err(tonic::Status::resource_exhausted(full));
            }
            Entry::Vacant(free) => {
                free.insert(Arc::clone(&session));
                None
            }
        };
        if let Some(replaced) = replaced {
            tracing::info!(agent = session.agent, "a newer connection replaces the agent's last");
            replaced.close();
        }
        self.changed.send_modify(|count| *count += 1);
        Ok(session)
    }

    /// Forgets a session, unless a newer one has replaced it.
    fn depart(&self, session: &Session) {
        session.close();
        let own = |_: &String, now: &Arc<Session>| now.serial == session.serial;
        if self.sessions.remove_if(&session.agent, own).is_some() {
            self.hosts.remove(&session.agent);
            tracing::info!(agent = session.agent, "agent disconnected");
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// What a connected agent last said of its host, and how long ago by this node's monotonic clock.
    #[must_use]
    pub fn host(&self, agent: &str) -> Option<(Arc<wire::HostStatus>, Duration)> {
        self.hosts.get(agent).map(|told| (Arc::clone(&told.0), told.1.elapsed()))
    }

    fn host_reported(&self, agent: &str, host: wire::HostStatus) {
        let (samples, bytes) = (host.samples.len(), host.encoded_len());
        if samples > HOST_SAMPLES_MAX || bytes > HOST_BYTES_MAX {
            tracing::warn!(
                agent,
                samples,
                bytes,
                "what it says of its host is left out: more than {HOST_SAMPLES_MAX} samples or {HOST_BYTES_MAX} bytes"
            );
            return;
        }
        // Whoever has gone meanwhile is forgotten, and stays so.
        if self.sessions.contains_key(agent) {
            self.hosts.insert(agent.to_owned(), (Arc::new(host), Instant::now()));
        }
    }

    /// Takes a report in; instances that are not this agent's are left out.
    fn reported(&self, agent: &str, report: wire::Report) {
        if let Some(host) = report.host {
            self.host_reported(agent, host);
        }
        let declarations = Arc::clone(&lock(&self.declarations));
        let now = Instant::now();
        for status in report.instances {
            let Some(key) = &status.key else { continue };
            let target = target_of(key);
            if !declarations.runs(agent, &target) {
                self.strange.note(agent, &target);
                continue;
            }
            let bytes = status.encoded_len();
            if bytes > KEPT_BYTES_MAX {
                tracing::warn!(agent, %target, bytes, "a status above {KEPT_BYTES_MAX} bytes is left out");
                continue;
            }
            self.seen.insert(target, (status, now));
        }
    }

    fn keep_late(&self, agent: &str, outcome: wire::OrderOutcome) {
        let bytes = outcome.encoded_len();
        if bytes > KEPT_BYTES_MAX {
            tracing::warn!(agent, bytes, "a late outcome above {KEPT_BYTES_MAX} bytes is not kept");
            return;
        }
        let at = Instant::now();
        let mut late = lock(&self.late);
        while late.len() >= LATE_MAX
            || late.front().is_some_and(|late| at.duration_since(late.at) > LATE_KEPT)
        {
            late.pop_front();
        }
        late.push_back(Late { at, agent: agent.to_owned(), outcome });
    }

    /// Builds the declarations anew if Service manifests changed, and tells the agents concerned.
    fn refresh_declarations(&self) {
        let known = lock(&self.declarations).stamp;
        let built = self
            .ledger
            .read(|state| (declaration::stamp(state) != known).then(|| declaration::build(state)));
        let Some(built) = built.map(Arc::new) else { return };
        *lock(&self.declarations) = Arc::clone(&built);
        self.seen.retain(|target, _| built.anybody_runs(target));
        for session in self.sessions() {
            self.declare_to(&session);
        }
    }

    /// Tells one agent what it runs, unless it knows. Before the first entry is applied here,
    /// nothing is known, which is not the same as "nothing is declared".
    fn declare_to(&self, session: &Session) {
        let Some(declarations) = self.declarations() else { return };
        let (declaration, digest) = declarations.for_agent(&session.agent);
        session.declare(declaration, digest);
    }

    /// What is declared, as of the index it says: an agent that took an older content under a newer
    /// index would refuse what came after. So the two are always read at once.
    fn declarations(&self) -> Option<Arc<Declarations>> {
        let known = Arc::clone(&lock(&self.declarations));
        if known.index > 0 {
            return Some(known);
        }
        let built =
            self.ledger.read(|state| (state.applied > 0).then(|| declaration::build(state)));
        let built = Arc::new(built?);
        let mut declarations = lock(&self.declarations);
        if declarations.index == 0 {
            *declarations = built;
        }
        Some(Arc::clone(&declarations))
    }

    async fn keep_declared(hub: Weak<Self>, mut applied: watch::Receiver<u64>) {
        let mut every = tokio::time::interval(DECLARE_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while applied.changed().await.is_ok() {
            every.tick().await;
            applied.mark_unchanged();
            let Some(hub) = hub.upgrade() else { return };
            hub.refresh_declarations();
        }
    }
}

fn target_of(key: &wire::InstanceKey) -> Target {
    Target {
        tenant: key.tenant.clone(),
        service: key.service.clone(),
        instance: key.instance.clone(),
    }
}
