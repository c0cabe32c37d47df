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
mod register;
mod telemetry;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use medic_api::fleet::FleetHub;
use medic_raft::{
    ClusterAdmin, Consensus, Env, Ledger, PeerConnector, TlsConnector,
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
    detection::runtime::Runtime,
    security::{ReloadableTls, Unit},
};

/// How often certificate files are looked at.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(30);
/// Time the parts are given to end before the process ends without them.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

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

    let mut parts = JoinSet::new();
    parts.spawn(Arc::clone(&tls).follow(env.clock.clone(), CERTIFICATES_EVERY));
    parts.spawn(telemetry::upkeep(metrics.clone()));
    parts.spawn(register::register(ledger.clone(), config.clone()));
    let open = doors::Open {
        config: &config,
        tls: &tls,
        consensus: &consensus,
        hub: &hub,
        metrics,
        stop: &stop,
    };
    doors::open(open, sockets, &mut parts).await?;
    let detection = Runtime::spawn(
        ledger.clone(),
        Arc::new(HubView(hub.clone())),
        &config.detection,
        stop.clone(),
    );
    let world = FleetWorld::new(hub, ledger.clone());
    let settings = LeaderConfig { overrides: config.overrides(), ..LeaderConfig::default() };
    parts.spawn(Leader::new(ledger.clone(), world, settings).run(stop.clone()));
    parts.spawn(shards::run(ledger, admin, ShardsConfig::default(), stop.clone()));

    let outcome = until_told(&consensus, &mut parts).await;
    stop.cancel();
    let ended = async {
        detection.ended().await;
        consensus.shutdown().await;
    };
    if tokio::time::timeout(SHUTDOWN_PATIENCE, ended).await.is_err() {
        tracing::warn!("some parts did not end in {SHUTDOWN_PATIENCE:?}");
    }
    parts.shutdown().await;
    outcome
}

/// Waits for a reason to stop. Parts that end by themselves are fine (registration does); parts
/// that panic are not: a node without its leader's loop or its door must not look alive.
async fn until_told(consensus: &Arc<Consensus>, parts: &mut JoinSet<()>) -> anyhow::Result<()> {
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
                if let Err(error) = ended {
                    bail!("a part of this node failed: {error}");
                }
            }
        }
    }
}

fn consensus_config(config: &NodeConfig) -> Config {
    let mut members = config.members.clone();
    members.insert(config.node, config.peer_addr());
    let mut settings =
        Config::new(config.node, config.cluster.clone(), config.data_dir.clone(), members);
    settings.bootstrap = !config.join;
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
