//! Invariant 13, as far as the law's time goes: it never runs back, whatever the clocks of those who
//! stamp entries say.

use medic_state::{Record, Timestamp};

use super::{Findings, Violation};
use crate::history::{Event, What};

/// See the module.
pub(super) fn check(events: &[Event]) -> Vec<Violation> {
    let mut found = Findings::new(13, "time");
    let mut now = Timestamp(0);
    for Event { ms, what } in events {
        let What::Committed(commit) = what else { continue };
        for record in &commit.records {
            let Record::Audit(link) = record else { continue };
            if link.at < now {
                let index = commit.index;
                found
                    .add(*ms, format!("the law's time ran back to {} at entry {index}", link.at.0));
            }
            now = now.max(link.at);
        }
    }
    found.done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::lab::Lab;

    #[test]
    fn time_that_runs_back_is_found() {
        let mut lab = Lab::new();
        lab.linked(1).linked(2);
        assert_eq!(check(&lab.events), []);
        let mut lab = Lab::new();
        lab.linked(2).linked(1);
        assert_eq!(check(&lab.events).len(), 1);
    }
}
