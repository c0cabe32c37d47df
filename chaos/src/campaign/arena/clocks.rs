//! Wall clocks of nodes that are stepped and skewed, and put right.

use std::{path::PathBuf, time::Duration};

use rand::{SeedableRng as _, rngs::StdRng};

use super::{Arena, Proof};
use crate::nemesis::{Skew, Whom, clock};

/// How far a clock may be from what it was set to when its node is heard of: HTTP says seconds,
/// answers are late on a busy machine, and clocks that go at another pace have gone since a start.
const CLOSE_MS: u64 = 4_000;
/// Until nodes that say anything have said something by the new clock.
const HEARD_AFTER: Duration = Duration::from_millis(600);

impl Arena {
    /// The file that a node's clock follows.
    pub(super) fn clock_file(&self, node: u64) -> PathBuf {
        self.dir.join(format!("clock-{node}"))
    }

    /// One node's clock is wrong.
    pub(super) async fn skew(&mut self, whom: Whom, skew: Skew) -> anyhow::Result<Option<String>> {
        let Some(node) = self.target(whom) else { return Ok(None) };
        let role = self.role(node);
        let text = self.skew_these(vec![(node, skew)]).await?;
        Ok(Some(format!("a clock is wrong{role}: {text}")))
    }

    /// Every clock is wrong in its own way.
    pub(super) async fn skew_all(&mut self, pick: u64) -> anyhow::Result<Option<String>> {
        let mut chance = StdRng::seed_from_u64(pick);
        let members = self.members.iter();
        let drawn = members.map(|node| (*node, Skew::draw_drift(&mut chance))).collect();
        let text = self.skew_these(drawn).await?;
        Ok(Some(format!("clocks are wrong: {text}")))
    }

    /// Sets clocks, and finds out what their nodes take for the time: whether the fault is one is
    /// then known.
    async fn skew_these(&mut self, skews: Vec<(u64, Skew)>) -> anyhow::Result<String> {
        self.unproved.push(Proof::Skewed(self.skews_seen));
        let mut set = Vec::new();
        for (node, skew) in skews {
            set.push((node, skew, self.log(node)?.len()));
            clock::set(&self.clock_file(node), skew)?;
            self.skewed.insert(node);
        }
        tokio::time::sleep(HEARD_AFTER).await;
        let mut said = Vec::new();
        for (node, skew, log_from) in set {
            let seen = match self.last_words_ahead_ms(node, log_from) {
                Some(ahead) => Some(ahead),
                None => match self.door(node) {
                    Some(door) => clock::ahead_ms(door).await,
                    None => None,
                },
            };
            let close = seen.is_some_and(|ahead| ahead.abs_diff(skew.offset_ms) <= CLOSE_MS);
            self.skews_seen += usize::from(close);
            let heard = seen.map_or_else(
                || "which says nothing".to_owned(),
                |ahead| format!("which is {ahead} ms ahead by its own words"),
            );
            said.push(format!("node-{node} {skew}, {heard}"));
        }
        Ok(said.join("; "))
    }

    /// How far ahead the stamp of the last line is that a node has logged since its log was so long.
    fn last_words_ahead_ms(&self, node: u64, log_from: usize) -> Option<i64> {
        let log = self.log(node).ok()?;
        let last = log.get(log_from..)?.lines().last()?;
        clock::ahead_of(last.split_whitespace().next()?.parse().ok()?)
    }

    pub(super) fn true_clocks(&mut self) -> anyhow::Result<Option<String>> {
        let skewed = std::mem::take(&mut self.skewed);
        for node in &skewed {
            clock::set(&self.clock_file(*node), Skew::NONE)?;
        }
        Ok((!skewed.is_empty()).then(|| "clocks are right".to_owned()))
    }
}
