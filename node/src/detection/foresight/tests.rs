//! Two nodes that tell each other, over the real law.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use medic_api::control::Foresight as _;
use medic_raft::{Courier, LedgerError, LocalLedger, Parcel, env::Env};
use medic_state::{
    BootId, Command, Entry, Timestamp, TraceId,
    command::{AssignShards, RegisterNode},
    rbac::Principal,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{super::share::STALE, *};
use crate::detection::{
    Sharing,
    predict::{
        forecast::{Forecast, ForecastKind, When},
        record::{Outcome, Scored},
    },
    runtime::Foreseen as OfInstance,
    share::EVERY,
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

/// One node: its copy of the law, and what it foresees.
struct Node {
    ledger: Arc<LocalLedger>,
    foresight: Arc<Foresight>,
    outcomes: Arc<Mutex<Outcomes>>,
}

impl Node {
    /// It foresees one thing of each shard it is given here.
    async fn new(me: NodeId, shards: impl IntoIterator<Item = u32>, each: usize) -> Self {
        let ledger = LocalLedger::new(me, BootId(me.0), Env::system());
        let outcomes: Arc<Mutex<Outcomes>> = Arc::default();
        let predictions: Vec<OfInstance> = shards
            .into_iter()
            .flat_map(|shard| std::iter::repeat_n(ShardId(shard), each))
            .enumerate()
            .map(|(at, shard)| of_instance(shard, 0.99 - at as f64 * 1e-5))
            .collect();
        let own = move || Predictions { predictions: predictions.clone(), scores: Vec::new() };
        let foresight = Foresight::new(ledger.clone(), Arc::new(own), outcomes.clone());
        let node = Self { ledger, foresight: Arc::new(foresight), outcomes };
        for other in [A, B] {
            let register = RegisterNode {
                node: other,
                region: String::new(),
                api_addr: "127.0.0.1:1".to_owned(),
                boot: BootId(other.0),
                version: "test".to_owned(),
                understands: Some(medic_state::CLUSTER_VERSION),
                weight: None,
            };
            node.must(Some(other), Command::RegisterNode(register)).await;
        }
        node
    }

    async fn must(&self, by: Option<NodeId>, command: Command) {
        let entry = self.ledger.entry(TraceId::default(), command);
        let principal = by.map_or(entry.principal.clone(), Principal::node);
        self.ledger.propose(Entry { principal, ..entry }).await.unwrap().answer.unwrap();
    }

    async fn assign(&self, to: NodeId, shards: impl IntoIterator<Item = u32>) {
        let moves = shards.into_iter().map(|shard| (ShardId(shard), to)).collect();
        self.must(None, Command::AssignShards(AssignShards { moves })).await;
    }

    fn hears(&self, other: &Self) {
        for body in other.foresight.to_tell(0) {
            self.foresight.take(other.ledger.node(), &body).unwrap();
        }
    }

    fn came_true(&self, shard: u32, tenant: &str) {
        let (kind, outcome) = (ForecastKind::Failure, Outcome::CameTrue);
        let scored = Scored { kind, probability: 0.8, outcome, on_time: true };
        let epoch = self.ledger.read(|state| state.shards[&ShardId(shard)].epoch);
        lock(&self.outcomes).note((ShardId(shard), epoch), tenant, scored);
    }
}

fn of_instance(shard: ShardId, probability: f64) -> OfInstance {
    let when = When { seconds: 600.0, earliest: 500.0, latest: 800.0 };
    let about = (ForecastKind::Capacity, "memory");
    let factors = vec!["it rises".to_owned()];
    OfInstance {
        tenant: "default".to_owned(),
        service: "web".to_owned(),
        instance: format!("web-{}", shard.0),
        shard,
        forecast: Forecast::new(about, probability, 0.7, when, factors).unwrap(),
    }
}

/// Two nodes that own half of the shards each, by both their copies of the law.
async fn two() -> (Node, Node) {
    let nodes = (Node::new(A, 0..32, 1).await, Node::new(B, 32..SHARDS, 1).await);
    for node in [&nodes.0, &nodes.1] {
        node.assign(A, 0..32).await;
        node.assign(B, 32..SHARDS).await;
    }
    nodes
}

fn reasons(gaps: &[pb::Gap]) -> Vec<(&str, usize, &str)> {
    gaps.iter().map(|gap| (gap.node.as_str(), gap.shards.len(), gap.reason.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn any_node_answers_for_all_and_says_what_it_does_not_know() {
    let (a, b) = two().await;
    let alone = a.foresight.foreseen();
    assert_eq!(alone.predictions.len(), 32);
    let silent = ("node-2", 32, "it has not told yet what it foresees");
    assert_eq!(reasons(&alone.gaps), [silent]);
    a.hears(&b);
    let all = a.foresight.foreseen();
    assert_eq!((all.predictions.len(), all.gaps.len()), (64, 0));
    let of_b = all.predictions.iter().find(|one| one.node == "node-2").unwrap();
    assert_eq!((of_b.kind(), of_b.expected_ms), (pb::PredictionKind::Capacity, 600_000));
    assert_eq!((of_b.factors.len(), of_b.actions.len()), (1, 3));
    tokio::time::advance(STALE + Duration::from_secs(1)).await;
    let late = a.foresight.foreseen();
    assert_eq!(reasons(&late.gaps), [("node-2", 32, "it was last heard from 16 s ago")]);
    assert_eq!(late.predictions.len(), 64, "what was known is still told");
}

#[tokio::test]
async fn a_shard_that_moves_is_a_gap_until_its_new_owner_tells_and_stands_once() {
    let (a, b) = two().await;
    a.hears(&b);
    // Both watch shard 40 for a moment; the law says B, then A, then B again.
    a.assign(A, [40]).await;
    let moved = a.foresight.foreseen();
    assert_eq!(moved.predictions.len(), 63, "B's word about it counts no longer");
    assert!(moved.gaps.is_empty(), "A itself owns it");
    a.assign(B, [40]).await;
    let gaps = a.foresight.gaps();
    assert_eq!(reasons(&gaps), [("node-2", 1, "it has just begun to watch them")]);
    for to in [A, B] {
        b.assign(to, [40]).await;
    }
    a.hears(&b);
    assert!(a.foresight.gaps().is_empty());
}

#[tokio::test]
async fn what_does_not_fit_is_said_to_be_left_off() {
    let b = Node::new(B, 0..SHARDS, PREDICTIONS_MAX / SHARDS as usize + 1).await;
    b.assign(B, 0..SHARDS).await;
    let told = b.foresight.foreseen();
    assert_eq!(told.predictions.len(), PREDICTIONS_MAX);
    let most = SHARDS as usize * (PREDICTIONS_MAX / SHARDS as usize + 1);
    let left = format!("{} less likely predictions are left off", most - PREDICTIONS_MAX);
    assert_eq!(reasons(&told.gaps), [("node-2", 0, left.as_str())]);
    // Whatever its texts, a table fits a parcel.
    let small = b.foresight.own_table().encoded(10_000);
    assert!(small.len() <= 10_000);
    let Ok(Message::Table(table)) = codec::decode(&small) else { panic!("no table") };
    assert!(!table.predictions.is_empty());
    assert_eq!(table.predictions.len() as u64 + table.left_off, most as u64);
}

#[tokio::test]
async fn a_score_outlives_the_owner_of_the_shard() {
    let (a, b) = two().await;
    (0..3).for_each(|_| b.came_true(40, "default"));
    b.came_true(41, "blue");
    a.hears(&b);
    drop(b);
    a.assign(A, 32..SHARDS).await;
    a.came_true(40, "default");
    let count = |sees: &dyn Fn(&str) -> bool| -> u64 {
        a.foresight.scores(sees).iter().map(|score| score.count).sum()
    };
    assert_eq!((count(&|_| true), count(&|tenant| tenant == "blue")), (5, 1));
    let score = a.foresight.scores(&|_| true).remove(0);
    assert_eq!((score.kind(), score.came_true), (pb::PredictionKind::Failure, 5));
    assert!((score.brier - 0.04).abs() < 1e-9 && score.calibration.len() == 1, "{score:?}");
    // B comes back with an empty memory, and hears what it knew.
    let back = Node::new(B, [], 0).await;
    back.hears(&a);
    assert_eq!(back.foresight.scores(&|_| true), a.foresight.scores(&|_| true));
}

#[tokio::test]
async fn what_cannot_be_read_changes_nothing() {
    let (a, b) = two().await;
    a.hears(&b);
    let body = b.foresight.to_tell(1).remove(0);
    assert!(a.foresight.take(B, &body[..body.len() - 1]).is_err());
    assert!(a.foresight.take(B, b"").is_err());
    assert_eq!(a.foresight.foreseen().predictions.len(), 64);
}

/// Hands parcels to the inboxes of the test; nobody has the others.
struct Post(BTreeMap<NodeId, mpsc::Sender<Parcel>>, NodeId);

#[async_trait]
impl Courier for Post {
    async fn pass(&self, to: NodeId, kind: ParcelKind, body: Bytes) -> Result<(), LedgerError> {
        assert_eq!(kind, ParcelKind::Predictions);
        let away = || LedgerError::Unavailable(format!("{to} is away"));
        let inbox = self.0.get(&to).ok_or_else(away)?;
        inbox.send(Parcel { from: self.1, body }).await.map_err(|_| away())
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_tell_each_other_by_themselves() {
    let (a, b) = two().await;
    b.came_true(40, "default");
    let (to_a, of_a) = mpsc::channel(8);
    let (to_b, of_b) = mpsc::channel(8);
    let posts = [(&a, of_a, Post([(B, to_b)].into(), A)), (&b, of_b, Post([(A, to_a)].into(), B))];
    let stop = CancellationToken::new();
    for (node, inbox, post) in posts {
        let sharing = Sharing {
            ledger: node.ledger.clone(),
            courier: Arc::new(post),
            inbox,
            tells: node.foresight.clone(),
        };
        tokio::spawn(sharing.run(stop.clone()));
    }
    let settled = |node: &Node, scores: usize| {
        node.foresight.gaps().is_empty() && node.foresight.scores(&|_| true).len() == scores
    };
    let all = async {
        while !(settled(&a, 1) && settled(&b, 1)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(EVERY, all).await.unwrap();
    // Time goes on, and nobody gets old.
    for _ in 0..10 {
        tokio::time::sleep(EVERY).await;
        assert!(a.foresight.gaps().is_empty() && b.foresight.gaps().is_empty());
    }
    stop.cancel();
}

#[tokio::test]
async fn what_is_no_prediction_is_refused_whole() {
    let (a, b) = two().await;
    a.hears(&b);
    let told = |change: fn(&mut Forecast), count| {
        let mut bad = of_instance(ShardId(40), 0.9);
        change(&mut bad.forecast);
        let all = Predictions { predictions: vec![bad; count], scores: Vec::new() };
        let covers = a.ledger.read(|state| owned(state, B));
        let body = Table::of(all, Timestamp(1), covers, usize::MAX).encoded(usize::MAX);
        a.foresight.take(B, &body).map_err(|refused| refused.reason)
    };
    let nan = "of the prediction about memory of web/web-40 something is no number";
    assert_eq!(told(|forecast| forecast.seconds = f64::NAN, 1), Err(nan.to_owned()));
    let many = "more than 2000 predictions".to_owned();
    assert_eq!(told(|_| {}, PREDICTIONS_MAX + 1), Err(many));
    assert_eq!(a.foresight.foreseen().predictions.len(), 64, "what was told before stands");
    assert_eq!(told(|forecast| forecast.latest = f64::INFINITY, 1), Ok(()));
    assert_eq!(a.foresight.foreseen().predictions.len(), 33);
}
