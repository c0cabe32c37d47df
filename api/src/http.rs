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
//! Bodies, connections and times are bounded; what is wrong with a request is said in the answer.
//! Absent on purpose: anything that changes state but the alerts, which the law admits or refuses.

mod otlp;
pub mod push;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::StreamExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use medic_raft::Clock;
use medic_state::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

use self::push::{PushSink, Turns};
use crate::{
    door::{Gauge, Limiter},
    metrics::Metric,
};

/// Bytes of a body: some thousand alerts.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Bytes of a body that is too large which are read and thrown away before it is refused. Closing a
/// connection on data that was not read resets it, and the sender never sees why.
const DISCARDED_BYTES_MAX: usize = 32 << 20;
/// Time a request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Connections at once from one address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// Requests at once, and bytes of headers, of one HTTP/2 connection.
const STREAMS_MAX: u32 = 32;
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// One alert as Alertmanager describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncomingAlert {
    /// Firing, or resolved.
    pub firing: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it began; zero: not said.
    pub starts_at: Timestamp,
}

/// Why alerts were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertRefusal {
    /// The request is wrong; sending it again will not help.
    Wrong(String),
    /// Not now; Alertmanager tries again.
    Later(String),
}

/// The other side of the webhook.
#[async_trait]
pub trait AlertSink: Send + Sync + 'static {
    /// Takes alerts; gives notes for the answer (what could not be mapped or was refused).
    ///
    /// # Errors
    /// When none was taken.
    async fn take(
        &self,
        tenant: &str,
        alerts: Vec<IncomingAlert>,
    ) -> Result<Vec<String>, AlertRefusal>;
}

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
    /// Turns of those who push.
    pub turns: Turns,
    /// When set, webhooks must carry `Authorization: Bearer <token>`; pushes this one, or one that a
    /// Source of their tenant names.
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

/// The bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
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
                ended = serve_one(stream, app) => if let Err(error) = ended {
                    tracing::debug!(door = "http", %address, error, "connection ended");
                }
            }
        });
    }
}

/// Serves one connection. HTTP/1 bounds the time of each head by itself; of HTTP/2 the first request must
/// come in as long, and whoever answers no ping is gone.
async fn serve_one(stream: TcpStream, app: Router) -> Result<(), String> {
    let asked = Arc::new(Notify::new());
    let first = asked.clone();
    let app = app.layer(middleware::from_fn(move |request: Request, next: Next| {
        first.notify_one();
        next.run(request)
    }));
    let service = hyper_util::service::TowerToHyperService::new(app);
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(REQUEST_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
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
    let hooks = Router::new()
        .route("/api/v1/alertmanager/{tenant}", post(webhook))
        .route("/api/v2/alerts", post(alerts_v2))
        .route("/t/{tenant}/api/v2/alerts", post(alerts_v2_of))
        .layer(middleware::from_fn_with_state(door.clone(), authorize));
    Router::new()
        .route("/metrics", get(exposition))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/api/v1/health", get(health))
        .route("/api/v1/predictions", get(predictions))
        .merge(hooks)
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
            problem(StatusCode::REQUEST_TIMEOUT, &text)
        }
    }
}

async fn authorize(State(door): State<HttpDoor>, request: Request, next: Next) -> Response {
    if !door.vouches(bearer(request.headers())) {
        return problem(StatusCode::UNAUTHORIZED, "this webhook needs its bearer token");
    }
    next.run(request).await
}

async fn exposition(State(door): State<HttpDoor>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (door.metrics)())
}

async fn readyz(State(door): State<HttpDoor>) -> Response {
    let readiness = (door.ready)();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Alertmanager's webhook, version 4; fields that do not matter here are ignored.
#[derive(Deserialize)]
struct Webhook {
    alerts: Vec<WireAlert>,
}

/// An alert in the webhook and in the v2 API. `status` is the webhook's; the v2 API tells a
/// resolved alert by an `endsAt` in the past.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAlert {
    #[serde(default)]
    status: Option<String>,
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    starts_at: Option<String>,
    #[serde(default)]
    ends_at: Option<String>,
}

impl WireAlert {
    /// Resolved by its status, or by an `endsAt` that has passed. Alertmanager writes the year 1
    /// for "not known", which is no time here.
    fn read(self, now: Timestamp) -> IncomingAlert {
        let time = |text: Option<String>| medic_state::time::parse_rfc3339(&text?).ok();
        let ended = time(self.ends_at).is_some_and(|ends| ends <= now);
        IncomingAlert {
            firing: self.status.as_deref() != Some("resolved") && !ended,
            labels: self.labels,
            annotations: self.annotations,
            starts_at: time(self.starts_at).unwrap_or_default(),
        }
    }
}

async fn webhook(
    State(door): State<HttpDoor>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let body = match json_body(&headers, body).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    match serde_json::from_slice::<Webhook>(&body) {
        Ok(webhook) => hand_over(&door, &tenant, webhook.alerts).await,
        Err(error) => {
            problem(StatusCode::BAD_REQUEST, &format!("not an Alertmanager webhook: {error}"))
        }
    }
}

#[derive(Deserialize)]
struct TenantQuery {
    #[serde(default = "default_tenant")]
    tenant: String,
}

fn default_tenant() -> String {
    medic_state::manifest::DEFAULT_TENANT.to_owned()
}

async fn alerts_v2(
    State(door): State<HttpDoor>,
    Query(query): Query<TenantQuery>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take_v2(&door, &query.tenant, &headers, body).await
}

async fn alerts_v2_of(
    State(door): State<HttpDoor>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    take_v2(&door, &tenant, &headers, body).await
}

async fn take_v2(door: &HttpDoor, tenant: &str, headers: &HeaderMap, body: Body) -> Response {
    let body = match json_body(headers, body).await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    match serde_json::from_slice::<Vec<WireAlert>>(&body) {
        Ok(alerts) => hand_over(door, tenant, alerts).await,
        Err(error) => problem(StatusCode::BAD_REQUEST, &format!("not a list of alerts: {error}")),
    }
}

async fn hand_over(door: &HttpDoor, tenant: &str, alerts: Vec<WireAlert>) -> Response {
    let now = door.clock.now();
    let alerts: Vec<IncomingAlert> = alerts.into_iter().map(|alert| alert.read(now)).collect();
    let count = u64::try_from(alerts.len()).unwrap_or(u64::MAX);
    match door.alerts.take(tenant, alerts).await {
        Ok(notes) => {
            metrics::counter!(Metric::Alerts.name()).increment(count);
            (StatusCode::OK, Json(serde_json::json!({ "notes": notes }))).into_response()
        }
        Err(AlertRefusal::Wrong(reason)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        Err(AlertRefusal::Later(reason)) => problem(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

/// The body, if it is JSON by its name and not too large; else the answer that says why not.
async fn json_body(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Box<Response>> {
    let refuse = |status, text: &str| Err(Box::new(problem(status, text)));
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
    if !kind.is_none_or(|kind| kind.is_empty() || kind.starts_with("application/json")) {
        let text = "send `content-type: application/json`";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    let read = read_body(body, BODY_BYTES_MAX, "send fewer alerts at a time").await;
    read.map_err(|(status, text)| Box::new(problem(status, &text)))
}

/// The body, if it is not too large; else the status and the text that say so.
async fn read_body(
    body: Body,
    bytes_max: usize,
    advice: &str,
) -> Result<Vec<u8>, (StatusCode, String)> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut total) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                let text = format!("the body cannot be read: {error}");
                return Err((StatusCode::BAD_REQUEST, text));
            }
        };
        total += chunk.len();
        if total <= bytes_max {
            kept.extend_from_slice(&chunk);
        } else if total > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if total > bytes_max {
        let text = format!("the body is larger than {bytes_max} bytes: {advice}");
        return Err((StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(kept)
}

fn problem(status: StatusCode, text: &str) -> Response {
    (status, Json(serde_json::json!({ "error": text }))).into_response()
}
