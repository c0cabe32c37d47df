//! The report as Markdown.

use std::fmt::Write as _;

use super::{Part, Report, described};
use crate::{campaign::seconds, healing::Phase};

pub(super) fn render(report: &Report) -> String {
    let word = report.headline();
    let mut text = format!(
        "# Healing campaign with seed {} on {} nodes: {word}\n\nAgain: `{}` ({})\n\n\
         | what | wanted | seen | |\n|---|---|---|---|\n",
        report.seed,
        report.nodes,
        report.again(),
        report.machine.whole()
    );
    for line in &report.lines {
        let kept = match line.kept {
            Some(true) => "kept",
            Some(false) => "**not kept**",
            None => "",
        };
        put(
            &mut text,
            format_args!("| {} | {} | {} | {kept} |", line.what, line.wanted, line.seen),
        );
    }
    put(
        &mut text,
        format_args!(
            "\nWithout Medic a person mends each fault after {} s.",
            report.person_after_s
        ),
    );
    for part in &report.parts {
        if part.record.phase == Phase::Faults {
            faults(&mut text, part);
            confusion(&mut text, part);
        }
        if !part.false_alarms.is_empty() {
            put(&mut text, format_args!("\n## False alarms ({})\n", part.record.phase.name()));
            for case in &part.false_alarms {
                let lines = case.timeline.join("; ");
                put(
                    &mut text,
                    format_args!("- {} {}/{}: {lines}", case.id, case.service, case.instance),
                );
            }
        }
    }
    text
}

fn faults(text: &mut String, part: &Part) {
    let kills = &part.record.kills;
    let leaders = kills.iter().filter(|kill| kill.leader).count();
    put(
        text,
        format_args!(
            "\n## Faults\n\n{} nodes of Medic's were killed meanwhile, {leaders} of them leaders; {} incidents \
         were effects of a fault elsewhere.\n",
            kills.len(),
            part.figures.effects
        ),
    );
    put(
        text,
        format_args!(
            "| at | fault | at whom | class given | detected | decided | remediated | recovered | healed |\n|---|---|---|---|---|---|---|---|---|"
        ),
    );
    let time = |ms: Option<u64>| ms.map_or("-".to_owned(), |ms| format!("{:.1} s", seconds(ms)));
    for row in &part.rows {
        let planned = &row.fault.planned;
        let class = if row.class == row.expected {
            row.class.clone()
        } else {
            format!("**{}**, not {}", row.given(), row.expected)
        };
        put(
            text,
            format_args!(
                "| {:.1} s | {} | {} | {class} | {} | {} | {} | {} | {} |",
                seconds(planned.at_ms),
                planned.kind,
                planned.instances.join(", "),
                time(row.detected_ms),
                time(row.decided_ms),
                time(row.remediated_ms),
                time(row.recovered_ms),
                if row.healed { "yes" } else { "**no**" }
            ),
        );
    }
    let remarked: Vec<String> = part.remarkable().map(described).collect();
    if !remarked.is_empty() {
        put(text, format_args!("\nWhat did not go as it should:\n\n- {}", remarked.join("\n- ")));
    }
    let missing = part.record.faults.iter().filter(|fault| fault.not_done.is_some());
    for fault in missing {
        put(
            text,
            format_args!(
                "\nNot done: {} at {}: {}",
                fault.planned.kind,
                fault.planned.instances.join(", "),
                fault.not_done.as_deref().unwrap_or_default()
            ),
        );
    }
}

fn confusion(text: &mut String, part: &Part) {
    put(text, format_args!("\n## Classes given\n\n| fault | expected | given |\n|---|---|---|"));
    for (kind, given) in &part.figures.confusion {
        let expected = kind.parse::<crate::healing::kinds::Kind>().map_or("", |kind| kind.class());
        let given: Vec<String> = given
            .iter()
            .map(|(class, count)| {
                if class == expected {
                    format!("{count} right")
                } else {
                    format!("**{count} {class}**")
                }
            })
            .collect();
        put(text, format_args!("| {kind} | {expected} | {} |", given.join(", ")));
    }
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}
