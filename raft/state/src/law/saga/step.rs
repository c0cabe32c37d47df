//! The one function that says which movement of a step is legal.

use crate::{plan::Direction, saga::StepStatus};

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::law) enum StepEvent {
    /// An intent was committed.
    Started,
    /// An intent was taken over by a new leader.
    Resumed,
    /// It happened.
    Done,
    /// It provably did not happen; `again`: it will be tried again.
    Failed {
        /// Whether attempts are left.
        again: bool,
    },
    /// Nobody can tell.
    Unknown,
}

/// A movement that is not legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a step that is {status:?} cannot be {event:?} ({direction:?})")]
pub(in crate::law) struct IllegalEvent {
    status: StepStatus,
    direction: Direction,
    event: StepEvent,
}

/// Where a step stands after an event.
pub(in crate::law) fn next(
    status: StepStatus,
    direction: Direction,
    event: StepEvent,
) -> Result<StepStatus, IllegalEvent> {
    use StepStatus::{Done, Failed, Pending, Running, UndoFailed, Undoing, Undone, Unknown};
    let (from, to) = match (direction, event) {
        (Direction::Forward, StepEvent::Started) => (Pending, Running),
        (Direction::Forward, StepEvent::Resumed) => (Running, Running),
        (Direction::Forward, StepEvent::Done) => (Running, Done),
        (Direction::Forward, StepEvent::Failed { again: true }) => (Running, Pending),
        (Direction::Forward, StepEvent::Failed { again: false }) => (Running, Failed),
        (Direction::Forward, StepEvent::Unknown) => (Running, Unknown),
        (Direction::Undo, StepEvent::Started) => (Done, Undoing),
        (Direction::Undo, StepEvent::Resumed) => (Undoing, Undoing),
        (Direction::Undo, StepEvent::Done) => (Undoing, Undone),
        (Direction::Undo, StepEvent::Failed { again: true }) => (Undoing, Done),
        (Direction::Undo, StepEvent::Failed { again: false }) => (Undoing, UndoFailed),
        (Direction::Undo, StepEvent::Unknown) => (Undoing, Unknown),
    };
    if status == from { Ok(to) } else { Err(IllegalEvent { status, direction, event }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUSES: [StepStatus; 8] = [
        StepStatus::Pending,
        StepStatus::Running,
        StepStatus::Done,
        StepStatus::Failed,
        StepStatus::Undoing,
        StepStatus::Undone,
        StepStatus::UndoFailed,
        StepStatus::Unknown,
    ];

    #[test]
    fn what_has_ended_moves_no_more() {
        for status in
            [StepStatus::Failed, StepStatus::Undone, StepStatus::UndoFailed, StepStatus::Unknown]
        {
            for direction in [Direction::Forward, Direction::Undo] {
                for event in [
                    StepEvent::Started,
                    StepEvent::Resumed,
                    StepEvent::Done,
                    StepEvent::Failed { again: true },
                    StepEvent::Failed { again: false },
                    StepEvent::Unknown,
                ] {
                    assert!(next(status, direction, event).is_err(), "{status:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn only_a_pending_step_starts_and_only_a_done_one_is_undone() {
        for status in STATUSES {
            let starts = next(status, Direction::Forward, StepEvent::Started).is_ok();
            assert_eq!(starts, status == StepStatus::Pending, "{status:?}");
            let undone = next(status, Direction::Undo, StepEvent::Started).is_ok();
            assert_eq!(undone, status == StepStatus::Done, "{status:?}");
        }
    }
}
