//! The report as Markdown.

use super::Report;
use crate::campaign::{Hits, seconds};

/// Violations shown for each invariant.
const SHOWN: usize = 10;

pub(super) fn render(report: &Report) -> String {
    let mut text = format!(
        "# Campaign with seed {} on {} nodes: {}\n\n{}.\n\n{}.\n\nAgain: `medic-chaos campaign --seed {} --nodes {} --network {}`\n",
        report.seed,
        report.nodes,
        if report.good() { "every invariant holds" } else { "NOT every invariant holds" },
        report.summary(),
        report.ground(),
        report.seed,
        report.nodes,
        if report.walls.is_some() { "namespaces" } else { "loopback" }
    );
    text += "\n## Invariants\n\n| # | invariant | verdict | checked |\n|---|---|---|---|\n";
    for verdict in &report.verdicts {
        let word = match (verdict.holds(), verdict.checked) {
            (true, 0) => "nothing was checked".to_owned(),
            (true, _) => "holds".to_owned(),
            (false, _) => format!("**{} violations**", verdict.violations.len()),
        };
        let (number, title) = (verdict.invariant, verdict.title());
        write_line(
            &mut text,
            &format!("| {number} | {title} | {word} | {} {} |", verdict.checked, verdict.of),
        );
    }
    for verdict in report.verdicts.iter().filter(|verdict| !verdict.holds()) {
        write_line(&mut text, &format!("\n### {} {}\n", verdict.invariant, verdict.title()));
        for violation in verdict.violations.iter().take(SHOWN) {
            write_line(&mut text, &format!("- {}", violation.what));
            for line in &violation.evidence {
                write_line(&mut text, &format!("  - `{line}`"));
            }
            for file in &violation.files {
                write_line(&mut text, &format!("  - look at {}", file.display()));
            }
        }
    }
    write_line(&mut text, &format!("\n{}.\n", report.mid_remediation()));
    for short in report.short() {
        write_line(&mut text, &format!("- NOT reached: {short}"));
    }
    text += "\n## Faults by kind\n\n| fault | times |\n|---|---|\n";
    for (fault, times) in report.drawn() {
        write_line(&mut text, &format!("| {fault} | {times} |"));
    }
    if !report.absent.is_empty() {
        text += "\nNot done here:\n\n";
    }
    for absent in &report.absent {
        write_line(&mut text, &format!("- {absent}"));
    }
    if !report.damage.is_empty() {
        text += "\n## Damage\n\n";
    }
    for damage in &report.damage {
        write_line(&mut text, &format!("- {damage}"));
    }
    text += "\n## Failpoints\n\nEach process counts its first 50 passes of each.\n\n";
    text += "| failpoint | passes | armed | deaths |\n|---|---|---|---|\n";
    for (name, hits) in &report.hits {
        let Hits { passed, armed, deaths } = hits;
        write_line(&mut text, &format!("| {name} | {passed} | {armed} | {deaths} |"));
    }
    text += "\n## Time line\n\n";
    for event in &report.events {
        let fault = event.fault.map(|fault| format!("{fault}: ")).unwrap_or_default();
        write_line(&mut text, &format!("- {:.1} s: {fault}{}", seconds(event.at_ms), event.text));
    }
    text
}

fn write_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
