//! `ReopenIncident`: a human has Medic try again; attempts start anew. Whoever reopens counts as the
//! cause of the next plan, and such an incident is closed by a verdict or by hand, not by time.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::IncidentNote,
    ids::IncidentId,
    incident::{Incident, IncidentStatus},
    law::{context::Context, judge::outcome},
    state::State,
    symptom::Fingerprint,
};

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &IncidentNote,
) -> Answer {
    let id = command.incident;
    let incident = state.incidents.get(&id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
    check(state, incident)?;
    let fingerprints: Vec<Fingerprint> = incident.symptoms.keys().copied().collect();
    for fingerprint in fingerprints {
        state.fingerprints.entry(fingerprint).or_insert(id);
    }
    outcome::withdraw(state, context, id);
    state.mark_manual(id);
    state.reopened.insert(id, context.actor());
    let incident = state.incident_mut(id)?;
    incident.attempts.clear();
    incident.plan = None;
    incident.acknowledged_by = None;
    incident.resolution = None;
    incident.resolved_at = None;
    let mut text = format!("reopened by {}", context.actor());
    if !command.note.is_empty() {
        text = format!("{text}: {}", command.note);
    }
    state.back_to_open(context, id, &text);
    Ok(Reply::Incident(id))
}

fn check(state: &State, incident: &Incident) -> Result<(), Refusal> {
    let id: IncidentId = incident.id;
    match incident.status {
        IncidentStatus::Resolved => {}
        IncidentStatus::Escalated if !state.treatment_begun(id) => return Ok(()),
        IncidentStatus::Escalated
        | IncidentStatus::Open
        | IncidentStatus::AwaitingApproval
        | IncidentStatus::Remediating
        | IncidentStatus::Verifying
        | IncidentStatus::RollingBack => {
            return Err(Refusal::IllegalState(format!("{id} is {}", incident.status)));
        }
    }
    if let Some(cause) = incident.merged_into {
        return Err(Refusal::IllegalState(format!("{id} was merged into {cause}: see there")));
    }
    let quota = state.quotas(&incident.tenant).max_open_incidents;
    if state.open_incidents(&incident.tenant) >= u64::from(quota) {
        let text = format!("tenant {} has {quota} open incidents", incident.tenant);
        return Err(Refusal::Limit(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::{applied::Refusal, command::Command, incident::*, law::tests::lab::*};

    #[test]
    fn attempts_start_anew_and_time_does_not_close_it() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.clear("api", "a", "down").unwrap();
        lab.wait(20);
        assert_eq!(lab.status(id), IncidentStatus::Resolved);
        lab.root(Command::ReopenIncident(Lab::note(id))).unwrap();
        assert_eq!(lab.status(id), IncidentStatus::Open);
        assert_eq!(lab.report("api", "a", "down"), id, "its fingerprint is its own again");
        lab.clear("api", "a", "down").unwrap();
        lab.wait(60);
        assert_eq!(lab.status(id), IncidentStatus::Open);
        let answer = lab.root(Command::ReopenIncident(Lab::note(id)));
        assert!(matches!(answer, Err(Refusal::IllegalState(_))));
    }

    #[test]
    fn a_merged_one_stays_closed() {
        let mut lab = Lab::new();
        let effect = lab.report("api", "a", "errors");
        lab.report("db", "d", "down");
        let answer = lab.root(Command::ReopenIncident(Lab::note(effect)));
        assert!(matches!(answer, Err(Refusal::IllegalState(why)) if why.contains("merged")));
    }
}
