//! Oversized, malformed and hostile input on every door: each is refused with words that name what
//! is wrong, in bounded memory, and everybody else is served meanwhile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use medic_proto::v1 as pb;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::support::{PATIENCE, World, peak_memory};

/// What a node may take on top of what it took before, whatever is thrown at it at a time.
const GROWTH_BYTES_MAX: u64 = 96 << 20;
/// What anybody else waits for an answer meanwhile.
const SERVED_WITHIN: Duration = Duration::from_secs(3);

/// One node's memory before the attack; asked again after it.
pub(super) struct Watched {
    pid: i32,
    before: u64,
}

impl Watched {
    pub(super) fn node(world: &mut World, node: u64) -> Self {
        let pid = world.cluster.node_mut(node).unwrap().pid().unwrap();
        Self { pid, before: peak_memory(pid) }
    }

    pub(super) fn check(&self, what: &str) {
        let grown = peak_memory(self.pid).saturating_sub(self.before);
        assert!(grown < GROWTH_BYTES_MAX, "{what}: the node grew by {} MiB", grown >> 20);
    }
}

/// The first node answers a good question soon.
pub(super) async fn served(world: &World, what: &str) {
    let asked = Instant::now();
    let mut client = world.cluster.client_of(1, "admin").await.unwrap();
    client.cluster().status(pb::StatusRequest {}).await.unwrap();
    assert!(asked.elapsed() < SERVED_WITHIN, "{what}: others waited {:?}", asked.elapsed());
}

/// What the first node says to these manifests: code and message of its refusal.
async fn refusal(world: &World, text: String) -> String {
    let mut client = world.cluster.client_of(1, "admin").await.unwrap();
    let request = pb::ApplyManifestsRequest { text, ..Default::default() };
    match client.manifests().apply(request).await {
        Ok(answer) => panic!("it was taken: {answer:?}"),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// Manifests that cost more than they look like, and what is said about each.
fn hostile_manifests() -> Vec<(&'static str, String, &'static str)> {
    let billion_laughs = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, i| {
        format!("{text}a{i}: &a{i} [*a{p}, *a{p}]\n", p = i - 1)
    });
    let long_scalar = format!("a: &a {}\nb: [{}]", "x".repeat(500_000), "*a, ".repeat(50_000));
    let small_bomb = format!("a: &a [{}]\nb: [{}]\n---\n", "x,".repeat(100), "*a,".repeat(900));
    let unknown_key = format!("? {}\n: 1\n", "k".repeat(1_000_000));
    let mistakes: String = (0..50_000).map(|n| format!("k{n}: 1\n")).collect();
    vec![
        ("aliases of aliases", billion_laughs, "copy more than"),
        ("a long scalar, again and again", long_scalar, "copy more than"),
        ("a thousand small bombs", small_bomb.repeat(450), "copy more than"),
        ("lists in lists", "[".repeat(500_000), "InvalidArgument"),
        ("mappings in mappings", "{a: ".repeat(300_000), "InvalidArgument"),
        ("blocks in blocks", "- ".repeat(500_000), "InvalidArgument"),
        ("a key of a megabyte", unknown_key, "key `apiVersion` is missing"),
        ("fifty thousand mistakes", mistakes, "more"),
        ("many documents", "---\nx\n".repeat(2_000), "InvalidArgument"),
        ("binary", "\u{0}\u{1}\u{7f}".repeat(10_000), "InvalidArgument"),
    ]
}

/// Conditions that are huge, deep or slow, and what is said about each.
fn hostile_conditions() -> Vec<(String, &'static str)> {
    let list = format!("[{}]", vec!["1"; 90].join(","));
    let loops = (0..5).fold("true".to_owned(), |inner, n| format!("{list}.all(x{n}, {inner})"));
    vec![
        (loops, "more than 20000 steps"),
        (format!("{list}.all(x, 'aaaa'.matches('(a{{1000}}){{90}}'))"), "more than 20000 steps"),
        (format!("1{} > 0", "+1".repeat(2_000)), "nested deeper than"),
        (format!("symptom{} == 1", ".a".repeat(2_000)), "nested deeper than"),
        ("(".repeat(4_000), "spec.when"),
        ("[".repeat(4_000), "spec.when"),
        ("!".repeat(4_000), "spec.when"),
        ("-".repeat(4_000), "spec.when"),
        (format!("{}true", "true ? true : ".repeat(280)), "spec.when"),
        ("1".repeat(5_000), "longer than 4096 characters"),
        (format!("'{}' == ''", "x".repeat(1_000_000)), "longer than 4096 characters"),
    ]
}

fn playbook(condition: &str) -> String {
    let condition = serde_json::to_string(condition).unwrap();
    format!(
        "apiVersion: medic/v1\nkind: Playbook\nmetadata: {{name: costly}}\nspec:\n  mode: shadow\n  match: ['class=\"application/crash\"']\n  when: {condition}\n  steps: [{{name: restart, action: process.restart, timeout: 5s}}]\n  verify: {{expect: 'probe.process_alive == 1.0'}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_manifests_and_oversized_calls_are_refused_in_words() {
    let mut world = World::start().await;
    let watched = Watched::node(&mut world, 1);
    for (what, text, expected) in hostile_manifests() {
        let began = Instant::now();
        let said = refusal(&world, text).await;
        assert!(said.contains(expected), "{what}: {said:.2000}\n  lacks {expected}");
        assert!(said.len() < 8_192, "{what}: {} bytes of explanation", said.len());
        assert!(began.elapsed() < SERVED_WITHIN, "{what}: it took {:?}", began.elapsed());
        watched.check(what);
        served(&world, what).await;
    }
    for (condition, expected) in hostile_conditions() {
        let what = format!("{condition:.60}");
        let said = refusal(&world, playbook(&condition)).await;
        assert!(said.starts_with("InvalidArgument"), "{what}: {said:.2000}");
        assert!(said.contains(expected), "{what}: {said:.2000}\n  lacks {expected}");
        served(&world, &what).await;
    }
    for megabytes in [3, 100] {
        let said = refusal(&world, "#".repeat(megabytes << 20)).await;
        assert!(said.contains("2097152 bytes"), "it names the limit: {said}");
        watched.check("an oversized call");
        served(&world, "an oversized call").await;
    }
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

/// Writes until everything is written or the other side has had enough; gives what came back, and
/// how much was taken.
async fn pour(port: u16, head: &[u8], chunk: &[u8], total: usize) -> (String, usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut sent = 0;
    let poured = async {
        if stream.write_all(head).await.is_err() {
            return;
        }
        while sent < total {
            match stream.write(chunk).await {
                Ok(n) if n > 0 => sent += n,
                _ => return,
            }
        }
    };
    tokio::time::timeout(PATIENCE, poured).await.expect("the other side takes or refuses");
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    drop(read.await.expect("the other side ends the connection"));
    (String::from_utf8_lossy(&answer).into_owned(), sent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port_ends_the_connection_and_nothing_else() {
    let mut world = World::start().await;
    let watched = Watched::node(&mut world, 1);
    let ports = world.cluster.ports(1).unwrap();
    // Any bytes will do, as long as they are the same each time.
    let noise: Vec<u8> =
        (0..65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let client_hello_of_64k = [0x16, 3, 1, 0xff, 0xff, 1, 0, 0xff, 0xff];
    let http = b"POST /api/v1/alertmanager/default HTTP/1.1\r\nhost: x\r\n";
    for port in [ports.api, ports.peer, ports.http] {
        for head in
            [&noise[..], &client_hello_of_64k, &http[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
        {
            let (_, sent) = pour(port, head, &noise, 64 << 20).await;
            assert!(sent < 64 << 20, "port {port} takes any amount of garbage");
            served(&world, "garbage").await;
        }
    }
    watched.check("garbage");
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

/// An alert whose parts are as large as asked.
fn alert(name: &str, service: &str, extra: &str) -> String {
    format!(
        r#"{{"status":"firing","labels":{{"alertname":"{name}","service":"{service}","extra":"{extra}"}},"annotations":{{}},"startsAt":"2026-01-01T00:00:00Z"}}"#
    )
}

async fn post(world: &World, body: String) -> (u16, String) {
    let port = world.cluster.ports(1).unwrap().http;
    let request = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{port}/api/v1/alertmanager/default"))
        .header("content-type", "application/json")
        .timeout(PATIENCE)
        .body(body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// A connection to a node's HTTP door that speaks HTTP/2.
pub(super) async fn http_2(world: &World, node: u64) -> http2::SendRequest<Full<Bytes>> {
    let port = world.cluster.ports(node).unwrap().http;
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// 32 alerts of a megabyte at once on each of eight connections.
async fn flood(world: &World) -> Vec<u16> {
    let body = Bytes::from(format!("{{\"alerts\":[{}", " ".repeat((1 << 20) - 32)));
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let sender = http_2(world, 1).await;
        for _ in 0..32 {
            let mut sender = sender.clone();
            let request = Request::post("http://node/api/v1/alertmanager/default")
                .header("content-type", "application/json")
                .body(Full::new(body.clone()))
                .unwrap();
            asked.spawn(
                async move { sender.send_request(request).await.unwrap().status().as_u16() },
            );
        }
    }
    asked.join_all().await
}

const SOURCE: &str = r#"---
apiVersion: medic/v1
kind: Source
metadata: {name: alertmanager}
spec: {type: alertmanager}
---
apiVersion: medic/v1
kind: Policy
metadata: {name: default}
spec: {autoExecute: {confidence: 1.0, risk: 0.0}, autoResolveAfter: 1h}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_of_any_size_and_form_are_taken_or_refused_in_words() {
    let mut world = World::start().await;
    let sample = world.sample("alerted", 1);
    world.apply(SOURCE).await;
    world.apply(&sample.manifest).await;
    world.up(&sample).await;
    let watched = Watched::node(&mut world, 1);

    let port = world.cluster.ports(1).unwrap().http;
    let head = format!(
        "POST /api/v1/alertmanager/default HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        1_u64 << 30
    );
    let chunk = "{\"alerts\":[".repeat(6_000).into_bytes();
    let (answer, sent) = pour(port, head.as_bytes(), &chunk, 1 << 30).await;
    assert!(sent < 64 << 20, "{sent} bytes of a gigabyte were taken");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:.300}");
    assert!(answer.contains("larger than 1048576 bytes"), "{answer:.300}");
    watched.check("a gigabyte in one body");
    served(&world, "a gigabyte in one body").await;

    // Over one connection many may come at once.
    let answers = flood(&world).await;
    assert!(answers.iter().all(|status| [400, 429, 503].contains(status)), "{answers:?}");
    watched.check("alerts over HTTP/2");
    served(&world, "alerts over HTTP/2").await;

    let many = |count: usize, one: &str| format!("{{\"alerts\":[{}]}}", vec![one; count].join(","));
    let megabyte = "v".repeat(1 << 20);
    let nested = format!("{{\"alerts\":{}", "[".repeat(200_000));
    let unknown = alert(&"N".repeat(900_000), "nobody", "");
    for (what, body, code, expected) in [
        ("no JSON", "{\"alerts\":[".to_owned(), 400, "not an Alertmanager webhook"),
        ("a wrong type", "{\"alerts\":{\"a\":7}}".to_owned(), 400, "not an Alertmanager webhook"),
        ("deep JSON", nested, 400, "not an Alertmanager webhook"),
        ("100,000 alerts", many(100_000, &alert("A", "alerted", "")), 413, "send fewer alerts"),
        ("70,000 small alerts", many(70_000, "{\"labels\":{}}"), 422, "at most 1000"),
        ("a label of a megabyte", many(1, &alert("A", "alerted", &megabyte)), 413, "larger than"),
        ("a long name of nobody", many(1, &unknown), 200, "names no declared service"),
    ] {
        let (status, said) = post(&world, body).await;
        assert_eq!(status, code, "{what}: {said:.300}");
        assert!(said.contains(expected), "{what}: {said:.300}\n  lacks {expected}");
        assert!(said.len() < 4_096, "{what}: {} bytes of explanation", said.len());
        watched.check(what);
        served(&world, what).await;
    }

    // A name too long to be kept whole is kept in part, and its end is still understood.
    let long = alert(&"L".repeat(400_000), "alerted", &"v".repeat(400_000));
    assert_eq!(post(&world, many(1, &long)).await.0, 200);
    let seen = world.incident_when("alerted", "opened", |seen| seen.incident.is_some()).await;
    let incident = seen.incident.unwrap();
    assert!(format!("{incident:?}").len() < 64 << 10, "the incident is of bearable size");
    assert_eq!(post(&world, many(1, &long.replace("firing", "resolved"))).await.0, 200);
    world
        .incident_when("alerted", "cleared", |seen| {
            seen.incident
                .as_ref()
                .is_some_and(|incident| incident.symptoms.iter().all(|s| s.cleared_at.is_some()))
        })
        .await;
    watched.check("all of it");
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

/// A target that answers each path in another hostile way.
async fn hostile_target() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    port
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = vec![0; 4_096];
    let n = stream.read(&mut request).await?;
    let text = String::from_utf8_lossy(&request[..n]).into_owned();
    let sized =
        |body: String| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let pages = "# a comment of no interest\n".repeat(4_096);
    match text.split(' ').nth(1).unwrap_or_default() {
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(pages.as_bytes()).await?;
            }
        }
        "/trickle" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(b"mem 1\n").await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        "/gigabyte" => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 1_u64 << 30);
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(pages.as_bytes()).await?;
            }
        }
        "/compressed" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n";
            stream.write_all(&[&head[..], &[0x1f, 0x8b, 0xff, 0x00]].concat()).await
        }
        "/binary" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nm \xff").await,
        "/cut" => {
            let kind = "content-type: application/openmetrics-text; version=1.0.0";
            let body = sized("mem 1\n".into()).replacen("\r\n", &format!("\r\n{kind}\r\n"), 1);
            stream.write_all(body.as_bytes()).await
        }
        "/numbers" => {
            stream
                .write_all(
                    sized("mem NaN\nmem{a=\"1\"} +Inf\nmem{a=\"2\"} -Inf\n".into()).as_bytes(),
                )
                .await
        }
        "/labels" => {
            let labels: String = (0..10_000).map(|n| format!("l{n}=\"v\",")).collect();
            stream.write_all(sized(format!("mem{{{labels}}} 1\n")).as_bytes()).await
        }
        "/series" => {
            let series: String = (0..20_000).map(|n| format!("mem{{n=\"{n}\"}} 1\n")).collect();
            stream.write_all(sized(series).as_bytes()).await
        }
        _ => std::future::pending().await,
    }
}

/// What is scraped, and what the node that scrapes it says.
const TARGETS: [(&str, &str); 9] = [
    ("endless", "larger than 8388608 bytes"),
    ("trickle", "took longer than"),
    ("gigabyte", "larger than 8388608 bytes"),
    ("compressed", "encoded as `gzip`"),
    ("binary", "not UTF-8 text"),
    ("cut", "without its `# EOF`"),
    ("numbers", "3 samples that are not finite (the first: `mem NaN`)"),
    ("labels", "none of 1 lines is a sample"),
    ("series", "more than 10000 samples"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_scrape_targets_are_named_and_blind_nobody() {
    let mut world = World::start().await;
    let port = hostile_target().await;
    world.apply(SOURCE).await;
    let watched: Vec<_> = (1..=3).map(|id| Watched::node(&mut world, id)).collect();
    for (name, _) in TARGETS {
        world
            .apply(&format!(
                "apiVersion: medic/v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  scrape: {{url: \"http://127.0.0.1:{port}/{name}\", interval: 200ms}}\n  indicators: [{{name: memory, source: {{gauge: mem}}, limit: 1GiB}}]\n  instances: [{{name: {name}-1}}]\n"
            ))
            .await;
    }
    let good = world.sample("good", 1);
    world.apply(&good.manifest).await;
    world.up(&good).await;
    for (name, expected) in TARGETS {
        let what = format!("somebody says what is wrong with {name}");
        let named = |line: &str| {
            (line.contains("cannot be scraped") || line.contains("is scraped in part"))
                && line.contains(&format!("{name}/{name}-1"))
                && line.contains(expected)
        };
        world
            .until(&what, || async {
                (1..=3).any(|id| world.log(&format!("node-{id}")).lines().any(named))
            })
            .await;
    }
    // What is not finite is no measurement: nothing is wrong with that target.
    assert!(
        world.incidents().await.iter().all(|i| i.target.as_ref().unwrap().service != "numbers")
    );

    // Somebody else's trouble is seen as soon as ever.
    let process =
        medic_chaos::harness::processes_with(&world.dir.path().join("good").to_string_lossy());
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(process[0]),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let killed = Instant::now();
    world.incident_when("good", "reported down", |seen| seen.incident.is_some()).await;
    assert!(killed.elapsed() < Duration::from_secs(10), "seen after {:?}", killed.elapsed());
    for node in watched {
        node.check("hostile scrape targets");
    }
    world.agree().await;
    world.cluster.stop().await.unwrap();
}
