//! Failpoints: which one is armed, who died there, and how often each was hit.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use medic_node::failpoint::POINTS;

use crate::nemesis::Aim;

/// Boundaries at which a leader is in the middle of a remediation.
const MID_REMEDIATION: [&str; 11] = [
    "driver_after_start",
    "driver_before_send",
    "driver_after_act",
    "driver_undo_before_start",
    "driver_undo_after_start",
    "driver_undo_before_send",
    "driver_undo_after_act",
    "driver_undo_after_finish",
    "fleet_before_send",
    "fleet_after_send",
    "fleet_outcome_received",
];
/// How many of the least hit are drawn from.
const LEAST: usize = 6;
/// Slows the writes of the log.
const SLOW: &str = "raft_log_before_write";

/// What is known of one failpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Times that a process passed or died there; each process counts its first few.
    pub passed: u64,
    /// Times it was armed.
    pub armed: u64,
    /// Deaths there.
    pub deaths: u64,
}

/// Control files of failpoints, and what came of them.
#[derive(Debug)]
pub(crate) struct Points {
    dir: PathBuf,
    armed: Option<&'static str>,
    /// Nodes whose file has it, as far as is known.
    aimed: BTreeSet<u64>,
    armed_agents: BTreeMap<String, &'static str>,
    slow: BTreeMap<u64, u64>,
    tally: BTreeMap<&'static str, (u64, u64)>,
    /// What files of hits said when they were so long.
    read: BTreeMap<PathBuf, (u64, BTreeMap<String, u64>)>,
}

impl Points {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            armed: None,
            aimed: BTreeSet::new(),
            armed_agents: BTreeMap::new(),
            slow: BTreeMap::new(),
            tally: BTreeMap::new(),
            read: BTreeMap::new(),
        }
    }

    /// Folder of the files in which processes note what they reach.
    pub(crate) fn hits_dir(&self) -> PathBuf {
        self.dir.join("hits")
    }

    /// Control file of a process (`node-1`, `agent-host-a`).
    pub(crate) fn file(&self, process: &str) -> PathBuf {
        self.dir.join(format!("failpoints-{process}"))
    }

    fn write(&self, node: u64, armed: Option<&str>) -> anyhow::Result<()> {
        let slow = match self.slow.get(&node) {
            Some(0) => format!("{SLOW}=off\n"),
            Some(ms) => format!("{SLOW}=sleep({ms})\n"),
            None => String::new(),
        };
        let name = armed.map(|name| format!("{name}\n")).unwrap_or_default();
        let path = self.file(&format!("node-{node}"));
        std::fs::write(&path, name + &slow).with_context(|| format!("writing {}", path.display()))
    }

    /// Whoever of these nodes reaches a point dies there. Gives its name.
    pub(super) fn arm(
        &mut self,
        aim: Aim,
        nodes: impl Iterator<Item = u64>,
    ) -> anyhow::Result<&'static str> {
        let name = self.choose(aim);
        self.aimed = nodes.collect();
        for node in &self.aimed {
            self.write(*node, Some(name))?;
        }
        self.armed = Some(name);
        self.tally.entry(name).or_default().0 += 1;
        Ok(name)
    }

    pub(super) fn arm_agent(&mut self, agent: &str, pick: u64) -> anyhow::Result<&'static str> {
        let agents = POINTS.iter().copied().filter(|name| name.starts_with("agent_"));
        let name = self.least(agents.collect(), pick, 2);
        let path = self.file(&format!("agent-{agent}"));
        std::fs::write(&path, format!("{name}\n"))
            .with_context(|| format!("writing {}", path.display()))?;
        self.armed_agents.insert(agent.to_owned(), name);
        self.tally.entry(name).or_default().0 += 1;
        Ok(name)
    }

    fn choose(&mut self, aim: Aim) -> &'static str {
        match aim {
            Aim::MidRemediation(pick) => self.least(MID_REMEDIATION.to_vec(), pick, LEAST),
            Aim::LeastHit(pick) => {
                let nodes = POINTS.iter().copied().filter(|name| !name.starts_with("agent_"));
                self.least(nodes.collect(), pick, LEAST)
            }
        }
    }

    /// One of the least hit: deaths count before passes.
    fn least(&mut self, mut names: Vec<&'static str>, pick: u64, of: usize) -> &'static str {
        let hits = self.hits();
        names.sort_by_key(|name| {
            hits.get(*name).map_or((0, 0), |hits| (hits.deaths + hits.armed / 4, hits.passed))
        });
        let of = u64::try_from(of.min(names.len())).unwrap_or(1).max(1);
        usize::try_from(pick % of).ok().and_then(|at| names.get(at).copied()).unwrap_or(SLOW)
    }

    /// Whether a node that has ended by itself died at what is armed; where, if so.
    pub(super) fn died(&mut self, node: u64) -> Option<&'static str> {
        let name = self.armed?;
        if !self.aimed.contains(&node) || holds(&self.file(&format!("node-{node}")), name) {
            return None;
        }
        self.aimed.remove(&node);
        self.tally.entry(name).or_default().1 += 1;
        Some(name)
    }

    /// No node dies at a failpoint any more; which one was armed.
    pub(super) fn disarm(&mut self) -> anyhow::Result<Option<&'static str>> {
        for node in std::mem::take(&mut self.aimed) {
            self.write(node, None)?;
        }
        Ok(self.armed.take())
    }

    /// No agent dies at a failpoint any more.
    pub(super) fn disarm_agents(&mut self) -> anyhow::Result<()> {
        for (agent, name) in std::mem::take(&mut self.armed_agents) {
            let path = self.file(&format!("agent-{agent}"));
            if holds(&path, name) {
                std::fs::remove_file(&path)
                    .with_context(|| format!("removing {}", path.display()))?;
            } else {
                self.tally.entry(name).or_default().1 += 1;
            }
        }
        Ok(())
    }

    /// Log writes of a node take so much longer.
    pub(super) fn slow(&mut self, node: u64, ms: u64) -> anyhow::Result<()> {
        self.slow.insert(node, ms);
        self.rewrite(node)
    }

    /// Log writes are as fast as the disk; whether they were not.
    pub(super) fn fast(&mut self) -> anyhow::Result<bool> {
        let slow: Vec<u64> =
            self.slow.iter().filter(|(_, ms)| **ms > 0).map(|(node, _)| *node).collect();
        for node in &slow {
            self.slow.insert(*node, 0);
            self.rewrite(*node)?;
        }
        Ok(!slow.is_empty())
    }

    fn rewrite(&self, node: u64) -> anyhow::Result<()> {
        let path = self.file(&format!("node-{node}"));
        self.write(node, self.armed.filter(|name| holds(&path, name)))
    }

    /// A node is no more.
    pub(super) fn forget(&mut self, node: u64) {
        self.slow.remove(&node);
    }

    /// What is known of each failpoint so far.
    pub(crate) fn hits(&mut self) -> BTreeMap<String, Hits> {
        for entry in std::fs::read_dir(self.hits_dir()).into_iter().flatten().flatten() {
            let length = entry.metadata().map_or(0, |meta| meta.len());
            let known = self.read.get(&entry.path()).is_some_and(|(then, _)| *then == length);
            if !known {
                let mut counts = BTreeMap::new();
                for name in std::fs::read_to_string(entry.path()).unwrap_or_default().lines() {
                    *counts.entry(name.to_owned()).or_default() += 1;
                }
                self.read.insert(entry.path(), (length, counts));
            }
        }
        let mut hits: BTreeMap<String, Hits> =
            POINTS.iter().map(|name| ((*name).to_owned(), Hits::default())).collect();
        for (name, count) in self.read.values().flat_map(|(_, counts)| counts) {
            hits.entry(name.clone()).or_default().passed += count;
        }
        for (name, (armed, deaths)) in &self.tally {
            let known = hits.entry((*name).to_owned()).or_default();
            (known.armed, known.deaths) = (*armed, *deaths);
        }
        hits
    }
}

/// Whether a control file has this name.
fn holds(path: &Path, name: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.lines().any(|line| line == name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_least_hit_point_is_aimed_at_and_deaths_are_told_from_passes() {
        let dir = tempfile::tempdir().unwrap();
        let mut points = Points::new(dir.path());
        std::fs::create_dir(points.hits_dir()).unwrap();
        let all: String = MID_REMEDIATION[1..].iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(points.hits_dir().join("17"), &all).unwrap();
        let first = points.arm(Aim::MidRemediation(0), [1, 2].into_iter()).unwrap();
        assert_eq!(first, MID_REMEDIATION[0]);
        assert_eq!(points.died(1), None, "it is still in the file");
        std::fs::remove_file(points.file("node-1")).unwrap();
        assert_eq!(points.died(1), Some(first));
        points.slow(2, 30).unwrap();
        let text = std::fs::read_to_string(points.file("node-2")).unwrap();
        assert_eq!(text, format!("{first}\n{SLOW}=sleep(30)\n"), "both stand in one file");
        assert_eq!(points.disarm().unwrap(), Some(first));
        assert!(points.fast().unwrap() && !points.fast().unwrap());
        assert_eq!(
            std::fs::read_to_string(points.file("node-2")).unwrap(),
            format!("{SLOW}=off\n")
        );
        let next = points.arm(Aim::MidRemediation(0), [1].into_iter()).unwrap();
        assert_ne!(next, first, "somebody died there already");
        let hits = points.hits();
        assert_eq!(hits[first], Hits { passed: 0, armed: 1, deaths: 1 });
        assert_eq!(hits[MID_REMEDIATION[1]].passed, 1);
    }
}
