//! The driver's own refusals: lease, freeze, fences of others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use medic_raft::LedgerExt as _;
use medic_state::{
    Command, Fence,
    command::{Freeze, IncidentNote},
    incident::IncidentStatus,
    manifest::SafetyClass,
    plan::Direction::{Forward, Undo},
    rbac::Principal,
    saga::{Outcome, SagaStatus, StepStatus, VerdictValue},
    state::FreezeScope,
};

use crate::action::fixture::{Cut, Lab, Peer, TestJudge, step};

fn judge() -> Arc<TestJudge> {
    Arc::new(TestJudge {
        steps: vec![step(0, SafetyClass::Fenced)],
        verdict: VerdictValue::Passed,
        panics: Vec::new(),
    })
}

/// Waits until the first step's intent is committed, and a while longer.
async fn intent_stands(lab: &Lab, id: medic_state::IncidentId) {
    lab.until(id, |incident| {
        incident
            .plan
            .is_some_and(|plan| lab.law.read(|state| state.sagas[&plan].steps[0].intent.is_some()))
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn nothing_is_sent_without_a_lease() {
    let lab = Lab::new().await;
    let (peer, ..) = lab.start(1, judge());
    peer.set_lease(Duration::from_millis(49));
    let id = lab.break_service("web").await;
    peer.lead(1);
    intent_stands(&lab, id).await;
    assert!(lab.world.acts().is_empty());
    peer.set_lease(Duration::from_millis(50));
    lab.until_status(id, IncidentStatus::Resolved).await;
    assert_eq!(lab.world.effective(), [(0, Forward)]);
}

#[tokio::test]
async fn a_freeze_between_intent_and_act_holds_the_act_back() {
    let lab = Lab::new().await;
    let (peer, ..) = lab.start(1, judge());
    let scope = FreezeScope::Global;
    let freeze = Freeze { scope: scope.clone(), reason: "audit".to_owned(), until: None };
    let root = Principal::user("root");
    peer.follow("StartStep", lab.law.entry_for(root.clone(), None, Command::Freeze(freeze)));
    let id = lab.break_service("web").await;
    peer.lead(1);
    intent_stands(&lab, id).await;
    assert!(lab.world.acts().is_empty());
    lab.must(lab.law.entry_for(root, None, Command::Unfreeze(scope))).await;
    lab.until_status(id, IncidentStatus::Resolved).await;
    assert_eq!(lab.world.effective(), [(0, Forward)]);
}

#[tokio::test]
async fn a_fence_this_cluster_never_committed_fails_the_step_with_advice() {
    let lab = Lab::new().await;
    lab.world.set_highest(Fence(1_000_000));
    let (peer, ..) = lab.start(1, judge());
    let id = lab.break_service("web").await;
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Escalated).await;
    assert!(lab.world.effective().is_empty());
    let saga = &lab.sagas(id)[0];
    let told = saga.steps[0].history.iter().any(|event| event.text.contains("another cluster"));
    let told = told || saga.reason.as_ref().is_some_and(|why| why.contains("another cluster"));
    assert!(told, "{saga:#?}");
}

#[tokio::test]
async fn a_higher_fence_of_this_cluster_makes_the_leader_take_office_anew() {
    let lab = Lab::new().await;
    let (peer, ..) = lab.start(1, judge());
    let id = lab.break_service("web").await;
    // A fence that is committed by the time the act is sent, and is not this office's.
    lab.world.set_highest(Fence(lab.law.read(|state| state.applied) + 2));
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Resolved).await;
    assert_eq!(lab.sagas(id)[0].status, SagaStatus::Succeeded);
    let fences: Vec<Fence> = lab.world.acts().iter().map(|act| act.fence).collect();
    assert!(fences.len() == 2 && fences[0] < fences[1], "{fences:?}");
}

#[tokio::test]
async fn an_agent_out_of_reach_makes_a_probeable_step_look_at_the_world() {
    let lab = Lab::new().await;
    let judge = Arc::new(TestJudge {
        steps: vec![step(0, SafetyClass::Probeable)],
        verdict: VerdictValue::Passed,
        panics: Vec::new(),
    });
    let (first, ..) = lab.start(1, judge.clone());
    let (second, ..) = lab.start(2, judge);
    first.cut_at(Cut::AfterAct(0));
    let id = lab.break_service("web").await;
    first.lead(1);
    first.lost().await;
    lab.world.set_unreachable(true);
    second.lead(2);
    lab.until_status(id, IncidentStatus::Resolved).await;
    assert_eq!(lab.world.effective(), [(0, Forward)]);
    assert!(lab.sagas(id)[0].steps[0].evidence.contains_key("observed"));
}

#[tokio::test]
async fn a_plan_cancelled_between_intent_and_act_does_not_act() {
    let lab = Lab::new().await;
    let (peer, ..) = lab.start(1, judge());
    let id = lab.break_service("web").await;
    let note = IncidentNote { incident: id, note: "not now".to_owned() };
    let cancel = Command::CancelRemediation(note);
    peer.follow("StartStep", lab.law.entry_for(Principal::user("root"), None, cancel));
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Escalated).await;
    assert!(lab.world.acts().is_empty());
    let saga = &lab.sagas(id)[0];
    assert_eq!(saga.status, SagaStatus::RolledBack);
    assert_eq!(saga.steps[0].status, StepStatus::Failed);
}

/// A leader is lost between act and outcome of its only step; the second one has not begun yet.
async fn lost_after_the_act(class: SafetyClass) -> (Lab, Arc<Peer>, medic_state::IncidentId) {
    let lab = Lab::new().await;
    let judge = Arc::new(TestJudge {
        steps: vec![step(0, class)],
        verdict: VerdictValue::Passed,
        panics: Vec::new(),
    });
    let (first, ..) = lab.start(1, judge.clone());
    let (second, ..) = lab.start(2, judge);
    first.cut_at(Cut::AfterAct(0));
    let id = lab.break_service("web").await;
    first.lead(1);
    first.lost().await;
    (lab, second, id)
}

#[tokio::test]
async fn an_act_of_a_lost_leader_is_undone_when_its_plan_is_cancelled_meanwhile() {
    for class in [SafetyClass::Fenced, SafetyClass::Idempotent, SafetyClass::Probeable] {
        let (lab, second, id) = lost_after_the_act(class).await;
        let note = IncidentNote { incident: id, note: "not now".to_owned() };
        let cancel = Command::CancelRemediation(note);
        lab.must(lab.law.entry_for(Principal::user("root"), None, cancel)).await;
        second.lead(2);
        lab.until_status(id, IncidentStatus::Escalated).await;
        assert_eq!(lab.world.effective(), [(0, Forward), (0, Undo)], "{class:?}");
        let saga = &lab.sagas(id)[0];
        assert_eq!(saga.status, SagaStatus::RolledBack, "{class:?}: {saga:#?}");
        assert_eq!(saga.steps[0].status, StepStatus::Undone, "{class:?}");
    }
}

#[tokio::test]
async fn an_act_of_a_lost_leader_has_not_failed_because_its_agent_is_away_now() {
    for class in [SafetyClass::Fenced, SafetyClass::Idempotent] {
        let (lab, second, id) = lost_after_the_act(class).await;
        lab.world.set_unreachable(true);
        second.lead(2);
        lab.until_status(id, IncidentStatus::Escalated).await;
        let saga = &lab.sagas(id)[0];
        assert_eq!(saga.status, SagaStatus::Unknown, "{class:?}: {saga:#?}");
        assert_eq!(saga.steps[0].status, StepStatus::Unknown, "{class:?}");
    }
}

#[tokio::test]
async fn a_retry_has_the_same_key_and_a_higher_attempt() {
    let lab = Lab::new().await;
    let refused = Outcome::Failed { reason: "busy".to_owned(), retryable: true };
    lab.world.script(0, Forward, vec![refused]);
    let mut planned = step(0, SafetyClass::Fenced);
    planned.retries = 1;
    let judge =
        TestJudge { steps: vec![planned], verdict: VerdictValue::Passed, panics: Vec::new() };
    let (peer, ..) = lab.start(1, Arc::new(judge));
    let id = lab.break_service("web").await;
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Resolved).await;
    let acts = lab.world.acts();
    assert_eq!(acts.iter().map(|act| act.attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(acts[0].key, acts[1].key);
}

#[tokio::test]
async fn an_act_without_answer_is_asked_about_before_it_counts_as_unknown() {
    let unknown = || Outcome::Unknown { reason: "the connection broke".to_owned() };
    // The agent knows better by the time it is asked.
    let lab = Lab::new().await;
    lab.world.answer_lost(true);
    let (peer, ..) = lab.start(1, judge());
    let id = lab.break_service("web").await;
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Resolved).await;
    assert_eq!(lab.world.effective(), [(0, Forward)]);
    // It does not.
    let lab = Lab::new().await;
    lab.world.script(0, Forward, vec![unknown()]);
    let (peer, ..) = lab.start(1, judge());
    let id = lab.break_service("web").await;
    peer.lead(1);
    lab.until_status(id, IncidentStatus::Escalated).await;
    assert_eq!(lab.sagas(id)[0].status, SagaStatus::Unknown);
    assert_eq!(lab.world.acts().len(), 1, "never blindly twice");
}

#[tokio::test]
async fn a_backend_that_panics_escalates_its_incident_and_no_other() {
    let lab = Lab::new().await;
    lab.world.panic_on("db");
    let (peer, ..) = lab.start(1, judge());
    let broken = lab.break_service("db").await;
    let healthy = lab.break_service("web").await;
    peer.lead(1);
    let incident = lab.until(broken, |incident| incident.escalation.is_some()).await;
    let why = incident.escalation.unwrap();
    assert!(why.contains("panicked: no backend for db/i0"), "{why}");
    lab.until_status(healthy, IncidentStatus::Resolved).await;
}
