//! Strangers and damage: a second node with the same id, a node of another cluster, damaged log and
//! snapshot files. Each is refused with a message that says what is wrong, and the rest goes on.

use std::path::Path;

use super::support::{World, read, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_over_the_same_data_is_refused() {
    let mut world = World::start().await;
    let text = read(&world.cluster.node_config(1));
    let ports = medic_chaos::harness::free_ports(3).unwrap();
    let own = world.cluster.ports(1).unwrap();
    let twin = text
        .replace(&own.api.to_string(), &ports[0].to_string())
        .replace(&own.http.to_string(), &ports[1].to_string())
        .replace(&own.peer.to_string(), &ports[2].to_string());
    let path = world.cluster.dir().join("twin.toml");
    std::fs::write(&path, twin).unwrap();
    let said = refused("serve", &path).await;
    assert!(said.contains("another process"), "{said}");
    world.agree().await;
    world.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_node_or_cluster_is_refused() {
    let mut world = World::start().await;
    world.cluster.stop().await.unwrap();
    let text = read(&world.cluster.node_config(1));
    let path = world.cluster.dir().join("stranger.toml");
    std::fs::write(&path, text.replace("data/node-1", "data/node-2")).unwrap();
    let said = refused("serve", &path).await;
    assert!(said.contains("node-2") || said.contains("node 2"), "it names the owner: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_and_the_others_go_on() {
    let mut world = World::start().await;
    // Something to damage: every node has logged and applied a manifest.
    let sample = world.sample("content", 1);
    world.apply(&sample.manifest).await;
    world.up(&sample).await;
    world.agree().await;
    let leader = world.cluster.leader().await.unwrap();
    let victim = (1..=3).find(|id| *id != leader).unwrap();
    world.cluster.node_mut(victim).unwrap().stop().await.unwrap();
    let damaged = damage(&world.cluster.data_dir(victim));
    assert!(damaged > 0, "there are files to damage");
    let said = refused("serve", &world.cluster.node_config(victim)).await;
    let lower = said.to_lowercase();
    assert!(
        lower.contains("checksum") || lower.contains("corrupt") || lower.contains("damaged"),
        "it says what is wrong: {said}"
    );
    world
        .until("the other two still take commands", || async {
            world.cluster.leader().await.is_ok()
        })
        .await;
    world.cluster.stop().await.unwrap();
}

/// Flips bytes in the middle of every log and table file of a data folder.
fn damage(folder: &Path) -> usize {
    let mut count = 0;
    for entry in walkdir::WalkDir::new(folder).into_iter().flatten() {
        let path = entry.path();
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if matches!(kind, "log" | "sst") {
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            for byte in bytes.iter_mut().skip(middle).take(64) {
                *byte ^= 0x5a;
            }
            std::fs::write(path, bytes).unwrap();
            count += 1;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_set_aside_while_an_older_one_does_and_refused_when_none_is_left() {
    let mut world = World::start().await;
    world.cluster.stop().await.unwrap();
    for id in 1..=3 {
        let path = world.cluster.node_config(id);
        let text = read(&path).replacen("[raft]\n", "[raft]\nsnapshot_every = 20\n", 1);
        assert!(text.contains("snapshot_every = 20"), "{text}");
        std::fs::write(&path, text).unwrap();
    }
    world.cluster.start().await.unwrap();
    let victim = 3;
    let folder = world.cluster.data_dir(victim).join("snapshots");
    let sample = world.sample("content", 1);
    // Each round is an entry; the log is cut off behind the older of two snapshots.
    for round in 0..150 {
        let changed = sample
            .manifest
            .replace("{name: content}", &format!("{{name: content, labels: {{round: r{round}}}}}"));
        world
            .until("a command is taken", || async {
                let Ok(mut client) = world.cluster.client("admin").await else { return false };
                let text = changed.clone();
                let request = medic_proto::v1::ApplyManifestsRequest { text, ..Default::default() };
                client.manifests().apply(request).await.is_ok()
            })
            .await;
    }
    world.agree().await;
    world.cluster.node_mut(victim).unwrap().stop().await.unwrap();
    let all = snapshots(&folder);
    assert_eq!(all.len(), 2, "{all:?}");

    flip(&all[1]);
    world.cluster.node_mut(victim).unwrap().start().unwrap();
    world.agree().await;
    let log = world.log(&format!("node-{victim}"));
    assert!(log.contains("damaged snapshot set aside") && log.contains("checksum"), "{log:.3000}");
    world.cluster.node_mut(victim).unwrap().stop().await.unwrap();

    snapshots(&folder).iter().for_each(|path| flip(path));
    let said = refused("serve", &world.cluster.node_config(victim)).await;
    assert!(said.contains("cannot be rebuilt here") && said.contains(".snap"), "{said}");
    assert!(said.contains("Remove this node from the cluster"), "{said}");
    world
        .until("the other two still take commands", || async {
            world.cluster.leader().await.is_ok()
        })
        .await;
    world.cluster.stop().await.unwrap();
}

/// Snapshot files, oldest first.
fn snapshots(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "snap"))
        .collect();
    all.sort();
    all
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x5a;
    std::fs::write(path, bytes).unwrap();
}
