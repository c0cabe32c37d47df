//! One sample service: HTTP on loopback, `/work` calls its dependencies, `/metrics`, `/healthz`.
//!
//! It is broken from outside by signals (SIGKILL, SIGSTOP), by its configuration file (a wrong
//! dependency address, read again on SIGHUP), and by `POST /break`: a leak that really holds memory,
//! errors, latency, and latency that a restart does not heal because it comes from a damaged data
//! file. `/healthz` speaks of this process alone: a dead dependency does not make it unhealthy.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Command line of one service process.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs {
    /// Instance name, for the log.
    #[arg(long)]
    pub name: String,
    /// Loopback port to serve on.
    #[arg(long)]
    pub port: u16,
    /// Configuration file (TOML); read at start and on SIGHUP.
    #[arg(long)]
    pub config: PathBuf,
    /// Data file; when `POST /break` has damaged it, every request is slow, restarts or not.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Time to drain connections after SIGTERM.
    #[arg(long, default_value_t = 0)]
    pub drain_ms: u64,
}

/// Configuration of a service: what an operator rolls out, well or badly.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Groups of addresses (`host:port`); each request calls one address of every group, in turn.
    #[serde(default)]
    pub dependencies: Vec<Vec<String>>,
    /// Time one dependency may take.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// Default of [`ServiceConfig::timeout_ms`].
const fn timeout_ms() -> u64 {
    500
}

/// What `POST /break` takes. Absent fields stay as they are; zero heals.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Break {
    /// Memory held for good, bytes per second.
    pub leak_bytes_per_s: Option<u64>,
    /// Share of requests that fail, percent.
    pub error_percent: Option<u32>,
    /// Added to each request.
    pub latency_ms: Option<u64>,
    /// Written into the data file: added to each request from now on, restarts or not.
    pub damage_ms: Option<u64>,
}

struct Service {
    args: ServiceArgs,
    config: RwLock<ServiceConfig>,
    client: reqwest::Client,
    turn: AtomicUsize,
    requests: AtomicU64,
    leak_bytes_per_s: AtomicU64,
    error_percent: AtomicU32,
    latency_ms: AtomicU64,
    damage_ms: AtomicU64,
    held: Mutex<Vec<Vec<u8>>>,
    metrics: PrometheusHandle,
}

/// How often the leak grows.
const LEAK_TICK: Duration = Duration::from_millis(250);
/// A leak stops here whatever it was told: the machine is shared.
const LEAK_BYTES_MAX: usize = 512 << 20;

/// Serves until it is told to stop.
///
/// # Errors
/// When the configuration cannot be read, or the port cannot be bound.
pub async fn run(args: ServiceArgs) -> anyhow::Result<()> {
    note_start(&args)?;
    let metrics = PrometheusBuilder::new()
        .set_buckets(&[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5])?
        .install_recorder()?;
    let service = Arc::new(Service {
        config: RwLock::new(read_config(&args)?),
        client: reqwest::Client::builder().build()?,
        turn: AtomicUsize::new(0),
        requests: AtomicU64::new(0),
        leak_bytes_per_s: AtomicU64::new(0),
        error_percent: AtomicU32::new(0),
        latency_ms: AtomicU64::new(0),
        damage_ms: AtomicU64::new(read_damage(&args)?),
        held: Mutex::default(),
        metrics,
        args,
    });
    for code in ["200", "500", "502"] {
        metrics::counter!("http_requests_total", "code" => code).absolute(0);
    }
    tokio::spawn(leak(service.clone()));
    tokio::spawn(reload_on_hangup(service.clone(), signal(SignalKind::hangup())?));
    let app = Router::new()
        .route("/work", get(work))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(exposition))
        .route("/break", post(break_it))
        .with_state(service.clone());
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, service.args.port));
    let listener =
        tokio::net::TcpListener::bind(addr).await.with_context(|| format!("binding {addr}"))?;
    tracing::info!(name = service.args.name, %addr, "serving");
    let mut term = signal(SignalKind::terminate())?;
    let drain = Duration::from_millis(service.args.drain_ms);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            term.recv().await;
            // Load balancers are given this long to look elsewhere; requests are still served.
            tokio::time::sleep(drain).await;
        })
        .await?;
    Ok(())
}

/// Notes this start beside the configuration: the fleet's own account of what was done to it.
fn note_start(args: &ServiceArgs) -> anyhow::Result<()> {
    use std::io::Write as _;
    let path = args.config.with_extension("starts");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
    writeln!(file, "{}", std::process::id()).with_context(|| format!("writing {}", path.display()))
}

fn read_config(args: &ServiceArgs) -> anyhow::Result<ServiceConfig> {
    let path = args.config.display();
    let text = std::fs::read_to_string(&args.config)
        .with_context(|| format!("reading the configuration {path}"))?;
    toml::from_str(&text).with_context(|| format!("reading the configuration {path}"))
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

async fn reload_on_hangup(service: Arc<Service>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match read_config(&service.args) {
            Ok(config) => {
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
    let status = answer(service).await;
    let seconds = began.elapsed().as_secs_f64();
    metrics::histogram!("http_request_duration_seconds").record(seconds);
    metrics::counter!("http_requests_total", "code" => status.as_str().to_owned()).increment(1);
    status
}

async fn answer(service: &Service) -> StatusCode {
    let latency =
        service.latency_ms.load(Ordering::Relaxed) + service.damage_ms.load(Ordering::Relaxed);
    if latency > 0 {
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    // Every n-th request fails, so that the share is exact without chance.
    let number = service.requests.fetch_add(1, Ordering::Relaxed);
    let share = u64::from(service.error_percent.load(Ordering::Relaxed).min(100));
    if number * share / 100 != (number + 1) * share / 100 {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let turn = service.turn.fetch_add(1, Ordering::Relaxed);
    let config = service.config.read().unwrap_or_else(PoisonError::into_inner).clone();
    for group in &config.dependencies {
        let Some(address) = group.get(turn % group.len().max(1)) else { continue };
        let url = format!("http://{address}/work");
        let timeout = Duration::from_millis(config.timeout_ms);
        let ok = match service.client.get(url).timeout(timeout).send().await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        };
        if !ok {
            return StatusCode::BAD_GATEWAY;
        }
    }
    StatusCode::OK
}

async fn exposition(State(service): State<Arc<Service>>) -> String {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    service.metrics.render()
}

/// Resident memory from `/proc/self/statm` (second field, pages).
fn resident_bytes() -> Option<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u32 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(f64::from(pages) * f64::from(u32::try_from(page).ok()?))
}

async fn break_it(State(service): State<Arc<Service>>, Json(how): Json<Break>) -> StatusCode {
    if let Some(rate) = how.leak_bytes_per_s {
        service.leak_bytes_per_s.store(rate, Ordering::Relaxed);
    }
    if let Some(percent) = how.error_percent {
        service.error_percent.store(percent, Ordering::Relaxed);
    }
    if let Some(latency) = how.latency_ms {
        service.latency_ms.store(latency, Ordering::Relaxed);
    }
    if let Some(damage) = how.damage_ms {
        let Some(path) = &service.args.data else { return StatusCode::CONFLICT };
        if let Err(error) = std::fs::write(path, damage.to_string()) {
            tracing::error!("writing {}: {error}", path.display());
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        service.damage_ms.store(damage, Ordering::Relaxed);
    }
    StatusCode::NO_CONTENT
}

/// Holds ever more memory while told to, and touches it so that it is resident.
async fn leak(service: Arc<Service>) {
    let mut tick = tokio::time::interval(LEAK_TICK);
    loop {
        tick.tick().await;
        let rate = service.leak_bytes_per_s.load(Ordering::Relaxed);
        let ticks_per_s = 1000 / u64::try_from(LEAK_TICK.as_millis()).unwrap_or(1000).max(1);
        let Ok(bytes) = usize::try_from(rate / ticks_per_s) else { continue };
        let mut held = service.held.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = held.iter().map(Vec::len).sum();
        if bytes > 0 && total + bytes <= LEAK_BYTES_MAX {
            held.push(vec![1; bytes]);
        }
    }
}
