//! `medic.v1.Approvals`.

use medic_proto::v1::{self as pb, approvals_server::Approvals};
use medic_state::{
    Command, Digest, IncidentId, PlanId, State,
    command::{Approve, Reject},
    incident::{Incident, IncidentStatus},
    saga::{Saga, SagaStatus},
};
use tonic::{Request, Response, Status};

use super::{
    Control,
    call::{grant_of, id},
    errors::invalid,
    incidents::incident_labels,
    page::{Paging, Sight},
};
use crate::convert;

/// Longest reason.
const REASON_MAX: usize = 4_096;

#[tonic::async_trait]
impl Approvals for Control {
    async fn list_pending(
        &self,
        request: Request<pb::ListPendingRequest>,
    ) -> Result<Response<pb::ListPendingResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let after = paging.after::<PlanId>()?.unwrap_or(PlanId(0));
        self.view(&request, |state, grant| {
            let sight = Sight::of(state, grant, &ask.tenant)?;
            let items = waiting(state)
                .filter(|(saga, _)| saga.id > after && sight.sees(&saga.tenant))
                .filter(|(saga, incident)| {
                    paging.matches(|| {
                        let mut labels = incident_labels(incident);
                        labels.insert("incident".to_owned(), incident.id.to_string());
                        labels.insert("playbook".to_owned(), saga.plan.playbook.clone());
                        labels
                    })
                })
                .map(|pair| (pair.0.id.to_string(), pair));
            let (approvals, next_page_token) =
                paging.cut(items, |(saga, incident)| pending(saga, incident));
            Ok(pb::ListPendingResponse { approvals, next_page_token })
        })
        .await
    }

    async fn approve(
        &self,
        request: Request<pb::ApproveRequest>,
    ) -> Result<Response<pb::ApproveResponse>, Status> {
        let grant = grant_of(&request)?;
        let ask = request.get_ref();
        let incident: IncidentId = id(&ask.incident)?;
        let plan_digest = digest(&ask.plan_digest)?;
        self.may(&grant, incident).await?;
        let command = Command::Approve(Approve { incident, plan_digest });
        medic_raft::crash_point!("approval_before_commit");
        let (_, receipt) = self.commit(&grant, &ask.request_id, command).await?;
        medic_raft::crash_point!("approval_after_commit");
        Ok(Response::new(pb::ApproveResponse { receipt: Some(receipt) }))
    }

    async fn reject(
        &self,
        request: Request<pb::RejectRequest>,
    ) -> Result<Response<pb::RejectResponse>, Status> {
        let grant = grant_of(&request)?;
        let ask = request.get_ref();
        let incident: IncidentId = id(&ask.incident)?;
        let plan_digest = digest(&ask.plan_digest)?;
        if ask.reason.len() > REASON_MAX {
            return Err(invalid(format!("a reason has at most {REASON_MAX} bytes")));
        }
        self.may(&grant, incident).await?;
        let reason = ask.reason.clone();
        let command = Command::Reject(Reject { incident, plan_digest, reason });
        let (_, receipt) = self.commit(&grant, &ask.request_id, command).await?;
        Ok(Response::new(pb::RejectResponse { receipt: Some(receipt) }))
    }
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|bad| {
        invalid(format!(
            "plan_digest: {bad}; it names the plan that was looked at (`medic describe`)"
        ))
    })
}

fn waiting(state: &State) -> impl Iterator<Item = (&Saga, &Incident)> {
    state
        .sagas
        .values()
        .filter(|saga| saga.status == SagaStatus::AwaitingApproval)
        .filter_map(|saga| Some((saga, state.incidents.get(&saga.incident)?)))
        .filter(|(_, incident)| incident.status == IncidentStatus::AwaitingApproval)
}

fn pending(saga: &Saga, incident: &Incident) -> pb::PendingApproval {
    let decision = incident.decision.as_ref();
    let fraction = |pick: fn(&medic_state::decision::Proposal) -> medic_state::Ppm| {
        decision.map_or(0.0, |decision| convert::fraction(pick(&decision.proposal)))
    };
    let step = |step: &medic_state::plan::PlannedStep| {
        format!("{}: {} on {}", step.name, step.action.name, step.target)
    };
    pb::PendingApproval {
        incident: incident.id.to_string(),
        plan: saga.id.to_string(),
        plan_digest: saga.digest.to_string(),
        tenant: saga.tenant.clone(),
        target: Some(convert::target(&incident.target)),
        severity: convert::severity(incident.severity).into(),
        class: decision.map(|d| d.proposal.class.clone()).unwrap_or_default(),
        playbook: saga.plan.playbook.clone(),
        risk: fraction(|proposal| proposal.risk),
        confidence: fraction(|proposal| proposal.confidence),
        reasons: decision.map(|d| d.route_reasons.clone()).unwrap_or_default(),
        approvals: convert::approvals(saga),
        rules: Some(convert::approval_rules(&saga.plan.approval)),
        until: saga.approval_until.map(convert::time),
        requested_by: saga.requested_by.clone().unwrap_or_default(),
        steps: saga.plan.steps.iter().map(step).collect(),
    }
}
