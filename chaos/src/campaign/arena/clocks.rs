//! Wall clocks of nodes that are stepped and skewed, and put right.

use std::path::PathBuf;

use rand::{SeedableRng as _, rngs::StdRng};

use super::Arena;
use crate::nemesis::{Skew, Whom, clock};

/// How far a clock that was set may be from what it was set to, when a node is asked: HTTP says
/// seconds, and answers are late on a busy machine.
const CLOSE_MS: u64 = 4_000;

impl Arena {
    /// The file that a node's clock follows.
    pub(super) fn clock_file(&self, node: u64) -> PathBuf {
        self.dir.join(format!("clock-{node}"))
    }

    /// One node's clock is wrong.
    pub(super) async fn skew(&mut self, whom: Whom, skew: Skew) -> anyhow::Result<Option<String>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        let text = self.skew_one(node, skew).await?;
        Ok(Some(format!("the clock of node-{node}{} is wrong: {text}", self.role(node))))
    }

    /// Every clock is wrong in its own way.
    pub(super) async fn skew_all(&mut self, pick: u64) -> anyhow::Result<Option<String>> {
        let mut chance = StdRng::seed_from_u64(pick);
        let mut said = Vec::new();
        for node in self.members.clone() {
            let text = self.skew_one(node, Skew::draw_drift(&mut chance)).await?;
            said.push(format!("node-{node} {text}"));
        }
        Ok(Some(format!("clocks are wrong: {}", said.join(", "))))
    }

    /// Sets a clock, and asks the node for the time: whether the fault is one is then known.
    async fn skew_one(&mut self, node: u64, skew: Skew) -> anyhow::Result<String> {
        clock::set(&self.clock_file(node), skew)?;
        self.skewed.insert(node);
        let door = self.cluster.ports(node).map_or(0, |ports| ports.http);
        let Some(ahead) = clock::ahead_ms(door).await else {
            return Ok(format!("{skew} (it does not answer)"));
        };
        if ahead.abs_diff(skew.offset_ms) <= CLOSE_MS || skew.pace_permille != 1_000 {
            self.skews_seen += 1;
        }
        Ok(format!("{skew} (it is {} s ahead)", ahead / 1_000))
    }

    pub(super) fn true_clocks(&mut self) -> anyhow::Result<Option<String>> {
        let skewed = std::mem::take(&mut self.skewed);
        for node in &skewed {
            clock::set(&self.clock_file(*node), Skew::NONE)?;
        }
        Ok((!skewed.is_empty()).then(|| "clocks are right".to_owned()))
    }
}
