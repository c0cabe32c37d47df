//! `medic.v1.Remediations`.

use medic_proto::v1::{self as pb, remediations_server::Remediations};
use medic_raft::{About, LedgerExt as _};
use medic_state::{Command, PlanId, saga::Saga};
use tonic::{Request, Response, Status};

use super::{
    Control,
    call::{answer, grant_of, id},
    errors::not_found,
    page::{Labels, Paging, Sight, labels},
};
use crate::convert;

fn saga_labels(saga: &Saga) -> Labels {
    let service = saga.plan.steps.first().map(|step| step.target.service.clone());
    let verdict = saga.verdict.as_ref().map(|verdict| format!("{:?}", verdict.value));
    labels([
        ("tenant", saga.tenant.clone()),
        ("service", service.unwrap_or_default()),
        ("incident", saga.incident.to_string()),
        ("playbook", saga.plan.playbook.clone()),
        ("status", saga.status.to_string()),
        ("verdict", verdict.unwrap_or_default().to_lowercase()),
    ])
}

#[tonic::async_trait]
impl Remediations for Control {
    async fn list(
        &self,
        request: Request<pb::ListRemediationsRequest>,
    ) -> Result<Response<pb::ListRemediationsResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let before = paging.after::<PlanId>()?.unwrap_or(PlanId(u64::MAX));
        self.view(&request, |state, grant| {
            let sight = Sight::of(state, grant, &ask.tenant)?;
            let items = state
                .sagas
                .range(..before)
                .rev()
                .filter(|(_, saga)| sight.sees(&saga.tenant))
                .filter(|(_, saga)| paging.matches(|| saga_labels(saga)))
                .map(|(id, saga)| (id.to_string(), saga));
            let (remediations, next_page_token) = paging.cut(items, convert::remediation_summary);
            Ok(pb::ListRemediationsResponse { remediations, next_page_token })
        })
        .await
    }

    async fn get(
        &self,
        request: Request<pb::GetRemediationRequest>,
    ) -> Result<Response<pb::GetRemediationResponse>, Status> {
        let id: PlanId = id(&request.get_ref().id)?;
        let grant = grant_of(&request)?;
        self.catch_up(&request).await?;
        let (alive, index) = self.ledger.read(|state| {
            let saga = state.sagas.get(&id);
            let shown = saga
                .map(|saga| grant.opens(state, &saga.tenant).then(|| convert::remediation(saga)));
            (shown, state.applied)
        });
        let remediation = match alive {
            Some(shown) => shown.ok_or_else(|| not_found(id))?,
            None => {
                self.archived_saga(id, |tenant| {
                    self.ledger.read(|state| grant.opens(state, tenant))
                })
                .await?
            }
        };
        Ok(answer(pb::GetRemediationResponse { remediation: Some(remediation) }, index))
    }

    async fn cancel(
        &self,
        request: Request<pb::CancelRemediationRequest>,
    ) -> Result<Response<pb::CancelRemediationResponse>, Status> {
        let ask = request.get_ref();
        let grant = grant_of(&request)?;
        // The law cancels by incident; people may name the plan.
        let incident = match ask.id.parse::<PlanId>() {
            Ok(plan) if ask.id.to_ascii_uppercase().starts_with("PLAN-") => {
                self.fresh(|state| {
                    let saga = state.sagas.get(&plan).ok_or_else(|| not_found(plan))?;
                    grant.check_seen(state, &saga.tenant, plan)?;
                    Ok(saga.incident.to_string())
                })
                .await?
            }
            _ => ask.id.clone(),
        };
        let command = |note| Command::CancelRemediation(note);
        let receipt = self.say(&request, &incident, &ask.note, &ask.request_id, command).await?;
        Ok(Response::new(pb::CancelRemediationResponse { receipt: Some(receipt) }))
    }
}

impl Control {
    /// A saga whose incident has left the live state.
    async fn archived_saga(
        &self,
        id: PlanId,
        visible: impl Fn(&str) -> bool + Send,
    ) -> Result<pb::Remediation, Status> {
        let closed = self.archived(About::Plan(id)).await?;
        let saga = closed.as_ref().and_then(|closed| closed.sagas.iter().find(|s| s.id == id));
        let saga = saga.filter(|saga| visible(&saga.tenant)).ok_or_else(|| not_found(id))?;
        Ok(convert::remediation(saga))
    }
}
