//! The doors for OpenTelemetry: metrics and logs, over HTTP and over gRPC, on one port.
//!
//! ```text
//!   POST /v1/metrics, /v1/logs                                   protobuf or JSON, gzip or plain
//!   POST /opentelemetry.proto.collector.{metrics,logs}.v1.…/Export      gRPC over HTTP/2 without TLS
//! ```
//!
//! What was refused in part is answered with `partial_success`, as the protocol has it; what is refused as
//! a whole with a `Status`, whose code says whether sending it again helps. The one message of a gRPC call
//! is taken out of its frame here, and opened within bounds where all others are: tonic's own
//! decompression is not needed, and a small body that grows large is refused like any other.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::post,
};
use http_body_util::{BodyExt as _, Full};
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    HttpDoor,
    caller::Caller,
    push::{Encoding, PUSH_BYTES_MAX, PushForm, PushRefusal, PushTaken, push},
};

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// A gRPC message begins with whether it is compressed, and its length.
pub const FRAME_BYTES: usize = 5;

/// `ExportMetricsServiceResponse` and `ExportLogsServiceResponse`: the same on the wire.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<Partial>,
}

/// `ExportMetricsPartialSuccess` and its like for logs.
#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct Problem {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

pub(super) fn routes() -> Router<HttpDoor> {
    const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    Router::new()
        .route("/v1/metrics", post(http_metrics))
        .route("/v1/logs", post(http_logs))
        .route(METRICS, post(grpc_metrics))
        .route(LOGS, post(grpc_logs))
}

type Asked = (State<HttpDoor>, Caller, Body);

async fn http_metrics(door: State<HttpDoor>, caller: Caller, body: Body) -> Response {
    over_http(PushForm::OtlpMetrics, (door, caller, body)).await
}

async fn http_logs(door: State<HttpDoor>, caller: Caller, body: Body) -> Response {
    over_http(PushForm::OtlpLogs, (door, caller, body)).await
}

async fn grpc_metrics(door: State<HttpDoor>, caller: Caller, body: Body) -> Response {
    over_grpc(PushForm::OtlpMetrics, (door, caller, body)).await
}

async fn grpc_logs(door: State<HttpDoor>, caller: Caller, body: Body) -> Response {
    over_grpc(PushForm::OtlpLogs, (door, caller, body)).await
}

fn media_type(headers: &HeaderMap) -> &str {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    given.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

async fn over_http(form: PushForm, (door, caller, body): Asked) -> Response {
    let json = match media_type(&caller.headers) {
        "application/x-protobuf" => false,
        "application/json" => true,
        _ => {
            let text = "OTLP is taken as application/x-protobuf or application/json";
            return super::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        }
    };
    let gzip = match caller.headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => {
            let text = "content-encoding is neither gzip nor absent";
            return super::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
        }
    };
    let kind = if json { JSON } else { PROTOBUF };
    match push(&door, form, Encoding { gzip, json }, &caller, body).await {
        Ok(taken) => {
            let body =
                if json { json_export(form, &taken) } else { export(&taken).encode_to_vec() };
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(refusal) => refused_over_http(&refusal, json),
    }
}

fn export(taken: &PushTaken) -> Export {
    let partial_success = taken.refused.as_ref().map(|why| Partial {
        rejected: i64::try_from(taken.rejected).unwrap_or(i64::MAX),
        error_message: why.clone(),
    });
    Export { partial_success }
}

/// As protobuf's JSON form has it: 64-bit numbers are texts.
fn json_export(form: PushForm, taken: &PushTaken) -> Vec<u8> {
    let Some(why) = &taken.refused else { return b"{}".to_vec() };
    let rejected = match form {
        PushForm::OtlpLogs => "rejectedLogRecords",
        PushForm::OtlpMetrics | PushForm::RemoteWriteV1 | PushForm::RemoteWriteV2 => {
            "rejectedDataPoints"
        }
    };
    let said = serde_json::json!({
        "partialSuccess": { rejected: taken.rejected.to_string(), "errorMessage": why },
    });
    said.to_string().into_bytes()
}

fn refused_over_http(refusal: &PushRefusal, json: bool) -> Response {
    let status = status_of(refusal);
    let mut response = super::push::refused(refusal.clone());
    let (kind, body) = if json {
        let said =
            serde_json::json!({"code": i32::from(status.code()), "message": status.message()});
        (JSON, said.to_string().into_bytes())
    } else {
        let problem = Problem { code: status.code().into(), message: status.message().to_owned() };
        (PROTOBUF, problem.encode_to_vec())
    };
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|_| Body::from(body))
}

/// Codes as OTLP has them: of these only UNAVAILABLE, and RESOURCE_EXHAUSTED that says when, are worth a
/// repetition.
fn status_of(refusal: &PushRefusal) -> Status {
    match refusal {
        PushRefusal::Wrong(text) | PushRefusal::TooLarge(text) => Status::invalid_argument(text),
        PushRefusal::Denied(text) => Status::unauthenticated(text),
        PushRefusal::Later(text) => Status::unavailable(text),
        PushRefusal::Slow(text, seconds) => {
            let wait = std::time::Duration::from_secs(*seconds);
            let details = ErrorDetails::with_retry_info(Some(wait));
            Status::with_error_details(Code::ResourceExhausted, text, details)
        }
    }
}

async fn over_grpc(form: PushForm, (door, caller, body): Asked) -> Response {
    if !media_type(&caller.headers).starts_with("application/grpc") {
        let text = "this path is for gRPC; over HTTP it is /v1/metrics and /v1/logs";
        return super::problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    match export_over_grpc(form, (door, caller, body)).await {
        Ok(taken) => answered(&export(&taken)),
        Err(status) => {
            let mut response = status.into_http::<Body>();
            accept_gzip(response.headers_mut());
            response
        }
    }
}

async fn export_over_grpc(
    form: PushForm,
    (door, caller, body): Asked,
) -> Result<PushTaken, Status> {
    let named = caller.headers.get("grpc-encoding").map(HeaderValue::as_bytes);
    let gzip = match named {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => {
            return Err(Status::unimplemented("grpc-encoding is neither gzip nor identity"));
        }
    };
    let encoding = Encoding { gzip, json: false };
    let framed = Framed { encoding, bytes_max: PUSH_BYTES_MAX };
    let taken = super::push::push_framed(&door, form, framed, &caller, body).await;
    taken.map_err(|refusal| status_of(&refusal))
}

/// How a message stands in its frame.
#[derive(Clone, Copy, Debug)]
pub struct Framed {
    /// What its call says of it.
    pub encoding: Encoding,
    /// Bytes that it may have.
    pub bytes_max: usize,
}

impl Framed {
    /// The one message of a call, and how it is encoded.
    ///
    /// # Errors
    /// When it is not one whole message.
    pub fn message(self, mut body: Vec<u8>) -> Result<(Encoding, Vec<u8>), PushRefusal> {
        let wrong = |text: String| Err(PushRefusal::Wrong(text));
        let Some((&[flag, a, b, c, d], message)) = body.split_first_chunk::<FRAME_BYTES>() else {
            return wrong("the call has no message".to_owned());
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.bytes_max {
            let bytes_max = self.bytes_max;
            let text = format!("a message of {length} bytes: at most {bytes_max} are taken");
            return Err(PushRefusal::TooLarge(text));
        }
        if length != message.len() {
            let text = format!("one message of {length} bytes, but {} came", message.len());
            return wrong(text);
        }
        let gzip = match flag {
            0 => false,
            1 if self.encoding.gzip => true,
            1 => {
                return wrong(
                    "the message is compressed, and no grpc-encoding says how".to_owned(),
                );
            }
            _ => return wrong(format!("a message's first byte is 0 or 1, not {flag}")),
        };
        body.drain(..FRAME_BYTES);
        Ok((Encoding { gzip, ..self.encoding }, body))
    }
}

/// A message in its frame, and the trailers of a call that went well.
fn answered(export: &Export) -> Response {
    let message = export.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    framed.extend_from_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(framed)).with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    accept_gzip(response.headers_mut());
    response
}

fn accept_gzip(headers: &mut HeaderMap) {
    let name = HeaderName::from_static("grpc-accept-encoding");
    headers.insert(name, HeaderValue::from_static("gzip,identity"));
}

#[cfg(test)]
mod tests;
