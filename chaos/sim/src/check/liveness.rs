//! Invariant 14: after the faults one leader leads, all nodes have caught up, reads and writes are
//! served.

use super::{Findings, Violation};
use crate::history::{Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(14, "liveness");
    let (mut leaders, mut nodes, mut log) = (0_u32, 0_u32, 0);
    let mut end = 0;
    for Event { ms, what } in events {
        end = *ms;
        match what {
            What::Committed(commit) => log = commit.index,
            What::Final { node, index, leads, serves, .. } => {
                nodes += 1;
                leaders += u32::from(*leads);
                if !serves {
                    found.add(*ms, format!("{node} did not serve within the time"));
                }
                if *index != log {
                    found.add(*ms, format!("{node} is at {index}, and the log at {log}"));
                }
            }
            _ => {}
        }
    }
    if nodes > 0 && leaders != 1 {
        found.add(end, format!("{leaders} of {nodes} nodes lead"));
    }
    found.done()
}

#[cfg(test)]
mod tests {
    use medic_state::Digest;

    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn a_whole_cluster_is_fine_and_one_behind_is_not() {
        let state = Digest::default();
        let mut lab = Lab::new();
        lab.linked(1).last(1, 1, state).last(2, 1, state);
        assert_eq!(check(&lab.events), []);
        lab.last(3, 0, state);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
