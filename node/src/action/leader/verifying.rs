//! One verification: observe every second, judge, record the verdict.

use std::{collections::VecDeque, time::Duration};

use medic_state::{
    Command, PlanId, Refusal, State, TraceId, command::RecordVerdict, saga::SagaStatus,
    saga::Verdict, symptom::Target,
};
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Context, WorkError,
    deciding::{OBSERVED_MAX, observe_all},
    desk::End,
};
use crate::{
    action::judge::guarded,
    crash_point,
    validation::{AssessInput, Assessment, Sample},
};

/// Samples kept: the last minute and a half of the most targets, ten minutes of seven.
const HISTORY_MAX: usize = 4_320;
/// Beyond the plan's own bound, how long judgement may say "wait".
const OVERTIME: Duration = Duration::from_secs(60);

/// Holds a plan's expectations against the world until there is a verdict.
pub(super) async fn verify(context: Context, plan: PlanId) -> Result<End, WorkError> {
    let looked =
        guarded("verification", || Ok(context.read(|state| wanted(&context, state, plan))));
    let Some((trace, mut targets, bound)) = looked.map_err(WorkError::Judgement)? else {
        return Ok(End::Done);
    };
    targets.truncate(OBSERVED_MAX);
    let give_up = Instant::now() + bound + OVERTIME;
    let mut history = VecDeque::new();
    let mut rounds = tokio::time::interval(context.config.verify_interval);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let seen = observe_all(&context, targets.clone()).await;
        history
            .extend(seen.into_iter().map(|(target, observation)| Sample { target, observation }));
        history.drain(..history.len().saturating_sub(HISTORY_MAX));
        let assessed = assess(&context, plan, history.make_contiguous())?;
        match assessed {
            None => return Ok(End::Done),
            Some(Assessment::Verdict(verdict)) => {
                return record(&context, trace, plan, verdict).await;
            }
            Some(Assessment::Wait) if Instant::now() >= give_up => {
                let why = format!("verification of {plan} came to no verdict within its time");
                return Err(WorkError::Judgement(why));
            }
            Some(Assessment::Wait) => {}
        }
    }
}

/// Trace, targets and time bound of a plan that is being verified.
fn wanted(
    context: &Context,
    state: &State,
    plan: PlanId,
) -> Option<(TraceId, Vec<Target>, Duration)> {
    let saga = state.sagas.get(&plan).filter(|saga| saga.status == SagaStatus::Verifying)?;
    let trace = state.incidents.get(&saga.incident)?.trace;
    let verify = &saga.plan.verify;
    let bound = verify.timeout.as_duration() + verify.hold.as_duration();
    Some((trace, context.judge.targets_to_sample(state, saga), bound))
}

/// `None` when the plan is no longer being verified.
fn assess(
    context: &Context,
    plan: PlanId,
    history: &[Sample],
) -> Result<Option<Assessment>, WorkError> {
    let now = context.office.clock().now();
    guarded("verification", || {
        context.read(|state| {
            let saga = state.sagas.get(&plan).filter(|s| s.status == SagaStatus::Verifying);
            let Some(saga) = saga else { return Ok(None) };
            context.judge.assess(&AssessInput { state, saga, history, now }).map(Some)
        })
    })
    .map_err(WorkError::Judgement)
}

async fn record(
    context: &Context,
    trace: TraceId,
    plan: PlanId,
    verdict: Verdict,
) -> Result<End, WorkError> {
    crash_point!("verify_before_record");
    tracing::info!(%plan, value = ?verdict.value, score = %verdict.score, "verdict");
    let fence = context.office.fence();
    let command = Command::RecordVerdict(RecordVerdict { plan, fence, verdict });
    let answer = context.office.ask(trace, command).await?;
    crash_point!("verify_after_record");
    match answer {
        Ok(_) => Ok(End::Done),
        Err(refusal @ (Refusal::IllegalState(_) | Refusal::NotFound(_) | Refusal::HeldBack(_))) => {
            Ok(End::HeldBack(refusal.to_string()))
        }
        Err(refusal @ Refusal::StaleFence { .. }) => {
            context.office.depose();
            Err(context.office.lost(refusal.to_string()).into())
        }
        Err(refusal) => Err(WorkError::Refused { command: "RecordVerdict", refusal }),
    }
}
