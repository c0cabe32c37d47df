//! What happens to incidents whoever asks for it: a line on the timeline, a new revision,
//! escalation, going back to `Open`, closing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    applied::{ClosedIncident, Record, Refusal},
    command::OUTCOMES_SINCE,
    ids::{IncidentId, PlanId, Revision},
    incident::{Attempt, Incident, IncidentStatus, MAX_TIMELINE, Resolution, TimelineItem},
    law::{
        context::{Context, clip},
        saga,
    },
    saga::Saga,
    state::{MAX_CLOSED, State},
    voice::Voice,
};

/// Attempts kept per incident; the cap on attempts (at most 10 per playbook) stays below it.
const MAX_ATTEMPTS_KEPT: usize = 32;

/// Writes a line. The first line (how it began) is kept; beyond the bound the next oldest goes.
pub(super) fn tell(incident: &mut Incident, context: &Context<'_>, text: impl AsRef<str>) {
    if incident.timeline.len() >= MAX_TIMELINE {
        incident.timeline.remove(1);
    }
    incident.timeline.push(TimelineItem {
        at: context.now,
        index: context.index,
        actor: context.actor(),
        text: clip(text.as_ref()),
    });
    incident.updated_at = context.now;
}

/// Something changed that a decision should know of.
pub(super) fn bump(incident: &mut Incident) {
    incident.revision = Revision(incident.revision.0.saturating_add(1));
}

/// What becomes of it, and who spoke, says nothing about detectors any more: it did not take its own
/// course, or not all was heard.
pub(super) fn obscure(state: &mut State, id: IncidentId) {
    if state.cluster_version < OUTCOMES_SINCE {
        return;
    }
    let Some(incident) = state.incidents.get_mut(&id) else { return };
    for known in incident.symptoms.values_mut() {
        known.voices.insert(Voice::Obscured);
    }
}

impl State {
    /// An incident to be changed.
    pub(super) fn incident_mut(&mut self, id: IncidentId) -> Result<&mut Incident, Refusal> {
        self.incidents.get_mut(&id).ok_or_else(|| Refusal::NotFound(id.to_string()))
    }

    /// The plan in force of an incident, if it has not ended.
    pub(super) fn saga_of(&self, id: IncidentId) -> Option<&Saga> {
        let plan = self.incidents.get(&id)?.plan?;
        self.sagas.get(&plan).filter(|saga| !saga.status.ended())
    }

    /// Whether a step of the plan in force was ever started.
    pub(super) fn treatment_begun(&self, id: IncidentId) -> bool {
        self.saga_of(id).is_some_and(|saga| saga.started_at.is_some())
    }

    /// Marks that a human takes part; counts each incident once.
    pub(super) fn mark_manual(&mut self, id: IncidentId) {
        if let Some(incident) = self.incidents.get_mut(&id)
            && !incident.manual
        {
            incident.manual = true;
            self.totals.manual = self.totals.manual.saturating_add(1);
        }
    }

    /// A human is needed.
    pub(super) fn escalate(&mut self, context: &mut Context<'_>, id: IncidentId, reason: &str) {
        self.mark_manual(id);
        if let Some(incident) = self.incidents.get_mut(&id) {
            incident.status = IncidentStatus::Escalated;
            incident.escalation = Some(clip(reason));
            incident.held_by = None;
            bump(incident);
            tell(incident, context, format!("escalated: {reason}"));
        }
        context.touched.insert(id);
    }

    /// Back to `Open`: the leader owes a decision.
    pub(super) fn back_to_open(&mut self, context: &mut Context<'_>, id: IncidentId, why: &str) {
        self.told.remove(&id);
        if let Some(incident) = self.incidents.get_mut(&id) {
            super::telling::begin_anew(incident);
            incident.status = IncidentStatus::Open;
            incident.escalation = None;
            bump(incident);
            tell(incident, context, why);
        }
        super::holds::refresh_one(self, context, id);
        context.touched.insert(id);
    }

    /// Notes a plan that ended without success.
    pub(super) fn note_attempt(&mut self, context: &Context<'_>, plan: PlanId, reason: &str) {
        let Some(saga) = self.sagas.get(&plan) else { return };
        let attempt = Attempt {
            plan,
            playbook: saga.plan.playbook.clone(),
            reason: clip(reason),
            at: context.now,
        };
        if let Some(incident) = self.incidents.get_mut(&saga.incident) {
            if incident.attempts.len() >= MAX_ATTEMPTS_KEPT {
                incident.attempts.remove(0);
            }
            incident.attempts.push(attempt);
        }
    }

    /// Ends an incident: its plan, if not begun, is dropped; its fingerprints are free again; it is
    /// emitted as a record; the longest closed one leaves memory when there are too many.
    pub(super) fn close(&mut self, context: &mut Context<'_>, id: IncidentId, how: Resolution) {
        if let Some(plan) = self.saga_of(id).map(|saga| saga.id) {
            saga::drop_plan(self, context, plan, "its incident was closed");
        }
        self.fingerprints.retain(|_, incident| *incident != id);
        self.reopened.remove(&id);
        self.told.remove(&id);
        let Some(incident) = self.incidents.get_mut(&id) else { return };
        incident.status = IncidentStatus::Resolved;
        incident.resolution = Some(how);
        incident.resolved_at = Some(context.now);
        incident.held_by = None;
        bump(incident);
        let text = match how {
            Resolution::Remediated => "resolved: the remediation was verified".to_owned(),
            Resolution::SelfCleared => "resolved: its symptoms went away".to_owned(),
            Resolution::ByHand => "resolved by hand".to_owned(),
            Resolution::Merged => match incident.merged_into {
                Some(cause) => format!("merged into {cause}, being an effect of it"),
                None => "merged".to_owned(),
            },
        };
        tell(incident, context, text);
        self.archive(context, id);
        context.touched.insert(id);
        self.evict();
    }

    /// Emits a closed incident as it is now: the newest such record is the one that counts.
    pub(super) fn archive(&self, context: &mut Context<'_>, id: IncidentId) {
        if let Some(incident) = self.incidents.get(&id).filter(|incident| incident.closed()) {
            let closed = ClosedIncident { incident: incident.clone(), sagas: self.sagas_of(id) };
            context.records.push(Record::Closed(Box::new(closed)));
        }
    }

    fn sagas_of(&self, id: IncidentId) -> Vec<Saga> {
        self.sagas.values().filter(|saga| saga.incident == id).cloned().collect()
    }

    /// Forgets the longest closed incidents beyond the bound, with their plans.
    fn evict(&mut self) {
        let mut closed: BTreeMap<_, IncidentId> = BTreeMap::new();
        let holding: BTreeSet<IncidentId> = self
            .locks
            .values()
            .filter_map(|plan| self.sagas.get(plan).map(|saga| saga.incident))
            .collect();
        for incident in self.incidents.values().filter(|incident| incident.closed()) {
            // A plan that ended `Unknown` and is not settled yet still answers for its locks.
            if !holding.contains(&incident.id) {
                closed.insert((incident.resolved_at, incident.id), incident.id);
            }
        }
        while closed.len() > MAX_CLOSED {
            let Some((_, id)) = closed.pop_first() else { return };
            self.incidents.remove(&id);
            self.sagas.retain(|_, saga| saga.incident != id);
        }
    }

    /// Open incidents of all tenants.
    pub(super) fn all_open_incidents(&self) -> usize {
        self.incidents.values().filter(|incident| !incident.closed()).count()
    }

    /// Open incidents of a tenant.
    pub(super) fn open_incidents(&self, tenant: &str) -> u64 {
        let open = self
            .incidents
            .values()
            .filter(|incident| !incident.closed() && incident.tenant == tenant)
            .count();
        u64::try_from(open).unwrap_or(u64::MAX)
    }
}
