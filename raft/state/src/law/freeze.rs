//! `Freeze` and `Unfreeze`: people hold back all remediation in a scope, and lift that. Acts that
//! run finish, unwinding goes on; nothing new starts.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::Freeze,
    ids::PlanId,
    law::{
        context::{Context, LAW, MAX_NAME_BYTES, clip},
        holds, saga,
    },
    saga::SagaStatus,
    state::{FreezeScope, FreezeState, State},
};

/// Freezes in force at once, those of unknown outcomes not counted.
const MAX_FREEZES: usize = 1_024;

pub(super) fn freeze(state: &mut State, context: &mut Context<'_>, command: &Freeze) -> Answer {
    check_names(&command.scope)?;
    if command.until.is_some_and(|until| until <= context.now) {
        return Err(Refusal::Invalid("its end has passed already".to_owned()));
    }
    if !state.freezes.contains_key(&command.scope) && state.freezes.len() >= MAX_FREEZES {
        return Err(Refusal::Limit(format!("{MAX_FREEZES} freezes are in force")));
    }
    if let FreezeScope::Target(target) = &command.scope
        && let Some(known) = state.freezes.get(&command.scope)
        && known.by == LAW
    {
        let text = format!("{target} is frozen already: {}", known.reason);
        return Ok(Reply::Noted(text));
    }
    let freeze = FreezeState {
        by: context.actor(),
        reason: clip(&command.reason),
        at: context.now,
        until: command.until,
    };
    state.freezes.insert(command.scope.clone(), freeze);
    holds::refresh(state, context);
    touch_plans(state, context);
    Ok(Reply::Done)
}

pub(super) fn unfreeze(
    state: &mut State,
    context: &mut Context<'_>,
    scope: &FreezeScope,
) -> Answer {
    if state.freezes.remove(scope).is_none() {
        return Err(Refusal::NotFound(format!(
            "freeze of {scope} to lift; medic get freezes lists those in force"
        )));
    }
    if let FreezeScope::Target(target) = scope {
        // Whoever lifts it has looked at the target: what was unknown about it is settled.
        let holder: Option<PlanId> = state.locks.get(target).copied().filter(|plan| {
            state.sagas.get(plan).is_some_and(|saga| saga.status == SagaStatus::Unknown)
        });
        if let Some(plan) = holder {
            saga::settle_unknown(state, context, plan);
        }
    }
    holds::refresh(state, context);
    touch_plans(state, context);
    Ok(Reply::Done)
}

/// A scope lives in memory for as long as its freeze: what it names has a name's length.
fn check_names(scope: &FreezeScope) -> Result<(), Refusal> {
    let names = match scope {
        FreezeScope::Global => vec![],
        FreezeScope::Tenant(name) | FreezeScope::Region(name) => vec![name],
        FreezeScope::Service { tenant, service: name }
        | FreezeScope::Playbook { tenant, playbook: name } => vec![tenant, name],
        FreezeScope::Target(target) => vec![&target.tenant, &target.service, &target.instance],
    };
    if names.into_iter().any(|name| name.len() > MAX_NAME_BYTES) {
        return Err(Refusal::Invalid(format!("a name has more than {MAX_NAME_BYTES} bytes")));
    }
    Ok(())
}

/// Steps may be due again, or no longer.
fn touch_plans(state: &State, context: &mut Context<'_>) {
    let under_way = state.sagas.values().filter(|saga| !saga.status.ended());
    context.touched.extend(under_way.map(|saga| saga.incident));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{command::Command, ids::Timestamp, law::tests::lab::*};

    #[test]
    fn nothing_of_any_length_is_kept() {
        let mut lab = Lab::new();
        let long = "x".repeat(1 << 20);
        let before = lab.state.to_snapshot().len();
        for (user, name) in [("root", "r1"), ("mallory", "r2")] {
            let scope = FreezeScope::Tenant(long.clone());
            let freeze = Freeze { scope: scope.clone(), reason: long.clone(), until: None };
            lab.request = Some(name.into());
            lab.user(user, Command::Freeze(freeze)).unwrap_err();
            lab.request = Some(format!("{name}-again"));
            lab.user(user, Command::Unfreeze(scope)).unwrap_err();
        }
        let grown = lab.state.to_snapshot().len() - before;
        assert!(grown < 32 << 10, "{grown} bytes are remembered of refused commands");
        let records = crate::codec::encode(&lab.records).len();
        assert!(records < 64 << 10, "{records} bytes of audit");
    }

    #[test]
    fn a_humans_freeze_outlives_what_the_law_froze_for() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
        lab.start(plan, 0, crate::plan::Direction::Forward).unwrap();
        let scope = FreezeScope::Target(target("api", "a"));
        let until = Some(Timestamp(lab.now + 10_000));
        let freeze = Freeze { scope: scope.clone(), reason: "mine".into(), until };
        lab.root(Command::Freeze(freeze)).unwrap();
        lab.finish(plan, 0, crate::plan::Direction::Forward, unknown()).unwrap();
        lab.wait(60);
        assert!(lab.state.freezes.contains_key(&scope), "the unknown keeps it frozen");
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
        let kept = &lab.state.freezes[&scope];
        assert_eq!(kept.by, "root", "resolving lifted another's freeze");
        assert!(kept.reason.starts_with("mine"));
    }

    #[test]
    fn it_holds_decisions_back_until_it_ends() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let until = Some(Timestamp(lab.now + 10_000));
        let freeze =
            Freeze { scope: FreezeScope::Region("eu".into()), reason: "drill".into(), until };
        lab.root(Command::Freeze(freeze.clone())).unwrap();
        assert!(lab.owed().is_empty());
        assert_eq!(lab.incident(id).held_by.as_deref(), Some("region eu is frozen by root: drill"));
        assert_eq!(lab.state.next_due(), until);
        lab.wait(10);
        assert_eq!(lab.owed().len(), 1);
        assert_eq!(lab.incident(id).held_by, None);
        assert!(
            matches!(lab.root(Command::Freeze(freeze)), Err(Refusal::Invalid(_))),
            "over already"
        );
        assert!(matches!(
            lab.root(Command::Unfreeze(FreezeScope::Global)),
            Err(Refusal::NotFound(_))
        ));
    }
}
