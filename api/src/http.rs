//! The HTTP door: plain, for Prometheus, load balancers and Alertmanager. Keep it inside.
//!
//! ```text
//!   GET  /metrics                            Prometheus exposition
//!   GET  /healthz                            200 while the process works at all
//!   GET  /readyz                             200 when it knows a leader and is not behind, else 503
//!   GET  /api/v1/health                      how the instances that this node watches do (JSON)
//!   GET  /api/v1/predictions                 what this node foresees, and how good it was at that (JSON)
//!   POST /api/v1/alertmanager/{tenant}       Alertmanager's webhook (version 4)
//!   POST /api/v2/alerts?tenant={tenant}      Alertmanager's own API, for those who post to it
//!   POST /t/{tenant}/api/v2/alerts           the same, for senders that know path prefixes only
//!   POST /api/v1/write                       telemetry, see `push`
//!   POST /v1/metrics, /v1/logs               OpenTelemetry over HTTP, and its gRPC services; see `otlp`
//! ```
//!
//! HTTP/1 and HTTP/2 without TLS (which gRPC needs) are told apart by their first bytes.
//! Bodies (see `turns`), connections and times are bounded; what is wrong with a request is said in the answer.
//! Absent on purpose: anything that changes state but the alerts, which the law admits or refuses.

pub mod alerts;
mod caller;
pub mod otlp;
pub mod push;
#[cfg(test)]
mod tests;
mod turns;

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use medic_raft::Clock;
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use self::push::PushSink;
pub use self::{
    alerts::{AlertRefusal, AlertSink, IncomingAlert},
    caller::Sender,
    turns::Turns,
};
use crate::{
    door::{Gauge, Limiter},
    metrics::Metric,
};

/// Time a request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Connections at once from one address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// Requests at once, and bytes of headers, of one HTTP/2 connection.
const STREAMS_MAX: u32 = 32;
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Bytes that a sender may be ahead of who reads its bodies: of one HTTP/2 stream, of one HTTP/2
/// connection, and of one HTTP/1 connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Whether this node should be sent work, and why not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Readiness {
    /// Nothing is in the way.
    pub ready: bool,
    /// What is.
    pub reasons: Vec<String>,
}

/// What the door shows and where it hands things.
#[derive(Clone)]
pub struct HttpDoor {
    /// Renders `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Answers `/readyz`.
    pub ready: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// Renders `/api/v1/health`.
    pub health: Arc<dyn Fn() -> String + Send + Sync>,
    /// Renders `/api/v1/predictions`.
    pub predictions: Arc<dyn Fn() -> String + Send + Sync>,
    /// Takes alerts.
    pub alerts: Arc<dyn AlertSink>,
    /// Takes telemetry.
    pub pushes: Arc<dyn PushSink>,
    /// Turns of those who push or send alerts.
    pub turns: Turns,
    /// When set, whoever pushes or sends alerts must carry `Authorization: Bearer <token>` with this
    /// one, or with one that a Source of their tenant names.
    pub token: Option<String>,
    /// The clock that says whether an alert's `endsAt` has passed.
    pub clock: Arc<dyn Clock>,
}

impl HttpDoor {
    /// Whether the token is the door's own. Compared by digest, so that the time taken says nothing
    /// about the token.
    fn vouches(&self, given: Option<&str>) -> bool {
        let digest = |text: &str| medic_state::Digest::of(&[text.as_bytes()]);
        self.token.as_ref().is_none_or(|token| digest(token) == digest(given.unwrap_or_default()))
    }
}

impl std::fmt::Debug for HttpDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpDoor").field("token", &self.token.is_some()).finish_non_exhaustive()
    }
}

/// Serves until `shutdown`; requests under way are given a moment to end.
pub async fn serve_http(
    listener: TcpListener,
    door: HttpDoor,
    shutdown: impl Future<Output = ()> + Send,
) {
    let app = router(door);
    let limiter = Limiter::new(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX);
    let stop = CancellationToken::new();
    let _stop_on_return = stop.clone().drop_guard();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(door = "http", %error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = match limiter.enter(address.ip()) {
            Ok(place) => place,
            Err(reason) => {
                metrics::counter!(Metric::Refused.name(), "door" => "http", "reason" => reason)
                    .increment(1);
                tracing::warn!(door = "http", %address, reason, "connection refused");
                continue;
            }
        };
        let app = app.clone();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            let _held = (place, Gauge::new("http"));
            tokio::select! {
                () = stopped => {}
                ended = serve_one(stream, address.ip(), app) => if let Err(error) = ended {
                    tracing::debug!(door = "http", %address, error, "connection ended");
                }
            }
        });
    }
}

/// Serves one connection. HTTP/1 bounds the time of each head by itself; of HTTP/2 the first request must
/// come in as long, and whoever answers no ping is gone.
async fn serve_one(stream: TcpStream, address: IpAddr, app: Router) -> Result<(), String> {
    let asked = Arc::new(Notify::new());
    let first = asked.clone();
    let app = app.layer(middleware::from_fn(move |mut request: Request, next: Next| {
        first.notify_one();
        caller::note_peer(&mut request, address);
        next.run(request)
    }));
    let service = hyper_util::service::TowerToHyperService::new(app);
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(REQUEST_TIMEOUT)
        .keep_alive_timeout(REQUEST_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended.map_err(|error| error.to_string()),
        asked = tokio::time::timeout(REQUEST_TIMEOUT, asked.notified()) => if asked.is_err() {
            return Err(format!("no request within {REQUEST_TIMEOUT:?}"));
        }
    }
    connection.await.map_err(|error| error.to_string())
}

fn router(door: HttpDoor) -> Router {
    Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/api/v1/health", get(health))
        .route("/api/v1/predictions", get(predictions))
        .merge(alerts::routes())
        .merge(push::routes())
        .layer(middleware::from_fn(bounded))
        .with_state(door)
}

async fn health(State(door): State<HttpDoor>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], (door.health)()).into_response()
}

async fn predictions(State(door): State<HttpDoor>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], (door.predictions)()).into_response()
}

async fn bounded(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let text = format!("the request took longer than {REQUEST_TIMEOUT:?}");
            // Not 408: nobody who sends telemetry or alerts would send it again.
            retry_after(problem(StatusCode::SERVICE_UNAVAILABLE, &text), 1)
        }
    }
}

async fn exposition(State(door): State<HttpDoor>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (door.metrics)())
}

async fn readyz(State(door): State<HttpDoor>) -> Response {
    let readiness = (door.ready)();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

fn default_tenant() -> String {
    medic_state::manifest::DEFAULT_TENANT.to_owned()
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(serde_json::json!({ "error": text }))).into_response()
}

/// An answer that says when to come again.
fn retry_after(mut response: Response, seconds: u64) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
