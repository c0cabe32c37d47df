//! Ends: an alert that is not sent again is over, whoever leads then.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use medic_raft::{
    LocalLedger,
    env::{Clock, Env},
};
use tokio_util::sync::CancellationToken;

use super::{super::sweep::Later, *};

/// A clock that is moved by hand.
#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

const MINUTE: u64 = 60_000;

struct Lab {
    hand: Arc<Hand>,
    law: Arc<LocalLedger>,
    alerts: Arc<Alerts>,
}

impl Lab {
    async fn new() -> Self {
        let hand = Arc::new(Hand(AtomicU64::new(100 * MINUTE)));
        let law = law(Env { clock: hand.clone(), ..Env::system() }).await;
        let alerts = Arc::new(Alerts::new(law.clone(), Hub::new(law.clone())));
        Self { hand, law, alerts }
    }

    fn wait(&self, ms: u64) {
        self.hand.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sent as Prometheus does: over in four minutes, unless it is sent again.
    async fn send(&self, name: &str) {
        let ends_at = Some(self.hand.now().plus(medic_state::Millis(4 * MINUTE)));
        let sent = IncomingAlert { ends_at, ..about(name, true) };
        self.alerts.receive(&sender(None, true), &[sent]).await.unwrap();
    }

    fn entries(&self) -> u64 {
        self.law.read(|state| state.applied)
    }

    /// What fires, after a sweep of a leader that has just come to be one.
    async fn fires(&self) -> Vec<String> {
        let leader = Alerts::new(self.law.clone(), Hub::new(self.law.clone()));
        leader.sweep(&mut Later::new()).await.unwrap();
        let signals = |symptom: &Symptom| symptom.signals.iter().map(|s| s.name.clone()).collect();
        self.law.read(|state| standing(state, &target()).map(signals)).unwrap_or_default()
    }
}

#[tokio::test]
async fn an_alert_that_is_not_sent_again_is_over_at_its_end() {
    let lab = Lab::new().await;
    lab.send("Slow").await;
    lab.wait(3 * MINUTE);
    lab.send("Burning").await;
    assert_eq!(lab.fires().await, ["alert.Burning", "alert.Slow"]);
    // Never earlier than was said, and at most two minutes later.
    lab.wait(MINUTE);
    assert_eq!(lab.fires().await.len(), 2);
    lab.wait(2 * MINUTE);
    assert_eq!(lab.fires().await, ["alert.Burning"]);
    lab.wait(3 * MINUTE);
    assert_eq!(lab.fires().await, Vec::<String>::new());
    let incident = lab.law.read(|state| state.incidents.values().next().cloned()).unwrap();
    assert!(incident.symptoms.values().all(|known| known.cleared_at.is_some()), "{incident:?}");
}

#[tokio::test]
async fn an_alert_that_is_sent_each_minute_stands_and_is_written_every_third() {
    let lab = Lab::new().await;
    lab.send("Slow").await;
    let before = lab.entries();
    for _ in 0..60 {
        lab.wait(MINUTE);
        lab.send("Slow").await;
        assert_eq!(lab.fires().await, ["alert.Slow"]);
    }
    assert_eq!(lab.entries() - before, 20);
}

#[tokio::test]
async fn an_end_that_was_told_is_not_drawn_nearer_and_a_text_is_written_with_the_next_one() {
    let lab = Lab::new().await;
    let from = lab.hand.now();
    let until = |minutes: u64, text: &str| IncomingAlert {
        ends_at: Some(from.plus(medic_state::Millis(minutes * MINUTE))),
        annotations: BTreeMap::from([("summary".to_owned(), text.to_owned())]),
        ..about("Planned", true)
    };
    let text =
        || lab.law.read(|state| standing(state, &target()).unwrap().signals[0].value.clone());
    for (minutes, said, kept) in [(60, "one", "one"), (5, "two", "one"), (70, "three", "three")] {
        lab.alerts.receive(&sender(None, true), &[until(minutes, said)]).await.unwrap();
        assert_eq!(text(), kept);
    }
    lab.wait(70 * MINUTE);
    assert_eq!(lab.fires().await.len(), 1);
    lab.wait(2 * MINUTE);
    assert_eq!(lab.fires().await.len(), 0);
}

#[tokio::test]
async fn an_alert_of_the_webhook_stands_until_it_is_resolved() {
    let lab = Lab::new().await;
    let long = BTreeMap::from([("summary".to_owned(), "\u{e9}".repeat(1_000))]);
    let said = [IncomingAlert { annotations: long, ..about("Slow", true) }];
    lab.alerts.receive(&sender(None, true), &said).await.unwrap();
    let before = lab.entries();
    lab.alerts.receive(&sender(None, true), &said).await.unwrap();
    assert_eq!(lab.entries(), before, "the law has kept the text as it was sent");
    lab.wait(10_000 * MINUTE);
    assert_eq!(lab.fires().await, ["alert.Slow"]);
    lab.alerts.receive(&sender(None, true), &[about("Slow", false)]).await.unwrap();
    assert_eq!(lab.fires().await.len(), 0);
}

#[tokio::test]
async fn ends_beyond_the_signals_are_kept_as_well() {
    let lab = Lab::new().await;
    for n in 0..40 {
        lab.send(&format!("A{n:02}")).await;
    }
    assert_eq!(lab.fires().await.len(), MAX_SIGNALS);
    lab.wait(5 * MINUTE);
    lab.send("Late").await;
    lab.wait(MINUTE);
    assert_eq!(lab.fires().await, ["alerts.more"], "there was no room for its name");
    lab.send("Late").await;
    assert_eq!(lab.fires().await, ["alert.Late"]);
    lab.wait(6 * MINUTE);
    assert_eq!(lab.fires().await.len(), 0);
}

#[tokio::test]
async fn what_a_silence_keeps_from_being_written_is_not_proposed_at_every_look() {
    let lab = Lab::new().await;
    lab.send("Slow").await;
    lab.wait(3 * MINUTE);
    lab.send("Burning").await;
    let hush = serde_json::json!({"match": ["service=\"web\""], "comment": "known",
        "startsAt": "1970-01-01T00:00:00Z", "endsAt": "1970-01-02T00:00:00Z"});
    let manifest = medic_state::manifest::Manifest {
        metadata: serde_json::from_value(serde_json::json!({"name": "hush"})).unwrap(),
        spec: serde_json::from_value(serde_json::json!({"kind": "Silence", "spec": hush})).unwrap(),
    };
    let apply = medic_state::command::ApplyManifest { manifest, expected: None };
    let by = medic_state::rbac::Principal::user("root");
    let entry = lab.law.entry_for(by, None, Command::ApplyManifest(Box::new(apply)));
    lab.law.propose(entry).await.unwrap().answer.unwrap();
    lab.wait(3 * MINUTE);
    let (before, mut later) = (lab.entries(), Later::new());
    for _ in 0..5 {
        lab.alerts.sweep(&mut later).await.unwrap();
    }
    assert_eq!(lab.entries() - before, 1);
    lab.wait(60 * MINUTE);
    assert_eq!(lab.fires().await.len(), 0, "what is over altogether is over");
}

#[tokio::test(start_paused = true)]
async fn the_leader_alone_looks() {
    let lab = Lab::new().await;
    lab.send("Slow").await;
    lab.law.set_leader(false);
    let stop = CancellationToken::new();
    let sweeping = tokio::spawn(lab.alerts.clone().run(stop.clone()));
    let stands = || lab.law.read(|state| standing(state, &target()).is_some());
    lab.wait(10 * MINUTE);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(stands());
    lab.law.set_leader(true);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!stands());
    stop.cancel();
    sweeping.await.unwrap();
}
