//! `Tick`: time passes. What ends with time ends here and nowhere else.

use crate::{
    applied::{Answer, Reply},
    ids::{IncidentId, Millis, PlanId, Timestamp},
    incident::Resolution,
    law::{context::Context, holds, judge::outcome, saga},
    manifest::{Kind, ManifestKey, OnTimeout},
    planted::{self, Planted, planted},
    saga::{Saga, SagaStatus},
    state::{FreezeScope, State},
};

/// How long a begun plan may wait for its next step to be admitted before it is rolled back.
/// A freeze does not count: it is a human's, and ends by a human.
const MAX_HELD: Millis = Millis::from_secs(900);
/// Starts and ends older than this matter to no rate and no cooldown: a manifest's longest is 7 d.
const RETENTION: Millis = Millis::from_secs(7 * 86_400);

pub(super) fn apply(state: &mut State, context: &mut Context<'_>) -> Answer {
    if planted(Planted::LocksExpire) {
        let State { locks, sagas, .. } = &mut *state;
        let old = |plan: &PlanId| {
            let begun = sagas.get(plan).and_then(|saga| saga.started_at);
            begun.is_some_and(|at| context.now.since(at) > Millis(8_000))
        };
        locks.retain(|_, plan| !old(plan));
    }
    if planted(Planted::LawReadsOutside) {
        state.totals.manual = state.totals.manual.wrapping_add(planted::outside());
    }
    let changed = [
        expire_freezes(state),
        expire_breakers(state),
        expire_approvals(state, context),
        drop_stale(state, context),
        unwind_held(state, context),
        close_cleared(state, context),
        outcome::stayed_away(state, context),
        holds::refresh(state, context),
        prune(state),
    ];
    if changed.contains(&true) {
        Ok(Reply::Done)
    } else {
        Ok(Reply::Noted("nothing was due".to_owned()))
    }
}

impl State {
    /// The earliest time at which a `Tick` changes something, or lets people be told of something;
    /// `None`: never, as things stand.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let freezes = self.freezes.values().filter_map(|freeze| freeze.until);
        let breakers = self.breakers.values().filter_map(|breaker| breaker.open_until);
        let sagas = self.sagas.values().filter_map(|saga| {
            approval_due(saga).or_else(|| stale_at(saga)).or_else(|| self.held_due(saga))
        });
        let cleared = self.incidents.values().filter_map(|incident| self.self_clears_at(incident));
        let windows = self.window_edges();
        let told = self.hush_ends().into_iter().chain(self.recurring_ends());
        let judged = self.outcome_due();
        let of_incidents = cleared.chain(windows).chain(told).chain(judged);
        freezes.chain(breakers).chain(sagas).chain(of_incidents).min()
    }

    /// When windows end that hold incidents back.
    fn window_edges(&self) -> Option<Timestamp> {
        let held: Vec<&str> = self
            .incidents
            .values()
            .filter(|incident| {
                let held = incident.held_by.as_deref();
                !incident.closed() && held.is_some_and(|by| by.starts_with("maintenance window "))
            })
            .map(|incident| incident.tenant.as_str())
            .collect();
        held.into_iter()
            .flat_map(|tenant| self.stored_of(Kind::MaintenanceWindow, tenant))
            .filter_map(|(_, stored)| super::topology::as_window(&stored.manifest.spec))
            .filter_map(|window| window.until(self.now))
            .min()
    }

    fn held_due(&self, saga: &Saga) -> Option<Timestamp> {
        let since = self.held_since.get(&saga.id)?;
        Some(since.plus(MAX_HELD))
    }
}

fn approval_due(saga: &Saga) -> Option<Timestamp> {
    saga.approval_until.filter(|_| saga.status == SagaStatus::AwaitingApproval)
}

/// A plan that may start and never did: what it was made for may be history.
fn stale_at(saga: &Saga) -> Option<Timestamp> {
    let waits = saga.status == SagaStatus::Running && saga.started_at.is_none();
    let since = saga.approvals.values().max().copied().unwrap_or(saga.created_at);
    waits.then(|| since.plus(saga.plan.approval.ttl))
}

fn expire_freezes(state: &mut State) -> bool {
    let now = state.now;
    let expired: Vec<FreezeScope> = state
        .freezes
        .iter()
        .filter(|(_, freeze)| freeze.until.is_some_and(|until| until <= now))
        .map(|(scope, _)| scope.clone())
        .collect();
    for scope in &expired {
        state.freezes.remove(scope);
    }
    !expired.is_empty()
}

/// An open breaker closes half: the next failure opens it again at once.
fn expire_breakers(state: &mut State) -> bool {
    let now = state.now;
    let mut changed = false;
    for breaker in state.breakers.values_mut() {
        if breaker.open_until.is_some_and(|until| until <= now) {
            breaker.open_until = None;
            breaker.failures = breaker.failures.saturating_sub(1);
            changed = true;
        }
    }
    changed
}

fn due(state: &State, when: impl Fn(&Saga) -> Option<Timestamp>) -> Vec<(PlanId, IncidentId)> {
    let due = |saga: &&Saga| when(saga).is_some_and(|at| at <= state.now);
    state.sagas.values().filter(due).map(|saga| (saga.id, saga.incident)).collect()
}

fn expire_approvals(state: &mut State, context: &mut Context<'_>) -> bool {
    let expired = due(state, approval_due);
    for (plan, incident) in &expired {
        let Some(saga) = state.sagas.get(plan) else { continue };
        let then = saga.plan.approval.on_timeout;
        let reason = format!("nobody approved {plan} within {}", saga.plan.approval.ttl);
        saga::drop_plan(state, context, *plan, &reason);
        // Counted as an attempt, so that the same question is not asked for ever.
        state.note_attempt(context, *plan, &reason);
        match then {
            OnTimeout::Escalate => state.escalate(context, *incident, &reason),
            OnTimeout::Reject => state.back_to_open(context, *incident, &reason),
        }
    }
    !expired.is_empty()
}

fn drop_stale(state: &mut State, context: &mut Context<'_>) -> bool {
    let stale = due(state, stale_at);
    for (plan, incident) in &stale {
        let reason = "it was held back for too long before its first step";
        saga::drop_plan(state, context, *plan, reason);
        state.back_to_open(context, *incident, &format!("{plan} is out of date: {reason}"));
    }
    !stale.is_empty()
}

fn unwind_held(state: &mut State, context: &mut Context<'_>) -> bool {
    let held = due(state, |saga| state.held_due(saga));
    for (plan, _) in &held {
        let reason = format!("its next step was held back for {MAX_HELD}");
        saga::unwind(state, context, *plan, &reason);
    }
    !held.is_empty()
}

fn close_cleared(state: &mut State, context: &mut Context<'_>) -> bool {
    let cleared: Vec<IncidentId> = state
        .incidents
        .values()
        .filter(|incident| state.self_clears_at(incident).is_some_and(|at| at <= state.now))
        .map(|incident| incident.id)
        .collect();
    for id in &cleared {
        outcome::ends_by_itself(state, *id);
        state.close(context, *id, Resolution::SelfCleared);
    }
    !cleared.is_empty()
}

/// Forgets starts and ends that can matter no more. No change worth a line in the audit log.
fn prune(state: &mut State) -> bool {
    let now = state.now;
    let old = |at: &Timestamp| at.plus(RETENTION) <= now;
    for starts in state.playbook_starts.values_mut().chain(state.target_starts.values_mut()) {
        while starts.front().is_some_and(old) {
            starts.pop_front();
        }
    }
    state.playbook_starts.retain(|_, starts| !starts.is_empty());
    state.target_starts.retain(|_, starts| !starts.is_empty());
    state.target_ends.retain(|_, at| !old(at));
    let manifests = &state.manifests;
    state.breakers.retain(|(tenant, name), breaker| {
        let (kind, tenant, name) = (Kind::Playbook, tenant.clone(), name.clone());
        let declared = || manifests.contains_key(&ManifestKey { kind, tenant, name });
        breaker.failures > 0 && (breaker.open_until.is_some() || declared())
    });
    false
}
