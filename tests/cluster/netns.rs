//! Network namespaces, for real: nodes in namespaces of their own, cut by the kernel, healed, and gone
//! afterwards; what a dead owner left is removed, and nothing of others.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use medic_chaos::{
    harness::{Cluster, ClusterOptions},
    netns::{self, Name, Network, Owner, Standing, Use, within},
};
use medic_proto::v1 as pb;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Anything that is waited for here takes less.
const PATIENCE: Duration = Duration::from_secs(60);

/// A dead port refuses within this; a wall says nothing.
const HANGS: Duration = Duration::from_millis(500);

/// Says plainly that a test could not be had, and why.
pub(crate) fn skipped() -> bool {
    use std::io::Write as _;
    let Some(why) = netns::reason() else { return false };
    writeln!(std::io::stderr().lock(), "SKIPPED: network namespaces are NOT tested: {why}")
        .unwrap();
    true
}

fn namespaces_of(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Name::parse(name).is_some_and(|name| name.owner.pid == pid))
        .collect()
}

/// What a node says of who leads; nothing when it does not answer.
async fn leader_by(cluster: &Cluster, node: u64) -> Option<u64> {
    let mut client = cluster.client_of(node, "admin").await.ok()?;
    let status = client.cluster().status(pb::StatusRequest {}).await.ok()?.into_inner();
    Some(status.leader).filter(|leader| *leader != 0)
}

/// Waits until a node names a leader that fits.
async fn named(cluster: &Cluster, node: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match leader_by(cluster, node).await {
            Some(leader) if fits(leader) => return leader,
            seen => assert!(Instant::now() < deadline, "node-{node} names {seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn nodes_answer_from_their_namespaces_fall_silent_when_cut_and_leave_nothing() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let standing = Standing::make(3).unwrap();
    let network = standing.network();
    // This test looks at them from the hub: its runtime lives there, and so do its sockets.
    let played = within(&network.path(Use::Hub), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(dir.path(), network));
    });
    played.unwrap();
    standing.remove().unwrap();
    assert_eq!(namespaces_of(std::process::id()), Vec::<String>::new());
}

async fn play(dir: &Path, network: Network) {
    let mut options = ClusterOptions::new(dir, 3, Vec::new());
    options.medic = env!("CARGO_BIN_EXE_medic-under-test").into();
    options.network = Some(network);
    let mut cluster = Cluster::prepare(options).await.unwrap();
    cluster.start().await.unwrap();
    let old = cluster.wait_for_leader(PATIENCE).await.unwrap();
    let follower = if old == 1 { 2 } else { 1 };
    let at = |node: u64| network.address(u8::try_from(node).unwrap());

    // Cut from the hub it answers nobody here: dropped, not refused.
    network.cut(&[(network.hub(), at(follower))]).unwrap();
    let began = Instant::now();
    cluster.client_of(follower, "admin").await.unwrap_err();
    assert!(began.elapsed() > HANGS, "it was refused at once");
    assert!(network.dropped().unwrap() > 0);
    network.cut(&[]).unwrap();
    named(&cluster, follower, |_| true).await;

    // A leader that its peers neither hear nor reach is replaced, while we still reach it.
    let others = (1..=3).filter(|node| *node != old);
    let ways: Vec<_> = others.flat_map(|o| [(at(old), at(o)), (at(o), at(old))]).collect();
    network.cut(&ways).unwrap();
    named(&cluster, follower, |leader| leader != old).await;
    cluster.client_of(old, "admin").await.unwrap();
    network.cut(&[]).unwrap();
    named(&cluster, old, |leader| leader != old).await;
    cluster.stop().await.unwrap();
}

#[test]
fn what_a_dead_owner_left_is_removed_and_nothing_of_others() {
    if skipped() {
        return;
    }
    let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success());
    let mut dead = Command::new("true").spawn().unwrap();
    let owner = Owner { pid: dead.id(), start: 1 };
    dead.wait().unwrap();
    let left = Name { owner, used: Use::Place(1) }.to_string();
    let own = Name { owner: Owner::this().unwrap(), used: Use::Place(1) }.to_string();
    let strange = format!("medic-of-somebody-{}", std::process::id());
    for name in [&left, &own, &strange] {
        ip(&["netns", "add", name]);
    }
    let path = |name: &str| Path::new("/run/netns").join(name);
    let mut sleeper =
        within(&path(&left), || Command::new("sleep").arg("600").spawn()).unwrap().unwrap();
    netns::sweep().unwrap();
    assert_eq!(sleeper.wait().unwrap().signal(), Some(9), "what runs in it is ended");
    assert!(!path(&left).exists(), "{left} is gone");
    for name in [&own, &strange] {
        assert!(path(name).exists(), "{name} is left alone");
        ip(&["netns", "delete", name]);
    }
}

#[test]
fn a_campaign_that_is_told_to_stop_leaves_no_namespace() {
    if skipped() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("told");
    let mut campaign = Command::new(env!("CARGO_BIN_EXE_campaign"))
        .args(["--minutes", "1", "--seed", "3", "--network", "namespaces", "--out"])
        .arg(dir.path())
        .env("MEDIC_BIN", env!("CARGO_BIN_EXE_medic-under-test"))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&log).unwrap().contains("round 1") {
        assert!(campaign.try_wait().unwrap().is_none(), "it ended before its first round");
        assert!(Instant::now() < deadline, "no round has begun");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Hub, three places, and a spare one.
    assert_eq!(namespaces_of(campaign.id()).len(), 5);
    kill(Pid::from_raw(i32::try_from(campaign.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(!campaign.wait().unwrap().success());
    // It goes through whoever keeps the network, and stays what it was.
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.contains("INTERRUPTED by SIGINT after "), "{told}");
    assert_eq!(namespaces_of(campaign.id()), Vec::<String>::new());
}
