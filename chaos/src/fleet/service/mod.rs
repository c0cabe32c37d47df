//! One sample service: HTTP, `/work` calls its dependencies, `/metrics`, `/healthz`,
//! `/ready` (which needs a worker), `/login`.
//!
//! It is broken from outside by signals (SIGKILL, SIGSTOP), by its configuration file (a wrong
//! dependency, a wrong port; read again on SIGHUP), by its other [`Files`], and by `POST /break`
//! ([`Break`]). SIGUSR2 makes it execute itself anew, as servers do that are upgraded in place.
//! `/healthz` speaks of this process alone: a dead dependency does not make it unhealthy.

mod ailments;
mod config;
mod files;
mod measure;
mod upstream;

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Semaphore, SemaphorePermit, oneshot, watch},
};

use self::ailments::Ailments;
pub use self::{
    ailments::Break,
    config::{ServiceArgs, ServiceConfig},
    files::{Files, SPOOL_BYTES_MAX},
};

/// Requests worked on at once.
const WORKERS: usize = 64;
/// Time a request waits for a worker.
const QUEUE_PATIENCE: Duration = Duration::from_millis(1_500);
/// Between looks at the files.
const LOOK: Duration = Duration::from_millis(250);

struct Service {
    args: ServiceArgs,
    config: RwLock<ServiceConfig>,
    client: reqwest::Client,
    turn: AtomicUsize,
    requests: AtomicU64,
    ailments: Arc<Ailments>,
    workers: Semaphore,
    files: Files,
    seen: RwLock<Seen>,
    port: watch::Sender<Option<u16>>,
    metrics: PrometheusHandle,
}

/// The files as they were when last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    spool_used: f64,
    certificate_expired: bool,
    artefact_modified: bool,
}

/// What `GET /break` answers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Ill {
    /// Anything that was asked for is still so.
    pub ill: bool,
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the configuration cannot be read, or the port cannot be bound.
pub async fn run(args: ServiceArgs) -> anyhow::Result<()> {
    note_start(&args)?;
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5])?
        .install_recorder()?;
    let files = Files::beside(&args.config);
    files.deploy()?;
    if files.poisoned()? {
        tokio::spawn(die_of_poison());
    }
    let config = config::read(&args)?;
    let (port, wanted) = watch::channel(Some(config.listen_port.unwrap_or(args.port)));
    let ailments = Arc::new(Ailments::default());
    ailments.damage_ms.store(read_damage(&args)?, Ordering::Relaxed);
    let service = Arc::new(Service {
        config: RwLock::new(config),
        client: reqwest::Client::builder().build()?,
        turn: AtomicUsize::new(0),
        requests: AtomicU64::new(0),
        workers: Semaphore::new(WORKERS),
        seen: RwLock::default(),
        ailments: ailments.clone(),
        files,
        port,
        metrics,
        args,
    });
    begin_at_zero();
    tokio::spawn(ailments.grow());
    tokio::spawn(look_at_files(service.clone()));
    tokio::spawn(reload_on_hangup(service.clone(), signal(SignalKind::hangup())?));
    tokio::spawn(execute_anew(signal(SignalKind::user_defined2())?));
    let app = Router::new()
        .route("/work", get(work))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/login", get(login))
        .route("/metrics", get(exposition))
        .route("/break", post(break_it).get(is_broken))
        .with_state(service.clone());
    serve(&service.args, app, wanted).await
}

/// Counters that are there before their first event: rates need no second one.
fn begin_at_zero() {
    for code in ["200", "500", "502", "503", "507", "526"] {
        metrics::counter!("http_requests_total", "code" => code).absolute(0);
    }
    for reason in upstream::REASONS {
        metrics::counter!("upstream_failures_total", "reason" => reason).absolute(0);
    }
    metrics::counter!("upstream_requests_total").absolute(0);
    metrics::counter!("logins_denied_total").absolute(0);
    metrics::counter!("logins_blocked_total").absolute(0);
}

/// Serves on whatever port is wanted, or on none, until SIGTERM.
async fn serve(
    args: &ServiceArgs,
    app: Router,
    mut wanted: watch::Receiver<Option<u16>>,
) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    loop {
        let port = *wanted.borrow_and_update();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = match port {
            Some(port) => {
                let addr = SocketAddr::from((args.host, port));
                let listener = tokio::net::TcpListener::bind(addr)
                    .await
                    .with_context(|| format!("binding {addr}"))?;
                tracing::info!(name = args.name, %addr, "serving");
                let until = async move { drop(stopped.await) };
                let serving = axum::serve(listener, app.clone()).with_graceful_shutdown(until);
                Some(tokio::spawn(serving.into_future()))
            }
            None => None,
        };
        let told_to_end = tokio::select! {
            _ = term.recv() => true,
            changed = wanted.changed() => changed.is_err(),
        };
        if told_to_end {
            // Load balancers are given this long to look elsewhere; requests are still served.
            tokio::time::sleep(Duration::from_millis(args.drain_ms)).await;
        }
        // The listener closes now; what is under way is answered.
        drop(stop);
        if told_to_end {
            return match serving {
                Some(serving) => Ok(serving.await??),
                None => Ok(()),
            };
        }
    }
}

/// Notes this start beside the configuration: the fleet's own account of what was done to it.
fn note_start(args: &ServiceArgs) -> anyhow::Result<()> {
    use std::io::Write as _;
    let path = args.config.with_extension("starts");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
    writeln!(file, "{}", std::process::id()).with_context(|| format!("writing {}", path.display()))
}

/// Milliseconds of damage in the data file; none when there is no such file.
fn read_damage(args: &ServiceArgs) -> anyhow::Result<u64> {
    let Some(path) = &args.data else { return Ok(0) };
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().with_context(|| format!("reading {}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// The work it finds at its start kills it, once it gets to it.
async fn die_of_poison() {
    const DIGESTION: Duration = Duration::from_millis(1_200);
    tokio::time::sleep(DIGESTION).await;
    tracing::error!("cannot digest what is in the spool");
    std::process::exit(3);
}

async fn look_at_files(service: Arc<Service>) {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let files = &service.files;
        let seen = Seen {
            spool_used: files.spool_used(),
            certificate_expired: files.certificate_expired(),
            artefact_modified: files.artefact_modified(),
        };
        *service.seen.write().unwrap_or_else(PoisonError::into_inner) = seen;
    }
}

async fn execute_anew(mut asked: Signal) {
    if asked.recv().await.is_some() {
        let mut args = std::env::args_os();
        let program = args.next().unwrap_or_default();
        // Comes back only when it failed.
        let error = std::process::Command::new(program).args(args).exec();
        tracing::error!("executing itself anew: {error}");
    }
}

async fn reload_on_hangup(service: Arc<Service>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match config::read(&service.args) {
            Ok(config) => {
                let port = config.listen_port.unwrap_or(service.args.port);
                service.port.send_if_modified(|now| now.replace(port) != Some(port));
                *service.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!(name = service.args.name, "configuration read again");
            }
            Err(error) => {
                tracing::error!(name = service.args.name, "the old configuration stays: {error:#}");
            }
        }
    }
}

/// Runs to its end and is counted even when the caller has given up: a slow service must look slow
/// on its own metrics.
async fn work(State(service): State<Arc<Service>>) -> impl IntoResponse {
    let counted = tokio::spawn(async move { count(&service).await });
    let status = counted.await.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, status.canonical_reason().unwrap_or_default())
}

async fn count(service: &Service) -> StatusCode {
    let began = Instant::now();
    let status = service.answer().await;
    let seconds = began.elapsed().as_secs_f64();
    metrics::histogram!("http_request_duration_seconds").record(seconds);
    metrics::counter!("http_requests_total", "code" => status.as_str().to_owned()).increment(1);
    status
}

impl Service {
    async fn worker(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(QUEUE_PATIENCE, self.workers.acquire()).await.ok()?.ok()
    }

    fn config(&self) -> ServiceConfig {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn seen(&self) -> Seen {
        *self.seen.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self) -> StatusCode {
        let Some(_worker) = self.worker().await else { return StatusCode::SERVICE_UNAVAILABLE };
        let ailments = &self.ailments;
        let latency = ailments.latency_ms.load(Ordering::Relaxed)
            + ailments.damage_ms.load(Ordering::Relaxed);
        if latency > 0 {
            tokio::time::sleep(Duration::from_millis(latency)).await;
        }
        // Every n-th request fails, so that the share is exact without chance.
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let share = u64::from(ailments.error_percent.load(Ordering::Relaxed).min(100));
        if number * share / 100 != (number + 1) * share / 100 {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        let seen = self.seen();
        if seen.certificate_expired {
            // Invalid SSL certificate, as proxies say it.
            return StatusCode::from_u16(526).unwrap_or(StatusCode::BAD_GATEWAY);
        }
        if seen.spool_used >= 1.0 {
            return StatusCode::INSUFFICIENT_STORAGE;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let config = self.config();
        let route = ailments.route();
        for group in &config.dependencies {
            if !upstream::call(&self.client, &config, group, turn, route.as_deref()).await {
                return StatusCode::BAD_GATEWAY;
            }
        }
        StatusCode::OK
    }
}

/// Whether it could do work: what a load balancer asks.
async fn ready(State(service): State<Arc<Service>>) -> StatusCode {
    if service.worker().await.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[derive(Deserialize)]
struct Credentials {
    #[serde(default)]
    key: String,
}

async fn login(
    State(service): State<Arc<Service>>,
    Query(credentials): Query<Credentials>,
) -> StatusCode {
    if service.config().lockdown {
        metrics::counter!("logins_blocked_total").increment(1);
        return StatusCode::FORBIDDEN;
    }
    if credentials.key == service.args.name {
        return StatusCode::OK;
    }
    metrics::counter!("logins_denied_total").increment(1);
    StatusCode::UNAUTHORIZED
}

async fn exposition(State(service): State<Arc<Service>>) -> String {
    let figures = [
        ("process_resident_memory_bytes", measure::resident_bytes()),
        ("process_cpu_seconds_total", measure::cpu_seconds()),
        (
            "process_open_fds",
            measure::descriptors().and_then(|n| Some(u32::try_from(n).ok()?.into())),
        ),
    ];
    for (name, value) in figures {
        if let Some(value) = value {
            metrics::gauge!(name).set(value);
        }
    }
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    let (seen, declared) = (service.seen(), *service.port.borrow());
    let stray = measure::listening_ports().iter().any(|port| Some(*port) != declared);
    metrics::gauge!("process_unexpected_listeners").set(flag(stray));
    metrics::gauge!("spool_used_ratio").set(seen.spool_used);
    metrics::gauge!("certificate_expired").set(flag(seen.certificate_expired));
    metrics::gauge!("artefact_modified").set(flag(seen.artefact_modified));
    service.metrics.render()
}

async fn is_broken(State(service): State<Arc<Service>>) -> Json<Ill> {
    Json(Ill { ill: service.ailments.any() })
}

async fn break_it(State(service): State<Arc<Service>>, Json(how): Json<Break>) -> StatusCode {
    let ailments = &service.ailments;
    if let Err(error) = ailments.take(&how) {
        tracing::error!("breaking: {error}");
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    match how.deadlock {
        Some(true) => {
            service.workers.forget_permits(WORKERS);
        }
        Some(false) => service.workers.add_permits(WORKERS - service.workers.available_permits()),
        None => {}
    }
    if how.port_lost == Some(true) {
        service.port.send_replace(None);
    }
    if let Some(damage) = how.damage_ms {
        let Some(path) = &service.args.data else { return StatusCode::CONFLICT };
        if let Err(error) = std::fs::write(path, damage.to_string()) {
            tracing::error!("writing {}: {error}", path.display());
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        ailments.damage_ms.store(damage, Ordering::Relaxed);
    }
    StatusCode::NO_CONTENT
}
