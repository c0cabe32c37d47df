//! Whether a fault was felt: that something was done to a node does not say that anything came of it.

use std::path::PathBuf;

use super::{Arena, Cause};

/// What must be found once a fault is over.
#[derive(Clone, Debug)]
pub(in crate::campaign) enum Proof {
    /// This log of strace tells of a sync that it failed.
    Injected(PathBuf),
    /// A node has said one of these words, or ended by itself.
    Said {
        /// Who.
        node: u64,
        /// How long its log was.
        log_from: usize,
        /// Milliseconds of the campaign.
        at_ms: u64,
        /// Which.
        words: &'static [&'static str],
    },
    /// A node got less memory than it asked for, or was ended for it.
    Squeezed {
        /// Who.
        node: u64,
        /// Milliseconds of the campaign.
        at_ms: u64,
    },
    /// This node has led since.
    Led {
        /// Who.
        node: u64,
        /// Milliseconds of the campaign.
        at_ms: u64,
    },
    /// The kernel has dropped more packets than so many.
    Dropped(u64),
    /// More clocks than so many were wrong by their nodes' own words.
    Skewed(usize),
    /// Something else was done instead.
    Nothing,
}

impl Arena {
    /// What must be found of what was done since the last time this was asked.
    pub(in crate::campaign) fn take_unproved(&mut self) -> Vec<Proof> {
        std::mem::take(&mut self.unproved)
    }

    /// Whether it is found.
    ///
    /// # Errors
    /// When the kernel does not say what it dropped.
    pub(in crate::campaign) fn proved(&self, proof: &Proof) -> anyhow::Result<bool> {
        Ok(match proof {
            Proof::Injected(log) => std::fs::read(log)
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains("(INJECTED)")),
            Proof::Said { node, log_from, at_ms, words } => {
                let log = self.log(*node).unwrap_or_default();
                let said = log.get(*log_from..).unwrap_or_default();
                words.iter().any(|word| said.contains(word)) || self.ended_itself(*node, *at_ms)
            }
            Proof::Squeezed { node, at_ms } => {
                self.short_of_memory.contains(&(*node, *at_ms)) || self.ended_itself(*node, *at_ms)
            }
            Proof::Led { node, at_ms } => self.eyes.led_since(*node, *at_ms),
            Proof::Dropped(before) => {
                self.walls.count()?.is_none_or(|(_, packets)| packets > *before)
            }
            Proof::Skewed(before) => self.skews_seen > *before,
            Proof::Nothing => false,
        })
    }

    fn ended_itself(&self, node: u64, at_ms: u64) -> bool {
        let deaths = self.deaths.iter().rev().take_while(|death| death.at_ms >= at_ms);
        deaths.into_iter().any(|death| death.node == node && death.cause == Cause::Itself)
    }

    /// A node is expected to say one of these, or to end.
    pub(super) fn expect_words(
        &mut self,
        node: u64,
        words: &'static [&'static str],
    ) -> anyhow::Result<()> {
        let log_from = self.log(node)?.len();
        let at_ms = self.eyes.now_ms();
        self.unproved.push(Proof::Said { node, log_from, at_ms, words });
        Ok(())
    }
}
