//! The report as Markdown.

use super::Report;
use crate::campaign::seconds;

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("# Experiment {}: {}\n\n", report.experiment, report.verdict);
    if !report.description.is_empty() {
        text += &format!("{}\n\n", report.description);
    }
    text += &format!(
        "Expected: `{}`. Seed {}, {:.1} s in all, {} rounds of probes, exit code {}.\n",
        report.expect,
        report.seed,
        seconds(report.length_ms),
        report.samples.len(),
        report.exit_code
    );
    for phase in ["before", "after"] {
        let line = report.steady_after_s.get(phase).map_or_else(
            || format!("- {phase} the faults: not found steady"),
            |took| format!("- {phase} the faults: steady after {took:.1} s"),
        );
        text += &format!("\n{line}");
    }
    if let Some(why) = &report.broken_during {
        text += &format!("\n- while faults were in force: {why}");
    }
    if !report.left.is_empty() {
        text += "\n\n## Left to undo\n";
        for left in &report.left {
            text += &format!("\n- {left}");
        }
        let journal = report.journal.display();
        text += &format!("\n\nAgain: `medic-chaos experiment undo {journal}`");
    }
    text +=
        "\n\n## Faults\n\n| # | fault | target | from | to | undone |\n|---|---|---|---|---|---|\n";
    for fault in &report.faults {
        let time =
            |at: Option<u64>| at.map_or_else(String::new, |at| format!("{:.1} s", seconds(at)));
        let undone = match (fault.undone, &fault.failed, fault.undo.is_empty()) {
            (_, Some(why), _) => format!("not begun: {why}"),
            (Some(true), ..) => "yes".to_owned(),
            (Some(false), ..) => "**no**".to_owned(),
            (None, None, true) => "nothing takes it back".to_owned(),
            (None, None, false) => "**no**".to_owned(),
        };
        let row = [
            fault.number.to_string(),
            fault.name.clone(),
            fault.target.clone(),
            time(fault.began_ms),
            time(fault.ended_ms),
            undone,
        ];
        text += &format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text += "\n## What happened\n\n";
    for event in &report.events {
        text += &format!("- {:.1} s: {}\n", seconds(event.at_ms), event.text);
    }
    text
}
