//! The doors that telemetry is pushed through: remote write and OTLP.
//!
//! ```text
//!   POST /api/v1/write      Prometheus remote write 1.0 and 2.0, snappy
//!   POST /v1/metrics        OTLP metrics, protobuf, gzip or plain
//! ```
//!
//! The tenant is named by `X-Scope-OrgID` or `?tenant=`. What may be pushed, and by whom, the sink
//! decides from manifests. Invariant: bodies being read at once are bounded in number and size, so
//! that pushes cannot take the node's memory; who comes beyond that is told to wait (429).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use medic_state::Digest;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{HttpDoor, bearer, default_tenant, problem, read_body};

/// Bytes of a body as sent; Prometheus sends some 100 KiB at its defaults.
pub const PUSH_BYTES_MAX: usize = 4 << 20;
/// Bodies being read or taken at once: with their bound, 64 MiB.
const PUSHES_MAX: usize = 16;
/// Time a push waits for its turn before it is told to come again.
const TURN_TIMEOUT: Duration = Duration::from_secs(1);

/// The form of what is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushForm {
    /// `prometheus.WriteRequest`, in a snappy block.
    RemoteWriteV1,
    /// `io.prometheus.write.v2.Request`, in a snappy block.
    RemoteWriteV2,
    /// OTLP `ExportMetricsServiceRequest`, protobuf.
    OtlpMetrics,
}

/// One push.
#[derive(Clone, Debug)]
pub struct Push {
    /// Its form.
    pub form: PushForm,
    /// The body is gzip.
    pub gzip: bool,
    /// For which tenant.
    pub tenant: String,
    /// SHA-256 of the bearer token, hexadecimal, when one was given.
    pub token: Option<String>,
    /// The token is the door's own, or the door has none.
    pub vouched: bool,
    /// As sent.
    pub body: Vec<u8>,
}

/// What was taken of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushTaken {
    /// Samples (or log lines) taken, or known already.
    pub samples: u64,
    /// What was dropped that the sender should know of; with it the answer is 400.
    pub refused: Option<String>,
}

/// Why a push was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushRefusal {
    /// It is wrong; sending it again will not help.
    Wrong(String),
    /// It is too large, or would be when opened.
    TooLarge(String),
    /// Its sender may not push for this tenant.
    Denied(String),
    /// Too much at once; again after so many seconds.
    Slow(String, u64),
    /// Not now: sending it again will help.
    Later(String),
}

/// The other side of these doors.
#[async_trait]
pub trait PushSink: Send + Sync + 'static {
    /// Takes a push. Safe to repeat.
    ///
    /// # Errors
    /// When nothing (that is not known already) was taken.
    async fn push(&self, push: Push) -> Result<PushTaken, PushRefusal>;
}

/// Takes nothing: for doors without telemetry.
#[derive(Clone, Copy, Debug)]
pub struct NoPushes;

#[async_trait]
impl PushSink for NoPushes {
    async fn push(&self, _: Push) -> Result<PushTaken, PushRefusal> {
        Err(PushRefusal::Wrong("this node takes no telemetry in".to_owned()))
    }
}

/// Turns of those who push.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PUSHES_MAX)))
    }
}

pub(super) fn routes() -> Router<HttpDoor> {
    Router::new()
        .route("/api/v1/write", post(remote_write))
        .route("/v1/metrics", post(otlp_metrics))
}

#[derive(Deserialize)]
struct TenantQuery {
    tenant: Option<String>,
}

async fn remote_write(
    State(door): State<HttpDoor>,
    Query(query): Query<TenantQuery>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let form = match write_form(&headers) {
        Ok(form) => form,
        Err(text) => return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text),
    };
    let mut response = push(&door, form, query, &headers, body, StatusCode::NO_CONTENT).await;
    if form == PushForm::RemoteWriteV2 {
        // Version 2 has a receiver say what it does not take.
        for name in [
            "x-prometheus-remote-write-histograms-written",
            "x-prometheus-remote-write-exemplars-written",
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static("0"));
        }
    }
    response
}

/// Content type and encoding, as both versions of the protocol have them.
fn write_form(headers: &HeaderMap) -> Result<PushForm, String> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    match text(header::CONTENT_ENCODING) {
        None | Some("snappy") => {}
        Some(other) => return Err(format!("content-encoding is `{other}`: only snappy is taken")),
    }
    let kind = text(header::CONTENT_TYPE).unwrap_or("application/x-protobuf").replace(' ', "");
    match kind.as_str() {
        "application/x-protobuf" | "application/x-protobuf;proto=prometheus.WriteRequest" => {
            Ok(PushForm::RemoteWriteV1)
        }
        "application/x-protobuf;proto=io.prometheus.write.v2.Request" => {
            Ok(PushForm::RemoteWriteV2)
        }
        other => Err(format!("content-type is `{other}`: remote write is application/x-protobuf")),
    }
}

async fn otlp_metrics(
    State(door): State<HttpDoor>,
    Query(query): Query<TenantQuery>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if kind != "application/x-protobuf" {
        let text = "OTLP is taken as application/x-protobuf: `encoding: proto` of the exporter";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    if !matches!(encoding, None | Some(b"gzip" | b"identity")) {
        let text = "content-encoding is neither gzip nor absent";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    let mut response =
        push(&door, PushForm::OtlpMetrics, query, &headers, body, StatusCode::OK).await;
    if response.status() == StatusCode::OK {
        // An empty message: everything was taken.
        let kind = HeaderValue::from_static("application/x-protobuf");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

async fn push(
    door: &HttpDoor,
    form: PushForm,
    query: TenantQuery,
    headers: &HeaderMap,
    body: Body,
    done: StatusCode,
) -> Response {
    let Ok(Ok(_turn)) = tokio::time::timeout(TURN_TIMEOUT, door.turns.0.acquire()).await else {
        return refused(PushRefusal::Slow("too many pushes at once".to_owned(), 1));
    };
    let body = match read_body(body, PUSH_BYTES_MAX, "send fewer samples at a time").await {
        Ok(body) => body,
        Err(response) => return *response,
    };
    let given = bearer(headers);
    let named = headers.get("x-scope-orgid").and_then(|value| value.to_str().ok());
    let push = Push {
        form,
        gzip: headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip"),
        tenant: named.map(str::to_owned).or(query.tenant).unwrap_or_else(default_tenant),
        token: given.map(|token| Digest::of(&[token.as_bytes()]).to_string()),
        vouched: door.vouches(given),
        body,
    };
    match door.pushes.push(push).await {
        Ok(PushTaken { refused: None, samples }) => {
            let written = HeaderValue::from(samples);
            (done, [("x-prometheus-remote-write-samples-written", written)]).into_response()
        }
        Ok(PushTaken { refused: Some(why), samples }) => {
            let mut response = problem(StatusCode::BAD_REQUEST, &why);
            let written = HeaderValue::from(samples);
            response.headers_mut().insert("x-prometheus-remote-write-samples-written", written);
            response
        }
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: PushRefusal) -> Response {
    match refusal {
        PushRefusal::Wrong(text) => problem(StatusCode::BAD_REQUEST, &text),
        PushRefusal::TooLarge(text) => problem(StatusCode::PAYLOAD_TOO_LARGE, &text),
        PushRefusal::Denied(text) => problem(StatusCode::UNAUTHORIZED, &text),
        PushRefusal::Later(text) => problem(StatusCode::SERVICE_UNAVAILABLE, &text),
        PushRefusal::Slow(text, seconds) => {
            let mut response = problem(StatusCode::TOO_MANY_REQUESTS, &text);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
    }
}

#[cfg(test)]
mod tests;
