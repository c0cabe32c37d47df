//! A watch against an HTTPS server that speaks the protocol, with all that can go wrong.
//!
//! No API server of Kubernetes was at hand: what this one says follows the published API.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::{wire::LINE_BYTES_MAX, *};

/// What is answered to one request.
struct Answer {
    /// What must be in its head.
    asked: Vec<String>,
    status: u16,
    chunks: Vec<Vec<u8>>,
    /// The stream stays open.
    open: bool,
}

fn answer(asked: &[&str], chunks: &[&str]) -> Answer {
    let chunks = chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
    Answer {
        asked: asked.iter().map(|part| (*part).to_owned()).collect(),
        status: 200,
        chunks,
        open: false,
    }
}

/// Serves the answers in turn, one connection each; tells which were asked for, and what was missing.
async fn server(answers: Vec<Answer>) -> (String, String, mpsc::UnboundedReceiver<Vec<String>>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (served, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut bytes = [0; 1_024];
                let length = stream.read(&mut bytes).await.unwrap();
                assert!(length > 0, "the client left");
                head.extend_from_slice(&bytes[..length]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let missing = answer.asked.into_iter().filter(|part| !head.contains(part));
            served.send(missing.map(|part| format!("{part} in {head}")).collect()).unwrap();
            let begin = format!(
                "HTTP/1.1 {} It\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 transfer-encoding: chunked\r\n\r\n",
                answer.status
            );
            let mut sent = stream.write_all(begin.as_bytes()).await;
            for chunk in &answer.chunks {
                let size = format!("{:x}\r\n", chunk.len());
                for part in [size.as_bytes(), chunk, b"\r\n"] {
                    if sent.is_ok() {
                        sent = stream.write_all(part).await;
                    }
                }
            }
            // Whoever was sent too much has left.
            if sent.is_err() {
                continue;
            }
            stream.flush().await.unwrap_or_default();
            if answer.open {
                while stream.read(&mut [0; 64]).await.is_ok_and(|length| length > 0) {}
            } else {
                stream.write_all(b"0\r\n\r\n").await.unwrap_or_default();
                stream.shutdown().await.unwrap_or_default();
            }
        }
    });
    (url, made.cert.pem(), asked)
}

fn object(form: &str, reason: &str, version: u64, minute: u64) -> String {
    serde_json::json!({
        "metadata": {"name": "web-1.1", "namespace": "prod", "resourceVersion": version.to_string()},
        "type": form, "reason": reason, "message": "it is said",
        "involvedObject": {"kind": "Pod", "namespace": "prod", "name": "web-1"},
        "lastTimestamp": format!("2026-11-18T14:{minute:02}:00Z"), "eventTime": null,
    })
    .to_string()
}

fn line(form: &str, object: &str) -> String {
    format!("{{\"type\":\"{form}\",\"object\":{object}}}\n")
}

fn page(version: &str, next: &str, items: &[String]) -> String {
    format!(
        "{{\"metadata\":{{\"resourceVersion\":\"{version}\",\"continue\":\"{next}\"}},\"items\":[{}]}}",
        items.join(",")
    )
}

fn bookmark(version: &str) -> String {
    line("BOOKMARK", &format!("{{\"metadata\":{{\"resourceVersion\":\"{version}\"}}}}"))
}

/// The conversation: lists in pages, a watch with all kinds of lines, one that goes on, one whose history is
/// lost, one that never ends a line, one whose token is no longer good, and one that stays.
fn conversation() -> Vec<Answer> {
    let list = ["GET /api/v1/namespaces/prod/events?limit=500", "Bearer first"];
    let from = |version: u32| format!("resourceVersion={version} HTTP");
    let event = |form, reason, version| line("ADDED", &object(form, reason, version, 3));
    let backoff = event("Warning", "BackOff", 21);
    // A line may come in parts, and several at once.
    let (half, rest) = backoff.split_at(40);
    let long = format!("{{\"type\":\"{}\"}}\n", "x".repeat(LINE_BYTES_MAX));
    let lost = "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":410}}\n";
    let again = [object("Warning", "BackOff", 21, 3), object("Warning", "Unhealthy", 29, 9)];
    let endless = Answer {
        chunks: vec![vec![b'x'; 1024 * 1024]; 20],
        ..answer(&["watch=true", &from(30)], &[])
    };
    let denied = Answer { status: 401, ..answer(&["watch=true", "Bearer first"], &["{}"]) };
    let last = Answer {
        open: true,
        ..answer(&["watch=true", "Bearer second", &from(30)], &[&event("Normal", "Killing", 31)])
    };
    vec![
        answer(&list, &[&page("9", "a b", &[object("Normal", "Scheduled", 5, 1)])]),
        answer(
            &["&continue=a%20b", list[1]],
            &[&page("10", "", &[object("Warning", "Old", 6, 2)])],
        ),
        answer(
            &["watch=true", "allowWatchBookmarks=true", &from(10)],
            &[
                &bookmark("20"),
                "no json at all\n{\"type\":7}\n",
                half,
                rest,
                &long,
                &event("Normal", "Killing", 22),
            ],
        ),
        answer(&["watch=true", &from(22)], &[lost]),
        answer(&list, &[&page("30", "", &again)]),
        endless,
        denied,
        last,
    ]
}

#[tokio::test]
async fn lists_watches_and_begins_anew_whatever_the_server_does() {
    let (server, ca, mut asked) = server(conversation()).await;
    let folder = tempfile::tempdir().unwrap();
    let [ca_file, token_file] = ["ca.crt", "token"].map(|name| folder.path().join(name));
    std::fs::write(&ca_file, ca).unwrap();
    std::fs::write(&token_file, "first\n").unwrap();
    let config = KubeConfig {
        server: Some(server),
        ca_file: Some(ca_file),
        token_file: Some(token_file.clone()),
        namespace: Some("prod".to_owned()),
        ..KubeConfig::default()
    };
    config.check().unwrap();
    let seen: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let taker = {
        let seen = seen.clone();
        move |event: &Event, counts: bool| {
            assert_eq!((event.kind.as_str(), event.name.as_str()), ("Pod", "web-1"));
            seen.lock().unwrap().push((event.reason.clone(), counts));
            Taken::Taken
        }
    };
    let stop = CancellationToken::new();
    let watch = KubeWatch::new(config, Env::system(), Arc::new(taker));
    let running = tokio::spawn(watch.run(stop.clone()));
    for request in 0..8 {
        let missing = tokio::time::timeout(Duration::from_secs(30), asked.recv()).await;
        assert_eq!(missing.unwrap().unwrap(), Vec::<String>::new(), "request {request}");
        if request == 6 {
            std::fs::write(&token_file, "second").unwrap();
        }
    }
    let expected = [
        ("Scheduled", false),
        ("Old", false),
        ("BackOff", true),
        ("Killing", true),
        // Listed anew: the first is known, the second happened in the gap.
        ("BackOff", false),
        ("Unhealthy", true),
        ("Killing", true),
    ];
    let all = async {
        while seen.lock().unwrap().len() < expected.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    let seen: Vec<(&str, bool)> = seen.iter().map(|(name, news)| (name.as_str(), *news)).collect();
    assert_eq!(seen, expected);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stranger_is_told_no_token_and_a_flood_is_cut() {
    // Its certificate is of another authority.
    let (server, _, mut asked) = server(vec![answer(&[], &[])]).await;
    let stranger = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [ca_file, token_file] = ["ca.crt", "token"].map(|name| folder.path().join(name));
    std::fs::write(&ca_file, stranger.cert.pem()).unwrap();
    std::fs::write(&token_file, "secret").unwrap();
    let config = KubeConfig {
        server: Some(server),
        ca_file: Some(ca_file.clone()),
        token_file: Some(token_file),
        ..KubeConfig::default()
    };
    let count = Arc::new(Mutex::new(0_usize));
    let counted = count.clone();
    let taker = move |_: &Event, _: bool| {
        *counted.lock().unwrap() += 1;
        Taken::Taken
    };
    let watch = KubeWatch::new(config, Env::system(), Arc::new(taker));
    let bucket = Bucket::full(EVENTS_PER_SECOND_MAX, 0);
    let mut place = Place { version: None, newest: None, bucket, moved: false };
    let error = watch.session(&mut place).await.unwrap_err();
    assert!(matches!(error, KubeError::Connection(_)), "{error}");
    assert!(asked.try_recv().is_err(), "nothing was asked of it");
    std::fs::write(&ca_file, "no certificate").unwrap();
    let error = watch.session(&mut place).await.unwrap_err();
    assert!(error.to_string().contains("there is no certificate in it"), "{error}");
    // So many events in a moment are no evidence.
    let flood = line("ADDED", &object("Warning", "BackOff", 7, 1));
    for _ in 0..10_000 {
        watch.line(Piece::Line(flood.trim_end().as_bytes()), &mut place).unwrap();
    }
    let seconds = watch.begun.elapsed().as_secs() + 6;
    let most = usize::try_from(seconds * u64::from(EVENTS_PER_SECOND_MAX)).unwrap();
    assert!((1_000..=most).contains(&*count.lock().unwrap()), "{count:?}");
}

#[test]
fn a_pod_knows_its_server_and_bad_configurations_are_named() {
    let pod = |name: &str| match name {
        "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
        _ => None,
    };
    let url = KubeConfig::default().events(&pod).unwrap();
    assert_eq!(url, "https://[fd00::1]:443/api/v1/events");
    let nowhere = KubeConfig::default().events(&|_| None).unwrap_err();
    assert!(nowhere.to_string().contains("this node is in no pod"), "{nowhere}");
    for (server, namespace, key) in [
        (Some("http://example.com:6443"), None, Some("kubernetes.server")),
        (Some("https://user@example.com"), None, Some("kubernetes.server")),
        (None, Some("prod/../kube-system"), Some("kubernetes.namespace")),
        (Some("http://127.0.0.1:8001"), Some("prod"), None),
    ] {
        let config = KubeConfig {
            server: server.map(str::to_owned),
            namespace: namespace.map(str::to_owned),
            ..KubeConfig::default()
        };
        assert_eq!(config.check().err().map(|(key, _)| key), key, "{config:?}");
    }
}
