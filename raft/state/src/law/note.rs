//! `AddNote`: people write on the timeline, of closed incidents too.

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
    if command.note.trim().is_empty() {
        return Err(Refusal::Invalid("the note is empty".to_owned()));
    }
    tell(state.incident_mut(command.incident)?, context, &command.note);
    Ok(Reply::Incident(command.incident))
}
