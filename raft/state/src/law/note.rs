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
    // Of one that is closed the record store would otherwise keep a story without this line.
    state.archive(context, command.incident);
    Ok(Reply::Incident(command.incident))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{applied::Record, command::Command, law::tests::lab::*};

    #[test]
    fn a_note_on_a_closed_incident_outlives_its_time_in_memory() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
        lab.root(Command::AddNote(IncidentNote { incident: id, note: "post mortem".into() }))
            .unwrap();
        let kept = lab.records.iter().rev().find_map(|record| match record {
            Record::Closed(closed) if closed.incident.id == id => Some(closed),
            Record::Closed(_) | Record::Audit(_) => None,
        });
        assert_eq!(kept.unwrap().incident.timeline.last().unwrap().text, "post mortem");
    }
}
