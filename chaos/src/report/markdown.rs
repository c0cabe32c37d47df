//! The report as Markdown.

use super::Report;
use crate::campaign::seconds;

/// Violations shown for each invariant.
const SHOWN: usize = 10;

pub(super) fn render(report: &Report) -> String {
    let mut text = format!(
        "# Campaign with seed {} on {} nodes: {}\n\n{}.\n\nAgain: `medic-chaos campaign --seed {} --nodes {}`\n",
        report.seed,
        report.nodes,
        if report.good() { "every invariant holds" } else { "NOT every invariant holds" },
        report.summary(),
        report.seed,
        report.nodes
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
    text += "\n## Faults\n\n";
    for event in &report.events {
        let fault = event.fault.map(|fault| format!("{fault}: ")).unwrap_or_default();
        write_line(&mut text, &format!("- {:.1} s: {fault}{}", seconds(event.at_ms), event.text));
    }
    text += "\nNot done here:\n\n";
    for absent in &report.absent {
        write_line(&mut text, &format!("- {absent}"));
    }
    for absent in NOT_BUILT {
        write_line(&mut text, &format!("- {absent}: not built"));
    }
    text += "\n## Failpoints\n\n| failpoint | hits |\n|---|---|\n";
    for (name, hits) in &report.hits {
        write_line(&mut text, &format!("| {name} | {hits} |"));
    }
    text
}

/// Faults that a campaign ought to have, and has not.
pub(super) const NOT_BUILT: [&str; 6] = [
    "membership change under load",
    "wall clocks that are stepped or skewed (so 13 is not checked)",
    "full disk",
    "bit flips in files of a stopped node",
    "power cut",
    "certificates that expire or are rotated under way",
];

fn write_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
