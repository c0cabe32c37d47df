//! `NoteTold`: the leader has told people what the law wanted them to know. Committed after the
//! delivery, so people hear at least once; the next leader tells only what is not known to be told.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::NoteTold,
    state::State,
};

pub(super) fn apply(state: &mut State, command: &NoteTold) -> Answer {
    let id = command.incident;
    let incident = state.incidents.get(&id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
    if incident.closed() {
        return Ok(Reply::Noted(format!("{id} is resolved")));
    }
    state.told.insert(id, command.text);
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        applied::Effect,
        command::Command,
        ids::{Digest, IncidentId},
        law::tests::lab::*,
    };

    fn said(lab: &Lab) -> Vec<String> {
        let text = |effect| match effect {
            Effect::Notify { text, .. } => Some(text),
            Effect::Decide(_) | Effect::RunStep { .. } | Effect::Verify(_) => None,
        };
        lab.state.pending_effects().into_iter().filter_map(text).collect()
    }

    fn told(lab: &mut Lab, incident: IncidentId, text: &str) {
        let text = Digest::of(&[text.as_bytes()]);
        lab.node(1, Command::NoteTold(NoteTold { incident, text })).unwrap();
    }

    #[test]
    fn what_was_told_is_not_owed_to_the_next_leader() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.propose(id, lab.proposal(None)).unwrap();
        let text = said(&lab).pop().unwrap();
        told(&mut lab, id, "something else");
        lab.fence(2);
        assert_eq!(said(&lab), std::slice::from_ref(&text));
        told(&mut lab, id, &text);
        lab.fence(1);
        assert!(said(&lab).is_empty());

        // The same again after a new beginning is news.
        lab.root(Command::ReopenIncident(Lab::note(id))).unwrap();
        lab.propose(id, lab.proposal(None)).unwrap();
        assert_eq!(said(&lab), [text]);
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
        told(&mut lab, id, "late");
        assert!(lab.state.told.is_empty());
    }
}
