//! The report as one self-contained page: a time line over the verdicts.
//!
//! ```text
//!   faults      ▬▬   ▬▬▬     ▬▬      bars, one lane per fault
//!   leaders     ■■■■□□■■■■■■         colour by node
//!   acts        | || |   |||         one tick each
//!   calls/s     ▁▃▅▇▁▁▅▇             columns
//!   p99 ms      ▁▁▁▂▇▂▁▁             columns
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::Report;
use crate::{campaign::seconds, nemesis::Fault};

const WIDTH: f64 = 1_120.0;
const LEFT: f64 = 150.0;
const COLOURS: [&str; 5] = ["#2f6fde", "#d9822b", "#2f9e62", "#a34fc2", "#c2394b"];

pub(super) fn render(report: &Report) -> String {
    let word = if report.good() { "every invariant holds" } else { "NOT every invariant holds" };
    let class = if report.good() { "good" } else { "bad" };
    let mut rows = String::new();
    for verdict in &report.verdicts {
        let (class, word) = match (verdict.holds(), verdict.checked) {
            (true, 0) => ("none", "nothing checked".to_owned()),
            (true, _) => ("good", "holds".to_owned()),
            (false, _) => ("bad", format!("{} violations", verdict.violations.len())),
        };
        put(
            &mut rows,
            &format!(
                "<tr><td>{}</td><td>{}</td><td class={class}>{word}</td><td class=n>{}</td><td>{}</td></tr>",
                verdict.invariant,
                escape(verdict.title()),
                verdict.checked,
                escape(&verdict.of)
            ),
        );
    }
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Campaign {seed}</title><style>{STYLE}</style>\
         <h1>Campaign, seed {seed}, {nodes} nodes: <span class={class}>{word}</span></h1><p>{summary}.</p><p>{ground}.</p>\
         {timeline}<h2>Invariants</h2><table><tr><th>#<th>invariant<th>verdict<th>checked<th></tr>{rows}</table>\
         <p>{mid}.</p><ul class=bad>{short}</ul>{violations}\
         <h2>Faults by kind</h2><table>{drawn}</table><h2>Not done here</h2><ul>{absent}</ul>\
         <h2>Damage</h2><ul>{damage}</ul><h2>Failpoints</h2><p>Each process counts its first 50 \
         passes of each.</p><table class=hits><tr><th>failpoint<th>passes<th>armed<th>deaths</tr>\
         {hits}</table><h2>What was done</h2><ol class=log>{events}</ol></html>",
        seed = report.seed,
        nodes = report.nodes,
        summary = escape(&report.summary()),
        ground = escape(&report.ground()),
        timeline = timeline(report),
        violations = violations(report),
        events = events(report),
        absent = list(&report.absent),
        damage = list(&report.damage),
        short = list(&report.short()),
        mid = escape(&report.mid_remediation()),
        drawn = drawn(report),
        hits = hits(report),
    )
}

pub(crate) const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;max-width:1160px;margin:2em auto;color:#1c2430;padding:0 1em}\
 h1{font-size:22px}h2{font-size:17px;margin-top:2em}table{border-collapse:collapse}td,th{padding:3px 12px 3px 0;text-align:left;border-bottom:1px solid #e3e7ee}\
 .n{text-align:right}.good{color:#1d7a46;font-weight:600}.bad{color:#b3261e;font-weight:600}.none{color:#8a6d00}\
 pre{background:#f5f6f9;padding:8px;overflow-x:auto}.log{font-size:13px;columns:2}text{font:12px system-ui,sans-serif;fill:#445}";

fn put(text: &mut String, more: &str) {
    text.push_str(more);
    text.push('\n');
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn events(report: &Report) -> String {
    let mut text = String::new();
    for event in &report.events {
        let fault = event.fault.map(|fault| format!("<b>{fault}</b> ")).unwrap_or_default();
        let at = seconds(event.at_ms);
        put(&mut text, &format!("<li>{at:.1} s {fault}{}</li>", escape(&event.text)));
    }
    text
}

fn list(items: &[String]) -> String {
    items.iter().map(|what| format!("<li>{}</li>", escape(what))).collect()
}

fn drawn(report: &Report) -> String {
    let row = |(fault, times): (Fault, usize)| {
        format!("<tr><td>{fault}</td><td class=n>{times}</td></tr>")
    };
    report.drawn().into_iter().map(row).collect()
}

fn hits(report: &Report) -> String {
    let row = |(name, hits): (&String, &crate::campaign::Hits)| {
        format!(
            "<tr><td>{name}</td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td></tr>",
            hits.passed, hits.armed, hits.deaths
        )
    };
    report.hits.iter().map(row).collect()
}

fn violations(report: &Report) -> String {
    let mut text = String::new();
    for verdict in report.verdicts.iter().filter(|verdict| !verdict.holds()) {
        put(&mut text, &format!("<h2 class=bad>{} {}</h2>", verdict.invariant, verdict.title()));
        for violation in verdict.violations.iter().take(10) {
            let files = violation.files.iter().map(|file| format!("look at {}", file.display()));
            let lines: Vec<String> = violation.evidence.iter().cloned().chain(files).collect();
            let (what, lines) = (escape(&violation.what), escape(&lines.join("\n")));
            put(&mut text, &format!("<p>{what}</p><pre>{lines}</pre>"));
        }
    }
    text
}

/// Everything over one axis of time.
#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn timeline(report: &Report) -> String {
    let faults = report.faults.iter().map(|(.., to)| *to);
    let calls = report.calls.iter().filter_map(|call| Some(call.end_us? / 1_000));
    let total = faults.chain(calls).max().unwrap_or(1).max(1);
    let x = |ms: u64| LEFT + (WIDTH - LEFT) * ms.min(total) as f64 / total as f64;
    let mut svg = String::new();
    let mut y = 10.0;
    let mut kinds: Vec<_> = report.faults.iter().map(|(fault, ..)| *fault).collect();
    kinds.sort();
    kinds.dedup();
    for kind in kinds {
        put(&mut svg, &format!("<text x=0 y={:.0}>{kind}</text>", y + 10.0));
        for (_, from, to) in report.faults.iter().filter(|(fault, ..)| *fault == kind) {
            bar(&mut svg, x(*from), y, (x(*to) - x(*from)).max(2.0), 11.0, "#d0604c");
        }
        y += 16.0;
    }
    let nodes: BTreeSet<u64> = report.samples.iter().map(|sample| sample.node).collect();
    for node in nodes {
        put(&mut svg, &format!("<text x=0 y={:.0}>node-{node}</text>", y + 10.0));
        let colour = COLOURS[usize::try_from(node).unwrap_or(0) % COLOURS.len()];
        for sample in report.samples.iter().filter(|sample| sample.node == node) {
            let leads = sample.leader == node;
            let (top, high, fill) =
                if leads { (y, 11.0, colour) } else { (y + 4.0, 3.0, "#b9c2d0") };
            bar(&mut svg, x(sample.at_ms), top, 1.6, high, fill);
        }
        y += 16.0;
    }
    put(&mut svg, &format!("<text x=0 y={:.0}>mid-remediation kills</text>", y + 10.0));
    for deposed in &report.deposed {
        if let Some(death) = report.deaths.get(deposed.at) {
            bar(&mut svg, x(death.at_ms), y, 2.0, 11.0, "#b3261e");
        }
    }
    y += 16.0;
    put(&mut svg, &format!("<text x=0 y={:.0}>acts ({})</text>", y + 10.0, report.acts.len()));
    for (from, to, key) in &report.acts {
        let fill = if key.ends_with("undo") { "#d9822b" } else { "#2f6fde" };
        bar(&mut svg, x(*from), y, (x(*to) - x(*from)).max(1.0), 11.0, fill);
    }
    y += 20.0;
    for (name, values, fill) in series(report) {
        let most = values.values().copied().max().unwrap_or(1).max(1);
        put(&mut svg, &format!("<text x=0 y={:.0}>{name}, most {most}</text>", y + 34.0));
        for (second, value) in values {
            let high = 44.0 * value as f64 / most as f64;
            let wide = (x(1_000) - x(0) - 0.5).max(0.8);
            bar(&mut svg, x(second * 1_000), y + 44.0 - high, wide, high, fill);
        }
        y += 52.0;
    }
    let minutes = total / 60_000;
    for minute in 0..=minutes {
        let at = x(minute * 60_000);
        put(&mut svg, &format!("<text x={at:.0} y={:.0}>{minute} min</text>", y + 12.0));
    }
    format!("<svg viewBox='0 0 {WIDTH} {:.0}' width='100%'>{svg}</svg>", y + 20.0)
}

pub(crate) fn bar(svg: &mut String, x: f64, y: f64, wide: f64, high: f64, fill: &str) {
    put(svg, &format!("<rect x={x:.1} y={y:.1} width={wide:.1} height={high:.1} fill='{fill}'/>"));
}

type Series = (&'static str, BTreeMap<u64, u64>, &'static str);

/// Per second: calls that ended, and the 99th percentile of what they took.
fn series(report: &Report) -> [Series; 2] {
    let mut took: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for call in &report.calls {
        if let Some(end) = call.end_us {
            took.entry(end / 1_000_000).or_default().push((end - call.start_us) / 1_000);
        }
    }
    let count = |times: &Vec<u64>| u64::try_from(times.len()).unwrap_or(0);
    let counts = took.iter().map(|(second, times)| (*second, count(times))).collect();
    let worst = took
        .iter_mut()
        .map(|(second, times)| {
            times.sort_unstable();
            (*second, times.get(times.len() * 99 / 100).copied().unwrap_or(0))
        })
        .collect();
    [("calls/s", counts, "#7a8aa8"), ("p99 ms", worst, "#c2394b")]
}
