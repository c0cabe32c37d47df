//! Ground truth against what Medic made of it: one row per fault, and the customer's figures.
//!
//! ```text
//!   fault ──► its incidents: about its service, opened (or with a symptom first seen) while it lasts
//!             open when it came: only with word of it at their own target, or an act on it meanwhile
//!   incident without a fault: an effect of one further down, or a false alarm
//! ```
//!
//! The first decision counts for the class. Healed means: the fault is gone by the fleet's own account,
//! no person took part, and no incident of it was handed to one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{cases::Case, life::Injected, load::Second};
use crate::{fleet::SampleFleet, report::Spread};

/// Clocks are the same; the log stamps a little later than we note.
const EARLY_MS: u64 = 300;
/// What is seen so long after a fault was over may still be of it.
const LATE_MS: u64 = 12_000;

/// Given to a fault that was given no class.
const NONE: &str = "none";

/// One fault.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    #[serde(flatten)]
    pub(super) fault: Injected,
    pub(super) expected: &'static str,
    /// Its incidents, the first first.
    pub(super) incidents: Vec<String>,
    pub(super) class: String,
    pub(super) detected_ms: Option<u64>,
    /// From detection.
    pub(super) decided_ms: Option<u64>,
    /// From the decision to the end of the last plan.
    pub(super) remediated_ms: Option<u64>,
    /// From the fault to the last incident's close.
    pub(super) recovered_ms: Option<u64>,
    pub(super) plans_good: u32,
    pub(super) plans_bad: u32,
    pub(super) healed: bool,
    /// Why it was not, or what else went wrong.
    pub(super) remarks: Vec<String>,
}

impl Row {
    /// The class that was given, for people.
    pub(super) fn given(&self) -> &str {
        if self.class.is_empty() { NONE } else { &self.class }
    }

    /// Healed, classed right, and nothing else to say.
    pub(super) fn as_it_should(&self) -> bool {
        self.healed && self.class == self.expected && self.remarks.is_empty()
    }
}

/// What a phase came to.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    pub(super) faults: usize,
    pub(super) detected: usize,
    pub(super) healed: usize,
    pub(super) classified: usize,
    pub(super) classified_right: usize,
    pub(super) plans: u32,
    pub(super) plans_good: u32,
    pub(super) detection_ms: Spread,
    pub(super) decision_ms: Spread,
    pub(super) remediation_ms: Spread,
    pub(super) recovery_ms: Spread,
    /// How long faults were there, healed or not.
    pub(super) lasted_ms: Spread,
    pub(super) incidents: usize,
    pub(super) effects: usize,
    pub(super) false_alarms: usize,
    pub(super) served: u64,
    pub(super) failed: u64,
    /// Classes given, by the kind of fault; `none` to those that were given none.
    pub(super) confusion: BTreeMap<String, BTreeMap<String, usize>>,
}

/// What an incident without a fault of its own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stray {
    Effect,
    FalseAlarm,
}

/// Rows, figures, and the incidents that no fault explains.
pub(super) fn measure(
    faults: &[Injected],
    cases: &[Case],
    load: &BTreeMap<u64, Second>,
    fleet: &SampleFleet,
) -> (Vec<Row>, Figures, Vec<Case>) {
    let done: Vec<&Injected> = faults.iter().filter(|fault| fault.not_done.is_none()).collect();
    let mut of_fault: BTreeMap<usize, Vec<&Case>> = BTreeMap::new();
    let mut figures = Figures { faults: done.len(), incidents: cases.len(), ..Figures::default() };
    let mut false_alarms = Vec::new();
    for case in cases {
        if let Some(position) = owner(&done, case) {
            of_fault.entry(position).or_default().push(case);
            continue;
        }
        // What was merged is told by the one that took it in.
        match stray(&done, case, fleet) {
            Stray::Effect => figures.effects += 1,
            Stray::FalseAlarm => {
                figures.false_alarms += 1;
                false_alarms.push(case.clone());
            }
        }
    }
    let by_id: BTreeMap<&str, &Case> = cases.iter().map(|case| (case.id.as_str(), case)).collect();
    let rows: Vec<Row> = done
        .iter()
        .enumerate()
        .map(|(n, fault)| {
            let own = of_fault.remove(&n).unwrap_or_default();
            row(fault, &own, cases, &by_id)
        })
        .collect();
    figures.take(&rows, load);
    (rows, figures, false_alarms)
}

fn end_ms(fault: &Injected) -> u64 {
    fault.gone_after_ms.map_or(u64::MAX, |lasted| fault.wall_ms.saturating_add(lasted))
}

fn during(fault: &Injected, at_ms: u64) -> bool {
    at_ms + EARLY_MS >= fault.wall_ms && at_ms <= end_ms(fault).saturating_add(LATE_MS)
}

/// The fault that an incident is about: the latest one of its service that was there when it began;
/// else the first one that came while it was open, and that it took in.
fn owner(faults: &[&Injected], case: &Case) -> Option<usize> {
    let own: BTreeSet<&str> = case
        .symptoms
        .iter()
        .filter(|seen| seen.service == case.service)
        .map(|seen| seen.instance.as_str())
        .chain([case.instance.as_str()])
        .collect();
    let fits = |fault: &Injected| {
        fault.planned.service == case.service
            && during(fault, case.opened_ms)
            && fault.planned.instances.iter().any(|name| own.contains(name.as_str()))
    };
    let opened_by = (0..faults.len()).rev().find(|n| fits(faults[*n]));
    opened_by.or_else(|| faults.iter().position(|fault| took_in(fault, case)))
}

/// Whether an incident got word of a fault at its own target, or acted on the fault's target, while the
/// fault was there; nothing joins one that is closed. No margins here: when it opened there was no fault.
fn took_in(fault: &Injected, case: &Case) -> bool {
    let hit = |instance: &String| fault.planned.instances.contains(instance);
    let on = |at_ms: u64| (fault.wall_ms..=end_ms(fault)).contains(&at_ms);
    let word = || {
        let mut own = case.symptoms.iter().filter(|seen| seen.instance == case.instance);
        hit(&case.instance) && own.any(|seen| on(seen.first_ms))
    };
    let acted = || {
        let mut acts = case.plans.iter().flat_map(|plan| &plan.acts);
        acts.any(|act| hit(&act.instance) && on(act.began_ms))
    };
    case.service == fault.planned.service && (word() || acted())
}

fn stray(faults: &[&Injected], case: &Case, fleet: &SampleFleet) -> Stray {
    let explains = |fault: &Injected| {
        during(fault, case.opened_ms)
            && (fault.planned.service == case.service
                || reaches(fleet, &case.service, &fault.planned.service))
    };
    if faults.iter().any(|fault| explains(fault)) { Stray::Effect } else { Stray::FalseAlarm }
}

/// Whether a service calls another, itself or through others.
fn reaches(fleet: &SampleFleet, from: &str, to: &str) -> bool {
    fleet.depends_on(from).iter().any(|next| *next == to || reaches(fleet, next, to))
}

fn row(fault: &Injected, own: &[&Case], cases: &[Case], by_id: &BTreeMap<&str, &Case>) -> Row {
    let mut row = Row {
        expected: fault.planned.kind.class(),
        fault: fault.clone(),
        incidents: own.iter().map(|case| case.id.clone()).collect(),
        class: String::new(),
        detected_ms: None,
        decided_ms: None,
        remediated_ms: None,
        recovered_ms: None,
        plans_good: 0,
        plans_bad: 0,
        healed: false,
        remarks: Vec::new(),
    };
    let first = own.first().copied().or_else(|| joined(fault, cases));
    let Some(first) = first else {
        row.remarks.push("not detected".to_owned());
        row.healed = false;
        return row;
    };
    row.detected_ms = Some(first_seen(fault, first).saturating_sub(fault.wall_ms));
    let judged = last_of_chain(first, by_id);
    row.class.clone_from(&judged.class);
    row.decided_ms = judged
        .decided_ms
        .map(|at| at.saturating_sub(first_seen(fault, first).max(judged.opened_ms)));
    if own.is_empty() {
        row.incidents.push(first.id.clone());
    }
    let mut treated: Vec<&Case> = own.to_vec();
    if !treated.iter().any(|case| case.id == judged.id) {
        treated.push(judged);
    }
    count_plans(&mut row, &treated);
    let open = treated.iter().find(|case| !case.closed());
    let asked = treated.iter().find(|case| {
        case.manual || !case.escalation.is_empty() || case.status == "awaiting-approval"
    });
    row.recovered_ms = match open {
        Some(_) => None,
        None => treated
            .iter()
            .filter_map(|case| case.resolved_ms)
            .max()
            .map(|at| at.saturating_sub(fault.wall_ms)),
    };
    if let Some(case) = asked {
        row.remarks.push(format!("{}: a person was asked: {}", case.id, case.escalation));
    }
    if fault.by_hand {
        row.remarks.push("mended by hand".to_owned());
    }
    if fault.gone_after_ms.is_none() {
        row.remarks.push("there to the end".to_owned());
    }
    row.healed = fault.gone_after_ms.is_some() && !fault.by_hand && asked.is_none();
    row
}

/// An incident that was open already and took the fault's symptom in.
fn joined<'a>(fault: &Injected, cases: &'a [Case]) -> Option<&'a Case> {
    cases.iter().find(|case| case.symptoms.iter().any(|seen| is_of(fault, seen)))
}

fn is_of(fault: &Injected, seen: &super::cases::Seen) -> bool {
    fault.planned.instances.contains(&seen.instance) && during(fault, seen.first_ms)
}

fn first_seen(fault: &Injected, case: &Case) -> u64 {
    let seen = case.symptoms.iter().filter(|seen| is_of(fault, seen)).map(|seen| seen.first_ms);
    seen.min().unwrap_or(case.opened_ms).max(fault.wall_ms)
}

/// The incident that an incident was merged into, at last.
fn last_of_chain<'a>(case: &'a Case, by_id: &BTreeMap<&str, &'a Case>) -> &'a Case {
    let mut last = case;
    for _ in 0..8 {
        match by_id.get(last.merged_into.as_str()) {
            Some(next) => last = next,
            None => break,
        }
    }
    last
}

fn count_plans(row: &mut Row, treated: &[&Case]) {
    let plans = || treated.iter().flat_map(|case| &case.plans);
    for plan in plans() {
        match plan.outcome() {
            Some(true) => row.plans_good += 1,
            Some(false) => {
                row.plans_bad += 1;
                let text =
                    format!("{} {} {}: {}", plan.id, plan.playbook, plan.status, plan.reason);
                row.remarks.push(text);
            }
            None => {}
        }
    }
    let began = plans().filter_map(|plan| plan.started_ms).min();
    let ended = plans().filter_map(|plan| plan.ended_ms).max();
    row.remediated_ms = began.zip(ended).map(|(began, ended)| ended.saturating_sub(began));
}

impl Figures {
    fn take(&mut self, rows: &[Row], load: &BTreeMap<u64, Second>) {
        self.detected = rows.iter().filter(|row| row.detected_ms.is_some()).count();
        self.healed = rows.iter().filter(|row| row.healed).count();
        for row in rows {
            self.classified += usize::from(!row.class.is_empty());
            self.classified_right += usize::from(row.class == row.expected);
            let given = self.confusion.entry(row.fault.planned.kind.to_string()).or_default();
            *given.entry(row.given().to_owned()).or_default() += 1;
        }
        self.plans_good = rows.iter().map(|row| row.plans_good).sum();
        self.plans = self.plans_good + rows.iter().map(|row| row.plans_bad).sum::<u32>();
        self.detection_ms = Spread::of(rows.iter().filter_map(|row| row.detected_ms));
        self.decision_ms = Spread::of(rows.iter().filter_map(|row| row.decided_ms));
        self.remediation_ms = Spread::of(rows.iter().filter_map(|row| row.remediated_ms));
        self.recovery_ms = Spread::of(rows.iter().filter_map(|row| row.recovered_ms));
        self.lasted_ms = Spread::of(rows.iter().filter_map(|row| row.fault.gone_after_ms));
        self.served = load.values().map(|second| u64::from(second.served)).sum();
        self.failed = load.values().map(|second| u64::from(second.failed)).sum();
    }

    /// Share of requests that were answered well, of a hundred.
    pub(super) fn availability(&self) -> f64 {
        percent(self.served, self.served + self.failed)
    }
}

/// Of a hundred; 0 of nothing.
#[allow(clippy::cast_precision_loss, reason = "counts of requests and faults")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests;
