//! One verification: observe every second (less often where much must be remembered), judge, record
//! the verdict.

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

/// Samples kept: the last minute and a half of forty-eight targets, ten minutes of seven. Where a plan
/// wants to look further back, samples are taken further apart ([`interval`]).
const HISTORY_MAX: usize = 4_320;
/// Beyond the hold time, what judgement looks back at.
const LOOK_BACK: Duration = Duration::from_secs(15);
/// Beyond the plan's own bound, how long judgement may say "wait".
const OVERTIME: Duration = Duration::from_secs(60);

/// Holds a plan's expectations against the world until there is a verdict.
pub(super) async fn verify(context: Context, plan: PlanId) -> Result<End, WorkError> {
    let looked =
        guarded("verification", || Ok(context.read(|state| wanted(&context, state, plan))));
    let Some(Wanted { trace, targets, hold, timeout }) = looked.map_err(WorkError::Judgement)?
    else {
        return Ok(End::Done);
    };
    let every = interval(context.config.verify_interval, hold, targets.len());
    let give_up = Instant::now() + timeout + hold + OVERTIME.max(every * 2);
    let mut history = VecDeque::new();
    let mut rounds = tokio::time::interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        let seen = observe_all(&context, targets.clone(), context.config.sample_timeout).await;
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

/// What the verification of a plan takes.
struct Wanted {
    trace: TraceId,
    targets: Vec<Target>,
    hold: Duration,
    timeout: Duration,
}

fn wanted(context: &Context, state: &State, plan: PlanId) -> Option<Wanted> {
    let saga = state.sagas.get(&plan).filter(|saga| saga.status == SagaStatus::Verifying)?;
    let trace = state.incidents.get(&saga.incident)?.trace;
    let mut targets = context.judge.targets_to_sample(state, saga);
    // Those whose health decides come first, and none of them may be left out: of one that is never
    // looked at nothing can be told, and the plan could not pass.
    targets.truncate(OBSERVED_MAX.max(saga.plan.verify_targets.len()));
    let verify = &saga.plan.verify;
    let (hold, timeout) = (verify.hold.as_duration(), verify.timeout.as_duration());
    Some(Wanted { trace, targets, hold, timeout })
}

/// Time between two rounds: the least there may be, and so much that the samples kept of each target
/// reach back over the hold time.
fn interval(least: Duration, hold: Duration, targets: usize) -> Duration {
    let of_each = (HISTORY_MAX / targets.max(1)).max(2);
    let gaps = u32::try_from(of_each - 1).unwrap_or(u32::MAX);
    least.max((hold + LOOK_BACK) / gaps)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_kept_reach_back_over_the_hold_time() {
        let second = Duration::from_secs(1);
        assert_eq!(interval(second, 10 * second, 1), second);
        assert_eq!(interval(second, 60 * second, OBSERVED_MAX), second);
        for (hold_s, targets) in [(600, 48), (10, 256), (86_400, 1), (86_400, 256), (0, 1_000)] {
            let hold = Duration::from_secs(hold_s);
            let every = interval(second, hold, targets);
            let kept = u32::try_from(HISTORY_MAX / targets).unwrap_or(u32::MAX);
            assert!(every * (kept - 1) >= hold, "{hold_s} s over {targets}: every {every:?}");
        }
    }
}
