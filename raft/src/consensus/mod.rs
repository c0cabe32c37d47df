//! The replicated law: the [`Ledger`](crate::Ledger) of production.
//!
//! ```text
//!   propose ─► leader here? ─ yes ─► Core ─► openraft ─► Store
//!                  │ no                          ▲
//!                  └─► forward to the leader ────┘ (the peer's Core)
//! ```
//!
//! Invariants: an error says whether the entry may have been committed; a read waits for the read
//! index; a node whose disk failed serves nothing. Absent on purpose: fences and everything else
//! that a leader proposes in its own name.

mod core;
mod ledger;
mod members;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use medic_proto::peer::v1::{admin_request::Operation, peer_server::PeerServer};
use medic_state::{BootId, NodeId};
use openraft::{
    SnapshotPolicy, StepDownPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{Fatal, InitializeError, RaftError},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::service::Routes;

pub(crate) use self::core::Core;
use crate::{
    clock::LawClock,
    config::{Config, MAX_MESSAGE_BYTES, StartError},
    env::Env,
    ledger::{ClusterAdmin as _, Leadership, LedgerError, LedgerExt as _},
    metrics::Metric,
    network::{Caller, IdentityCheck, Lane, Links, PeerConnector, PeerService, Pool},
    parcel::{Inboxes, Parcel, ParcelKind},
    store::{Births, FatalFlag, Ground, RocksDisk, Store, StoreOptions, WriterMode},
    types::{PeerNode, Raft},
};

/// How long the other founders wait for the first one to found the cluster.
const FOUNDING_PATIENCE: Duration = Duration::from_secs(2);
/// Ending openraft's tasks; a hung disk must not keep the process alive.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// A running member of the cluster.
pub struct Consensus {
    pub(super) core: Arc<Core>,
    pub(super) caller: Arc<Caller>,
    pub(super) leadership: watch::Sender<Leadership>,
    store: Store,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("node", &self.core.me()).finish_non_exhaustive()
    }
}

impl Consensus {
    /// Opens the data directory and takes part in consensus. Serve [`Self::peer_routes`] on the
    /// peer address right after.
    ///
    /// # Errors
    /// When the configuration or the data directory is not fit; each message says what to do.
    pub async fn start(
        config: Config,
        env: Env,
        connector: Arc<dyn PeerConnector>,
    ) -> Result<Arc<Self>, StartError> {
        config.check()?;
        let disk = Arc::new(RocksDisk::open(&config.data_dir)?);
        Self::start_on(config, env, connector, Ground::new(disk, WriterMode::Thread)).await
    }

    /// Like [`Self::start`], on any ground.
    ///
    /// # Errors
    /// When the configuration or what is on the disk is not fit.
    pub async fn start_on(
        config: Config,
        env: Env,
        connector: Arc<dyn PeerConnector>,
        ground: Ground,
    ) -> Result<Arc<Self>, StartError> {
        config.check()?;
        let Ground { disk, mode, witness } = ground;
        let options = StoreOptions {
            node_id: config.node_id,
            cluster_id: config.cluster_id.clone(),
            fsync_deadline: config.timing.fsync_deadline,
            mode,
            witness,
        };
        let store = Store::open(disk, &options).await?;
        let pristine = store.log.pristine();
        let boot = BootId(env.entropy.next_u64());
        let births = match store.born(boot).await {
            Ok(births) => births,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let caller = Arc::new(Caller {
            pool: Pool::new(connector),
            cluster: config.cluster_id.clone(),
            me: config.node_id,
            boot,
            timing: config.timing,
            shared: store.machine.shared.clone(),
        });
        let links = Links { caller: caller.clone(), records: store.machine.records.clone() };
        let settings = Arc::new(openraft_config(&config, pristine)?);
        let (log, machine) = (store.log.clone(), store.machine.clone());
        let raft = match Raft::new(config.node_id.0, settings, links, log, machine).await {
            Ok(raft) => raft,
            Err(error) => {
                store.close().await;
                return Err(StartError::Raft(error.to_string()));
            }
        };
        let quiet_until = (!pristine).then(|| Instant::now() + config.timing.election_max);
        let law = store.machine.shared.state.read().unwrap_or_else(PoisonError::into_inner).now;
        let core = Arc::new(Core {
            boot,
            clock: LawClock::start(env.clock.clone(), law),
            env,
            raft,
            shared: store.machine.shared.clone(),
            records: store.machine.records.clone(),
            fatal: store.fatal.clone(),
            stopping: AtomicBool::new(false),
            quiet_until,
            births,
            lease_void: AtomicU64::new(0),
            admin: tokio::sync::Mutex::new(()),
            inboxes: Inboxes::default(),
            config,
        });
        let leadership = watch::Sender::new(Leadership::default());
        let this =
            Arc::new(Self { core, caller, leadership, store, tasks: Mutex::new(Vec::new()) });
        this.spawn(watch_leadership(this.core.clone(), this.leadership.clone()));
        this.spawn(watch_raft(this.core.clone()));
        this.spawn(watch_fatal(this.core.clone(), this.leadership.clone()));
        if let Some(until) = quiet_until {
            let core = this.core.clone();
            this.spawn(async move {
                tokio::time::sleep_until(until).await;
                core.raft.runtime_config().elect(true);
            });
        }
        if let Some(births) = this.core.births.clone() {
            this.spawn(watch_identity(this.core.clone(), births));
        }
        if pristine && this.core.config.bootstrap {
            this.spawn(found(this.core.clone()));
        }
        Ok(this)
    }

    /// What the peer port serves. `identity` says which node a connection belongs to, from what
    /// the transport verified; `None` from it means that nothing was verified.
    #[must_use]
    pub fn peer_routes(&self, identity: Arc<IdentityCheck>) -> Routes {
        let service = PeerServer::new(PeerService::new(self.core.clone(), identity))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Routes::new(service)
    }

    /// A channel to another member's peer port, for what is not consensus: telemetry, say. It shares
    /// no connection with consensus.
    ///
    /// # Errors
    /// When it is no member, or its address is none.
    pub async fn peer_channel(
        &self,
        node: NodeId,
    ) -> Result<tonic::transport::Channel, LedgerError> {
        let members = self.status().members;
        let Some(member) = members.into_iter().find(|member| member.node == node) else {
            return Err(LedgerError::Unavailable(format!("{node} is not a member")));
        };
        let channel = self.caller.pool.get(node, &member.peer_addr, Lane::Other).await;
        channel.map_err(|error| LedgerError::Unavailable(error.to_string()))
    }

    /// Set once this node can no longer serve: the process should say so and exit.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.core.fatal.watch()
    }

    /// Takes the node out by hand: used when something above consensus finds that it must not go on.
    #[must_use]
    pub fn fatal_flag(&self) -> FatalFlag {
        self.core.fatal.clone()
    }

    /// Connects to the peers anew from now on: after the certificates have changed.
    pub fn refresh_connections(&self) {
        self.caller.pool.clear();
    }

    /// Opens the inbox for parcels of a kind; one that was open before is closed.
    #[must_use]
    pub fn open_inbox(&self, kind: ParcelKind) -> mpsc::Receiver<Parcel> {
        self.core.inboxes.open(kind)
    }

    /// Takes a snapshot now, without waiting for it.
    pub async fn trigger_snapshot(&self) {
        if let Err(error) = self.core.raft.trigger().snapshot().await {
            tracing::warn!(%error, "no snapshot");
        }
    }

    /// Hands leadership, where this node has it, to the voter that has come furthest, of those that
    /// are not drained where there are any, so that a node that leaves costs no election timeout. Gives the new leader; `None`: nothing to hand
    /// over. Ends within some six times `election_max`, the acts' lease included.
    ///
    /// # Errors
    /// When nobody is there to take it, or did.
    pub async fn hand_over(&self) -> Result<Option<NodeId>, LedgerError> {
        let status = self.status();
        if !status.leadership.me {
            return Ok(None);
        }
        let patience = self.core.config.timing.election_max;
        let heard =
            |silent: Option<u64>| silent.is_some_and(|ms| Duration::from_millis(ms) < patience);
        // One that is drained, or about to stop itself, would hand it on again.
        let stays =
            |node| self.read(|state| state.nodes.get(&node).is_some_and(|node| node.stays()));
        let heir = status
            .members
            .iter()
            .filter(|member| {
                member.voter && member.node != self.core.me() && heard(member.silent_ms)
            })
            .max_by_key(|member| (stays(member.node), member.matched));
        let Some(heir) = heir else {
            return Err(LedgerError::Refused("no other voter can be heard".to_owned()));
        };
        self.core.administer(Operation::Transfer(heir.node.0)).await?;
        Ok(Some(heir.node))
    }

    /// Ends all tasks and lets go of the data directory.
    pub async fn shutdown(&self) {
        self.core.stopping.store(true, Ordering::Release);
        self.leadership.send_modify(|now| now.me = false);
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        if timeout(SHUTDOWN_DEADLINE, self.core.raft.shutdown()).await.is_err() {
            tracing::warn!("consensus did not end in time");
        }
        self.caller.pool.clear();
        if timeout(SHUTDOWN_DEADLINE, self.store.close()).await.is_err() {
            tracing::warn!("the log writer did not end in time");
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }
}

fn openraft_config(config: &Config, pristine: bool) -> Result<openraft::Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let t = &config.timing;
    let settings = openraft::Config {
        cluster_name: config.cluster_id.clone(),
        heartbeat_interval: millis(t.heartbeat),
        election_timeout_min: millis(t.election_min),
        election_timeout_max: millis(t.election_max),
        install_snapshot_timeout: millis(t.snapshot_deadline),
        max_payload_entries: 512,
        max_append_entries: Some(512),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every),
        // As many entries stay behind a snapshot as lie between two: if the newest snapshot is
        // damaged, the one before it and the log still give the state.
        max_in_snapshot_log_to_keep: config.snapshot_every + config.snapshot_every / 4,
        purge_batch_size: 64,
        replication_lag_threshold: config.snapshot_every * 3,
        // A restarted node waits out the lease it may have promised: see `Core::may_vote`.
        enable_elect: pristine,
        enable_pre_vote: Some(true),
        // Term and node would not tell two incarnations of a process apart.
        enable_leader_restore: Some(false),
        // A follower that came back with an older copy of its data, or none, must not bring its leader
        // down. With none it takes itself out (see `watch_identity`); a copy is caught up.
        allow_log_reversion: Some(true),
        // Acts admitted under the lease end before another may lead.
        removed_leader_step_down: StepDownPolicy::After(millis(t.election_max)),
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..openraft::Config::default()
    };
    settings.validate().map_err(|error| StartError::Config(error.to_string()))
}

/// Founds the cluster: the first of the founders at once, the others if it does not.
async fn found(core: Arc<Core>) {
    let config = &core.config;
    let members: BTreeMap<u64, PeerNode> = config
        .members
        .iter()
        .map(|(node, addr)| (node.0, PeerNode { peer_addr: addr.clone() }))
        .collect();
    let first = members.first_key_value().map(|(node, _)| *node) == Some(core.me().0);
    if !first {
        let mut metrics = core.raft.server_metrics();
        let joined = async {
            while metrics.borrow_watched().membership_config.nodes().next().is_none() {
                if metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        if timeout(FOUNDING_PATIENCE, joined).await.is_ok() {
            return;
        }
    }
    match core.raft.initialize(members).await {
        Ok(()) => tracing::info!("the cluster is founded"),
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
        Err(error) => core.fatal.set(format!("the cluster cannot be founded: {error}")),
    }
}

async fn watch_leadership(core: Arc<Core>, leadership: watch::Sender<Leadership>) {
    let mut metrics = core.raft.server_metrics();
    loop {
        let now = {
            let now = metrics.borrow_watched();
            Leadership {
                leader: now.current_leader.map(medic_state::NodeId),
                term: now.vote.leader_id.term,
                // One that is out leads nobody, whatever openraft's last word was.
                me: now.current_leader == Some(now.id)
                    && now.state.is_leader()
                    && core.alive().is_ok(),
            }
        };
        Metric::Term.set(now.term);
        Metric::Leader.set(now.me.into());
        leadership.send_if_modified(|last| {
            let changed = *last != now;
            if now.leader.is_some() && now.leader != last.leader {
                Metric::LeaderChanges.add();
            }
            *last = now;
            changed
        });
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the cluster has registered this node: then its directory is an old one, or there was
/// another one before it (see [`Core::recognise`]; peers that know say so sooner).
async fn watch_identity(core: Arc<Core>, births: Births) {
    let mut applied = core.shared.applied.subscribe();
    let registered = loop {
        if let Some(boot) = core.shared.registered_boot(core.me()) {
            break boot;
        }
        if applied.changed().await.is_err() {
            return;
        }
    };
    if core.recognise(registered).is_ok()
        && let Err(error) = births.confirm().await
    {
        tracing::warn!(%error, "the directory is not noted as confirmed; next time");
    }
}

/// Takes the node out when openraft has ended by itself.
async fn watch_raft(core: Arc<Core>) {
    let mut metrics = core.raft.metrics();
    loop {
        let state = metrics.borrow_watched().running_state.clone();
        match state {
            Ok(()) => {}
            Err(Fatal::Stopped) if core.stopping.load(Ordering::Acquire) => return,
            Err(error) => {
                core.fatal.set(format!("consensus has stopped: {error}"));
                return;
            }
        }
        if metrics.changed().await.is_err() {
            // openraft says goodbye when it is asked to end; gone without a word, it has panicked.
            if !core.stopping.load(Ordering::Acquire) {
                core.fatal.set("consensus has ended without being asked to; see the log for why");
            }
            return;
        }
    }
}

/// A node that is out must not stay leader by its heartbeats.
async fn watch_fatal(core: Arc<Core>, leadership: watch::Sender<Leadership>) {
    let mut fatal = core.fatal.watch();
    if fatal.wait_for(Option::is_some).await.is_err() {
        return;
    }
    leadership.send_modify(|now| now.me = false);
    core.raft.runtime_config().heartbeat(false);
    core.raft.runtime_config().elect(false);
    if timeout(SHUTDOWN_DEADLINE, core.raft.shutdown()).await.is_err() {
        tracing::warn!("consensus did not end in time");
    }
}
