//! Tests of the doors for telemetry.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use axum::{extract::Request, response::IntoResponse as _};
use medic_state::Digest;
use tower::ServiceExt as _;

use super::*;
use crate::http::{AlertRefusal, AlertSink, IncomingAlert, Readiness, Turns, router};

#[derive(Default)]
pub(in crate::http) struct Sink(pub(in crate::http) Mutex<Vec<Push>>);

#[async_trait]
impl PushSink for Sink {
    fn admit(&self, _: PushForm, sender: &Sender) -> Result<(), PushRefusal> {
        match sender.tenant.as_str() {
            "spent" => Err(PushRefusal::Slow("a tenant's quota".to_owned(), 3)),
            _ => Ok(()),
        }
    }

    async fn push(&self, push: Push) -> Result<PushTaken, PushRefusal> {
        let answer = match push.tenant.as_str() {
            "wrong" => Err(PushRefusal::Wrong("no message".to_owned())),
            "large" => Err(PushRefusal::TooLarge("a bomb".to_owned())),
            "denied" => Err(PushRefusal::Denied("a token is needed".to_owned())),
            "fast" => Err(PushRefusal::Slow("too fast".to_owned(), 7)),
            "later" => Err(PushRefusal::Later("no owner".to_owned())),
            "full" => Ok(PushTaken {
                samples: 3,
                refused: Some("no more series".to_owned()),
                rejected: 2,
            }),
            _ => Ok(PushTaken { samples: 3, ..PushTaken::default() }),
        };
        self.0.lock().unwrap().push(push);
        answer
    }
}

struct NoAlerts;

#[async_trait]
impl AlertSink for NoAlerts {
    fn admit(&self, _: &Sender) -> Result<(), AlertRefusal> {
        Ok(())
    }

    async fn take(&self, _: &Sender, _: Vec<IncomingAlert>) -> Result<Vec<String>, AlertRefusal> {
        Ok(Vec::new())
    }
}

pub(in crate::http) fn door(sink: &Arc<Sink>, token: Option<&str>) -> HttpDoor {
    HttpDoor {
        metrics: Arc::new(String::new),
        health: Arc::new(String::new),
        predictions: Arc::new(String::new),
        ready: Arc::new(Readiness::default),
        alerts: Arc::new(NoAlerts),
        pushes: sink.clone(),
        turns: Turns::default(),
        token: token.map(str::to_owned),
        clock: Arc::new(medic_raft::env::SystemClock),
    }
}

pub(in crate::http) fn request(path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Request {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body)).unwrap()
}

pub(in crate::http) async fn send(door: HttpDoor, request: Request) -> (u16, HeaderMap, String) {
    let response = router(door).oneshot(request).await.unwrap().into_response();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn the_form_is_told_by_the_headers() {
    let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    let proto = "application/x-protobuf";
    let cases = [
        ("/api/v1/write", proto, "snappy", Some(PushForm::RemoteWriteV1), 204),
        ("/api/v1/write", v2, "snappy", Some(PushForm::RemoteWriteV2), 204),
        ("/api/v1/write", proto, "gzip", None, 415),
        ("/api/v1/write", "text/plain", "snappy", None, 415),
        ("/v1/metrics", proto, "gzip", Some(PushForm::OtlpMetrics), 200),
        ("/v1/metrics", proto, "identity", Some(PushForm::OtlpMetrics), 200),
        ("/v1/metrics", proto, "zstd", None, 415),
        ("/v1/logs", "application/json", "gzip", Some(PushForm::OtlpLogs), 200),
        ("/v1/metrics", "text/plain", "identity", None, 415),
    ];
    for (path, kind, encoding, form, expected) in cases {
        let sink = Arc::new(Sink::default());
        let headers = [("content-type", kind), ("content-encoding", encoding)];
        let (status, _, body) = send(door(&sink, None), request(path, &headers, vec![1])).await;
        let seen = sink.0.lock().unwrap().first().map(|push| (push.form, push.encoding.gzip));
        assert_eq!((status, seen.map(|s| s.0)), (expected, form), "{path} {kind}: {body}");
        assert_eq!(seen.is_some_and(|s| s.1), form.is_some() && encoding == "gzip");
    }
}

#[tokio::test]
async fn every_refusal_has_its_status_and_its_reason() {
    for (tenant, expected, reason) in [
        ("fine", 204, ""),
        ("wrong", 400, "no message"),
        ("full", 400, "no more series"),
        ("denied", 401, "a token is needed"),
        ("large", 413, "a bomb"),
        ("fast", 429, "too fast"),
        ("later", 503, "no owner"),
    ] {
        let sink = Arc::new(Sink::default());
        let headers = [("x-scope-orgid", tenant)];
        let answer = send(door(&sink, None), request("/api/v1/write", &headers, vec![])).await;
        let (status, headers, body) = answer;
        assert_eq!((status, body.contains(reason)), (expected, true), "{tenant}: {body}");
        assert_eq!(headers.get("retry-after").is_some_and(|v| v == "7"), status == 429);
        let written = headers.get("x-prometheus-remote-write-samples-written");
        assert_eq!(written.is_some_and(|v| v == "3"), ["fine", "full"].contains(&tenant));
    }
}

#[tokio::test]
async fn tenants_and_tokens_reach_the_sink() {
    let sink = Arc::new(Sink::default());
    let own = Digest::of(&[b"s3cret"]).to_string();
    for (bearer, vouched) in [("Bearer s3cret", true), ("Bearer other", false), ("", false)] {
        let headers = [("authorization", bearer)];
        let path = "/api/v1/write?tenant=blue";
        assert_eq!(send(door(&sink, Some("s3cret")), request(path, &headers, vec![])).await.0, 204);
        let push = sink.0.lock().unwrap().pop().unwrap();
        assert_eq!((push.tenant.as_str(), push.vouched), ("blue", vouched));
        assert_eq!(push.token == Some(own.clone()), vouched);
    }
}

#[tokio::test]
async fn large_bodies_and_crowds_are_turned_away() {
    let sink = Arc::new(Sink::default());
    let large = vec![0; PUSH_BYTES_MAX + 1];
    assert_eq!(send(door(&sink, None), request("/api/v1/write", &[], large)).await.0, 413);
    let door = door(&sink, None);
    let _all = door.turns.pushes.semaphore().clone().acquire_many_owned(16).await.unwrap();
    tokio::time::pause();
    let (status, headers, _) = send(door.clone(), request("/api/v1/write", &[], vec![])).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (429, "1"));
    assert!(sink.0.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_may_not_push_is_told_before_its_body_is_there_and_a_slow_one_disturbs_nobody() {
    let sink = Arc::new(Sink::default());
    let door = door(&sink, None);
    let never = || Body::from_stream(futures::stream::pending::<std::io::Result<Vec<u8>>>());
    let slow = |tenant: &str| {
        let request = Request::post("/api/v1/write").header("x-scope-orgid", tenant);
        send(door.clone(), request.body(never()).unwrap())
    };
    let begun = tokio::time::Instant::now();
    let (status, headers, said) = slow("spent").await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (429, "3"), "{said}");
    // As many slow ones as there are turns, and more.
    let mut waiting = Vec::new();
    for _ in 0..40 {
        waiting.push(tokio::spawn(slow("blue")));
    }
    tokio::task::yield_now().await;
    assert_eq!(send(door.clone(), request("/api/v1/write", &[], vec![1])).await.0, 204);
    for one in waiting {
        assert_eq!(one.await.unwrap().0, 503, "Prometheus sends it again");
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(11));
    assert_eq!(sink.0.lock().unwrap().len(), 1);
}
