//! `Freeze` and `Unfreeze`: people hold back all remediation in a scope, and lift that. Acts that
//! run finish, unwinding goes on; nothing new starts.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::Freeze,
    ids::PlanId,
    law::{
        context::{Context, LAW, MAX_NAME_BYTES, clip},
        holds, permit, saga,
    },
    saga::{SagaStatus, StepStatus},
    state::{FreezeScope, FreezeState, State},
    symptom::Target,
};

/// Freezes that people of one tenant (or of the cluster) have in force at once: more is a typing
/// machine. Those that the law set for unknown outcomes are not counted.
const MAX_FREEZES_PER_TENANT: usize = 512;
/// Freezes that people of all tenants have in force at once: 8,192 of 3 KiB stay below 32 MiB.
const MAX_FREEZES: usize = 8_192;

pub(super) fn freeze(state: &mut State, context: &mut Context<'_>, command: &Freeze) -> Answer {
    check_names(&command.scope)?;
    if command.until.is_some_and(|until| until <= context.now) {
        return Err(Refusal::Invalid("its end has passed already".to_owned()));
    }
    check_room(state, &command.scope)?;
    if let FreezeScope::Target(target) = &command.scope
        && let Some(known) = state.freezes.get(&command.scope)
        && (known.by == LAW || unsettled(state, target).is_some())
    {
        // One with an end would end before somebody has looked.
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
        // Whoever lifts it has looked at the target: what was unknown about it is settled. What is
        // unknown about another target of the plan is not.
        if let Some(plan) = unsettled(state, target) {
            saga::settle_unknown(state, context, plan);
        }
    }
    holds::refresh(state, context);
    touch_plans(state, context);
    Ok(Reply::Done)
}

/// The plan that ended with an unknown outcome about this very target, which nobody has settled.
fn unsettled(state: &State, target: &Target) -> Option<PlanId> {
    let saga = state.sagas.get(state.locks.get(target)?)?;
    let mut steps = saga.plan.steps.iter().zip(&saga.steps);
    let about = steps
        .any(|(planned, step)| step.status == StepStatus::Unknown && planned.target == *target);
    (saga.status == SagaStatus::Unknown && about).then_some(saga.id)
}

/// No tenant's freezes are refused for another's, and the off switch for everything never is.
fn check_room(state: &State, scope: &FreezeScope) -> Result<(), Refusal> {
    if *scope == FreezeScope::Global || state.freezes.contains_key(scope) {
        return Ok(());
    }
    let owner = permit::tenant_of(scope);
    let by_people = state.freezes.iter().filter(|(_, freeze)| freeze.by != LAW);
    let (mut of_owner, mut all) = (0_usize, 0_usize);
    for (other, _) in by_people {
        all += 1;
        of_owner += usize::from(permit::tenant_of(other) == owner);
    }
    let lift = "lift some first (medic get freezes)";
    if of_owner >= MAX_FREEZES_PER_TENANT {
        let whose =
            if owner.is_empty() { "the cluster".to_owned() } else { format!("tenant {owner}") };
        return Err(Refusal::Limit(format!("{whose} has {of_owner} freezes in force: {lift}")));
    }
    if all >= MAX_FREEZES {
        return Err(Refusal::Limit(format!("{all} freezes are in force over all tenants: {lift}")));
    }
    Ok(())
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
        let until = Some(Timestamp(lab.now + 10_000));
        let again = Freeze { scope: scope.clone(), reason: "for a while".into(), until };
        assert!(matches!(lab.root(Command::Freeze(again)), Ok(Reply::Noted(_))));
        lab.wait(60);
        assert!(lab.state.freezes.contains_key(&scope), "nobody has looked yet");
        lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
        let kept = &lab.state.freezes[&scope];
        assert_eq!(kept.by, "root", "resolving lifted another's freeze");
        assert!(kept.reason.starts_with("mine"));
    }

    #[test]
    fn lifting_ones_own_freeze_of_another_instance_settles_nothing() {
        let mut lab = Lab::new();
        let id = lab.report("api", "a", "down");
        let other = FreezeScope::Target(target("web", "w"));
        let plan = lab.adopt(id, vec![step(&target("api", "a")), step(&target("web", "w"))]);
        lab.start(plan, 0, crate::plan::Direction::Forward).unwrap();
        lab.freeze(other.clone());
        lab.finish(plan, 0, crate::plan::Direction::Forward, unknown()).unwrap();
        lab.root(Command::Unfreeze(other)).unwrap();
        let frozen = FreezeScope::Target(target("api", "a"));
        assert!(lab.state.freezes.contains_key(&frozen), "nobody has looked at api/a");
        assert_eq!(lab.state.locks.len(), 2, "it still counts as running");
        lab.root(Command::Unfreeze(frozen)).unwrap();
        assert!(lab.state.locks.is_empty() && lab.state.freezes.is_empty());
    }

    #[test]
    fn one_tenants_freezes_keep_no_other_from_freezing_and_nothing_stops_the_off_switch() {
        let mut lab = Lab::new();
        let of = |tenant: &str, n: usize| FreezeScope::Service {
            tenant: tenant.to_owned(),
            service: format!("s{n}"),
        };
        let by = |by: &str| FreezeState {
            by: by.to_owned(),
            reason: "x".to_owned(),
            at: Timestamp(0),
            until: None,
        };
        let freeze = |scope| Command::Freeze(Freeze { scope, reason: "x".into(), until: None });
        lab.state.freezes =
            (0..MAX_FREEZES_PER_TENANT - 1).map(|n| (of("team", n), by("ann"))).collect();
        // What the law froze is nobody's to lift, so it takes nobody's place.
        lab.state.freezes.extend((600..700).map(|n| (of("team", n), by(LAW))));
        lab.root(freeze(of("team", 2_000))).unwrap();
        let full = lab.root(freeze(of("team", 2_001)));
        assert!(
            matches!(&full, Err(Refusal::Limit(why)) if why.contains("tenant team")),
            "{full:?}"
        );
        lab.root(freeze(of("team", 2_000))).unwrap();
        lab.root(freeze(of(TENANT, 1))).unwrap();

        lab.state.freezes =
            (0..MAX_FREEZES).map(|n| (of(&format!("t{}", n / 500), n), by("ann"))).collect();
        let full = lab.root(freeze(FreezeScope::Tenant(TENANT.into())));
        assert!(
            matches!(&full, Err(Refusal::Limit(why)) if why.contains("all tenants")),
            "{full:?}"
        );
        lab.root(freeze(FreezeScope::Global)).unwrap();
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
