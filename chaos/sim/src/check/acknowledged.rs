//! Invariant 7: what a client was told is in the log, with that answer; a request that is repeated is
//! answered alike.

use std::collections::BTreeMap;

use medic_state::{Answer, Refusal, rbac::Principal};

use super::{Findings, Violation};
use crate::history::{Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(7, "acknowledged");
    let mut log: BTreeMap<u64, (&str, &Answer)> = BTreeMap::new();
    let mut first: BTreeMap<(&Principal, &str), &Answer> = BTreeMap::new();
    for Event { ms, what } in events {
        match what {
            What::Committed(commit) => {
                let Some(request) = commit.entry.request.as_ref().map(|id| id.0.as_str()) else {
                    continue;
                };
                log.insert(commit.index, (request, &commit.answer));
                let before =
                    first.entry((&commit.entry.principal, request)).or_insert(&commit.answer);
                let denied = matches!(commit.answer, Err(Refusal::Denied { .. }));
                if **before != commit.answer && !denied {
                    let (now, index) = (&commit.answer, commit.index);
                    let text = format!(
                        "request {request} was answered {before:?}, and at {index} {now:?}"
                    );
                    found.add(*ms, text);
                }
            }
            What::Acknowledged { index, request, answer } => match log.get(index) {
                Some((there, kept)) if there == request && *kept == answer => {}
                Some(_) | None => {
                    found.add(
                        *ms,
                        format!("{request} was acknowledged at {index}, and is not there"),
                    );
                }
            },
            _ => {}
        }
    }
    found.done()
}

#[cfg(test)]
mod tests {
    use medic_state::Reply;

    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn what_is_in_the_log_may_be_acknowledged() {
        let mut lab = Lab::new();
        let index = lab.asked("r1", Ok(Reply::Done));
        lab.acknowledged(index, "r1", Ok(Reply::Done));
        lab.asked("r1", Ok(Reply::Done));
        assert_eq!(check(&lab.events), []);
    }

    #[test]
    fn a_lost_write_and_a_second_application_are_found() {
        let mut lab = Lab::new();
        lab.acknowledged(1, "r1", Ok(Reply::Done));
        assert_eq!(check(&lab.events).len(), 1);
        let mut lab = Lab::new();
        lab.asked("r1", Ok(Reply::Done));
        lab.asked("r1", Ok(Reply::Noted("already so".to_owned())));
        assert_eq!(check(&lab.events).len(), 1);
    }
}
