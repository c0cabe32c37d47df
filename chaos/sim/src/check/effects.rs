//! Invariant 4: per key at most one effect; what is recorded as done was done; what nobody knows is
//! recorded as unknown and treated so.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Command, Reply,
    plan::StepKey,
    saga::{Outcome, SagaStatus},
};

use super::{Findings, Violation};
use crate::history::{Did, Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(4, "effects");
    let mut effects: BTreeMap<StepKey, u32> = BTreeMap::new();
    let mut said_done: BTreeSet<StepKey> = BTreeSet::new();
    for Event { ms, what } in events {
        match what {
            What::Reached(reached) => {
                let key = reached.key;
                match &reached.did {
                    Did::Effect => {
                        let count = effects.entry(key).or_default();
                        *count += 1;
                        if *count > 1 {
                            let text =
                                format!("{key} took effect {count} times at {}", reached.agent);
                            found.add(*ms, text);
                        }
                    }
                    Did::Ended(Outcome::Done(_)) => {
                        said_done.insert(key);
                    }
                    Did::Ended(_) | Did::Refused | Did::Accepted | Did::Knew | Did::Began => {}
                }
            }
            What::Committed(commit) if !commit.repeated => {
                let (Command::FinishStep(finish), Ok(Reply::Done)) =
                    (&commit.entry.command, &commit.answer)
                else {
                    continue;
                };
                let key =
                    StepKey { plan: finish.plan, step: finish.step, direction: finish.direction };
                match &finish.outcome {
                    Outcome::Done(evidence) => {
                        let looked = evidence.contains_key("observed");
                        if !looked && !effects.contains_key(&key) && !said_done.contains(&key) {
                            found.add(*ms, format!("{key} is recorded as done, and nobody did it"));
                        }
                    }
                    Outcome::Unknown { .. } => {
                        let unknown = (finish.plan, SagaStatus::Unknown);
                        if !commit.moved.contains(&unknown) {
                            found.add(*ms, format!("{key} is unknown, and its plan goes on"));
                        }
                    }
                    Outcome::Failed { .. } => {}
                }
            }
            What::Committed(_)
            | What::Applied { .. }
            | What::Installed { .. }
            | What::Restarted(_)
            | What::Crashed(_)
            | What::Elected { .. }
            | What::Sent(_)
            | What::Acknowledged { .. }
            | What::Broke { .. }
            | What::Healed
            | What::Lasted { .. }
            | What::Final { .. } => {}
        }
    }
    found.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn once_is_fine_and_twice_is_not() {
        let mut lab = Lab::new();
        lab.adopt(7, 1).effect("a", 7, 0).finish(7, 0, 5);
        assert_eq!(check(&lab.events), []);
        lab.effect("a", 7, 0);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn done_without_an_effect_is_found() {
        let mut lab = Lab::new();
        lab.adopt(7, 1).finish(7, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
