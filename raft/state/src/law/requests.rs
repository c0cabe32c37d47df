//! Request ids: a command retried under its id is applied once and answered alike.
//!
//! Bounded: the oldest id is forgotten first.

use crate::{
    applied::{Answer, Refusal},
    codec,
    command::Entry,
    ids::Digest,
    planted::{Planted, planted},
    state::{MAX_REQUESTS, Remembered, State},
};

/// Longest request id accepted, in bytes: room for any UUID or hash.
const MAX_ID_BYTES: usize = 128;

/// The answer and the log index it was given at, if this request was applied before; the answer
/// alone if its id cannot be used.
pub(super) fn seen(state: &State, entry: &Entry) -> Option<(Option<u64>, Answer)> {
    let id = entry.request.as_ref()?;
    if id.0.len() > MAX_ID_BYTES {
        let text = format!("a request id has at most {MAX_ID_BYTES} bytes");
        return Some((None, Err(Refusal::Invalid(text))));
    }
    if planted(Planted::RequestsForgotten) {
        return None;
    }
    let before = state.requests.get(&(entry.principal.clone(), id.clone()))?;
    Some(if before.command == digest(entry) {
        (Some(before.index), before.answer.clone())
    } else {
        let text = format!("request id {} was used for another command", id.0);
        (None, Err(Refusal::Invalid(text)))
    })
}

/// Keeps the answer. Called for first applications only.
pub(super) fn remember(state: &mut State, index: u64, entry: &Entry, answer: &Answer) {
    let Some(id) = entry.request.clone() else { return };
    let key = (entry.principal.clone(), id);
    let remembered = Remembered { command: digest(entry), answer: answer.clone(), index };
    state.request_order.push_back(key.clone());
    state.requests.insert(key, remembered);
    while state.request_order.len() > MAX_REQUESTS {
        if let Some(oldest) = state.request_order.pop_front() {
            state.requests.remove(&oldest);
        }
    }
}

fn digest(entry: &Entry) -> Digest {
    Digest::of(&[&codec::encode(&entry.command)])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::{Command, IncidentNote},
        law::tests::lab::*,
        rbac::Principal,
    };

    #[test]
    fn a_retry_is_applied_once_and_answered_alike() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let note = Command::AddNote(IncidentNote { incident: id, note: "hello".into() });
        lab.request = Some("r1".into());
        let first = lab.entry(Principal::user(ROOT), note.clone());
        assert_eq!(first.effective, first.index);
        lab.request = Some("r1".into());
        let again = lab.entry(Principal::user(ROOT), note.clone());
        assert_eq!(again.answer, first.answer);
        assert!(again.index > first.index);
        assert_eq!(again.effective, first.index, "it took effect where it stood first");
        let lines = lab.incident(id).timeline.iter().filter(|line| line.text == "hello").count();
        assert_eq!(lines, 1);

        lab.request = Some("r1".into());
        let other = Command::AddNote(IncidentNote { incident: id, note: "other".into() });
        assert!(matches!(lab.root(other), Err(Refusal::Invalid(_))));

        // Another principal's request of the same id is another request.
        lab.request = Some("r1".into());
        assert!(matches!(lab.user("mallory", note), Err(Refusal::Denied { .. })));
    }

    #[test]
    fn the_oldest_request_is_forgotten_first() {
        let mut state = State::new();
        let entry = |n: usize| Entry {
            at: crate::Timestamp(0),
            principal: crate::rbac::Principal::node(crate::NodeId(1)),
            request: Some(crate::RequestId(n.to_string())),
            trace: crate::TraceId::default(),
            command: Command::Tick,
        };
        for n in 0..MAX_REQUESTS + 3 {
            remember(&mut state, 1, &entry(n), &Ok(crate::Reply::Done));
        }
        assert_eq!(state.requests.len(), MAX_REQUESTS);
        assert!(seen(&state, &entry(2)).is_none());
        assert!(seen(&state, &entry(3)).is_some());
    }
}
