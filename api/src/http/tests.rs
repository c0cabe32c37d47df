//! Tests of the HTTP door: what it says, and what it says to bad input.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;

use async_trait::async_trait;
use axum::body::Body;
use medic_state::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

use super::{alerts::BODY_BYTES_MAX, *};

#[derive(Default)]
struct Sink(Mutex<Vec<(String, IncomingAlert)>>);

#[async_trait]
impl AlertSink for Sink {
    fn admit(&self, sender: &Sender) -> Result<(), AlertRefusal> {
        match (sender.vouched, sender.tenant.as_str()) {
            (false, _) => Err(AlertRefusal::Denied("a token is needed".to_owned())),
            (true, "loud") => Err(AlertRefusal::Slow("too many alerts".to_owned(), 9)),
            (true, _) => Ok(()),
        }
    }

    async fn take(
        &self,
        sender: &Sender,
        alerts: Vec<IncomingAlert>,
    ) -> Result<Vec<String>, AlertRefusal> {
        let tenant = sender.tenant.as_str();
        match tenant {
            "atlantis" => Err(AlertRefusal::Wrong("there is no tenant `atlantis`".to_owned())),
            "busy" => Err(AlertRefusal::Later("no leader".to_owned())),
            _ => {
                let mut taken = self.0.lock().unwrap();
                taken.extend(alerts.into_iter().map(|alert| (tenant.to_owned(), alert)));
                Ok(Vec::new())
            }
        }
    }
}

fn door(sink: &Arc<Sink>, token: Option<&str>, ready: bool) -> HttpDoor {
    let reasons = if ready { Vec::new() } else { vec!["no leader is known".to_owned()] };
    HttpDoor {
        metrics: Arc::new(|| "incidents_total 1\n".to_owned()),
        health: Arc::new(|| r#"{"services":[]}"#.to_owned()),
        predictions: Arc::new(|| r#"{"predictions":[],"scores":[]}"#.to_owned()),
        ready: Arc::new(move || Readiness { ready, reasons: reasons.clone() }),
        alerts: sink.clone(),
        pushes: Arc::new(push::NoPushes),
        turns: Turns::default(),
        token: token.map(str::to_owned),
        clock: Arc::new(medic_raft::env::SystemClock),
    }
}

async fn send(door: HttpDoor, request: Request) -> (u16, String) {
    let response = router(door).oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn get_of(path: &str) -> Request {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post_to(path: &str, body: impl Into<Body>) -> Request {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

const ALERT: &str = r#"{"status":"firing","labels":{"alertname":"HighLatency","service":"web"},
    "startsAt":"2026-11-23T22:30:00Z"}"#;

fn webhook_body() -> String {
    format!(r#"{{"version":"4","alerts":[{ALERT}]}}"#)
}

#[tokio::test]
async fn it_says_how_the_node_is() {
    let sink = Arc::new(Sink::default());
    assert_eq!(send(door(&sink, None, true), get_of("/healthz")).await.0, 200);
    assert_eq!(send(door(&sink, None, true), get_of("/readyz")).await.0, 200);
    let (status, body) = send(door(&sink, None, false), get_of("/readyz")).await;
    assert_eq!((status, body.contains("no leader is known")), (503, true));
    let (status, body) = send(door(&sink, None, true), get_of("/metrics")).await;
    assert_eq!((status, body.as_str()), (200, "incidents_total 1\n"));
    let (status, body) = send(door(&sink, None, true), get_of("/api/v1/health")).await;
    assert_eq!((status, body.as_str()), (200, r#"{"services":[]}"#));
    let (status, body) = send(door(&sink, None, true), get_of("/api/v1/predictions")).await;
    assert_eq!((status, body.contains("scores")), (200, true));
}

#[tokio::test]
async fn alerts_reach_the_sink() {
    let sink = Arc::new(Sink::default());
    let door = door(&sink, None, true);
    let hook = post_to("/api/v1/alertmanager/blue", webhook_body());
    assert_eq!(send(door.clone(), hook).await.0, 200);
    assert_eq!(send(door, post_to("/api/v2/alerts", format!("[{ALERT}]"))).await.0, 200);
    let taken = sink.0.lock().unwrap();
    let tenants: Vec<&str> = taken.iter().map(|(tenant, _)| tenant.as_str()).collect();
    assert_eq!(tenants, ["blue", "default"]);
    assert!(taken[0].1.firing && taken[0].1.starts_at > Timestamp(0));
}

#[tokio::test]
async fn bad_posts_are_told_what_is_wrong() {
    let sink = Arc::new(Sink::default());
    let path = "/api/v1/alertmanager/default";
    let plain = Request::post(path).header("content-type", "text/plain").body(Body::empty());
    let cases = [
        (post_to(path, "not json"), 400),
        (post_to(path, "{}"), 400),
        (post_to(path, r#"{"alerts":[{"labels":7}]}"#), 400),
        (post_to(path, "x".repeat(BODY_BYTES_MAX + 1)), 413),
        (plain.unwrap(), 415),
        (post_to("/api/v1/alertmanager/atlantis", webhook_body()), 422),
        (post_to("/api/v1/alertmanager/busy", webhook_body()), 503),
        (post_to("/api/v1/alertmanager/loud", webhook_body()), 429),
        (get_of(path), 405),
        (get_of("/etc/passwd"), 404),
    ];
    for (request, expected) in cases {
        let uri = request.uri().clone();
        let (status, body) = send(door(&sink, None, true), request).await;
        assert_eq!(status, expected, "{uri}: {body}");
    }
    assert!(sink.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_token_is_demanded_where_one_is_set() {
    let sink = Arc::new(Sink::default());
    for (given, expected) in
        [(None, 401), (Some("Bearer no"), 401), (Some("s3cret"), 401), (Some("Bearer s3cret"), 200)]
    {
        let mut request = post_to("/api/v1/alertmanager/default", webhook_body());
        if let Some(given) = given {
            request.headers_mut().insert("authorization", given.parse().unwrap());
        }
        let (status, _) = send(door(&sink, Some("s3cret"), true), request).await;
        assert_eq!(status, expected, "{given:?}");
    }
    // Only alerts are guarded.
    assert_eq!(send(door(&sink, Some("s3cret"), true), get_of("/metrics")).await.0, 200);
}

#[tokio::test]
async fn connections_above_the_bound_are_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let sink = Arc::new(Sink::default());
    let door = door(&sink, None, true);
    let serving = tokio::spawn(serve_http(listener, door, std::future::pending()));
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_PER_ADDRESS_MAX {
        held.push(tokio::net::TcpStream::connect(addr).await.unwrap());
    }
    let mut refused = tokio::net::TcpStream::connect(addr).await.unwrap();
    assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
    let first = &mut held[0];
    first
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serving.abort();
}

/// Eight connections of 32 requests each once took a node hundreds of megabytes.
#[tokio::test]
async fn alerts_over_http_2_are_bounded_and_keep_nobody_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let sink = Arc::new(Sink::default());
    let door = door(&sink, None, true);
    let turns = door.turns.clone();
    let serving = tokio::spawn(serve_http(listener, door, std::future::pending()));
    let post = |body: Vec<u8>| {
        let request = Request::post("http://node/api/v1/alertmanager/default");
        request.header("content-type", "application/json").body(Body::from(body)).unwrap()
    };
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let stream = TokioIo::new(TcpStream::connect(addr).await.unwrap());
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        for _ in 0..STREAMS_MAX {
            let (mut sender, request) = (sender.clone(), post(vec![b' '; 1 << 20]));
            asked.spawn(async move {
                let answer = sender.send_request(request).await.unwrap();
                answer.status().as_u16()
            });
        }
    }
    let mut crowded = 0;
    while let Some(status) = asked.join_next().await {
        let status = status.unwrap();
        assert!([400, 429].contains(&status), "{status}");
        crowded += u32::from(status == 429);
    }
    assert!(crowded > 0, "not all at once");
    assert!(turns.alerts.bytes_peak() <= 2 << 20, "the share of one address");
    let stream = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let good = sender.send_request(post(webhook_body().into_bytes())).await.unwrap();
    assert_eq!((good.status().as_u16(), sink.0.lock().unwrap().len()), (200, 1));
    serving.abort();
}
