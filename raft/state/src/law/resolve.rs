//! `ResolveIncident`: a human closes it. Settles what was unknown about its targets: they looked.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::IncidentNote,
    ids::PlanId,
    incident::Resolution,
    law::{context::Context, incidents::tell, saga},
    saga::SagaStatus,
    state::State,
};

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &IncidentNote,
) -> Answer {
    let id = command.incident;
    let begun = state.treatment_begun(id);
    let incident = state.incident_mut(id)?;
    if incident.closed() {
        return Ok(Reply::Noted(format!("{id} is resolved already")));
    }
    if begun {
        let text = format!("a remediation of {id} is under way: cancel it, or let it end");
        return Err(Refusal::IllegalState(text));
    }
    if !command.note.is_empty() {
        tell(incident, context, &command.note);
    }
    state.mark_manual(id);
    let unknown: Vec<PlanId> = state
        .sagas
        .values()
        .filter(|saga| saga.incident == id && saga.status == SagaStatus::Unknown)
        .map(|saga| saga.id)
        .collect();
    for plan in unknown {
        saga::settle_unknown(state, context, plan);
    }
    state.close(context, id, Resolution::ByHand);
    Ok(Reply::Incident(id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{command::Command, incident::IncidentStatus, law::tests::lab::*, plan::Direction};

    #[test]
    fn not_while_something_acts() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.start(plan, 0, Direction::Forward).unwrap();
        let answer = lab.root(Command::ResolveIncident(Lab::note(id)));
        assert!(matches!(answer, Err(Refusal::IllegalState(_))));
        lab.finish(plan, 0, Direction::Forward, unknown()).unwrap();
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Resolved);
        assert!(
            lab.state.locks.is_empty() && lab.state.freezes.is_empty(),
            "what was unknown is settled"
        );
        assert!(matches!(lab.root(Command::ResolveIncident(Lab::note(id))), Ok(Reply::Noted(_))));
    }
}
