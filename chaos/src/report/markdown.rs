//! The report as Markdown: what went wrong first.

use super::{Report, Tally, around, word};
use crate::{
    campaign::{Hits, seconds},
    check::Verdict,
};

/// Violations shown for each verdict.
const SHOWN: usize = 10;
/// Incidents shown; all are in `report.json`.
const INCIDENTS_SHOWN: usize = 100;

pub(super) fn render(report: &Report) -> String {
    let mut text = format!(
        "# Campaign with seed {} on {} nodes: {}\n\nAgain: `{}`\n",
        report.seed,
        report.nodes,
        report.headline(),
        report.again()
    );
    wrong(&mut text, report);
    text += "\n## Figures\n\n| what | how much |\n|---|---|\n";
    for (what, how_much) in report.facts() {
        put(&mut text, &format!("| {what} | {} |", cell(&how_much)));
    }
    if let Some(why) = report.not_full() {
        put(&mut text, &format!("\nThis is {why}."));
    }
    text += "\n## Invariants\n\n| # | invariant | verdict | checked |\n|---|---|---|---|\n";
    for verdict in &report.verdicts {
        let word = match word(verdict) {
            ("bad", word) => format!("**{word}**"),
            (_, word) => word,
        };
        let (number, title) = (verdict.invariant, verdict.title());
        put(
            &mut text,
            &format!("| {number} | {title} | {word} | {} {} |", verdict.checked, verdict.of),
        );
    }
    incidents(&mut text, report);
    text += "\n## Faults by kind\n\n| fault | drawn | begun | felt |\n|---|---|---|---|\n";
    for (fault, tally) in report.tallies() {
        let Tally { drawn, begun, felt } = tally;
        put(&mut text, &format!("| {fault} | {drawn} | {begun} | {felt} |"));
    }
    list(&mut text, "Not done here", &report.absent);
    list(&mut text, "Damage", &report.damage);
    text += "\n## Failpoints\n\nEach process counts its first 50 passes of each.\n\n";
    text += "| failpoint | passes | armed | deaths |\n|---|---|---|---|\n";
    for (name, hits) in &report.hits {
        let Hits { passed, armed, deaths } = hits;
        put(&mut text, &format!("| {name} | {passed} | {armed} | {deaths} |"));
    }
    text += "\n## Time line\n\n";
    for event in &report.events {
        let fault = event.fault.map(|fault| format!("{fault}: ")).unwrap_or_default();
        put(&mut text, &format!("- {:.1} s: {fault}{}", seconds(event.at_ms), event.text));
    }
    text
}

fn wrong(text: &mut String, report: &Report) {
    let shortcomings = report.shortcomings();
    let violated: Vec<&Verdict> = report.verdicts.iter().filter(|v| !v.holds()).collect();
    if shortcomings.is_empty() && violated.is_empty() {
        return;
    }
    put(text, "\n## What went wrong\n");
    for shortcoming in &shortcomings {
        put(text, &format!("- {shortcoming}"));
    }
    for verdict in violated {
        let (number, title, of) = (verdict.invariant, verdict.title(), &verdict.of);
        put(text, &format!("\n### {number} {title} ({of})\n"));
        for violation in verdict.violations.iter().take(SHOWN) {
            put(text, &format!("- {}", violation.what));
            for around in around::lines(report, violation) {
                put(text, &format!("  - {around}"));
            }
            for line in &violation.evidence {
                put(text, &format!("  - `{line}`"));
            }
            for file in &violation.files {
                put(text, &format!("  - look at {}", file.display()));
            }
        }
        let more = verdict.violations.len().saturating_sub(SHOWN);
        if more > 0 {
            put(text, &format!("- and {more} more, in report.json"));
        }
    }
}

fn incidents(text: &mut String, report: &Report) {
    put(text, &format!("\n## Incidents\n\n{}.\n", report.incident_counts()));
    put(text, "| opened | incident | what broke | class | what Medic did | closed | end |");
    put(text, "|---|---|---|---|---|---|---|");
    for incident in report.incidents.iter().take(INCIDENTS_SHOWN) {
        let closed = incident.closed_ms.map(|ms| format!("{:.1} s", seconds(ms)));
        let asked = match incident.escalation.as_str() {
            "" => String::new(),
            why => format!("; a person was asked: {}", cell(why)),
        };
        put(
            text,
            &format!(
                "| {:.1} s | {} | {}: {} | {} | {}{asked} | {} | {} |",
                seconds(incident.opened_ms),
                incident.id,
                incident.instance,
                cell(&incident.summary),
                incident.class,
                cell(&incident.decided),
                closed.unwrap_or_default(),
                incident.end
            ),
        );
    }
    let more = report.incidents.len().saturating_sub(INCIDENTS_SHOWN);
    if more > 0 {
        put(text, &format!("\nAnd {more} more, in report.json."));
    }
}

fn list(text: &mut String, title: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    put(text, &format!("\n## {title}\n"));
    for item in items {
        put(text, &format!("- {item}"));
    }
}

/// As it may stand in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn put(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
