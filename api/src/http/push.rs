//! The doors that telemetry is pushed through: remote write here, OpenTelemetry in `otlp`.
//!
//! ```text
//!   POST /api/v1/write      Prometheus remote write 1.0 and 2.0, snappy
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
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    HttpDoor, bearer, default_tenant,
    otlp::{FRAME_BYTES, Framed},
    problem, read_body,
};

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
    /// OTLP `ExportMetricsServiceRequest`.
    OtlpMetrics,
    /// OTLP `ExportLogsServiceRequest`.
    OtlpLogs,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// It is gzip.
    pub gzip: bool,
    /// It is JSON, else protobuf.
    pub json: bool,
}

/// One push.
#[derive(Clone, Debug)]
pub struct Push {
    /// Its form.
    pub form: PushForm,
    /// How the body is written; snappy is part of a form.
    pub encoding: Encoding,
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
    /// What was dropped that the sender should know of. To remote write the answer is 400 then, to OTLP a
    /// partial success.
    pub refused: Option<String>,
    /// How many samples or lines that was.
    pub rejected: u64,
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
    Router::new().route("/api/v1/write", post(remote_write)).merge(super::otlp::routes())
}

/// The tenant, for senders that can set no headers.
#[derive(Deserialize)]
pub(super) struct TenantQuery {
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
    let mut response = match push(&door, form, Encoding::default(), query, &headers, body).await {
        Ok(taken) => written(taken),
        Err(refusal) => refused(refusal),
    };
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

/// Takes a push: its turn, its body, its tenant; the sink does the rest.
pub(super) async fn push(
    door: &HttpDoor,
    form: PushForm,
    encoding: Encoding,
    query: TenantQuery,
    headers: &HeaderMap,
    body: Body,
) -> Result<PushTaken, PushRefusal> {
    let _turn = turn(door).await?;
    let body = read(body, PUSH_BYTES_MAX).await?;
    hand_over(door, form, encoding, query, headers, body).await
}

/// The same for the one message of a gRPC call.
pub(super) async fn push_framed(
    door: &HttpDoor,
    form: PushForm,
    framed: Framed,
    query: TenantQuery,
    headers: &HeaderMap,
    body: Body,
) -> Result<PushTaken, PushRefusal> {
    let _turn = turn(door).await?;
    let body = read(body, framed.bytes_max + FRAME_BYTES).await?;
    let (encoding, message) = framed.message(body)?;
    hand_over(door, form, encoding, query, headers, message).await
}

async fn turn(door: &HttpDoor) -> Result<SemaphorePermit<'_>, PushRefusal> {
    match tokio::time::timeout(TURN_TIMEOUT, door.turns.0.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        Ok(Err(_)) | Err(_) => Err(PushRefusal::Slow("too many pushes at once".to_owned(), 1)),
    }
}

async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, PushRefusal> {
    let read = read_body(body, bytes_max, "send fewer samples at a time").await;
    read.map_err(|(status, text)| match status {
        StatusCode::PAYLOAD_TOO_LARGE => PushRefusal::TooLarge(text),
        _ => PushRefusal::Wrong(text),
    })
}

async fn hand_over(
    door: &HttpDoor,
    form: PushForm,
    encoding: Encoding,
    query: TenantQuery,
    headers: &HeaderMap,
    body: Vec<u8>,
) -> Result<PushTaken, PushRefusal> {
    let given = bearer(headers);
    let named = headers.get("x-scope-orgid").and_then(|value| value.to_str().ok());
    let push = Push {
        form,
        encoding,
        tenant: named.map(str::to_owned).or(query.tenant).unwrap_or_else(default_tenant),
        token: given.map(|token| Digest::of(&[token.as_bytes()]).to_string()),
        vouched: door.vouches(given),
        body,
    };
    door.pushes.push(push).await
}

/// What remote write is answered.
fn written(PushTaken { samples, refused, .. }: PushTaken) -> Response {
    let written = HeaderValue::from(samples);
    let mut response = match refused {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(why) => problem(StatusCode::BAD_REQUEST, &why),
    };
    response.headers_mut().insert("x-prometheus-remote-write-samples-written", written);
    response
}

pub(super) fn refused(refusal: PushRefusal) -> Response {
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
pub(in crate::http) mod tests;
