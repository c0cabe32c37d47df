//! Invariant 9: equal index, equal state, whatever a node went through: entries, snapshots, restarts.

use std::collections::BTreeMap;

use medic_state::Digest;

use super::{Findings, Violation};
use crate::history::{Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(9, "replicas");
    let mut states: BTreeMap<u64, Digest> = BTreeMap::new();
    for Event { ms, what } in events {
        let seen = match what {
            What::Committed(commit) => commit.state.map(|state| (commit.index, state)),
            What::Applied { index, state, .. } => state.map(|state| (*index, state)),
            What::Installed { index, state, .. } | What::Final { index, state, .. } => {
                Some((*index, *state))
            }
            _ => None,
        };
        let Some((index, state)) = seen else { continue };
        if *states.entry(index).or_insert(state) != state {
            found.add(*ms, format!("two states at index {index}: {what:?}"));
        }
    }
    found.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn equal_states_are_fine_and_different_ones_are_not() {
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        let mut lab = Lab::new();
        lab.last(1, 9, a).last(2, 9, a).last(3, 8, b);
        assert_eq!(check(&lab.events), []);
        lab.last(3, 9, b);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
