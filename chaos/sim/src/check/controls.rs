//! The controls in the hands of people, over every change of leader: an approval counts only as long
//! as the approver may give it, and nothing starts on what is frozen. Counted to invariant 12.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Command, Digest, IncidentId, PlanId, Reply,
    decision::Route,
    manifest::{Kind, Spec, Subject},
    plan::{Direction, Plan},
    saga::SagaStatus,
    state::FreezeScope,
    symptom::Target,
};

use super::{Findings, Violation};
use crate::history::{Commit, Event, What};

#[derive(Debug)]
struct Known {
    plan: Plan,
    incident: IncidentId,
    asks: bool,
    begun: bool,
    approved: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Account {
    plans: BTreeMap<PlanId, Known>,
    digests: BTreeMap<(IncidentId, Digest), PlanId>,
    /// Binding to role and users.
    bindings: BTreeMap<String, (String, BTreeSet<String>)>,
    frozen: BTreeSet<FreezeScope>,
    /// Targets whose outcome is unknown, by plan.
    unknown: BTreeMap<PlanId, Target>,
}

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(12, "controls");
    let mut account = Account::default();
    for Event { ms, what } in events {
        if let What::Committed(commit) = what
            && !commit.repeated
        {
            account.take(commit, *ms, &mut found);
        }
    }
    found.done()
}

impl Account {
    fn take(&mut self, commit: &Commit, ms: u64, found: &mut Findings) {
        if commit.answer.is_err() {
            return;
        }
        match (&commit.entry.command, &commit.answer) {
            (Command::ApplyManifest(apply), _) => {
                if let Spec::RoleBinding(binding) = &apply.manifest.spec {
                    let users = binding.subjects.iter().map(|subject| match subject {
                        Subject::User(user) => user.clone(),
                    });
                    let held = (binding.role.clone(), users.collect());
                    self.bindings.insert(apply.manifest.metadata.name.clone(), held);
                }
            }
            (Command::DeleteManifest(key), _) if key.kind == Kind::RoleBinding => {
                self.bindings.remove(&key.name);
            }
            (Command::AdoptDecision(adopt), Ok(Reply::Decided { plan: Some(id), route })) => {
                let Some(plan) = adopt.proposal.plan.clone() else { return };
                self.digests.insert((adopt.incident, plan.digest()), *id);
                let asks = *route == Route::RecommendWithApproval;
                let (incident, approved) = (adopt.incident, BTreeSet::new());
                let known = Known { plan, incident, asks, begun: false, approved };
                self.plans.insert(*id, known);
            }
            (Command::Approve(approve), Ok(Reply::Done)) => {
                let plan = self.digests.get(&(approve.incident, approve.plan_digest));
                if let Some(known) = plan.and_then(|plan| self.plans.get_mut(plan)) {
                    known.approved.insert(commit.entry.principal.name.clone());
                }
            }
            (Command::Freeze(freeze), _) => {
                self.frozen.insert(freeze.scope.clone());
            }
            (Command::Unfreeze(scope), _) => {
                self.frozen.remove(scope);
                if let FreezeScope::Target(target) = scope {
                    self.unknown.retain(|_, frozen| frozen != target);
                }
            }
            (Command::ResolveIncident(note), _) => {
                let plans = &self.plans;
                let of = |plan: &PlanId| plans.get(plan).map(|known| known.incident);
                self.unknown.retain(|plan, _| of(plan) != Some(note.incident));
            }
            (Command::StartStep(start), Ok(Reply::Done))
                if start.direction == Direction::Forward && !start.resume =>
            {
                let wrong = self.may_start(start.plan, start.step);
                wrong.into_iter().for_each(|text| found.add(ms, text));
            }
            (Command::FinishStep(finish), Ok(Reply::Done))
                if commit.moved.contains(&(finish.plan, SagaStatus::Unknown)) =>
            {
                let at = usize::try_from(finish.step).unwrap_or(usize::MAX);
                let known = self.plans.get(&finish.plan);
                if let Some(step) = known.and_then(|known| known.plan.steps.get(at)) {
                    self.unknown.insert(finish.plan, step.target.clone());
                }
            }
            _ => {}
        }
    }

    fn may_start(&mut self, id: PlanId, step: u32) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some(known) = self.plans.get_mut(&id) else { return wrong };
        let rules = &known.plan.approval;
        if !std::mem::replace(&mut known.begun, true) && known.asks {
            let holds = |user: &&String| {
                self.bindings
                    .values()
                    .any(|(role, users)| rules.roles.contains(role) && users.contains(*user))
            };
            let given = known.approved.iter().filter(holds).count();
            if given < usize::try_from(rules.min_approvers.max(1)).unwrap_or(usize::MAX) {
                wrong.push(format!("{id} begins with {given} approvals that count"));
            }
        }
        let at = usize::try_from(step).unwrap_or(usize::MAX);
        let Some(step) = known.plan.steps.get(at) else { return wrong };
        let target = &step.target;
        let covers = |scope: &&FreezeScope| match scope {
            FreezeScope::Global => true,
            FreezeScope::Tenant(tenant) => *tenant == target.tenant,
            FreezeScope::Region(_) => false,
            FreezeScope::Service { tenant, service } => {
                *tenant == target.tenant && *service == target.service
            }
            FreezeScope::Playbook { tenant, playbook } => {
                *tenant == target.tenant && *playbook == known.plan.playbook
            }
            FreezeScope::Target(frozen) => frozen == target,
        };
        if let Some(scope) = self.frozen.iter().find(covers) {
            wrong.push(format!("step {at} of {id} starts on {target}, and {scope} is frozen"));
        }
        if let Some((plan, _)) = self.unknown.iter().find(|(_, frozen)| *frozen == target) {
            wrong.push(format!("{id} starts on {target}, which {plan} left unknown"));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn an_approval_counts_while_the_role_is_held() {
        let mut lab = Lab::new();
        lab.approver("ann").adopt_asking(7).approve(7, "ann").start(7, 0, 5);
        assert_eq!(check(&lab.events), []);
        let mut lab = Lab::new();
        lab.approver("ann").adopt_asking(7).approve(7, "ann").revoke("ann").start(7, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
        let mut lab = Lab::new();
        lab.adopt_asking(7).start(7, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn what_is_frozen_is_left_alone() {
        let mut lab = Lab::new();
        lab.adopt(7, 1).freeze(FreezeScope::Global).start(7, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
