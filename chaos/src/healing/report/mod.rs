//! The report of a healing campaign: the customer's table, every fault, and why what failed did.

mod html;
mod markdown;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    Phase, Record,
    cases::Case,
    kinds::Kind,
    measure::{Figures, Row, percent},
};
use crate::{
    bench::Machine,
    campaign::{CampaignArgs, seconds},
    report::Spread,
};

#[cfg(test)]
mod tests;

/// Share of requests that are to be answered well, of a hundred.
const SERVED_LEAST: f64 = 99.9;

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
    /// Kept; absent: a figure to compare with, without a bound of its own.
    pub(super) kept: Option<bool>,
}

/// Everything a report says.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) nodes: u64,
    pub(super) minutes: f64,
    pub(super) person_after_s: u64,
    pub(super) scrape_interval_s: u64,
    pub(super) kinds: Vec<Kind>,
    pub(super) medic: Option<PathBuf>,
    pub(super) machine: Machine,
    /// Phases that were to be played, and how it was broken off when it was.
    pub(super) phases: Vec<Phase>,
    pub(super) broken_off: Option<String>,
    pub(super) lines: Vec<Line>,
    pub(super) parts: Vec<Part>,
}

impl Part {
    /// Faults that something is to be said about. Without Medic there is nobody to say it of.
    fn remarkable(&self) -> impl Iterator<Item = &Row> {
        let healer = self.record.phase != Phase::WithoutMedic;
        self.rows.iter().filter(move |row| healer && !row.as_it_should())
    }

    fn days(&self) -> f64 {
        seconds(self.record.length_ms) / 86_400.0
    }

    fn of_faults(&self, figures: &mut Vec<Line>) {
        let f = &self.figures;
        let share = |part: usize, whole: usize| percent(count(part), count(whole));
        let mut line = |what, wanted, seen: String, kept| {
            figures.push(Line { what, wanted, seen, kept });
        };
        let healed = share(f.healed, f.faults);
        let text = format!("{healed:.1} % ({} of {})", f.healed, f.faults);
        line("healed without a human", "90 %", text, Some(healed >= 90.0));
        // A fault without a time is the worst of them: it may not drop out of its own figure.
        let mut timed = |what, wanted, spread: &Spread, bound_ms| {
            let text = format!("{} of {}: {}", spread.count, f.faults, described_spread(spread));
            let all = f.faults > 0 && spread.count >= f.faults;
            line(what, wanted, text, Some(all && spread.p99 < bound_ms));
        };
        timed("detected", "< 30 s", &f.detection_ms, 30_000);
        timed("decided, after detection", "< 5 s", &f.decision_ms, 5_000);
        let what = "remediated and verified, after the first act";
        timed(what, "< 2 min", &f.remediation_ms, 120_000);
        timed("recovered, after the fault", "< 5 min", &f.recovery_ms, 300_000);
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

fn described_spread(spread: &Spread) -> String {
    format!(
        "median {:.1} s, p99 {:.1} s, worst {:.1} s",
        seconds(spread.median),
        seconds(spread.p99),
        seconds(spread.max)
    )
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
    pub(super) fn new(args: &CampaignArgs, phases: Vec<Phase>, dir: &Path) -> Self {
        Self {
            seed: args.seed,
            nodes: args.nodes,
            minutes: args.minutes,
            person_after_s: args.healing.person_after,
            scrape_interval_s: args.healing.scrape_interval,
            kinds: args.healing.kind.clone(),
            medic: args.medic.clone(),
            machine: Machine::look(dir),
            phases,
            broken_off: None,
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
                "{alarms} in {days:.3} service-days, {:.0} per service-day ({} instances, {noise} pieces \
                 of noise; a day is compressed into {} s, and was {:.1} of them)",
                per_day(alarms, days),
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
            // Without Medic is what it is compared with, and promised by nobody.
            let (wanted, kept) = match phase {
                Phase::WithoutMedic => ("", None),
                Phase::Faults | Phase::Quiet => ("> 99.9 %", Some(f.availability() > SERVED_LEAST)),
            };
            lines.push(Line { what, wanted, seen, kept });
        }
    }

    /// Whether all of it was played, and every bound kept.
    pub(super) fn good(&self) -> bool {
        self.broken_off.is_none()
            && !self.lines.is_empty()
            && self.lines.iter().all(|line| line.kept != Some(false))
    }

    /// What is said first.
    pub(super) fn headline(&self) -> String {
        let word = if self.lines.is_empty() {
            "nothing was measured"
        } else if self.lines.iter().any(|line| line.kept == Some(false)) {
            "NOT every bound was kept"
        } else {
            "every bound was kept"
        };
        match &self.broken_off {
            Some(why) => format!("BROKEN OFF ({why}): {word} in what was played"),
            None => word.to_owned(),
        }
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
        for row in self.parts.iter().flat_map(Part::remarkable) {
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
        let phases = self.phases.iter().map(|phase| format!(" --phase {}", phase.name()));
        let phases = if self.phases == Phase::ALL { String::new() } else { phases.collect() };
        let kinds = self.kinds.iter().map(|kind| format!(" --kind {}", kind.name()));
        let kinds: String = kinds.collect();
        let medic = self.medic.as_ref().map(|medic| format!(" --medic {}", medic.display()));
        format!(
            "medic-chaos campaign --healing --minutes {} --seed {} --nodes {} --person-after {} --scrape-interval {}{phases}{kinds}{}",
            self.minutes,
            self.seed,
            self.nodes,
            self.person_after_s,
            self.scrape_interval_s,
            medic.unwrap_or_default()
        )
    }
}

/// So many in so many days, per day; none in none.
fn per_day(many: usize, days: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a few incidents")]
    let many = many as f64;
    if days > 0.0 { many / days } else { 0.0 }
}

/// One fault that something is to be said about.
pub(super) fn described(row: &Row) -> String {
    let planned = &row.fault.planned;
    // What nobody saw was given no class, and that needs no word.
    let wrong = (row.class != row.expected && row.detected_ms.is_some())
        .then(|| format!("classed {} instead of {}", row.given(), row.expected));
    let said: Vec<String> = wrong.into_iter().chain(row.remarks.iter().cloned()).collect();
    format!(
        "{:.1} s {} {} [{}]: {}",
        seconds(planned.at_ms),
        planned.kind,
        planned.instances.join(", "),
        row.incidents.join(", "),
        said.join("; ")
    )
}
