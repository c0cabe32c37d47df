//! What is made works; what is wrong is named.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use medic_state::{Millis, NodeId, Timestamp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::config::{AgentConfig, NodeConfig, TlsFiles};

const NOW: Timestamp = Timestamp(1_795_000_000_000);
const DAY: Millis = Millis::from_secs(86_400);

fn plan(out: &Path) -> InitPlan {
    InitPlan {
        cluster: "demo".to_owned(),
        out: out.to_owned(),
        nodes: 3,
        hosts: Vec::new(),
        regions: vec!["eu-1".to_owned(), "eu-2".to_owned()],
        agents: vec!["host-a".to_owned()],
        users: vec!["admin".to_owned(), "viewer".to_owned()],
        base_port: 7440,
        days: 30,
        data_dir: None,
    }
}

fn made() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = init(&plan(dir.path()), NOW).unwrap();
    (dir, layout)
}

fn files(layout: &Layout, unit: Unit, name: &str) -> TlsFiles {
    TlsFiles { ca: layout.ca_cert(), cert: layout.cert(unit, name), key: layout.key(unit, name) }
}

#[test]
fn init_makes_a_directory_that_starts() {
    let (_dir, layout) = made();
    for node in 1..=3 {
        let config = NodeConfig::load_with(&layout.node_config(node), |_| None).unwrap();
        assert_eq!(config.node, NodeId(node.into()));
        assert_eq!(config.members.len(), 3);
        assert_eq!(config.region, if node == 1 { "eu-1" } else { "eu-2" });
        let material = load(&config.tls, &config.cluster, Unit::Nodes, NOW).unwrap();
        assert_eq!(material.identity.name, format!("node-{node}"));
        assert!(material.server().is_some());
        assert!(material.identity.hosts.contains(&"127.0.0.1".to_owned()));
    }
    let agent = AgentConfig::load(&layout.agent_config("host-a")).unwrap();
    assert_eq!(agent.nodes, ["127.0.0.1:7440", "127.0.0.1:7450", "127.0.0.1:7460"]);
    let material = load(&agent.tls, "demo", Unit::Agents, NOW).unwrap();
    assert_eq!(material.identity.principal().unwrap().to_string(), "agent:host-a");
    assert!(material.server().is_none());
    for key in [layout.ca_key(), layout.key(Unit::Users, "admin")] {
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let serials: std::collections::BTreeSet<String> =
        layout.identities().unwrap().into_iter().map(|(_, identity)| identity.serial).collect();
    assert_eq!(serials.len(), 6);
    assert!(matches!(init(&plan(&layout.0), NOW), Err(SecurityError::Exists { .. })));
}

#[test]
fn hosts_may_be_names_and_data_may_lie_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..3)
        .map(|pod| format!("medic-{pod}.medic.self-healing-system.svc.cluster.local"))
        .collect();
    let data_dir = Some("/var/lib/medic".into());
    let plan = InitPlan { hosts: names.clone(), data_dir, ..plan(dir.path()) };
    let layout = init(&plan, NOW).unwrap();
    let config = NodeConfig::load_with(&layout.node_config(2), |_| None).unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/medic/node-2"));
    assert_eq!(config.listen.http.port(), 8080);
    assert_eq!(config.api_addr(), format!("{}:7440", names[1]));
    assert_eq!(config.members[&NodeId(3)], format!("{}:7441", names[2]));
    let material = load(&config.tls, "demo", Unit::Nodes, NOW).unwrap();
    assert!(material.identity.hosts.contains(&names[1]));
    let agent = AgentConfig::load(&layout.agent_config("host-a")).unwrap();
    assert_eq!(agent.state_dir, Path::new("/var/lib/medic/agent-host-a"));
}

#[test]
fn a_plan_that_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spoil: [fn(&mut InitPlan); 7] = [
        |p| p.nodes = 0,
        |p| p.hosts = vec!["a".to_owned()],
        |p| p.users.clear(),
        |p| p.users = vec!["a".to_owned(), "a".to_owned()],
        |p| p.agents = vec!["../evil".to_owned()],
        |p| p.cluster = "two words".to_owned(),
        |p| p.base_port = 65_530,
    ];
    for spoil in spoil {
        let mut plan = plan(dir.path());
        spoil(&mut plan);
        assert!(init(&plan, NOW).is_err(), "{plan:?}");
        assert!(!dir.path().join("ca.key").exists());
    }
}

#[test]
fn what_is_wrong_with_material_is_named() {
    let (dir, layout) = made();
    let (_other_dir, other) = made();
    let node = files(&layout, Unit::Nodes, "node-1");
    let check = |files: &TlsFiles, unit, cluster: &str, now, expected: &str| {
        let error = load(files, cluster, unit, now).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n  lacks {expected}");
    };
    let nowhere = TlsFiles { cert: dir.path().join("nowhere.crt"), ..node.clone() };
    check(&nowhere, Unit::Nodes, "demo", NOW, "cannot read");
    let swapped = TlsFiles { cert: node.key.clone(), ..node.clone() };
    check(&swapped, Unit::Nodes, "demo", NOW, "holds no certificate in PEM form");
    let keyless = TlsFiles { key: node.cert.clone(), ..node.clone() };
    check(&keyless, Unit::Nodes, "demo", NOW, "holds no private key in PEM form");
    let later = NOW.plus(Millis(31 * DAY.0));
    check(&node, Unit::Nodes, "demo", later, "expired at 2026-12-");
    let earlier = Timestamp(NOW.0 - DAY.0);
    check(&node, Unit::Nodes, "demo", earlier, "is valid only from");
    let mixed = TlsFiles { key: layout.key(Unit::Nodes, "node-2"), ..node.clone() };
    check(&mixed, Unit::Nodes, "demo", NOW, "is not the key of the certificate");
    let foreign = TlsFiles { ca: other.ca_cert(), ..node.clone() };
    check(&foreign, Unit::Nodes, "demo", NOW, "was not signed by the authority");
    check(&node, Unit::Agents, "demo", NOW, "is for `nodes` (organizational unit); `agents`");
    check(&node, Unit::Nodes, "prod", NOW, "belongs to cluster `demo`, not `prod`");
    let garbled = dir.path().join("garbled.crt");
    std::fs::write(&garbled, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let garbled = TlsFiles { cert: garbled, ..node.clone() };
    check(&garbled, Unit::Nodes, "demo", NOW, "holds a certificate that cannot be read");
    let error = ReloadableTls::open(&node, "demo", Unit::Nodes, "node-2", NOW).unwrap_err();
    assert!(error.to_string().contains("names `node-1`, not `node-2`"), "{error}");
}

#[test]
fn later_additions_and_renewal() {
    let (_dir, layout) = made();
    let nodes = ["10.0.0.1:7440".to_owned()];
    let agent = Newcomer::Agent { name: "host-b".to_owned(), nodes: nodes.to_vec() };
    let made = issue(&layout, agent.clone(), 30, NOW).unwrap();
    assert_eq!(AgentConfig::load(&made.config).unwrap().nodes, nodes);
    assert!(issue(&layout, agent, 30, NOW).is_err());
    let user = Newcomer::User { name: "carol".to_owned(), nodes: nodes.to_vec() };
    let made = issue(&layout, user, 30, NOW).unwrap();
    let contexts: crate::cli::Contexts =
        toml::from_str(&std::fs::read_to_string(made.config).unwrap()).unwrap();
    assert_eq!(contexts.contexts["carol"].nodes, nodes);
    assert!(contexts.contexts.len() > 1, "the others are still there");

    let node = files(&layout, Unit::Nodes, "node-1");
    let tls = ReloadableTls::open(&node, "demo", Unit::Nodes, "node-1", NOW).unwrap();
    let serial = tls.current().identity.serial.clone();
    assert!(!tls.reload(NOW).unwrap());
    let soon = NOW.plus(Millis(29 * DAY.0));
    assert_eq!(renew(&layout, &[], soon, 30, NOW).unwrap(), []);
    let renewed = renew(&layout, &["node-1".to_owned()], soon, 60, NOW).unwrap();
    assert_eq!(renewed.len(), 1);
    assert!(renewed[0].until.1 > renewed[0].until.0);
    assert!(tls.reload(NOW).unwrap());
    assert_ne!(tls.current().identity.serial, serial);
    assert!(tls.current().identity.hosts.contains(&"node-1".to_owned()));

    let good = tls.current().identity.serial.clone();
    std::fs::write(&node.cert, "half a file").unwrap();
    assert!(tls.reload(NOW).is_err());
    assert_eq!(tls.current().identity.serial, good);
    assert!(renew(&layout, &["nobody".to_owned()], soon, 60, NOW).is_err());
}

#[test]
fn a_node_that_joins_gets_a_configuration_that_starts() {
    let (_dir, layout) = made();
    let one = NodeConfig::load_with(&layout.node_config(1), |_| None).unwrap();
    let four = |hosts: &[&str], base_port| {
        let hosts = hosts.iter().map(ToString::to_string).collect();
        issue(&layout, Newcomer::Node { node: 4, hosts, base_port }, 30, NOW)
    };
    assert!(four(&[], None).unwrap_err().to_string().contains("--host"));
    let made = four(&["127.0.0.1"], None).unwrap();
    let config = NodeConfig::load_with(&made.config, |_| None).unwrap();
    assert!(config.join && config.admins.is_empty());
    assert_eq!(config.listen.api.port(), one.listen.api.port() + 30);
    assert_eq!(config.members, one.members);
    load(&config.tls, "demo", Unit::Nodes, NOW).unwrap();
    let hosts = vec!["m5.example.com".to_owned()];
    let five = issue(&layout, Newcomer::Node { node: 5, hosts, base_port: Some(9000) }, 30, NOW);
    let config = NodeConfig::load_with(&five.unwrap().config, |_| None).unwrap();
    assert_eq!(config.peer_addr(), "m5.example.com:9001");
}

/// Real handshakes over a pipe: who is let in, and who is not.
#[tokio::test]
async fn both_sides_prove_themselves() {
    let now = medic_raft::env::Clock::now(&medic_raft::env::SystemClock);
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let layout = init(&plan(dir.path()), now).unwrap();
        (dir, layout)
    };
    let ((_a, ours), (_b, theirs)) = (make(), make());
    let node = load(&files(&ours, Unit::Nodes, "node-1"), "demo", Unit::Nodes, now).unwrap();
    let agent = load(&files(&ours, Unit::Agents, "host-a"), "demo", Unit::Agents, now).unwrap();
    let stranger = load(&files(&theirs, Unit::Users, "admin"), "demo", Unit::Users, now).unwrap();
    assert!(shakes_hands(&node, &agent, "node-1").await.is_ok());
    assert!(shakes_hands(&node, &agent, "127.0.0.1").await.is_ok());
    assert!(shakes_hands(&node, &agent, "node-2").await.is_err());
    assert!(shakes_hands(&node, &stranger, "node-1").await.is_err());
}

async fn shakes_hands(server: &Material, client: &Material, name: &str) -> std::io::Result<()> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let acceptor = tokio_rustls::TlsAcceptor::from(server.server().unwrap());
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&client.client()));
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let accept = async {
        let mut stream = acceptor.accept(far).await?;
        stream.write_all(b"x").await?;
        stream.flush().await
    };
    let connect = async {
        let mut stream = connector.connect(name, near).await?;
        stream.read_exact(&mut [0; 1]).await.map(|_| ())
    };
    let (accepted, connected) = tokio::join!(accept, connect);
    accepted.and(connected)
}
