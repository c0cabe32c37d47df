//! Walks every unwinding: for plans of one to four steps, at each step: fail it, fail and retry it,
//! lose its outcome, cancel it, fail its undo; each with and without a new leader after every commit.

use super::lab::{Lab, done, failed, step, target, unknown};
use crate::{
    applied::Effect,
    command::Command,
    ids::PlanId,
    incident::IncidentStatus,
    plan::Direction,
    saga::{Outcome, SagaStatus, StepStatus, VerdictValue},
};

/// What goes wrong at the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    Nothing,
    /// It fails for good.
    Fails,
    /// It fails once and is tried again.
    FailsOnce,
    /// Its outcome is unknown.
    Lost,
    /// The plan is cancelled while it runs, and it is done.
    CancelledDone,
    /// The plan is cancelled while it runs, and it fails.
    CancelledFails,
    /// A later failure; then its undo fails.
    UndoFails,
    /// A later failure; then its undo fails once and is tried again.
    UndoFailsOnce,
    /// A later failure; then the outcome of its undo is unknown.
    UndoLost,
}

const FAULTS: [Fault; 9] = [
    Fault::Nothing,
    Fault::Fails,
    Fault::FailsOnce,
    Fault::Lost,
    Fault::CancelledDone,
    Fault::CancelledFails,
    Fault::UndoFails,
    Fault::UndoFailsOnce,
    Fault::UndoLost,
];

/// One walk.
struct Walk {
    lab: Lab,
    plan: PlanId,
    fault: Fault,
    at: u32,
    /// A new leader after every commit.
    failover: bool,
    /// Undo steps in the order in which they were started.
    undone: Vec<u32>,
    faults_left: u32,
    cancelled: bool,
}

impl Walk {
    fn new(steps: u32, at: u32, fault: Fault, failover: bool) -> Self {
        let mut lab = Lab::new();
        let incident = lab.report("web", "w", "down");
        let targets = ["w", "x", "y", "z"];
        let planned = targets.iter().take(steps as usize).map(|name| {
            let mut planned = step(&target("web", name));
            planned.retries = u32::from(matches!(fault, Fault::FailsOnce | Fault::UndoFailsOnce));
            // The walk is about order: this action interrupts nothing.
            planned.action.name = "process.start".into();
            planned
        });
        let plan = lab.adopt(incident, planned.collect());
        let faults_left = 1;
        Self { lab, plan, fault, at, failover, undone: Vec::new(), faults_left, cancelled: false }
    }

    fn new_leader(&mut self) {
        if self.failover {
            let node = 3 - self.lab.state.fence.node.0;
            self.lab.fence(node);
        }
    }

    /// A fair driver: does what is owed until nothing is.
    fn drive(&mut self) {
        for _ in 0..100 {
            let Some(effect) = self.lab.owed().into_iter().next() else { return };
            match effect {
                Effect::RunStep { plan, step, direction, resume, not_before } => {
                    assert_eq!(plan, self.plan);
                    self.lab.now = self.lab.now.max(not_before.0);
                    self.run(step, direction, resume.is_some());
                }
                Effect::Verify(plan) => {
                    // The fault of an undo needs something to undo.
                    let late = matches!(
                        self.fault,
                        Fault::UndoFails | Fault::UndoFailsOnce | Fault::UndoLost
                    );
                    let value = if late { VerdictValue::Failed } else { VerdictValue::Passed };
                    self.lab.verdict(plan, value).unwrap();
                }
                Effect::Decide(_) => return,
                Effect::Notify(_) => unreachable!("filtered"),
            }
            self.new_leader();
        }
        panic!("the saga does not end");
    }

    fn run(&mut self, step: u32, direction: Direction, resume: bool) {
        self.lab.start_or_resume(self.plan, step, direction, resume).unwrap();
        if direction == Direction::Undo && !resume && self.undone.last() != Some(&step) {
            self.undone.push(step);
        }
        let again = self.lab.start_or_resume(self.plan, step, direction, resume);
        assert!(again.is_err(), "the same step started twice under one fence");
        if self.failover && !resume {
            // The leader dies between intent and outcome; the next one resumes.
            return;
        }
        let outcome = self.outcome(step, direction);
        let stale = self.lab.state.fence.fence;
        self.lab.finish(self.plan, step, direction, outcome.clone()).unwrap();
        let twice = self.lab.finish(self.plan, step, direction, outcome).unwrap();
        assert!(matches!(twice, crate::Reply::Noted(_)), "an outcome counted twice: {stale}");
    }

    fn outcome(&mut self, step: u32, direction: Direction) -> Outcome {
        if step != self.at || self.faults_left == 0 {
            return done();
        }
        let forward = direction == Direction::Forward;
        let outcome = match (self.fault, forward) {
            (Fault::Fails, true) => failed(false),
            (Fault::FailsOnce, true) => failed(true),
            (Fault::Lost, true) => unknown(),
            (Fault::CancelledDone, true) => {
                self.cancel();
                done()
            }
            (Fault::CancelledFails, true) => {
                self.cancel();
                failed(true)
            }
            (Fault::UndoFails, false) => failed(false),
            (Fault::UndoFailsOnce, false) => failed(true),
            (Fault::UndoLost, false) => unknown(),
            _ => return done(),
        };
        self.faults_left -= 1;
        outcome
    }

    fn cancel(&mut self) {
        let id = self.lab.saga(self.plan).incident;
        self.lab.root(Command::CancelRemediation(Lab::note(id))).unwrap();
        self.cancelled = true;
    }

    fn check(&self, steps: u32) {
        let saga = self.lab.saga(self.plan);
        let incident = self.lab.incident(saga.incident);
        let statuses: Vec<StepStatus> = saga.steps.iter().map(|step| step.status).collect();
        let of = |step: u32| statuses[step as usize];
        let (saga_status, incident_status) = match self.fault {
            Fault::Nothing | Fault::FailsOnce => (SagaStatus::Succeeded, IncidentStatus::Resolved),
            Fault::Fails | Fault::UndoFailsOnce => (SagaStatus::RolledBack, IncidentStatus::Open),
            Fault::CancelledDone | Fault::CancelledFails => {
                (SagaStatus::RolledBack, IncidentStatus::Escalated)
            }
            Fault::Lost | Fault::UndoLost => (SagaStatus::Unknown, IncidentStatus::Escalated),
            Fault::UndoFails => (SagaStatus::Failed, IncidentStatus::Escalated),
        };
        assert_eq!(saga.status, saga_status);
        assert_eq!(incident.status, incident_status);
        let reversed: Vec<u32> = match self.fault {
            Fault::Nothing | Fault::FailsOnce | Fault::Lost => Vec::new(),
            Fault::Fails | Fault::CancelledFails => (0..self.at).rev().collect(),
            Fault::CancelledDone => (0..=self.at).rev().collect(),
            Fault::UndoFails | Fault::UndoLost => (self.at..steps).rev().collect(),
            Fault::UndoFailsOnce => (0..steps).rev().collect(),
        };
        assert_eq!(self.undone, reversed, "undone in reverse, and only what was done");
        let ill = match self.fault {
            Fault::Fails | Fault::CancelledFails => Some(StepStatus::Failed),
            Fault::Lost | Fault::UndoLost => Some(StepStatus::Unknown),
            Fault::UndoFails => Some(StepStatus::UndoFailed),
            Fault::Nothing | Fault::FailsOnce | Fault::CancelledDone | Fault::UndoFailsOnce => None,
        };
        if let Some(ill) = ill {
            assert_eq!(of(self.at), ill);
        }
        let unknown = saga.status == SagaStatus::Unknown;
        assert_eq!(!self.lab.state.locks.is_empty(), unknown, "locks outlive only the unknown");
        assert_eq!(!self.lab.state.freezes.is_empty(), unknown);
    }
}

#[test]
fn every_unwinding_ends_as_it_should() {
    for steps in 1..=4 {
        for at in 0..steps {
            for fault in FAULTS {
                for failover in [false, true] {
                    let mut walk = Walk::new(steps, at, fault, failover);
                    let name = format!("{steps} steps, {fault:?} at {at}, failover {failover}");
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        walk.drive();
                        walk.check(steps);
                    }));
                    assert!(result.is_ok(), "{name}: {:#?}", walk.lab.saga(walk.plan));
                }
            }
        }
    }
}

#[test]
fn a_step_without_undo_is_skipped_and_stays_done() {
    let mut lab = Lab::new();
    let incident = lab.report("web", "w", "down");
    let mut steps: Vec<_> = ["w", "x", "y"].map(|name| step(&target("web", name))).into();
    for step in &mut steps {
        step.action.name = "process.start".into();
    }
    steps[1].undo = None;
    let plan = lab.adopt(incident, steps);
    lab.run(plan, 0, done());
    lab.run(plan, 1, done());
    lab.run(plan, 2, failed(false));
    assert_eq!(lab.saga(plan).status, SagaStatus::Unwinding);
    assert!(lab.start(plan, 1, Direction::Undo).is_err());
    lab.start(plan, 0, Direction::Undo).unwrap();
    lab.finish(plan, 0, Direction::Undo, done()).unwrap();
    let statuses: Vec<_> = lab.saga(plan).steps.iter().map(|step| step.status).collect();
    assert_eq!(statuses, [StepStatus::Undone, StepStatus::Done, StepStatus::Failed]);
    assert_eq!(lab.saga(plan).status, SagaStatus::RolledBack);
}
