//! `medic serve`: puts a node together, runs it, takes it apart.
//!
//! ```text
//!   config ─► TLS ─► consensus ─┬─ peer door      (nodes)
//!                               ├─ API door       control API, fleet service
//!                               ├─ HTTP door      metrics, health, alerts
//!                               ├─ detection      the shards this node owns
//!                               ├─ leader         decide, act, verify; only in office
//!                               └─ shards         who watches what; only in office
//! ```
//!
//! Every address is bound before anything else is touched: a port that is taken must not cost a
//! start. When consensus says that this node can no longer serve (its disk failed, say), the
//! process ends with that reason, so that whoever runs it knows, and another node leads.
//! Absent on purpose: anything that decides or acts; this room only connects the others.

mod doors;
mod leave;
mod register;
mod telemetry;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use medic_api::{control::Views, fleet::FleetHub};
use medic_raft::{
    ClusterAdmin, Consensus, Env, Ledger, ParcelKind, PeerConnector, TlsConnector,
    config::{Config, Timing},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    action::{
        Leader, LeaderConfig,
        backends::{FleetWorld, HubView},
        shards::{self, ShardsConfig},
    },
    config::NodeConfig,
    detection::{
        Foresight, Handover, HealthBook, Runtime, Sharing,
        foresight::Own,
        intake::{Fetcher, Hub, KubeWatch, PeerForward, kube::wire::Event},
        observe::{others::Others, peers::PeerLooks},
        share::Tells,
    },
    secrets::Secrets,
    security::{ReloadableTls, Unit},
};

/// How often certificate files are looked at: a renewed one is in force soon after.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(5);
/// Descriptors that a node may need: connections at their bounds, and the store's files.
const OPEN_FILES: u64 = 8_192;
/// Time the parts are given to end before the process ends without them.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Where `file_sd` files of Sources lie, and the variable that says so.
const DISCOVERY_FOLDER: &str = "/etc/medic/discovery";
const DISCOVERY_VARIABLE: &str = "MEDIC_DISCOVERY_DIR";

/// The tasks of a node; one that fails or panics ends it.
type Parts = JoinSet<anyhow::Result<()>>;

/// The addresses of a node, bound.
struct Sockets {
    api: TcpListener,
    peer: TcpListener,
    http: TcpListener,
}

impl Sockets {
    async fn bind(config: &NodeConfig) -> anyhow::Result<Self> {
        Ok(Self {
            api: bind("listen.api", config.listen.api).await?,
            peer: bind("listen.peer", config.listen.peer).await?,
            http: bind("listen.http", config.listen.http).await?,
        })
    }
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: choose another `{key}`, or stop what uses it")
    })
}

/// Runs a node until SIGTERM, SIGINT, or until it can no longer serve.
///
/// # Errors
/// When it cannot start, or had to stop: the message says why.
pub async fn run(config: NodeConfig, env: Env) -> anyhow::Result<()> {
    allow_open_files();
    let metrics = telemetry::install()?;
    let name = config.node.to_string();
    let now = env.clock.now();
    let tls = ReloadableTls::open(&config.tls, &config.cluster, Unit::Nodes, &name, now)?;
    let sockets = Sockets::bind(&config).await?;
    let consensus =
        Consensus::start(consensus_config(&config), env.clone(), connector(&tls)).await?;
    let ledger: Arc<dyn Ledger> = consensus.clone();
    let admin: Arc<dyn ClusterAdmin> = consensus.clone();
    let stop = CancellationToken::new();
    let hub = FleetHub::new(config.node, config.cluster.clone(), ledger.clone());
    tracing::info!(
        node = %config.node, cluster = config.cluster, version = env!("CARGO_PKG_VERSION"),
        api = %config.listen.api, peer = %config.listen.peer, http = %config.listen.http, "serving"
    );

    let mut parts: Parts = JoinSet::new();
    parts.spawn(Arc::clone(&tls).follow(env.clock.clone(), CERTIFICATES_EVERY).map(Ok));
    parts.spawn(renew_links(tls.clone(), consensus.clone()).map(Ok));
    parts.spawn(telemetry::upkeep(metrics.clone()).map(Ok));
    parts.spawn(register::register(ledger.clone(), config.clone()).map(Ok));
    parts.spawn(
        FleetHub::watch_over(hub.clone()).map(|ended| ended.context("a task of the fleet hub")),
    );
    let secrets = Secrets::new(config.secrets_dir.clone());
    let intake = take_in(&consensus, secrets, &mut parts, &stop)?;
    let detection = Runtime::spawn(
        ledger.clone(),
        Arc::new(HubView(hub.clone())),
        (intake.clone(), Others::new(ledger.clone(), Arc::new(PeerLooks(consensus.clone())))),
        &config.detection,
        stop.clone(),
    );
    watch_clusters(&config, &env, &intake, &mut parts, &stop);
    parts.spawn(handover(&consensus, &detection).run(stop.clone()).map(Ok));
    let foreseen: Own = Arc::new(detection.predictions(env.clock.clone()));
    let foresight =
        Arc::new(Foresight::new(ledger.clone(), foreseen.clone(), detection.outcomes()));
    let seen = Arc::new(detection.health(env.clock.clone()));
    let book = Arc::new(HealthBook::new(ledger.clone(), seen.clone()));
    let told: [Arc<dyn Tells>; 2] = [foresight.clone(), book.clone()];
    for tells in told {
        parts.spawn(sharing(&consensus, tells).run(stop.clone()).map(Ok));
    }
    let predictions = Arc::new(move || json(&foreseen()));
    let health = Arc::new(move || json(&seen()));
    let open = doors::Open {
        config: &config,
        tls: &tls,
        consensus: &consensus,
        hub: &hub,
        intake: &intake,
        metrics,
        count: Box::new(detection.count_health(env.clock.clone())),
        health,
        predictions,
        views: Views { foresight, health: book },
        stop: &stop,
    };
    doors::open(open, sockets, &mut parts).await?;
    let detection = detection.ended().boxed().shared();
    let world = FleetWorld::new(hub, ledger.clone(), config.secrets_dir.clone());
    let leader = Leader::new(ledger.clone(), world, leader_config(&config));
    parts.spawn(leader.run(stop.clone()).map(Ok));
    let election_max = config.raft.election_max.as_duration();
    let shards = ShardsConfig::for_elections_of(election_max);
    parts.spawn(shards::run(ledger, admin, shards, stop.clone()).map(Ok));

    let outcome = tokio::select! {
        // Why consensus ended says more than what ended with it.
        biased;
        outcome = until_told(&consensus, &mut parts) => outcome,
        ended = detection.clone() => Err(anyhow::anyhow!(
            "detection ended by itself{}", ended.map_or_else(|why| format!(": {why}"), |()| String::new())
        )),
    };
    if outcome.is_ok() {
        leave::leave(&consensus).await;
    }
    stop.cancel();
    let ended = async {
        if let Err(error) = detection.await {
            tracing::error!(error, "detection ended badly");
        }
        consensus.shutdown().await;
    };
    if tokio::time::timeout(SHUTDOWN_PATIENCE, ended).await.is_err() {
        tracing::warn!("some parts did not end in {SHUTDOWN_PATIENCE:?}");
    }
    parts.shutdown().await;
    outcome
}

/// What is pushed here, and what sources are asked for.
fn take_in(
    consensus: &Arc<Consensus>,
    secrets: Secrets,
    parts: &mut Parts,
    stop: &CancellationToken,
) -> anyhow::Result<Arc<Hub>> {
    let intake = Hub::new(consensus.clone());
    intake.reach(Arc::new(PeerForward(consensus.clone())));
    let folder =
        std::env::var_os(DISCOVERY_VARIABLE).map_or(DISCOVERY_FOLDER.into(), PathBuf::from);
    let fetcher = Fetcher::new(consensus.clone(), intake.clone(), folder, secrets)
        .map_err(anyhow::Error::msg)?;
    parts.spawn(fetcher.run(stop.clone()).map(Ok));
    Ok(intake)
}

/// Events of Kubernetes clusters, where any is configured.
fn watch_clusters(
    config: &NodeConfig,
    env: &Env,
    intake: &Arc<Hub>,
    parts: &mut Parts,
    stop: &CancellationToken,
) {
    for kube in &config.kubernetes {
        let (hub, tenant) = (intake.clone(), kube.tenant().to_owned());
        let take = move |event: &Event, counts| hub.take_event(&tenant, event, counts);
        let watch = KubeWatch::new(kube.clone(), env.clone(), Arc::new(take));
        parts.spawn(watch.run(stop.clone()).map(Ok));
    }
}

/// Whoever would watch next is told what detectors have learnt.
fn handover(consensus: &Arc<Consensus>, detection: &Runtime) -> Handover {
    Handover {
        ledger: consensus.clone(),
        courier: consensus.clone(),
        inbox: consensus.open_inbox(ParcelKind::DetectorState),
        learnt: detection.learnt(),
        heirs: shards::heirs,
    }
}

/// All nodes are told what this one alone knows.
fn sharing(consensus: &Arc<Consensus>, tells: Arc<dyn Tells>) -> Sharing {
    Sharing {
        ledger: consensus.clone(),
        courier: consensus.clone(),
        inbox: consensus.open_inbox(tells.parcels()),
        tells,
    }
}

/// Raises the soft limit of open files as far as needed and allowed. The usual 1,024 would run out
/// before the bounds on connections are reached, and the store would fail with the doors.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| OPEN_FILES.min(maximum));
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(?current, wanted, %error, "cannot raise the limit of open files");
    }
}

/// Links to the peers present the certificate in force, not the one they were made with.
async fn renew_links(tls: Arc<ReloadableTls>, consensus: Arc<Consensus>) {
    let mut changes = tls.changes();
    while changes.changed().await.is_ok() {
        consensus.refresh_connections();
    }
}

/// Waits for a reason to stop. Parts that end well are fine (registration does); parts that fail or
/// panic are not: a node without its leader's loop or one of its doors must not look alive.
async fn until_told(consensus: &Arc<Consensus>, parts: &mut Parts) -> anyhow::Result<()> {
    let mut fatal = consensus.fatal();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            reason = fatal.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone());
                bail!("this node can no longer serve: {}", reason.unwrap_or_default());
            }
            Some(ended) = parts.join_next() => {
                ended.context("a part of this node failed")??;
            }
        }
    }
}

/// The leader's bounds, with those that follow from this cluster's timings.
fn leader_config(config: &NodeConfig) -> LeaderConfig {
    let mut settings = LeaderConfig { overrides: config.overrides(), ..LeaderConfig::default() };
    // Whoever led before may have held a lease for so long: see `action::driver`.
    let lease_max = &mut settings.driver.lease_max;
    *lease_max = (*lease_max).max(config.raft.election_max.as_duration());
    settings
}

fn consensus_config(config: &NodeConfig) -> Config {
    let mut members = config.members.clone();
    members.insert(config.node, config.peer_addr());
    let mut settings =
        Config::new(config.node, config.cluster.clone(), config.data_dir.clone(), members);
    settings.bootstrap = !config.join;
    settings.snapshot_every = config.raft.snapshot_every;
    settings.timing = Timing {
        heartbeat: config.raft.heartbeat.as_duration(),
        election_min: config.raft.election_min.as_duration(),
        election_max: config.raft.election_max.as_duration(),
        ..Timing::default()
    };
    settings
}

/// Dials peers with the certificate in force, and expects the other side to be the node it should.
fn connector(tls: &Arc<ReloadableTls>) -> Arc<dyn PeerConnector> {
    let tls = tls.clone();
    Arc::new(TlsConnector {
        connect_deadline: Timing::default().connect_deadline,
        config: Arc::new(move |node, _| Ok(tls.current().tonic_client(&node.to_string()))),
    })
}

/// As JSON; what cannot be said so is an error, as JSON.
fn json(told: &impl serde::Serialize) -> String {
    serde_json::to_string(told)
        .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}
