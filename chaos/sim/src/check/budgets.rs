//! Invariant 12: plans in flight never exceed the budget, unknown ones count; a target is treated by
//! one plan at a time, left alone for its cooldown, and given up after so many attempts, whoever
//! leads.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Command, IncidentId, PlanId, Reply, Timestamp,
    manifest::{DEFAULT_TENANT, PolicySpec, Spec},
    plan::Plan,
    saga::SagaStatus,
    state::FreezeScope,
    symptom::Target,
};

use super::{Findings, Violation};
use crate::history::{Commit, Event, What};

#[derive(Debug)]
struct Known {
    incident: IncidentId,
    plan: Plan,
    begun: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Account {
    now: Timestamp,
    budget: u32,
    plans: BTreeMap<PlanId, Known>,
    /// Begun and not ended, or unknown and not settled by a human.
    flying: BTreeSet<PlanId>,
    ended: BTreeMap<Target, Timestamp>,
    /// Plans that did not help, since somebody last reopened the incident.
    failed: BTreeMap<IncidentId, u32>,
}

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(12, "budgets");
    let mut account = Account { budget: PolicySpec::default().max_in_flight, ..Account::default() };
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
        self.now = self.now.max(commit.entry.at);
        if commit.answer.is_ok() {
            self.admitted(commit, ms, found);
        }
        for (id, status) in &commit.moved {
            self.moved(*id, *status);
        }
    }

    fn admitted(&mut self, commit: &Commit, ms: u64, found: &mut Findings) {
        match (&commit.entry.command, &commit.answer) {
            (Command::ApplyManifest(apply), _) => {
                if let Spec::Policy(policy) = &apply.manifest.spec
                    && apply.manifest.metadata.tenant == DEFAULT_TENANT
                {
                    self.budget = policy.max_in_flight;
                }
            }
            (Command::AdoptDecision(adopt), Ok(Reply::Decided { plan: Some(id), .. })) => {
                let Some(plan) = adopt.proposal.plan.clone() else { return };
                let failed = self.failed.get(&adopt.incident).copied().unwrap_or_default();
                if failed >= plan.scope.max_attempts {
                    let text =
                        format!("{id} follows {failed} plans that did not help {}", adopt.incident);
                    found.add(ms, text);
                }
                let known = Known { incident: adopt.incident, plan, begun: false, ended: false };
                self.plans.insert(*id, known);
            }
            (Command::StartStep(start), Ok(Reply::Done)) => self.begin(start.plan, ms, found),
            (Command::ReopenIncident(note), _) => {
                self.failed.remove(&note.incident);
            }
            (Command::ResolveIncident(note), _) => {
                let plans = &self.plans;
                let settled = |id: &PlanId| {
                    plans
                        .get(id)
                        .is_some_and(|known| known.incident == note.incident && known.ended)
                };
                self.flying.retain(|id| !settled(id));
            }
            (Command::Unfreeze(FreezeScope::Target(target)), _) => {
                let plans = &self.plans;
                let settled = |id: &PlanId| {
                    plans
                        .get(id)
                        .is_some_and(|known| known.ended && known.plan.targets().contains(target))
                };
                self.flying.retain(|id| !settled(id));
            }
            _ => {}
        }
    }

    /// The first step of a plan.
    fn begin(&mut self, id: PlanId, ms: u64, found: &mut Findings) {
        let Some(known) = self.plans.get_mut(&id) else { return };
        if std::mem::replace(&mut known.begun, true) {
            return;
        }
        let plan = known.plan.clone();
        let others = self.flying.len();
        if u32::try_from(others).unwrap_or(u32::MAX) >= self.budget {
            found.add(
                ms,
                format!("{id} begins beside {others} others; the budget is {}", self.budget),
            );
        }
        let targets = plan.targets();
        for other in &self.flying {
            let Some(known) = self.plans.get(other) else { continue };
            if let Some(target) = known.plan.targets().intersection(&targets).next() {
                found.add(ms, format!("{id} begins on {target}, which {other} is treating"));
            }
        }
        for target in targets {
            let Some(ended) = self.ended.get(target) else { continue };
            if self.now < ended.plus(plan.scope.cooldown) {
                let since = self.now.since(*ended);
                found.add(ms, format!("{id} begins on {target}, treated {since} ago"));
            }
        }
        self.flying.insert(id);
    }

    fn moved(&mut self, id: PlanId, status: SagaStatus) {
        let Some(known) = self.plans.get_mut(&id) else { return };
        if !status.ended() || known.ended {
            return;
        }
        known.ended = true;
        if known.begun {
            let targets: Vec<Target> = known.plan.targets().into_iter().cloned().collect();
            self.ended.extend(targets.into_iter().map(|target| (target, self.now)));
            if status != SagaStatus::Succeeded {
                *self.failed.entry(known.incident).or_default() += 1;
            }
        }
        if status != SagaStatus::Unknown {
            self.flying.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn within_the_budget_is_fine_and_beyond_is_not() {
        let mut lab = Lab::new();
        lab.budget(1).adopt(7, 1).start(7, 0, 5).finish(7, 0, 5).moved(7, SagaStatus::Succeeded);
        lab.later(60_000).adopt_on(8, 1, "b").start(8, 0, 5);
        assert_eq!(check(&lab.events), []);
        lab.adopt_on(9, 1, "c").start(9, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn unknown_ones_count_until_a_human_settles_them() {
        let mut lab = Lab::new();
        lab.budget(1).adopt(7, 1).start(7, 0, 5).moved(7, SagaStatus::Unknown);
        lab.adopt_on(8, 1, "b").start(8, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn a_treated_or_cooling_target_is_left_alone() {
        let mut lab = Lab::new();
        lab.budget(9).adopt(7, 1).start(7, 0, 5).adopt(8, 1).start(8, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
        let mut lab = Lab::new();
        lab.adopt(7, 1).start(7, 0, 5).moved(7, SagaStatus::Succeeded).adopt(8, 1).start(8, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
