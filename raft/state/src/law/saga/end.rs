//! How sagas end, and what that means: locks, cooldowns, breakers, lessons, the incident.

use crate::{
    ids::{IncidentId, PlanId},
    incident::{IncidentStatus, Resolution},
    law::{
        context::{Context, LAW, clip},
        incidents::tell,
    },
    manifest::Kind,
    planted::{Planted, planted},
    saga::SagaStatus,
    state::{FreezeScope, FreezeState, Lesson, LessonKey, State},
    symptom::Target,
};

/// Lessons kept: every playbook of a large installation with every class of fault.
const MAX_LESSONS: usize = 8_192;

/// Marks a saga ended; gives its incident.
fn end(
    state: &mut State,
    context: &mut Context<'_>,
    plan: PlanId,
    status: SagaStatus,
    reason: Option<&str>,
) -> Option<IncidentId> {
    let saga = state.sagas.get_mut(&plan)?;
    saga.status = status;
    saga.ended_at = Some(context.now);
    if let Some(reason) = reason {
        saga.reason = Some(clip(reason));
    }
    let incident = saga.incident;
    state.held_since.remove(&plan);
    context.touched.insert(incident);
    Some(incident)
}

/// Gives the locks back; from here the cooldown runs.
fn release(state: &mut State, context: &Context<'_>, plan: PlanId) {
    let held: Vec<Target> = state
        .locks
        .iter()
        .filter(|(_, holder)| **holder == plan)
        .map(|(target, _)| target.clone())
        .collect();
    for target in held {
        state.locks.remove(&target);
        state.target_ends.insert(target, context.now);
    }
}

/// Frees targets of a plan that never began: no cooldown.
fn release_unused(state: &mut State, plan: PlanId) {
    state.locks.retain(|_, holder| *holder != plan);
}

/// Counts what the plan taught.
fn learn(state: &mut State, plan: PlanId, incident: IncidentId, count: impl FnOnce(&mut Lesson)) {
    let Some(saga) = state.sagas.get(&plan) else { return };
    let decision = state.incidents.get(&incident).and_then(|found| found.decision.as_ref());
    let Some(decision) = decision else { return };
    let key = LessonKey {
        tenant: saga.tenant.clone(),
        class: decision.proposal.class.clone(),
        playbook: saga.plan.playbook.clone(),
    };
    if !state.lessons.contains_key(&key) && state.lessons.len() >= MAX_LESSONS {
        // Makes room: what was learnt of a playbook that is gone, else the least of what is known.
        let gone =
            |key: &LessonKey| state.stored(Kind::Playbook, &key.tenant, &key.playbook).is_none();
        let weight = |lesson: &Lesson| {
            lesson.succeeded.saturating_add(lesson.failed).saturating_add(lesson.inconclusive)
        };
        let least = state.lessons.iter().min_by_key(|(key, known)| (!gone(key), weight(known)));
        if let Some(least) = least.map(|(key, _)| key.clone()) {
            state.lessons.remove(&least);
        }
    }
    count(state.lessons.entry(key).or_default());
}

/// A plan that began did not help: its breaker counts, and opens at the policy's bound.
fn trip(state: &mut State, context: &Context<'_>, plan: PlanId) {
    let Some(saga) = state.sagas.get(&plan) else { return };
    let policy = state.policy(&saga.tenant);
    let key = (saga.tenant.clone(), saga.plan.playbook.clone());
    let breaker = state.breakers.entry(key).or_default();
    breaker.failures = breaker.failures.saturating_add(1);
    if breaker.failures >= policy.breaker_failures.max(1) {
        breaker.open_until = Some(context.now.plus(policy.breaker_open));
    }
}

/// Verified: the incident is over.
pub(in crate::law) fn end_succeeded(state: &mut State, context: &mut Context<'_>, plan: PlanId) {
    let Some(id) = end(state, context, plan, SagaStatus::Succeeded, None) else { return };
    release(state, context, plan);
    state.totals.successful = state.totals.successful.saturating_add(1);
    let started = state.sagas.get(&plan).and_then(|saga| saga.started_at);
    let heal = context.now.since(started.unwrap_or(context.now));
    learn(state, plan, id, |lesson| {
        lesson.succeeded = lesson.succeeded.saturating_add(1);
        lesson.heal_ms_sum = lesson.heal_ms_sum.saturating_add(heal.0);
    });
    if let Some(saga) = state.sagas.get(&plan) {
        state.breakers.remove(&(saga.tenant.clone(), saga.plan.playbook.clone()));
    }
    state.close(context, id, Resolution::Remediated);
}

/// Nobody can tell whether it helped: what was done is kept, and a human looks.
///
/// Undoing would be a second change on top of an unknown one; "no data" is no proof of harm.
pub(in crate::law) fn end_inconclusive(
    state: &mut State,
    context: &mut Context<'_>,
    plan: PlanId,
    reason: &str,
) {
    let Some(id) = end(state, context, plan, SagaStatus::Failed, Some(reason)) else { return };
    release(state, context, plan);
    learn(state, plan, id, |lesson| {
        lesson.inconclusive = lesson.inconclusive.saturating_add(1);
    });
    state.note_attempt(context, plan, reason);
    state.escalate(context, id, reason);
}

/// All that was done is undone: decide again while attempts are left and no human stepped in.
pub(super) fn end_rolled_back(state: &mut State, context: &mut Context<'_>, plan: PlanId) {
    let Some(id) = end(state, context, plan, SagaStatus::RolledBack, None) else { return };
    release(state, context, plan);
    state.totals.rolled_back = state.totals.rolled_back.saturating_add(1);
    let Some(saga) = state.sagas.get(&plan) else { return };
    let reason = saga.reason.clone().unwrap_or_default();
    let attempts_max = saga.plan.scope.max_attempts;
    state.note_attempt(context, plan, &reason);
    let Some(incident) = state.incidents.get(&id) else { return };
    let stopped_by_human = incident.escalation.clone();
    let attempts = u32::try_from(incident.attempts.len()).unwrap_or(u32::MAX);
    match stopped_by_human {
        Some(why) => state.escalate(context, id, &why),
        None => {
            trip(state, context, plan);
            learn(state, plan, id, |lesson| lesson.failed = lesson.failed.saturating_add(1));
            if attempts < attempts_max || planted(Planted::AttemptsUncapped) {
                state.back_to_open(context, id, &format!("{plan} is rolled back; deciding again"));
            } else {
                let text = format!(
                    "{attempts} of {attempts_max} attempts did not help; the last: {reason}"
                );
                state.escalate(context, id, &text);
            }
        }
    }
}

/// It could be neither finished nor undone.
pub(in crate::law) fn end_failed(
    state: &mut State,
    context: &mut Context<'_>,
    plan: PlanId,
    reason: &str,
) {
    let Some(id) = end(state, context, plan, SagaStatus::Failed, Some(reason)) else { return };
    release(state, context, plan);
    trip(state, context, plan);
    learn(state, plan, id, |lesson| lesson.failed = lesson.failed.saturating_add(1));
    state.note_attempt(context, plan, reason);
    state.escalate(context, id, reason);
}

/// Nobody can tell whether an act happened: its target is frozen and the locks are kept.
pub(in crate::law) fn end_unknown(
    state: &mut State,
    context: &mut Context<'_>,
    plan: PlanId,
    target: &Target,
    reason: &str,
) {
    let Some(id) = end(state, context, plan, SagaStatus::Unknown, Some(reason)) else { return };
    state.totals.unknown = state.totals.unknown.saturating_add(1);
    trip(state, context, plan);
    learn(state, plan, id, |lesson| {
        lesson.inconclusive = lesson.inconclusive.saturating_add(1);
    });
    let why = clip(&format!("{plan}: {reason}"));
    let freeze = state.freezes.entry(FreezeScope::Target(target.clone()));
    freeze
        // A human's stays theirs, and lasts until somebody lifts it.
        .and_modify(|theirs| {
            theirs.until = None;
            theirs.reason = clip(&format!("{}; {why}", theirs.reason));
        })
        .or_insert_with(|| FreezeState {
            by: LAW.to_owned(),
            reason: why.clone(),
            at: context.now,
            until: None,
        });
    state.note_attempt(context, plan, reason);
    state.escalate(context, id, reason);
    super::super::holds::refresh(state, context);
}

/// A human has looked: the locks of a plan that ended `Unknown` are given back, and the freezes
/// that the law set for it are lifted.
pub(in crate::law) fn settle_unknown(state: &mut State, context: &mut Context<'_>, plan: PlanId) {
    release(state, context, plan);
    let prefix = format!("{plan}: ");
    state.freezes.retain(|scope, freeze| {
        !(matches!(scope, FreezeScope::Target(_))
            && freeze.by == LAW
            && freeze.reason.starts_with(&prefix))
    });
    super::super::holds::refresh(state, context);
}

/// Drops a plan none of whose steps ever started. The incident is the caller's to move.
pub(in crate::law) fn drop_plan(
    state: &mut State,
    context: &mut Context<'_>,
    plan: PlanId,
    reason: &str,
) {
    let Some(id) = end(state, context, plan, SagaStatus::Dropped, Some(reason)) else { return };
    release_unused(state, plan);
    if let Ok(incident) = state.incident_mut(id) {
        debug_assert!(
            !matches!(incident.status, IncidentStatus::Verifying | IncidentStatus::RollingBack),
            "only plans that did not begin are dropped"
        );
        tell(incident, context, format!("{plan} is dropped: {reason}"));
    }
}
