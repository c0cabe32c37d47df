//! JUDGEMENT about incidents: what it is, what to do, how risky, how sure.
//!
//! ```text
//!  incident ─► classify ─► rules ─► recommend ─► plan ─► risk ─► confidence ─► Proposal
//!   + state     class,     which      which      steps,   five     will it       (the law
//!   + looks     cause      playbooks  first      undo     scores   help?         routes it)
//! ```
//!
//! Pure functions: no I/O, no await, no clock; the same input gives the same proposal. Judgement
//! proposes, the law disposes: thresholds, budgets, freezes and roles are the law's.

pub mod builtin;
pub mod cases;
mod classify;
mod confidence;
mod decide;
mod plan;
mod preventive;
mod recommend;
mod risk;
mod rules;
mod rules_of_class;
mod scene;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use preventive::Preventive;

use medic_state::{
    IncidentId, State, Timestamp,
    decision::{Proposal, ThresholdOverrides},
    symptom::Target,
};

use crate::{topology, world::Observation};

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct DecisionInput<'a> {
    /// The law's state.
    pub state: &'a State,
    /// Which incident.
    pub incident: IncidentId,
    /// Fresh looks at the targets that [`targets_to_observe`] names; those that could not be taken
    /// are absent or empty.
    pub observations: &'a BTreeMap<Target, Observation>,
    /// From the environment of this node.
    pub overrides: ThresholdOverrides,
    /// The proposer's clock.
    pub now: Timestamp,
}

/// What a decision concludes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Too early to tell cause from effect: ask again then.
    Wait {
        /// When.
        until: Timestamp,
        /// For what.
        reason: String,
    },
    /// To be committed as `AdoptDecision`.
    Propose(Box<Proposal>),
}

/// Why no decision could be made; the incident goes to a human with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecideError {
    /// The state has no such incident.
    #[error("there is no incident {0} to decide about")]
    NoIncident(IncidentId),
    /// It is over.
    #[error("incident {0} is resolved: there is nothing to decide")]
    Closed(IncidentId),
}

/// Decides about one incident.
///
/// # Errors
/// When there is no such incident, or it is over.
pub fn decide(input: &DecisionInput<'_>) -> Result<Conclusion, DecideError> {
    decide::decide(input)
}

/// The targets worth a fresh look before deciding, most telling first: those with symptoms, the
/// other instances of the service, then the instances of the services it calls, nearest first.
#[must_use]
pub fn targets_to_observe(state: &State, incident: IncidentId) -> Vec<Target> {
    let Some(incident) = state.incidents.get(&incident) else { return Vec::new() };
    let (tenant, service) = (incident.tenant.as_str(), incident.target.service.as_str());
    let affected = incident.own_symptoms().map(|s| s.symptom.target.clone());
    let all = topology::service(state, tenant, service)
        .into_iter()
        .flat_map(|spec| spec.instances.iter().map(|i| topology::target(tenant, service, &i.name)));
    let called = topology::dependencies(state, tenant, service)
        .into_iter()
        .flat_map(|name| topology::running_targets(state, tenant, name));
    let mut seen = std::collections::BTreeSet::new();
    affected
        .chain(all)
        .chain(called)
        .filter(|target| !target.instance.is_empty() && seen.insert(target.clone()))
        .collect()
}
