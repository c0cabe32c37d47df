//! OpenTelemetry over gRPC: tonic's own client, a socket, the node's door, and on to whoever watches.

use medic_api::http::{
    HttpDoor, Readiness, Turns,
    alerts::{AlertRefusal, AlertSink, IncomingAlert},
    serve_http,
};
use tonic::{
    Code, Request, Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

use super::*;
use crate::detection::intake::otlp_json;

const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// Messages as they are.
#[derive(Default)]
struct AsIs;

impl Codec for AsIs {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for AsIs {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, &item);
        Ok(())
    }
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for AsIs {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, length).to_vec()))
    }
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
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

/// A node's door for HTTP, over a hub.
async fn served(hub: Arc<Hub>) -> Channel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let nothing = || Arc::new(String::new);
    let door = HttpDoor {
        metrics: nothing(),
        ready: Arc::new(Readiness::default),
        health: nothing(),
        predictions: nothing(),
        alerts: Arc::new(NoAlerts),
        pushes: hub,
        turns: Turns::default(),
        token: None,
        clock: Env::system().clock,
    };
    tokio::spawn(serve_http(listener, door, std::future::pending()));
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Calls, and gives what was answered.
async fn call(channel: &Channel, path: &'static str, body: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    client.unary(Request::new(body), path, AsIs).await.map(tonic::Response::into_inner)
}

fn lines(lines: &[&str]) -> Vec<u8> {
    let records: Vec<_> = lines
        .iter()
        .map(|line| serde_json::json!({"severityText": "ERROR", "body": {"stringValue": line}}))
        .collect();
    let attribute =
        |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
    let told = serde_json::json!({"resourceLogs": [{
        "resource": {"attributes": [attribute("service.name", "web"), attribute("service.instance.id", "web-2")]},
        "scopeLogs": [{"logRecords": records}],
    }]});
    otlp_json::logs(told.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn lines_come_in_over_grpc_and_reach_whoever_watches() {
    let (one, other) = two(&TenantSpec::default());
    let channel = served(one.clone()).await;
    let told = lines(&["upstream 10.0.0.1 is slow", "upstream 10.0.0.2 is slow"]);
    assert_eq!(call(&channel, LOGS, told.clone()).await.unwrap(), b"", "all of it was taken");
    let web = target("web", "web-2");
    let errors = other
        .log_samples(&web)
        .into_iter()
        .find(|sample| sample.name == "medic_log_lines_total" && sample.labels["level"] == "error");
    assert_eq!(errors.map(|sample| sample.value), Some(2.0));
    assert!(one.log_samples(&web).is_empty(), "it is not this one's");
    // Torn, and of no use to anybody here.
    let torn = call(&channel, LOGS, told[..told.len() - 3].to_vec()).await.unwrap_err();
    assert_eq!(torn.code(), Code::InvalidArgument);
    assert!(torn.message().contains("no OTLP message"), "{torn}");
}

/// A delta counts once although it comes twice, and is of no use while a member takes it for a counter.
#[tokio::test]
async fn deltas_come_in_over_grpc_once_all_members_know_them() {
    let (one, _) = two(&TenantSpec::default());
    let channel = served(one.clone()).await;
    let at_ns = one.moment().wall_ms * 1_000_000;
    let told = serde_json::json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "solo"}}]},
        "scopeMetrics": [{"metrics": [{"name": "load", "sum": {
            "aggregationTemporality": 1, "isMonotonic": true,
            "dataPoints": [
                {"asInt": "2", "timeUnixNano": (at_ns - 1_000_000_000).to_string()},
                {"asInt": "3", "timeUnixNano": at_ns.to_string()},
                {"asInt": "3", "timeUnixNano": at_ns.to_string()},
            ],
        }}]}],
    }]});
    let told = otlp_json::metrics(told.to_string().as_bytes()).unwrap();
    // Whoever watches may be of an older build.
    let refused = call(&channel, METRICS, told.clone()).await.unwrap();
    let said = String::from_utf8_lossy(&refused).into_owned();
    assert!(said.contains("3 are of a form that is not read"), "{said}");
    assert_eq!(one.series(), 0);
    let newest = medic_state::CLUSTER_VERSION;
    one.ledger.state().write().unwrap().cluster_version = newest;
    for _ in 0..2 {
        assert_eq!(call(&channel, METRICS, told.clone()).await.unwrap(), b"");
    }
    let until = Instant::now() + Duration::from_secs(5);
    let solo = target("solo", "solo-1");
    let values = loop {
        if let Some(values) = one.values(&solo) {
            break values;
        }
        assert!(Instant::now() < until, "nothing was added up");
        tokio::task::yield_now().await;
    };
    assert_eq!(values.values["load"], 5.0, "each of them once");
}
