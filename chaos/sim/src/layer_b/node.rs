//! One whole node: real consensus over a simulated disk, real doors over the simulated network, the
//! real hub, desk, driver, shard controller and detection. What a crash leaves is its disk.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use medic_api::{
    control,
    door::{Limits, node_identity, serve_admitted},
    fleet::FleetHub,
};
use medic_node::{
    action::{
        Leader, LeaderConfig,
        backends::{FleetWorld, HubView},
        shards::{self, ShardsConfig},
    },
    detection::{
        Observer, Runtime,
        predict::forecast::{Horizons, Opens},
        runtime::Timings,
    },
};
use medic_raft::{
    ClusterAdmin, Config, Consensus, Ledger, LedgerExt as _,
    store::{Ground, WriterMode},
};
use medic_state::{
    CLUSTER_VERSION, Command, Millis, NodeId, TraceId,
    command::{ApplyManifest, RegisterNode},
    manifest::Manifest,
    rbac::Principal,
};
use tokio::{sync::Notify, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Stage,
    disk::SimDisk,
    hands::{Eyes, Hands},
    marks::Mark,
    net::{API, CLUSTER, Dialler, PEER, api_addr, listen, peer_addr},
    oracle::Onlooker,
};
use crate::{
    clock::{SkewedClock, env},
    history::{What, lock},
    rng::Rng,
};

/// Entries between two snapshots: as in production a number of entries, only smaller.
const SNAPSHOT_EVERY: u64 = 20;
/// Between two tries of what must succeed in the end.
const RETRY: Duration = Duration::from_millis(300);

/// Where a node lives: what of it survives its processes.
pub(super) struct Site {
    pub(super) id: NodeId,
    pub(super) clock: Arc<SkewedClock>,
    pub(super) disk: Mutex<Arc<SimDisk>>,
    /// Chance of its incarnations.
    pub(super) rng: Mutex<Rng>,
    /// The process that runs, if one does.
    pub(super) process: Mutex<Option<Arc<Consensus>>>,
    /// The process wants to end: its disk has failed.
    pub(super) over: AtomicBool,
    /// A snapshot is wanted.
    pub(super) snapshot: Notify,
    /// Whether a process of it has ever run.
    begun: AtomicBool,
    /// Whether it is among those who found the cluster.
    founds: bool,
    /// Its log is damaged: it must not start again.
    pub(super) rotten: AtomicBool,
}

impl Site {
    pub(super) fn new(id: NodeId, seed: u64, clock: Arc<SkewedClock>, founds: bool) -> Arc<Self> {
        let rng = Mutex::new(Rng::new(seed, &format!("node {id}")));
        Arc::new(Self {
            id,
            clock,
            disk: Mutex::new(SimDisk::new()),
            rng,
            process: Mutex::default(),
            over: AtomicBool::new(false),
            snapshot: Notify::new(),
            begun: AtomicBool::new(false),
            founds,
            rotten: AtomicBool::new(false),
        })
    }

    /// Whether a process of it has ever run.
    pub(super) fn begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// The process that runs.
    pub(super) fn consensus(&self) -> Option<Arc<Consensus>> {
        lock(&self.process).clone()
    }
}

/// Runs one incarnation; it never ends by itself.
pub(super) async fn live(stage: Arc<Stage>, site: Arc<Site>) {
    site.over.store(false, Ordering::Release);
    site.begun.store(true, Ordering::Release);
    let node = site.id;
    if let Err(error) = begin(&stage, &site).await {
        if site.rotten.load(Ordering::Acquire) {
            stage.trace(format_args!("{node} does not start: {error:#}"));
            stage.oracle.marks.reached(Mark::LogDamaged);
        } else {
            stage.oracle.wrong(14, "start", format!("{node} does not start: {error:#}"));
        }
    }
    std::future::pending::<()>().await;
}

async fn begin(stage: &Arc<Stage>, site: &Arc<Site>) -> anyhow::Result<()> {
    let node = site.id;
    let env = env(site.clock.clone(), &mut lock(&site.rng));
    let disk = lock(&site.disk).clone();
    let mut config = Config::new(node, CLUSTER, "", stage.founders.clone());
    config.peer_addr = peer_addr(node);
    config.bootstrap = site.founds;
    config.snapshot_every = SNAPSHOT_EVERY;
    let witness = Onlooker::new(stage.oracle.clone(), node);
    let ground = Ground { disk: disk.clone(), mode: WriterMode::Task, witness: Some(witness) };
    let (peers, calls) = (listen(PEER).await?, listen(API).await?);
    let dialler = Arc::new(Dialler(Principal::node(node)));
    let consensus = Consensus::start_on(config, env, dialler, ground).await?;
    if disk.set_aside() {
        stage.oracle.marks.reached(Mark::SnapshotDamaged);
    }
    if site.rotten.load(Ordering::Acquire) {
        stage.oracle.wrong(7, "start", format!("{node} started on a damaged log"));
    }
    *lock(&site.process) = Some(consensus.clone());
    let ledger: Arc<dyn Ledger> = consensus.clone();
    let admin: Arc<dyn ClusterAdmin> = consensus.clone();
    let stop = CancellationToken::new();
    let hub = FleetHub::new(node, CLUSTER.to_owned(), ledger.clone());

    let mut parts = JoinSet::new();
    let routes = consensus.peer_routes(Arc::new(node_identity));
    let never = std::future::pending::<()>;
    let (limits, ended) = (Limits::default(), stop.clone());
    parts.spawn(async move {
        drop(serve_admitted("peer", peers, routes, limits, ended, never()).await);
    });
    let nothing = control::Views::default();
    let routes = control::routes(ledger.clone(), admin.clone(), Some(&hub), nothing).await?.routes;
    let ended = stop.clone();
    parts.spawn(async move {
        drop(serve_admitted("api", calls, routes, limits, ended, never()).await);
    });
    parts.spawn(register(ledger.clone()));
    parts.spawn(watch_office(stage.clone(), ledger.clone()));
    parts.spawn(declare(ledger.clone(), stage.declared.clone()));
    parts.spawn(serve_when_asked(stage.clone(), ledger.clone()));
    parts.spawn(snapshot_when_asked(site.clone(), consensus.clone()));

    let agents = HubView(hub.clone());
    let eyes = Arc::new(Eyes { fleet: stage.fleet.clone(), node, agents });
    let timings = Timings {
        scrape: Millis::from_secs(5),
        process: Millis(1_000),
        lead: Millis::from_secs(600),
        opens: Opens::default(),
        horizons: Horizons::default(),
    };
    let _watching = Runtime::spawn_with(ledger.clone(), eyes.clone(), timings, stop.clone());
    let observer = Observer::with(eyes, ledger.env().clone());
    let hands = Arc::new(Hands {
        below: FleetWorld::with(hub, ledger.clone(), observer),
        ledger: ledger.clone(),
        fleet: stage.fleet.clone(),
        oracle: stage.oracle.clone(),
        reach: stage.reach.clone(),
    });
    let leader = Leader::new(ledger.clone(), hands, LeaderConfig::default());
    parts.spawn(leader.run(stop.clone()));
    parts.spawn(shards::run(ledger, admin, ShardsConfig::default(), stop.clone()));

    let mut fatal = consensus.fatal();
    let reason = fatal.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    stage.trace(format_args!("{node} ends: {}", reason.unwrap_or_default()));
    site.over.store(true, Ordering::Release);
    std::future::pending::<()>().await;
    Ok(())
}

/// What a node says of itself when it starts.
async fn register(ledger: Arc<dyn Ledger>) {
    let node = ledger.node();
    let command = Command::RegisterNode(RegisterNode {
        node,
        region: String::new(),
        api_addr: api_addr(node),
        boot: ledger.boot(),
        version: "sim".to_owned(),
        understands: Some(CLUSTER_VERSION),
        weight: None,
    });
    while ledger.propose(ledger.entry(TraceId::default(), command.clone())).await.is_err() {
        sleep(RETRY).await;
    }
}

/// Writes down when this node takes office.
async fn watch_office(stage: Arc<Stage>, ledger: Arc<dyn Ledger>) {
    let (node, mut leadership, mut led) = (ledger.node(), ledger.leadership(), None);
    loop {
        let now = *leadership.borrow_and_update();
        if now.me {
            lock(&stage.leads).insert(node);
        } else {
            lock(&stage.leads).remove(&node);
        }
        if now.me && led != Some(now.term) {
            led = Some(now.term);
            stage.trace(format_args!("{node} leads in term {}", now.term));
            stage.oracle.marks.reached(Mark::Elected);
            stage.oracle.recorder.happened(What::Elected { node, term: now.term });
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Declares the fleet, as an operator would: whoever leads does, until all is there.
async fn declare(ledger: Arc<dyn Ledger>, declared: Arc<Vec<Manifest>>) {
    let mut leadership = ledger.leadership();
    loop {
        if leadership.wait_for(|now| now.me).await.is_err() {
            return;
        }
        let node = ledger.node();
        for manifest in declared.iter() {
            if ledger.read(|state| state.manifests.contains_key(&manifest.key())) {
                continue;
            }
            let by = if manifest.metadata.tenant == "*" {
                Principal::node(node)
            } else {
                Principal::user("root")
            };
            let apply = ApplyManifest { manifest: manifest.clone(), expected: None };
            let entry = ledger.entry_for(by, None, Command::ApplyManifest(Box::new(apply)));
            if ledger.propose_as_leader(entry).await.is_err() {
                break;
            }
        }
        let all = declared
            .iter()
            .all(|one| ledger.read(|state| state.manifests.contains_key(&one.key())));
        if all {
            return;
        }
        sleep(RETRY).await;
    }
}

/// After the faults: a read and a write, as any client would ask for them.
async fn serve_when_asked(stage: Arc<Stage>, ledger: Arc<dyn Ledger>) {
    while !stage.asked.load(Ordering::Acquire) {
        sleep(Duration::from_millis(100)).await;
    }
    loop {
        let entry = ledger.entry(TraceId::default(), Command::Tick);
        if ledger.propose(entry).await.is_ok() && ledger.linearize().await.is_ok() {
            lock(&stage.serves).insert(ledger.node());
            return;
        }
        sleep(RETRY).await;
    }
}

async fn snapshot_when_asked(site: Arc<Site>, consensus: Arc<Consensus>) {
    loop {
        site.snapshot.notified().await;
        consensus.trigger_snapshot().await;
    }
}

/// Founders by their peer addresses.
pub(super) fn founders(size: u64) -> BTreeMap<NodeId, String> {
    (1..=size).map(NodeId).map(|node| (node, peer_addr(node))).collect()
}
