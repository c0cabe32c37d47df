//! The report of a campaign: what was done, what it came to, and where to look.

pub(crate) mod html;
mod markdown;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    campaign::{Cause, Death, Hits, watch::Sample},
    check::{Verdict, deposed::Deposed, nodes::Recovery},
    history::{Act, Call, Outcome},
    nemesis::Fault,
};

/// A full campaign reaches every failpoint this often …
const HITS_LEAST: u64 = 20;
/// … and kills as many leaders in the middle of a remediation.
const DEPOSED_LEAST: usize = 200;

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
    /// The network they were on, and why.
    pub network: String,
    /// Partitions that the kernel made, and packets it dropped; none on loopback.
    pub walls: Option<(usize, u64)>,
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
    /// What became of each nemesis that was drawn.
    pub nemeses: BTreeMap<Fault, Tally>,
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
    /// Ends of nodes' processes.
    pub deaths: Vec<Death>,
    /// Leaders among them that were in the middle of a remediation.
    pub deposed: Vec<Deposed>,
    /// Hits of failpoints.
    pub hits: BTreeMap<String, Hits>,
    /// Nodes whose power failed.
    pub power_cuts: usize,
    /// Nodes that were replaced.
    pub replaced: usize,
    /// Certificates that running processes took over.
    pub renewed: usize,
    /// Bits that flipped, and what came of each.
    pub damage: Vec<String>,
    /// Messages that people got.
    pub told: u64,
    /// Whether it was so long that everything must have been reached.
    pub full: bool,
    /// Verdicts, by invariant.
    pub verdicts: Vec<Verdict>,
}

/// How often a nemesis was drawn, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// In the schedule, as far as it was played.
    pub drawn: u64,
    /// There was somebody to do it to, and it was done.
    pub begun: u64,
    /// Something came of it.
    pub felt: u64,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(seed: u64, nodes: u64, wall_began_ms: u64) -> Self {
        Self { seed, nodes, wall_began_ms, ..Self::default() }
    }

    /// Whether no invariant was violated, those that every campaign can check were checked, and a
    /// full campaign reached all it must.
    #[must_use]
    pub fn good(&self) -> bool {
        let may_be_idle = |invariant| matches!(invariant, 11 | 13);
        let idle = self.verdicts.iter().any(|v| v.checked == 0 && !may_be_idle(v.invariant));
        let holds = self.verdicts.iter().all(Verdict::holds);
        !self.verdicts.is_empty() && !idle && holds && self.short().is_empty()
    }

    /// What a full campaign must have reached, and did not.
    #[must_use]
    pub fn short(&self) -> Vec<String> {
        if !self.full {
            return Vec::new();
        }
        let rare = self.hits.iter().filter(|(_, hits)| hits.passed < HITS_LEAST);
        let mut short: Vec<String> = rare
            .map(|(name, hits)| format!("{name} was hit {} times of {HITS_LEAST}", hits.passed))
            .collect();
        if self.deposed.len() < DEPOSED_LEAST {
            let found = self.deposed.len();
            short.push(format!("{found} of {DEPOSED_LEAST} leader kills in mid-remediation"));
        }
        short
    }

    /// Leaders that ended, and how many processes died at a failpoint.
    fn ends(&self) -> (usize, usize) {
        let at_point = |death: &&Death| matches!(death.cause, Cause::Point(_));
        let leaders = self.deaths.iter().filter(|death| death.led).count();
        (leaders, self.deaths.iter().filter(at_point).count())
    }

    /// Leaders killed in the middle of a remediation, and what became of their plans.
    #[must_use]
    pub fn mid_remediation(&self) -> String {
        let of = |invariant| {
            let found = self.verdicts.iter().find(|verdict| verdict.invariant == invariant);
            found.map_or(0, |verdict| verdict.violations.len())
        };
        let open = self.deposed.iter().filter(|deposed| !deposed.open.is_empty()).count();
        format!(
            "{} leaders killed in the middle of a remediation ({open} with a step begun and not \
             ended, {} while unwinding): {} lost plans, {} double effects, {} stale-fence acts",
            self.deposed.len(),
            self.deposed.len() - open,
            of(6),
            of(4),
            of(2) + of(3)
        )
    }

    /// The network, and what was cut of it by the kernel.
    #[must_use]
    pub fn ground(&self) -> String {
        let walls = self.walls.map(|(cuts, packets)| {
            format!("; partitions made by the kernel: {cuts}, packets it dropped: {packets}")
        });
        format!("Network: {}{}", self.network, walls.unwrap_or_default())
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
        let (leaders, at_points) = self.ends();
        let worst = self.recoveries.iter().filter_map(|(_, took)| *took).max().unwrap_or(0);
        let reached = self.hits.values().filter(|hits| hits.passed > 0).count();
        format!(
            "{} faults; {leaders} leaders ended; {}; {at_points} deaths at failpoints; {} power cuts, \
             {} nodes replaced, {} damaged, {} certificates taken over; {writes} writes, {reads} \
             reads, {open} open calls; {} plans, {} steps taken over, {} acts, {} messages to \
             people; {} recoveries, the slowest {:.1} s; {reached} of {} failpoints reached; {} \
             violations",
            self.faults.len(),
            self.mid_remediation(),
            self.power_cuts,
            self.replaced,
            self.damage.len(),
            self.renewed,
            self.plans,
            self.taken_over,
            self.acts.len(),
            self.told,
            self.recoveries.len(),
            crate::campaign::seconds(worst),
            self.hits.len(),
            self.violations()
        )
    }

    /// How often each fault was drawn.
    #[must_use]
    pub fn drawn(&self) -> BTreeMap<Fault, usize> {
        let mut drawn = BTreeMap::new();
        for (fault, ..) in &self.faults {
            *drawn.entry(*fault).or_default() += 1;
        }
        drawn
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
