//! The report of a healing campaign: the customer's table, every fault, and why what failed did.

mod html;
mod markdown;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    Phase, Record,
    cases::Case,
    measure::{Figures, Row, percent},
};
use crate::campaign::{CampaignArgs, seconds};

/// One phase.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub(super) record: Record,
    pub(super) rows: Vec<Row>,
    pub(super) figures: Figures,
    /// Incidents that no fault explains.
    pub(super) false_alarms: Vec<Case>,
    pub(super) instances: usize,
}

/// A line of the customer's table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) what: &'static str,
    pub(super) wanted: &'static str,
    pub(super) seen: String,
    /// Kept; absent: a figure to read, without a bound here.
    pub(super) kept: Option<bool>,
}

/// Everything a report says.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) nodes: u64,
    pub(super) minutes: f64,
    pub(super) person_after_s: u64,
    pub(super) machine: String,
    pub(super) lines: Vec<Line>,
    pub(super) parts: Vec<Part>,
}

impl Part {
    fn days(&self) -> f64 {
        seconds(self.record.length_ms) / 86_400.0
    }

    fn of_faults(&self, figures: &mut Vec<Line>) {
        let f = &self.figures;
        let share = |part: usize, whole: usize| percent(count(part), count(whole));
        let mut line = |what, wanted, seen: String, kept| {
            figures.push(Line { what, wanted, seen, kept });
        };
        let spread = |spread: &super::measure::Spread| {
            format!(
                "median {:.1} s, p99 {:.1} s, worst {:.1} s",
                seconds(spread.median),
                seconds(spread.p99),
                seconds(spread.max)
            )
        };
        let healed = share(f.healed, f.faults);
        let text = format!("{healed:.1} % ({} of {})", f.healed, f.faults);
        line("healed without a human", "90 %", text, Some(healed >= 90.0));
        let text = format!("{} of {}: {}", f.detected, f.faults, spread(&f.detection_ms));
        let all = f.detected == f.faults;
        line("detected", "< 30 s", text, Some(all && f.detection_ms.p99 < 30_000));
        let kept = f.decision_ms.p99 < 5_000;
        line("decided, after detection", "< 5 s", spread(&f.decision_ms), Some(kept));
        let kept = f.remediation_ms.p99 < 120_000;
        line(
            "remediated and verified, after the first act",
            "< 2 min",
            spread(&f.remediation_ms),
            Some(kept),
        );
        let kept = f.recovery_ms.p99 < 300_000;
        line("recovered, after the fault", "< 5 min", spread(&f.recovery_ms), Some(kept));
        let good = percent(f.plans_good.into(), f.plans.into());
        let text = format!("{good:.1} % ({} of {} plans)", f.plans_good, f.plans);
        line("remediations that succeeded", "> 95 %", text, Some(good > 95.0));
        let right = share(f.classified_right, f.faults);
        let text = format!("{right:.1} % ({} of {})", f.classified_right, f.faults);
        line("classed right", "> 95 %", text, Some(right > 95.0));
        let text = format!("{:.1} s on average", seconds(mean_lasted(&self.rows)));
        line("mean time to repair", "", text, None);
    }
}

/// Mean time that faults were there, milliseconds.
fn mean_lasted(rows: &[Row]) -> u64 {
    let lasted: Vec<u64> = rows.iter().filter_map(|row| row.fault.gone_after_ms).collect();
    let sum: u64 = lasted.iter().sum();
    sum.checked_div(count(lasted.len())).unwrap_or(0)
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Report {
    pub(super) fn new(args: &CampaignArgs) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            seed: args.seed,
            nodes: args.nodes,
            minutes: args.minutes,
            person_after_s: args.healing.person_after,
            machine: format!("{cores} cores"),
            lines: Vec::new(),
            parts: Vec::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        record: Record,
        rows: Vec<Row>,
        figures: Figures,
        false_alarms: Vec<Case>,
        instances: usize,
    ) {
        self.parts.push(Part { record, rows, figures, false_alarms, instances });
        self.lines = self.table();
    }

    pub(super) fn part(&self, phase: Phase) -> Option<&Part> {
        self.parts.iter().find(|part| part.record.phase == phase)
    }

    fn table(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(part) = self.part(Phase::Faults) {
            part.of_faults(&mut lines);
        }
        let with_medic = || self.parts.iter().filter(|p| p.record.phase != Phase::WithoutMedic);
        let incidents: usize = with_medic().map(|part| part.figures.incidents).sum();
        let alarms: usize = with_medic().map(|part| part.figures.false_alarms).sum();
        if incidents > 0 {
            let share = percent(count(alarms), count(incidents));
            let seen = format!("{share:.1} % of all incidents ({alarms} of {incidents})");
            let kept = Some(share < 5.0);
            lines.push(Line { what: "false positives", wanted: "< 5 %", seen, kept });
        }
        if let Some(quiet) = self.part(Phase::Quiet) {
            #[allow(clippy::cast_precision_loss, reason = "a few instances")]
            let days = quiet.days() * quiet.instances as f64;
            let alarms = quiet.figures.incidents;
            let noise = quiet.record.noise.len();
            let seen = format!(
                "{alarms} in {days:.3} service-days ({} instances, {noise} pieces of noise); a fleet \
                 day of {} s each {:.1} times",
                quiet.instances,
                super::load::DAY.as_secs(),
                seconds(quiet.record.length_ms) / super::load::DAY.as_secs_f64()
            );
            lines.push(Line {
                what: "false alarms on a quiet fleet",
                wanted: "",
                seen,
                kept: None,
            });
        }
        self.availability(&mut lines);
        lines
    }

    fn availability(&self, lines: &mut Vec<Line>) {
        let names = [
            (Phase::Faults, "requests served, faults and Medic"),
            (Phase::WithoutMedic, "requests served, faults and a person alone"),
            (Phase::Quiet, "requests served, quiet and Medic"),
        ];
        for (phase, what) in names {
            let Some(part) = self.part(phase) else { continue };
            let f = &part.figures;
            let seen = format!(
                "{:.3} % ({} of {} failed)",
                f.availability(),
                f.failed,
                f.served + f.failed
            );
            lines.push(Line { what, wanted: "> 99.9 %", seen, kept: None });
        }
    }

    /// Whether every bound was kept.
    pub(super) fn good(&self) -> bool {
        self.lines.iter().all(|line| line.kept != Some(false))
    }

    /// The table for a terminal, with what went wrong.
    pub(super) fn terminal(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let word = match line.kept {
                Some(true) => "kept",
                Some(false) => "NOT KEPT",
                None => "",
            };
            text += &format!("{:<46} {:>9}  {:<9} {}\n", line.what, line.wanted, word, line.seen);
        }
        for row in self.parts.iter().flat_map(|part| &part.rows) {
            let wrong = !row.class.is_empty() && row.class != row.expected;
            if row.remarks.is_empty() && !wrong {
                continue;
            }
            text += &format!("  {}\n", described(row));
        }
        for case in self.parts.iter().flat_map(|part| &part.false_alarms) {
            let first = case.timeline.first().map_or("", String::as_str);
            text += &format!("  false alarm {} {}: {first}\n", case.id, case.service);
        }
        text
    }

    /// Writes `report.json`, `report.md` and `report.html`; gives the last one's path.
    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        let json = serde_json::to_string_pretty(self)?;
        for (name, text) in [
            ("report.json", json),
            ("report.md", markdown::render(self)),
            ("report.html", html::render(self)),
        ] {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(dir.join("report.html"))
    }

    /// The command that does it again.
    pub(super) fn again(&self) -> String {
        let phases: Vec<String> = if self.parts.len() == Phase::ALL.len() {
            Vec::new()
        } else {
            self.parts.iter().map(|part| format!(" --phase {}", part.record.phase.name())).collect()
        };
        format!(
            "medic-chaos campaign --healing --minutes {} --seed {} --nodes {}{}",
            self.minutes,
            self.seed,
            self.nodes,
            phases.concat()
        )
    }
}

/// One fault that something is to be said about.
pub(super) fn described(row: &Row) -> String {
    let planned = &row.fault.planned;
    let wrong = if row.class == row.expected || row.class.is_empty() {
        String::new()
    } else {
        format!("classed {} instead of {}; ", row.class, row.expected)
    };
    format!(
        "{:.1} s {} {} [{}]: {wrong}{}",
        seconds(planned.at_ms),
        planned.kind,
        planned.instances.join(", "),
        row.incidents.join(", "),
        row.remarks.join("; ")
    )
}
