//! What the leader owes, read off the state: recovery after a change of leader is this and nothing
//! else. A hold that ends with time (a freeze, a window, an approval) ends by a `Tick`.

use std::collections::BTreeSet;

use crate::{
    applied::Effect,
    ids::{Digest, IncidentId},
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
        let mut effects = Vec::new();
        for incident in self.incidents.values() {
            self.owed(incident, &mut effects);
        }
        effects
    }

    /// What is owed about these incidents.
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
        effects.extend(self.told(incident));
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

    /// What people should hear: until it is known to be told, or somebody acknowledges it.
    fn told(&self, incident: &Incident) -> Option<Effect> {
        if incident.acknowledged_by.is_some() {
            return None;
        }
        let text = if let Some(reason) = &incident.escalation {
            format!("{} ({}) needs a human: {reason}", incident.id, incident.target)
        } else if incident.status == IncidentStatus::AwaitingApproval {
            let plan = incident.plan?;
            format!(
                "{} ({}): {plan} waits for approval; `medic approve {}`",
                incident.id, incident.target, incident.id
            )
        } else {
            return None;
        };
        let known = self.told.get(&incident.id);
        if known.is_some_and(|told| *told == Digest::of(&[text.as_bytes()])) {
            return None;
        }
        Some(Effect::Notify { incident: incident.id, text })
    }
}
