//! Whether an instance is treated: what a treatment does looks like a fault.

use medic_state::{State, Timestamp, saga::SagaStatus, symptom::Target};

/// Reports of agents are this old at the most; right after a step they may still tell of before it.
pub(super) const AFTERMATH_MS: u64 = 1_500;

/// What the law knows of treatment of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Treatment {
    /// Steps of a plan run on it. A plan that waits for approval or for its verdict touches nothing:
    /// what is seen then is news.
    pub(super) running: bool,
    /// When steps last ended, by the law's time; only compared with itself.
    ended: Timestamp,
}

impl Treatment {
    /// Of a target, by the state.
    pub(super) fn of(state: &State, target: &Target) -> Self {
        let ended = state.target_ends.get(target).copied().unwrap_or_default();
        let Some(saga) = state.locks.get(target).and_then(|plan| state.sagas.get(plan)) else {
            return Self { running: false, ended };
        };
        Self {
            running: matches!(saga.status, SagaStatus::Running | SagaStatus::Unwinding),
            ended: ended.max(saga.verifying_since.unwrap_or_default()),
        }
    }
}
