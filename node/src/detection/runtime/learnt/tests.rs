//! What travels between watches: whole, in pieces, and never backwards.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use async_trait::async_trait;
use medic_state::{
    Millis, Timestamp,
    manifest::{InstanceSpec, ProbeKind, ServiceSpec},
};

use super::*;
use crate::{
    detection::{
        entity::Entity,
        indicator::Values,
        intake::log::{
            HandedLog,
            drain::{Drain, Level},
        },
        lord,
        probe::Outcome,
        scrape::ScrapeError,
        senses::Senses,
    },
    world::Seen,
};

const SERVICE: &str = r#"{"indicators":[{"name":"memory","source":{"gauge":"m"}}]}"#;

fn target(number: usize) -> Target {
    Target {
        tenant: "default".to_owned(),
        service: "web".to_owned(),
        instance: format!("web-{number}"),
    }
}

fn entity(number: usize) -> Entity {
    let service: ServiceSpec = serde_json::from_str(SERVICE).unwrap();
    let instance = format!(r#"{{"name":"web-{number}"}}"#);
    let instance: InstanceSpec = serde_json::from_str(&instance).unwrap();
    let lead = Millis::from_secs(600);
    Entity::new(target(number), "test".to_owned(), &service, &instance, lead, Now::default())
}

/// What is learnt of an instance after so many scrapes.
fn learnt_of(number: usize, scrapes: u64) -> EntityCheckpoint {
    let mut entity = entity(number);
    for scrape in 0..scrapes {
        let now = Now { mono_ms: scrape * 5_000, wall: Timestamp(scrape * 5_000) };
        let values = [("memory".to_owned(), 5.0 + (scrape % 7) as f64)].into();
        entity.on_scrape(Ok(&Values { values, ..Values::default() }), now);
    }
    entity.checkpoint(Now::default())
}

fn parcel(epoch: u64, checkpoint: &EntityCheckpoint) -> Vec<u8> {
    codec::encode(&vec![Carried::new(Epoch(epoch), checkpoint)])
}

fn shared() -> Arc<Shared> {
    Arc::new(crate::detection::runtime::tests::shared())
}

#[test]
fn pieces_hold_everything_and_no_more_than_they_may() {
    let all: Vec<_> = (0..100).map(|number| (Epoch(3), learnt_of(number, 0))).collect();
    let one = Carried::new(Epoch(3), &all[99].1).body.len() + SURROUNDINGS_BYTES;
    for bytes_max in [one, 3 * one, 1_000_000] {
        let pieces = pieces(all.clone(), bytes_max);
        assert!(pieces.iter().all(|piece| piece.len() <= bytes_max), "{bytes_max}");
        let back: Vec<_> = (pieces.iter().flat_map(|piece| unpack(piece).unwrap()))
            .map(|carried| (carried.epoch, carried.open().unwrap()))
            .collect();
        assert_eq!(back, all, "{bytes_max}");
    }
    assert_eq!(pieces(all, 20), Vec::<Vec<u8>>::new(), "what is too large is left out");
}

#[tokio::test]
async fn what_a_shards_tests_have_earned_goes_with_its_instances() {
    let (owner, heir) = (Learnt(shared()), Learnt(shared()));
    let shard = State::shard_of(&target(0));
    owner.0.prove(shard, |prover| {
        prover.stream.begin(prover.level, Timestamp(1_700_000_000_000));
        prover.stream.discover();
    });
    for number in 0..3 {
        owner.0.keep((shard, Epoch(3)), learnt_of(number, 0), false);
    }
    for body in owner.take_lost(1 << 20).remove(&shard).unwrap() {
        assert_eq!(heir.restore(&body).unwrap(), Took { taken: 3, ..Took::default() });
    }
    let of = |learnt: &Learnt| lock(&learnt.0.streams).get(&shard).cloned().unwrap();
    assert_eq!(of(&heir), of(&owner));
    assert_eq!((of(&heir).tests(), of(&heir).discoveries()), (1, 1));
    assert_eq!(lock(&heir.0.restored).len(), 3);
}

/// Holds the log of one instance.
#[derive(Default)]
struct Logs(std::sync::Mutex<Drain>);

#[async_trait]
impl Senses for Logs {
    async fn probe(&self, _: &Target, _: &ProbeKind, _: Duration) -> Outcome {
        Outcome::Good
    }

    async fn scrape(&self, _: &str, timeout: Duration) -> Result<String, ScrapeError> {
        Err(ScrapeError::Timeout(timeout))
    }

    fn seen(&self, _: &Target) -> Option<Seen> {
        None
    }

    fn connected(&self, _: &str) -> bool {
        false
    }

    fn log_learnt(&self, _: &Target) -> Option<HandedLog> {
        Some(lock(&self.0).handed(0))
    }

    fn log_go_on(&self, _: &Target, handed: &HandedLog) {
        lock(&self.0).go_on_from(handed, 0);
    }
}

#[tokio::test]
async fn the_log_of_an_instance_goes_with_it() {
    let nodes = [(); 2].map(|()| Arc::new(Logs::default()));
    let [owner, heir] = nodes.clone().map(|logs| Learnt(Arc::new(Shared::new(logs, lord::LEVEL))));
    lock(&nodes[0].0).take(Level::Error, "disk is full", 0);
    let checkpoint = owner.0.checkpoint(&entity(0), Now::default());
    heir.0.go_on(&mut entity(0), checkpoint, Now::default());
    assert_eq!(lock(&nodes[1].0).handed(0), lock(&nodes[0].0).handed(0));
}

/// A node that has just begun to watch the first instance under an epoch, from what was learnt under another.
fn watching(epoch: u64, from: Option<u64>) -> Learnt {
    let learnt = Learnt(shared());
    let watched = Watched {
        shard: State::shard_of(&target(0)),
        epoch: Epoch(epoch),
        began_ms: learnt.0.mono_ms(),
        from: from.map(Epoch),
        entity: Arc::new(std::sync::Mutex::new(entity(0))),
    };
    lock(&learnt.0.entities).insert(target(0), watched);
    learnt
}

/// What is known of the first instance.
fn knows(learnt: &Learnt) -> EntityCheckpoint {
    let entities = lock(&learnt.0.entities);
    let entity = lock(&entities[&target(0)].entity);
    entity.checkpoint(Now::default())
}

const STALE: Took = Took { taken: 0, stale: 1, unreadable: 0, why: None };
const TAKEN: Took = Took { taken: 1, stale: 0, unreadable: 0, why: None };

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_an_earlier_owners_last_word_and_is_never_rewound() {
    let learnt = watching(5, Some(4));
    let last_word = learnt_of(0, 50);
    let cold = knows(&learnt);
    assert_eq!(learnt.restore(&parcel(3, &last_word)).unwrap(), STALE, "before whom it began from");
    assert_eq!(learnt.restore(&parcel(5, &last_word)).unwrap(), STALE, "nobody else watches now");
    assert_eq!(knows(&learnt), cold);
    assert_eq!(learnt.restore(&parcel(4, &last_word)).unwrap(), TAKEN);
    assert_eq!(knows(&learnt).series, last_word.series);
    assert_ne!(knows(&learnt).series, cold.series);
    // Whoever learns of it later has learnt less of it.
    tokio::time::advance(std::time::Duration::from_millis(LAST_WORD_MS + 1)).await;
    assert_eq!(learnt.restore(&parcel(4, &learnt_of(0, 20))).unwrap(), STALE);
    assert_eq!(knows(&learnt).series, last_word.series);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_began_cold_takes_any_earlier_owners_word_and_later_ones_wait() {
    let learnt = watching(5, None);
    assert_eq!(learnt.restore(&parcel(2, &learnt_of(0, 20))).unwrap(), TAKEN);
    assert_eq!(learnt.restore(&parcel(1, &learnt_of(0, 50))).unwrap(), STALE);
    assert_eq!(knows(&learnt).series, learnt_of(0, 20).series);
    // It was somebody else's meanwhile, and comes back: this node is about to hear of it.
    assert_eq!(learnt.restore(&parcel(6, &learnt_of(0, 50))).unwrap(), TAKEN);
    assert_eq!(knows(&learnt).series, learnt_of(0, 20).series);
    learnt.0.keep((State::shard_of(&target(0)), Epoch(5)), knows(&learnt), true);
    let (epoch, checkpoint, _) = learnt.0.begin_with(&target(0)).unwrap();
    assert_eq!((epoch, checkpoint.series), (Epoch(6), learnt_of(0, 50).series));
}

#[tokio::test(start_paused = true)]
async fn of_what_waits_for_its_shard_the_later_word_is_kept() {
    let learnt = Learnt(shared());
    assert_eq!(learnt.restore(&parcel(4, &learnt_of(0, 20))).unwrap(), TAKEN);
    assert_eq!(learnt.restore(&parcel(3, &learnt_of(0, 50))).unwrap(), STALE);
    assert_eq!(
        learnt.restore(&parcel(4, &learnt_of(0, 50))).unwrap(),
        TAKEN,
        "the same owner, later"
    );
    let (epoch, checkpoint, _) = learnt.0.begin_with(&target(0)).unwrap();
    assert_eq!((epoch, checkpoint.series), (Epoch(4), learnt_of(0, 50).series));
}

#[tokio::test(start_paused = true)]
async fn what_another_build_wrote_is_left_out_by_itself_and_named() {
    let learnt = Learnt(shared());
    let mut all: Vec<Carried> =
        (0..3).map(|number| Carried::new(Epoch(4), &learnt_of(number, 5))).collect();
    all[1].form += 1;
    all[2].body.truncate(9);
    let took = learnt.restore(&codec::encode(&all)).unwrap();
    assert_eq!((took.taken, took.stale, took.unreadable), (1, 0, 2));
    assert_eq!(took.why, Some(BadCheckpoint::Form(2)));
    assert_eq!(lock(&learnt.0.restored).keys().collect::<Vec<_>>(), [&target(0)]);
    assert!(learnt.restore(b"nonsense").is_err());
}
