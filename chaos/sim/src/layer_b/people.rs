//! People at their consoles: they approve and reject, cancel, freeze, repair by hand and resolve, all
//! through the real control API; what they were told is held against the log like any other write.

use std::sync::atomic::Ordering;

use medic_proto::v1::{
    self as pb, approvals_client::ApprovalsClient, incidents_client::IncidentsClient,
    remediations_client::RemediationsClient, safety_client::SafetyClient,
};
use medic_state::{manifest::DEFAULT_TENANT, state::FreezeScope};
use tonic::{Status, transport::Channel};

use super::clients::Client;
use crate::coverage::Sometimes;

/// Approves and rejects, resolves what was handed over, cancels, freezes and lifts freezes.
pub(super) async fn people(mut ann: Client, mut ben: Client, mut olga: Client) {
    loop {
        olga.pause(500, 3_500).await;
        let (approver, other) =
            if olga.rng.chance(2, 3) { (&mut ann, &mut ben) } else { (&mut ben, &mut ann) };
        approver.approvals(other).await;
        olga.escalated().await;
        olga.under_way().await;
        olga.freezes().await;
    }
}

impl Client {
    /// Changes something at the console; a refusal is told and nothing more: the world has moved on.
    async fn order<F>(&mut self, what: &str, request: &str, attempt: impl Fn(Channel) -> F)
    where
        F: Future<Output = Result<Option<pb::Receipt>, Status>>,
    {
        if let Err(status) = self.change(what, request, attempt).await {
            self.stage.trace(format_args!("{what} refused: {}", status.message()));
        }
    }

    async fn approvals(&mut self, other: &mut Self) {
        let listed = self.call(|at| async move {
            ApprovalsClient::new(at).list_pending(pb::ListPendingRequest::default()).await
        });
        let Some(Ok(pending)) = listed.await else { return };
        for one in pending.into_inner().approvals {
            let (incident, plan_digest) = (one.incident, one.plan_digest);
            match self.rng.between(0, 9) {
                0..=4 => {
                    let request_id = self.request();
                    let ask = pb::ApproveRequest { incident, plan_digest, request_id };
                    let request = ask.request_id.clone();
                    let done = self.order("an approval", &request, |at| {
                        let ask = ask.clone();
                        async move {
                            Ok(ApprovalsClient::new(at).approve(ask).await?.into_inner().receipt)
                        }
                    });
                    done.await;
                }
                5 => {
                    let (request_id, reason) = (other.request(), "not now".to_owned());
                    let ask = pb::RejectRequest { incident, plan_digest, reason, request_id };
                    let request = ask.request_id.clone();
                    let done = other.order("a rejection", &request, |at| {
                        let ask = ask.clone();
                        async move {
                            Ok(ApprovalsClient::new(at).reject(ask).await?.into_inner().receipt)
                        }
                    });
                    done.await;
                }
                _ => {}
            }
        }
    }

    async fn listed(&mut self, status: &str) -> Vec<pb::IncidentSummary> {
        let ask = pb::ListIncidentsRequest {
            matchers: vec![format!("status=\"{status}\"")],
            ..pb::ListIncidentsRequest::default()
        };
        let listed = self.call(|at| {
            let ask = ask.clone();
            async move { IncidentsClient::new(at).list(ask).await }
        });
        match listed.await {
            Some(Ok(listed)) => listed.into_inner().incidents,
            Some(Err(_)) | None => Vec::new(),
        }
    }

    async fn escalated(&mut self) {
        for one in self.listed("escalated").await {
            if !self.rng.chance(1, 4) {
                continue;
            }
            self.stage.oracle.recorder.reached(Sometimes::Escalated);
            if let Some(target) = &one.target {
                self.stage.fleet.repair(&target.instance);
            }
            let (id, note, request_id) = (one.id, "by hand".to_owned(), self.request());
            let ask = pb::ResolveIncidentRequest { id, note, request_id };
            let request = ask.request_id.clone();
            let done = self.order("a resolution", &request, |at| {
                let ask = ask.clone();
                async move { Ok(IncidentsClient::new(at).resolve(ask).await?.into_inner().receipt) }
            });
            done.await;
        }
    }

    /// Now and then somebody stops what Medic does.
    async fn under_way(&mut self) {
        if !self.rng.chance(1, 12) {
            return;
        }
        let all = self.listed("remediating").await;
        let Some(one) = self.rng.pick(&all) else { return };
        let (id, note, request_id) = (one.id.clone(), "leave it".to_owned(), self.request());
        let ask = pb::CancelRemediationRequest { id, note, request_id };
        let request = ask.request_id.clone();
        let done = self.order("a cancellation", &request, |at| {
            let ask = ask.clone();
            async move { Ok(RemediationsClient::new(at).cancel(ask).await?.into_inner().receipt) }
        });
        done.await;
    }

    /// Services that people have frozen.
    fn frozen(&self) -> Vec<String> {
        self.stage.oracle.look(|state| {
            let scopes = state.freezes.keys().filter_map(|scope| match scope {
                FreezeScope::Service { service, .. } => Some(service.clone()),
                _ => None,
            });
            scopes.collect()
        })
    }

    /// A freeze holds steps back for as long as it stands: when the faults are over, people lift theirs.
    async fn freezes(&mut self) {
        let over = self.stage.asked.load(Ordering::Acquire);
        let services = if over { self.frozen() } else { self.stage.fleet.services() };
        let Some(service) = self.rng.pick(&services).cloned() else { return };
        let scope = pb::freeze_scope::Scope::Service(pb::ServiceScope {
            tenant: DEFAULT_TENANT.to_owned(),
            service,
        });
        let (scope, request_id) = (Some(pb::FreezeScope { scope: Some(scope) }), self.request());
        let request = request_id.clone();
        if over || self.rng.chance(1, 3) {
            let ask = pb::UnfreezeRequest { scope, request_id };
            let done = self.order("an unfreeze", &request, |at| {
                let ask = ask.clone();
                async move { Ok(SafetyClient::new(at).unfreeze(ask).await?.into_inner().receipt) }
            });
            done.await;
        } else if self.rng.chance(1, 4) {
            let reason = "a deploy".to_owned();
            let ask = pb::FreezeRequest { scope, reason, until: None, request_id };
            let done = self.order("a freeze", &request, |at| {
                let ask = ask.clone();
                async move { Ok(SafetyClient::new(at).freeze(ask).await?.into_inner().receipt) }
            });
            done.await;
        }
    }
}
