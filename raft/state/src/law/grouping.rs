//! Which incident a symptom belongs to: the same instance or service, or the dependency that explains
//! it; and which incidents a new one explains.
//!
//! Invariant: only undecided incidents take in further instances or are merged: what is decided
//! keeps what the decision was about. Deliberately absent: who may report, and what is kept of a
//! report (`report_symptom`).

use crate::{
    command::{FORETOLD_AT_HOME_SINCE, JUDGED_AGAIN_SINCE},
    ids::IncidentId,
    incident::{Incident, IncidentStatus, MAX_SYMPTOMS, Resolution, SymptomState},
    law::{
        context::Context,
        incidents::{bump, tell},
    },
    state::State,
    symptom::{Symptom, Target},
};

/// Kinds that something on the instance itself must explain, whatever it depends on.
const LOCAL_KINDS: [&str; 4] = ["down", "agent-lost", "saturation", "saturation-predicted"];
/// What is foretold, or has come to pass as it was, of its own disk, certificate or process: the same.
const LOCAL_FORETOLD: [&str; 5] = [
    "capacity-predicted",
    "security-predicted",
    "failure-predicted",
    "certificate-expired",
    "depleted",
];
/// Values of the label `process` that say the same.
const LOCAL_PROCESS: [&str; 3] = ["dead", "paused", "stopped"];

/// The open incident about the same instance; or about the same service, as long as the decision is
/// still owed and can cover this instance too. One that a human has, or whose plan is fixed, does
/// not take in further instances: they would wait there untreated.
pub(super) fn own_home(state: &State, target: &Target) -> Option<IncidentId> {
    let about = |incident: &&Incident| {
        !incident.closed()
            && incident.tenant == target.tenant
            && incident.target.service == target.service
    };
    let same_instance = |incident: &&Incident| {
        incident.target == *target
            || incident.own_symptoms().any(|known| known.symptom.target == *target)
    };
    let undecided = |incident: &&Incident| incident.status == IncidentStatus::Open;
    let of_service = || state.incidents.values().filter(about);
    of_service()
        .find(same_instance)
        .or_else(|| of_service().find(undecided))
        .map(|incident| incident.id)
}

/// Whether a failing dependency could explain it.
fn could_be_effect(state: &State, symptom: &Symptom) -> bool {
    let process = symptom.labels.get("process").map(String::as_str);
    let foretold = state.cluster_version >= FORETOLD_AT_HOME_SINCE
        && LOCAL_FORETOLD.contains(&symptom.kind.as_str());
    !foretold
        && !LOCAL_KINDS.contains(&symptom.kind.as_str())
        && !process.is_some_and(|process| LOCAL_PROCESS.contains(&process))
}

/// The incident of the nearest dependency that is ill right now.
pub(super) fn cause_of(state: &State, symptom: &Symptom) -> Option<IncidentId> {
    if !could_be_effect(state, symptom) {
        return None;
    }
    let target = &symptom.target;
    state.dependencies(&target.tenant, &target.service).iter().find_map(|service| {
        state
            .incidents
            .values()
            .find(|incident| {
                incident.tenant == target.tenant
                    && incident.target.service == *service
                    && is_ill(state, incident)
            })
            .map(|incident| incident.id)
    })
}

/// Has an active symptom of its own that others can feel, or is being treated. A finding that hurts
/// nobody else (a port that should not be open, a disk that fills) explains nothing, nor does an
/// incident that merely waits for somebody to close it.
fn is_ill(state: &State, incident: &Incident) -> bool {
    let felt =
        |symptom: &Symptom| state.cluster_version < JUDGED_AGAIN_SINCE || symptom.felt_by_others();
    match incident.status {
        IncidentStatus::Remediating | IncidentStatus::Verifying | IncidentStatus::RollingBack => {
            true
        }
        IncidentStatus::Open | IncidentStatus::AwaitingApproval | IncidentStatus::Escalated => {
            let active = |known: &&SymptomState| known.cleared_at.is_none();
            let mut own = incident.own_symptoms().filter(active).map(|known| &known.symptom);
            own.any(|symptom| !symptom.predicted() && felt(symptom))
        }
        IncidentStatus::Resolved => false,
    }
}

/// Takes in the undecided incidents of services that depend on the new one's, where a failing
/// dependency explains every active symptom.
pub(super) fn merge_effects(state: &mut State, context: &mut Context<'_>, cause: IncidentId) {
    let Some(target) = state
        .incidents
        .get(&cause)
        .filter(|incident| is_ill(state, incident))
        .map(|incident| incident.target.clone())
    else {
        return;
    };
    let effects: Vec<IncidentId> = state
        .incidents
        .values()
        .filter(|other| {
            other.id != cause
                && other.status == IncidentStatus::Open
                && other.tenant == target.tenant
                && other
                    .symptoms
                    .values()
                    .filter(|known| known.cleared_at.is_none())
                    .all(|known| could_be_effect(state, &known.symptom))
                && state
                    .dependencies(&other.tenant, &other.target.service)
                    .contains(&target.service)
        })
        .map(|other| other.id)
        .collect();
    for id in effects {
        merge(state, context, id, cause);
    }
}

fn merge(state: &mut State, context: &mut Context<'_>, id: IncidentId, cause: IncidentId) {
    let Some(effect) = state.incidents.get_mut(&id) else { return };
    effect.merged_into = Some(cause);
    let symptoms = effect.symptoms.clone();
    let (severity, target) = (effect.severity, effect.target.clone());
    state.close(context, id, Resolution::Merged);
    let Some(incident) = state.incidents.get_mut(&cause) else { return };
    for (fingerprint, known) in symptoms {
        if incident.symptoms.len() < MAX_SYMPTOMS {
            incident.symptoms.insert(fingerprint, SymptomState { grouped: true, ..known });
            state.fingerprints.insert(fingerprint, cause);
        }
    }
    incident.severity = incident.severity.max(severity);
    bump(incident);
    tell(incident, context, format!("took in {id} ({target}), being an effect"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{applied::Reply, law::tests::lab::*, manifest::Spec};

    #[test]
    fn symptoms_of_one_service_share_an_incident_until_it_is_decided() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "errors");
        assert_eq!(lab.report("api", "b", "errors"), id);
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        assert_eq!(lab.report("api", "a", "latency"), id, "the same instance");
        assert_ne!(lab.report("api", "c", "errors"), id, "an instance the plan does not cover");
        assert_eq!(lab.saga(plan).incident, id);
    }

    #[test]
    fn an_escalated_incident_keeps_no_other_instance_from_treatment() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        lab.propose(id, lab.proposal(None)).unwrap();
        assert_eq!(lab.report("api", "a", "errors"), id);
        assert_ne!(lab.report("api", "b", "down"), id);
    }

    #[test]
    fn effects_of_an_ill_dependency_are_grouped_even_through_others() {
        let mut lab = Lab::new();
        let cause = lab.report("db", "d", "down");
        assert_eq!(lab.report("web", "w", "errors"), cause);
        assert!(lab.incident(cause).symptoms.values().any(|known| known.grouped));
        assert_eq!(lab.incident(cause).target, target("db", "d"));
    }

    #[test]
    fn what_others_cannot_feel_explains_nothing() {
        let mut lab = Lab::new();
        let finding = lab.report("db", "d", "saturation");
        let id = lab.report("api", "a", "errors");
        assert_ne!(id, finding);
        lab.report("db", "d", "errors");
        let third = lab.report("web", "w", "errors");
        assert_eq!(third, id, "of the nearest that is ill");
    }

    #[test]
    fn a_crash_is_nobodys_effect() {
        let mut lab = Lab::new();
        let cause = lab.report("db", "d", "down");
        assert_ne!(lab.report("api", "a", "down"), cause);
        let mut paused = symptom("web", "w", "unresponsive");
        paused.labels.insert("process".into(), "paused".into());
        assert_ne!(lab.report_symptom(paused), Ok(Reply::Incident(cause)));
    }

    #[test]
    fn what_is_foretold_of_its_own_disk_or_certificate_is_no_effect() {
        for kind in LOCAL_FORETOLD {
            let mut lab = Lab::new();
            let cause = lab.report("db", "d", "down");
            assert_eq!(lab.report("web", "w", "budget-predicted"), cause, "slow for its database");
            assert_ne!(lab.report("api", "a", kind), cause, "{kind}");
            let mut lab = Lab::new();
            lab.state.cluster_version = FORETOLD_AT_HOME_SINCE - 1;
            let cause = lab.report("db", "d", "down");
            assert_eq!(lab.report("web", "w", kind), cause, "{kind}: as older members have it");
        }
    }

    #[test]
    fn a_cause_seen_late_takes_in_undecided_effects() {
        let mut lab = Lab::new();
        let web = lab.report("web", "w", "errors");
        let api = lab.report("api", "a", "latency");
        assert_eq!(lab.incident(web).merged_into, Some(api));
        let cause = lab.report("db", "d", "down");
        for effect in [web, api] {
            assert_eq!(lab.status(effect), IncidentStatus::Resolved);
            assert_eq!(lab.incident(effect).resolution, Some(Resolution::Merged));
        }
        assert_eq!(lab.incident(cause).symptoms.len(), 3);
        assert_eq!(lab.report("web", "w", "errors"), cause, "its fingerprint moved along");
    }

    #[test]
    fn a_cause_that_is_well_again_explains_nothing() {
        let mut lab = Lab::new();
        let cause = lab.report("db", "d", "down");
        lab.clear("db", "d", "down").unwrap();
        assert_ne!(lab.report("api", "a", "errors"), cause);
    }

    #[test]
    fn cycles_do_no_harm() {
        let mut lab = Lab::new();
        lab.apply("db", Spec::Service(service(&["d"], &["web", "nowhere"])));
        let id = lab.report("db", "d", "errors");
        assert_eq!(lab.report("web", "w", "errors"), id);
        assert_eq!(lab.state.dependencies(TENANT, "web"), ["api", "db", "nowhere"]);
    }
}
