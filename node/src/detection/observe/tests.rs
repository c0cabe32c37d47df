//! Against real sockets on loopback.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use medic_proto::fleet::v1::{InstanceStatus, ProcessState};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    detection::{exposition::BODY_BYTES_MAX, probe::REPORT_AGE_MAX},
    world::Seen,
};

/// A fleet whose agents say one thing about everything.
struct Says(Option<Seen>);

impl FleetView for Says {
    fn seen(&self, _: &Target) -> Option<Seen> {
        self.0.clone()
    }

    fn connected(&self, _: &str) -> bool {
        self.0.is_some()
    }
}

fn says(state: ProcessState, age: Duration) -> Says {
    Says(Some(Seen {
        status: InstanceStatus { state: state.into(), ..InstanceStatus::default() },
        age,
    }))
}

/// Answers each connection by its request path.
async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    address
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = vec![0; 4096];
    let n = stream.read(&mut request).await?;
    let text = String::from_utf8_lossy(&request[..n]).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let ok = |body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let endless = b"HTTP/1.1 200 OK\r\n\r\n";
    match path.as_str() {
        "/ok" => stream.write_all(&ok("fine")).await,
        "/moved" => {
            stream
                .write_all(b"HTTP/1.1 302 Found\r\nlocation: /bad\r\ncontent-length: 0\r\n\r\n")
                .await
        }
        "/bad" => stream.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await,
        "/nonsense" => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await,
        "/closes" => Ok(()),
        "/html" => stream.write_all(&ok("<html><p>Not metrics</p></html>")).await,
        "/binary" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na \xff").await,
        "/metrics" => stream.write_all(&ok("requests 100\nmem 5\nbroken{ 1\nnan NaN\n")).await,
        "/labels" => {
            let labels: String = (0..10_000).map(|i| format!("l{i}=\"v\",")).collect();
            stream.write_all(&ok(&format!("mem{{{labels}}} 1\nmem 7\n"))).await
        }
        "/huge" => {
            stream.write_all(endless).await?;
            let chunk = vec![b'#'; 1024 * 1024];
            for _ in 0..=BODY_BYTES_MAX / chunk.len() {
                stream.write_all(&chunk).await?;
            }
            Ok(())
        }
        "/trickle" => {
            stream.write_all(endless).await?;
            loop {
                stream.write_all(b"mem 1\n").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        _ => std::future::pending().await,
    }
}

fn service(json: &str) -> (ServiceSpec, InstanceSpec) {
    let service = serde_json::from_str(json).unwrap();
    (service, serde_json::from_str(r#"{"name":"web-1"}"#).unwrap())
}

fn observer(fleet: Says) -> Observer {
    Observer::new(Arc::new(fleet), Env::system())
}

async fn probe_with(fleet: Says, kind: &str, timeout: &str) -> (Option<bool>, String) {
    let json = format!(r#"{{"probes":[{{"name":"p",{kind},"timeout":"{timeout}"}}]}}"#);
    let (service, instance) = service(&json);
    let seen = observer(fleet).observe("default", "web", &service, &instance).await;
    let why = seen.errors.get("probe.p").cloned().unwrap_or_default();
    (seen.probes.get("p").copied(), why)
}

async fn probe(kind: &str) -> (Option<bool>, String) {
    probe_with(Says(None), kind, "300ms").await
}

#[tokio::test]
async fn http_probes_tell_failures_apart() {
    let at = serve().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, good, why) in [
        (format!("http://{at}/ok"), Some(true), ""),
        (format!("http://{at}/moved"), Some(true), ""),
        (format!("http://{at}/bad"), Some(false), "HTTP status 503"),
        (format!("http://{at}/hangs"), Some(false), "no answer in time"),
        (format!("http://{at}/nonsense"), Some(false), "broken answer"),
        (format!("http://{at}/closes"), Some(false), "broken answer"),
        // A headers-only look: an endless body is not the probe's business.
        (format!("http://{at}/trickle"), Some(true), ""),
        (format!("http://{free}/ok"), Some(false), "connection refused"),
        ("http://no-such-host.invalid/".to_owned(), Some(false), "unreachable"),
        ("http://127.0.0.1:${port}/".to_owned(), None, "bad URL"),
        ("nonsense".to_owned(), None, "bad URL"),
    ] {
        let (got, reason) = probe_with(Says(None), &format!("\"http\":\"{url}\""), "2s").await;
        assert_eq!(got, good, "{url}: {reason}");
        assert!(reason.contains(why), "{url}: {reason}");
    }
}

#[tokio::test]
async fn tcp_probes_connect() {
    let at = serve().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(probe(&format!("\"tcp\":\"{at}\"")).await, (Some(true), String::new()));
    let (good, why) = probe(&format!("\"tcp\":\"{free}\"")).await;
    assert_eq!((good, why.as_str()), (Some(false), "connection refused"));
    let (good, why) = probe("\"tcp\":\"127.0.0.1\"").await;
    assert_eq!(good, None, "{why}");
}

#[tokio::test]
async fn grpc_probes_ask_the_health_service() {
    let (reporter, health) = tonic_health::server::health_reporter();
    let incoming = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = incoming.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(incoming);
    tokio::spawn(
        tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming),
    );
    let kind = format!("\"grpc\":\"http://{at}\"");
    assert_eq!(probe(&kind).await, (Some(true), String::new()));
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    let (good, why) = probe(&kind).await;
    assert_eq!(good, Some(false), "{why}");
    assert!(why.contains("NOT_SERVING"), "{why}");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (good, why) = probe(&format!("\"grpc\":\"http://{free}\"")).await;
    assert_eq!((good, why.as_str()), (Some(false), "connection refused"));
    let silent = serve().await;
    let (good, why) = probe(&format!("\"grpc\":\"http://{silent}\"")).await;
    assert_eq!((good, why.as_str()), (Some(false), "no answer in time"));
}

#[tokio::test]
async fn process_probes_believe_fresh_reports_only() {
    let fresh = Duration::from_secs(1);
    for (fleet, good, why) in [
        (says(ProcessState::Running, fresh), Some(true), ""),
        (says(ProcessState::Paused, fresh), Some(false), "process is paused"),
        (says(ProcessState::Dead, fresh), Some(false), "process is dead"),
        (says(ProcessState::Stopped, fresh), Some(false), "process is stopped"),
        (says(ProcessState::Dead, REPORT_AGE_MAX * 2), None, "20 s old"),
        (says(ProcessState::Unspecified, fresh), None, ""),
        (Says(None), None, "no agent has reported it"),
    ] {
        let (got, reason) = probe_with(fleet, "\"process\":true", "1s").await;
        assert_eq!(got, good, "{reason}");
        assert!(reason.contains(why), "{reason}");
    }
}

async fn scrape(url: &str) -> Observation {
    let (service, instance) = service(&format!(
        r#"{{"scrape":{{"url":"{url}"}},"indicators":[
            {{"name":"mem","source":{{"gauge":"mem"}}}},
            {{"name":"nan","source":{{"gauge":"nan"}}}},
            {{"name":"rate","source":{{"rate":"requests"}}}}]}}"#,
    ));
    observer(Says(None)).observe("default", "web", &service, &instance).await
}

#[tokio::test]
async fn scrapes_are_read_within_bounds() {
    let at = serve().await;
    for (path, error) in [
        ("bad", "HTTP status 503"),
        ("html", "not Prometheus text exposition"),
        ("binary", "not UTF-8"),
        ("huge", "larger than"),
        ("closes", "broken answer"),
        ("trickle", "longer than 3s"),
        ("hangs", "longer than 3s"),
    ] {
        let seen = scrape(&format!("http://{at}/{path}")).await;
        assert!(seen.metrics.is_empty());
        assert!(seen.errors["scrape"].contains(error), "{path}: {:?}", seen.errors);
    }
    let seen = scrape(&format!("http://{at}/labels")).await;
    assert_eq!(seen.metrics.get("mem"), Some(&7.0));
    let seen = scrape(&format!("http://{at}/metrics")).await;
    assert_eq!(seen.metrics, BTreeMap::from([("mem".to_owned(), 5.0)]));
    assert_eq!(seen.errors["metric.rate"], "needs a second scrape");
}

#[tokio::test]
async fn the_second_look_has_rates() {
    let at = serve().await;
    let (service, instance) = service(&format!(
        r#"{{"scrape":{{"url":"http://{at}/metrics"}},
            "indicators":[{{"name":"rate","source":{{"rate":"requests"}}}}]}}"#,
    ));
    let observer = observer(Says(None));
    assert!(observer.observe("default", "web", &service, &instance).await.metrics.is_empty());
    let second = observer.observe("default", "web", &service, &instance).await;
    assert_eq!(second.metrics.get("rate"), Some(&0.0));
}
