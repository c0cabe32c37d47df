//! Agents that speak of instances which they do not run: counted, and said once.
//!
//! Just after an instance was taken from an agent, a report or two about it are still under way: only who goes
//! on is worth a line.

use std::{collections::BTreeMap, sync::Mutex};

use medic_state::symptom::Target;

use super::session::lock;
use crate::metrics::Metric;

/// Reports about one instance after which it is said.
const SAID_AFTER: u32 = 10;
/// Pairs of agent and instance that are remembered; when there are more, all begin anew.
const PAIRS_MAX: usize = 4_096;

/// Who spoke of what, and how often.
#[derive(Debug, Default)]
pub(super) struct Strange(Mutex<BTreeMap<(String, Target), u32>>);

impl Strange {
    /// An agent spoke of this instance; whether it was said just now.
    pub(super) fn note(&self, agent: &str, target: &Target) -> bool {
        metrics::counter!(Metric::StrangeReports.name(), "agent" => agent.to_owned()).increment(1);
        let key = (agent.to_owned(), target.clone());
        let mut counts = lock(&self.0);
        if counts.len() >= PAIRS_MAX && !counts.contains_key(&key) {
            counts.clear();
        }
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(1);
        let now = *count == SAID_AFTER;
        drop(counts);
        if now {
            tracing::warn!(agent, %target, "it speaks of an instance that is not declared to run there: left out");
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_is_named_once() {
        let strange = Strange::default();
        let target = |instance: &str| Target {
            tenant: "default".to_owned(),
            service: "web".to_owned(),
            instance: instance.to_owned(),
        };
        let said = (0..100).filter(|_| strange.note("a", &target("web-1"))).count();
        assert_eq!(said, 1);
        for i in 0..PAIRS_MAX * 2 {
            assert!(!strange.note("a", &target(&i.to_string())));
        }
        assert!(lock(&strange.0).len() <= PAIRS_MAX);
    }
}
