//! Sagas: plans, steps, verdicts, approvals.

use medic_proto::v1 as pb;
use medic_state::{
    manifest::{ApprovalSpec, NoData, OnTimeout, SafetyClass},
    plan::{Action, Direction, PlannedStep},
    saga::{
        Check, Intent, Saga, SagaStatus, StepEventRecord, StepState, StepStatus, Verdict,
        VerdictValue,
    },
};

use super::{fraction, target, time};

/// Where a plan stands.
#[must_use]
pub const fn remediation_status(status: SagaStatus) -> pb::RemediationStatus {
    match status {
        SagaStatus::AwaitingApproval => pb::RemediationStatus::AwaitingApproval,
        SagaStatus::Running => pb::RemediationStatus::Running,
        SagaStatus::Verifying => pb::RemediationStatus::Verifying,
        SagaStatus::Unwinding => pb::RemediationStatus::Unwinding,
        SagaStatus::Succeeded => pb::RemediationStatus::Succeeded,
        SagaStatus::RolledBack => pb::RemediationStatus::RolledBack,
        SagaStatus::Failed => pb::RemediationStatus::Failed,
        SagaStatus::Unknown => pb::RemediationStatus::Unknown,
        SagaStatus::Dropped => pb::RemediationStatus::Dropped,
    }
}

const fn step_status(status: StepStatus) -> pb::StepStatus {
    match status {
        StepStatus::Pending => pb::StepStatus::Pending,
        StepStatus::Running => pb::StepStatus::Running,
        StepStatus::Done => pb::StepStatus::Done,
        StepStatus::Failed => pb::StepStatus::Failed,
        StepStatus::Undoing => pb::StepStatus::Undoing,
        StepStatus::Undone => pb::StepStatus::Undone,
        StepStatus::UndoFailed => pb::StepStatus::UndoFailed,
        StepStatus::Unknown => pb::StepStatus::Unknown,
    }
}

const fn safety(class: SafetyClass) -> pb::SafetyClass {
    match class {
        SafetyClass::Fenced => pb::SafetyClass::Fenced,
        SafetyClass::Idempotent => pb::SafetyClass::Idempotent,
        SafetyClass::Probeable => pb::SafetyClass::Probeable,
        SafetyClass::Opaque => pb::SafetyClass::Opaque,
    }
}

/// What verification found.
#[must_use]
pub const fn verdict_value(value: VerdictValue) -> pb::VerdictValue {
    match value {
        VerdictValue::Passed => pb::VerdictValue::Passed,
        VerdictValue::Failed => pb::VerdictValue::Failed,
        VerdictValue::Inconclusive => pb::VerdictValue::Inconclusive,
    }
}

/// A plan and how far it has come.
#[must_use]
pub fn remediation(saga: &Saga) -> pb::Remediation {
    let plan = &saga.plan;
    let no_data = match plan.verify.no_data {
        NoData::Inconclusive => "inconclusive",
        NoData::Failed => "failed",
    };
    let steps = plan.steps.iter().zip(&saga.steps).zip(0..);
    pb::Remediation {
        id: saga.id.to_string(),
        incident: saga.incident.to_string(),
        tenant: saga.tenant.clone(),
        playbook: plan.playbook.clone(),
        playbook_digest: plan.playbook_digest.to_string(),
        digest: saga.digest.to_string(),
        status: remediation_status(saga.status).into(),
        steps: steps.map(|((planned, state), index)| step(index, planned, state)).collect(),
        approvals: approvals(saga),
        approval_rules: Some(approval_rules(&plan.approval)),
        approval_until: saga.approval_until.map(time),
        requested_by: saga.requested_by.clone().unwrap_or_default(),
        created_at: Some(time(saga.created_at)),
        started_at: saga.started_at.map(time),
        verifying_since: saga.verifying_since.map(time),
        ended_at: saga.ended_at.map(time),
        reason: saga.reason.clone().unwrap_or_default(),
        verification: Some(pb::Verification {
            expect: plan.verify.expect.clone(),
            hold_ms: plan.verify.hold.0,
            timeout_ms: plan.verify.timeout.0,
            no_data: no_data.to_owned(),
            targets: plan.verify_targets.iter().map(target).collect(),
        }),
        verdict: saga.verdict.as_ref().map(verdict),
        baseline: plan.baseline.clone(),
    }
}

/// A plan as a line of a list.
#[must_use]
pub fn remediation_summary(saga: &Saga) -> pb::RemediationSummary {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let done = saga.steps.iter().filter(|step| step.status == StepStatus::Done).count();
    let service = saga.plan.steps.first().map(|step| step.target.service.clone());
    let verdict = saga
        .verdict
        .as_ref()
        .map_or(pb::VerdictValue::Unspecified, |verdict| verdict_value(verdict.value));
    pb::RemediationSummary {
        id: saga.id.to_string(),
        incident: saga.incident.to_string(),
        tenant: saga.tenant.clone(),
        service: service.unwrap_or_default(),
        playbook: saga.plan.playbook.clone(),
        status: remediation_status(saga.status).into(),
        steps: count(saga.steps.len()),
        steps_done: count(done),
        created_at: Some(time(saga.created_at)),
        started_at: saga.started_at.map(time),
        ended_at: saga.ended_at.map(time),
        reason: saga.reason.clone().unwrap_or_default(),
        verdict: verdict.into(),
    }
}

/// Who agreed so far.
#[must_use]
pub fn approvals(saga: &Saga) -> Vec<pb::Approval> {
    let one = |(user, at): (&String, &_)| pb::Approval { user: user.clone(), at: Some(time(*at)) };
    saga.approvals.iter().map(one).collect()
}

/// Who must agree.
#[must_use]
pub fn approval_rules(rules: &ApprovalSpec) -> pb::ApprovalRules {
    let on_timeout = match rules.on_timeout {
        OnTimeout::Escalate => "escalate",
        OnTimeout::Reject => "reject",
    };
    pb::ApprovalRules {
        roles: rules.roles.clone(),
        min_approvers: rules.min_approvers,
        forbid_self: rules.forbid_self,
        ttl_ms: rules.ttl.0,
        on_timeout: on_timeout.to_owned(),
    }
}

fn action(action: &Action) -> pb::Action {
    pb::Action { name: action.name.clone(), params: action.params.clone() }
}

fn step(index: u32, planned: &PlannedStep, state: &StepState) -> pb::Step {
    pb::Step {
        index,
        name: planned.name.clone(),
        action: Some(action(&planned.action)),
        target: Some(target(&planned.target)),
        agent: planned.agent.clone(),
        safety: safety(planned.safety).into(),
        timeout_ms: planned.timeout.0,
        retries: planned.retries,
        undo: planned.undo.as_ref().map(action),
        pause_before_ms: planned.pause_before.0,
        status: step_status(state.status).into(),
        intent: state.intent.as_ref().map(intent),
        forward_attempts: state.forward_attempts,
        undo_attempts: state.undo_attempts,
        evidence: state.evidence.clone(),
        started_at: state.started_at.map(time),
        ended_at: state.ended_at.map(time),
        history: state.history.iter().map(event).collect(),
    }
}

fn intent(intent: &Intent) -> pb::Intent {
    let direction = match intent.direction {
        Direction::Forward => pb::Direction::Forward,
        Direction::Undo => pb::Direction::Undo,
    };
    pb::Intent {
        direction: direction.into(),
        fence: intent.fence.0,
        index: intent.index,
        at: Some(time(intent.at)),
        attempt: intent.attempt,
    }
}

fn event(event: &StepEventRecord) -> pb::StepEvent {
    pb::StepEvent {
        index: event.index,
        at: Some(time(event.at)),
        fence: event.fence.0,
        node: event.node.clone(),
        text: event.text.clone(),
    }
}

fn verdict(verdict: &Verdict) -> pb::Verdict {
    pb::Verdict {
        value: verdict_value(verdict.value).into(),
        score: fraction(verdict.score),
        checks: verdict.checks.iter().map(check).collect(),
        at: Some(time(verdict.at)),
    }
}

fn check(check: &Check) -> pb::Check {
    pb::Check {
        kind: check.kind.clone(),
        value: verdict_value(check.value).into(),
        score: fraction(check.score),
        detail: check.detail.clone(),
    }
}
