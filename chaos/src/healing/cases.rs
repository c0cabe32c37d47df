//! What Medic made of it: its incidents with their decisions and plans, gathered while they happen.
//!
//! Closed incidents leave the nodes' memory in time, and a leader may be dead at any moment: so the
//! desk looks every second and keeps what it saw last.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use medic_proto::v1 as pb;
use serde::Serialize;

use crate::harness::Dialer;

/// Between looks.
const LOOK: Duration = Duration::from_secs(1);
/// One look may take this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// A plan, as it ended.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) playbook: String,
    /// As in the API: `succeeded`, `rolled-back`, …
    pub(super) status: String,
    pub(super) started_ms: Option<u64>,
    pub(super) ended_ms: Option<u64>,
    pub(super) reason: String,
    /// What it did, where it was begun.
    pub(super) acts: Vec<Act>,
}

/// A step of a plan that was begun.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Act {
    pub(super) instance: String,
    pub(super) began_ms: u64,
}

impl Plan {
    /// Whether it acted, and has come to an end: `Some(true)` when it was verified.
    pub(super) fn outcome(&self) -> Option<bool> {
        match self.status.as_str() {
            "succeeded" => Some(true),
            "rolled-back" | "failed" | "unknown" => Some(false),
            _ => None,
        }
    }
}

/// A symptom of an incident.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Seen {
    pub(super) service: String,
    pub(super) instance: String,
    pub(super) kind: String,
    pub(super) first_ms: u64,
    pub(super) grouped: bool,
}

/// One incident.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Case {
    pub(super) id: String,
    pub(super) service: String,
    pub(super) instance: String,
    /// Of the first decision.
    pub(super) class: String,
    pub(super) reasons: Vec<String>,
    /// Status, in words.
    pub(super) status: String,
    pub(super) resolution: String,
    pub(super) manual: bool,
    pub(super) escalation: String,
    pub(super) merged_into: String,
    pub(super) opened_ms: u64,
    pub(super) decided_ms: Option<u64>,
    pub(super) resolved_ms: Option<u64>,
    pub(super) symptoms: Vec<Seen>,
    pub(super) plans: Vec<Plan>,
    pub(super) timeline: Vec<String>,
}

impl Case {
    pub(super) const fn closed(&self) -> bool {
        self.resolved_ms.is_some()
    }
}

/// Reads and keeps incidents.
#[derive(Debug)]
pub(super) struct Desk {
    dialer: Dialer,
    cases: Mutex<BTreeMap<String, (Option<prost_types::Timestamp>, Case)>>,
}

impl Desk {
    pub(super) fn new(dialer: Dialer) -> Self {
        Self { dialer, cases: Mutex::default() }
    }

    /// Looks again and again, for ever.
    pub(super) async fn watch(&self) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match tokio::time::timeout(PATIENCE, self.look()).await {
                Ok(Ok(())) => {}
                // A leader has died, perhaps: the next look will tell.
                Ok(Err(error)) => tracing::debug!("looking at incidents: {error:#}"),
                Err(_) => tracing::debug!("looking at incidents: no answer in time"),
            }
        }
    }

    /// Everything seen so far, by number.
    pub(super) fn cases(&self) -> Vec<Case> {
        let cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Case> = cases.values().map(|(_, case)| case.clone()).collect();
        all.sort_by_key(|case| case.opened_ms);
        all
    }

    /// One look at all incidents that have changed.
    pub(super) async fn look(&self) -> anyhow::Result<()> {
        let mut client = self.client().await?;
        let request = pb::ListIncidentsRequest { page_size: 500, ..Default::default() };
        let listed = client.incidents().list(request).await?.into_inner().incidents;
        for summary in listed {
            let known = {
                let cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner);
                cases.get(&summary.id).is_some_and(|(at, case)| {
                    *at == summary.updated_at && (case.closed() || summary.resolved_at.is_none())
                })
            };
            // What is open changes in ways that its revision does not tell: plans move.
            if known && summary.resolved_at.is_some() {
                continue;
            }
            let request = pb::ExplainIncidentRequest { id: summary.id.clone() };
            let explained = client.incidents().explain(request).await?.into_inner();
            if let Some(case) = read(&explained) {
                let mut cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner);
                let first = cases.get(&summary.id).map(|(_, known)| known.class.clone());
                let class = first.filter(|class| !class.is_empty()).unwrap_or(case.class.clone());
                let case = Case { class, ..case };
                cases.insert(summary.id.clone(), (summary.updated_at, case));
            }
        }
        Ok(())
    }

    async fn client(&self) -> anyhow::Result<crate::harness::Client> {
        let mut last = None;
        for node in self.dialer.nodes() {
            match self.dialer.dial(node).await {
                Ok(client) => return Ok(client),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("there are no nodes")))
    }

    /// A person has mended a service: Medic is to try again what it had given up, and so starts what
    /// does not run.
    pub(super) async fn person_came(&self, service: &str) {
        for case in
            self.cases().into_iter().filter(|case| !case.closed() && case.service == service)
        {
            let request = pb::ReopenIncidentRequest {
                id: case.id.clone(),
                note: "the cause is mended".to_owned(),
                ..Default::default()
            };
            let reopened = async {
                anyhow::Ok(self.client().await?.incidents().reopen(request).await?.into_inner())
            };
            if let Err(error) = reopened.await {
                tracing::debug!("reopening {}: {error:#}", case.id);
            }
        }
    }

    /// A person closes what is left of the incidents whose faults are over. Gives how many there were;
    /// what is still being treated cannot be closed, and stays as it is.
    pub(super) async fn close_rest(&self) -> usize {
        let open: Vec<Case> = self.cases().into_iter().filter(|case| !case.closed()).collect();
        for case in &open {
            let request = pb::ResolveIncidentRequest {
                id: case.id.clone(),
                note: "nothing is left of it".to_owned(),
                ..Default::default()
            };
            let closed = async {
                anyhow::Ok(self.client().await?.incidents().resolve(request).await?.into_inner())
            };
            if let Err(error) = closed.await {
                let (id, status, plans) = (&case.id, &case.status, &case.plans);
                tracing::warn!(id, status, ?plans, timeline = ?case.timeline, "not closed: {error:#}");
            }
        }
        open.len()
    }
}

fn ms(at: &Option<prost_types::Timestamp>) -> Option<u64> {
    let at = at.as_ref()?;
    let millis = at.seconds.saturating_mul(1000) + i64::from(at.nanos) / 1_000_000;
    u64::try_from(millis).ok()
}

/// `INCIDENT_STATUS_AWAITING_APPROVAL` → `awaiting-approval`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', "-")
}

fn read(explained: &pb::ExplainIncidentResponse) -> Option<Case> {
    let incident = explained.incident.as_ref()?;
    let target = incident.target.clone().unwrap_or_default();
    let decision = incident.decision.clone().unwrap_or_default();
    let seen = |symptom: &pb::Symptom| {
        let target = symptom.target.clone().unwrap_or_default();
        Seen {
            service: target.service,
            instance: target.instance,
            kind: symptom.kind.clone(),
            first_ms: ms(&symptom.first_at).unwrap_or(0),
            grouped: symptom.grouped,
        }
    };
    let act = |step: &pb::Step| {
        let instance = step.target.as_ref()?.instance.clone();
        Some(Act { instance, began_ms: ms(&step.started_at)? })
    };
    let plan = |plan: &pb::Remediation| Plan {
        id: plan.id.clone(),
        playbook: plan.playbook.clone(),
        status: word(plan.status().as_str_name(), "REMEDIATION_STATUS_"),
        started_ms: ms(&plan.started_at),
        ended_ms: ms(&plan.ended_at),
        reason: plan.reason.clone(),
        acts: plan.steps.iter().filter_map(act).collect(),
    };
    Some(Case {
        id: incident.id.clone(),
        service: target.service,
        instance: target.instance,
        class: decision.class,
        reasons: decision.class_reasons,
        status: word(incident.status().as_str_name(), "INCIDENT_STATUS_"),
        resolution: word(incident.resolution().as_str_name(), "RESOLUTION_"),
        manual: incident.manual,
        escalation: incident.escalation.clone(),
        merged_into: incident.merged_into.clone(),
        opened_ms: ms(&incident.opened_at)?,
        decided_ms: ms(&incident.decided_at),
        resolved_ms: ms(&incident.resolved_at),
        symptoms: incident.symptoms.iter().map(seen).collect(),
        plans: explained.remediations.iter().map(plan).collect(),
        timeline: incident.timeline.iter().map(|item| item.text.clone()).collect(),
    })
}
