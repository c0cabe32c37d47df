//! The saga driver: one step, one way, from intent to outcome.
//!
//! ```text
//!   before_start ─ StartStep ─ after_start ─ may I? ─ before_send ─ act ─ after_act ─ FinishStep ─ after_finish
//!                  committed,                freeze,               same              until committed,
//!                  applied here              lease                 key               or office lost
//! ```
//!
//! *May I* means: the intent is applied here under my fence, nothing froze since, the target is what
//! the plan took it for, and a quorum was heard from recently enough. How recently depends on who
//! enforces the fence:
//! - **Acts through an agent.** The agent refuses old fences, so an act that arrives late is
//!   harmless; only the *sending* must fall within the lease. The remaining lease must be at least
//!   [`DriverConfig::send_budget`] (50 ms), not the step's timeout (30 s, a hundred leases long).
//! - **Acts by this node itself** (webhooks). Nobody refuses them. The sending must fall within the
//!   lease likewise, the act is cut off at its timeout, and whoever leads next waits, from taking
//!   office, for [`DriverConfig::lease_max`] plus that timeout plus [`DriverConfig::act_grace`] before it does
//!   anything about the same step. It counts from its own monotonic clock: no wall clock is trusted.
//!   What remains is a process stopped between the check and the write to the socket for longer than
//!   that; no check on this side of an unfenced target can exclude it.
//!
//! Without the lease the driver does not act: it waits while it may still lead, and else leaves the
//! intent for whoever leads next. An `Unknown` outcome is first asked about, then recorded.
//!
//! Invariant: one attempt of one key is sent again only where that cannot apply it twice.
//! Deliberately absent: which step comes next, and what a failure leads to. That is the law's.

mod resume;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use medic_raft::LedgerExt as _;
use medic_state::{
    Answer, Command, Fence, Refusal, Reply, State, TraceId,
    action::action_info,
    command::{FinishStep, StartStep},
    manifest::SafetyClass,
    plan::{Action, Direction, StepKey},
    planted::{Planted, planted},
    saga::{Intent, Outcome, StepState},
};
use tokio::time::Instant;

use super::{
    metrics::Metric,
    office::{Office, OfficeError},
    resources::{self, Readiness},
};
use crate::{
    crash_point,
    world::{ActResult, Order, World},
};

/// How often the lease is looked at while it is too short; heartbeats come every 50 to 100 ms.
const LEASE_POLL: Duration = Duration::from_millis(10);
/// How often an agent that is away is looked for.
const READY_POLL: Duration = Duration::from_millis(50);
/// How often everything else is looked at again while an act is held back, beside every change.
const HOLD_POLL: Duration = Duration::from_secs(1);

/// Bounds of the driver.
#[derive(Clone, Copy, Debug)]
pub struct DriverConfig {
    /// Lease that must remain when an act is sent.
    pub send_budget: Duration,
    /// Longest lease any leader of this cluster can hold: the greatest election timeout.
    pub lease_max: Duration,
    /// What `World::act` may take beyond its timeout: a second by its contract, and one for scheduling.
    pub act_grace: Duration,
    /// How long to wait for an agent that is away, before the act is tried all the same.
    pub agent_wait: Duration,
    /// How long to go on asking what became of an act before it counts as unknown.
    pub settle: Duration,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self {
            send_budget: Duration::from_millis(50),
            lease_max: Duration::from_secs(1),
            act_grace: Duration::from_secs(2),
            agent_wait: Duration::from_secs(10),
            settle: Duration::from_secs(20),
        }
    }
}

/// How driving ended, when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driven {
    /// An outcome was recorded.
    Recorded,
    /// The law holds the step back for now; nothing was begun.
    HeldBack(String),
    /// The step is not wanted any more; nothing was begun.
    Obsolete(String),
}

/// Driving failed inside Medic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// Another leader goes on.
    #[error(transparent)]
    Office(#[from] OfficeError),
    /// The law refused what it had asked for.
    #[error("the law refused {command} of {key}: {refusal}")]
    Refused {
        /// Which command.
        command: &'static str,
        /// Which step.
        key: StepKey,
        /// Why.
        refusal: Refusal,
    },
}

/// Drives steps while one office is held.
#[derive(Clone)]
pub struct Driver {
    office: Office,
    world: Arc<dyn World>,
    config: DriverConfig,
}

/// A step whose intent is applied here under this office's fence.
#[derive(Clone, Debug)]
struct Job {
    order: Order,
    safety: SafetyClass,
    /// Whether all probes of the target were good when the plan was made; `None`: not seen.
    served_before: Option<bool>,
}

impl Driver {
    /// A driver for one term in office.
    #[must_use]
    pub fn new(office: Office, world: Arc<dyn World>, config: DriverConfig) -> Self {
        Self { office, world, config }
    }

    /// Brings one step, one way, to an outcome. `resume` is the fence of an intent that is there
    /// already: an earlier leader's, or this office's own when its driver failed.
    ///
    /// # Errors
    /// When office is lost, or the law refuses what it asked for.
    pub async fn drive(
        &self,
        key: StepKey,
        resume: Option<Fence>,
        trace: TraceId,
    ) -> Result<Driven, DriveError> {
        boundary(key, "driver_before_start", "driver_undo_before_start");
        if planted(Planted::ActBeforeCommit) {
            self.act_before_commit(key, trace).await;
        }
        let kept = resume.is_some() && planted(Planted::OldFenceResumed);
        if resume != Some(self.office.fence()) && !kept {
            let start = StartStep {
                plan: key.plan,
                step: key.step,
                direction: key.direction,
                fence: self.office.fence(),
                resume: resume.is_some(),
            };
            let answer = self.office.ask(trace, Command::StartStep(start)).await?;
            if let Some(not_begun) = self.not_begun(key, answer)? {
                return Ok(not_begun);
            }
        }
        boundary(key, "driver_after_start", "driver_undo_after_start");
        let job = match self.office.ledger().read(|state| self.job(state, key, trace)) {
            Ok(job) => job,
            Err(why) if self.office.held() => return Ok(Driven::Obsolete(why)),
            Err(why) => return Err(self.office.lost(why).into()),
        };
        let span = tracing::info_span!("step", key = %key, fence = %self.office.fence());
        let outcome = {
            use tracing::Instrument as _;
            let acting = async {
                match resume {
                    None => self.send_and_settle(&job, false).await,
                    Some(from) => self.resume(&job, from).await,
                }
            };
            acting.instrument(span).await?
        };
        boundary(key, "driver_after_act", "driver_undo_after_act");
        let driven = self.finish(&job, outcome).await?;
        boundary(key, "driver_after_finish", "driver_undo_after_finish");
        Ok(driven)
    }

    /// Records `Unknown` for an intent of this office whose driver keeps failing, so that it ends.
    ///
    /// # Errors
    /// As [`Driver::drive`].
    pub async fn give_up(
        &self,
        key: StepKey,
        trace: TraceId,
        reason: String,
    ) -> Result<Driven, DriveError> {
        match self.office.ledger().read(|state| self.job(state, key, trace)) {
            Ok(job) => self.finish(&job, Outcome::Unknown { reason }).await,
            Err(why) => Ok(Driven::Obsolete(why)),
        }
    }

    /// A mistake on purpose: the act goes out first, and its intent is committed afterwards.
    async fn act_before_commit(&self, key: StepKey, trace: TraceId) {
        let order = self.office.ledger().read(|state| {
            let saga = state.sagas.get(&key.plan)?;
            let planned = saga.plan.steps.get(usize::try_from(key.step).ok()?)?;
            (key.direction == Direction::Forward).then(|| Order {
                key,
                fence: self.office.fence(),
                attempt: 1,
                action: planned.action.clone(),
                target: planned.target.clone(),
                agent: planned.agent.clone(),
                timeout: planned.timeout,
                trace,
            })
        });
        if let Some(order) = order {
            self.world.act(&order).await;
        }
    }

    /// Why a `StartStep` led to no intent, if it led to none.
    fn not_begun(&self, key: StepKey, answer: Answer) -> Result<Option<Driven>, DriveError> {
        match answer {
            Ok(Reply::Noted(why)) => Ok(Some(Driven::Obsolete(why))),
            Ok(_) => Ok(None),
            Err(Refusal::HeldBack(why)) => Ok(Some(Driven::HeldBack(why))),
            Err(refusal @ (Refusal::IllegalState(_) | Refusal::NotFound(_))) => {
                Ok(Some(Driven::Obsolete(refusal.to_string())))
            }
            Err(refusal @ Refusal::StaleFence { .. }) => {
                self.office.depose();
                Err(self.office.lost(refusal.to_string()).into())
            }
            Err(refusal) => Err(DriveError::Refused { command: "StartStep", key, refusal }),
        }
    }

    /// The order that belongs to the intent in force, or why there is none of ours.
    fn job(&self, state: &State, key: StepKey, trace: TraceId) -> Result<Job, String> {
        let saga = state.sagas.get(&key.plan).ok_or_else(|| format!("there is no {}", key.plan))?;
        let at = usize::try_from(key.step).unwrap_or(usize::MAX);
        let (planned, step) = saga
            .plan
            .steps
            .get(at)
            .zip(saga.steps.get(at))
            .ok_or_else(|| format!("{} has no step {}", key.plan, key.step))?;
        let intent = own_intent(step, key, self.office.fence())
            .or(step.intent.as_ref().filter(|_| planted(Planted::OldFenceResumed)))
            .ok_or_else(|| format!("{key} has no intent under {}", self.office.fence()))?;
        let (action, safety) = match (key.direction, &planned.undo) {
            (Direction::Forward, _) => (planned.action.clone(), planned.safety),
            (Direction::Undo, Some(undo)) => {
                // The step's class speaks of its action; the undo is another action.
                let safety = action_info(&undo.name).map_or(planned.safety, |info| info.safety);
                (with_evidence(undo, step), safety)
            }
            (Direction::Undo, None) => return Err(format!("{key} has nothing to undo")),
        };
        let order = Order {
            key,
            fence: intent.fence,
            attempt: intent.attempt,
            action,
            target: planned.target.clone(),
            agent: planned.agent.clone(),
            timeout: planned.timeout,
            trace,
        };
        let served_before = resume::served_before(&saga.plan.baseline, &order.target);
        Ok(Job { order, safety, served_before })
    }

    /// Waits until the act may be sent; gives the reason when it never may.
    async fn permitted(&self, job: &Job) -> Result<Option<String>, DriveError> {
        let key = job.order.key;
        let mut applied = self.office.ledger().applied();
        let patient_until = Instant::now() + self.config.agent_wait;
        loop {
            if !self.office.held() {
                return Err(self.office.lost(format!("before {key} was sent")).into());
            }
            let readiness = self.office.ledger().read(|state| match state.sagas.get(&key.plan) {
                Some(saga) => resources::readiness(state, saga, key.step, key.direction),
                None => Readiness::Never(format!("there is no {}", key.plan)),
            });
            match readiness {
                Readiness::Never(why) => return Ok(Some(why)),
                Readiness::Later(why) => {
                    tracing::debug!(%key, why, "held back before the act");
                    let changed = tokio::time::timeout(HOLD_POLL, applied.changed()).await;
                    if matches!(changed, Ok(Err(_))) {
                        return Err(self.office.lost("the ledger has closed").into());
                    }
                }
                Readiness::Ready => {
                    if let Err(why) = self.world.ready(&job.order)
                        && Instant::now() < patient_until
                    {
                        tracing::debug!(%key, why, "waiting");
                        tokio::time::sleep(READY_POLL).await;
                        continue;
                    }
                    let unchecked = planted(Planted::LeaseUnchecked);
                    let lease = self.office.ledger().lease_remaining();
                    if lease >= self.config.send_budget || unchecked {
                        return Ok(None);
                    }
                    tokio::time::sleep(LEASE_POLL).await;
                }
            }
        }
    }

    /// Sends an act once.
    async fn send(&self, job: &Job) -> Result<Outcome, DriveError> {
        if let Some(reason) = self.permitted(job).await? {
            return Ok(Outcome::Failed { reason, retryable: false });
        }
        boundary(job.order.key, "driver_before_send", "driver_undo_before_send");
        let limit = job.order.timeout.as_duration() + self.config.act_grace;
        tracing::info!(action = job.order.action.name, target = %job.order.target, attempt = job.order.attempt, "acting");
        let sent = Instant::now();
        let mut order = job.order.clone();
        if order.attempt > 1 && planted(Planted::FreshKeyOnRetry) {
            order.key.plan.0 += 1_000_000;
        }
        let answer = tokio::time::timeout(limit, self.world.act(&order)).await;
        let action = job.order.action.name.clone();
        metrics::histogram!(Metric::ActDuration.name(), "action" => action)
            .record(sent.elapsed().as_secs_f64());
        match answer {
            Ok(ActResult::Outcome(Outcome::Unknown { .. }))
                if planted(Planted::UnknownReportedDone) =>
            {
                Ok(Outcome::Done(std::collections::BTreeMap::new()))
            }
            Ok(ActResult::Outcome(outcome)) => Ok(outcome),
            Ok(ActResult::RefusedFence(highest)) => self.refused(job, highest).await,
            Err(_) => Ok(Outcome::Unknown { reason: format!("no answer within {limit:?}") }),
        }
    }

    /// A target knows a higher fence. Either another leader is in office, or the target has seen a
    /// fence that this cluster never committed.
    async fn refused(&self, job: &Job, highest: Fence) -> Result<Outcome, DriveError> {
        let log_end = match self.office.ledger().linearize().await {
            Ok(applied) if self.office.held() => applied,
            Ok(_) | Err(_) => {
                self.office.depose();
                return Err(self.office.lost(format!("the target has accepted {highest}")).into());
            }
        };
        if highest.0 <= log_end {
            // Ours after all, from an office of this term that was given up: take a higher one.
            self.office.depose();
            return Err(self.office.lost(format!("the target has accepted {highest}")).into());
        }
        let reason = format!(
            "agent `{}` has accepted {highest}, which this cluster never committed (its log ends at \
             {log_end}): it served another cluster, or this one was restored from an older state; \
             remove the agent's state directory if that is so",
            job.order.agent
        );
        Ok(Outcome::Failed { reason, retryable: false })
    }

    /// Commits the outcome.
    async fn finish(&self, job: &Job, outcome: Outcome) -> Result<Driven, DriveError> {
        let Order { key, fence, trace, .. } = job.order;
        tracing::info!(%key, %fence, ?outcome, "outcome");
        let finish =
            FinishStep { plan: key.plan, step: key.step, direction: key.direction, fence, outcome };
        match self.office.ask(trace, Command::FinishStep(finish)).await? {
            Ok(_) => Ok(Driven::Recorded),
            Err(refusal @ Refusal::StaleFence { .. }) => {
                self.office.depose();
                Err(self.office.lost(refusal.to_string()).into())
            }
            Err(refusal) => Err(DriveError::Refused { command: "FinishStep", key, refusal }),
        }
    }
}

/// The intent in force, if it goes this way and is this office's.
fn own_intent(step: &StepState, key: StepKey, fence: Fence) -> Option<&Intent> {
    step.intent.as_ref().filter(|intent| intent.direction == key.direction && intent.fence == fence)
}

/// What undo needs and only the act could tell (for example the hash of the replaced configuration):
/// evidence named `undo.<parameter>` fills in parameters that the plan left open.
fn with_evidence(undo: &Action, step: &StepState) -> Action {
    let mut action = undo.clone();
    for (name, value) in &step.evidence {
        if let Some(parameter) = name.strip_prefix("undo.") {
            action.params.entry(parameter.to_owned()).or_insert_with(|| value.clone());
        }
    }
    action
}

fn boundary(key: StepKey, forward: &'static str, undo: &'static str) {
    let name = match key.direction {
        Direction::Forward => forward,
        Direction::Undo => undo,
    };
    crash_point!(name, key.step);
}
