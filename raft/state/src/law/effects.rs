//! What the leader owes, read off the state: recovery after a change of leader is this and nothing
//! else. A hold that ends with time (a freeze, a window, an approval) ends by a `Tick`.

use std::collections::BTreeSet;

use crate::{
    applied::Effect,
    ids::IncidentId,
    incident::{Incident, IncidentStatus},
    law::saga,
    saga::{Saga, SagaStatus},
    state::State,
};

impl State {
    /// Everything the leader owes now, derived from the state alone, in a stable order: by incident,
    /// oldest first.
    ///
    /// A step whose intent was committed under the fence in force is in its driver's hands and is
    /// not listed.
    #[must_use]
    pub fn pending_effects(&self) -> Vec<Effect> {
        let mut effects = self.pending_acts();
        effects.extend(self.tellings(&|_, _, _| false).next.into_iter().map(Effect::Notify));
        effects
    }

    /// [`State::pending_effects`] without what people are to be told: see [`State::tellings`].
    #[must_use]
    pub fn pending_acts(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for incident in self.incidents.values() {
            self.owed(incident, &mut effects);
        }
        effects
    }

    /// What is owed about these incidents; what people are to be told is left to the next look.
    pub(super) fn effects_of(&self, ids: &BTreeSet<IncidentId>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for incident in ids.iter().filter_map(|id| self.incidents.get(id)) {
            self.owed(incident, &mut effects);
        }
        effects
    }

    fn owed(&self, incident: &Incident, effects: &mut Vec<Effect>) {
        if incident.closed() {
            return;
        }
        if incident.status == IncidentStatus::Open && self.hold(incident).is_none() {
            effects.push(Effect::Decide(incident.id));
        }
        if let Some(saga) = self.saga_of(incident.id) {
            effects.extend(self.owed_by_saga(saga));
        }
    }

    fn owed_by_saga(&self, saga: &Saga) -> Option<Effect> {
        if saga.status == SagaStatus::Verifying {
            return Some(Effect::Verify(saga.id));
        }
        let (at, direction) = saga::next_move(saga)?;
        let step = saga.steps.get(at)?;
        let resume = step.intent.as_ref().map(|intent| intent.fence);
        if resume == Some(self.fence.fence) {
            return None;
        }
        let target = &saga.plan.steps.get(at)?.target;
        let forward = direction == crate::plan::Direction::Forward;
        if resume.is_none() && forward && self.frozen(target, Some(&saga.plan.playbook)).is_some() {
            return None;
        }
        let not_before = match resume {
            Some(_) => crate::ids::Timestamp::default(),
            None => saga::not_before(saga, (at, direction)),
        };
        let step = u32::try_from(at).ok()?;
        Some(Effect::RunStep { plan: saga.id, step, direction, resume, not_before })
    }
}
