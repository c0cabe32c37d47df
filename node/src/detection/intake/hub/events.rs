//! Events of Kubernetes, held for whoever watches the instances that they are about.

use medic_raft::LedgerExt as _;
use medic_state::symptom::Target;

use super::Hub;
use crate::detection::{
    exposition::Sample,
    intake::kube::{Taken, book::EventNews, place, wire::Event},
    runtime::lock,
};

impl Hub {
    /// Takes an event about a tenant's instances. `counts`: it is news.
    pub fn take_event(&self, tenant: &str, event: &Event, counts: bool) -> Taken {
        let targets = self.ledger.read(|state| place::targets(state, tenant, event));
        if targets.is_empty() {
            return Taken::Unmapped;
        }
        let now = self.ledger.env().clock.now();
        let mut book = lock(&self.events);
        let held = targets.iter().filter(|target| book.take(target, event, counts, now)).count();
        if held == targets.len() { Taken::Taken } else { Taken::Limit }
    }

    /// What happened to an instance, as samples.
    #[must_use]
    pub fn event_samples(&self, target: &Target) -> Vec<Sample> {
        lock(&self.events).samples(target)
    }

    /// What is new about an instance.
    #[must_use]
    pub fn event_news(&self, target: &Target) -> EventNews {
        lock(&self.events).news(target, self.ledger.env().clock.now())
    }
}
