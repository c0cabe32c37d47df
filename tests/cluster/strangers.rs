//! Strangers and damage: a second node with the same id, a node of another cluster, damaged log and
//! snapshot files. Each is refused with a message that says what is wrong, and the rest goes on.

use std::{path::Path, process::Stdio, time::Duration};

use super::support::{World, read};

/// Runs a node that is expected to end by itself; gives what it said.
async fn refused(config: &Path) -> String {
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_medic-under-test"))
        .args(["serve", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await;
    let output = ended.expect("the node refuses to run and ends").unwrap();
    assert!(!output.status.success(), "it must not report success");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

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
    let said = refused(&path).await;
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
    let said = refused(&path).await;
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
    let said = refused(&world.cluster.node_config(victim)).await;
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
