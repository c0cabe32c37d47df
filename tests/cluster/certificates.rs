//! Strangers at the door, by their certificates: another authority, another cluster, the wrong kind,
//! none at all, one whose time is over; and connections that never say who they are.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use medic_chaos::harness::{Client, wall_clock};
use medic_node::{
    config::TlsFiles,
    security::{Authority, Issued, Layout, Material, Subject, Unit, load},
};
use medic_proto::v1 as pb;
use tokio::net::{TcpSocket, TcpStream};

use super::support::{LOOK, PATIENCE, World, read, refused};

/// Long enough for a cluster to start and do some work on a busy machine.
const SHORT_LIFE: Duration = Duration::from_secs(25);
/// An open connection outlives its certificate by no more than this.
const AFTER_THE_END: Duration = Duration::from_secs(5);
/// What a good caller waits for an answer while strangers crowd the door.
const CROWDED: Duration = Duration::from_secs(2);

/// Who a certificate is for.
fn subject(unit: Unit, name: &str, cluster: &str) -> Subject {
    let hosts = if unit == Unit::Nodes { vec!["127.0.0.1".to_owned()] } else { Vec::new() };
    Subject { name: name.to_owned(), cluster: cluster.to_owned(), unit, hosts }
}

/// A certificate of the cluster's own authority that is good for so long from now on.
fn short_lived(layout: &Layout, subject: &Subject, life: Duration) -> Issued {
    let mut issued_at = wall_clock();
    issued_at.0 += u64::try_from(life.as_millis()).unwrap();
    issued_at.0 -= 86_400_000;
    let authority = Authority::open(&layout.ca_cert(), &layout.ca_key()).unwrap();
    authority.issue(subject, issued_at, 1).unwrap()
}

/// Writes an identity under `folder` and loads it; it trusts every authority in `trusted`.
fn material(folder: &Path, subject: &Subject, issued: &Issued, trusted: &str) -> Material {
    let file = |ending: &str| folder.join(format!("{}.{ending}", subject.name));
    let files = TlsFiles { ca: file("ca"), cert: file("crt"), key: file("key") };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(&files.ca, trusted).unwrap();
    std::fs::write(&files.cert, &issued.cert).unwrap();
    std::fs::write(&files.key, &issued.key).unwrap();
    load(&files, &subject.cluster, subject.unit, wall_clock()).unwrap()
}

/// What a call on the control API says to this identity at this address; `Ok`: it was answered.
async fn call(address: &str, identity: &Material) -> Result<(), String> {
    let mut client = Client::connect(address, identity).await.map_err(|e| format!("{e:#}"))?;
    status(&mut client).await
}

async fn status(client: &mut Client) -> Result<(), String> {
    let answer = client.cluster().status(pb::StatusRequest {}).await;
    answer.map(drop).map_err(|status| format!("{status:?}"))
}

struct Doors {
    world: World,
    layout: Layout,
    folder: PathBuf,
    ours: String,
    api: String,
    peer: String,
}

impl Doors {
    async fn open() -> Self {
        let world = World::start().await;
        let layout = Layout(world.cluster.dir().to_owned());
        let (folder, ours) = (world.dir.path().join("strangers"), read(&layout.ca_cert()));
        let ports = world.cluster.ports(1).unwrap();
        let [api, peer] = [ports.api, ports.peer].map(|port| format!("127.0.0.1:{port}"));
        Self { world, layout, folder, ours, api, peer }
    }

    /// An identity of the cluster's own authority.
    fn own(&self, unit: Unit, name: &str, cluster: &str) -> Material {
        let subject = subject(unit, name, cluster);
        let issued = short_lived(&self.layout, &subject, Duration::from_secs(3_600));
        material(&self.folder.join(cluster), &subject, &issued, &self.ours)
    }

    /// An identity that says all the right things, signed by somebody else.
    fn foreign(&self, unit: Unit, name: &str) -> Material {
        let (authority, issued) = Authority::create("local", wall_clock(), 1).unwrap();
        let subject = subject(unit, name, "local");
        let both = format!("{}{}", self.ours, issued.cert);
        let issued = authority.issue(&subject, wall_clock(), 1).unwrap();
        material(&self.folder.join("foreign"), &subject, &issued, &both)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_certificate_opens_what_it_should_and_the_refused_are_told_why() {
    let mut doors = Doors::open().await;
    let (api, peer) = (doors.api.clone(), doors.peer.clone());
    // The right ones first: what follows is not refused for some other reason.
    call(&api, &doors.own(Unit::Users, "admin", "local")).await.unwrap();
    let node = doors.own(Unit::Nodes, "node-2", "local");
    let said = call(&peer, &node).await.unwrap_err();
    assert!(said.contains("Unimplemented"), "a node comes in at the peer port: {said}");

    for (address, identity, expected) in [
        (&api, doors.own(Unit::Agents, "host-a", "local"), "agent"),
        (&peer, doors.own(Unit::Users, "admin", "local"), "does not open the peer port"),
        (&peer, doors.own(Unit::Agents, "host-a", "local"), "does not open the peer port"),
        (&peer, doors.own(Unit::Nodes, "node-2", "elsewhere"), "for cluster `elsewhere`"),
        (&api, doors.own(Unit::Users, "admin", "elsewhere"), "for cluster `elsewhere`"),
    ] {
        let said = call(address, &identity).await.unwrap_err();
        assert!(said.contains("PermissionDenied"), "{said}");
        assert!(said.contains(expected), "{said}\n  lacks {expected}");
    }
    for (unit, name) in [(Unit::Users, "admin"), (Unit::Nodes, "node-2")] {
        for address in [&api, &peer] {
            let said = call(address, &doors.foreign(unit, name)).await.unwrap_err();
            assert!(!said.contains("PermissionDenied"), "refused before a call: {said}");
        }
    }
    for address in [&api, &peer] {
        let anonymous = async {
            let mut client = Client::connect_anonymously(address, &doors.ours).await;
            match &mut client {
                Ok(client) => status(client).await,
                Err(error) => Err(format!("{error:#}")),
            }
        };
        let said = anonymous.await.unwrap_err();
        assert!(!said.contains("PermissionDenied"), "refused before a call: {said}");
    }
    let log = doors.world.log("node-1");
    for reason in ["reason=\"wrong-role\"", "reason=\"wrong-cluster\"", "reason=\"handshake\""] {
        assert!(log.contains(reason), "the log lacks {reason}");
    }
    doors.world.agree().await;
    doors.world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_certificate_and_a_renewed_one_opens_again() {
    let mut doors = Doors::open().await;
    let who = subject(Unit::Users, "admin", "local");
    let life = Duration::from_secs(4);
    let issued = short_lived(&doors.layout, &who, life);
    let ends = Instant::now() + life;
    let identity = material(&doors.folder, &who, &issued, &doors.ours);
    let mut open = Client::connect(&doors.api, &identity).await.unwrap();
    status(&mut open).await.unwrap();
    while status(&mut open).await.is_ok() {
        assert!(Instant::now() < ends + AFTER_THE_END, "the connection outlives its certificate");
        tokio::time::sleep(LOOK).await;
    }
    // Certificates count whole seconds.
    assert!(Instant::now() + Duration::from_secs(1) >= ends, "it was good until its end");
    assert!(doors.world.log("node-1").contains("certificate expired; closing its connection"));
    call(&doors.api, &identity).await.unwrap_err();

    // Another node starts with a certificate that is over: it says so, and how to go on.
    doors.world.cluster.node_mut(3).unwrap().stop().await.unwrap();
    let node = subject(Unit::Nodes, "node-3", "local");
    let over = short_lived(&doors.layout, &node, Duration::ZERO);
    let (cert, key) =
        (doors.layout.cert(node.unit, &node.name), doors.layout.key(node.unit, &node.name));
    std::fs::write(cert, &over.cert).unwrap();
    std::fs::write(key, &over.key).unwrap();
    let said = refused("serve", &doors.world.cluster.node_config(3)).await;
    assert!(said.contains("expired at") && said.contains("medic certs renew"), "{said}");
    renew(&doors.world, &["node-3"]).await;
    doors.world.cluster.node_mut(3).unwrap().start().unwrap();
    doors.world.agree().await;
    doors.world.cluster.stop().await.unwrap();
}

async fn renew(world: &World, names: &[&str]) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_medic-under-test"))
        .args(["certs", "renew", "--dir"])
        .arg(world.cluster.dir())
        .args(names)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_cluster_whose_certificates_ran_out_is_healed_by_new_files_alone() {
    let mut world = World::start().await;
    let sample = world.sample("kept", 1);
    world.apply(&sample.manifest).await;
    world.up(&sample).await;
    world.cluster.stop().await.unwrap();
    let layout = Layout(world.cluster.dir().to_owned());
    let ends = Instant::now() + SHORT_LIFE;
    let nodes = (1..=3).map(|id| subject(Unit::Nodes, &format!("node-{id}"), "local"));
    for subject in nodes.chain([subject(Unit::Agents, "host-a", "local")]) {
        let issued = short_lived(&layout, &subject, SHORT_LIFE);
        std::fs::write(layout.cert(subject.unit, &subject.name), &issued.cert).unwrap();
        std::fs::write(layout.key(subject.unit, &subject.name), &issued.key).unwrap();
    }
    world.cluster.start().await.unwrap();
    world.cluster.wait_for_leader(SHORT_LIFE).await.unwrap();
    world.agree().await;
    assert!(Instant::now() < ends, "this machine is too slow for certificates of {SHORT_LIFE:?}");
    let pids: Vec<_> = (1..=3).map(|id| world.cluster.node_mut(id).unwrap().pid()).collect();

    while world.cluster.client("admin").await.is_ok() {
        assert!(Instant::now() < ends + AFTER_THE_END, "expired certificates are still served");
        tokio::time::sleep(LOOK).await;
    }
    renew(&world, &[]).await;
    world.agree().await;
    world
        .until("commands are taken again", || async {
            let Ok(mut client) = world.cluster.client("admin").await else { return false };
            let request =
                pb::ApplyManifestsRequest { text: sample.manifest.clone(), ..Default::default() };
            client.manifests().apply(request).await.is_ok()
        })
        .await;
    world
        .until("the agent is connected again", || async {
            let Ok(mut client) = world.cluster.client("admin").await else { return false };
            let Ok(agents) = client.cluster().list_agents(pb::ListAgentsRequest::default()).await
            else {
                return false;
            };
            let agents = agents.into_inner().agents;
            world.log("agent-host-a").contains("certificate renewed")
                && agents.iter().any(|agent| agent.name == "host-a" && agent.node.is_some())
        })
        .await;
    let after: Vec<_> = (1..=3).map(|id| world.cluster.node_mut(id).unwrap().pid()).collect();
    assert_eq!(pids, after, "nobody was restarted");
    assert_eq!(world.starts(&sample)["kept-1"], 1);
    world.cluster.stop().await.unwrap();
}

/// Connects from one of loopback's addresses and says nothing.
async fn silent(from: &str, port: u16) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    tokio::time::timeout(PATIENCE, socket.connect(to)).await.ok()?.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_connections_that_never_speak_keep_nobody_out() {
    let mut doors = Doors::open().await;
    let ports = doors.world.cluster.ports(1).unwrap();
    let admin = doors.own(Unit::Users, "admin", "local");
    let mut held = Vec::new();
    for from in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        for port in [ports.api, ports.peer] {
            for _ in 0..150 {
                held.push(silent(from, port).await);
            }
        }
        // The plain port has no handshake to tell strangers by: there, bounds are per address.
        if from != "127.0.0.1" {
            for _ in 0..150 {
                held.push(silent(from, ports.http).await);
            }
        }
        let asked = Instant::now();
        call(&doors.api, &admin).await.unwrap();
        let ready = reqwest::get(format!("http://127.0.0.1:{}/healthz", ports.http)).await.unwrap();
        assert!(ready.status().is_success());
        assert!(asked.elapsed() < CROWDED, "answered after {:?}", asked.elapsed());
    }
    assert_eq!(held.len(), 1_200);
    // New links between nodes come through the crowd too.
    doors.world.cluster.node_mut(2).unwrap().stop().await.unwrap();
    doors.world.cluster.node_mut(2).unwrap().start().unwrap();
    doors.world.agree().await;
    assert!(doors.world.log("node-1").contains("reason=\"too-many-handshakes\""));
    drop(held);
    doors.world.cluster.stop().await.unwrap();
}
