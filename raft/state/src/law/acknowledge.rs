//! `Acknowledge`: "I am on it."

use crate::{
    applied::{Answer, Refusal, Reply},
    command::IncidentNote,
    law::{context::Context, incidents::tell},
    state::State,
};

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &IncidentNote,
) -> Answer {
    let id = command.incident;
    let actor = context.actor();
    let incident = state.incident_mut(id)?;
    if incident.closed() {
        return Err(Refusal::IllegalState(format!("{id} is resolved")));
    }
    if incident.acknowledged_by.as_ref() == Some(&actor) {
        return Ok(Reply::Noted(format!("{actor} has it already")));
    }
    incident.acknowledged_by = Some(actor);
    let note = if command.note.is_empty() {
        "acknowledged".to_owned()
    } else {
        format!("acknowledged: {}", command.note)
    };
    tell(incident, context, note);
    Ok(Reply::Incident(id))
}
