//! `ClearSymptom`: a shard owner sees it no longer.
//!
//! The incident is not closed here: a `Tick` closes it once the policy's time has passed without a
//! relapse, if nothing was begun. While a remediation runs, only its verdict closes it.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::ClearSymptom,
    ids::Timestamp,
    incident::{Incident, IncidentStatus},
    law::{
        context::Context,
        incidents::{bump, tell},
    },
    saga::SagaStatus,
    state::State,
};

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &ClearSymptom,
) -> Answer {
    let relayed = state
        .fingerprints
        .get(&command.fingerprint)
        .and_then(|id| state.incidents.get(id)?.symptoms.get(&command.fingerprint))
        .is_some_and(|known| known.symptom.relayed());
    if relayed {
        state.check_relay(context, command.shard, command.epoch)?;
    } else {
        state.check_owner(context, command.shard, command.epoch)?;
    }
    let not_active = || Ok(Reply::Noted("no open incident has this symptom".to_owned()));
    let Some(id) = state.fingerprints.get(&command.fingerprint).copied() else {
        return not_active();
    };
    let incident = state.incident_mut(id)?;
    let Some(known) = incident.symptoms.get_mut(&command.fingerprint) else {
        return not_active();
    };
    let shard = State::shard_of(&known.symptom.target);
    if shard != command.shard {
        let text = format!("{} belongs to {shard}", known.symptom.target);
        return Err(Refusal::Invalid(text));
    }
    if known.cleared_at.is_some() {
        return Ok(Reply::Noted("cleared before".to_owned()));
    }
    known.cleared_at = Some(context.now);
    let text = format!("cleared: {} of {}", known.symptom.kind, known.symptom.target);
    bump(incident);
    tell(incident, context, text);
    context.touched.insert(id);
    Ok(Reply::Incident(id))
}

impl State {
    /// When an incident closes by itself: all symptoms of its own cleared, nothing begun, not
    /// reopened by hand, no plan with an unknown outcome unsettled.
    pub(super) fn self_clears_at(&self, incident: &Incident) -> Option<Timestamp> {
        match incident.status {
            IncidentStatus::Open | IncidentStatus::AwaitingApproval | IncidentStatus::Escalated => {
            }
            IncidentStatus::Remediating if !self.treatment_begun(incident.id) => {}
            IncidentStatus::Remediating
            | IncidentStatus::Verifying
            | IncidentStatus::RollingBack
            | IncidentStatus::Resolved => return None,
        }
        if self.reopened.contains_key(&incident.id) || self.unsettled(incident) {
            return None;
        }
        let own = incident.own_symptoms().count();
        let mut last = None;
        for known in incident.symptoms.values() {
            let is_own = known.symptom.target.service == incident.target.service;
            if is_own || own == 0 {
                last = last.max(Some(known.cleared_at?));
            }
        }
        last.map(|last| last.plus(self.policy(&incident.tenant).auto_resolve_after))
    }

    /// A plan of it ended `Unknown` and still holds its locks; or a plan is under way after all.
    fn unsettled(&self, incident: &Incident) -> bool {
        self.sagas.values().filter(|saga| saga.incident == incident.id).any(|saga| {
            saga.status == SagaStatus::Unknown && self.locks.values().any(|id| *id == saga.id)
        }) || self.treatment_begun(incident.id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{command::Command, ids::Timestamp, incident::*, law::tests::lab::*};

    #[test]
    fn an_untreated_incident_closes_some_time_after_its_symptoms_cleared() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.clear("api", "a", "down").unwrap();
        assert_eq!(lab.state.next_due(), Some(Timestamp(lab.now + 20_000)));
        lab.wait(19);
        assert_eq!(lab.status(id), IncidentStatus::Open);
        lab.wait(1);
        assert_eq!(lab.incident(id).resolution, Some(Resolution::SelfCleared));
        assert!(!lab.incident(id).manual);
    }

    #[test]
    fn a_relapse_keeps_it_open() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.clear("api", "a", "down").unwrap();
        lab.wait(10);
        assert_eq!(lab.report("api", "a", "down"), id);
        lab.wait(30);
        assert_eq!(lab.status(id), IncidentStatus::Open);
    }

    #[test]
    fn an_escalated_one_closes_too_and_stays_marked_manual() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.propose(id, lab.proposal(None)).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Escalated);
        lab.clear("api", "a", "down").unwrap();
        lab.wait(20);
        assert_eq!(lab.incident(id).resolution, Some(Resolution::SelfCleared));
        assert!(lab.incident(id).manual);
        assert_eq!(lab.state.totals.manual, 1);
    }

    #[test]
    fn grouped_symptoms_do_not_keep_it_open_and_are_free_again() {
        let mut lab = Lab::new();
        let id = lab.report("db", "d", "down");
        lab.report("api", "a", "errors");
        lab.clear("db", "d", "down").unwrap();
        lab.wait(20);
        assert_eq!(lab.status(id), IncidentStatus::Resolved);
        assert_ne!(lab.report("api", "a", "errors"), id);
    }

    #[test]
    fn what_is_being_treated_is_closed_by_its_verdict_alone() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.run(plan, 0, done());
        lab.clear("api", "a", "down").unwrap();
        lab.wait(60);
        assert_eq!(lab.status(id), IncidentStatus::Verifying);
    }

    #[test]
    fn a_plan_that_did_not_begin_is_dropped_with_its_incident() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.clear("api", "a", "down").unwrap();
        lab.wait(20);
        assert_eq!(lab.status(id), IncidentStatus::Resolved);
        assert_eq!(lab.saga(plan).status, crate::saga::SagaStatus::Dropped);
        assert!(lab.state.locks.is_empty());
    }

    #[test]
    fn an_unknown_symptom_is_noted() {
        let mut lab = Lab::new();
        assert!(matches!(lab.clear("api", "a", "down"), Ok(crate::Reply::Noted(_))));
        let id = lab.report("api", "a", "down");
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
        assert!(matches!(lab.clear("api", "a", "down"), Ok(crate::Reply::Noted(_))));
    }
}
