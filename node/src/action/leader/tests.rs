//! The loop over the real law: success, unwinding, failover at every boundary, failures inside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use medic_raft::LedgerExt as _;
use medic_state::{
    incident::IncidentStatus,
    manifest::SafetyClass,
    plan::Direction::{self, Forward, Undo},
    saga::{Outcome, SagaStatus, StepStatus, VerdictValue},
    state::FreezeScope,
};

use crate::action::fixture::{Cut, Lab, TestJudge, step};

fn judge(class: SafetyClass) -> Arc<TestJudge> {
    Arc::new(TestJudge {
        steps: (0..3).map(|position| step(position, class)).collect(),
        verdict: VerdictValue::Passed,
        panics: Vec::new(),
    })
}

fn failed() -> Outcome {
    Outcome::Failed { reason: "scripted".to_owned(), retryable: false }
}

#[tokio::test]
async fn a_plan_runs_in_order_under_one_fence_and_is_verified() {
    let lab = Lab::new().await;
    let (peer, ..) = lab.start(1, judge(SafetyClass::Fenced));
    let id = lab.break_service("web").await;
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Resolved).await;
    assert_eq!(lab.world.effective(), [(0, Forward), (1, Forward), (2, Forward)]);
    let fence = lab.law.read(|state| state.fence.fence);
    assert!(lab.world.acts().iter().all(|act| act.fence == fence && act.attempt == 1));
    let sagas = lab.sagas(id);
    assert_eq!(sagas.len(), 1);
    assert_eq!(sagas[0].status, SagaStatus::Succeeded);
    assert_eq!(sagas[0].plan.digest(), sagas[0].digest);
}

#[tokio::test]
async fn a_failed_step_unwinds_in_reverse_with_what_the_acts_left_for_it() {
    let lab = Lab::new().await;
    lab.world.script(2, Forward, vec![failed()]);
    let (peer, ..) = lab.start(1, judge(SafetyClass::Fenced));
    let id = lab.break_service("web").await;
    peer.lead(1);
    lab.until(id, |incident| incident.status == IncidentStatus::Escalated).await;
    let undone: Vec<u32> = lab
        .world
        .effective()
        .into_iter()
        .filter(|(_, direction)| *direction == Undo)
        .map(|(step, _)| step)
        .collect();
    assert_eq!(undone, [1, 0]);
    let acts = lab.world.acts();
    let undo_of_1 = acts.iter().find(|act| act.key.step == 1 && act.key.direction == Undo).unwrap();
    assert_eq!(undo_of_1.action.params["hash"], "h1");
    assert_eq!(lab.sagas(id)[0].status, SagaStatus::RolledBack);
}

#[tokio::test]
async fn an_undo_that_fails_goes_to_a_human() {
    let lab = Lab::new().await;
    lab.world.script(1, Forward, vec![failed()]);
    lab.world.script(0, Undo, vec![failed(); 8]);
    let (peer, ..) = lab.start(1, judge(SafetyClass::Fenced));
    let id = lab.break_service("web").await;
    peer.lead(1);
    let incident = lab.until_status(id, IncidentStatus::Escalated).await;
    assert!(incident.escalation.is_some());
    assert_eq!(lab.sagas(id)[0].status, SagaStatus::Failed);
    assert_eq!(lab.sagas(id)[0].steps[0].status, StepStatus::UndoFailed);
}

/// Every boundary of a three-step plan.
fn boundaries() -> Vec<Cut> {
    let mut cuts = vec![
        Cut::Before("AdoptDecision", 0),
        Cut::After("AdoptDecision", 0),
        Cut::Before("RecordVerdict", 0),
        Cut::After("RecordVerdict", 0),
    ];
    for n in 0..3 {
        cuts.extend([
            Cut::Before("StartStep", n),
            Cut::After("StartStep", n),
            Cut::BeforeAct(n),
            Cut::AfterAct(n),
            Cut::Before("FinishStep", n),
            Cut::After("FinishStep", n),
        ]);
    }
    cuts
}

/// Runs a plan whose leader is lost at `cut`; a second leader goes on.
async fn fail_over(class: SafetyClass, cut: Cut) -> (Lab, medic_state::IncidentId) {
    let lab = Lab::new().await;
    let (first, ..) = lab.start(1, judge(class));
    let (second, ..) = lab.start(2, judge(class));
    let id = lab.break_service("web").await;
    first.cut_at(cut);
    first.lead(1);
    tokio::time::timeout(Duration::from_secs(10), first.lost()).await.unwrap();
    second.lead(2);
    lab.until(id, |incident| {
        matches!(incident.status, IncidentStatus::Resolved | IncidentStatus::Escalated)
    })
    .await;
    (lab, id)
}

#[tokio::test]
async fn a_leader_lost_at_any_boundary_is_replaced_and_nothing_is_applied_twice() {
    let classes = [SafetyClass::Fenced, SafetyClass::Idempotent, SafetyClass::Probeable];
    let all = classes.iter().flat_map(|class| boundaries().into_iter().map(|cut| (*class, cut)));
    let runs = all.map(|(class, cut)| async move {
        let (lab, id) = fail_over(class, cut).await;
        let what = format!("{class:?} cut at {cut:?}: {:#?}", lab.world.acts());
        let sagas = lab.sagas(id);
        assert_eq!(sagas.len(), 1, "{what}");
        assert_eq!(sagas[0].status, SagaStatus::Succeeded, "{what}");
        assert_eq!(sagas[0].plan.digest(), sagas[0].digest, "{what}");
        let done: Vec<(u32, Direction)> = lab.world.effective();
        assert_eq!(done, [(0, Forward), (1, Forward), (2, Forward)], "{what}");
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn an_opaque_act_without_outcome_is_unknown_frozen_and_escalated_never_repeated() {
    for cut in [Cut::BeforeAct(1), Cut::AfterAct(1), Cut::Before("FinishStep", 1)] {
        let (lab, id) = fail_over(SafetyClass::Opaque, cut).await;
        let saga = &lab.sagas(id)[0];
        assert_eq!(saga.status, SagaStatus::Unknown, "{cut:?}: {saga:#?}");
        assert_eq!(saga.steps[1].status, StepStatus::Unknown);
        let target = saga.plan.steps[1].target.clone();
        let frozen = lab.law.read(|s| s.freezes.contains_key(&FreezeScope::Target(target.clone())));
        assert!(frozen, "{cut:?}");
        let times = lab.world.effective().iter().filter(|done| **done == (1, Forward)).count();
        assert!(times <= 1, "{cut:?}");
    }
}

#[tokio::test]
async fn an_opaque_act_that_was_recorded_goes_on() {
    for cut in [Cut::Before("StartStep", 1), Cut::After("FinishStep", 1)] {
        let (lab, id) = fail_over(SafetyClass::Opaque, cut).await;
        assert_eq!(lab.sagas(id)[0].status, SagaStatus::Succeeded, "{cut:?}");
        assert_eq!(lab.world.effective(), [(0, Forward), (1, Forward), (2, Forward)], "{cut:?}");
    }
}

#[tokio::test]
async fn a_leader_lost_while_unwinding_is_replaced_and_every_undo_happens_once() {
    for cut in [
        Cut::After("StartStep", 3),
        Cut::AfterAct(3),
        Cut::After("FinishStep", 3),
        Cut::AfterAct(4),
    ] {
        let lab = Lab::new().await;
        lab.world.script(2, Forward, vec![failed()]);
        let (first, ..) = lab.start(1, judge(SafetyClass::Fenced));
        let (second, ..) = lab.start(2, judge(SafetyClass::Fenced));
        let id = lab.break_service("web").await;
        first.cut_at(cut);
        first.lead(1);
        tokio::time::timeout(Duration::from_secs(10), first.lost()).await.unwrap();
        second.lead(2);
        lab.until_status(id, IncidentStatus::Escalated).await;
        assert_eq!(lab.sagas(id)[0].status, SagaStatus::RolledBack, "{cut:?}");
        let effective = lab.world.effective();
        let undone: Vec<u32> =
            effective.iter().filter(|(_, way)| *way == Undo).map(|(step, _)| *step).collect();
        assert_eq!(undone, [1, 0], "{cut:?}");
    }
}

#[tokio::test]
async fn a_panic_in_judgement_escalates_its_incident_and_no_other() {
    let lab = Lab::new().await;
    let judge = TestJudge {
        steps: vec![step(0, SafetyClass::Fenced)],
        verdict: VerdictValue::Passed,
        panics: vec!["db".to_owned()],
    };
    let (peer, ..) = lab.start(1, Arc::new(judge));
    let broken = lab.break_service("db").await;
    let healthy = lab.break_service("web").await;
    peer.lead(1);
    let incident = lab.until_status(broken, IncidentStatus::Escalated).await;
    let why = incident.escalation.unwrap();
    assert!(why.contains("panicked: judgement of db/i0"), "{why}");
    lab.until_status(healthy, IncidentStatus::Resolved).await;
}

#[tokio::test]
async fn what_hangs_while_it_is_verified_is_known_not_to_be_seen() {
    let lab = Lab::new().await;
    lab.world.set_hanging(true);
    let (peer, ..) = lab.start(1, judge(SafetyClass::Fenced));
    let id = lab.break_service("web").await;
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Escalated).await;
    let verdict = lab.sagas(id)[0].verdict.clone().unwrap();
    assert_eq!(verdict.value, VerdictValue::Inconclusive);
}

#[tokio::test]
async fn a_leader_that_returns_begins_anew_under_a_higher_fence() {
    let lab = Lab::new().await;
    let (peer, ..) = lab.start(1, judge(SafetyClass::Fenced));
    peer.cut_at(Cut::AfterAct(1));
    let id = lab.break_service("web").await;
    peer.lead(1);
    peer.lost().await;
    let before = lab.law.read(|state| state.fence.fence);
    peer.lead(2);
    lab.until_status(id, IncidentStatus::Resolved).await;
    assert!(lab.law.read(|state| state.fence.fence) > before);
    assert_eq!(lab.world.effective(), [(0, Forward), (1, Forward), (2, Forward)]);
}

#[tokio::test]
async fn people_are_told_of_an_escalation_once() {
    let lab = Lab::new().await;
    lab.world.script(0, Forward, vec![failed()]);
    let (peer, ..) = lab.start(1, judge(SafetyClass::Fenced));
    let id = lab.break_service("web").await;
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Escalated).await;
    let told = async {
        while lab.world.told().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
    let first = lab.world.told();
    // The same leader looks again, and so does the same process in its next term.
    lab.must(lab.law.entry(medic_state::TraceId::default(), medic_state::Command::Tick)).await;
    peer.lose();
    peer.lead(2);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(lab.world.told(), first);
}
