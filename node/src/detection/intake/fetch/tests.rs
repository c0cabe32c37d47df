//! Tests of asking sources: from a manifest to real sockets, and on to the instances that are watched.
#![allow(clippy::unwrap_used)]

mod speech;

use std::sync::Mutex;

use medic_api::manifest::parse_bundle;
use medic_raft::{LocalLedger, env::Env};
use medic_state::{
    BootId, Epoch, NodeId, ShardId,
    manifest::{Manifest, Stored},
    state::ShardState,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::*;
use crate::{detection::intake::srv, fixture, security::provide_crypto};

const SERVICES: &str = r#"
apiVersion: medic/v1
kind: Service
metadata: {name: victim}
spec:
  instances: [{name: victim-1, port: 81}]
  indicators: [{name: heat, source: {gauge: heat}}]
---
apiVersion: medic/v1
kind: Service
metadata: {name: web}
spec:
  instances: [{name: web-1}, {name: web-2}, {name: web-3}]
  indicators: [{name: heat, source: {gauge: heat}}]
"#;

fn state(bundle: &str) -> State {
    let mut state = State::new();
    for (index, manifest) in (1..).zip(parse_bundle(bundle).unwrap()) {
        let stored = Stored {
            digest: Manifest::digest(&manifest),
            manifest: Arc::new(manifest),
            index,
            by: "user:test".to_owned(),
            at: fixture::T0,
        };
        state.manifests.insert(stored.manifest.key(), stored);
    }
    let owned = ShardState { owner: Some(NodeId(1)), epoch: Epoch(1), ..ShardState::default() };
    let all = (0..medic_state::state::SHARDS).map(|shard| (ShardId(shard), owned));
    state.shards.extend(all);
    state
}

/// A node that watches everything, and the one Source of its bundle.
struct Lab {
    fetcher: Arc<Fetcher>,
    hub: Arc<Hub>,
    key: ManifestKey,
    source: SourceSpec,
    folder: tempfile::TempDir,
}

fn lab(source: &str, file: &str, servers: Option<Vec<SocketAddr>>) -> Lab {
    provide_crypto();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("targets.yaml"), file).unwrap();
    let secrets = folder.path().join("secrets");
    std::fs::create_dir_all(secrets.join("default")).unwrap();
    let bundle = format!(
        "{SERVICES}---\napiVersion: medic/v1\nkind: Source\nmetadata: {{name: it}}\nspec: {source}\n"
    );
    let law = LocalLedger::new(NodeId(1), BootId(1), Env::system());
    *law.state().write().unwrap() = state(&bundle);
    let hub = Hub::new(law.clone());
    let (key, source) = law.read(|state| own(state, NodeId(1))).pop_first().unwrap();
    let fetcher = Arc::new(Fetcher {
        ledger: law,
        hub: hub.clone(),
        client: probe::client().unwrap(),
        folder: folder.path().to_owned(),
        secrets: Secrets::new(Some(secrets)),
        certificates: Certificates::default(),
        servers,
    });
    Lab { fetcher, hub, key, source, folder }
}

impl Lab {
    /// Puts a secret of the source's tenant there, or another in its place.
    fn secret(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join("secrets/default").join(name), text).unwrap();
    }

    async fn round(&self) -> Round {
        self.fetcher.clone().round(self.key.clone(), self.source.clone(), 0).await
    }

    /// The heat of an instance, once what came in has been added up.
    async fn heat(&self, service: &str, instance: &str) -> Option<f64> {
        let target = crate::topology::target("default", service, instance);
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(values) = self.hub.values(&target) {
                return values.values.get("heat").copied();
            }
            if Instant::now() > until {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Answers whatever it is asked with this.
async fn shows(body: &str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let length = body.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4_096];
            if stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
            // Closing on what was not read would reset the connection.
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {}
        }
    });
    port
}

/// Takes connections and says nothing.
async fn hangs() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    port
}

/// A name server that knows one service, on this port of `localhost`.
async fn name_server(port: u16) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = vec![0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet).await {
            let mut answer = packet[..length].to_vec();
            // An answer, with one record; whatever else was asked along is not answered.
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            (answer[8..12]).fill(0);
            answer.extend_from_slice(b"\xc0\x0c\x00\x21\x00\x01\x00\x00\x00\x3c\x00\x11");
            answer.extend_from_slice(b"\x00\x01\x00\x01");
            answer.extend_from_slice(&port.to_be_bytes());
            answer.extend_from_slice(b"\x09localhost\x00");
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_list_a_file_and_a_name_lead_to_scrapes() {
    let (listed, filed, named) =
        (shows("heat 1\n").await, shows("heat 2\n").await, shows("heat 3\n").await);
    let spec = format!(
        "{{type: scrape, serviceLabel: job, instanceLabel: pod, scrape: {{labels: {{job: web, pod: web-3}}, \
         targets: ['127.0.0.1:{listed}'], file: targets.yaml, dns: {{name: localhost, port: {named}}}}}}}"
    );
    // What a file says of a target wins over what the source says of all.
    let file = format!("- targets: ['127.0.0.1:{filed}']\n  labels: {{pod: web-2}}\n");
    let lab = lab(&spec, &file, None);
    let round = lab.round().await;
    // `localhost` may lead to `::1` as well, where nobody listens.
    assert!(round.landed >= 3, "{round:?}");
    assert_eq!(lab.heat("web", "web-2").await, Some(2.0));
    // The list and the name are one instance by their labels: two series, told apart by `instance`.
    assert_eq!(lab.heat("web", "web-3").await, Some(4.0));
}

#[tokio::test]
async fn what_a_file_says_badly_is_left_out_and_named() {
    let port = shows("heat 2\n").await;
    let spec = "{type: scrape, serviceLabel: job, instanceLabel: pod, scrape: {labels: {job: web, pod: web-1}, file: targets.yaml}}";
    let file = format!(
        "- targets: ['a:1']\n  labels: {{__scheme__: ftp}}\n- targets: ['127.0.0.1:{port}']\n  labels: {{__param_x: y}}\n"
    );
    let lab = lab(spec, &file, None);
    let round = lab.round().await;
    let said = round.trouble().unwrap();
    assert_eq!(round.landed, 1);
    let expected = "file `targets.yaml`: the group of `a:1`: label `__scheme__`: it is neither `http` nor `https`";
    assert_eq!(said, expected);
    assert_eq!(lab.heat("web", "web-1").await, Some(2.0));
}

/// Its figures come in at each scrape, and are of the same time.
#[tokio::test]
async fn an_exporter_that_stands_still_is_no_news() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let minute_ago = now.as_millis() - 60_000;
    let (still, gone) = (
        shows(&format!("heat 7 {minute_ago}\n")).await,
        shows(&format!("heat 9 {}\n", minute_ago - 300_000)).await,
    );
    let spec = |honor: &str| {
        format!(
            "{{type: scrape, serviceLabel: job, instanceLabel: pod, scrape: {{{honor}labels: {{job: web, pod: web-1}}, \
             file: targets.yaml, targets: ['127.0.0.1:{still}']}}}}"
        )
    };
    let file = format!("- targets: ['127.0.0.1:{gone}']\n  labels: {{pod: web-2}}\n");
    let heeding = lab(&spec(""), &file, None);
    assert_eq!(heeding.round().await.landed, 2);
    assert_eq!(heeding.heat("web", "web-1").await, Some(7.0));
    assert_eq!(heeding.hub.series(), 1, "what is too old is nobody's");
    let said = format!("{:?}", heeding.round().await);
    let target = crate::topology::target("default", "web", "web-1");
    assert_eq!(heeding.hub.values(&target).map(|values| values.values.len()), None, "no news");
    let named = format!("127.0.0.1:{gone}: 1 samples say that they are more than five minutes old");
    assert!(said.contains(&named), "{said}");
    let all_at_once = lab(&spec("honorTimestamps: false, "), &file, None);
    assert_eq!(all_at_once.round().await.landed, 2);
    assert_eq!(all_at_once.heat("web", "web-2").await, Some(9.0));
}

#[tokio::test]
async fn records_of_a_service_lead_to_scrapes() {
    let port = shows("heat 7\n").await;
    let spec = "{type: scrape, serviceLabel: job, instanceLabel: pod, scrape: {labels: {job: web, pod: web-1}, \
                dns: {name: _heat._tcp.example.org, port: 1}}}";
    let servers = vec![name_server(port).await];
    let lab = lab(spec, "", Some(servers));
    let round = lab.round().await;
    assert_eq!((round.landed, round.trouble()), (1, None));
    assert_eq!(lab.heat("web", "web-1").await, Some(7.0));
    assert!(srv::is_srv("_heat._tcp.example.org"));
}

/// An exporter once had an incident opened about somebody else.
#[tokio::test]
async fn a_target_speaks_for_itself_unless_it_is_trusted_with_more() {
    let liar = shows("heat{service=\"victim\",instance=\"victim-1\"} 95\n").await;
    let honest = shows("heat 1\n").await;
    for (honor, victim, itself) in
        [("", None, Some(95.0)), ("honorLabels: true, ", Some(95.0), None)]
    {
        let spec = format!(
            "{{type: scrape, scrape: {{{honor}labels: {{service: web, instance: web-1}}, \
             targets: ['127.0.0.1:{liar}']}}}}"
        );
        let lab = lab(&spec, "", None);
        assert_eq!(lab.round().await.landed, 1);
        let (instance, value) = match victim {
            Some(_) => (("victim", "victim-1"), victim),
            None => (("web", "web-1"), itself),
        };
        assert_eq!(lab.heat(instance.0, instance.1).await, value, "{honor}");
        assert_eq!(lab.hub.series(), 1, "one series, and it is whose it should be");
    }
    // Without a label of its own the target is its address, whatever it says.
    let spec = format!("{{type: scrape, scrape: {{targets: ['127.0.0.1:{honest}']}}}}");
    let lab = lab(&spec, "", None);
    lab.round().await;
    assert_eq!(lab.hub.series(), 0);
}

#[tokio::test]
async fn one_target_that_hangs_keeps_nobodys_news_back_and_what_is_wrong_is_named() {
    let (good, hanging, torn) =
        (shows("heat 5\n").await, hangs().await, shows("heat NaN\nnonsense\n").await);
    let spec = format!(
        "{{type: scrape, serviceLabel: job, instanceLabel: pod, scrape: {{interval: 1s, labels: {{job: web}}, \
         file: targets.yaml, targets: ['127.0.0.1:{hanging}']}}}}"
    );
    let file = format!(
        "- targets: ['127.0.0.1:{good}']\n  labels: {{pod: web-1}}\n- targets: ['127.0.0.1:{torn}']\n  labels: {{pod: web-2}}\n"
    );
    let lab = lab(&spec, &file, None);
    let begun = Instant::now();
    let asking = tokio::spawn({
        let (fetcher, key, source) = (lab.fetcher.clone(), lab.key.clone(), lab.source.clone());
        fetcher.round(key, source, 0)
    });
    assert_eq!(lab.heat("web", "web-1").await, Some(5.0));
    let round = asking.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "bounded by its interval");
    assert_eq!(round.landed, 2);
    let said = format!("{round:?}");
    assert!(said.contains(&format!("127.0.0.1:{hanging}")), "{said}");
    assert!(said.contains("1 samples are infinite or no numbers"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn who_was_left_out_comes_first_next_time() {
    let lab = lab("{type: scrape, scrape: {targets: ['127.0.0.1:1']}}", "", None);
    let all: Vec<String> = (0..20).map(|n| format!("t{n:02}")).collect();
    let seen = Mutex::new(Vec::new());
    // The first ten hang: more than are asked at once.
    let one = |name: &String| {
        let (name, seen) = (name.clone(), &seen);
        async move {
            if name.as_str() < "t10" {
                std::future::pending::<()>().await;
            }
            seen.lock().unwrap().push(name);
            Ok(None)
        }
    };
    let mut next = 0;
    for (landed, trouble) in [(0, "and 15 more"), (10, "`t00`, `t01`")] {
        let until = Instant::now() + Duration::from_secs(15);
        let mut round = Round::default();
        let tasks = all.iter().map(|name| (name.clone(), one(name))).collect();
        lab.fetcher.each(tasks, (next, until), &mut round).await;
        assert_eq!(round.landed, landed);
        let said = round.trouble().unwrap();
        assert!(said.contains(trouble), "{said}");
        next = round.next;
    }
    assert_eq!(seen.lock().unwrap().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_round_that_panics_is_asked_again_at_its_next_interval() {
    let lab = lab("{type: scrape, scrape: {interval: 10s, targets: ['127.0.0.1:1']}}", "", None);
    let wanted = || BTreeMap::from([(lab.key.clone(), lab.source.clone())]);
    let mut rounds = Rounds::default();
    let mut begun = 0;
    for _ in 0..3 {
        rounds.begin(wanted(), |_, _, _| {
            begun += 1;
            async { panic!("a planted panic") }
        });
        let joined = rounds.tasks.join_next_with_id().await.unwrap();
        rounds.ended(joined);
        assert!(rounds.running.is_empty());
        // Not before its interval is over.
        rounds.begin(wanted(), |_, _, _| async { unreachable!("it is not due") });
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    assert_eq!(begun, 3);
    let said = rounds.known[&lab.key].said.as_ref().unwrap();
    assert!(said.0.contains("broke off"), "{}", said.0);
}

#[tokio::test]
async fn queries_are_asked_and_what_is_not_read_is_said() {
    let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
        {"metric":{"job":"web","instance":"web-1"},"value":[TIME,"4.5"]},
        {"metric":{"job":"web","instance":"web-2"},"value":[TIME,"soon"]}]}}"#;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let port = shows(&vector.replace("TIME", &now.as_secs().to_string())).await;
    let spec = format!(
        "{{type: prometheus, serviceLabel: job, query: {{url: 'http://127.0.0.1:{port}', \
         queries: [{{name: heat, query: 'heat'}}]}}}}"
    );
    let lab = lab(&spec, "", None);
    let stop = CancellationToken::new();
    let running = tokio::spawn(lab.fetcher.clone().run(stop.clone()));
    assert_eq!(lab.heat("web", "web-1").await, Some(4.5));
    stop.cancel();
    running.await.unwrap();
    let round = lab.round().await;
    assert_eq!(round.landed, 1);
    let said = round.trouble().unwrap();
    assert!(said.contains("query `heat`: 1 series have no number"), "{said}");
}
