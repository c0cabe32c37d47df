//! Telling over the real law: once, after failures, and when leaders die on the way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use medic_raft::{Ledger as _, LedgerExt as _};
use medic_state::{
    Command, IncidentId, TraceId,
    command::IncidentNote,
    incident::Incident,
    manifest::SafetyClass,
    notice::{Delivery, NoticeKind},
    plan::Direction::Forward,
    rbac::Principal,
    saga::{Outcome, VerdictValue},
};
use serde_json::json;

use crate::action::fixture::{Cut, Lab, TestJudge, step};

fn judge() -> Arc<TestJudge> {
    let (steps, verdict) = (vec![step(0, SafetyClass::Fenced)], VerdictValue::Passed);
    Arc::new(TestJudge { steps, verdict, panics: Vec::new() })
}

/// A lab in which the remediation of `web` fails, so that people are needed.
async fn lab() -> (Lab, IncidentId) {
    let lab = Lab::new().await;
    lab.up_to_date().await;
    lab.world.script(0, Forward, vec![scripted()]);
    let id = lab.break_service("web").await;
    (lab, id)
}

fn scripted() -> Outcome {
    Outcome::Failed { reason: "scripted".to_owned(), retryable: false }
}

fn is_settled(incident: &Incident, channel: &str) -> bool {
    incident
        .notices
        .get(channel)
        .is_some_and(|notice| matches!(notice.delivery, Delivery::Delivered | Delivery::Unknown(_)))
}

fn heard(lab: &Lab, channel: &str) -> usize {
    lab.world.told().iter().filter(|(told, _)| told == channel).count()
}

fn slack() -> serde_json::Value {
    json!({"slack": {"url": "http://127.0.0.1:1/"}})
}

#[tokio::test]
async fn a_channel_that_fails_is_tried_again_and_every_channel_hears_once() {
    let (lab, id) = lab().await;
    lab.channel("chat", slack()).await;
    let refused = || Delivery::Failed("connection refused".to_owned());
    lab.world.fates("pager", vec![refused(), Delivery::Delivered]);
    let (peer, ..) = lab.start(1, judge());
    peer.lead(1);
    let told =
        |incident: &Incident| ["chat", "pager"].iter().all(|name| is_settled(incident, name));
    let incident = lab.until(id, told).await;
    assert_eq!((heard(&lab, "pager"), heard(&lab, "chat")), (1, 1));
    let pager = &incident.notices["pager"];
    assert_eq!((pager.kind, pager.delivered, pager.heard), (NoticeKind::NeedsHuman, 1, true));
    assert!(incident.timeline.iter().any(|item| item.text.contains("pager could not be told")));
}

#[tokio::test]
async fn what_a_dead_leader_was_about_to_send_is_in_doubt_where_a_repeat_would_be_heard_twice() {
    for (cut, arrived) in [(Cut::BeforeTelling, 0), (Cut::AfterTelling, 1)] {
        let (lab, id) = lab().await;
        lab.channel("chat", slack()).await;
        // So that the chat is the first to be told, and not the only one.
        lab.world.fates("pager", vec![Delivery::Failed("not yet".to_owned())]);
        let (first, ..) = lab.start(1, judge());
        let (second, ..) = lab.start(2, judge());
        first.lead(1);
        lab.until(id, |incident| incident.notices.contains_key("pager")).await;
        lab.until(id, |incident| is_settled(incident, "chat")).await;
        // Over again, with a leader that dies while it tells.
        lab.world.script(0, Forward, vec![scripted()]);
        let again = lab.break_service("db").await;
        first.cut_at(cut);
        first.lost().await;
        let (pager, chat) = (heard(&lab, "pager"), heard(&lab, "chat"));
        second.lead(2);
        let told =
            |incident: &Incident| ["chat", "pager"].iter().all(|name| is_settled(incident, name));
        let incident = lab.until(again, told).await;
        // Whichever channel the first leader died on: nobody heard twice but those who can tell.
        let mentions = |channel: &str| {
            let about = format!("{again} ");
            let told = lab.world.told();
            told.iter().filter(|(to, text)| to == channel && text.starts_with(&about)).count()
        };
        assert!(mentions("chat") <= 1, "{cut:?}: {:?}", lab.world.told());
        assert!(mentions("pager") >= 1, "{cut:?}: the pager hears of it: {incident:#?}");
        assert!(pager + chat >= arrived);
    }
}

#[tokio::test]
async fn who_heard_of_it_hears_that_it_is_over() {
    let (lab, id) = lab().await;
    lab.channel("chat", slack()).await;
    let (peer, ..) = lab.start(1, judge());
    peer.lead(1);
    lab.until(id, |incident| is_settled(incident, "chat") && is_settled(incident, "pager")).await;
    let note = IncidentNote { incident: id, note: String::new() };
    let resolve = Command::ResolveIncident(note);
    lab.must(lab.law.entry_for(Principal::user("root"), None, resolve)).await;
    let over = |incident: &Incident| {
        let chat = &incident.notices["chat"];
        chat.kind == NoticeKind::Resolved && chat.delivery == Delivery::Delivered
    };
    lab.until(id, over).await;
    assert_eq!((heard(&lab, "chat"), heard(&lab, "pager")), (2, 1), "a webhook did not ask for it");
}

#[tokio::test]
async fn before_everybody_understands_it_people_are_told_and_nothing_is_noted() {
    let lab = Lab::new().await;
    lab.world.script(0, Forward, vec![scripted()]);
    let refused = Delivery::Failed("connection refused".to_owned());
    lab.world.fates("pager", vec![refused, Delivery::Delivered]);
    let (peer, ..) = lab.start(1, judge());
    let id = lab.break_service("web").await;
    peer.lead(1);
    let told = async {
        while heard(&lab, "pager") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::action::fixture::PATIENCE, told).await.unwrap();
    lab.must(lab.law.entry(TraceId::default(), Command::Tick)).await;
    peer.lose();
    peer.lead(2);
    let next = lab.law.read(|state| state.applied);
    let mut applied = lab.law.applied();
    applied.wait_for(|applied| *applied > next).await.unwrap();
    assert_eq!(heard(&lab, "pager"), 1, "the same process does not tell it again");
    assert!(lab.law.read(|state| state.incidents[&id].notices.is_empty()));
}
