//! `CancelRemediation`: stop a plan. What was begun is undone; a human has the incident after that.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::IncidentNote,
    law::{
        context::{Context, clip},
        incidents::tell,
        saga,
    },
    saga::SagaStatus,
    state::State,
};

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &IncidentNote,
) -> Answer {
    let id = command.incident;
    state.incident_mut(id)?;
    let Some(saga) = state.saga_of(id) else {
        return Err(Refusal::IllegalState(format!("no plan of {id} is under way")));
    };
    let (plan, status, begun) = (saga.id, saga.status, saga.started_at.is_some());
    let mut reason = format!("cancelled by {}", context.actor());
    if !command.note.is_empty() {
        reason = format!("{reason}: {}", command.note);
    }
    if !begun {
        saga::drop_plan(state, context, plan, &reason);
        state.note_attempt(context, plan, &reason);
        state.escalate(context, id, &reason);
        return Ok(Reply::Done);
    }
    state.mark_manual(id);
    // Where the incident goes once all is undone: to the human who stepped in.
    let incident = state.incident_mut(id)?;
    incident.escalation = Some(clip(&reason));
    if status == SagaStatus::Unwinding {
        tell(incident, context, &reason);
        return Ok(Reply::Noted(format!("{plan} is being rolled back already")));
    }
    saga::unwind(state, context, plan, &reason);
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{command::Command, incident::IncidentStatus, law::tests::lab::*};

    #[test]
    fn before_the_first_step_the_plan_is_dropped() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        assert!(lab.root(Command::CancelRemediation(Lab::note(id))).is_err());
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.root(Command::CancelRemediation(Lab::note(id))).unwrap();
        assert_eq!(lab.saga(plan).status, SagaStatus::Dropped);
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        assert!(lab.state.locks.is_empty());
    }

    #[test]
    fn while_it_is_verified_everything_is_undone() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, done());
        lab.root(Command::CancelRemediation(Lab::note(id))).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::RollingBack);
        assert!(matches!(lab.root(Command::CancelRemediation(Lab::note(id))), Ok(Reply::Noted(_))));
        let breakers = lab.state.breakers.len();
        lab.start(plan, 0, crate::plan::Direction::Undo).unwrap();
        lab.finish(plan, 0, crate::plan::Direction::Undo, done()).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        assert_eq!(lab.state.breakers.len(), breakers, "a human's word is no failure");
    }
}
