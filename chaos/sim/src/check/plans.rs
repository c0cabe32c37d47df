//! Invariant 6: what is carried out is the plan that was committed, from the playbook that was in
//! force, whoever leads by then.

use std::collections::BTreeMap;

use medic_state::{
    Command, Digest, PlanId, Reply,
    manifest::Kind,
    plan::{Direction, Plan},
};

use super::{Findings, Violation};
use crate::history::{Commit, Event, Sent, What};

type Playbooks = BTreeMap<(String, String), Digest>;

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(6, "plans");
    let mut playbooks = Playbooks::new();
    let mut plans: BTreeMap<PlanId, (Plan, bool)> = BTreeMap::new();
    for Event { ms, what } in events {
        let wrong = match what {
            What::Committed(commit) if !commit.repeated => take(commit, &mut playbooks, &mut plans),
            What::Sent(sent) => as_planned(sent, &plans),
            _ => None,
        };
        if let Some(text) = wrong {
            found.add(*ms, text);
        }
    }
    found.done()
}

fn take(
    commit: &Commit,
    playbooks: &mut Playbooks,
    plans: &mut BTreeMap<PlanId, (Plan, bool)>,
) -> Option<String> {
    match (&commit.entry.command, &commit.answer) {
        (Command::ApplyManifest(apply), Ok(_)) => {
            let key = apply.manifest.key();
            if key.kind == Kind::Playbook {
                playbooks.insert((key.tenant, key.name), apply.manifest.digest());
            }
            None
        }
        (Command::AdoptDecision(adopt), Ok(Reply::Decided { plan: Some(id), .. })) => {
            let plan = adopt.proposal.plan.clone()?;
            let wrong = pinned(playbooks, &plan, *id);
            plans.insert(*id, (plan, false));
            wrong
        }
        (Command::StartStep(start), Ok(Reply::Done)) => {
            let (plan, begun) = plans.get_mut(&start.plan)?;
            if std::mem::replace(begun, true) {
                return None;
            }
            pinned(playbooks, plan, start.plan)
        }
        _ => None,
    }
}

fn pinned(playbooks: &Playbooks, plan: &Plan, id: PlanId) -> Option<String> {
    let tenant = plan.steps.first().map(|step| step.target.tenant.clone())?;
    let now = playbooks.get(&(tenant, plan.playbook.clone()))?;
    (*now != plan.playbook_digest)
        .then(|| format!("{id} begins from a version of {} that is not in force", plan.playbook))
}

fn as_planned(sent: &Sent, plans: &BTreeMap<PlanId, (Plan, bool)>) -> Option<String> {
    let key = sent.key;
    let Some((plan, _)) = plans.get(&key.plan) else {
        return Some(format!("{key} was sent, and there is no such plan"));
    };
    let step = usize::try_from(key.step).ok().and_then(|at| plan.steps.get(at));
    let Some(step) = step else {
        return Some(format!("{key} was sent, and its plan has no such step"));
    };
    let action = match key.direction {
        Direction::Forward => Some(&step.action),
        Direction::Undo => step.undo.as_ref(),
    };
    let as_planned = action.is_some_and(|action| action.name == sent.action);
    (!as_planned || step.target != sent.target).then(|| {
        format!("{key} was sent as {} to {}, which is not its plan", sent.action, sent.target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn as_planned_is_fine() {
        let mut lab = Lab::new();
        lab.fence(1, 5).adopt(7, 1).start(7, 0, 5).sent_step(1, 5, 7, 0);
        assert_eq!(check(&lab.events), []);
    }

    #[test]
    fn a_step_or_a_plan_that_was_never_committed_is_found() {
        let mut lab = Lab::new();
        lab.fence(1, 5).adopt(7, 1).sent_step(1, 5, 7, 1).sent_step(1, 5, 8, 0);
        assert_eq!(check(&lab.events).len(), 2);
    }
}
