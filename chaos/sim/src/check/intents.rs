//! Invariant 3: no act without a committed `StartStep`, applied by the actor, under the current
//! fence, with the plan committed before.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{Command, Fence, PlanId, Reply, plan::StepKey};

use super::{Findings, Violation};
use crate::history::{Did, Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(3, "intents");
    let mut plans: BTreeSet<PlanId> = BTreeSet::new();
    let mut intents: BTreeMap<(StepKey, Fence), u64> = BTreeMap::new();
    for Event { ms, what } in events {
        match what {
            What::Committed(commit) if commit.repeated => {}
            What::Committed(commit) => match (&commit.entry.command, &commit.answer) {
                (Command::AdoptDecision(_), Ok(Reply::Decided { plan: Some(plan), .. })) => {
                    plans.insert(*plan);
                }
                (Command::StartStep(start), Ok(Reply::Done)) => {
                    let key =
                        StepKey { plan: start.plan, step: start.step, direction: start.direction };
                    if !plans.contains(&start.plan) {
                        found.add(*ms, format!("{key} was started before its plan was adopted"));
                    }
                    intents.insert((key, start.fence), commit.index);
                }
                _ => {}
            },
            What::Sent(sent) => {
                let (key, fence) = (sent.key, sent.fence);
                match intents.get(&(key, fence)) {
                    None => {
                        found.add(*ms, format!("{key} was sent under {fence} without an intent"))
                    }
                    Some(index) if *index > sent.applied => {
                        let text = format!(
                            "{key} was sent by {}, which had not applied its intent ({index}) yet",
                            sent.node
                        );
                        found.add(*ms, text);
                    }
                    Some(_) if fence != sent.newest_fence => {
                        let text = format!(
                            "{key} was sent under {fence} while {} was in force",
                            sent.newest_fence
                        );
                        found.add(*ms, text);
                    }
                    Some(_) => {}
                }
            }
            What::Reached(reached) if reached.did == Did::Began => {
                let (key, fence) = (reached.key, reached.fence);
                if !intents.contains_key(&(key, fence)) {
                    let text =
                        format!("{} began {key} under {fence} without an intent", reached.agent);
                    found.add(*ms, text);
                }
            }
            What::Reached(_)
            | What::Applied { .. }
            | What::Installed { .. }
            | What::Restarted(_)
            | What::Crashed(_)
            | What::Elected { .. }
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
    fn an_act_after_its_intent_is_fine() {
        let mut lab = Lab::new();
        lab.fence(1, 5).adopt(7, 1).start(7, 0, 5).sent_step(1, 5, 7, 0);
        assert_eq!(check(&lab.events), []);
    }

    #[test]
    fn an_act_before_its_intent_or_under_an_old_fence_is_found() {
        let mut lab = Lab::new();
        lab.fence(1, 5).adopt(7, 1).sent_step(1, 5, 7, 0);
        assert_eq!(check(&lab.events).len(), 1);
        let mut lab = Lab::new();
        lab.fence(1, 5).adopt(7, 1).start(7, 0, 5).fence(2, 9).sent_step(1, 5, 7, 0);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
