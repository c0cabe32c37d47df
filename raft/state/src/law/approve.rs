//! `Approve`: somebody agrees to a plan they saw.
//!
//! Bound to the plan's digest and to its time to live; different people; not its cause, where the
//! playbook forbids that; role and permission as of now, and as of its use once more.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::Approve,
    law::{adopt::admit_approved, context::Context, incidents::tell},
    state::State,
};

/// Approvals kept per plan.
const MAX_APPROVALS: usize = 64;

pub(super) fn apply(state: &mut State, context: &mut Context<'_>, command: &Approve) -> Answer {
    let id = command.incident;
    let saga = state.awaiting(id, command.plan_digest)?;
    let plan = saga.id;
    let user = context.principal.name.clone();
    if saga.approval_until.is_some_and(|until| until <= context.now) {
        return Err(Refusal::IllegalState(format!("the time to approve {plan} is over")));
    }
    state.may_approve(saga, &user)?;
    if saga.approvals.contains_key(&user) {
        return Ok(Reply::Noted(format!("{user} has approved {plan} before")));
    }
    if saga.approvals.len() >= MAX_APPROVALS {
        return Err(Refusal::Limit(format!("{plan} has {MAX_APPROVALS} approvals")));
    }
    if let Some(saga) = state.sagas.get_mut(&plan) {
        saga.approvals.insert(user.clone(), context.now);
    }
    state.mark_manual(id);
    let (given, needed) =
        state.sagas.get(&plan).map(|saga| state.approvals_of(saga)).unwrap_or_default();
    if let Ok(incident) = state.incident_mut(id) {
        tell(incident, context, format!("{user} approves {plan} ({given} of {needed})"));
    }
    if given >= needed {
        admit_approved(state, context, plan);
    }
    context.touched.insert(id);
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::{Command, Reject},
        ids::*,
        incident::IncidentStatus,
        law::tests::lab::*,
        manifest::*,
        plan::Direction,
        saga::SagaStatus,
        symptom::{Severity, Symptom},
    };

    /// A lab whose playbook asks; `ann`, `ben` and `cat` are approvers.
    fn asking(change: impl FnOnce(&mut ApprovalSpec)) -> (Lab, IncidentId, PlanId) {
        let mut lab = Lab::new();
        for user in ["ann", "ben", "cat"] {
            lab.apply(user, binding("approver", &[user]));
        }
        let mut spec = PlaybookSpec { mode: Mode::Approve, ..playbook() };
        change(&mut spec.approval);
        lab.apply("restart", Spec::Playbook(spec));
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        (lab, id, plan)
    }

    #[test]
    fn one_approval_starts_it_and_locks_its_targets() {
        let (mut lab, id, plan) = asking(|_| {});
        assert!(lab.start(plan, 0, Direction::Forward).is_err());
        lab.approve("ann", id).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Remediating);
        assert!(lab.incident(id).manual);
        assert_eq!(lab.state.locks.get(&target("api", "a")), Some(&plan));
        lab.run(plan, 0, done());
    }

    #[test]
    fn worse_trouble_takes_the_plan_back() {
        let (mut lab, id, plan) = asking(|approval| approval.min_approvers = 2);
        lab.approve("ann", id).unwrap();
        let beside = |kind: &str, severity| Symptom { severity, ..symptom("api", "a", kind) };
        lab.report_symptom(beside("anomaly", Severity::Info)).unwrap();
        assert_eq!(lab.saga(plan).status, SagaStatus::AwaitingApproval, "nothing that matters");
        let as_bad = lab.incident(id).severity;
        lab.report_symptom(beside("saturation", as_bad)).unwrap();
        assert_eq!(lab.saga(plan).status, SagaStatus::Dropped);
        assert_eq!(lab.status(id), IncidentStatus::Open);
        assert!(lab.owed().contains(&crate::Effect::Decide(id)));
        let next = lab.adopt(id, vec![step(&target("api", "a"))]);
        assert!(lab.saga(next).approvals.is_empty(), "who agreed to the other is asked again");
    }

    #[test]
    fn so_many_different_people_are_needed() {
        let (mut lab, id, _) = asking(|approval| approval.min_approvers = 2);
        lab.approve("ann", id).unwrap();
        assert!(matches!(lab.approve("ann", id), Ok(Reply::Noted(_))));
        assert_eq!(lab.status(id), IncidentStatus::AwaitingApproval);
        lab.approve("ben", id).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Remediating);
    }

    #[test]
    fn its_cause_may_not_approve() {
        let (mut lab, id, _) = asking(|_| {});
        // root applied the playbook.
        assert!(matches!(lab.approve("root", id), Err(Refusal::Denied { .. })));
        let (mut lab, id, _) = asking(|approval| approval.forbid_self = false);
        lab.approve("root", id).unwrap();

        // Whoever reopens is the cause of what follows.
        let (mut lab, id, _) = asking(|_| {});
        let digest = lab.saga(lab.incident(id).plan.unwrap()).digest;
        let reject = Reject { incident: id, plan_digest: digest, reason: "no".into() };
        lab.user("ben", Command::Reject(reject)).unwrap();
        lab.apply("operators", binding("operator", &["ann"]));
        lab.user("ann", Command::ReopenIncident(Lab::note(id))).unwrap();
        lab.adopt(id, vec![step(&target("api", "a"))]);
        assert!(matches!(lab.approve("ann", id), Err(Refusal::Denied { .. })));
        lab.approve("ben", id).unwrap();
    }

    #[test]
    fn a_cause_that_is_named_like_a_node_may_not_approve_either() {
        let mut lab = Lab::new();
        lab.apply("nodes", binding("admin", &["node-7"]));
        let spec = PlaybookSpec { mode: Mode::Approve, ..playbook() };
        let playbook = manifest("restart", TENANT, Spec::Playbook(spec));
        lab.user("node-7", crate::law::tests::lab::apply(playbook)).unwrap();
        let id = lab.report("api", "a", "down");
        lab.adopt(id, vec![step(&target("api", "a"))]);
        assert!(matches!(lab.approve("node-7", id), Err(Refusal::Denied { .. })));
    }

    #[test]
    fn another_role_or_another_plan_does_not_count() {
        let (mut lab, id, _) = asking(|approval| approval.roles = vec!["surgeon".into()]);
        assert!(matches!(lab.approve("ann", id), Err(Refusal::Denied { .. })));
        assert!(matches!(lab.approve("mallory", id), Err(Refusal::Denied { .. })));
        let approve = Approve { incident: id, plan_digest: Digest([1; 32]) };
        assert!(matches!(lab.user("ann", Command::Approve(approve)), Err(Refusal::Conflict(_))));
    }

    #[test]
    fn the_question_stands_for_its_time_to_live() {
        for (on_timeout, status) in [
            (OnTimeout::Escalate, IncidentStatus::Escalated),
            (OnTimeout::Reject, IncidentStatus::Open),
        ] {
            let (mut lab, id, plan) = asking(|approval| approval.on_timeout = on_timeout);
            assert_eq!(lab.state.next_due(), Some(Timestamp(lab.now + 900_000)));
            lab.now += 900_000;
            assert!(matches!(lab.approve("ann", id), Err(Refusal::IllegalState(_))));
            lab.wait(0);
            assert_eq!(lab.status(id), status);
            assert_eq!(lab.saga(plan).status, SagaStatus::Dropped);
            assert_eq!(lab.incident(id).attempts.len(), 1);
        }
    }

    #[test]
    fn authority_is_asked_again_when_the_approval_is_used() {
        let (mut lab, id, plan) = asking(|_| {});
        lab.approve("ann", id).unwrap();
        let key =
            ManifestKey { kind: Kind::RoleBinding, tenant: TENANT.into(), name: "ann".into() };
        lab.root(Command::DeleteManifest(key)).unwrap();
        let answer = lab.start(plan, 0, Direction::Forward).unwrap();
        assert!(matches!(answer, Reply::Noted(why) if why.contains("0 of 1 approvals")));
        assert_eq!(lab.status(id), IncidentStatus::AwaitingApproval);
        assert!(lab.state.locks.is_empty());
        lab.approve("ben", id).unwrap();
        lab.start(plan, 0, Direction::Forward).unwrap();
    }

    #[test]
    fn limits_are_asked_again_when_the_approval_comes_late() {
        let (mut lab, id, plan) = asking(|_| {});
        lab.apply("now", Spec::Playbook(playbook()));
        let other = lab.report("api", "b", "down");
        let busy = lab.plan_of("now", vec![step(&target("api", "a"))]);
        lab.propose(other, lab.proposal(Some(busy))).unwrap();
        lab.approve("ann", id).unwrap();
        assert!(held(&lab.start(plan, 0, Direction::Forward)).contains("is treating api/a"));
    }

    #[test]
    fn a_playbook_changed_meanwhile_is_decided_anew() {
        let (mut lab, id, plan) = asking(|_| {});
        lab.approve("ann", id).unwrap();
        lab.apply("restart", Spec::Playbook(PlaybookSpec { mode: Mode::Shadow, ..playbook() }));
        assert!(matches!(lab.start(plan, 0, Direction::Forward), Ok(Reply::Noted(_))));
        assert_eq!(lab.saga(plan).status, SagaStatus::Dropped);
        assert_eq!(lab.status(id), IncidentStatus::Open);
    }
}
