//! How long nobody is served when the leader dies.
//!
//! ```text
//!   settled ─► SIGKILL the leader ─► a write at each survivor ─► first answer ─► start it again
//! ```
//!
//! Every survivor is asked at once, after the kill: the first answer is the figure, the later one
//! tells when all survivors serve. Connections to the survivors are open before, as a client's are.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use medic_node::cli::out::Out;
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::task::JoinSet;

use super::{NODES, PATIENCE, settle, stats::Summary, write};
use crate::harness::{Client, Cluster};

/// Between two tries of a write that was refused.
const AGAIN: Duration = Duration::from_millis(5);

/// Over all runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Failover {
    /// Leader killed until the first acknowledged write, on whichever survivor.
    pub(super) first_write: Option<Summary>,
    /// Until every survivor has acknowledged one.
    pub(super) every_survivor: Option<Summary>,
    /// Writes that were answered with an error before the one that succeeded.
    pub(super) refused: usize,
}

/// Kills the leader `runs` times.
pub(super) async fn measure(
    runs: u32,
    cluster: &mut Cluster,
    out: &Out,
) -> anyhow::Result<Failover> {
    let (mut first, mut every, mut refused) = (Vec::new(), Vec::new(), 0);
    for run in 1..=runs {
        let leader = settle(cluster, None).await?;
        let outcome = once(cluster, leader).await?;
        let times: Vec<Duration> = outcome.iter().map(|(time, _)| *time).collect();
        let (least, greatest) = (times.iter().min(), times.iter().max());
        out.note(&format!(
            "failover {run}/{runs}: node-{leader} killed; a write was acknowledged after {:.0} ms",
            least.map_or(0.0, Duration::as_secs_f64) * 1e3
        ));
        first.extend(least.copied());
        every.extend(greatest.copied());
        refused += outcome.iter().map(|(_, refused)| refused).sum::<usize>();
        cluster.node_mut(leader)?.start()?;
    }
    settle(cluster, None).await?;
    Ok(Failover { first_write: Summary::of(first), every_survivor: Summary::of(every), refused })
}

/// One death; for each survivor the time until it acknowledged a write, and refusals before that.
async fn once(cluster: &mut Cluster, leader: u64) -> anyhow::Result<Vec<(Duration, usize)>> {
    let mut survivors = Vec::new();
    for node in (1..=NODES).filter(|node| *node != leader) {
        let mut client = cluster.client_of(node, "admin").await?;
        write(&mut client, "failover").await.with_context(|| format!("a write at node-{node}"))?;
        survivors.push((node, client));
    }
    let killed = Instant::now();
    cluster.node_mut(leader)?.signal(Signal::SIGKILL)?;
    let mut writers = JoinSet::new();
    for (node, client) in survivors {
        writers.spawn(until_acknowledged(node, client, killed));
    }
    let mut outcome = Vec::new();
    while let Some(written) = writers.join_next().await {
        outcome.push(written??);
    }
    // Reaps it.
    cluster.node_mut(leader)?.kill().await?;
    Ok(outcome)
}

async fn until_acknowledged(
    node: u64,
    mut client: Client,
    killed: Instant,
) -> anyhow::Result<(Duration, usize)> {
    let mut refused = 0;
    loop {
        match write(&mut client, "failover").await {
            Ok(()) => return Ok((killed.elapsed(), refused)),
            Err(status) if killed.elapsed() > PATIENCE => {
                bail!("node-{node} acknowledged no write for {PATIENCE:?}; the last: {status}")
            }
            Err(status) => {
                tracing::debug!(node, %status, "again");
                refused += 1;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
