//! The doors of a node, opened with what stands behind each.

use std::{future::Future, sync::Arc};

use anyhow::{Context as _, bail};
use futures::FutureExt as _;
use medic_api::{
    control::Views,
    door::{Door, Limits, TlsSource, node_identity, serve_grpc},
    fleet::FleetHub,
    http::{HttpDoor, Readiness, Turns, serve_http},
};
use medic_raft::{ClusterAdmin, Consensus, Ledger};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use super::{Parts, Sockets, telemetry};
use crate::{
    action::backends::HubView,
    config::NodeConfig,
    detection::{
        alerts::Alerts,
        intake::{Hub, TelemetryService},
        observe::peers::ObserversService,
        senses::NetSenses,
    },
    security::ReloadableTls,
};

/// Log entries that a node may be behind what it has received, and still be ready.
const BEHIND_MAX: u64 = 1_000;
/// Bearer token of the webhooks, when one is wanted.
const TOKEN_VARIABLE: &str = "MEDIC_WEBHOOK_TOKEN";

/// What is told over HTTP, as JSON.
pub(super) type Told = Arc<dyn Fn() -> String + Send + Sync>;

/// What the doors are made from.
pub(super) struct Open<'a> {
    pub(super) config: &'a NodeConfig,
    pub(super) tls: &'a Arc<ReloadableTls>,
    pub(super) consensus: &'a Arc<Consensus>,
    pub(super) hub: &'a Arc<FleetHub>,
    pub(super) intake: &'a Arc<Hub>,
    pub(super) metrics: PrometheusHandle,
    /// Counts into the metrics what is counted only when they are asked for.
    pub(super) count: Box<dyn Fn() + Send + Sync>,
    pub(super) health: Told,
    pub(super) predictions: Told,
    pub(super) views: Views,
    pub(super) stop: &'a CancellationToken,
}

/// Opens all doors.
///
/// # Errors
/// When the control API cannot be set up.
pub(super) async fn open(
    open: Open<'_>,
    sockets: Sockets,
    parts: &mut Parts,
) -> anyhow::Result<()> {
    let Sockets { api, peer, http } = sockets;
    let cluster = &open.config.cluster;
    let tls = tls_source(open.tls);

    // Certificates end by the same clock as everything else.
    let clock = open.consensus.env().clock.clone();
    let admin: Arc<dyn ClusterAdmin> = open.consensus.clone();
    let telemetry = TelemetryService::server(open.intake.clone(), admin.clone());
    let eyes = NetSenses::new(Arc::new(HubView(open.hub.clone())));
    let observers = ObserversService::server(open.consensus.clone(), admin.clone(), eyes);
    let peers = open.consensus.peer_routes(Arc::new(node_identity));
    let peers = peers.add_service(telemetry).add_service(observers);
    let serving = serve_grpc(
        peer,
        tls.clone(),
        Door { clock: clock.clone(), ..Door::peer(cluster) },
        peers,
        Limits::default(),
        open.stop.clone().cancelled_owned(),
    );
    parts.spawn(kept_open("peer", serving, open.stop.clone()));

    let ledger: Arc<dyn Ledger> = open.consensus.clone();
    let (hub, views) = (Some(open.hub), open.views.clone());
    let control = medic_api::control::routes(ledger.clone(), admin.clone(), hub, views).await?;
    let serving = serve_grpc(
        api,
        tls,
        Door { clock, ..Door::control(cluster) },
        control.routes,
        Limits::default(),
        open.stop.clone().cancelled_owned(),
    );
    parts.spawn(kept_open("api", serving, open.stop.clone()));

    let sources = telemetry::Sources {
        ledger,
        admin,
        tls: open.tls.clone(),
        data_dir: open.config.data_dir.clone(),
    };
    let alerts = Arc::new(Alerts::new(sources.ledger.clone(), open.intake.clone()));
    parts.spawn(alerts.clone().run(open.stop.clone()).map(Ok));
    let door = http_door(
        (open.metrics, open.count),
        (open.health, open.predictions),
        sources,
        alerts,
        open.intake.clone(),
    );
    let stopped = open.stop.clone().cancelled_owned();
    let serving = async move {
        serve_http(http, door, stopped).await;
        Ok::<(), std::convert::Infallible>(())
    };
    parts.spawn(kept_open("http", serving, open.stop.clone()));
    Ok(())
}

fn tls_source(tls: &Arc<ReloadableTls>) -> TlsSource {
    let tls = tls.clone();
    Arc::new(move || match tls.current().server() {
        Some(server) => server,
        None => unreachable!("a node's material can accept: it was loaded as a node's"),
    })
}

/// A door that ends before it is told to is a failure, whatever it says: nobody could come in.
async fn kept_open<E>(
    door: &'static str,
    serving: impl Future<Output = Result<(), E>>,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    serving.await.with_context(|| format!("the {door} door failed"))?;
    if !stop.is_cancelled() {
        bail!("the {door} door closed by itself");
    }
    Ok(())
}

fn http_door(
    (metrics, count): (PrometheusHandle, Box<dyn Fn() + Send + Sync>),
    (health, predictions): (Told, Told),
    sources: telemetry::Sources,
    alerts: Arc<Alerts>,
    intake: Arc<Hub>,
) -> HttpDoor {
    let (ledger, admin) = (sources.ledger.clone(), sources.admin.clone());
    HttpDoor {
        metrics: Arc::new(move || {
            count();
            sources.refresh();
            metrics.render()
        }),
        health,
        predictions,
        ready: Arc::new(move || readiness(admin.as_ref())),
        clock: ledger.env().clock.clone(),
        alerts,
        pushes: intake,
        turns: Turns::default(),
        token: std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty()),
    }
}

fn readiness(admin: &dyn ClusterAdmin) -> Readiness {
    let status = admin.status();
    let mut reasons = Vec::new();
    if let Some(fatal) = status.fatal {
        reasons.push(format!("this node can no longer serve: {fatal}"));
    }
    if status.leadership.leader.is_none() {
        reasons.push("no leader is known".to_owned());
    }
    let behind = status.last_log.saturating_sub(status.applied);
    if behind > BEHIND_MAX {
        reasons.push(format!("{behind} entries behind its own log"));
    }
    Readiness { ready: reasons.is_empty(), reasons }
}
