//! Nodes that come and go: one joins as a learner, is promoted, and the one it replaces is removed.
//! Also whoever cannot live with the damage done to its files is replaced, as the operator's guide
//! says.

use std::time::{Duration, Instant};

use anyhow::bail;
use medic_proto::v1 as pb;
use tokio::task::JoinHandle;

use super::Arena;
use crate::{
    campaign::watch::stale,
    harness::Dialer,
    nemesis::{Whom, clock},
};

/// Between two tries of one change.
const PAUSE: Duration = Duration::from_millis(150);
/// A call that takes longer is given up; a learner catches up meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a damaged node may end without saying that it is damaged before it is replaced.
const MUTE_MAX: u32 = 3;
/// What a node that refuses damage says.
const DAMAGED: &str = "damaged";

/// A replacement under way.
#[derive(Debug)]
pub(super) struct Replacing {
    old: u64,
    new: u64,
    since: Instant,
    task: JoinHandle<()>,
}

impl Drop for Replacing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Arena {
    /// A node is replaced by a new one, in the background: under other faults it takes its time.
    pub(super) async fn replace(&mut self, whom: Whom) -> anyhow::Result<Option<String>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        let role = self.role(node);
        let new = self.replace_node(node).await?;
        Ok(new.map(|new| format!("node-{new} is to take the place of node-{node}{role}")))
    }

    pub(super) async fn replace_node(&mut self, old: u64) -> anyhow::Result<Option<u64>> {
        if self.replacing.is_some() || !self.members.contains(&old) {
            return Ok(None);
        }
        // With it, whoever is cut off from those here may become one of a quorum.
        self.end_isolation();
        let new = self.next;
        self.next += 1;
        let peer = self.cluster.join(new).await?;
        self.relays.add(new, &self.cluster.way(new)?)?;
        self.equip(new)?;
        self.start_node(new)?;
        let task = tokio::spawn(replace(self.dialer.clone(), old, new, peer));
        self.replacing = Some(Replacing { old, new, since: Instant::now(), task });
        Ok(Some(new))
    }

    /// Whom a replacement is waited for.
    pub(crate) fn changing(&self) -> Option<(u64, u64)> {
        self.replacing.as_ref().map(|change| (change.old, change.new))
    }

    /// Ends a replacement that is through: the old node's process goes, and all that was its.
    pub(super) async fn end_replacement(&mut self) -> anyhow::Result<Option<String>> {
        let Some(change) = self.replacing.take_if(|change| change.task.is_finished()) else {
            return Ok(None);
        };
        let (old, new) = (change.old, change.new);
        self.forget(old).await?;
        self.replaced += 1;
        let took = change.since.elapsed().as_secs_f64();
        Ok(Some(format!("node-{new} has taken the place of node-{old} within {took:.1} s")))
    }

    async fn forget(&mut self, node: u64) -> anyhow::Result<()> {
        self.members.remove(&node);
        self.up.remove(&node);
        self.refused.remove(&node);
        self.skewed.remove(&node);
        self.limited.remove(&node);
        self.expiring.remove(&node);
        self.points.forget(node);
        self.doors.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&node);
        self.cluster.leave(node).await?;
        if let Some(pid) = self.pids.all().get(&node) {
            clock::sweep(*pid);
        }
        self.relays.remove(node).await;
        if let Some(disk) = self.disks.remove(&node) {
            disk.discard().await?;
        }
        Ok(())
    }

    /// Looks after nodes whose files were damaged: whoever says so and ends is replaced.
    pub(super) async fn mend(&mut self) -> anyhow::Result<Option<String>> {
        for at in 0..self.flips.len() {
            let Some(flip) = self.flips.get(at).filter(|flip| flip.outcome.is_none()) else {
                continue;
            };
            let (node, from) = (flip.node, flip.log_from);
            if !self.members.contains(&node) || self.running(node) {
                continue;
            }
            let log = self.log(node)?;
            let said = log.get(from..).unwrap_or_default();
            let last = said.lines().last().unwrap_or_default().to_owned();
            let told = said.lines().rev().find(|line| line.contains(DAMAGED)).map(str::to_owned);
            let Some(flip) = self.flips.get_mut(at) else { continue };
            flip.mute += u32::from(!flip.read_through);
            let outcome = match told {
                Some(line) => format!("refused: {line}"),
                // It was killed by something else, or it will say so at the next start.
                None if flip.mute < MUTE_MAX || flip.read_through => continue,
                None => {
                    self.unsaid.push(format!("node-{node}: {}; it ended with: {last}", flip.what));
                    format!("ended without a word on damage: {last}")
                }
            };
            flip.outcome = Some(outcome);
            return self.give_up(node).await;
        }
        Ok(None)
    }

    /// A node that cannot go on is replaced.
    async fn give_up(&mut self, node: u64) -> anyhow::Result<Option<String>> {
        self.refused.insert(node);
        self.end_node(node, super::Cause::Signal).await?;
        let new = self.replace_node(node).await?;
        Ok(new.map(|new| format!("node-{node} is damaged; node-{new} is to take its place")))
    }

    /// Has a node whose files were damaged read all it has. Says what came of it, when something did.
    pub(crate) async fn read_through(&mut self) -> anyhow::Result<Option<String>> {
        for at in 0..self.flips.len() {
            let Some(flip) = self.flips.get(at) else { continue };
            let node = flip.node;
            if flip.read_through || flip.outcome.is_some() || !self.members.contains(&node) {
                continue;
            }
            let read = read_all(&self.dialer, node).await;
            let Some(flip) = self.flips.get_mut(at) else { continue };
            match read {
                Ok(()) => flip.read_through = true,
                Err(error) => {
                    let error = format!("{error:#}");
                    if !error.contains(DAMAGED) {
                        bail!("reading all that node-{node} has: {error}");
                    }
                    flip.outcome = Some(format!("found when it was read: {error}"));
                    return self.give_up(node).await;
                }
            }
        }
        Ok(None)
    }
}

/// Reads every record of a node.
async fn read_all(dialer: &Dialer, node: u64) -> anyhow::Result<()> {
    let mut client = dialer.dial(node).await?;
    let request = stale(pb::ExportAuditRequest { after_index: 0 });
    let mut stream = client.audit().export(request).await?.into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

/// Tries until it is done.
async fn replace(dialer: Dialer, old: u64, new: u64, peer: String) {
    let mut turn = 0;
    loop {
        let nodes = dialer.nodes();
        let asked = nodes.get(turn % nodes.len().max(1)).copied().unwrap_or(new);
        turn += 1;
        let tried = tokio::time::timeout(PATIENCE, advance(&dialer, asked, old, new, &peer)).await;
        match tried {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => continue,
            Ok(Err(error)) => tracing::debug!(old, new, "not yet: {error:#}"),
            Err(_) => tracing::debug!(old, new, asked, "no answer"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One change of membership, by what the cluster says it is; true when none is left to do.
async fn advance(
    dialer: &Dialer,
    asked: u64,
    old: u64,
    new: u64,
    peer: &str,
) -> anyhow::Result<bool> {
    let mut client = dialer.dial(asked).await?;
    let status = client.cluster().status(pb::StatusRequest {}).await?.into_inner();
    let member = |id| status.nodes.iter().find(|node| node.id == id && !node.former);
    let mut cluster = client.cluster();
    match (member(new), member(old)) {
        (None, _) => {
            let peer_addr = peer.to_owned();
            let request = pb::AddNodeRequest { node: new, peer_addr, ..Default::default() };
            cluster.add_node(request).await?;
        }
        (Some(node), _) if !node.voter => {
            let request = pb::PromoteNodeRequest { node: new, ..Default::default() };
            cluster.promote_node(request).await?;
        }
        (Some(_), Some(_)) => {
            let request = pb::RemoveNodeRequest { node: old, ..Default::default() };
            cluster.remove_node(request).await?;
        }
        (Some(_), None) => return Ok(true),
    }
    Ok(false)
}
