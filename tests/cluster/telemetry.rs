//! Telemetry of every kind at the doors of real nodes: what an agent says of its host, OpenTelemetry's
//! logs and metrics, and bodies that were made to hurt.

use std::{io::Write as _, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use medic_node::detection::intake::otlp_json;

use super::{
    bad_input::{Watched, http_2, served},
    interop::taken,
    support::World,
};

const MANIFESTS: &str = r#"apiVersion: medic/v1
kind: Source
metadata: {name: collector}
spec: {type: otlp}
---
apiVersion: medic/v1
kind: Source
metadata: {name: written}
spec: {type: remote-write, serviceLabel: job}
---
apiVersion: medic/v1
kind: Service
metadata: {name: hosts}
spec:
  instances: [{name: host-1, agent: host-a}]
  indicators: [{name: memory, source: {gauge: medic_host_memory_used_ratio}, limit: "0.0001"}]
---
apiVersion: medic/v1
kind: Service
metadata: {name: logged}
spec:
  instances: [{name: logged-1}]
  indicators:
    - {name: error_lines, source: {gauge: 'medic_log_lines_total{level="error"}'}, limit: "2"}
    - {name: heat, source: {gauge: heat}}
"#;

/// POSTs to a node; gives the status and what it said.
async fn post(
    world: &World,
    node: u64,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> (u16, String) {
    let port = world.cluster.ports(node).unwrap().http;
    let mut request = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{port}{path}"))
        .timeout(Duration::from_secs(15))
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn logs(lines: &[&str]) -> Vec<u8> {
    let records: Vec<_> = lines
        .iter()
        .map(|line| serde_json::json!({"severityNumber": 17, "body": {"stringValue": line}}))
        .collect();
    let service = serde_json::json!({"key": "service.name", "value": {"stringValue": "logged"}});
    let told = serde_json::json!({"resourceLogs": [
        {"resource": {"attributes": [service]}, "scopeLogs": [{"logRecords": records}]}
    ]});
    told.to_string().into_bytes()
}

async fn reported(world: &World, service: &str, indicator: &str) -> bool {
    for summary in world.incidents().await {
        if summary.target.as_ref().is_some_and(|target| target.service == service) {
            let explained = world.explain(&summary.id).await;
            if explained.is_some_and(|all| format!("{all:?}").contains(indicator)) {
                return true;
            }
        }
    }
    false
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_and_logs_are_watched() {
    let mut world = World::start().await;
    world.apply(MANIFESTS).await;
    world
        .until("the host's memory is at its limit", || reported(&world, "hosts", "metric.memory"))
        .await;
    // Nodes that do not watch it hand it on; a moment without an owner is the sender's to bridge.
    for node in [1, 2, 3] {
        let sent = || async {
            let (status, said) =
                post(&world, node, "/v1/logs", &[JSON], logs(&["pool is empty"])).await;
            assert!(status == 200 || status == 503, "{status}: {said}");
            status == 200
        };
        world.until("the lines are taken", sent).await;
    }
    world
        .until("errors in the log are at their limit", || reported(&world, "logged", "error_lines"))
        .await;
    world.cluster.stop().await.unwrap();
}

/// A message in its frame.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], length.as_slice(), message].concat().into()
}

/// One message of a gauge, in its frame.
fn heat() -> Bytes {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let service = serde_json::json!({"key": "service.name", "value": {"stringValue": "logged"}});
    let point = serde_json::json!({"asDouble": 5.5, "timeUnixNano": now.as_nanos().to_string()});
    let told = serde_json::json!({"resourceMetrics": [{
        "resource": {"attributes": [service]},
        "scopeMetrics": [{"metrics": [{"name": "heat", "gauge": {"dataPoints": [point]}}]}],
    }]});
    framed(&otlp_json::metrics(told.to_string().as_bytes()).unwrap())
}

/// OpenTelemetry's own form: calls of gRPC, on the port of everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_and_logs_come_in_over_grpc() {
    const METRICS: &str =
        "http://node/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    const LOGS: &str = "http://node/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    let mut world = World::start().await;
    world.apply(MANIFESTS).await;
    let call = async |export: &str, body: Bytes| {
        let mut sender = http_2(&world, 2).await;
        let request = hyper::Request::post(export)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut said = answer.headers().clone();
        let body = answer.into_body().collect().await.unwrap();
        said.extend(body.trailers().cloned().unwrap_or_default());
        said["grpc-status"].to_str().unwrap().to_owned()
    };
    // A moment without an owner is UNAVAILABLE, and the sender's to bridge.
    let lines = framed(&otlp_json::logs(&logs(&["pool is empty"; 3])).unwrap());
    for (export, body) in [(METRICS, heat()), (LOGS, lines)] {
        world
            .until("the call is taken", || async {
                let status = call(export, body.clone()).await;
                assert!(["0", "14"].contains(&status.as_str()), "{status}");
                status == "0"
            })
            .await;
        assert_eq!(call(export, body.slice(..20)).await, "3", "INVALID_ARGUMENT");
    }
    assert!(taken(&world, "otlp").await >= 1.0);
    assert!(taken(&world, "otlp_logs").await >= 3.0);
    world
        .until("errors in the log are at their limit", || reported(&world, "logged", "error_lines"))
        .await;
    world.cluster.stop().await.unwrap();
}

fn gzip(size: usize) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..size >> 20 {
        out.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    out.finish().unwrap()
}

/// A body, and what is said about it.
struct Hostile {
    what: &'static str,
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
    status: u16,
    says: &'static str,
}

fn hostile() -> Vec<Hostile> {
    const PROTO: (&str, &str) = ("content-type", "application/x-protobuf");
    const GZIP: (&str, &str) = ("content-encoding", "gzip");
    const SNAPPY: (&str, &str) = ("content-encoding", "snappy");
    const TEXT: (&str, &str) = ("content-type", "text/plain");
    let one = |what, path, headers, body, status, says| Hostile {
        what,
        path,
        headers,
        body,
        status,
        says,
    };
    let gigabyte = gzip(1 << 30);
    // A block that says that it is 4 GiB.
    let lying = vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let deep = format!(r#"{{"resourceLogs":{}"#, "[".repeat(1 << 20)).into_bytes();
    let (metrics, logs, write) = ("/v1/metrics", "/v1/logs", "/api/v1/write");
    vec![
        one("a gigabyte in gzip", metrics, &[PROTO, GZIP], gigabyte.clone(), 413, "16777216 bytes"),
        one("a gigabyte of logs", logs, &[JSON, GZIP], gigabyte, 413, "16777216 bytes"),
        one("a lying snappy block", write, &[PROTO, SNAPPY], lying, 413, "when opened"),
        one("no gzip", logs, &[JSON, GZIP], b"rubbish".to_vec(), 400, "no gzip"),
        one("lists in lists", logs, &[JSON], deep, 400, "recursion"),
        one("five megabytes", logs, &[JSON], vec![b' '; 5 << 20], 413, "4194304"),
        one("rubbish", metrics, &[PROTO], vec![0xff; 1_000], 400, "no OTLP message"),
        one("another form", metrics, &[TEXT], Vec::new(), 415, "application/json"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_telemetry_is_refused_in_words_and_bounded_memory() {
    let mut world = World::start().await;
    world.apply(MANIFESTS).await;
    let watched = Watched::node(&mut world, 1);
    for Hostile { what, path, headers, body, status: expected, says } in hostile() {
        let (status, said) = post(&world, 1, path, headers, body).await;
        assert_eq!(status, expected, "{what}: {said}");
        assert!(said.contains(says), "{what}: {said} lacks {says}");
        assert!(said.len() < 1_024, "{what}: {} bytes of explanation", said.len());
        watched.check(what);
        served(&world, what).await;
    }
    // Every line another, as fast as it goes: templates are bounded, and so is what is sent.
    for round in 0..40 {
        let lines: Vec<String> = (0..5_000)
            .map(|n: u32| {
                let n = n + round * 5_000;
                let word = |at: u32| char::from(b'a' + (n >> (4 * at) & 15) as u8);
                let first: String = (0..5).map(word).collect();
                format!("{first} {}", "w ".repeat(n as usize % 30))
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (status, said) = post(&world, 1, "/v1/logs", &[JSON], logs(&lines)).await;
        assert!([200, 429, 503].contains(&status), "{status}: {said}");
    }
    watched.check("lines that are all different");
    served(&world, "lines that are all different").await;
    world.agree().await;
    world.cluster.stop().await.unwrap();
}
