//! The report of a campaign: what went wrong, what was done, what it came to, and where to look.
//!
//! ```text
//!   evidence ──► Report ──► verdicts that checked nothing, bounds missed ──► good? ──► exit code
//!                      └──► report.md · report.html · report.json · console
//! ```
//!
//! Invariant: what checked nothing never reads as if it held, and is never hidden by a sum.

mod around;
mod figures;
pub(crate) mod html;
mod json;
mod markdown;
mod terminal;
#[cfg(test)]
mod tests;
mod timeline;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::Serialize;

pub use self::around::LogClock;
pub(crate) use self::figures::Spread;
use crate::{
    bench::Machine,
    campaign::{Cause, Death, Hits, NetworkChoice, seconds, watch::Sample},
    check::{Verdict, deposed::Deposed, nodes::Recovery},
    history::{Act, Call, Outcome},
    nemesis::{Capabilities, Fault},
};

/// A full campaign reaches every failpoint this often …
const HITS_LEAST: u64 = 20;
/// … and kills as many leaders in the middle of a remediation.
const DEPOSED_LEAST: usize = 200;
/// From this length on a campaign must have reached all it can.
pub(crate) const FULL_MINUTES: f64 = 60.0;

/// Exit code: an invariant was violated, or something that must be reached or checked was not.
const VIOLATED: u8 = 1;
/// Exit code: told to stop; nothing is wrong in what was seen until then.
pub(crate) const INTERRUPTED: u8 = 3;
/// Exit code: the harness could not go on; nothing is wrong in what was seen until then.
pub(crate) const BROKEN: u8 = 4;

/// How a campaign came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum Ended {
    /// All rounds were played.
    #[default]
    Whole,
    /// It was told to stop.
    Interrupted {
        /// By what.
        by: String,
        /// Milliseconds of faults until then.
        after_ms: u64,
    },
    /// The harness could not go on.
    Broken {
        /// What it met.
        why: String,
        /// Milliseconds of faults until then.
        after_ms: u64,
    },
}

/// What became of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// A remediation of Medic's was verified.
    Remediated,
    /// It passed without one.
    SelfCleared,
    /// A person closed it.
    ByHand,
    /// It was an effect of another.
    Merged,
    /// It is open still.
    Open,
}

/// An incident of the fleet, in a line.
#[derive(Clone, Debug, Serialize)]
pub struct Incident {
    /// `INC-57`.
    pub id: String,
    /// Of which service.
    pub service: String,
    /// Of which instance.
    pub instance: String,
    /// Class of fault, once decided.
    pub class: String,
    /// The strongest symptom.
    pub summary: String,
    /// Playbooks that were run, with their plans and what became of each.
    pub decided: String,
    /// Why a person was asked, when one was.
    pub escalation: String,
    /// When it was opened, milliseconds of the campaign.
    pub opened_ms: u64,
    /// When it was closed.
    pub closed_ms: Option<u64>,
    /// What became of it.
    pub end: End,
}

/// Something that was done, or that happened.
#[derive(Clone, Debug, Serialize)]
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
    /// Minutes of faults that were asked for.
    pub minutes: f64,
    /// The `medic` binary that was asked for; none: the one beside this program.
    pub medic: Option<PathBuf>,
    /// The network that was asked for; none: what can be had.
    pub network_choice: Option<NetworkChoice>,
    /// What was run: version and digest of the binary, and the checkout it was run in.
    pub build: String,
    /// What it was run on, and how busy that was.
    pub machine: Option<Machine>,
    /// What this machine and this binary can do.
    pub can: Capabilities,
    /// How it came to its end.
    pub ended: Ended,
    /// How long all of it took, settling included, milliseconds.
    pub length_ms: u64,
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
    /// When log entries were applied.
    pub clock: LogClock,
    /// Troubles made in the fleet.
    pub troubles: u64,
    /// Incidents of the fleet, in the order they were opened.
    pub incidents: Vec<Incident>,
    /// What could not be gathered, and is no invariant's.
    pub missing: Vec<String>,
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
    /// Verdicts by invariant: one for each thing that was checked of it.
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

    /// Whether the campaign came to its end, no invariant was violated, what must be checked was
    /// checked, and a full campaign reached all it must.
    #[must_use]
    pub fn good(&self) -> bool {
        self.ended == Ended::Whole
            && !self.verdicts.is_empty()
            && self.violations() == 0
            && self.shortcomings().is_empty()
    }

    /// 0: good; 1: violated, not checked or not reached; 3: interrupted; 4: the harness broke. A
    /// violation comes before how it ended.
    #[must_use]
    pub fn exit(&self) -> u8 {
        match &self.ended {
            _ if self.violations() > 0 => VIOLATED,
            Ended::Interrupted { .. } => INTERRUPTED,
            Ended::Broken { .. } => BROKEN,
            Ended::Whole if self.good() => 0,
            Ended::Whole => VIOLATED,
        }
    }

    /// Verdicts of which nothing is known: nothing was checked.
    pub(crate) fn unchecked(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| verdict.checked == 0 && verdict.holds())
    }

    /// Those among the unchecked that had to be checked: in a full campaign each whose tool is here; a
    /// short one may not come to an isolated leader, a wrong clock, or an instance that is killed.
    #[must_use]
    pub fn idle(&self) -> Vec<&Verdict> {
        self.unchecked()
            .filter(|verdict| match (self.full, verdict.invariant, verdict.of.as_str()) {
                (true, 13, _) => self.can.clocks,
                (false, 11 | 13, _) | (false, 10, "killed instances") => false,
                (true | false, ..) => true,
            })
            .collect()
    }

    /// What is said first.
    #[must_use]
    pub fn headline(&self) -> String {
        let minutes = |ms: u64| seconds(ms) / 60.0;
        let ended = match &self.ended {
            Ended::Whole => String::new(),
            Ended::Interrupted { by, after_ms } => {
                format!("INTERRUPTED by {by} after {:.1} min: ", minutes(*after_ms))
            }
            Ended::Broken { why, after_ms } => {
                format!("BROKEN OFF after {:.1} min ({why}): ", minutes(*after_ms))
            }
        };
        let numbers = |verdicts: &mut dyn Iterator<Item = &Verdict>| {
            let numbers: BTreeSet<u8> = verdicts.map(|verdict| verdict.invariant).collect();
            numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
        };
        let wrong = numbers(&mut self.verdicts.iter().filter(|verdict| !verdict.holds()));
        let unchecked = numbers(&mut self.unchecked());
        let found = match (wrong.is_empty(), self.shortcomings().is_empty()) {
            (false, _) => format!("NOT every invariant holds: {wrong} violated"),
            (true, false) => "no violation, and NOT all was checked that must be".to_owned(),
            (true, true) if self.verdicts.is_empty() => "nothing was checked".to_owned(),
            (true, true) if unchecked.is_empty() => "every invariant holds".to_owned(),
            (true, true) => "every invariant that was checked holds".to_owned(),
        };
        let not = if unchecked.is_empty() {
            String::new()
        } else {
            format!(" (nothing checked of: {unchecked})")
        };
        format!("{ended}{found}{not}")
    }

    /// Everything that is wrong with the campaign itself, a line each.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<String> {
        let idle = self.idle().into_iter().map(|verdict| {
            format!("nothing was checked of invariant {}: {}", verdict.invariant, verdict.of)
        });
        let short = self.short().into_iter().map(|short| format!("not reached: {short}"));
        let missing = self.missing.iter().map(|what| format!("could not be had: {what}"));
        idle.chain(short).chain(missing).collect()
    }

    /// Why it is not a full campaign, long as it is.
    #[must_use]
    pub fn not_full(&self) -> Option<&'static str> {
        (self.minutes >= FULL_MINUTES && !self.can.failpoints).then_some(
            "not a full campaign: the medic binary has no failpoints, so nothing is said of how many of \
             them were reached",
        )
    }

    /// The command that does it again.
    #[must_use]
    pub fn again(&self) -> String {
        use clap::ValueEnum as _;
        let choice = self.network_choice.and_then(|choice| choice.to_possible_value());
        let network = choice.map(|value| format!(" --network {}", value.get_name()));
        let medic = self.medic.as_ref().map(|medic| format!(" --medic {}", medic.display()));
        format!(
            "medic-chaos campaign --minutes {} --seed {} --nodes {}{}{}",
            self.minutes,
            self.seed,
            self.nodes,
            network.unwrap_or_default(),
            medic.unwrap_or_default()
        )
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
        for fault in Fault::ALL.into_iter().filter(|fault| self.can.missing(*fault).is_none()) {
            let Tally { drawn, begun, felt } =
                self.nemeses.get(&fault).copied().unwrap_or_default();
            if felt == 0 {
                short.push(format!("{fault} was never felt (drawn {drawn} times, begun {begun})"));
            }
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
        let of = |invariant| -> usize {
            let found = self.verdicts.iter().filter(|verdict| verdict.invariant == invariant);
            found.map(|verdict| verdict.violations.len()).sum()
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
        format!(
            "{} faults; {leaders} leaders ended; {}; {at_points} deaths at failpoints; {} power cuts, \
             {} nodes replaced, {} damaged, {} certificates taken over; {writes} writes, {reads} \
             reads, {open} open calls; {} plans, {} steps taken over, {} acts, {} messages to \
             people; {} incidents; {} recoveries, the slowest {:.1} s; {} of {} failpoints reached; \
             {} violations",
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
            self.incidents.len(),
            self.recoveries.len(),
            seconds(worst),
            self.reached(),
            self.hits.len(),
            self.violations()
        )
    }

    /// What became of the faults of each kind.
    fn tallies(&self) -> Vec<(Fault, Tally)> {
        let tally = |(fault, drawn): (Fault, usize)| {
            let drawn = u64::try_from(drawn).unwrap_or(u64::MAX);
            let unknown = Tally { drawn, ..Tally::default() };
            (fault, self.nemeses.get(&fault).copied().unwrap_or(unknown))
        };
        self.drawn().into_iter().map(tally).collect()
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

    /// Writes `report.json`, `report.md` and `report.html` into a folder; gives the last one's path.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        for (name, text) in [
            ("report.json", json::render(self)?),
            ("report.md", markdown::render(self)),
            ("report.html", html::render(self)),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(dir.join("report.html"))
    }
}

/// What one verdict came to, in words, with a class for its colour.
fn word(verdict: &Verdict) -> (&'static str, String) {
    match (verdict.violations.len(), verdict.checked) {
        (0, 0) => ("none", "nothing checked".to_owned()),
        (0, _) => ("good", "holds".to_owned()),
        (1, _) => ("bad", "1 violation".to_owned()),
        (many, _) => ("bad", format!("{many} violations")),
    }
}
