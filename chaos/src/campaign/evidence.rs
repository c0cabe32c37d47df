//! What a campaign left behind, judged. Whatever cannot be read is a violation, and no reason to say
//! nothing of the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use medic_proto::v1 as pb;

use super::{
    arena::Cause,
    bystanders::Follower,
    sources::{self, Chains, Plans, Sources, number_of},
    stage::Stage,
    trouble::IN_FLIGHT_MAX,
    watch::Seen,
};
use crate::{
    check::{
        Verdict, Violation, acts,
        chain::{self, Chain},
        deposed::{self, Ended},
        journal::{Journal, Line},
        linear, nodes,
        plans::{self, Watched},
        reported, told,
    },
    history,
    report::{End, Incident, LogClock, Report},
};

/// A leader may act this long after it was cut off: lease, one heartbeat, and scheduling on a busy
/// machine.
const LEASE_MS: u64 = 600 + 100 + 300;
/// Two intervals of detection (a second each here) and a failover.
const NOTICED: reported::Within =
    reported::Within { bound_ms: 2 * 1_000 + FAILOVER_MS, failover_ms: FAILOVER_MS };
/// What a failover may take.
const FAILOVER_MS: u64 = 10_000;
/// Invariant 14.
const RECOVERY_MAX_MS: u64 = 30_000;
/// A watch that is told of all comes to where the nodes are within this: bookmarks come every few
/// seconds.
const WATCH_PATIENCE: Duration = Duration::from_secs(15);
/// Nodes that have just settled agree within this.
const AGREE_PATIENCE: Duration = Duration::from_secs(5);

/// Gathers all of it and fills the report. The cluster is stopped meanwhile.
pub(super) async fn gather(stage: &mut Stage, report: &mut Report) {
    let mut sources = Sources::default();
    let seen = stage.arena.eyes.seen();
    let calls = stage.desk.recorder.calls();
    let file = stage.dir.join("history.jsonl");
    lost(report, "the history of calls", history::write(&file, &calls));
    let agreed = agreed(stage).await;
    let mut follower = stage.follower.take();
    if let Some(follower) = &mut follower {
        let index = agreed.as_ref().ok().copied().flatten();
        follower.reach(index.unwrap_or(0), WATCH_PATIENCE).await;
        // Before the chains are read: nodes that are stopped hand leadership over, which is an event.
        follower.stop().await;
    }
    let exported = sources::chains(stage, &mut sources).await;
    let chains: BTreeMap<u64, Chain> =
        exported.iter().map(|(node, records)| (*node, chain::read(records))).collect();
    let mut ids = sources::plan_ids(seen.plans.keys(), &chains);
    let (plans, unread) = sources::plans(stage, ids.iter().cloned(), &mut sources).await;
    // Whether these are lost nobody knows; that they could not be read is a violation already.
    ids.retain(|id| !unread.contains(id));
    let incidents = sources::incidents(stage, &mut sources).await;
    lost(report, "files for a closer look", keep(&stage.dir, &plans, &exported, &incidents));
    let (pages, told) = stage.pager.pages();
    report.told = told;
    // Counted before the network is gone.
    let walls = stage.arena.walls.count();
    report.walls = lost(report, "packets that the kernel dropped", walls).flatten();
    stage.end().await;
    let journals = sources::journals(stage, &mut sources);
    let starts = sources::starts(stage, &mut sources);
    let longest = chains.values().max_by_key(|c| c.indexes.len()).cloned().unwrap_or_default();
    let records =
        exported.values().max_by_key(|records| records.len()).map_or(&[][..], Vec::as_slice);
    report.clock = LogClock::new(&seen.samples, records);
    let logs = stage.dir.join("cluster/logs");
    let watched = watched(&seen, &ids);
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
        sources::offline(stage).await,
        nodes::hashes(&states),
        nodes::owners(&seen.owners),
        noticed(stage, report, &seen, records, &journals),
        acts::without_quorum(&journals, &longest, &cut_off),
        acts::budget(&longest, IN_FLIGHT_MAX),
        nodes::recoveries(&report.recoveries, RECOVERY_MAX_MS, &report.late),
    ];
    verdicts.push(same_in_the_end(&agreed, &logs));
    verdicts.extend(watching(follower, &agreed, &longest));
    verdicts.extend(told::check(&pages, &longest));
    if !stage.arena.unsaid.is_empty() {
        let unsaid = stage.arena.unsaid.clone();
        let text = "damage that a node ended of, and did not name";
        verdicts.push(Verdict::new(8, 1, "damage", vec![Violation::new(text).with(unsaid)]));
    }
    verdicts.extend(sources.verdicts());
    verdicts.push(clocks(stage, &verdicts));
    verdicts.sort_by_key(|verdict| verdict.invariant);
    report.verdicts = verdicts;
    report.incidents = told_of(&incidents, &plans, &report.clock);
    account(stage, &longest, report);
    report.calls = calls;
    report.samples = seen.samples;
    report.plans = plans.len();
    report.taken_over = plans::taken_over(&plans);
    report.acts = act_times(&journals, report.wall_began_ms);
}

/// Notes what could not be had, where no invariant depends on it.
fn lost<T>(report: &mut Report, what: &str, outcome: anyhow::Result<T>) -> Option<T> {
    outcome.map_err(|error| report.missing.push(format!("{what}: {error:#}"))).ok()
}

/// The index at which all nodes agree, tried for a while: something may just be under way.
async fn agreed(stage: &Stage) -> anyhow::Result<Option<u64>> {
    let deadline = Instant::now() + AGREE_PATIENCE;
    loop {
        let agreed = stage.agreed().await;
        if matches!(agreed, Ok(Some(_))) || Instant::now() > deadline {
            return agreed;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// 9, at the end: all nodes came to the same state.
fn same_in_the_end(agreed: &anyhow::Result<Option<u64>>, logs: &Path) -> Verdict {
    let text = "the nodes did not come to the same state after the campaign";
    let violations = match agreed {
        Ok(Some(_)) => Vec::new(),
        Ok(None) => vec![Violation::new(text).see(logs)],
        Err(error) => vec![Violation::new(text).with([format!("{error:#}")]).see(logs)],
    };
    Verdict::new(9, 1, "final states", violations)
}

/// 1, as told: what the watch of all events was told, or that there was none.
fn watching(
    follower: Option<Follower>,
    agreed: &anyhow::Result<Option<u64>>,
    longest: &Chain,
) -> Option<Verdict> {
    let follower = follower?;
    let last = longest.indexes.last().copied().unwrap_or(0);
    // Where nodes differ that is found elsewhere; the longest chain is what should have been told.
    let until = agreed.as_ref().ok().copied().flatten().unwrap_or(last);
    Some(follower.verdict(longest.indexes.iter().copied(), until))
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
    let numbers: BTreeSet<u8> = wrong.map(|verdict| verdict.invariant).collect();
    let violations = if seen == 0 || numbers.is_empty() {
        Vec::new()
    } else {
        let numbers: Vec<String> = numbers.iter().map(u8::to_string).collect();
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

/// Files for whoever looks closer: incidents and plans as they are, the chain of every node.
fn keep(
    dir: &Path,
    plans: &Plans,
    chains: &Chains,
    incidents: &[pb::IncidentSummary],
) -> anyhow::Result<()> {
    let write = |name: &str, bytes: Vec<u8>| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    };
    write("incidents.json", serde_json::to_vec_pretty(incidents)?)?;
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
    records: &[pb::AuditRecord],
    journals: &[Journal],
) -> Verdict {
    let kills = stage.kills.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let kills: Vec<(u64, String)> = (kills.into_iter())
        .map(|(wall, name)| (wall.saturating_sub(report.wall_began_ms), name))
        .collect();
    let symptoms = reported::symptoms(records, |index| report.clock.of_index(index));
    let until = seen.samples.last().map_or(0, |sample| sample.at_ms);
    let ends: Vec<u64> = report.deaths.iter().filter(|d| d.led).map(|d| d.at_ms).collect();
    let journals = (journals, report.wall_began_ms);
    reported::lasting(&kills, &symptoms, journals, &report.recoveries, NOTICED, (&ends, until))
}

/// Every plan there was, as it was seen; one that nobody saw while it ran, as the chain has it.
fn watched(seen: &Seen, ids: &BTreeSet<String>) -> BTreeMap<String, Watched> {
    let of = |id: &String| match seen.plans.get(id) {
        Some(plan) => Watched { digest: plan.digest.clone(), statuses: plan.statuses.clone() },
        None => Watched { digest: String::new(), statuses: vec!["committed".to_owned()] },
    };
    ids.iter().map(|id| (id.clone(), of(id))).collect()
}

/// Incidents with what Medic made of each, by the log's own time.
fn told_of(incidents: &[pb::IncidentSummary], plans: &Plans, clock: &LogClock) -> Vec<Incident> {
    let mut of_incident: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for plan in plans.values() {
        let status = plan.status().as_str_name().trim_start_matches("REMEDIATION_STATUS_");
        let status = status.to_lowercase().replace('_', " ");
        let because = if plan.reason.is_empty() { "" } else { ": " };
        of_incident
            .entry(&plan.incident)
            .or_default()
            .push(format!("{} ({}) {status}{because}{}", plan.playbook, plan.id, plan.reason));
    }
    let told = incidents.iter().map(|incident| {
        let target = incident.target.clone().unwrap_or_default();
        let decided = of_incident.get(incident.id.as_str()).map(|plans| plans.join("; "));
        Incident {
            id: incident.id.clone(),
            service: target.service,
            instance: target.instance,
            class: incident.class.clone(),
            summary: incident.summary.clone(),
            decided: decided.unwrap_or_else(|| "nothing was done".to_owned()),
            escalation: incident.escalation.clone(),
            opened_ms: clock.of_index(number_of(&incident.id)).unwrap_or(0),
            closed_ms: incident.resolved_at.as_ref().and_then(|at| clock.of_law(at)),
            end: end_of(incident),
        }
    });
    told.collect()
}

fn end_of(incident: &pb::IncidentSummary) -> End {
    match incident.resolution() {
        pb::Resolution::Unspecified => End::Open,
        pb::Resolution::Remediated => End::Remediated,
        pb::Resolution::SelfCleared => End::SelfCleared,
        pb::Resolution::ByHand => End::ByHand,
        pb::Resolution::Merged => End::Merged,
    }
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
