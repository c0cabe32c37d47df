//! Who dies, when and of what: kills at a chosen moment, deaths at failpoints, and a note of each.

use std::time::{Duration, Instant};

use super::Arena;
use crate::nemesis::Whom;

/// A node that died at a failpoint comes back after this long, so that another can die there.
const REVIVED_AFTER: Duration = Duration::from_millis(700);
/// How long a kill waits for a plan to be in the middle of a step …
const MID_PATIENCE: Duration = Duration::from_millis(2_500);
/// … looking this often.
const MID_LOOK: Duration = Duration::from_millis(20);

/// What a node died of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A signal of ours.
    Signal,
    /// Its power failed.
    Power,
    /// A failpoint, of this name.
    Point(&'static str),
    /// It ended by itself: what it needs was taken from it.
    Itself,
}

/// The end of a node's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// Milliseconds of the campaign.
    pub at_ms: u64,
    /// Whose.
    pub node: u64,
    /// Whether the others took it for the leader.
    pub led: bool,
    /// The newest fence that was heard of.
    pub fence: u64,
    /// Plans under way.
    pub plans: usize,
    /// Plans that were being undone.
    pub unwinding: usize,
    /// Of what.
    pub cause: Cause,
}

impl Arena {
    /// SIGKILL, when it runs; writes its death down.
    pub(super) async fn end_node(&mut self, node: u64, cause: Cause) -> anyhow::Result<()> {
        if self.running(node) {
            self.bury(node, cause);
        }
        self.revive.remove(&node);
        self.cluster.node_mut(node)?.kill().await
    }

    fn bury(&mut self, node: u64, cause: Cause) {
        self.up.remove(&node);
        let (_, unwinding) = self.eyes.in_the_middle();
        self.deaths.push(Death {
            at_ms: self.eyes.now_ms(),
            node,
            led: self.eyes.leader() == Some(node),
            fence: self.eyes.fence(),
            plans: self.eyes.under_way().len(),
            unwinding,
            cause,
        });
    }

    pub(super) async fn kill(&mut self, node: u64) -> anyhow::Result<String> {
        let role = self.role(node);
        self.end_node(node, Cause::Signal).await?;
        Ok(format!("SIGKILL for node-{node}{role}"))
    }

    /// Waits for a plan to be in the middle of a step, or of being undone, and kills the leader.
    pub(super) async fn kill_mid(&mut self) -> anyhow::Result<Option<String>> {
        let deadline = Instant::now() + MID_PATIENCE;
        while Instant::now() < deadline {
            self.tick()?;
            let (running, unwinding) = self.eyes.in_the_middle();
            if running + unwinding > 0
                && let Some(node) = self.resolve(Whom::Leader)
            {
                let text = self.kill(node).await?;
                let plans = format!("{running} plans running, {unwinding} unwinding");
                return Ok(Some(format!("{text}, with {plans}")));
            }
            tokio::time::sleep(MID_LOOK).await;
        }
        Ok(None)
    }

    /// Notices who has ended by itself, and where; those who died at a failpoint come back soon.
    pub(crate) fn tick(&mut self) -> anyhow::Result<Option<String>> {
        let mut said = Vec::new();
        for node in self.up.clone() {
            if self.running(node) {
                continue;
            }
            let point = self.points.died(node);
            let role = self.role(node);
            self.bury(node, point.map_or(Cause::Itself, Cause::Point));
            said.push(match point {
                Some(name) => format!("node-{node}{role} died at {name}"),
                None => format!("node-{node}{role} has ended by itself"),
            });
            if point.is_some() {
                self.revive.insert(node, Instant::now() + REVIVED_AFTER);
            }
        }
        let due: Vec<u64> =
            self.revive.iter().filter(|(_, at)| Instant::now() >= **at).map(|(n, _)| *n).collect();
        for node in due {
            self.revive.remove(&node);
            if self.members.contains(&node) && !self.running(node) {
                self.start_node(node)?;
            }
        }
        Ok((!said.is_empty()).then(|| said.join(", ")))
    }

    /// Makes it likely that somebody comes by a failpoint that is off the beaten track.
    pub(super) fn provoke(&mut self, point: &str) {
        match point {
            "peer_before_transfer" => {
                self.transfer(0);
            }
            _ if point.starts_with("approval_") => self.wish.make("Question"),
            _ if point.starts_with("driver_undo_") || point.starts_with("notify_") => {
                self.wish.make("Regret");
            }
            _ => {}
        }
    }
}
