//! The report as one self-contained page: what went wrong, the figures, a time line, the verdicts, and
//! what became of every incident.

use super::{End, Report, Tally, around, timeline, word};
use crate::{campaign::seconds, check::Verdict, nemesis::Fault};

/// Violations shown for each verdict; all are in `report.json`.
const SHOWN: usize = 10;

pub(super) fn render(report: &Report) -> String {
    let class = if report.good() { "good" } else { "bad" };
    let facts: String = report
        .facts()
        .iter()
        .map(|(what, how_much)| format!("<tr><td>{what}</td><td>{}</td></tr>\n", escape(how_much)))
        .collect();
    let not_full = report.not_full().map(|why| format!("<p class=none>This is {why}.</p>"));
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Campaign {seed}</title><style>{STYLE}</style>\
         <h1>Campaign, seed {seed}, {nodes} nodes: <span class={class}>{headline}</span></h1>\
         <p>Again: <code>{again}</code></p>{not_full}{wrong}\
         <h2>Figures</h2><table>{facts}</table><h2>Time line</h2>{timeline}\
         <h2>Invariants</h2><table><tr><th>#<th>invariant<th>verdict<th>checked<th></tr>{rows}</table>\
         <h2>Incidents</h2><p>{counts}.</p><details><summary>All of them</summary>{incidents}</details>\
         <h2>Faults by kind</h2><table>{drawn}</table>{absent}{damage}<h2>Failpoints</h2><p>Each process counts its first 50 \
         passes of each.</p><details><summary>All of them</summary><table class=hits><tr><th>failpoint<th>passes\
         <th>armed<th>deaths</tr>{hits}</table></details>\
         <h2>What was done</h2><details open><summary>In order</summary><ol class=log>{events}</ol></details></html>",
        seed = report.seed,
        nodes = report.nodes,
        headline = escape(&report.headline()),
        again = escape(&report.again()),
        not_full = not_full.unwrap_or_default(),
        wrong = wrong(report),
        timeline = timeline::render(report),
        rows = report.verdicts.iter().map(row).collect::<String>(),
        counts = escape(&report.incident_counts()),
        incidents = incidents(report),
        events = events(report),
        absent = section("Not done here", &report.absent),
        damage = section("Damage", &report.damage),
        drawn = drawn(report),
        hits = hits(report),
    )
}

pub(crate) const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;max-width:1160px;margin:2em auto;color:#1c2430;padding:0 1em}\
 h1{font-size:22px}h2{font-size:17px;margin-top:2em}table{border-collapse:collapse}td,th{padding:3px 12px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid #e3e7ee}\
 .n{text-align:right}.good{color:#1d7a46;font-weight:600}.bad{color:#b3261e;font-weight:600}.none{color:#8a6d00}\
 .key span{display:inline-block;margin-right:1.4em}.key i{display:inline-block;width:14px;height:10px;margin-right:5px}summary{cursor:pointer}\
 pre{background:#f5f6f9;padding:8px;white-space:pre-wrap;overflow-wrap:anywhere}.log{font-size:13px;columns:2}text{font:12px system-ui,sans-serif;fill:#445}";

fn put(text: &mut String, more: &str) {
    text.push_str(more);
    text.push('\n');
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

pub(crate) fn bar(svg: &mut String, x: f64, y: f64, wide: f64, high: f64, fill: &str) {
    put(svg, &format!("<rect x={x:.1} y={y:.1} width={wide:.1} height={high:.1} fill='{fill}'/>"));
}

fn row(verdict: &Verdict) -> String {
    let (class, word) = word(verdict);
    format!(
        "<tr><td>{}</td><td>{}</td><td class={class}>{word}</td><td class=n>{}</td><td>{}</td></tr>\n",
        verdict.invariant,
        escape(verdict.title()),
        verdict.checked,
        escape(&verdict.of)
    )
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

/// A list with its title; nothing of nothing.
fn section(title: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    format!("<h2>{title}</h2><ul>{}</ul>", list(items))
}

fn list(items: &[String]) -> String {
    items.iter().map(|what| format!("<li>{}</li>", escape(what))).collect()
}

fn drawn(report: &Report) -> String {
    let row = |(fault, tally): (Fault, Tally)| {
        let class = if tally.felt == 0 { "none" } else { "n" };
        format!(
            "<tr><td>{fault}<td class=n>{}<td class=n>{}<td class='n {class}'>{}</tr>\n",
            tally.drawn, tally.begun, tally.felt
        )
    };
    let rows: String = report.tallies().into_iter().map(row).collect();
    format!("<tr><th>fault<th>drawn<th>begun<th>felt</tr>{rows}")
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

/// What is wrong, first of all; nothing, when nothing is.
fn wrong(report: &Report) -> String {
    let mut text = String::new();
    let shortcomings = report.shortcomings();
    let good = report.violations() == 0 && shortcomings.is_empty();
    if good {
        return text;
    }
    put(&mut text, "<h2 class=bad>What went wrong</h2>");
    put(&mut text, &format!("<ul class=bad>{}</ul>", list(&shortcomings)));
    for verdict in report.verdicts.iter().filter(|verdict| !verdict.holds()) {
        put(
            &mut text,
            &format!(
                "<h3 class=bad>{} {} ({})</h3>",
                verdict.invariant,
                escape(verdict.title()),
                escape(&verdict.of)
            ),
        );
        for violation in verdict.violations.iter().take(SHOWN) {
            let around = list(&around::lines(report, violation));
            let files = violation.files.iter().map(|file| format!("look at {}", file.display()));
            let lines: Vec<String> = violation.evidence.iter().cloned().chain(files).collect();
            let (what, lines) = (escape(&violation.what), escape(&lines.join("\n")));
            put(&mut text, &format!("<p>{what}</p><ul>{around}</ul>"));
            if !lines.is_empty() {
                put(&mut text, &format!("<pre>{lines}</pre>"));
            }
        }
        let more = verdict.violations.len().saturating_sub(SHOWN);
        if more > 0 {
            put(&mut text, &format!("<p>And {more} more, in report.json.</p>"));
        }
    }
    text
}

fn incidents(report: &Report) -> String {
    let mut text = "<table><tr><th>opened<th>incident<th>what broke<th>class<th>what Medic did<th>closed<th>end</tr>\n"
        .to_owned();
    for incident in &report.incidents {
        let closed = incident.closed_ms.map(|ms| format!("{:.1} s", seconds(ms)));
        let asked = match incident.escalation.as_str() {
            "" => String::new(),
            why => format!("<br>a person was asked: {}", escape(why)),
        };
        let class = match incident.end {
            End::Remediated | End::SelfCleared | End::Merged => "good",
            End::ByHand => "none",
            End::Open => "bad",
        };
        put(
            &mut text,
            &format!(
                "<tr><td class=n>{:.1} s<td>{}<td>{}: {}<td>{}<td>{}{asked}<td class=n>{}<td class={class}>{}</tr>",
                seconds(incident.opened_ms),
                escape(&incident.id),
                escape(&incident.instance),
                escape(&incident.summary),
                escape(&incident.class),
                escape(&incident.decided),
                closed.unwrap_or_default(),
                incident.end
            ),
        );
    }
    text + "</table>"
}
