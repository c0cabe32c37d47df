//! The report of a campaign: what was done, what it came to, and where to look.

pub(crate) mod html;
mod markdown;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    campaign::watch::Sample,
    check::{Verdict, nodes::Recovery},
    history::{Act, Call, Outcome},
    nemesis::Fault,
};

/// Something that was done, or that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Milliseconds of the campaign.
    pub at_ms: u64,
    /// Of which fault; none: a recovery.
    pub fault: Option<Fault>,
    /// In words.
    pub text: String,
}

/// Everything a report says.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seed of everything that was drawn.
    pub seed: u64,
    /// Nodes.
    pub nodes: u64,
    /// Wall clock at the beginning, milliseconds.
    pub wall_began_ms: u64,
    /// Faults with when each was to begin and end, milliseconds of the campaign.
    pub faults: Vec<(Fault, u64, u64)>,
    /// What was done.
    pub events: Vec<Event>,
    /// After each heal.
    pub recoveries: Vec<Recovery>,
    /// What was wrong at the recoveries that were late.
    pub late: BTreeMap<u64, String>,
    /// Faults this machine cannot do, with why.
    pub absent: Vec<String>,
    /// Calls of clients.
    pub calls: Vec<Call>,
    /// What the nodes said of themselves.
    pub samples: Vec<Sample>,
    /// Troubles made in the fleet.
    pub incidents: u64,
    /// Plans that were seen.
    pub plans: usize,
    /// Steps that a later leader took over.
    pub taken_over: usize,
    /// Acts: begun, ended, key.
    pub acts: Vec<(u64, u64, String)>,
    /// Kills of leaders: when, who, plans under way.
    pub leader_kills: Vec<(u64, u64, usize)>,
    /// Deaths at failpoints.
    pub point_deaths: u64,
    /// Hits of failpoints.
    pub hits: BTreeMap<String, u64>,
    /// Verdicts, by invariant.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(seed: u64, nodes: u64, wall_began_ms: u64) -> Self {
        Self { seed, nodes, wall_began_ms, ..Self::default() }
    }

    /// Whether no invariant was violated, and those that every campaign can check were checked.
    #[must_use]
    pub fn good(&self) -> bool {
        let idle = self.verdicts.iter().any(|v| v.checked == 0 && v.invariant != 11);
        !self.verdicts.is_empty() && !idle && self.verdicts.iter().all(Verdict::holds)
    }

    /// How many violations there are.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.verdicts.iter().map(|verdict| verdict.violations.len()).sum()
    }

    /// Calls by kind: answered writes, reads, open ones.
    fn tally(&self) -> (usize, usize, usize) {
        let open = self.calls.iter().filter(|c| c.outcome == Outcome::Open).count();
        let reads = self.calls.iter().filter(|c| c.act == Act::Read).count();
        (self.calls.len() - reads - open, reads, open)
    }

    /// The figures in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let (writes, reads, open) = self.tally();
        let mid = self.leader_kills.iter().filter(|(.., plans)| *plans > 0).count();
        let worst = self.recoveries.iter().filter_map(|(_, took)| *took).max().unwrap_or(0);
        let reached = self.hits.values().filter(|hits| **hits > 0).count();
        format!(
            "{} faults; {} leader kills, {mid} with a plan under way; {} deaths at failpoints; \
             {writes} writes, {reads} reads, {open} open calls; {} plans, {} steps taken over, {} \
             acts; {} recoveries, the slowest {:.1} s; {reached} of {} failpoints reached; {} \
             violations",
            self.faults.len(),
            self.leader_kills.len(),
            self.point_deaths,
            self.plans,
            self.taken_over,
            self.acts.len(),
            self.recoveries.len(),
            crate::campaign::seconds(worst),
            self.hits.len(),
            self.violations()
        )
    }

    /// Writes `report.md` and `report.html` into a folder; gives the latter's path.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        for (name, text) in
            [("report.md", markdown::render(self)), ("report.html", html::render(self))]
        {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(dir.join("report.html"))
    }
}
