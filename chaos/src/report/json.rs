//! The report for programs. Calls stand in `history.jsonl`, incidents and plans whole in
//! `incidents.json` and `plans.json`, beside it.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Serialize;

use super::{Ended, Event, Incident, Report, Tally, around, figures::Figures, word};
use crate::{
    campaign::{Cause, Hits},
    nemesis::Fault,
};

/// Everything, times in milliseconds of the campaign.
#[derive(Serialize)]
struct Whole<'a> {
    good: bool,
    exit: u8,
    headline: String,
    again: String,
    seed: u64,
    nodes: u64,
    minutes: f64,
    full: bool,
    began_wall_ms: u64,
    length_ms: u64,
    ended: &'a Ended,
    facts: BTreeMap<&'static str, String>,
    figures: Figures,
    shortcomings: Vec<String>,
    violations: usize,
    verdicts: Vec<One<'a>>,
    faults: Vec<Drawn>,
    nemeses: BTreeMap<Fault, Tally>,
    absent: &'a [String],
    events: &'a [Event],
    recoveries: Vec<Healed<'a>>,
    deaths: Vec<Died>,
    incidents: &'a [Incident],
    damage: &'a [String],
    failpoints: BTreeMap<&'a str, Passed>,
}

/// One thing that was checked.
#[derive(Serialize)]
struct One<'a> {
    invariant: u8,
    title: &'static str,
    of: &'a str,
    verdict: String,
    checked: u64,
    violations: Vec<Wrong<'a>>,
}

#[derive(Serialize)]
struct Wrong<'a> {
    what: &'a str,
    around: Vec<String>,
    evidence: &'a [String],
    files: &'a [PathBuf],
}

#[derive(Serialize)]
struct Drawn {
    fault: Fault,
    from_ms: u64,
    to_ms: u64,
}

#[derive(Serialize)]
struct Healed<'a> {
    at_ms: u64,
    took_ms: Option<u64>,
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct Died {
    at_ms: u64,
    node: u64,
    led: bool,
    /// In the middle of a remediation.
    mid_remediation: bool,
    of: String,
}

#[derive(Serialize)]
struct Passed {
    passed: u64,
    armed: u64,
    deaths: u64,
}

pub(super) fn render(report: &Report) -> anyhow::Result<String> {
    let whole = Whole {
        good: report.good(),
        exit: report.exit(),
        headline: report.headline(),
        again: report.again(),
        seed: report.seed,
        nodes: report.nodes,
        minutes: report.minutes,
        full: report.full,
        began_wall_ms: report.wall_began_ms,
        length_ms: report.length_ms,
        ended: &report.ended,
        facts: report.facts().into_iter().collect(),
        figures: Figures::of(report),
        shortcomings: report.shortcomings(),
        violations: report.violations(),
        verdicts: verdicts(report),
        faults: report
            .faults
            .iter()
            .map(|(fault, from_ms, to_ms)| Drawn {
                fault: *fault,
                from_ms: *from_ms,
                to_ms: *to_ms,
            })
            .collect(),
        nemeses: report.tallies().into_iter().collect(),
        absent: &report.absent,
        events: &report.events,
        recoveries: report
            .recoveries
            .iter()
            .map(|(at_ms, took_ms)| Healed {
                at_ms: *at_ms,
                took_ms: *took_ms,
                why: report.late.get(at_ms).map(String::as_str),
            })
            .collect(),
        deaths: deaths(report),
        incidents: &report.incidents,
        damage: &report.damage,
        failpoints: report
            .hits
            .iter()
            .map(|(name, Hits { passed, armed, deaths })| {
                let counts = Passed { passed: *passed, armed: *armed, deaths: *deaths };
                (name.as_str(), counts)
            })
            .collect(),
    };
    Ok(serde_json::to_string_pretty(&whole)?)
}

fn verdicts(report: &Report) -> Vec<One<'_>> {
    let of = |verdict: &'_ crate::check::Verdict| word(verdict).1;
    report
        .verdicts
        .iter()
        .map(|verdict| One {
            invariant: verdict.invariant,
            title: verdict.title(),
            of: &verdict.of,
            verdict: of(verdict),
            checked: verdict.checked,
            violations: verdict
                .violations
                .iter()
                .map(|violation| Wrong {
                    what: &violation.what,
                    around: around::lines(report, violation),
                    evidence: &violation.evidence,
                    files: &violation.files,
                })
                .collect(),
        })
        .collect()
}

fn deaths(report: &Report) -> Vec<Died> {
    let mid: std::collections::BTreeSet<usize> = report.deposed.iter().map(|d| d.at).collect();
    let died = report.deaths.iter().enumerate().map(|(at, death)| Died {
        at_ms: death.at_ms,
        node: death.node,
        led: death.led,
        mid_remediation: mid.contains(&at),
        of: match death.cause {
            Cause::Signal => "a signal".to_owned(),
            Cause::Power => "power".to_owned(),
            Cause::Point(name) => name.to_owned(),
            Cause::Itself => "itself".to_owned(),
        },
    });
    died.collect()
}
