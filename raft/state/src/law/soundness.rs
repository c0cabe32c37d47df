//! Whether a proposal is sound in itself: its size, its targets, its actions. Judgement should never
//! propose one that is not; the law does not rely on that.

use crate::{
    action::action_info,
    applied::Refusal,
    codec,
    decision::Proposal,
    ids::Ppm,
    plan::{MAX_STEPS, Plan},
    state::State,
};

/// Size of an encoded proposal: 256 steps with their parameters.
const MAX_PROPOSAL_BYTES: usize = 512 * 1024;
/// Retries of a step, as in manifests.
const MAX_RETRIES: u32 = 10;
/// Refuses proposals that are too large, or blame another tenant.
pub(super) fn check(tenant: &str, proposal: &Proposal) -> Result<(), Refusal> {
    check_size(proposal)?;
    let scores = [proposal.confidence, proposal.risk, proposal.class_confidence];
    if scores.into_iter().any(|score| score > Ppm::ONE) {
        return Err(Refusal::Invalid("a score lies between 0 and 1".to_owned()));
    }
    check_cause(tenant, proposal)
}

fn check_size(proposal: &Proposal) -> Result<(), Refusal> {
    let bytes = codec::encode(proposal).len();
    if bytes > MAX_PROPOSAL_BYTES {
        let text =
            format!("the proposal has {bytes} bytes, at most {MAX_PROPOSAL_BYTES} are taken");
        return Err(Refusal::Limit(text));
    }
    Ok(())
}

fn check_cause(tenant: &str, proposal: &Proposal) -> Result<(), Refusal> {
    match &proposal.root_cause {
        Some(cause) if cause.tenant != tenant => {
            Err(Refusal::Invalid(format!("the cause {cause} is another tenant's")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses plans that are unsound in themselves.
pub(super) fn check_plan(state: &State, tenant: &str, plan: &Plan) -> Result<(), Refusal> {
    let bad = |text: String| Err(Refusal::Invalid(text));
    if let Some(other) = plan.verify_targets.iter().find(|target| target.tenant != tenant) {
        return bad(format!("{other}, which is to be verified, is another tenant's"));
    }
    if plan.steps.is_empty() || plan.steps.len() > MAX_STEPS {
        return bad(format!("a plan has 1 to {MAX_STEPS} steps, not {}", plan.steps.len()));
    }
    for step in &plan.steps {
        let (name, target) = (&step.name, &step.target);
        if target.tenant != tenant {
            return bad(format!("step {name}: {target} is another tenant's"));
        }
        if state.service(tenant, &target.service).is_none() {
            return bad(format!("step {name}: there is no service {}", target.service));
        }
        // Locks, blast radius and freezes are of instances: one instance, or it is none of theirs.
        if state.instance(target).is_none() {
            return bad(format!("step {name}: there is no instance {target}"));
        }
        for action in std::iter::once(&step.action).chain(&step.undo) {
            if action_info(&action.name).is_none() {
                return bad(format!("step {name}: there is no action {}", action.name));
            }
        }
        if step.timeout.0 == 0 || step.retries > MAX_RETRIES {
            return bad(format!("step {name}: no timeout, or more than {MAX_RETRIES} retries"));
        }
    }
    Ok(())
}
