//! Judgement, as the hands call it: pure functions behind one trait, each call guarded.
//!
//! A panic in judgement is a failure of one conclusion, never of the loop.

use std::panic::{AssertUnwindSafe, catch_unwind};

use medic_state::{IncidentId, State, saga::Saga, symptom::Target};

use crate::{
    intelligence::{Conclusion, DecisionInput},
    validation::{AssessInput, Assessment},
};

/// Concludes from what was seen. Pure: no I/O, no clock, no await.
pub trait Judge: Send + Sync + 'static {
    /// Whom to look at before deciding.
    fn targets_to_observe(&self, state: &State, incident: IncidentId) -> Vec<Target>;

    /// Whom to look at while verifying.
    fn targets_to_sample(&self, state: &State, saga: &Saga) -> Vec<Target>;

    /// What to do about an incident.
    ///
    /// # Errors
    /// When no conclusion can be drawn; a human is asked.
    fn decide(&self, input: &DecisionInput<'_>) -> Result<Conclusion, String>;

    /// Whether a remediation helped.
    ///
    /// # Errors
    /// When that cannot be told by any further observation; a human is asked.
    fn assess(&self, input: &AssessInput<'_>) -> Result<Assessment, String>;
}

/// Medic's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnJudge;

impl Judge for OwnJudge {
    fn targets_to_observe(&self, state: &State, incident: IncidentId) -> Vec<Target> {
        crate::intelligence::targets_to_observe(state, incident)
    }

    fn targets_to_sample(&self, state: &State, saga: &Saga) -> Vec<Target> {
        crate::validation::targets_to_sample(state, saga)
    }

    fn decide(&self, input: &DecisionInput<'_>) -> Result<Conclusion, String> {
        crate::intelligence::decide(input).map_err(|error| error.to_string())
    }

    fn assess(&self, input: &AssessInput<'_>) -> Result<Assessment, String> {
        crate::validation::assess(input).map_err(|error| error.to_string())
    }
}

/// Calls judgement; a panic becomes an error that says so.
///
/// # Errors
/// Its own, or its panic.
pub fn guarded<T>(what: &str, judge: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(judge)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format!("{what} failed: {error}")),
        Err(panic) => Err(format!("{what} panicked: {}", panic_text(panic.as_ref()))),
    }
}

/// What a panic said.
#[must_use]
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
