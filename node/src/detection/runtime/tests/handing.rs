//! What was learnt goes to the heir while its owner lives, and to the new owner when a shard moves.

use bytes::Bytes;
use medic_raft::{Courier, LedgerError, Parcel, ParcelKind};

use super::*;
use crate::detection::Handover;

/// A courier that hands parcels to the test.
struct Hand(mpsc::UnboundedSender<(NodeId, Bytes)>);

#[async_trait]
impl Courier for Hand {
    async fn pass(&self, to: NodeId, _: ParcelKind, body: Bytes) -> Result<(), LedgerError> {
        self.0.send((to, body)).map_err(|_| LedgerError::Stopped("the test".to_owned()))
    }
}

type Parcels = mpsc::UnboundedReceiver<(NodeId, Bytes)>;

fn hand_over(
    lab: &Lab,
    runtime: &Runtime,
    heirs: crate::detection::handover::Heirs,
) -> (mpsc::Sender<Parcel>, Parcels) {
    let (hand, parcels) = mpsc::unbounded_channel();
    let (inbox_in, inbox) = mpsc::channel(4);
    let handover = Handover {
        ledger: lab.law.clone(),
        courier: Arc::new(Hand(hand)),
        inbox,
        learnt: runtime.learnt(),
        heirs,
    };
    tokio::spawn(handover.run(lab.stop.clone()));
    (inbox_in, parcels)
}

async fn parcel(parcels: &mut Parcels) -> (NodeId, Bytes) {
    tokio::time::timeout(FIVE_SECONDS, parcels.recv()).await.unwrap().unwrap()
}

fn knows_web(body: &Bytes) -> bool {
    let all = crate::detection::entity::carried::unpack(body).unwrap();
    all.iter().any(|carried| carried.open().unwrap().target.instance == "web-1")
}

fn all_to_the_other(state: &State, node: NodeId, _: NodeId) -> BTreeMap<ShardId, NodeId> {
    let held = state.shards.iter().filter(|(_, held)| held.owner == Some(node));
    held.map(|(shard, _)| (*shard, OTHER)).collect()
}

fn nobody(_: &State, _: NodeId, _: NodeId) -> BTreeMap<ShardId, NodeId> {
    BTreeMap::new()
}

/// A lab in which a real service is declared and watched.
async fn watching() -> (Lab, Service, Runtime) {
    let lab = Lab::new().await;
    let service = Service::start(ANY).await;
    lab.declare_web(service.address.port()).await;
    let runtime = lab.watch(NetSenses::new(Arc::new(NoAgents)));
    (lab, service, runtime)
}

#[tokio::test]
async fn the_heir_of_a_watched_shard_is_told_what_was_learnt() {
    let (lab, _service, runtime) = watching().await;
    let (_inbox, mut parcels) = hand_over(&lab, &runtime, all_to_the_other);
    let (to, body) = parcel(&mut parcels).await;
    assert_eq!(to, OTHER);
    assert!(knows_web(&body));
    lab.stop.cancel();
    runtime.ended().await.unwrap();
}

/// Waits until so many instances are watched.
async fn watched(runtime: &Runtime, wanted: usize) {
    let watched = async {
        while lock(&runtime.shared.entities).len() != wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(FIVE_SECONDS, watched).await.unwrap();
}

#[tokio::test]
async fn a_shard_that_moves_brings_what_was_learnt_to_its_new_owner() {
    let (lab, service, runtime) = watching().await;
    let (_inbox, mut parcels) = hand_over(&lab, &runtime, nobody);
    watched(&runtime, 1).await;
    lab.assign(OTHER).await;
    let (to, body) = parcel(&mut parcels).await;
    assert_eq!(to, OTHER);
    assert!(knows_web(&body));
    lab.stop.cancel();
    runtime.ended().await.unwrap();

    // The other one takes it in, and begins with it when the shard is its own.
    let lab = Lab::new().await;
    lab.assign(OTHER).await;
    lab.declare_web(service.address.port()).await;
    let runtime = lab.watch(NetSenses::new(Arc::new(NoAgents)));
    let (inbox, _parcels) = hand_over(&lab, &runtime, nobody);
    inbox.send(Parcel { from: OTHER, body }).await.unwrap();
    let waits = async {
        while lock(&runtime.shared.restored).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(FIVE_SECONDS, waits).await.unwrap();
    lab.assign(ME).await;
    watched(&runtime, 1).await;
    assert!(lock(&runtime.shared.restored).is_empty(), "it was begun with");
    lab.stop.cancel();
    runtime.ended().await.unwrap();
}

#[tokio::test]
async fn a_shard_that_comes_back_without_a_word_is_begun_with_what_was_known_here() {
    let (lab, _service, runtime) = watching().await;
    let (_inbox, mut parcels) = hand_over(&lab, &runtime, nobody);
    watched(&runtime, 1).await;
    lab.assign(OTHER).await;
    parcel(&mut parcels).await;
    watched(&runtime, 0).await;
    // Its new owner died before it could watch anything.
    lab.assign(ME).await;
    watched(&runtime, 1).await;
    let warm = |watched: &Watched| watched.from.is_some();
    assert!(lock(&runtime.shared.entities).values().all(warm), "it starts warm");
    lab.stop.cancel();
    runtime.ended().await.unwrap();
}
