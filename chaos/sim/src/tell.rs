//! What is told of a commit: its line in the trace, and the states it shows to have been reached.

use medic_state::{
    Answer, Command, Fence, Refusal, Reply, State,
    plan::Direction,
    saga::{Outcome, SagaStatus, StepStatus, VerdictValue},
};

use crate::{
    coverage::Sometimes,
    history::{Commit, Recorder},
};

/// An answer in a few words.
#[must_use]
pub(crate) fn answer(answer: &Answer) -> String {
    match answer {
        Ok(Reply::Done) => "ok".to_owned(),
        Ok(Reply::Incident(id)) => id.to_string(),
        Ok(Reply::Decided { plan, route }) => match plan {
            Some(plan) => format!("{route} {plan}"),
            None => route.to_string(),
        },
        Ok(Reply::Fenced(fence)) => fence.to_string(),
        Ok(Reply::Noted(text)) => format!("noted: {text}"),
        Ok(Reply::Stored { changed, .. }) => format!("stored, changed: {changed}"),
        Err(refusal) => format!("refused: {refusal}"),
    }
}

/// Counts the states that a commit shows.
pub(crate) fn cover(commit: &Commit, state: &State, recorder: &Recorder) {
    for (plan, status) in &commit.moved {
        let undone = || {
            let saga = state.sagas.get(plan);
            saga.map_or(0, |saga| {
                saga.steps.iter().filter(|step| step.status == StepStatus::Undone).count()
            })
        };
        match status {
            SagaStatus::Succeeded => recorder.reached(Sometimes::PlanSucceeded),
            SagaStatus::RolledBack => {
                recorder.reached(Sometimes::PlanRolledBack);
                if undone() > 1 {
                    recorder.reached(Sometimes::SeveralUndone);
                }
            }
            SagaStatus::Unknown => recorder.reached(Sometimes::OutcomeUnknown),
            SagaStatus::AwaitingApproval
            | SagaStatus::Running
            | SagaStatus::Verifying
            | SagaStatus::Unwinding
            | SagaStatus::Failed
            | SagaStatus::Dropped => {}
        }
    }
    match &commit.answer {
        Ok(reply) => admitted(commit, reply, state, recorder),
        Err(refusal) => refused(refusal, recorder),
    }
}

fn refused(refusal: &Refusal, recorder: &Recorder) {
    let reached = match refusal {
        Refusal::StaleFence { .. } => Some(Sometimes::StaleFenceRefused),
        Refusal::StaleEpoch { .. } => Some(Sometimes::StaleEpochRefused),
        Refusal::HeldBack(why) if why.contains("are in flight") => Some(Sometimes::BudgetRefused),
        Refusal::HeldBack(why) if why.contains("is treating") => Some(Sometimes::LockRefused),
        Refusal::HeldBack(why) if why.contains("was treated less") => {
            Some(Sometimes::CooldownRefused)
        }
        Refusal::HeldBack(why) if why.contains("frozen") => Some(Sometimes::FreezeRefused),
        Refusal::HeldBack(why) if why.contains("has changed or gone") => {
            Some(Sometimes::PlaybookChanged)
        }
        Refusal::HeldBack(_)
        | Refusal::StaleRevision { .. }
        | Refusal::NotFound(_)
        | Refusal::IllegalState(_)
        | Refusal::Denied { .. }
        | Refusal::Invalid(_)
        | Refusal::Limit(_)
        | Refusal::Conflict(_) => None,
    };
    if let Some(reached) = reached {
        recorder.reached(reached);
    }
}

fn admitted(commit: &Commit, reply: &Reply, state: &State, recorder: &Recorder) {
    match &commit.entry.command {
        Command::AssignShards(_) if *reply == Reply::Done => {
            recorder.reached(Sometimes::ShardMoved)
        }
        Command::Approve(_) if *reply == Reply::Done => recorder.reached(Sometimes::ApprovalGiven),
        Command::EscalateIncident(_) => recorder.reached(Sometimes::Escalated),
        Command::StartStep(start) if *reply == Reply::Done => {
            match (start.resume, start.direction) {
                (true, Direction::Forward) => recorder.reached(Sometimes::ForwardResumed),
                (true, Direction::Undo) => recorder.reached(Sometimes::UndoInterrupted),
                (false, _) => {}
            }
            let Some(saga) = state.sagas.get(&start.plan) else { return };
            let attempts = usize::try_from(start.step).ok().and_then(|at| saga.steps.get(at));
            if attempts.is_some_and(|step| step.forward_attempts > 0)
                && start.direction == Direction::Forward
            {
                recorder.reached(Sometimes::ActRetried);
            }
            let approved = saga.approvals.values().max();
            if saga.started_at == Some(state.now) && approved.is_some_and(|at| *at < state.fence.at)
            {
                recorder.reached(Sometimes::ApprovalUsedAfterFailover);
            }
        }
        Command::StartStep(_) => match reply {
            Reply::Noted(why) if why.contains("asking again") => {
                recorder.reached(Sometimes::ApprovalRevoked);
            }
            Reply::Noted(why) if why.contains("has changed since") => {
                recorder.reached(Sometimes::PlaybookChanged);
            }
            Reply::Noted(_)
            | Reply::Done
            | Reply::Incident(_)
            | Reply::Decided { .. }
            | Reply::Fenced(_)
            | Reply::Stored { .. } => {}
        },
        Command::FinishStep(finish) => {
            if let Reply::Noted(text) = reply
                && text.contains("late, moves nothing")
                && finish.fence < state.fence.fence
            {
                recorder.reached(Sometimes::LateOutcomeKept);
            }
            if matches!(finish.outcome, Outcome::Unknown { .. }) {
                recorder.reached(Sometimes::Escalated);
            }
        }
        Command::RecordVerdict(record) => match record.verdict.value {
            VerdictValue::Failed => recorder.reached(Sometimes::VerificationFailed),
            VerdictValue::Inconclusive => recorder.reached(Sometimes::VerificationInconclusive),
            VerdictValue::Passed => {}
        },
        Command::CancelRemediation(_) => recorder.reached(Sometimes::CancelledUnderWay),
        Command::ResolveIncident(note) => {
            let unknown = state
                .sagas
                .values()
                .any(|saga| saga.incident == note.incident && saga.status == SagaStatus::Unknown);
            if unknown {
                recorder.reached(Sometimes::UnknownSettled);
            }
        }
        Command::Fence(_) => {
            if commit.entry.at < state.now {
                recorder.reached(Sometimes::TimeWentBack);
            }
            debug_assert!(state.fence.fence > Fence(0));
        }
        Command::Tick
        | Command::RegisterNode(_)
        | Command::MarkNode(_)
        | Command::MarkAgent(_)
        | Command::AssignShards(_)
        | Command::SetClusterVersion(_)
        | Command::ReportSymptom(_)
        | Command::ClearSymptom(_)
        | Command::AdoptDecision(_)
        | Command::Approve(_)
        | Command::Reject(_)
        | Command::Acknowledge(_)
        | Command::Freeze(_)
        | Command::Unfreeze(_)
        | Command::ReopenIncident(_)
        | Command::AddNote(_)
        | Command::ApplyManifest(_)
        | Command::DeleteManifest(_)
        | Command::NoteClusterChange(_)
        | Command::NoteTold(_)
        | Command::DrainNode(_)
        | Command::JudgeIncident(_) => {}
    }
}
