//! From a playbook to concrete steps: which instance, which agent, which undo, in which order.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Digest, Millis,
    action::{ActionInfo, Backend, action_info},
    manifest::{StepSpec, StepTargets},
    plan::{Action, MAX_STEPS, Plan, PlannedStep},
    symptom::Target,
};

use super::{rules::Candidate, scene::Scene};
use crate::topology;

/// Why a playbook cannot be turned into a plan for this incident.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    /// The catalogue has no such action.
    #[error("step {step}: there is no action `{action}`")]
    NoAction {
        /// The playbook's step.
        step: String,
        /// As written.
        action: String,
    },
    /// Nothing for the step to act on.
    #[error("step {step}: {what}")]
    NoTarget {
        /// The playbook's step.
        step: String,
        /// What is missing.
        what: &'static str,
    },
    /// The service does not declare the instance any more.
    #[error("step {step}: {target} is not declared any more")]
    NotDeclared {
        /// The playbook's step.
        step: String,
        /// Whom it concerns.
        target: Target,
    },
    /// An agent would have to act, and none runs there.
    #[error("step {step}: {target} has no agent, so Medic cannot act on it")]
    NoAgent {
        /// The playbook's step.
        step: String,
        /// Whom it concerns.
        target: Target,
    },
    /// More than one plan should touch.
    #[error("it would take {0} steps; a plan has at most {MAX_STEPS}")]
    TooMany(usize),
    /// A playbook without steps.
    #[error("it has no steps")]
    Empty,
}

/// Makes the plan.
///
/// # Errors
/// When the playbook cannot be carried out on this incident's instances.
pub(super) fn plan(scene: &Scene<'_>, candidate: &Candidate<'_>) -> Result<Plan, PlanError> {
    let mut steps = Vec::new();
    for step in &candidate.spec.steps {
        expand(scene, step, &mut steps)?;
    }
    if steps.is_empty() {
        return Err(PlanError::Empty);
    }
    if steps.len() > MAX_STEPS {
        return Err(PlanError::TooMany(steps.len()));
    }
    let verify_targets = verify_targets(scene, &steps);
    Ok(Plan {
        playbook: candidate.name.to_owned(),
        playbook_digest: candidate.digest,
        baseline: baseline(scene, &verify_targets),
        steps,
        verify: candidate.spec.verify.clone(),
        approval: candidate.spec.approval.clone(),
        scope: candidate.spec.scope.clone(),
        verify_targets,
    })
}

fn expand(
    scene: &Scene<'_>,
    step: &StepSpec,
    steps: &mut Vec<PlannedStep>,
) -> Result<(), PlanError> {
    let info = action_info(&step.action).ok_or_else(|| PlanError::NoAction {
        step: step.name.clone(),
        action: step.action.clone(),
    })?;
    let targets = targets(scene, step)?;
    for (n, target) in targets.into_iter().enumerate() {
        let pause = step.rollout.as_ref().filter(|_| n > 0).map_or(Millis(0), |r| r.pause);
        steps.push(PlannedStep {
            name: step.name.clone(),
            agent: agent(scene, step, info, &target)?,
            action: Action { name: step.action.clone(), params: params(scene, step, &target) },
            safety: step.safety.unwrap_or(info.safety),
            timeout: step.timeout,
            retries: step.retry.max,
            undo: undo(step, info),
            pause_before: pause,
            target,
        });
    }
    Ok(())
}

fn targets(scene: &Scene<'_>, step: &StepSpec) -> Result<Vec<Target>, PlanError> {
    let none = |what| PlanError::NoTarget { step: step.name.clone(), what };
    let found = match step.targets {
        StepTargets::Affected if step.action.starts_with("config.") => changed(scene),
        StepTargets::Affected => scene.affected(),
        StepTargets::AllInstances => {
            // The sick first: they have the least to lose, and show early whether it helps.
            let affected = scene.affected();
            let (sick, well): (Vec<_>, Vec<_>) =
                scene.instances().into_iter().partition(|target| affected.contains(target));
            sick.into_iter().chain(well).collect()
        }
        StepTargets::Standby => {
            return standby(scene).map(|s| vec![s]).ok_or_else(|| {
                none("the service has no standby instance that does not run already")
            });
        }
    };
    if found.is_empty() { Err(none("no instance is known to be affected")) } else { Ok(found) }
}

/// The affected instances whose configuration changed; all affected when none is known to have.
fn changed(scene: &Scene<'_>) -> Vec<Target> {
    let changed: BTreeSet<Target> = scene
        .own()
        .into_iter()
        .filter(|s| !s.symptom.target.instance.is_empty())
        .filter(|s| Scene::config_changed_at(s).is_some())
        .map(|s| s.symptom.target.clone())
        .collect();
    if changed.is_empty() { scene.affected() } else { changed.into_iter().collect() }
}

fn standby(scene: &Scene<'_>) -> Option<Target> {
    let runs = |target: &Target| {
        let seen = scene.observations.get(target);
        seen.is_some_and(|seen| seen.probes.values().any(|good| *good))
    };
    scene
        .service?
        .instances
        .iter()
        .filter(|instance| instance.standby)
        .map(|instance| topology::target(scene.tenant(), scene.name(), &instance.name))
        .find(|target| !runs(target))
}

fn agent(
    scene: &Scene<'_>,
    step: &StepSpec,
    info: &ActionInfo,
    target: &Target,
) -> Result<String, PlanError> {
    let step = || step.name.clone();
    let instance = topology::instance(scene.state, target)
        .ok_or_else(|| PlanError::NotDeclared { step: step(), target: target.clone() })?;
    match info.backend {
        Backend::Node => Ok(String::new()),
        Backend::Agent => instance
            .agent
            .clone()
            .ok_or_else(|| PlanError::NoAgent { step: step(), target: target.clone() }),
    }
}

/// The step's own parameters; for a restored configuration also the version that the agent says it
/// keeps, so that the plan shows it and doing it twice is doing it once.
fn params(scene: &Scene<'_>, step: &StepSpec, target: &Target) -> BTreeMap<String, String> {
    let mut params = step.params.clone();
    if step.action == "config.restore" && !params.contains_key("hash") {
        let kept = scene
            .own()
            .into_iter()
            .filter(|s| s.symptom.target == *target)
            .map(|s| Scene::label(s, "previous_config"))
            .find(|hash| hash.parse::<Digest>().is_ok());
        if let Some(hash) = kept {
            params.insert("hash".to_owned(), hash.to_owned());
        }
    }
    params
}

/// As the playbook says, else the action's own.
fn undo(step: &StepSpec, info: &ActionInfo) -> Option<Action> {
    match &step.undo {
        Some(undo) => Some(Action { name: undo.action.clone(), params: undo.params.clone() }),
        None => info.undo.map(|name| Action { name: name.to_owned(), params: BTreeMap::new() }),
    }
}

/// Those the steps touch, and, when they touch any of the affected, the other affected too.
/// (Starting a standby does not heal the instance it stands in for.)
fn verify_targets(scene: &Scene<'_>, steps: &[PlannedStep]) -> Vec<Target> {
    let mut targets: BTreeSet<Target> = steps.iter().map(|step| step.target.clone()).collect();
    let affected = scene.affected();
    if affected.iter().any(|target| targets.contains(target)) {
        targets.extend(affected);
    }
    targets.into_iter().collect()
}

/// `metric.error_rate@orders/orders-1` to its value, and the same for probes (1 good, 0 bad).
fn baseline(scene: &Scene<'_>, targets: &[Target]) -> BTreeMap<String, String> {
    let mut baseline = BTreeMap::new();
    for target in targets {
        let Some(seen) = scene.observations.get(target) else { continue };
        for (name, good) in &seen.probes {
            let value = if *good { "1" } else { "0" };
            baseline.insert(format!("probe.{name}@{target}"), value.to_owned());
        }
        for (name, value) in seen.metrics.iter().filter(|(_, value)| value.is_finite()) {
            baseline.insert(format!("metric.{name}@{target}"), value.to_string());
        }
    }
    baseline
}
