//! Invariant 11: a node that has not heard a quorum for its lease starts nothing.

use super::{Findings, Violation};
use crate::history::{Event, What};

/// The longest lease of the default timing: greatest election timeout less its margin.
const LEASE_MS: u64 = 500;

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(11, "quorum");
    for Event { ms, what } in events {
        let What::Sent(sent) = what else { continue };
        if sent.quorum_age_ms > LEASE_MS {
            let (node, key, age) = (sent.node, sent.key, sent.quorum_age_ms);
            found.add(*ms, format!("{node} sent {key}, and had heard no quorum for {age} ms"));
        }
    }
    found.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn an_act_without_a_lease_is_found() {
        let mut lab = Lab::new();
        lab.fence(1, 5).sent(1, 5);
        assert_eq!(check(&lab.events), []);
        if let Some(Event { what: What::Sent(sent), .. }) = lab.events.last_mut() {
            sent.quorum_age_ms = 501;
        }
        assert_eq!(check(&lab.events).len(), 1);
    }
}
