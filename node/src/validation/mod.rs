//! JUDGEMENT about remediations: did it help? Passed, failed, or not enough seen to tell.
//!
//! ```text
//!  samples since the last step ─► functional ─┐
//!  baseline before the first      performance │
//!  state: symptoms, topology      security    ├─► overall score ─► Verdict
//!                                 integration │
//!                                 slo         │
//!                                 regression ─┘
//! ```
//!
//! Pure functions. "No data" is never "passed".

mod assess;
mod checks;
mod expectations;
#[cfg(test)]
pub(crate) mod tests;

use medic_state::{
    State, Timestamp,
    saga::{Saga, Verdict},
    symptom::Target,
};

use crate::{topology, world::Observation};

/// What a verdict is made from.
#[derive(Clone, Copy, Debug)]
pub struct AssessInput<'a> {
    /// The law's state.
    pub state: &'a State,
    /// The saga whose forward steps are done.
    pub saga: &'a Saga,
    /// Looks at the targets that [`targets_to_sample`] names since the last step, oldest first.
    pub history: &'a [Sample],
    /// The proposer's clock.
    pub now: Timestamp,
}

/// One look at one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// At whom.
    pub target: Target,
    /// What was seen.
    pub observation: Observation,
}

/// What is known so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assessment {
    /// Sample again.
    Wait,
    /// To be committed as `RecordVerdict`.
    Verdict(Verdict),
}

/// Why nothing can be said; the incident goes to a human with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssessError {
    /// The saga is not at the point where a verdict is due.
    #[error("{0} is not being verified: its last step is not done")]
    NotVerifying(medic_state::PlanId),
    /// The expectation is no CEL.
    #[error("the expectation `{expect}` of playbook {playbook} cannot be read: {reason}")]
    BadExpectation {
        /// The playbook.
        playbook: String,
        /// As written.
        expect: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Holds a saga's expectations against what was seen.
///
/// # Errors
/// When the saga is not being verified or its expectation cannot be read or evaluated.
pub fn assess(input: &AssessInput<'_>) -> Result<Assessment, AssessError> {
    assess::assess(input)
}

/// The targets to sample while a saga is verified, most telling first: those whose health decides,
/// then the instances of services that call them or that they call.
#[must_use]
pub fn targets_to_sample(state: &State, saga: &Saga) -> Vec<Target> {
    let input = AssessInput { state, saga, history: &[], now: Timestamp(0) };
    let mut targets = saga.plan.verify_targets.clone();
    for name in checks::neighbours(&input) {
        targets.extend(topology::running_targets(state, &saga.tenant, name));
    }
    targets
}
