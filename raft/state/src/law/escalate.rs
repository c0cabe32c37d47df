//! `EscalateIncident`: something inside Medic failed while it handled this incident. A human gets
//! it, with the error; nothing else is disturbed.
//!
//! What was not begun is dropped. A plan that acts comes to its own end (its outcomes are facts, not
//! opinions); one that is being verified keeps what it did, for want of a verdict.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::EscalateIncident,
    incident::IncidentStatus,
    law::{
        context::{Context, clip},
        incidents::{bump, tell},
        saga,
    },
    rbac::Principal,
    saga::SagaStatus,
    state::State,
};

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &EscalateIncident,
) -> Answer {
    // Failures are those of the leader in office: a deposed one that finds its work failing late
    // must not end what its successor has taken over.
    let leader = Principal::node(state.fence.node);
    if *context.principal != leader {
        let text = format!("{leader} is in office, not {}", context.principal);
        return Err(Refusal::IllegalState(text));
    }
    let id = command.incident;
    let reason = &command.reason;
    let incident = state.incident_mut(id)?;
    match incident.status {
        IncidentStatus::Resolved => {
            return Err(Refusal::IllegalState(format!("{id} is resolved")));
        }
        IncidentStatus::Escalated => {
            tell(incident, context, format!("once more: {reason}"));
            return Ok(Reply::Noted(format!("{id} is escalated already")));
        }
        IncidentStatus::Open
        | IncidentStatus::AwaitingApproval
        | IncidentStatus::Remediating
        | IncidentStatus::Verifying
        | IncidentStatus::RollingBack => {}
    }
    let saga = state.saga_of(id).map(|saga| (saga.id, saga.status, saga.started_at.is_some()));
    match saga {
        Some((plan, SagaStatus::Verifying, _)) => {
            let text = format!("{plan} has no verdict: {reason}");
            saga::end_inconclusive(state, context, plan, &text);
        }
        Some((plan, _, true)) => {
            state.mark_manual(id);
            let incident = state.incident_mut(id)?;
            incident.escalation = Some(clip(reason));
            bump(incident);
            tell(incident, context, format!("a human is told, {plan} goes on: {reason}"));
            context.touched.insert(id);
        }
        Some((plan, _, false)) => {
            saga::drop_plan(state, context, plan, reason);
            state.escalate(context, id, reason);
        }
        None => state.escalate(context, id, reason),
    }
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::Command,
        ids::IncidentId,
        law::tests::lab::*,
        manifest::{ChannelSpec, Spec},
        plan::Direction,
    };

    fn escalate(lab: &mut Lab, incident: IncidentId) -> Answer {
        let reason = "judgement panicked".to_owned();
        lab.node(1, Command::EscalateIncident(EscalateIncident { incident, reason }))
    }

    #[test]
    fn a_deposed_leader_ends_nothing() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, done());
        lab.fence(2);
        assert!(matches!(escalate(&mut lab, id), Err(Refusal::IllegalState(_))));
        assert_eq!(lab.saga(plan).status, SagaStatus::Verifying);
    }

    #[test]
    fn an_undecided_one_goes_to_a_human() {
        let mut lab = Lab::new();
        let (url, rules) = ("http://hook/".to_owned(), None);
        lab.apply("pager", Spec::Channel(ChannelSpec::Webhook { url, rules }));
        let id = lab.report("api", "a", "down");
        escalate(&mut lab, id).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        assert!(matches!(escalate(&mut lab, id), Ok(Reply::Noted(_))));
        assert_eq!(lab.state.pending_effects().len(), 1, "people are told");
        lab.root(Command::Acknowledge(Lab::note(id))).unwrap();
        assert!(lab.state.pending_effects().is_empty());
    }

    #[test]
    fn what_was_not_begun_is_dropped_and_what_was_goes_to_its_end() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        escalate(&mut lab, id).unwrap();
        assert_eq!(lab.saga(plan).status, SagaStatus::Dropped);

        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.start(plan, 0, Direction::Forward).unwrap();
        escalate(&mut lab, id).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Remediating);
        lab.finish(plan, 0, Direction::Forward, failed(false)).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        assert_eq!(lab.incident(id).escalation.as_deref(), Some("judgement panicked"));
    }

    #[test]
    fn verification_that_failed_inside_keeps_what_was_done() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, done());
        escalate(&mut lab, id).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        assert_eq!(lab.saga(plan).status, SagaStatus::Failed);
    }
}
