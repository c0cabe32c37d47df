//! Tests of the doors for OpenTelemetry.
#![allow(clippy::unwrap_used, reason = "tests")]

use axum::{extract::Request, response::IntoResponse as _};
use tower::ServiceExt as _;

use super::*;
use crate::http::{
    push::tests::{Sink, door, request, send},
    router,
};

const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[flag], length.to_be_bytes().as_slice(), message].concat()
}

/// The status of a gRPC answer, wherever it stands, its message, and what was exported.
async fn call(sink: &std::sync::Arc<Sink>, request: Request) -> (i32, String, Option<Export>) {
    let response = router(door(sink, None)).oneshot(request).await.unwrap().into_response();
    assert_eq!(response.status(), 200, "gRPC says what is wrong in its own status");
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut said = response.headers().clone();
    let collected = response.into_body().collect().await.unwrap();
    said.extend(collected.trailers().cloned().unwrap_or_default());
    let text = |name: &str| said.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    let body = collected.to_bytes();
    let export = body.get(FRAME_BYTES..).map(|message| Export::decode(message).unwrap());
    (text("grpc-status").parse().unwrap(), text("grpc-message"), export)
}

#[tokio::test]
async fn a_call_hands_its_one_message_over() {
    for (path, form) in [(METRICS, PushForm::OtlpMetrics), (LOGS, PushForm::OtlpLogs)] {
        for gzip in [false, true] {
            let sink = std::sync::Arc::new(Sink::default());
            let mut headers = vec![("content-type", "application/grpc"), ("x-scope-orgid", "blue")];
            headers.extend(gzip.then_some(("grpc-encoding", "gzip")));
            let body = framed(u8::from(gzip), 3, b"abc");
            let (status, message, export) = call(&sink, request(path, &headers, body)).await;
            assert_eq!((status, message.as_str()), (0, ""));
            assert_eq!(export, Some(Export { partial_success: None }));
            let push = sink.0.lock().unwrap().pop().unwrap();
            assert_eq!(
                (push.form, push.tenant.as_str(), push.body),
                (form, "blue", b"abc".to_vec())
            );
            assert_eq!(push.encoding, Encoding { gzip, json: false });
        }
    }
}

#[tokio::test]
async fn what_is_refused_is_told_in_the_protocols_own_words() {
    let sink = std::sync::Arc::new(Sink::default());
    for (tenant, expected, reason) in [
        ("wrong", Code::InvalidArgument, "no message"),
        ("large", Code::InvalidArgument, "a bomb"),
        ("denied", Code::Unauthenticated, "a token is needed"),
        ("fast", Code::ResourceExhausted, "too fast"),
        ("later", Code::Unavailable, "no owner"),
    ] {
        let headers = [("content-type", "application/grpc"), ("x-scope-orgid", tenant)];
        let (status, message, _) = call(&sink, request(METRICS, &headers, framed(0, 0, b""))).await;
        let message = message.replace("%20", " ");
        assert_eq!((status, message.as_str()), (i32::from(expected), reason), "{tenant}");
    }
    let headers = [("content-type", "application/grpc"), ("x-scope-orgid", "full")];
    let (status, _, export) = call(&sink, request(LOGS, &headers, framed(0, 0, b""))).await;
    let partial = export.unwrap().partial_success.unwrap();
    assert_eq!((status, partial.rejected), (0, 2));
    assert_eq!(partial.error_message, "no more series");
}

#[tokio::test]
async fn frames_that_lie_are_named() {
    let sink = std::sync::Arc::new(Sink::default());
    let many = u32::try_from(PUSH_BYTES_MAX + 1).unwrap();
    for (encoding, body, reason) in [
        ("identity", Vec::new(), "no message"),
        ("identity", framed(0, 9, b"abc"), "9 bytes, but 3 came"),
        ("identity", framed(0, many, b""), "at most 4194304"),
        ("identity", framed(1, 3, b"abc"), "no grpc-encoding"),
        ("identity", framed(7, 3, b"abc"), "0 or 1, not 7"),
        ("zstd", framed(1, 3, b"abc"), "neither gzip nor identity"),
    ] {
        let headers = [("content-type", "application/grpc"), ("grpc-encoding", encoding)];
        let (status, message, _) = call(&sink, request(METRICS, &headers, body)).await;
        let message = message.replace("%20", " ").replace("%2C", ",");
        assert!(status != 0 && message.contains(reason), "{message} lacks {reason}");
    }
    let huge = framed(0, 3, &vec![0; PUSH_BYTES_MAX + 1]);
    let headers = [("content-type", "application/grpc")];
    assert_ne!(call(&sink, request(METRICS, &headers, huge)).await.0, 0);
    assert!(sink.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn over_http_both_forms_are_answered_alike() {
    let sink = std::sync::Arc::new(Sink::default());
    for (kind, path, json) in [
        ("application/json", "/v1/metrics", true),
        ("application/json; charset=utf-8", "/v1/logs", true),
        ("application/x-protobuf", "/v1/logs", false),
    ] {
        let headers = [("content-type", kind)];
        let (status, headers, _) = send(door(&sink, None), request(path, &headers, vec![])).await;
        assert_eq!((status, headers["content-type"] == JSON), (200, json), "{kind}");
        let push = sink.0.lock().unwrap().pop().unwrap();
        assert_eq!(
            (push.encoding.json, push.form == PushForm::OtlpLogs),
            (json, path == "/v1/logs")
        );
    }
    let headers = [("content-type", "application/json"), ("x-scope-orgid", "full")];
    let (status, _, body) = send(door(&sink, None), request("/v1/logs", &headers, vec![])).await;
    let expected =
        r#"{"partialSuccess":{"errorMessage":"no more series","rejectedLogRecords":"2"}}"#;
    assert_eq!((status, body.as_str()), (200, expected));
    let headers = [("content-type", "application/json"), ("x-scope-orgid", "fast")];
    let (status, headers, body) =
        send(door(&sink, None), request("/v1/logs", &headers, vec![])).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(body, r#"{"code":8,"message":"too fast"}"#);
}

/// tonic's own client, over a socket, with HTTP/2 as collectors speak it.
#[tokio::test]
async fn a_real_client_speaks_grpc_to_the_plain_port() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sink = std::sync::Arc::new(Sink::default());
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(crate::http::serve_http(
        listener,
        door(&sink, None),
        stop.clone().cancelled_owned(),
    ));
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<Problem, Export>::default();
    let path = axum::http::uri::PathAndQuery::from_static(METRICS);
    let sent = Problem { code: 5, message: "any message".to_owned() };
    let answer = client.unary(tonic::Request::new(sent.clone()), path, codec).await.unwrap();
    assert_eq!(answer.into_inner(), Export { partial_success: None });
    assert_eq!(sink.0.lock().unwrap()[0].body, sent.encode_to_vec());
    stop.cancel();
    serving.await.unwrap();
}

/// Whoever opens a connection and says nothing, or only the first bytes of HTTP/2, is shown out.
#[tokio::test(start_paused = true)]
async fn silence_is_not_waited_for() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    for said in [b"".as_slice(), b"PRI * HT"] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sink = std::sync::Arc::new(Sink::default());
        let serving = crate::http::serve_http(listener, door(&sink, None), std::future::pending());
        tokio::select! {
            () = serving => unreachable!("nothing stops it"),
            () = async {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                stream.write_all(said).await.unwrap();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap_or_default();
            } => {}
        }
    }
}
