//! One decision: observe, judge, propose.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt as _, stream};
use medic_state::{Command, IncidentId, Refusal, TraceId, command::AdoptDecision, symptom::Target};

use super::{Context, WorkError, desk::End};
use crate::{
    action::{judge::guarded, metrics::Metric},
    crash_point,
    intelligence::{Conclusion, DecisionInput},
    world::{Observation, World},
};

/// Targets observed for one decision at most; in a round of verification, beside those whose health
/// decides.
pub(super) const OBSERVED_MAX: usize = 48;
/// Observations under way at once.
const OBSERVING_MAX: usize = 16;

/// Decides about one incident.
pub(super) async fn decide(context: Context, id: IncidentId) -> Result<End, WorkError> {
    let started = tokio::time::Instant::now();
    let targets = || {
        context.read(|state| {
            let Some(incident) = state.incidents.get(&id) else { return Ok(None) };
            Ok(Some((incident.trace, context.judge.targets_to_observe(state, id))))
        })
    };
    let looked = guarded("the decision", targets).map_err(WorkError::Judgement)?;
    let Some((trace, mut targets)) = looked else { return Ok(End::Done) };
    targets.truncate(OBSERVED_MAX);
    let limit = context.config.observe_timeout;
    let observations = observe_all(&context, targets, limit).await;
    let now = context.office.clock().now();
    let judged = guarded("the decision", || {
        context.read(|state| {
            let Some(incident) = state.incidents.get(&id) else { return Ok(None) };
            let input = DecisionInput {
                state,
                incident: id,
                observations: &observations,
                overrides: context.config.overrides,
                now,
            };
            context.judge.decide(&input).map(|conclusion| Some((incident.revision, conclusion)))
        })
    });
    let (based_on, proposal) = match judged.map_err(WorkError::Judgement)? {
        None => return Ok(End::Done),
        Some((_, Conclusion::Wait { until, reason })) => {
            tracing::debug!(?until, reason, "no decision yet");
            return Ok(End::Wait(until));
        }
        Some((revision, Conclusion::Propose(proposal))) => (revision, *proposal),
    };
    crash_point!("decide_before_adopt");
    let fence = context.office.fence();
    let adopt = AdoptDecision { incident: id, based_on, fence, proposal };
    let end = adopt_decision(&context, trace, adopt).await?;
    crash_point!("decide_after_adopt");
    metrics::histogram!(Metric::DecisionDuration.name()).record(started.elapsed().as_secs_f64());
    Ok(end)
}

async fn adopt_decision(
    context: &Context,
    trace: TraceId,
    adopt: AdoptDecision,
) -> Result<End, WorkError> {
    match context.office.ask(trace, Command::AdoptDecision(Box::new(adopt))).await? {
        Ok(reply) => {
            tracing::info!(?reply, "decided");
            Ok(End::Done)
        }
        Err(Refusal::StaleRevision { .. }) => Ok(End::Again),
        Err(Refusal::HeldBack(why)) => Ok(End::HeldBack(why)),
        Err(refusal @ (Refusal::IllegalState(_) | Refusal::NotFound(_))) => {
            // Treated, closed or merged meanwhile. Were it still owed, it is tried again later.
            Ok(End::HeldBack(refusal.to_string()))
        }
        Err(refusal @ Refusal::StaleFence { .. }) => {
            context.office.depose();
            Err(context.office.lost(refusal.to_string()).into())
        }
        Err(refusal) => Err(WorkError::Refused { command: "AdoptDecision", refusal }),
    }
}

/// Observes in parallel; of a target that takes longer than `limit` nothing is known, and that is said:
/// it must not look as it did when it was seen last.
pub(super) async fn observe_all(
    context: &Context,
    targets: Vec<Target>,
    limit: Duration,
) -> BTreeMap<Target, Observation> {
    let clock = context.office.ledger().env().clock.clone();
    let one = |target: Target| {
        let world = context.world.clone();
        let clock = clock.clone();
        async move {
            let seen = tokio::time::timeout(limit, World::observe(world.as_ref(), &target)).await;
            let observation = seen.unwrap_or_else(|_| Observation {
                at: clock.now(),
                errors: [("observation".to_owned(), format!("took longer than {limit:?}"))].into(),
                ..Observation::default()
            });
            (target, observation)
        }
    };
    stream::iter(targets.into_iter().map(one)).buffer_unordered(OBSERVING_MAX).collect().await
}
