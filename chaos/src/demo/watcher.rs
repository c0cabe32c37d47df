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

/// What is known of the incident being followed.
#[derive(Default)]
struct Follow {
    incident: Option<String>,
    /// Timeline lines told so far, by incident: index and text.
    told: BTreeSet<(String, u64, String)>,
    leader_killed: Option<u64>,
    approved: bool,
}

/// Breaks something, and follows what Medic makes of it.
pub(super) async fn play(
    stage: &mut Stage,
    narrator: &Narrator,
    fault: Fault,
) -> anyhow::Result<Row> {
    let known = incidents(stage).await?.into_iter().map(|i| i.id).collect::<BTreeSet<_>>();
    let starts: Vec<_> =
        stage.fleet.of(fault.service()).map(|i| (i.clone(), starts_of(i))).collect();
    narrator.restart_clock();
    let began_ms = wall_ms();
    fault.inject(&stage.fleet).await?;
    narrator.timed(Tone::Demo, "demo", "broken");
    let deadline = Instant::now() + PATIENCE;
    let mut follow = Follow::default();
    let mut last = None;
    while Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
        // While a leader is being lost, a call may fail: look again.
        let Ok(seen) = look(stage, narrator, fault, &known, &mut follow).await else { continue };
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
    if fault == Fault::LeaderLost {
        check_once(&starts, &mut row, narrator);
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
        follow.approved = approve(stage, narrator, &explained).await?;
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

async fn approve(
    stage: &Stage,
    narrator: &Narrator,
    explained: &pb::ExplainIncidentResponse,
) -> anyhow::Result<bool> {
    let Some(incident) = &explained.incident else { return Ok(false) };
    if incident.status() != pb::IncidentStatus::AwaitingApproval {
        return Ok(false);
    }
    let plan = explained.remediations.last().context("a plan that waits for approval")?;
    let command = format!("medic approve {}", incident.id);
    narrator.timed(Tone::Demo, "demo", &format!("a human looks at it and types: {command}"));
    let request = pb::ApproveRequest {
        incident: incident.id.clone(),
        plan_digest: plan.digest.clone(),
        ..Default::default()
    };
    let mut client = stage.cluster()?.client("oncall").await?;
    client.approvals().approve(request).await?;
    Ok(true)
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
        Fault::DependencyDown => {
            let grouped = incident.symptoms.iter().filter(|s| s.grouped).count();
            if grouped == 0 {
                row.problem("no symptom of a dependent was grouped under it".to_owned());
            }
        }
        _ => {}
    }
}

/// Each instance was restarted exactly once although two leaders ordered it.
fn check_once(before: &[(SampleInstance, usize)], row: &mut Row, narrator: &Narrator) {
    for (instance, starts) in before {
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
