//! What a campaign left behind, gathered from nodes, agents and services, and judged.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use anyhow::Context as _;
use medic_proto::v1 as pb;

use super::{
    arena::Cause,
    stage::Stage,
    trouble::IN_FLIGHT_MAX,
    watch::{Seen, stale},
};
use crate::{
    check::{
        self, Verdict, Violation,
        acts::{self, Starts},
        chain::{self, Chain},
        deposed::{self, Ended},
        journal::{self, Journal, Line},
        linear, nodes,
        plans::{self, Watched},
        reported,
    },
    history,
    report::Report,
};

/// A leader may act this long after it was cut off: lease, one heartbeat, and scheduling on a busy
/// machine.
const LEASE_MS: u64 = 600 + 100 + 300;
/// Two intervals of detection (a second each here) and a failover.
const NOTICED_MS: u64 = 2 * 1_000 + 10_000;
/// Invariant 14.
const RECOVERY_MAX_MS: u64 = 30_000;

type Plans = BTreeMap<String, pb::Remediation>;
type Chains = BTreeMap<u64, Vec<pb::AuditRecord>>;

/// Gathers all of it and fills the report. The cluster is stopped meanwhile.
pub(super) async fn gather(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    let seen = stage.arena.eyes.seen();
    let calls = stage.desk.recorder.calls();
    let file = stage.dir.join("history.jsonl");
    history::write(&file, &calls)?;
    let plans = final_plans(stage, &seen).await?;
    let agreed = stage.agree().await.unwrap_or(false);
    let mut follower = stage.follower.take();
    if let Some(follower) = &mut follower {
        // Before the chains are read: nodes that are stopped hand leadership over, which is an event.
        follower.stop().await;
    }
    let exported = exports(stage).await?;
    keep(stage, &plans, &exported).await?;
    let pager = stage.pager.told();
    stage.end().await;
    let logs = stage.dir.join("cluster/logs");
    let journals = journals(stage)?;
    let starts = starts(stage);
    let chains: BTreeMap<u64, Chain> =
        exported.iter().map(|(node, records)| (*node, chain::read(records))).collect();
    let longest = chains.values().max_by_key(|c| c.indexes.len()).cloned().unwrap_or_default();
    let watched = watched(&seen);
    let states: Vec<_> =
        seen.samples.iter().map(|s| (s.node, s.applied, s.hash.as_str())).collect();
    let cut_off = cut_off(stage, report.wall_began_ms);
    let mut verdicts = vec![
        linear::check(&calls, &file),
        acts::fences(&journals, &longest),
        acts::intents(&journals, &longest),
        acts::effects(&journals, &starts),
        plans::steps(&plans, &logs),
        acts::recorded(&plans, &journals),
        plans::resumed(&watched, &plans, &logs),
        nodes::acknowledged(&calls, &chains),
        nodes::chains(&exported),
        offline(stage).await,
        nodes::hashes(&states),
        nodes::owners(&seen.owners),
        noticed(stage, report, &seen, &exported, &journals),
        acts::without_quorum(&journals, &longest, &cut_off),
        acts::budget(&longest, IN_FLIGHT_MAX),
        nodes::recoveries(&report.recoveries, RECOVERY_MAX_MS, &report.late),
    ];
    if !agreed {
        let text = "the nodes did not come to the same state after the campaign";
        verdicts.push(Verdict::new(9, 1, "final states", vec![Violation::new(text).see(&logs)]));
    }
    if let Some(follower) = follower {
        verdicts.push(follower.verdict(longest.indexes.iter().copied()));
    }
    if !stage.arena.unsaid.is_empty() {
        let unsaid = stage.arena.unsaid.clone();
        let text = "damage that a node ended of, and did not name";
        verdicts.push(Verdict::new(8, 1, "damage", vec![Violation::new(text).with(unsaid)]));
    }
    verdicts.push(clocks(stage, &verdicts));
    report.verdicts = check::join(verdicts);
    account(stage, &longest, report);
    report.walls = stage.arena.walls.count()?;
    report.told = pager;
    report.calls = calls;
    report.samples = seen.samples;
    report.plans = plans.len();
    report.taken_over = plans::taken_over(&plans);
    report.acts = act_times(&journals, report.wall_began_ms);
    Ok(())
}

/// What was done to nodes, and what it met.
fn account(stage: &mut Stage, chain: &Chain, report: &mut Report) {
    let deaths = stage.arena.deaths.clone();
    let ends: Vec<Ended> = deaths
        .iter()
        .map(|death| Ended {
            node: death.node,
            led: death.led
                || matches!(death.cause, Cause::Point(name) if name.starts_with("driver_")),
            fence: death.fence,
            unwinding: death.unwinding > 0,
        })
        .collect();
    report.deposed = deposed::deposed(&ends, chain);
    report.deaths = deaths;
    report.hits = stage.arena.points.hits();
    report.power_cuts = stage.arena.power_cuts;
    report.replaced = stage.arena.replaced;
    report.renewed = renewed(&stage.arena.cluster.dir().join("logs"));
    report.damage = stage
        .arena
        .flips
        .iter()
        .map(|flip| {
            let went_on = if flip.read_through {
                "no harm: it started, and all it has was read"
            } else {
                "it started, and was gone before all it has was read"
            };
            let outcome = flip.outcome.as_deref().unwrap_or(went_on);
            format!("node-{}: {}: {outcome}", flip.node, flip.what)
        })
        .collect();
}

/// 13: how many clocks were wrong, and whether anything else was.
fn clocks(stage: &Stage, verdicts: &[Verdict]) -> Verdict {
    let seen = stage.arena.skews_seen;
    let wrong = verdicts.iter().filter(|v| v.invariant < 13 && !v.holds());
    let numbers: Vec<String> = wrong.map(|verdict| verdict.invariant.to_string()).collect();
    let violations = if seen == 0 || numbers.is_empty() {
        Vec::new()
    } else {
        let text = format!("clocks were wrong, and so is what {} say", numbers.join(", "));
        vec![Violation::new(text)]
    };
    Verdict::new(13, seen, "clocks set wrong", violations)
}

/// Certificates that running processes took over.
fn renewed(logs: &Path) -> usize {
    let texts = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let texts = texts.map(|entry| std::fs::read(entry.path()).unwrap_or_default());
    texts.map(|text| String::from_utf8_lossy(&text).matches("certificate renewed").count()).sum()
}

/// Every plan that was seen, as it is now.
async fn final_plans(stage: &Stage, seen: &Seen) -> anyhow::Result<Plans> {
    let mut plans = Plans::new();
    let mut client = stage.arena.cluster.client("admin").await?;
    for id in seen.plans.keys() {
        let request = pb::GetRemediationRequest { id: id.clone() };
        match client.remediations().get(request).await {
            Ok(response) => {
                if let Some(plan) = response.into_inner().remediation {
                    plans.insert(id.clone(), plan);
                }
            }
            // It is then missing, and found to be.
            Err(status) => tracing::warn!(plan = id, %status, "a plan cannot be had"),
        }
    }
    Ok(plans)
}

/// The chain of every node, from its own records.
async fn exports(stage: &Stage) -> anyhow::Result<Chains> {
    let mut chains = Chains::new();
    for node in stage.arena.members.clone() {
        let mut client = stage.arena.dialer.dial(node).await?;
        let request = stale(pb::ExportAuditRequest { after_index: 0 });
        let mut stream = client.audit().export(request).await?.into_inner();
        let records = chains.entry(node).or_default();
        while let Some(page) = stream.message().await? {
            records.extend(page.records);
        }
    }
    Ok(chains)
}

/// Files for whoever looks closer: incidents and plans as they are, the chain of every node.
async fn keep(stage: &Stage, plans: &Plans, chains: &Chains) -> anyhow::Result<()> {
    let request = pb::ListIncidentsRequest { page_size: 1_000, ..Default::default() };
    let mut client = stage.arena.cluster.client("admin").await?;
    let incidents = client.incidents().list(request).await?.into_inner().incidents;
    let write = |name: &str, bytes: Vec<u8>| {
        let path = stage.dir.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    };
    write("incidents.json", serde_json::to_vec_pretty(&incidents)?)?;
    write("plans.json", serde_json::to_vec_pretty(plans)?)?;
    for (node, records) in chains {
        write(&format!("audit-node-{node}.json"), serde_json::to_vec(records)?)?;
    }
    Ok(())
}

/// 10: what was killed in the fleet, and whether somebody said so.
fn noticed(
    stage: &Stage,
    report: &Report,
    seen: &Seen,
    exported: &Chains,
    journals: &[Journal],
) -> Verdict {
    let kills = stage.kills.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let kills: Vec<(u64, String)> = (kills.into_iter())
        .map(|(wall, name)| (wall.saturating_sub(report.wall_began_ms), name))
        .collect();
    let samples: Vec<(u64, u64)> = seen.samples.iter().map(|s| (s.at_ms, s.applied)).collect();
    let longest = exported.values().max_by_key(|records| records.len());
    let symptoms = reported::symptoms(longest.map_or(&[], Vec::as_slice), &samples);
    let until = seen.samples.last().map_or(0, |sample| sample.at_ms);
    let (journals, bounds) = ((journals, report.wall_began_ms), (NOTICED_MS, until));
    reported::lasting(&kills, &symptoms, journals, &report.recoveries, bounds)
}

fn journals(stage: &Stage) -> anyhow::Result<Vec<Journal>> {
    let folder = stage.arena.cluster.dir().join("agents");
    stage
        .arena
        .agents
        .iter()
        .map(|agent| journal::read(agent, &folder.join(format!("{agent}.state/journal"))))
        .collect()
}

fn starts(stage: &Stage) -> Starts {
    let of = |instance: &crate::fleet::SampleInstance| {
        let path = instance.starts();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        (instance.name.clone(), (path, text.lines().filter_map(|l| l.parse().ok()).collect()))
    };
    stage.arena.fleet.instances.values().map(of).collect()
}

fn watched(seen: &Seen) -> BTreeMap<String, Watched> {
    let of = |plan: &super::watch::PlanSeen| Watched {
        digest: plan.digest.clone(),
        statuses: plan.statuses.clone(),
    };
    seen.plans.iter().map(|(id, plan)| (id.clone(), of(plan))).collect()
}

/// Isolations of leaders that outlasted their lease, by the wall clock.
fn cut_off(stage: &Stage, wall_began_ms: u64) -> Vec<acts::CutOff> {
    let isolations = stage.arena.isolations.iter();
    isolations
        .filter_map(|(from, to, node)| Some((from + LEASE_MS, (*to)?, *node)))
        .filter(|(from, to, _)| from < to)
        .map(|(from, to, node)| (wall_began_ms + from, wall_began_ms + to, node))
        .collect()
}

/// 8, offline: the product's own verifier over the data of each stopped node.
async fn offline(stage: &Stage) -> Verdict {
    let (mut checked, mut violations) = (0, Vec::new());
    for node in stage.arena.members.clone() {
        let dir = stage.arena.cluster.data_dir(node);
        let mut command = tokio::process::Command::new(&stage.medic);
        command.args(["audit", "verify", "--dir"]).arg(&dir).stdin(Stdio::null());
        let problem = match command.output().await {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(error.to_string()),
        };
        checked += 1;
        if let Some(problem) = problem {
            let text = format!("node-{node}: `medic audit verify` says: {problem}");
            violations.push(Violation::new(text).see(dir));
        }
    }
    Verdict::new(8, checked, "nodes verified offline", violations)
}

/// When each act began and ended, milliseconds of the campaign, with its key.
fn act_times(journals: &[Journal], wall_began_ms: u64) -> Vec<(u64, u64, String)> {
    let mut times = Vec::new();
    for journal in journals {
        let mut open: BTreeMap<&str, u64> = BTreeMap::new();
        for line in &journal.lines {
            match line {
                Line::Begin { key, at_ms, .. } => {
                    open.insert(key, *at_ms);
                }
                Line::Outcome { key, at_ms, .. } => {
                    if let Some(begun) = open.remove(key.as_str()) {
                        let of = |ms: u64| ms.saturating_sub(wall_began_ms);
                        times.push((of(begun), of(*at_ms), key.clone()));
                    }
                }
                Line::Header { .. } | Line::Fence { .. } => {}
            }
        }
    }
    times.sort();
    times
}
