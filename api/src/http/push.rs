//! The doors that telemetry is pushed through: remote write here, OpenTelemetry in `otlp`.
//!
//! ```text
//!   POST /api/v1/write      Prometheus remote write 1.0 and 2.0, snappy
//! ```
//!
//! The tenant is named by `X-Scope-OrgID` or `?tenant=`. What may be pushed, and by whom, the sink
//! decides from manifests, first by what the head of a request says. Invariant: what is held of bodies
//! is bounded (see `turns`); who comes beyond that is told to wait (429).

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};

use super::{
    HttpDoor,
    caller::{Caller, Sender},
    default_tenant,
    otlp::{FRAME_BYTES, Framed},
    problem, retry_after,
    turns::{NoRoom, discard},
};

/// Bytes of a body as sent; Prometheus sends some 100 KiB at its defaults.
pub const PUSH_BYTES_MAX: usize = 4 << 20;

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
    /// Whether this sender may push now. Asked before its body is read; cheap.
    ///
    /// # Errors
    /// Why not.
    fn admit(&self, form: PushForm, sender: &Sender) -> Result<(), PushRefusal>;

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
    fn admit(&self, _: PushForm, _: &Sender) -> Result<(), PushRefusal> {
        Err(PushRefusal::Wrong("this node takes no telemetry in".to_owned()))
    }

    async fn push(&self, _: Push) -> Result<PushTaken, PushRefusal> {
        Err(PushRefusal::Wrong("this node takes no telemetry in".to_owned()))
    }
}

pub(super) fn routes() -> Router<HttpDoor> {
    Router::new().route("/api/v1/write", post(remote_write)).merge(super::otlp::routes())
}

async fn remote_write(State(door): State<HttpDoor>, caller: Caller, body: Body) -> Response {
    let form = match write_form(&caller.headers) {
        Ok(form) => form,
        Err(text) => return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &text),
    };
    let mut response = match push(&door, form, Encoding::default(), &caller, body).await {
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

/// Takes a push: whose it is, its body, its turn; the sink does the rest.
pub(super) async fn push(
    door: &HttpDoor,
    form: PushForm,
    encoding: Encoding,
    caller: &Caller,
    body: Body,
) -> Result<PushTaken, PushRefusal> {
    take(door, form, caller, body, PUSH_BYTES_MAX, |body| Ok((encoding, body))).await
}

/// The same for the one message of a gRPC call.
pub(super) async fn push_framed(
    door: &HttpDoor,
    form: PushForm,
    framed: Framed,
    caller: &Caller,
    body: Body,
) -> Result<PushTaken, PushRefusal> {
    let bytes_max = framed.bytes_max + FRAME_BYTES;
    take(door, form, caller, body, bytes_max, |body| framed.message(body)).await
}

async fn take(
    door: &HttpDoor,
    form: PushForm,
    caller: &Caller,
    body: Body,
    bytes_max: usize,
    message: impl FnOnce(Vec<u8>) -> Result<(Encoding, Vec<u8>), PushRefusal>,
) -> Result<PushTaken, PushRefusal> {
    let named = caller.headers.get("x-scope-orgid").and_then(|value| value.to_str().ok());
    let named = named.map(str::to_owned).or_else(|| caller.tenant.clone());
    let sender = caller.sender(door, named.unwrap_or_else(default_tenant));
    if let Err(refusal) = door.pushes.admit(form, &sender) {
        discard(body).await;
        return Err(refusal);
    }
    let lane = &door.turns.pushes;
    let kept = lane.read(caller.address, body, bytes_max).await.map_err(no_room)?;
    let _turn = lane.turn().await.map_err(no_room)?;
    let (body, _room) = kept.into_parts();
    let (encoding, body) = message(body)?;
    let Sender { tenant, token, vouched } = sender;
    door.pushes.push(Push { form, encoding, tenant, token, vouched, body }).await
}

/// Of what remote write and OTLP are answered they repeat 429 and 503 alone: a body that came too slowly
/// is no fault that is mended by dropping it.
fn no_room(why: NoRoom) -> PushRefusal {
    match why {
        NoRoom::Broken(error) => PushRefusal::Wrong(format!("the body cannot be read: {error}")),
        NoRoom::TooLarge(bytes_max) => PushRefusal::TooLarge(format!(
            "the body is larger than {bytes_max} bytes: send fewer samples at a time"
        )),
        NoRoom::TooSlow => PushRefusal::Later("the body came too slowly".to_owned()),
        NoRoom::Crowded => PushRefusal::Slow("too many pushes at once".to_owned(), 1),
    }
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
            retry_after(problem(StatusCode::TOO_MANY_REQUESTS, &text), seconds)
        }
    }
}

#[cfg(test)]
pub(in crate::http) mod tests;
