//! The report, for programs and for people.

use comfy_table::{Cell, CellAlignment, Table, presets};
use medic_node::detection::intake::measure::Cost;
use serde::Serialize;

use super::{
    commit::{Commit, Load},
    failover::Failover,
    idle::IdleNode,
    machine::Machine,
    stats::Summary,
};

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    /// Heartbeat, least and greatest election timeout.
    pub(super) timings_ms: [u64; 3],
    pub(super) idle: Option<Vec<IdleNode>>,
    pub(super) commit: Option<Commit>,
    pub(super) failover: Option<Failover>,
    pub(super) intake: Option<Cost>,
}

impl Report {
    pub(super) const fn new(machine: Machine, timings_ms: [u64; 3]) -> Self {
        Self { machine, timings_ms, idle: None, commit: None, failover: None, intake: None }
    }

    /// For people.
    pub(super) fn tables(&self) -> String {
        let Machine { cores, cpu, kernel, load_before, load_after, folder, debug_assertions } =
            &self.machine;
        let build = if *debug_assertions { "with" } else { "without" };
        let mut text = format!(
            "three nodes on one machine: {cores} cores ({cpu}), Linux {kernel}; load {load_before} \
             before, {load_after} after\ndata in {folder}; built {build} debug assertions; \
             heartbeat and election timings {:?} ms\n",
            self.timings_ms
        );
        let parts = [
            self.idle.as_ref().map(|nodes| idle(nodes)),
            self.commit.as_ref().map(commit),
            self.failover.as_ref().map(failover),
            self.intake.as_ref().map(intake),
        ];
        for part in parts.into_iter().flatten() {
            text.push('\n');
            text.push_str(&part);
            text.push('\n');
        }
        text
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(header.iter().copied());
    table
}

fn row(name: &str, figures: impl IntoIterator<Item = String>) -> Vec<Cell> {
    let figures =
        figures.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
    std::iter::once(Cell::new(name)).chain(figures).collect()
}

/// Median, 90th and 99th percentile, greatest, and of how many.
fn times(summary: Option<&Summary>) -> Vec<String> {
    match summary {
        Some(s) => [s.p50_ms, s.p90_ms, s.p99_ms, s.max_ms]
            .map(|ms| if ms < 100.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") })
            .into_iter()
            .chain([s.count.to_string()])
            .collect(),
        None => vec!["-".to_owned(); 5],
    }
}

fn idle(nodes: &[IdleNode]) -> String {
    let mut table = table(&["idle", "CPU, % of one core", "resident"]);
    for node in nodes {
        let name = format!("node-{}{}", node.node, if node.leads { ", leads" } else { "" });
        let figures = [format!("{:.1}", node.cpu_percent), format!("{:.0} MiB", node.rss_mib)];
        table.add_row(row(&name, figures));
    }
    table.to_string()
}

fn commit(commit: &Commit) -> String {
    let title = format!("acknowledged writes of {} bytes", commit.payload_bytes);
    let mut table = table(&[&title, "per second", "median", "p90", "p99", "greatest", "measured"]);
    let mut plain = |name: &str, summary: Option<&Summary>| {
        table.add_row(row(name, std::iter::once(String::new()).chain(times(summary))));
    };
    plain("one fdatasync, overwriting", commit.fdatasync.overwriting.as_ref());
    plain("one fdatasync, appending", commit.fdatasync.appending.as_ref());
    plain("a call answered from memory", commit.call.as_ref());
    let mut loads = |system: &str, loads: &[Load]| {
        for load in loads {
            let name = format!("{system}, {} clients", load.clients);
            let rate = format!("{:.0}", load.writes_per_second);
            let figures = std::iter::once(rate).chain(times(load.latency.as_ref()));
            table.add_row(row(&name, figures));
        }
    };
    loads("Medic", &commit.medic);
    let Some(peer) = &commit.etcd else {
        return format!("{table}\netcd is not installed: nothing was compared");
    };
    loads(&format!("etcd {}", peer.version), &peer.loads);
    let ratios: Vec<String> =
        commit.medic.iter().zip(&peer.loads).map(|(ours, theirs)| ratio(ours, theirs)).collect();
    format!("{table}\nMedic to etcd: {}", ratios.join("; "))
}

fn ratio(ours: &Load, theirs: &Load) -> String {
    let median = |load: &Load| load.latency.as_ref().map_or(f64::NAN, |s| s.p50_ms);
    format!(
        "{} clients {:.2} × the throughput, {:.2} × the median latency",
        ours.clients,
        ours.writes_per_second / theirs.writes_per_second,
        median(ours) / median(theirs)
    )
}

fn intake(cost: &Cost) -> String {
    let mut table = table(&["pushed samples, one thread", "figure"]);
    let rows = [
        ("series, all watched", cost.series.to_string()),
        ("samples", cost.samples.to_string()),
        ("of them judged by a detector", cost.detected.to_string()),
        ("bytes each, in a snappy block", format!("{:.0}", cost.bytes_per_sample)),
        ("open, walk, find, take", format!("{:.0} ns", cost.take_ns)),
        ("add up and detect", format!("{:.0} ns", cost.detect_ns)),
        ("per second", format!("{:.0}", cost.per_second)),
        ("rounds, warm-up included", cost.rounds.to_string()),
        ("memory gained", format!("{:.0} MiB", cost.resident_mib)),
    ];
    for (name, figure) in rows {
        table.add_row(row(name, [figure]));
    }
    table.to_string()
}

fn failover(failover: &Failover) -> String {
    let mut table = table(&["leader killed until", "median", "p90", "p99", "greatest", "runs"]);
    table.add_row(row("first acknowledged write", times(failover.first_write.as_ref())));
    table.add_row(row("a write at every survivor", times(failover.every_survivor.as_ref())));
    format!("{table}\nwrites answered with an error before: {}", failover.refused)
}
