//! What people do while a campaign runs, and after it until nothing waits for them: they answer
//! every plan that asks for approval, and close what was handed to them.
//!
//! They go by the list of pending approvals and not by incidents: a plan can wait while its
//! incident says something else for a moment, and nobody else would ever answer it.

use std::time::Duration;

use medic_proto::v1 as pb;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::clients::Desk;
use crate::harness::{Client, Dialer};

/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// An admin who looks and closes, and somebody on call who answers.
#[derive(Debug)]
pub(super) struct People {
    desk: Desk,
    oncall: Dialer,
    chance: StdRng,
    client: Option<Client>,
}

impl People {
    pub(super) fn new(desk: Desk, oncall: Dialer, seed: u64) -> Self {
        let chance = StdRng::seed_from_u64(seed ^ 0x7065_6f70_6c65);
        Self { desk, oncall, chance, client: None }
    }

    /// A node that answers, tried in an order that is drawn.
    async fn connected(&mut self) -> Option<&mut Client> {
        if self.client.is_none() {
            let nodes = self.desk.dialer.nodes();
            let at = self.chance.random_range(0..nodes.len().max(1));
            self.client = self.desk.dialer.dial(*nodes.get(at)?).await.ok();
        }
        self.client.as_mut()
    }

    /// Incidents that are not resolved; nothing, when no node says.
    pub(super) async fn look(&mut self) -> Option<Vec<pb::IncidentSummary>> {
        let matchers = vec!["status!=\"resolved\"".to_owned()];
        let request = pb::ListIncidentsRequest { matchers, page_size: 500, ..Default::default() };
        let mut incidents = self.connected().await?.incidents();
        let listed = tokio::time::timeout(PATIENCE, incidents.list(request)).await;
        if let Ok(Ok(listed)) = listed {
            return Some(listed.into_inner().incidents);
        }
        self.client = None;
        None
    }

    /// Answers what waits, and closes what was escalated.
    pub(super) async fn tend(&mut self, open: &[pb::IncidentSummary]) {
        for incident in open {
            self.desk.opened(&incident.id);
            if incident.status() == pb::IncidentStatus::Escalated {
                self.close(&incident.id).await;
            }
        }
        for pending in self.pending().await.unwrap_or_default() {
            self.answer(&pending).await;
        }
    }

    /// Plans that wait, oldest first.
    async fn pending(&mut self) -> Option<Vec<pb::PendingApproval>> {
        let request = pb::ListPendingRequest { page_size: 500, ..Default::default() };
        let mut approvals = self.connected().await?.approvals();
        let listed = tokio::time::timeout(PATIENCE, approvals.list_pending(request)).await;
        Some(listed.ok()?.ok()?.into_inner().approvals)
    }

    /// Approves a plan, or (one in eight) rejects it.
    async fn answer(&mut self, pending: &pb::PendingApproval) {
        let nodes = self.oncall.nodes();
        let at = self.chance.random_range(0..nodes.len().max(1));
        let reject = self.chance.random_ratio(1, 8);
        let Some(node) = nodes.get(at) else { return };
        let Ok(mut oncall) = self.oncall.dial(*node).await else { return };
        let (incident, plan_digest) = (pending.incident.clone(), pending.plan_digest.clone());
        let mut approvals = oncall.approvals();
        let answered = async {
            if reject {
                let reason = "not today".to_owned();
                let request =
                    pb::RejectRequest { incident, plan_digest, reason, ..Default::default() };
                return approvals.reject(request).await.map(drop);
            }
            let request = pb::ApproveRequest { incident, plan_digest, ..Default::default() };
            approvals.approve(request).await.map(drop)
        };
        // Unanswered: it still waits at the next look, or does not.
        if let Ok(Err(status)) = tokio::time::timeout(PATIENCE, answered).await {
            tracing::debug!(%status, plan = pending.plan, "not answered this time");
        }
    }

    async fn close(&mut self, id: &str) {
        let note = "looked at by hand".to_owned();
        let request = pb::ResolveIncidentRequest { id: id.to_owned(), note, ..Default::default() };
        let Some(client) = self.connected().await else { return };
        let mut incidents = client.incidents();
        let closed = tokio::time::timeout(PATIENCE, incidents.resolve(request)).await;
        if !matches!(closed, Ok(Ok(_))) {
            tracing::debug!(id, "not closed this time");
        }
    }
}
