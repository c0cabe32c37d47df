//! CPU and memory of nodes that have nothing to do, from `/proc`.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use medic_node::detection::intake::measure;
use serde::Serialize;

use super::{NODES, settle};
use crate::harness::Cluster;

/// Ticks per second in `/proc/PID/stat`: 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// One idle node.
#[derive(Clone, Debug, Serialize)]
pub(super) struct IdleNode {
    pub(super) node: u64,
    pub(super) leads: bool,
    /// Percent of one core.
    pub(super) cpu_percent: f64,
    /// Resident memory.
    pub(super) rss_mib: f64,
}

/// Watches all nodes for a while.
pub(super) async fn measure(
    cluster: &mut Cluster,
    span: Duration,
) -> anyhow::Result<Vec<IdleNode>> {
    let leader = settle(cluster, None).await?;
    let mut pids = Vec::new();
    for node in 1..=NODES {
        let pid = cluster.node_mut(node)?.pid().with_context(|| format!("node-{node} ended"))?;
        pids.push((node, pid, ticks(pid)?));
    }
    let began = Instant::now();
    tokio::time::sleep(span).await;
    let seconds = began.elapsed().as_secs_f64();
    pids.into_iter()
        .map(|(node, pid, before)| {
            let used = (ticks(pid)? - before) / TICKS_PER_SECOND;
            Ok(IdleNode {
                node,
                leads: node == leader,
                cpu_percent: (used / seconds * 1e4).round() / 1e2,
                rss_mib: (rss_kib(pid)? / 1024.0 * 10.0).round() / 10.0,
            })
        })
        .collect()
}

/// CPU time used by all threads, user and system.
fn ticks(pid: i32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    used_ticks(&text).with_context(|| format!("{path} is not understood"))
}

/// Fields 14 and 15, counted behind the name, which may hold spaces.
fn used_ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(field(11)? + field(12)?)
}

fn rss_kib(pid: i32) -> anyhow::Result<f64> {
    let kib = measure::resident_kib(u32::try_from(pid)?).map_err(anyhow::Error::msg)?;
    Ok(kib as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_right() {
        let stat = "12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9";
        assert_eq!(used_ticks(stat), Some(300.0));
        assert_eq!(used_ticks("12 (a"), None);
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        assert!(rss_kib(own).is_ok_and(|kib| kib > 100.0));
        assert!(ticks(own).is_ok());
    }
}
