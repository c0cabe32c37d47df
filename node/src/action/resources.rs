//! Checks on the hands' side, right before an act: is the way still open, and is the target still
//! what the plan took it for?
//!
//! The law has admitted the step already; between its admission and the act the world may change.
//! A check here can hold an act back or give it up, never allow what the law has not.

use medic_state::{
    State,
    action::{Backend, action_info},
    manifest::{InstanceSpec, Kind, ManifestKey, ServiceSpec, Spec},
    plan::{Direction, PlannedStep},
    saga::{Saga, SagaStatus},
    symptom::Target,
};

use crate::world::Order;

/// What the checks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Act.
    Ready,
    /// Not now: look again when the state changes.
    Later(String),
    /// Never: the act is given up without having been sent.
    Never(String),
}

/// Whether a step whose intent is committed may be sent now, by the applied state.
#[must_use]
pub fn readiness(state: &State, saga: &Saga, step: u32, direction: Direction) -> Readiness {
    let at = usize::try_from(step).unwrap_or(usize::MAX);
    let Some(planned) = saga.plan.steps.get(at) else {
        return Readiness::Never(format!("{} has no step {step}", saga.id));
    };
    if let Some(refused) = undeclared(state, planned, direction) {
        return Readiness::Never(refused);
    }
    if let Some(other) = quorum_conflict(state, saga, at) {
        return Readiness::Later(other);
    }
    match direction {
        Direction::Undo => Readiness::Ready,
        // A plan that was cancelled between intent and act: the act provably did not happen.
        Direction::Forward if saga.status != SagaStatus::Running => {
            let why = saga.reason.as_deref().unwrap_or("no reason was given");
            Readiness::Never(format!("{} is {} ({why})", saga.id, saga.status))
        }
        Direction::Forward => match state.frozen(&planned.target, Some(&saga.plan.playbook)) {
            Some(reason) => Readiness::Later(reason),
            None => Readiness::Ready,
        },
    }
}

/// The declared service of a target.
#[must_use]
pub fn service<'a>(state: &'a State, target: &Target) -> Option<&'a ServiceSpec> {
    let key = ManifestKey {
        kind: Kind::Service,
        tenant: target.tenant.clone(),
        name: target.service.clone(),
    };
    match &state.manifests.get(&key)?.manifest.spec {
        Spec::Service(service) => Some(service),
        Spec::Playbook(_)
        | Spec::Policy(_)
        | Spec::Source(_)
        | Spec::Silence(_)
        | Spec::MaintenanceWindow(_)
        | Spec::Role(_)
        | Spec::RoleBinding(_)
        | Spec::Tenant(_)
        | Spec::Channel(_) => None,
    }
}

/// The declared instance of a target.
#[must_use]
pub fn instance<'a>(
    state: &'a State,
    target: &Target,
) -> Option<(&'a ServiceSpec, &'a InstanceSpec)> {
    let service = service(state, target)?;
    let found = service.instances.iter().find(|instance| instance.name == target.instance)?;
    Some((service, found))
}

/// Whether this node itself carries an order out: then nobody refuses its fence or remembers its key.
#[must_use]
pub fn by_node(order: &Order) -> bool {
    let info = action_info(&order.action.name);
    order.agent.is_empty() || info.is_some_and(|info| info.backend == Backend::Node)
}

/// Whether an action is carried out by an agent, which knows only declared instances.
fn by_agent(planned: &PlannedStep, direction: Direction) -> bool {
    let action = match direction {
        Direction::Forward => Some(&planned.action),
        Direction::Undo => planned.undo.as_ref(),
    };
    action
        .and_then(|action| action_info(&action.name))
        .is_some_and(|info| info.backend == Backend::Agent)
}

/// Why the target is not the agent's any more, if so.
fn undeclared(state: &State, planned: &PlannedStep, direction: Direction) -> Option<String> {
    if !by_agent(planned, direction) {
        return None;
    }
    let target = &planned.target;
    let Some((_, instance)) = instance(state, target) else {
        return Some(format!("{target} is no longer declared"));
    };
    let agent = instance.agent.as_deref().unwrap_or_default();
    (agent != planned.agent).then(|| {
        format!("{target} was moved from agent `{}` to `{agent}` meanwhile", planned.agent)
    })
}

/// Hosts of Medic's own nodes are treated one at a time, whatever plans they belong to: of two
/// intents, the one committed first goes first, so that neither waits for ever.
fn quorum_conflict(state: &State, saga: &Saga, step: usize) -> Option<String> {
    let member = |target: &Target| {
        instance(state, target).is_some_and(|(_, instance)| instance.quorum_member)
    };
    let target = &saga.plan.steps.get(step)?.target;
    if !member(target) {
        return None;
    }
    let mine = saga.steps.get(step)?.intent.as_ref().map_or(u64::MAX, |intent| intent.index);
    state.sagas.values().filter(|other| other.id != saga.id).find_map(|other| {
        let mut steps = other.steps.iter().zip(&other.plan.steps);
        let (_, busy) = steps.find(|(step, planned)| {
            step.intent.as_ref().is_some_and(|intent| intent.index < mine)
                && planned.target != *target
                && member(&planned.target)
        })?;
        Some(format!("{} acts on {}, which hosts a quorum member too", other.id, busy.target))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{collections::BTreeMap, sync::Arc};

    use medic_raft::LedgerExt as _;
    use medic_state::{
        Digest, Fence, IncidentId, PlanId, Timestamp,
        manifest::{ApprovalSpec, Manifest, PlaybookScope, SafetyClass, VerifySpec},
        plan::Plan,
        saga::{Intent, StepState},
        state::{FreezeScope, FreezeState},
    };

    use super::*;
    use crate::action::fixture::{Lab, step};

    fn saga(id: u64, service: &str) -> Saga {
        let mut planned = step(0, SafetyClass::Fenced);
        planned.target.service = service.to_owned();
        let verify = serde_json::from_value::<VerifySpec>(serde_json::json!({"expect": "true"}));
        let plan = Plan {
            playbook: "fix".to_owned(),
            playbook_digest: Digest::default(),
            steps: vec![planned],
            verify: verify.unwrap(),
            baseline: BTreeMap::new(),
            approval: ApprovalSpec::default(),
            scope: PlaybookScope::default(),
            verify_targets: Vec::new(),
        };
        Saga {
            id: PlanId(id),
            incident: IncidentId(1),
            tenant: "default".to_owned(),
            digest: plan.digest(),
            plan,
            status: SagaStatus::Running,
            steps: vec![StepState::default()],
            approvals: BTreeMap::new(),
            approval_until: None,
            requested_by: None,
            created_at: Timestamp(0),
            started_at: None,
            verifying_since: None,
            ended_at: None,
            reason: None,
            verdict: None,
        }
    }

    /// Changes the declaration of a service's first instance.
    fn redeclare(state: &mut State, service: &str, change: impl Fn(&mut InstanceSpec)) {
        let key = ManifestKey {
            kind: Kind::Service,
            tenant: "default".to_owned(),
            name: service.to_owned(),
        };
        let stored = state.manifests.get_mut(&key).unwrap();
        let mut manifest: Manifest = stored.manifest.as_ref().clone();
        let Spec::Service(service) = &mut manifest.spec else { panic!("no service") };
        change(&mut service.instances[0]);
        stored.manifest = Arc::new(manifest);
    }

    #[tokio::test]
    async fn freezes_hold_back_what_goes_forward_and_nothing_that_is_undone() {
        let mut state = Lab::new().await.law.read(Clone::clone);
        redeclare(&mut state, "web", |instance| instance.region = Some("eu".to_owned()));
        let saga = saga(7, "web");
        assert_eq!(readiness(&state, &saga, 0, Direction::Forward), Readiness::Ready);
        let tenant = "default".to_owned();
        for scope in [
            FreezeScope::Global,
            FreezeScope::Tenant(tenant.clone()),
            FreezeScope::Region("eu".to_owned()),
            FreezeScope::Service { tenant: tenant.clone(), service: "web".to_owned() },
            FreezeScope::Playbook { tenant, playbook: "fix".to_owned() },
            FreezeScope::Target(saga.plan.steps[0].target.clone()),
        ] {
            let by = FreezeState {
                by: "user:root".to_owned(),
                reason: "audit".to_owned(),
                at: state.now,
                until: None,
            };
            state.freezes = BTreeMap::from([(scope.clone(), by)]);
            let forward = readiness(&state, &saga, 0, Direction::Forward);
            assert!(matches!(forward, Readiness::Later(_)), "{scope}: {forward:?}");
            assert_eq!(readiness(&state, &saga, 0, Direction::Undo), Readiness::Ready, "{scope}");
            state.freezes.get_mut(&scope).unwrap().until = Some(state.now);
            assert_eq!(readiness(&state, &saga, 0, Direction::Forward), Readiness::Ready);
        }
    }

    #[tokio::test]
    async fn a_target_that_moved_or_went_is_never_acted_on() {
        let mut state = Lab::new().await.law.read(Clone::clone);
        let saga = saga(7, "web");
        redeclare(&mut state, "web", |instance| instance.agent = Some("b".to_owned()));
        let moved = readiness(&state, &saga, 0, Direction::Forward);
        assert!(matches!(&moved, Readiness::Never(why) if why.contains("moved")), "{moved:?}");
        redeclare(&mut state, "web", |instance| instance.name = "gone".to_owned());
        let gone = readiness(&state, &saga, 0, Direction::Undo);
        assert!(matches!(&gone, Readiness::Never(why) if why.contains("declared")), "{gone:?}");
        let mut cancelled = saga;
        cancelled.status = SagaStatus::Unwinding;
        let state = Lab::new().await.law.read(Clone::clone);
        let never = readiness(&state, &cancelled, 0, Direction::Forward);
        assert!(matches!(never, Readiness::Never(_)), "{never:?}");
    }

    #[tokio::test]
    async fn hosts_of_quorum_members_are_treated_one_at_a_time_in_the_order_they_began() {
        let mut state = Lab::new().await.law.read(Clone::clone);
        for service in ["web", "db"] {
            redeclare(&mut state, service, |instance| instance.quorum_member = true);
        }
        let mut sagas = [saga(7, "web"), saga(8, "db")];
        for (saga, index) in sagas.iter_mut().zip([20, 10]) {
            saga.steps[0].intent = Some(Intent {
                direction: Direction::Forward,
                fence: Fence(1),
                index,
                at: Timestamp(0),
                attempt: 1,
            });
            state.sagas.insert(saga.id, saga.clone());
        }
        assert_eq!(readiness(&state, &sagas[1], 0, Direction::Forward), Readiness::Ready);
        let later = readiness(&state, &sagas[0], 0, Direction::Forward);
        assert!(matches!(later, Readiness::Later(_)), "{later:?}");
    }
}
