//! The report as one self-contained page: the table, and a time line of each phase.
//!
//! ```text
//!   requests/s   ▁▃▅▇▅▃▁      served, and failed on top in red
//!   crash        ▬   ▬        one lane per kind: grey until detected, red until gone
//!   nodes          |    |     kills
//! ```

use std::collections::BTreeMap;

use super::{Part, Report, described};
use crate::{
    campaign::seconds,
    healing::{Phase, kinds::Kind},
    report::html::{STYLE, bar, escape},
};

const WIDTH: f64 = 1_120.0;
const LEFT: f64 = 150.0;

pub(super) fn render(report: &Report) -> String {
    let class = if report.good() { "good" } else { "bad" };
    let word = escape(&report.headline());
    let mut rows = String::new();
    for line in &report.lines {
        let kept = match line.kept {
            Some(true) => "<td class=good>kept",
            Some(false) => "<td class=bad>not kept",
            None => "<td>",
        };
        let (what, wanted, seen) = (escape(line.what), escape(line.wanted), escape(&line.seen));
        rows += &format!("<tr><td>{what}<td>{wanted}<td>{seen}{kept}</tr>\n");
    }
    let parts: String = report.parts.iter().map(part).collect();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Healing {seed}</title><style>{STYLE}</style>\
         <h1>Healing campaign, seed {seed}, {nodes} nodes: <span class={class}>{word}</span></h1>\
         <p><code>{again}</code> on {machine}. Without Medic a person mends each fault after {after} s.</p>\
         <table><tr><th>what<th>wanted<th>seen<th></tr>{rows}</table>{parts}</html>",
        seed = report.seed,
        nodes = report.nodes,
        again = escape(&report.again()),
        machine = escape(&report.machine.whole()),
        after = report.person_after_s,
    )
}

fn part(part: &Part) -> String {
    let mut text = format!("<h2>{}</h2>{}", part.record.phase.name(), timeline(part));
    let remarked: Vec<String> =
        part.remarkable().map(|row| format!("<li>{}</li>", escape(&described(row)))).collect();
    if !remarked.is_empty() {
        text += &format!("<h3>Not as it should be</h3><ul>{}</ul>", remarked.concat());
    }
    for case in &part.false_alarms {
        let lines = escape(&case.timeline.join("\n"));
        text += &format!("<h3>False alarm {} {}</h3><pre>{lines}</pre>", case.id, case.service);
    }
    if part.record.phase == Phase::Faults && !part.figures.confusion.is_empty() {
        text += &confusion(part);
    }
    text
}

/// Faults down, classes across.
fn confusion(part: &Part) -> String {
    let mut classes: Vec<&str> = part
        .figures
        .confusion
        .values()
        .flat_map(|given| given.keys().map(String::as_str))
        .collect();
    classes.sort_unstable();
    classes.dedup();
    let head: String = classes.iter().map(|class| format!("<th>{}", escape(class))).collect();
    let mut rows = String::new();
    for (kind, given) in &part.figures.confusion {
        let expected = kind.parse::<Kind>().map_or("", Kind::class);
        let cells: String = classes
            .iter()
            .map(|class| match given.get(*class) {
                Some(count) if *class == expected => format!("<td class='n good'>{count}"),
                Some(count) => format!("<td class='n bad'>{count}"),
                None => "<td>".to_owned(),
            })
            .collect();
        rows += &format!("<tr><td>{}{cells}</tr>", escape(kind));
    }
    format!(
        "<h3>Classes given</h3><table style='font-size:11px'><tr><th>fault{head}</tr>{rows}</table>"
    )
}

#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn timeline(part: &Part) -> String {
    let warm_ms = part.record.warm_up_ms as f64;
    let total = part.record.length_ms.max(1) as f64;
    let x = |ms: f64| LEFT + (WIDTH - LEFT) * ms.clamp(0.0, total) / total;
    let mut svg = String::new();
    let most = part.record.load.values().map(|s| s.served + s.failed).max().unwrap_or(1).max(1);
    put(&mut svg, 0.0, 34.0, &format!("requests/s, most {most}"));
    let wide = (x(1_000.0) - x(0.0)).max(0.8);
    for (second, counts) in &part.record.load {
        let at = *second as f64 * 1_000.0 - warm_ms;
        if at < 0.0 {
            continue;
        }
        let high = |count: u32| 50.0 * f64::from(count) / f64::from(most);
        let (served, failed) = (high(counts.served), high(counts.failed));
        bar(&mut svg, x(at), 55.0 - served, wide, served, "#7a8aa8");
        bar(&mut svg, x(at), 55.0 - served - failed, wide, failed, "#c2394b");
    }
    let mut y = 66.0;
    let mut lanes: BTreeMap<Kind, Vec<(f64, f64, f64)>> = BTreeMap::new();
    for row in &part.rows {
        let from = row.fault.wall_ms.saturating_sub(part.record.began_wall_ms) as f64;
        let to = row.fault.gone_after_ms.map_or(total, |lasted| from + lasted as f64);
        let seen = row.detected_ms.map_or(to, |detected| from + detected as f64);
        lanes.entry(row.fault.planned.kind).or_default().push((from, seen.min(to), to));
    }
    for (kind, bars) in &lanes {
        put(&mut svg, 0.0, y + 10.0, kind.name());
        for (from, seen, to) in bars {
            bar(&mut svg, x(*from), y, (x(*seen) - x(*from)).max(1.0), 11.0, "#8a93a3");
            bar(&mut svg, x(*seen), y, (x(*to) - x(*seen)).max(1.0), 11.0, "#d0604c");
        }
        y += 15.0;
    }
    if !part.record.kills.is_empty() {
        put(&mut svg, 0.0, y + 10.0, "nodes killed");
        for kill in &part.record.kills {
            let fill = if kill.leader { "#1c2430" } else { "#b9c2d0" };
            bar(&mut svg, x(kill.at_ms as f64), y, 3.0, 11.0, fill);
        }
        y += 15.0;
    }
    let minutes = seconds(part.record.length_ms) / 60.0;
    let mut minute = 0.0;
    while minute <= minutes {
        put(&mut svg, x(minute * 60_000.0), y + 12.0, &format!("{minute:.0} min"));
        minute += 1.0;
    }
    format!("<svg viewBox='0 0 {WIDTH} {:.0}' width='100%'>{svg}</svg>", y + 20.0)
}

fn put(svg: &mut String, x: f64, y: f64, text: &str) {
    *svg += &format!("<text x={x:.0} y={y:.0}>{}</text>\n", escape(text));
}
