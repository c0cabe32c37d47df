//! Everything over one axis of time.
//!
//! ```text
//!   faults            ▬▬   ▬▬▬     ▬▬      one lane per fault
//!   node-1, node-4    ■■■■──■■  ────       thick: it leads, in its own colour; thin: it answers
//!   service a         ▬▬▬▬    ▬▬           one lane per service: incidents, by what became of them
//!   acts              | || |   |||         one tick each
//!   calls/s … p99 ms  ▁▃▅▇▁▁▅▇             columns per second
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::{End, Report, html::escape};
use crate::{campaign::seconds, history::Outcome};

const WIDTH: f64 = 1_120.0;
const LEFT: f64 = 190.0;
/// Height of one lane, and of its bars.
const LANE: f64 = 16.0;
const BAR: f64 = 11.0;
/// Height of one plot.
const PLOT: f64 = 44.0;
/// A node that says nothing for longer is not taken to have gone on as it was.
const SILENCE_MAX_MS: u64 = 1_500;
/// Labels on the axis of time, about.
const LABELS: u64 = 12;
/// What may stand between two labels, seconds.
const STEPS_S: [u64; 9] = [1, 5, 10, 30, 60, 120, 300, 600, 1_800];

/// Colours of incidents by what became of them.
const ENDS: [(End, &str); 5] = [
    (End::Remediated, "#2f9e62"),
    (End::SelfCleared, "#8fb8a0"),
    (End::Merged, "#a9b3c4"),
    (End::ByHand, "#d9a02b"),
    (End::Open, "#b3261e"),
];

/// A stretch of time in which a node went on in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    node: u64,
    leads: bool,
    from_ms: u64,
    to_ms: u64,
}

/// Samples of each node, those that follow each other and say the same as one.
fn spans(report: &Report) -> Vec<Span> {
    let mut open: BTreeMap<u64, Span> = BTreeMap::new();
    let mut spans = Vec::new();
    for sample in &report.samples {
        let (node, at_ms, leads) = (sample.node, sample.at_ms, sample.leader == sample.node);
        let fresh = Span { node, leads, from_ms: at_ms, to_ms: at_ms };
        match open.get_mut(&node) {
            Some(span) if span.leads == leads && at_ms <= span.to_ms + SILENCE_MAX_MS => {
                span.to_ms = at_ms;
            }
            Some(span) => spans.push(std::mem::replace(span, fresh)),
            None => {
                open.insert(node, fresh);
            }
        }
    }
    spans.extend(open.into_values());
    spans.sort_by_key(|span| (span.node, span.from_ms));
    spans
}

/// Nodes by lane: whoever comes after one that has gone takes its lane.
fn lanes(spans: &[Span]) -> Vec<Vec<u64>> {
    let mut lives: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for span in spans {
        let life = lives.entry(span.node).or_insert((span.from_ms, span.to_ms));
        *life = (life.0.min(span.from_ms), life.1.max(span.to_ms));
    }
    let mut by_birth: Vec<(u64, u64, u64)> =
        lives.into_iter().map(|(node, (from, to))| (from, node, to)).collect();
    // Those that were there from the beginning in the order of their numbers.
    by_birth.sort_by_key(|(from, node, _)| (from / 5_000, *node));
    let mut lanes: Vec<(u64, Vec<u64>)> = Vec::new();
    for (from, node, to) in by_birth {
        match lanes.iter_mut().find(|(until, _)| *until < from) {
            Some((until, nodes)) => {
                *until = to;
                nodes.push(node);
            }
            None => lanes.push((to, vec![node])),
        }
    }
    lanes.into_iter().map(|(_, nodes)| nodes).collect()
}

/// A colour of a node's own, however many there are: hues a golden angle apart.
fn colour(node: u64) -> String {
    format!("hsl({},62%,42%)", (node * 137 + 75) % 360)
}

/// A drawing that grows downwards.
struct Canvas {
    svg: String,
    y: f64,
    total_ms: u64,
}

#[allow(clippy::cast_precision_loss, reason = "pixels")]
impl Canvas {
    fn x(&self, ms: u64) -> f64 {
        LEFT + (WIDTH - LEFT) * ms.min(self.total_ms) as f64 / self.total_ms as f64
    }

    fn label(&mut self, text: &str) {
        let y = self.y + 10.0;
        self.svg += &format!("<text x=0 y={y:.0}>{}</text>\n", escape(text));
    }

    /// A bar in the present lane, with what it says when pointed at.
    fn bar(&mut self, (from, to): (u64, u64), (down, high): (f64, f64), fill: &str, title: &str) {
        let (x, y) = (self.x(from), self.y + down);
        let wide = (self.x(to) - x).max(1.6);
        self.svg += &format!(
            "<rect x={x:.1} y={y:.1} width={wide:.1} height={high:.1} fill='{fill}'><title>{}</title></rect>\n",
            escape(title)
        );
    }

    fn next(&mut self, high: f64) {
        self.y += high;
    }

    fn faults(&mut self, report: &Report) {
        let kinds: BTreeSet<_> = report.faults.iter().map(|(fault, ..)| *fault).collect();
        for kind in kinds {
            self.label(kind.name());
            for (_, from, to) in report.faults.iter().filter(|(fault, ..)| *fault == kind) {
                let title = format!("{kind}, {:.1} to {:.1} s", seconds(*from), seconds(*to));
                self.bar((*from, *to), (0.0, BAR), "#d0604c", &title);
            }
            self.next(LANE);
        }
    }

    fn nodes(&mut self, report: &Report) {
        let spans = spans(report);
        for nodes in lanes(&spans) {
            let names: Vec<String> = nodes.iter().map(|node| format!("node-{node}")).collect();
            let name = if names.len() > 3 {
                format!("{}, … {}", names[0], names[names.len() - 1])
            } else {
                names.join(", ")
            };
            self.label(&name);
            for span in spans.iter().filter(|span| nodes.contains(&span.node)) {
                let word = if span.leads { "leads" } else { "answers" };
                let (from, to) = (span.from_ms, span.to_ms);
                let title = format!(
                    "node-{} {word}, {:.1} to {:.1} s",
                    span.node,
                    seconds(from),
                    seconds(to)
                );
                let high = if span.leads { (0.0, BAR) } else { (4.0, 3.0) };
                self.bar((from, to), high, &colour(span.node), &title);
            }
            self.next(LANE);
        }
        for (name, mid) in [("leaders ended", false), ("… in mid-remediation", true)] {
            self.label(name);
            let among: BTreeSet<usize> = report.deposed.iter().map(|deposed| deposed.at).collect();
            for (at, death) in report.deaths.iter().enumerate() {
                let shown = if mid { among.contains(&at) } else { death.led };
                if shown {
                    let title = format!("node-{} at {:.1} s", death.node, seconds(death.at_ms));
                    self.bar((death.at_ms, death.at_ms), (0.0, BAR), "#1c2430", &title);
                }
            }
            self.next(LANE);
        }
    }

    fn incidents(&mut self, report: &Report) {
        let mut services: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for incident in &report.incidents {
            services.entry(&incident.service).or_default().push(incident);
        }
        for (service, incidents) in services {
            self.label(&format!("{service} ({})", incidents.len()));
            for incident in incidents {
                let fill = ENDS.iter().find(|(end, _)| *end == incident.end).map_or("", |e| e.1);
                let title = format!(
                    "{} {}: {}; {}; {}",
                    incident.id,
                    incident.instance,
                    incident.summary,
                    incident.decided,
                    incident.end
                );
                let to = incident.closed_ms.unwrap_or(self.total_ms);
                self.bar((incident.opened_ms, to), (0.0, BAR), fill, &title);
            }
            self.next(LANE);
        }
    }

    fn acts(&mut self, report: &Report) {
        self.label(&format!("acts ({})", report.acts.len()));
        for (from, to, key) in &report.acts {
            let fill = if key.ends_with("undo") { "#d9822b" } else { "#2f6fde" };
            self.bar((*from, *to), (0.0, BAR), fill, key);
        }
        self.next(LANE + 6.0);
    }

    fn plots(&mut self, report: &Report) {
        for (name, values, fill) in series(report) {
            let most = values.values().copied().max().unwrap_or(0);
            let y = self.y;
            self.svg += &format!("<text x=0 y={:.0}>{name}</text>", y + 26.0);
            // The axis: nought and the most, with a line at each.
            for (value, at) in [(most, y), (0, y + PLOT)] {
                self.svg += &format!(
                    "<text x={:.0} y={:.0} text-anchor=end>{value}</text><line x1={LEFT} x2={WIDTH} y1={at:.1} y2={at:.1} \
                     stroke='#dde2ea'/>\n",
                    LEFT - 6.0,
                    at + 4.0
                );
            }
            let wide = (self.x(1_000) - self.x(0) - 0.5).max(0.8);
            for (second, value) in values {
                let high = PLOT * value as f64 / most.max(1) as f64;
                let x = self.x(second * 1_000);
                super::html::bar(&mut self.svg, x, y + PLOT - high, wide, high, fill);
            }
            self.next(PLOT + 14.0);
        }
    }

    fn axis(&mut self) {
        let step = STEPS_S.into_iter().find(|step| self.total_ms / 1_000 / step <= LABELS);
        let step = step.unwrap_or(3_600);
        let y = self.y + 8.0;
        for number in 0..=self.total_ms / 1_000 / step {
            let at = number * step;
            let text = if step < 60 { format!("{at} s") } else { format!("{} min", at / 60) };
            let x = self.x(at * 1_000);
            self.svg += &format!("<text x={x:.0} y={y:.0} text-anchor=middle>{text}</text>\n");
        }
        self.next(14.0);
    }
}

pub(super) fn render(report: &Report) -> String {
    let faults = report.faults.iter().map(|(.., to)| *to);
    let calls = report.calls.iter().filter_map(|call| Some(call.end_us? / 1_000));
    let closed = report.incidents.iter().filter_map(|incident| incident.closed_ms);
    let samples = report.samples.iter().map(|sample| sample.at_ms);
    let total_ms = faults.chain(calls).chain(closed).chain(samples).max().unwrap_or(1).max(1);
    let mut canvas = Canvas { svg: String::new(), y: 10.0, total_ms };
    canvas.faults(report);
    canvas.nodes(report);
    canvas.incidents(report);
    canvas.acts(report);
    canvas.plots(report);
    canvas.axis();
    let ends = ENDS.iter().map(|(end, fill)| (end.to_string(), *fill));
    let acts = [("act".to_owned(), "#2f6fde"), ("undo".to_owned(), "#d9822b")];
    let key: String = ends
        .map(|(end, fill)| (format!("incident {end}"), fill))
        .chain(acts)
        .map(|(word, fill)| format!("<span><i style='background:{fill}'></i>{word}</span>"))
        .collect();
    format!(
        "<svg viewBox='0 0 {WIDTH} {:.0}' width='100%'>{}</svg><p class=key>{key}</p>",
        canvas.y + 6.0,
        canvas.svg
    )
}

type Series = (&'static str, BTreeMap<u64, u64>, &'static str);

/// Per second: calls that were answered, calls sent then that never were, the median and the 99th
/// percentile of what answers took.
fn series(report: &Report) -> [Series; 4] {
    let mut took: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut open: BTreeMap<u64, u64> = BTreeMap::new();
    for call in &report.calls {
        if let Some(end) = call.end_us {
            took.entry(end / 1_000_000)
                .or_default()
                .push(end.saturating_sub(call.start_us) / 1_000);
        } else if call.outcome == Outcome::Open {
            *open.entry(call.start_us / 1_000_000).or_default() += 1;
        }
    }
    let count = |times: &Vec<u64>| u64::try_from(times.len()).unwrap_or(0);
    let counts = took.iter().map(|(second, times)| (*second, count(times))).collect();
    let spreads: Vec<(u64, super::Spread)> = took
        .iter()
        .map(|(second, times)| (*second, super::Spread::of(times.iter().copied())))
        .collect();
    let median = spreads.iter().map(|(second, spread)| (*second, spread.median)).collect();
    let worst = spreads.iter().map(|(second, spread)| (*second, spread.p99)).collect();
    [
        ("answers/s", counts, "#7a8aa8"),
        ("never answered, by second", open, "#b3261e"),
        ("median ms", median, "#8fa3c8"),
        ("p99 ms", worst, "#c2394b"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::watch::Sample;

    fn sample(at_ms: u64, node: u64, leader: u64) -> Sample {
        Sample { at_ms, node, leader, term: 1, applied: 1, hash: String::new(), fence: 1 }
    }

    #[test]
    fn what_goes_on_is_one_bar_and_who_comes_later_takes_the_lane_of_who_has_gone() {
        let samples = vec![
            sample(0, 1, 1),
            sample(10, 2, 1),
            sample(250, 1, 1),
            sample(260, 2, 1),
            sample(500, 1, 1),
            // Silent for long, and then deposed.
            sample(9_000, 1, 2),
            sample(9_250, 1, 2),
            sample(20_000, 4, 1),
        ];
        let report = Report { samples, ..Report::default() };
        let found = spans(&report);
        let told: Vec<_> = found.iter().map(|s| (s.node, s.leads, s.from_ms, s.to_ms)).collect();
        assert_eq!(
            told,
            [
                (1, true, 0, 500),
                (1, false, 9_000, 9_250),
                (2, false, 10, 260),
                (4, false, 20_000, 20_000)
            ]
        );
        assert_eq!(lanes(&found), [vec![1, 4], vec![2]]);
    }

    #[test]
    fn nodes_have_colours_of_their_own() {
        let colours: BTreeSet<String> = (1..=40).map(colour).collect();
        assert_eq!(colours.len(), 40);
    }
}
