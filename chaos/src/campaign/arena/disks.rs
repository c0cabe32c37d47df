//! Disks: power that fails, room that runs out, bits that flip.

use super::{Arena, Cause, Proof};
use crate::nemesis::{Whom, disk::Disk, flip};

/// Bits that flipped in the files of one node, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Flipped {
    /// Whose.
    pub(crate) node: u64,
    /// In which file, and where.
    pub(crate) what: String,
    /// How long its log was then.
    pub(super) log_from: usize,
    /// Times it has ended by itself since, without a word on damage.
    pub(super) mute: u32,
    /// Whether all that it has was read since.
    pub(crate) read_through: bool,
    /// What came of it; none: it goes on as if nothing had been.
    pub(crate) outcome: Option<String>,
}

impl Arena {
    /// A disk of its own for a node, where that can be.
    pub(super) fn give_disk(&mut self, node: u64) -> anyhow::Result<()> {
        if self.own_disks {
            let image = self.dir.join(format!("disks/node-{node}.img"));
            let disk = Disk::make(&image, &self.cluster.data_dir(node))?;
            self.disks.insert(node, disk);
        }
        Ok(())
    }

    /// The power of these nodes fails.
    pub(super) async fn cut(&mut self, nodes: &[u64]) -> anyhow::Result<Option<String>> {
        let with_disk: Vec<u64> =
            nodes.iter().copied().filter(|node| self.disks.contains_key(node)).collect();
        if with_disk.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> =
            with_disk.iter().map(|node| format!("node-{node}{}", self.role(*node))).collect();
        for node in &with_disk {
            if let Some(disk) = self.disks.get(node) {
                disk.cut()?;
            }
        }
        for node in &with_disk {
            self.end_node(*node, Cause::Power).await?;
        }
        for node in &with_disk {
            if let Some(disk) = self.disks.get(node) {
                disk.restore().await?;
            }
        }
        self.power_cuts += with_disk.len();
        Ok(Some(format!("the power of {} fails", names.join(", "))))
    }

    pub(super) fn fill(&mut self, whom: Whom) -> anyhow::Result<Option<String>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        if !self.disks.contains_key(&node) {
            return Ok(None);
        }
        self.expect_words(node, &["No space left", "os error 28"])?;
        if let Some(disk) = self.disks.get(&node) {
            disk.fill()?;
        }
        Ok(Some(format!("the disk of node-{node}{} is full", self.role(node))))
    }

    pub(super) fn make_room(&self) -> anyhow::Result<Option<String>> {
        self.disks.values().try_for_each(Disk::make_room)?;
        Ok(Some("there is room on every disk".to_owned()))
    }

    /// A node is killed and bits of its files flip. Never of two nodes of one cluster: what only one
    /// good copy of three is left of cannot be told from what was never acknowledged.
    pub(super) async fn flip(&mut self, whom: Whom, pick: u64) -> anyhow::Result<Option<String>> {
        let unsettled = self.flips.iter().any(|flip| {
            flip.outcome.is_none() && self.members.contains(&flip.node) && !flip.read_through
        });
        if unsettled || self.replacing.is_some() {
            return Ok(None);
        }
        // What nobody has read may be damaged still: two such nodes of three are more than a cluster
        // can bear, so the first one goes before another is damaged.
        let is_latent =
            |flip: &&Flipped| flip.outcome.is_none() && self.members.contains(&flip.node);
        if let Some(node) = self.flips.iter().find(is_latent).map(|flip| flip.node) {
            let new = self.replace_node(node).await?;
            self.unproved.push(Proof::Nothing);
            return Ok(new.map(|new| {
                format!("node-{node} may still be damaged; node-{new} is to take its place")
            }));
        }
        let Some(node) = self.target(whom) else { return Ok(None) };
        let role = self.role(node);
        self.end_node(node, Cause::Signal).await?;
        let Some(what) = flip::flip(&self.cluster.data_dir(node), pick)? else { return Ok(None) };
        let log_from = self.log(node)?.len();
        let text = format!("SIGKILL for node-{node}{role}, and bits flip in its {what}");
        let (mute, read_through, outcome) = (0, false, None);
        self.flips.push(Flipped { node, what, log_from, mute, read_through, outcome });
        Ok(Some(text))
    }
}
