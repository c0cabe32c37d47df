//! Invariant 2: fences accepted by a target never decrease, and each is a committed one. Every office
//! has a fence of its own: nobody acts under the one it had before it was elected again.

use std::collections::BTreeMap;

use medic_state::{Answer, Command, Fence, NodeId, Reply};

use super::{Findings, Violation};
use crate::history::{Commit, Did, Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(2, "fences");
    // Fence to its node and its place in the history.
    let mut committed: BTreeMap<Fence, (NodeId, usize)> = BTreeMap::new();
    let mut office: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut highest: BTreeMap<&str, Fence> = BTreeMap::new();
    for (place, Event { ms, what }) in events.iter().enumerate() {
        match what {
            What::Committed(commit) => {
                if let Some(fence) = fenced(commit) {
                    committed.insert(fence, (commit.by, place));
                }
                let current = committed.keys().next_back().copied().unwrap_or_default();
                if let Some(given) = moves_under(commit).filter(|given| *given != current) {
                    let (name, index) = (commit.entry.command.name(), commit.index);
                    let text = format!(
                        "{name} at {index} was admitted under {given}, {current} being in force"
                    );
                    found.add(*ms, text);
                }
            }
            What::Elected { node, .. } | What::Restarted(node) => {
                office.insert(*node, place);
            }
            What::Sent(sent) => {
                let since = office.get(&sent.node).copied();
                match committed.get(&sent.fence) {
                    Some((node, place))
                        if *node == sent.node && since.is_none_or(|since| *place > since) => {}
                    Some((node, _)) if *node == sent.node => {
                        let fence = sent.fence;
                        let text = format!(
                            "{node} acts under {fence}, which it had before it was elected again"
                        );
                        found.add(*ms, text);
                    }
                    Some((node, _)) => {
                        found.add(
                            *ms,
                            format!("{} acts under {}, which is {node}'s", sent.node, sent.fence),
                        );
                    }
                    None => {
                        let text =
                            format!("{} acts under {}, never committed", sent.node, sent.fence);
                        found.add(*ms, text);
                    }
                }
            }
            What::Reached(reached) if reached.fenced && reached.did == Did::Accepted => {
                let (agent, fence) = (reached.agent.as_str(), reached.fence);
                let before = highest.entry(agent).or_default();
                if fence < *before {
                    found.add(*ms, format!("{agent} accepted {fence} after {before}"));
                }
                *before = fence.max(*before);
                if !committed.contains_key(&fence) {
                    found.add(*ms, format!("{agent} accepted {fence}, which was never committed"));
                }
            }
            What::Reached(_)
            | What::Applied { .. }
            | What::Installed { .. }
            | What::Crashed(_)
            | What::Acknowledged { .. }
            | What::Broke { .. }
            | What::Healed
            | What::Lasted { .. }
            | What::Final { .. } => {}
        }
    }
    found.done()
}

/// The fence of a command that moved something: only the one in force may.
fn moves_under(commit: &Commit) -> Option<Fence> {
    if commit.repeated {
        return None;
    }
    match (&commit.entry.command, &commit.answer) {
        (Command::StartStep(start), Ok(Reply::Done)) => Some(start.fence),
        (Command::FinishStep(finish), Ok(Reply::Done)) => Some(finish.fence),
        (Command::RecordVerdict(record), Ok(Reply::Done)) => Some(record.fence),
        (Command::AdoptDecision(adopt), Ok(Reply::Decided { .. })) => Some(adopt.fence),
        _ => None,
    }
}

fn fenced(commit: &Commit) -> Option<Fence> {
    let answer: &Answer = &commit.answer;
    match (&commit.entry.command, answer) {
        (Command::Fence(_), Ok(Reply::Fenced(fence))) => Some(*fence),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn a_takeover_is_fine_and_an_old_fence_is_not() {
        let mut lab = Lab::new();
        lab.fence(1, 5).sent(1, 5).accepted("a", 5).fence(2, 9).accepted("a", 9);
        assert!(check(&lab.events).is_empty());
        lab.accepted("a", 5);
        assert_eq!(check(&lab.events).len(), 1, "it decreased");
    }

    #[test]
    fn a_deposed_leader_moves_nothing() {
        let mut lab = Lab::new();
        lab.fence(1, 5).adopt(7, 1).start(7, 0, 5).fence(2, 9);
        assert!(check(&lab.events).is_empty());
        lab.finish(7, 0, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn a_fence_nobody_committed_is_found() {
        let mut lab = Lab::new();
        lab.fence(1, 5).accepted("a", 7);
        assert_eq!(check(&lab.events).len(), 1);
    }

    #[test]
    fn a_new_office_needs_a_new_fence() {
        let mut lab = Lab::new();
        lab.fence(1, 5).elected(1, 2).sent(1, 5);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
