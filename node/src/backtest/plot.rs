//! One SVG per entity: its metrics, what was told, the score, and what would have been raised, over the same rows.
//!
//! Memory does not grow with the rows: they are gathered in at most [`COLUMNS_MAX`] columns of lowest
//! and highest value; when there are more, neighbours are joined. Of many metrics those are drawn that matter:
//! which findings rest on, the worst first, then which were the oddest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use medic_state::symptom::Severity;

use super::findings::Finding;
use crate::detection::detector::Verdict;

/// Columns of a plot, in pixels too.
const COLUMNS_MAX: usize = 1200;
/// Metrics drawn; a plot with more lanes is not read.
const LANES_MAX: usize = 16;
const LANE: f64 = 64.0;
/// Height of what is drawn of one kind of finding.
const KIND: f64 = 16.0;
const LEFT: f64 = 120.0;
/// Scores above this many times what is worth telling are cut off.
const SCORE_MAX: f64 = 3.0;
/// The first line of every drawing: one may take the place of another.
pub(super) const MARK: &str = "<!-- drawn by medic backtest detect -->";

/// Rows joined into one column.
#[derive(Clone, Debug)]
struct Column {
    low: Vec<f32>,
    high: Vec<f32>,
    score: f64,
    anomaly: f64,
    alert: bool,
}

/// Findings that are drawn as one.
struct Span<'f> {
    begin: u64,
    end: u64,
    /// The worst of them.
    worst: &'f Finding,
    more: u64,
}

/// Gathers rows, and draws them.
#[derive(Clone, Debug)]
pub struct Plot {
    names: Vec<String>,
    /// The highest score that each gave.
    odd: Vec<f64>,
    columns: Vec<Column>,
    per_column: u64,
    rows: u64,
}

impl Plot {
    /// For these metrics.
    #[must_use]
    pub fn new(metrics: &[String]) -> Self {
        let odd = vec![0.0; metrics.len()];
        Self { names: metrics.to_vec(), odd, columns: Vec::new(), per_column: 1, rows: 0 }
    }

    /// Takes a row in.
    pub fn add(&mut self, values: &[f64], verdict: &Verdict) {
        if self.rows.is_multiple_of(self.per_column) {
            if self.columns.len() >= COLUMNS_MAX {
                self.halve();
            }
            let none = vec![f32::NAN; self.names.len()];
            let empty =
                Column { low: none.clone(), high: none, score: 0.0, anomaly: 0.0, alert: false };
            self.columns.push(empty);
        }
        if let Some(column) = self.columns.last_mut() {
            for (at, &value) in values.iter().take(self.names.len()).enumerate() {
                column.low[at] = column.low[at].min(value as f32);
                column.high[at] = column.high[at].max(value as f32);
            }
            column.score = column.score.max(verdict.score);
            column.anomaly = column.anomaly.max(verdict.anomaly);
            column.alert |= verdict.alert;
        }
        if let Some(odd) = verdict.metric.and_then(|metric| self.odd.get_mut(metric)) {
            *odd = odd.max(verdict.score);
        }
        self.rows += 1;
    }

    fn halve(&mut self) {
        self.per_column *= 2;
        let joined = self.columns.chunks(2).map(|pair| {
            let mut column = pair[0].clone();
            if let Some(second) = pair.get(1) {
                for at in 0..column.low.len() {
                    column.low[at] = column.low[at].min(second.low[at]);
                    column.high[at] = column.high[at].max(second.high[at]);
                }
                column.score = column.score.max(second.score);
                column.anomaly = column.anomaly.max(second.anomaly);
                column.alert |= second.alert;
            }
            column
        });
        self.columns = joined.collect();
    }

    /// The drawing, with what would have been raised beneath it. `indicators`: what findings call each metric.
    #[must_use]
    pub fn svg(&self, title: &str, findings: &[Finding], indicators: &[String]) -> String {
        let kinds: BTreeSet<&str> = findings.iter().map(|one| one.kind.as_str()).collect();
        let drawn = self.drawn(findings, indicators);
        let width = LEFT + self.columns.len() as f64 + 10.0;
        let lanes = 30.0 + LANE * (drawn.len() + 1) as f64;
        let height = lanes + KIND * kinds.len() as f64 + 10.0;
        let among = match self.names.len() - drawn.len() {
            0 => String::new(),
            left => format!(
                " · {} of {} metrics, by findings, then by how odd they were: {left} are not drawn",
                drawn.len(),
                self.names.len()
            ),
        };
        let mut svg = format!(
            "{MARK}\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"8\" y=\"18\" font-size=\"13\">{} · {} rows, {} per column{among}</text>\n",
            escaped(title),
            self.rows,
            self.per_column
        );
        self.marks(&mut svg, height);
        for (lane, &metric) in drawn.iter().enumerate() {
            self.metric(&mut svg, 30.0 + LANE * lane as f64, metric);
        }
        self.score(&mut svg, 30.0 + LANE * drawn.len() as f64);
        for (at, kind) in kinds.into_iter().enumerate() {
            let top = lanes + KIND * at as f64;
            self.kind(&mut svg, top, kind, findings.iter().filter(|one| one.kind == kind));
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// Which metrics have a lane, from the top: all as they come where there is room, else those that matter most.
    fn drawn(&self, findings: &[Finding], indicators: &[String]) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.names.len()).collect();
        if all.len() <= LANES_MAX {
            return all;
        }
        let mut worst: Vec<&Finding> = findings.iter().collect();
        worst.sort_by_key(|one| one.rank());
        let mut named: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, one) in worst.into_iter().enumerate() {
            let signals = one.signals.iter().map(|signal| signal.name.as_str());
            for name in one.indicator.as_deref().into_iter().chain(signals) {
                named.entry(name.trim_start_matches("metric.")).or_insert(place);
            }
        }
        let key = |&metric: &usize| {
            let known = indicators.get(metric).and_then(|name| named.get(name.as_str()));
            // Scores are finite and above zero: their bits are in their order.
            let odd = (self.odd[metric].max(0.0).to_bits(), self.departs(metric).to_bits());
            (known.copied().unwrap_or(usize::MAX), Reverse(odd), metric)
        };
        all.sort_by_cached_key(key);
        all.truncate(LANES_MAX);
        all
    }

    /// By how much its furthest column departs from what is usual, in units of what columns usually do.
    fn departs(&self, metric: usize) -> f64 {
        let middle = |values: &mut Vec<f64>| {
            values.sort_unstable_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        let ends = self.columns.iter().flat_map(|column| [column.low[metric], column.high[metric]]);
        let mut values: Vec<f64> = ends.filter(|end| end.is_finite()).map(f64::from).collect();
        let usual = middle(&mut values);
        let mut off: Vec<f64> = values.iter().map(|value| (value - usual).abs()).collect();
        let scale = middle(&mut off).max(usual.abs() * 1e-3).max(f64::MIN_POSITIVE);
        (off.last().copied().unwrap_or(0.0) / scale).min(f64::MAX)
    }

    /// Alerts as bars over all lanes, beginnings as thin lines.
    fn marks(&self, svg: &mut String, height: f64) {
        for (at, column) in self.columns.iter().enumerate() {
            let (fill, shown) =
                if column.alert { ("#f4b6ae", true) } else { ("#f6dca0", column.anomaly >= 0.5) };
            if shown {
                let x = LEFT + at as f64;
                line(
                    svg,
                    format_args!(
                        "<rect x=\"{x}\" y=\"26\" width=\"1\" height=\"{:.0}\" fill=\"{fill}\"/>",
                        height - 36.0
                    ),
                );
            }
        }
    }

    fn metric(&self, svg: &mut String, top: f64, metric: usize) {
        let low = self.columns.iter().map(|column| column.low[metric]).fold(f32::NAN, f32::min);
        let high = self.columns.iter().map(|column| column.high[metric]).fold(f32::NAN, f32::max);
        label(svg, top, &self.names[metric], &format!("{low} .. {high}"));
        let range = f64::from(high - low).max(f64::MIN_POSITIVE);
        let y = |value: f32| top + (LANE - 8.0) * (1.0 - f64::from(value - low) / range);
        let mut path = String::new();
        for (at, column) in self.columns.iter().enumerate() {
            if column.high[metric].is_finite() && range.is_finite() {
                let x = LEFT + at as f64 + 0.5;
                let (upper, lower) = (y(column.high[metric]), y(column.low[metric]) + 1.0);
                line(&mut path, format_args!("M{x} {upper:.1}V{lower:.1}"));
            }
        }
        line(
            svg,
            format_args!(
                "<path d=\"{}\" stroke=\"#2b5c8a\" fill=\"none\"/>",
                path.replace('\n', "")
            ),
        );
    }

    /// Findings of one kind as spans, with what they say. Those that begin in the column in which another ends
    /// are drawn as one, so that there are never more of them than columns.
    fn kind<'f>(
        &self,
        svg: &mut String,
        top: f64,
        kind: &str,
        findings: impl Iterator<Item = &'f Finding>,
    ) {
        let column = |row: u64| row / self.per_column;
        let mut spans: Vec<Span<'f>> = Vec::new();
        for one in findings {
            let end = column(one.row_until.unwrap_or(self.rows)).min(self.columns.len() as u64);
            match spans.last_mut().filter(|last| column(one.row) <= last.end) {
                Some(last) => {
                    (last.end, last.more) = (last.end.max(end), last.more + 1);
                    if one.severity > last.worst.severity {
                        last.worst = one;
                    }
                }
                None => spans.push(Span { begin: column(one.row), end, worst: one, more: 0 }),
            }
        }
        line(svg, format_args!("<text x=\"8\" y=\"{}\">{}</text>", top + 12.0, escaped(kind)));
        for Span { begin, end, worst, more } in spans {
            let (x, wide) = (LEFT + begin as f64, end.saturating_sub(begin).max(2));
            let fill = match worst.severity {
                Severity::Critical => "#b3261e",
                Severity::Warning => "#d98e1f",
                Severity::Info => "#5f7f9c",
            };
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            let says = escaped(&format!("{}{more}", worst.says()));
            line(
                svg,
                format_args!(
                    "<rect x=\"{x}\" y=\"{}\" width=\"{wide}\" height=\"{}\" fill=\"{fill}\">\
                     <title>{says}</title></rect>",
                    top + 2.0,
                    KIND - 4.0,
                ),
            );
        }
    }

    fn score(&self, svg: &mut String, top: f64) {
        label(svg, top, "score", "line: worth telling");
        let y = |score: f64| top + (LANE - 8.0) * (1.0 - score.min(SCORE_MAX) / SCORE_MAX);
        let mut path = String::new();
        for (at, column) in self.columns.iter().enumerate() {
            let x = LEFT + at as f64 + 0.5;
            line(&mut path, format_args!("M{x} {:.1}V{:.1}", y(0.0), y(column.score)));
        }
        line(
            svg,
            format_args!(
                "<path d=\"{}\" stroke=\"#8a2b2b\" fill=\"none\"/>",
                path.replace('\n', "")
            ),
        );
        let (right, at) = (LEFT + self.columns.len() as f64, y(1.0));
        line(
            svg,
            format_args!(
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#666\" stroke-dasharray=\"4 3\"/>"
            ),
        );
    }
}

fn label(svg: &mut String, top: f64, name: &str, range: &str) {
    let (first, second) = (top + 14.0, top + 28.0);
    let shown: String = name.chars().take(18).collect();
    let (shown, whole) = (escaped(&shown), escaped(name));
    line(svg, format_args!("<text x=\"8\" y=\"{first}\">{shown}<title>{whole}</title></text>"));
    line(
        svg,
        format_args!(
            "<text x=\"8\" y=\"{second}\" fill=\"#777\" font-size=\"9\">{}</text>",
            escaped(range)
        ),
    );
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    if writeln!(text, "{what}").is_err() {
        // Writing to a string does not fail.
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_stays_small_and_keeps_its_extremes() {
        let mut plot = Plot::new(&["a<b".to_owned()]);
        for row in 0..100_000_u32 {
            let value = if row == 70_001 { 900.0 } else { f64::from(row % 7) };
            let alert = row == 70_001;
            plot.add(&[value], &Verdict { alert, ..Verdict::default() });
        }
        assert!(plot.columns.len() <= COLUMNS_MAX, "{}", plot.columns.len());
        assert_eq!(plot.columns.iter().filter(|column| column.alert).count(), 1);
        let svg = plot.svg("x & y", &[], &[]);
        assert!(svg.contains("0 .. 900") && svg.contains("a&lt;b") && svg.contains("x &amp; y"));
        assert!(svg.len() < 100_000, "{} bytes", svg.len());
    }

    #[test]
    fn of_many_metrics_those_are_drawn_that_matter_and_the_rest_is_counted() {
        let names: Vec<String> = (0..40).map(|number| format!("m{number:02}")).collect();
        let mut plot = Plot::new(&names);
        for row in 0..500_u32 {
            let mut values: Vec<f64> = (0..40).map(|at| f64::from((row * 7 + at) % 11)).collect();
            let odd = row == 300;
            if odd {
                values[30] = 90.0;
            }
            let metric = (row == 400).then_some(35);
            plot.add(
                &values,
                &Verdict { metric, score: f64::from(row) / 100.0, ..Verdict::default() },
            );
        }
        let finding = |indicator: &str, severity| Finding {
            indicator: Some(indicator.to_owned()),
            severity,
            ..Finding::of_nothing()
        };
        let findings = [finding("m38", Severity::Warning), finding("m20", Severity::Critical)];
        let drawn = plot.drawn(&findings, &names);
        assert_eq!((drawn.len(), &drawn[..5]), (LANES_MAX, &[20, 38, 35, 30, 0][..]), "{drawn:?}");
        let svg = plot.svg("web", &findings, &names);
        assert!(svg.contains(
            "16 of 40 metrics, by findings, then by how odd they were: 24 are not drawn"
        ));
        let few = Plot::new(&names[..LANES_MAX]);
        assert!(few.drawn(&findings, &names).iter().copied().eq(0..LANES_MAX), "as they come");
    }
}
