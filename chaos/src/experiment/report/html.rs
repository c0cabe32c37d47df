//! The report as one self-contained page: faults, steadiness and every probed value over one axis.

use std::collections::BTreeSet;

use super::Report;
use crate::{
    campaign::seconds,
    report::html::{STYLE, bar, escape},
};

const WIDTH: f64 = 1_120.0;
const LEFT: f64 = 190.0;
/// Height of one plot.
const HIGH: f64 = 44.0;

pub(super) fn render(report: &Report) -> String {
    let class = if report.verdict.exit() == 0 { "good" } else { "bad" };
    let name = escape(&report.experiment);
    let rows: String = report
        .faults
        .iter()
        .map(|fault| {
            let (class, undone) =
                match (fault.undone, fault.failed.is_some(), fault.undo.is_empty()) {
                    (_, true, _) => ("bad", "not begun"),
                    (Some(true), ..) => ("good", "undone"),
                    (None, _, true) => ("none", "nothing takes it back"),
                    (Some(false) | None, ..) => ("bad", "NOT undone"),
                };
            format!(
                "<tr><td class=n>{}<td>{}<td>{}<td>{}<td>{}<td class={class}>{undone}</tr>\n",
                fault.number,
                escape(&fault.name),
                escape(&fault.target),
                escape(&fault.acts.join("; ")),
                escape(&fault.undo.join("; "))
            )
        })
        .collect();
    let events: String = report
        .events
        .iter()
        .map(|event| format!("<li>{:.1} s {}</li>\n", seconds(event.at_ms), escape(&event.text)))
        .collect();
    let left: String =
        report.left.iter().map(|left| format!("<li class=bad>{}</li>\n", escape(left))).collect();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Experiment {name}</title><style>{STYLE}</style>\
         <h1>Experiment {name}: <span class={class}>{}</span></h1><p>{}</p><p>Expected: <code>{}</code></p>\
         <ul>{left}</ul>{}<h2>Faults</h2><table><tr><th>#<th>fault<th>target<th>what was done<th>what takes it back<th></tr>{rows}</table>\
         <h2>What happened</h2><ol class=log>{events}</ol></html>",
        escape(&report.verdict.to_string()),
        escape(&report.description),
        escape(&report.expect),
        timeline(report),
    )
}

#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn timeline(report: &Report) -> String {
    let total = report.length_ms.max(1);
    let x = |ms: u64| LEFT + (WIDTH - LEFT) * ms.min(total) as f64 / total as f64;
    let label = |svg: &mut String, y: f64, text: &str| {
        *svg += &format!("<text x=0 y={y:.0}>{}</text>\n", escape(text));
    };
    let (mut svg, mut y) = (String::new(), 10.0);
    let names: BTreeSet<&str> = report.faults.iter().map(|fault| fault.name.as_str()).collect();
    for name in names {
        label(&mut svg, y + 10.0, name);
        for fault in report.faults.iter().filter(|fault| fault.name == name) {
            let Some(from) = fault.began_ms else { continue };
            let to = fault.ended_ms.unwrap_or(if fault.undo.is_empty() { from } else { total });
            bar(&mut svg, x(from), y, (x(to) - x(from)).max(2.0), 11.0, "#d0604c");
        }
        y += 16.0;
    }
    label(&mut svg, y + 10.0, "steady");
    for sample in &report.samples {
        let fill = if sample.steady { "#2f9e62" } else { "#c2394b" };
        bar(&mut svg, x(sample.at_ms), y, 3.0, 11.0, fill);
    }
    y += 20.0;
    let series: BTreeSet<&String> =
        report.samples.iter().flat_map(|sample| sample.values.keys()).collect();
    for name in series {
        let values: Vec<(u64, f64)> = report
            .samples
            .iter()
            .filter_map(|sample| Some((sample.at_ms, *sample.values.get(name)?)))
            .collect();
        let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        label(&mut svg, y + 34.0, &format!("{name}, most {most:.1}"));
        for (at, value) in values {
            let high = if most > 0.0 { HIGH * value.max(0.0) / most } else { 0.0 };
            bar(&mut svg, x(at), y + HIGH - high, 3.0, high.max(1.0), "#2f6fde");
        }
        y += HIGH + 8.0;
    }
    format!("<svg viewBox='0 0 {WIDTH} {:.0}' width='100%'>{svg}</svg>", y + 8.0)
}
