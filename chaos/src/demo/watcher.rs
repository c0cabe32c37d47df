//! Plays one fault and follows the incident it causes to its end, telling what happens.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use medic_proto::v1 as pb;

use super::{
    narrator::{Narrator, Tone},
    report::Row,
    scenario::{Ending, Fault},
    stage::Stage,
};
use crate::fleet::SampleInstance;

/// A fault that is not dealt with by then counts as not healed.
const PATIENCE: Duration = Duration::from_secs(75);
/// Between looks at the control API.
const LOOK: Duration = Duration::from_millis(150);
/// In front of a person: how long they have to approve by hand before the demo does it.
const HUMAN_PATIENCE: Duration = Duration::from_secs(30);

/// What is known of the incident being followed.
#[derive(Default)]
struct Follow {
    incident: Option<String>,
    /// Timeline lines told so far, by incident: index and text.
    told: BTreeSet<(String, u64, String)>,
    leader_killed: Option<u64>,
    /// Since when a plan has waited for approval.
    asked: Option<Instant>,
    approved: bool,
}

/// Breaks something, and follows what Medic makes of it. `alone`: nobody is there to approve.
pub(super) async fn play(
    stage: &mut Stage,
    narrator: &Narrator,
    fault: Fault,
    alone: bool,
) -> anyhow::Result<Row> {
    let known = incidents(stage).await?.into_iter().map(|i| i.id).collect::<BTreeSet<_>>();
    let starts: Vec<_> =
        stage.fleet.instances.values().map(|i| (i.clone(), starts_of(i))).collect();
    narrator.restart_clock();
    let began_ms = wall_ms();
    fault.inject(&stage.fleet).await?;
    narrator.timed(Tone::Demo, "demo", "broken");
    let deadline = Instant::now() + PATIENCE + if alone { Duration::ZERO } else { HUMAN_PATIENCE };
    let mut follow = Follow::default();
    let mut last = None;
    while Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        // While a leader is being lost, a call may fail: look again.
        let Ok(seen) = look(stage, narrator, fault, &known, &mut follow, alone).await else {
            continue;
        };
        let Some(explained) = seen else { continue };
        let ended = has_ended(fault, &explained);
        last = Some(explained);
        if ended {
            break;
        }
    }
    if let Some(node) = follow.leader_killed {
        stage.cluster_mut()?.node_mut(node)?.start()?;
        narrator.timed(Tone::Demo, "demo", &format!("node-{node} is started again"));
    }
    let Some(explained) = last else {
        return Ok(Row::unseen(
            fault.title(),
            format!("no incident on {} was opened", fault.service()),
        ));
    };
    let incident = explained.incident.clone().unwrap_or_default();
    let mut row = Row::read(fault.title(), began_ms, &incident, &explained.remediations);
    check(fault, &explained, &follow, &mut row);
    match fault {
        Fault::LeaderLost => check_once(&starts, fault, &mut row, narrator),
        Fault::DependencyDown => check_others(&starts, fault, &mut row),
        _ => {}
    }
    if fault.ending() == Ending::Escalated {
        hand_over(stage, narrator, fault, &incident.id).await?;
    }
    settle(stage, narrator, &mut row).await?;
    Ok(row)
}

async fn incidents(stage: &Stage) -> anyhow::Result<Vec<pb::IncidentSummary>> {
    let request = pb::ListIncidentsRequest { page_size: 500, ..Default::default() };
    let mut client = stage.cluster()?.client("viewer").await?;
    Ok(client.incidents().list(request).await?.into_inner().incidents)
}

/// One look: finds the incident, tells what is new, plays the demo's own part.
async fn look(
    stage: &mut Stage,
    narrator: &Narrator,
    fault: Fault,
    known: &BTreeSet<String>,
    follow: &mut Follow,
    alone: bool,
) -> anyhow::Result<Option<pb::ExplainIncidentResponse>> {
    let fresh: Vec<_> =
        incidents(stage).await?.into_iter().filter(|i| !known.contains(&i.id)).collect();
    let mut followed = None;
    for summary in &fresh {
        let request = pb::ExplainIncidentRequest { id: summary.id.clone() };
        let mut client = stage.cluster()?.client("viewer").await?;
        let explained = client.incidents().explain(request).await?.into_inner();
        let Some(incident) = &explained.incident else { continue };
        tell(narrator, incident, &mut follow.told);
        let ours = incident.target.as_ref().is_some_and(|t| t.service == fault.service());
        let better = follow.incident.is_none() || follow.incident.as_deref() == Some(&incident.id);
        if ours && incident.merged_into.is_empty() && better {
            follow.incident = Some(incident.id.clone());
            followed = Some(explained);
        }
    }
    let Some(explained) = followed else { return Ok(None) };
    if fault == Fault::LeaderLost && follow.leader_killed.is_none() {
        follow.leader_killed = kill_leader_mid_step(stage, narrator, &explained).await?;
    }
    if fault == Fault::HighRisk && !follow.approved {
        approve(stage, narrator, &explained, follow, alone).await?;
    }
    Ok(Some(explained))
}

fn tell(narrator: &Narrator, incident: &pb::Incident, told: &mut BTreeSet<(String, u64, String)>) {
    for item in &incident.timeline {
        if told.insert((incident.id.clone(), item.index, item.text.clone())) {
            narrator.timed(Tone::Medic, &incident.id, &item.text);
        }
    }
}

/// Kills the leader while the second step has an intent and no outcome.
async fn kill_leader_mid_step(
    stage: &mut Stage,
    narrator: &Narrator,
    explained: &pb::ExplainIncidentResponse,
) -> anyhow::Result<Option<u64>> {
    let running = explained
        .remediations
        .last()
        .and_then(|plan| plan.steps.iter().find(|s| s.index == 1 && s.intent.is_some()));
    let Some(step) = running else { return Ok(None) };
    let target = step.target.as_ref().map(|t| t.instance.clone()).unwrap_or_default();
    let leader = stage.cluster()?.leader().await?;
    stage.cluster_mut()?.node_mut(leader)?.kill().await?;
    let text = format!(
        "node-{leader}, the leader, gets SIGKILL: step 2 ({} of {target}) is ordered and has no outcome",
        step.name
    );
    narrator.timed(Tone::Demo, "demo", &text);
    Ok(Some(leader))
}

/// Whoever watches may approve; where nobody does, the demo does it in their place.
async fn approve(
    stage: &Stage,
    narrator: &Narrator,
    explained: &pb::ExplainIncidentResponse,
    follow: &mut Follow,
    alone: bool,
) -> anyhow::Result<()> {
    let Some(incident) = &explained.incident else { return Ok(()) };
    if incident.status() != pb::IncidentStatus::AwaitingApproval {
        // It waited, and does so no more: somebody has typed it.
        follow.approved = follow.asked.is_some();
        return Ok(());
    }
    let plan = explained.remediations.last().context("a plan that waits for approval")?;
    let command = format!("medic approve {}", incident.id);
    if follow.asked.is_none() && !alone {
        let typed = stage.typed(&format!("approve {} --context oncall", incident.id));
        let seconds = HUMAN_PATIENCE.as_secs();
        let text = format!("in another terminal, within {seconds} s (or the demo does): {typed}");
        narrator.timed(Tone::Demo, "demo", &text);
    }
    let asked = *follow.asked.get_or_insert_with(Instant::now);
    if !alone && asked.elapsed() < HUMAN_PATIENCE {
        return Ok(());
    }
    narrator.timed(Tone::Demo, "demo", &format!("a human looks at it and types: {command}"));
    let request = pb::ApproveRequest {
        incident: incident.id.clone(),
        plan_digest: plan.digest.clone(),
        ..Default::default()
    };
    let mut client = stage.cluster()?.client("oncall").await?;
    client.approvals().approve(request).await?;
    follow.approved = true;
    Ok(())
}

fn has_ended(fault: Fault, explained: &pb::ExplainIncidentResponse) -> bool {
    let Some(incident) = &explained.incident else { return false };
    match incident.status() {
        pb::IncidentStatus::Resolved => true,
        pb::IncidentStatus::Escalated => fault.ending() == Ending::Escalated,
        _ => false,
    }
}

/// Holds what happened against what should have.
fn check(fault: Fault, explained: &pb::ExplainIncidentResponse, follow: &Follow, row: &mut Row) {
    let Some(incident) = &explained.incident else { return };
    let status = incident.status();
    let plan = explained.remediations.last();
    let plan_status = plan.map(pb::Remediation::status);
    match fault.ending() {
        Ending::Healed | Ending::Approved => {
            if status != pb::IncidentStatus::Resolved
                || plan_status != Some(pb::RemediationStatus::Succeeded)
            {
                let reason = if incident.escalation.is_empty() {
                    "it ran out of time"
                } else {
                    &incident.escalation
                };
                row.problem(format!("{} was not healed: {reason}", incident.id));
            }
        }
        Ending::Escalated => {
            if status != pb::IncidentStatus::Escalated
                || plan_status != Some(pb::RemediationStatus::RolledBack)
            {
                row.problem(format!("{} should have been rolled back and escalated", incident.id));
            }
        }
    }
    match fault {
        Fault::LeaderLost if follow.leader_killed.is_none() => {
            row.problem("the leader was not caught in the middle of a step".to_owned());
        }
        Fault::HighRisk if !follow.approved => {
            row.problem("nobody was asked for approval".to_owned())
        }
        Fault::MemoryLeak => {
            let foreseen = incident.symptoms.iter().any(|s| s.time_to_event_ms.is_some());
            if !foreseen {
                row.problem("it was not foreseen before the limit".to_owned());
            }
        }
        Fault::DependencyDown => {
            let grouped = incident.symptoms.iter().filter(|s| s.grouped).count();
            if grouped == 0 {
                row.problem("no symptom of a dependent was grouped under it".to_owned());
            }
        }
        _ => {}
    }
}

/// Starts of each instance before a fault.
type Starts = [(SampleInstance, usize)];

/// Each instance was restarted exactly once although two leaders ordered it.
fn check_once(before: &Starts, fault: Fault, row: &mut Row, narrator: &Narrator) {
    for (instance, starts) in before.iter().filter(|(i, _)| i.service == fault.service()) {
        let restarts = starts_of(instance) - starts;
        if restarts == 1 {
            narrator.timed(
                Tone::Good,
                "demo",
                &format!("{} was restarted exactly once", instance.name),
            );
        } else {
            row.problem(format!("{} was restarted {restarts} times, not once", instance.name));
        }
    }
}

/// Only the cause was treated: no other service was touched.
fn check_others(before: &Starts, fault: Fault, row: &mut Row) {
    for (instance, starts) in before.iter().filter(|(i, _)| i.service != fault.service()) {
        if starts_of(instance) != *starts {
            row.problem(format!("{} was restarted, and it was not the cause", instance.name));
        }
    }
}

/// How often an instance has started, by its own account.
fn starts_of(instance: &SampleInstance) -> usize {
    std::fs::read_to_string(instance.starts()).map_or(0, |text| text.lines().count())
}

/// The human's part after an escalation: repair, then close.
async fn hand_over(
    stage: &Stage,
    narrator: &Narrator,
    fault: Fault,
    id: &str,
) -> anyhow::Result<()> {
    fault.repair_by_hand(&stage.fleet).await?;
    narrator.timed(Tone::Demo, "demo", "a human repairs it by hand and closes the incident");
    let request = pb::ResolveIncidentRequest {
        id: id.to_owned(),
        note: "data file replaced by hand".to_owned(),
        ..Default::default()
    };
    let mut client = stage.cluster()?.client("admin").await?;
    client.incidents().resolve(request).await?;
    Ok(())
}

/// Waits until nothing is open any more: the next fault should meet a well fleet.
async fn settle(stage: &Stage, narrator: &Narrator, row: &mut Row) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open: Vec<_> = incidents(stage)
            .await
            .unwrap_or_default()
            .into_iter()
            .filter(|i| i.status() != pb::IncidentStatus::Resolved)
            .map(|i| i.id)
            .collect();
        if open.is_empty() {
            narrator.timed(Tone::Good, "demo", "all is well again");
            return Ok(());
        }
        if Instant::now() > deadline {
            row.problem(format!("still open at the end: {}", open.join(", ")));
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
