//! `Freeze` and `Unfreeze`: people hold back all remediation in a scope, and lift that. Acts that
//! run finish, unwinding goes on; nothing new starts.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::Freeze,
    ids::PlanId,
    law::{
        context::{Context, clip},
        holds, saga,
    },
    saga::SagaStatus,
    state::{FreezeScope, FreezeState, State},
};

/// Freezes in force at once, those of unknown outcomes not counted.
const MAX_FREEZES: usize = 1_024;

pub(super) fn freeze(state: &mut State, context: &mut Context<'_>, command: &Freeze) -> Answer {
    if command.until.is_some_and(|until| until <= context.now) {
        return Err(Refusal::Invalid("its end has passed already".to_owned()));
    }
    if !state.freezes.contains_key(&command.scope) && state.freezes.len() >= MAX_FREEZES {
        return Err(Refusal::Limit(format!("{MAX_FREEZES} freezes are in force")));
    }
    if let FreezeScope::Target(target) = &command.scope
        && let Some(known) = state.freezes.get(&command.scope)
        && known.by == "medic"
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
        return Err(Refusal::NotFound(format!("freeze of {scope}")));
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
