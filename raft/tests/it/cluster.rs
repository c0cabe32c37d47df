//! Three nodes and their fates.

use std::time::{Duration, Instant};

use medic_raft::{ClusterAdmin, Config, Ledger, LedgerError, LedgerExt, RecordQuery, StoredRecord};
use medic_state::{Command, NodeId};
use tokio::time::timeout;

use crate::harness::{Cluster, Node, PATIENCE, free_addr, registration};

async fn records(node: &Node) -> Vec<StoredRecord> {
    let mut all: Vec<StoredRecord> = Vec::new();
    loop {
        let after = all.last().map_or(0, |last| last.index);
        let page = node.raft.records(RecordQuery { after, limit: 3 }).unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elects_commits_and_forwards() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for (number, node) in (10..).zip(cluster.nodes.values()) {
        let committed = node.register(number, "a:1").await.unwrap();
        assert!(committed.answer.is_ok(), "{committed:?}");
        cluster.all_applied(committed.index).await;
    }
    let follower = cluster.node(cluster.followers(leader)[0]);
    let entry = registration(&follower.raft, 20, "a:1");
    let refused = follower.raft.propose_as_leader(entry).await.unwrap_err();
    assert!(matches!(refused, LedgerError::NotLeader), "{refused}");
    assert_eq!(follower.raft.lease_remaining(), Duration::ZERO);
    assert!(cluster.node(leader).raft.lease_remaining() > Duration::ZERO);
    let read = follower.raft.linearize().await.unwrap();
    assert!(read >= 3);
    let status = cluster.node(leader).raft.status();
    assert_eq!(status.members.len(), 3);
    assert!(status.members.iter().all(|member| member.voter && member.matched.is_some()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives_its_leader_and_takes_it_back() {
    let mut cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let before = cluster.node(old).register(10, "a:1").await.unwrap();
    cluster.all_applied(before.index).await;
    cluster.down(old).await;
    let survivor = cluster.followers(old)[0];
    let since = Instant::now();
    let after = cluster.node(survivor).register(11, "a:1").await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    let other = cluster.followers(survivor)[0];
    cluster.node(other).raft.linearize().await.unwrap();
    cluster.node(other).raft.read(|state| assert!(state.nodes.contains_key(&NodeId(11))));
    cluster.up(old).await;
    cluster.all_applied(after.index).await;
    let chain = records(cluster.node(old)).await;
    assert!(chain.len() >= 2);
    for node in cluster.nodes.values() {
        assert_eq!(records(node).await, chain);
    }
    cluster.stop().await;
}

/// What must not be done (an older copy under a cluster that went on) costs the copy, not the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_an_older_copy_is_caught_up() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let first = cluster.node(leader).register(10, "a:1").await.unwrap();
    cluster.all_applied(first.index).await;
    let victim = cluster.followers(leader)[0];
    let (dir, copy) = (cluster.dir(victim), cluster.dir(NodeId(99)));
    cluster.down(victim).await;
    copy_folder(&dir, &copy);
    cluster.up(victim).await;
    let later = cluster.node(leader).register(11, "a:1").await.unwrap();
    cluster.all_applied(later.index).await;
    cluster.down(victim).await;
    std::fs::remove_dir_all(&dir).unwrap();
    copy_folder(&copy, &dir);
    cluster.up(victim).await;
    let last = cluster.node(leader).register(12, "a:1").await.unwrap();
    cluster.all_applied(last.index).await;
    let status = cluster.node(leader).raft.status();
    assert!(status.fatal.is_none() && status.leadership.me, "{status:?}");
    cluster.stop().await;
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A node registers, as nodes do when they start.
async fn enrol(cluster: &Cluster, node: NodeId) -> u64 {
    let raft = &cluster.node(node).raft;
    let mut entry = registration(raft, node.0, "a:1");
    if let Command::RegisterNode(register) = &mut entry.command {
        register.boot = raft.boot();
    }
    let index = raft.propose(entry).await.unwrap().index;
    cluster.all_applied(index).await;
    index
}

async fn out_for_good(cluster: &Cluster, node: NodeId) {
    let mut fatal = cluster.node(node).raft.fatal();
    let reason = timeout(PATIENCE, fatal.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(reason.unwrap().contains("has run in this cluster before"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_data_does_not_come_back_under_its_id() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let victim = cluster.followers(leader)[0];
    let index = enrol(&cluster, victim).await;
    // With its data it does.
    cluster.down(victim).await;
    cluster.up(victim).await;
    cluster.node(victim).applied(index).await;
    assert_eq!(cluster.node(victim).raft.status().fatal, None);
    cluster.down(victim).await;
    std::fs::remove_dir_all(cluster.dir(victim)).unwrap();
    cluster.up(victim).await;
    out_for_good(&cluster, victim).await;
    // Whoever starts it again gets the same answer.
    cluster.down(victim).await;
    cluster.up(victim).await;
    out_for_good(&cluster, victim).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vote_of_a_node_that_lost_its_data_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (victim, late) = (cluster.followers(leader)[0], cluster.followers(leader)[1]);
    enrol(&cluster, victim).await;
    cluster.down(late).await;
    // Only these two have it.
    let acknowledged = cluster.node(leader).register(10, "a:1").await.unwrap();
    cluster.down(victim).await;
    cluster.down(leader).await;
    std::fs::remove_dir_all(cluster.dir(victim)).unwrap();
    cluster.up(late).await;
    cluster.up(victim).await;
    out_for_good(&cluster, victim).await;
    cluster.up(leader).await;
    for node in [late, leader] {
        cluster.node(node).applied(acknowledged.index).await;
        cluster.node(node).raft.read(|state| assert!(state.nodes.contains_key(&NodeId(10))));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_restarts_before_it_was_registered_is_no_stranger() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let young = cluster.followers(leader)[0];
    cluster.down(young).await;
    cluster.up(young).await;
    cluster.node(young).leader().await;
    for _ in 0..2 {
        enrol(&cluster, young).await;
        cluster.down(young).await;
        cluster.up(young).await;
    }
    let last = cluster.node(young).register(10, "a:1").await.unwrap();
    cluster.all_applied(last.index).await;
    assert_eq!(cluster.node(young).raft.status().fatal, None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_members_that_would_leave_no_quorum_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (dead, other) = (cluster.followers(leader)[0], cluster.followers(leader)[1]);
    let silent_ms = |cluster: &Cluster| {
        let members = cluster.node(leader).raft.status().members;
        members.iter().find(|member| member.node == dead).unwrap().silent_ms
    };
    let until = async |cluster: &Cluster, wanted: fn(u64) -> bool| {
        while !silent_ms(cluster).is_some_and(wanted) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Heard once, and then no more.
    timeout(PATIENCE, until(&cluster, |_| true)).await.unwrap();
    cluster.down(dead).await;
    timeout(PATIENCE, until(&cluster, |ms| ms > 1_000)).await.unwrap();
    let refused = cluster.node(leader).raft.remove(other).await.unwrap_err();
    assert!(matches!(refused, LedgerError::Refused(_)), "{refused}");
    assert!(refused.to_string().contains(&dead.to_string()), "{refused}");
    cluster.node(other).register(10, "a:1").await.unwrap();
    // The one that is gone may leave.
    cluster.node(other).raft.remove(dead).await.unwrap();
    assert_eq!(cluster.node(leader).raft.status().members.len(), 2);
    cluster.node(other).register(11, "a:1").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_promised() {
    let mut cluster = Cluster::empty(3).await;
    for node in 1..=3 {
        let mut config = cluster.config(NodeId(node));
        config.timing.propose_deadline = Duration::from_secs(2);
        cluster.nodes.insert(NodeId(node), Node::start(config).await.unwrap());
    }
    let leader = cluster.leader().await;
    let followers = cluster.followers(leader);
    cluster.node(leader).register(10, "a:1").await.unwrap();
    for follower in followers {
        cluster.down(follower).await;
    }
    let alone = cluster.node(leader);
    let error = alone.register(11, "a:1").await.unwrap_err();
    let expected = matches!(error, LedgerError::Ambiguous(_) | LedgerError::Unavailable(_));
    assert!(expected, "{error}");
    assert_eq!(alone.raft.lease_remaining(), Duration::ZERO);
    let error = alone.raft.linearize().await.unwrap_err();
    assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_gets_snapshot_and_records() {
    let mut cluster = Cluster::empty(3).await;
    cluster.snapshot_every = 20;
    for node in 1..=3 {
        cluster.up(NodeId(node)).await;
    }
    let leader = cluster.leader().await;
    for number in 100..200 {
        cluster.node(leader).register(number, "a:1").await.unwrap();
    }
    let newcomer = NodeId(4);
    let addr = free_addr().await;
    let mut config = cluster.config(leader);
    config = Config { node_id: newcomer, data_dir: cluster.dir(newcomer), ..config };
    config.peer_addr.clone_from(&addr);
    config.bootstrap = false;
    cluster.nodes.insert(newcomer, Node::start(config).await.unwrap());
    let follower = cluster.followers(leader)[0];
    cluster.node(follower).raft.add_learner(newcomer, addr).await.unwrap();
    let last = cluster.node(follower).register(300, "a:1").await.unwrap();
    cluster.all_applied(last.index).await;
    let snapshot = cluster.node(newcomer).raft.status().snapshot;
    assert!(snapshot.is_some(), "the log no longer reaches back to the beginning");
    let chain = records(cluster.node(leader)).await;
    assert!(chain.len() >= 101, "{}", chain.len());
    assert_eq!(records(cluster.node(newcomer)).await, chain);

    cluster.node(newcomer).raft.promote(newcomer).await.unwrap();
    let status = cluster.node(leader).raft.status();
    assert!(status.members.iter().any(|member| member.node == newcomer && member.voter));
    cluster.stop().await;
}

/// In a young cluster nobody is many entries behind: that is no sign of life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_nobody_hears_has_not_caught_up_and_gets_no_vote() {
    let mut cluster = Cluster::empty(1).await;
    let (leader, newcomer) = (NodeId(1), NodeId(5));
    let mut config = cluster.config(leader);
    config.timing.catch_up_deadline = Duration::from_secs(1);
    cluster.nodes.insert(leader, Node::start(config.clone()).await.unwrap());
    // The founding is committed: until then members do not change.
    cluster.node(leader).register(10, "a:1").await.unwrap();
    let raft = &cluster.node(leader).raft;
    let (nowhere, addr) = (free_addr().await, free_addr().await);
    let late = raft.add_learner(newcomer, nowhere.clone()).await.unwrap_err();
    assert!(matches!(late, LedgerError::Refused(_)), "{late}");
    for part in ["node-5 is a learner now", "nothing was heard of it", "reaches its peers"] {
        assert!(late.to_string().contains(part), "{late}");
    }
    let unfit = raft.promote(newcomer).await.unwrap_err();
    assert!(matches!(unfit, LedgerError::Refused(_)), "{unfit}");
    assert!(unfit.to_string().contains("node-5 does not answer"), "{unfit}");
    let voters = || raft.status().members.iter().filter(|member| member.voter).count();
    assert_eq!(voters(), 1);
    // The way out that it names: removed, the same number is added where the node is.
    let moved = raft.add_learner(newcomer, addr.clone()).await.unwrap_err();
    assert!(moved.to_string().contains(&nowhere), "{moved}");
    raft.remove(newcomer).await.unwrap();
    config = Config { node_id: newcomer, data_dir: cluster.dir(newcomer), ..config };
    config.peer_addr.clone_from(&addr);
    config.bootstrap = false;
    let fifth = Node::start(config).await.unwrap();
    raft.add_learner(newcomer, addr).await.unwrap();
    assert!(fifth.raft.status().last_log > 0, "it has the log");
    raft.promote(newcomer).await.unwrap();
    assert_eq!(voters(), 2);
    fifth.stop().await;
    cluster.stop().await;
}

/// A wait for a learner that does not come holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_may_be_removed_while_it_is_waited_for() {
    let cluster = Cluster::start(1).await;
    cluster.node(NodeId(1)).register(10, "a:1").await.unwrap();
    let raft = &cluster.node(NodeId(1)).raft;
    let adding = raft.add_learner(NodeId(5), free_addr().await);
    let removing = async {
        while !raft.status().members.iter().any(|member| member.node == NodeId(5)) {
            tokio::task::yield_now().await;
        }
        // The change itself ends first.
        while let Err(error) = raft.remove(NodeId(5)).await {
            assert!(error.to_string().contains("in progress"), "{error}");
        }
    };
    let both = async { tokio::join!(adding, removing) };
    let (added, ()) = timeout(PATIENCE, both).await.unwrap();
    assert!(added.unwrap_err().to_string().contains("removed meanwhile"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_may_act_again_though_nobody_waits_for_the_end_of_a_transfer() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let heir = cluster.followers(leader)[0];
    cluster.down(heir).await;
    let raft = &cluster.node(leader).raft;
    {
        // Whoever asked goes away as soon as the lease is given up.
        let transfer = raft.transfer(heir);
        tokio::pin!(transfer);
        while raft.lease_remaining() > Duration::ZERO {
            let step = tokio::time::timeout(Duration::from_millis(5), &mut transfer).await;
            assert!(step.is_err(), "a node that is down takes nothing over: {step:?}");
        }
    }
    // Without its heir the old leader is followed by whoever is elected: itself or the other one.
    let left = || cluster.nodes.values().map(|node| node.raft.lease_remaining()).max();
    let back = async {
        while left().is_none_or(|lease| lease.is_zero()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("somebody may act again");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_and_members_leave() {
    let cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let new = cluster.followers(old)[0];
    cluster.node(new).raft.transfer(new).await.unwrap();
    for node in cluster.nodes.values() {
        assert_eq!(node.leader_other_than(old).await, new);
    }
    assert_eq!(cluster.node(old).raft.lease_remaining(), Duration::ZERO);
    // The leader itself leaves: it hands over and the others go on.
    cluster.node(old).raft.remove(new).await.unwrap();
    let third = cluster.node(old).leader_other_than(new).await;
    assert_ne!(third, new);
    cluster.node(old).register(10, "a:1").await.unwrap();
    let status = cluster.node(third).raft.status();
    assert_eq!(status.members.len(), 2, "{status:?}");

    let unknown = cluster.node(old).raft.promote(NodeId(9)).await.unwrap_err();
    assert!(matches!(unknown, LedgerError::Refused(_)), "{unknown}");
    let moved = cluster.node(old).raft.add_learner(third, "b:1".to_owned()).await.unwrap_err();
    assert!(moved.to_string().contains("already a member"), "{moved}");
    cluster.stop().await;
}
