//! Rules of approval, asked when it is given and again when it is used.

use crate::{
    applied::Refusal,
    ids::{Digest, IncidentId},
    law::{adopt::unchanged, context::actor},
    rbac::{Permission, Principal},
    saga::{Saga, SagaStatus},
    state::State,
};

impl State {
    /// The plan that people are asked about, if it is the one that was seen.
    pub(super) fn awaiting(&self, id: IncidentId, seen: Digest) -> Result<&Saga, Refusal> {
        let saga = self
            .saga_of(id)
            .filter(|saga| saga.status == SagaStatus::AwaitingApproval)
            .ok_or_else(|| Refusal::IllegalState(format!("no plan of {id} waits for approval")))?;
        if saga.digest != seen {
            let text = format!(
                "the plan in force is {} ({}), not the one that was seen ({}): look again",
                saga.id,
                saga.digest.short(),
                seen.short()
            );
            return Err(Refusal::Conflict(text));
        }
        Ok(saga)
    }

    /// Refuses a user who may not approve this plan.
    pub(super) fn may_approve(&self, saga: &Saga, user: &str) -> Result<(), Refusal> {
        let principal = Principal::user(user);
        let rules = &saga.plan.approval;
        if !self.allows(&principal, Permission::Approve, &saga.tenant) {
            return Err(Refusal::denied(&principal, Permission::Approve, &saga.tenant));
        }
        if !rules.roles.is_empty() && !self.holds_role(user, &rules.roles, &saga.tenant) {
            return Err(Refusal::Denied {
                principal: principal.to_string(),
                permission: format!("approve as {}", rules.roles.join(" or ")),
                tenant: saga.tenant.clone(),
            });
        }
        let author = unchanged(self, &saga.tenant, &saga.plan).map(|stored| stored.by.as_str());
        // Causes are written down as actors are.
        let user = actor(&principal);
        let caused =
            saga.requested_by.as_deref() == Some(user.as_str()) || author == Some(user.as_str());
        if rules.forbid_self && caused {
            return Err(Refusal::Denied {
                principal: principal.to_string(),
                permission: "approve what they caused".to_owned(),
                tenant: saga.tenant.clone(),
            });
        }
        Ok(())
    }

    /// Approvals that count now, and how many are needed.
    pub(super) fn approvals_of(&self, saga: &Saga) -> (u32, u32) {
        let counting =
            saga.approvals.keys().filter(|user| self.may_approve(saga, user).is_ok()).count();
        (u32::try_from(counting).unwrap_or(u32::MAX), saga.plan.approval.min_approvers.max(1))
    }
}
