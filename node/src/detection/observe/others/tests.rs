//! Who is asked, and what is waited for.
#![allow(clippy::unwrap_used)]

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use medic_raft::{LocalLedger, env::Env};
use medic_state::{BootId, Command, Entry, TraceId, command::RegisterNode, rbac::Principal};

use super::*;

const ME: NodeId = NodeId(1);

fn check(instance: usize) -> Check {
    let target = Target {
        tenant: "default".to_owned(),
        service: "web".to_owned(),
        instance: format!("web-{instance}"),
    };
    Check { target, probe: "http".to_owned(), index: 7 }
}

/// This node in `eu`, and others in these regions.
async fn cluster(regions: &[&str]) -> Arc<LocalLedger> {
    let law = LocalLedger::new(ME, BootId(1), Env::system());
    for (node, region) in (1..).zip(["eu"].iter().chain(regions)) {
        let register = RegisterNode {
            node: NodeId(node),
            region: (*region).to_owned(),
            api_addr: "127.0.0.1:1".to_owned(),
            boot: BootId(node),
            version: "test".to_owned(),
            understands: Some(medic_state::CLUSTER_VERSION),
            weight: None,
        };
        let entry = law.entry(TraceId::default(), Command::RegisterNode(register));
        let entry = Entry { principal: Principal::node(NodeId(node)), ..entry };
        law.propose(entry).await.unwrap().answer.unwrap();
    }
    law
}

#[tokio::test]
async fn other_regions_look_first_each_once_and_nobody_twice() {
    let law = cluster(&["eu", "eu", "us", "us", "ap"]).await;
    let region = |node: &NodeId| law.read(|state| state.nodes[node].region.clone());
    let mut asked = std::collections::BTreeSet::new();
    for instance in 0..64 {
        let two = law.read(|state| chosen(state, ME, &check(instance), 2));
        let mut regions: Vec<String> = two.iter().map(region).collect();
        regions.sort();
        assert_eq!(regions, ["ap", "us"]);
        let all = law.read(|state| chosen(state, ME, &check(instance), 9));
        assert_eq!(all[..2], two, "the same again");
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
        assert!(!all.contains(&ME));
        assert_eq!(all[3..].iter().map(region).collect::<Vec<_>>(), ["eu", "eu"]);
        asked.extend(two);
    }
    assert_eq!(asked.len(), 3, "the work is spread over a region's nodes");
    assert!(cluster(&[]).await.read(|state| chosen(state, ME, &check(0), 2)).is_empty());
}

/// Answers by node: the second well, the third never.
#[derive(Default)]
struct Answers {
    asked: Mutex<Vec<NodeId>>,
    flying: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Peers for Answers {
    async fn look(&self, to: NodeId, _: &Check) -> Result<Look, String> {
        self.asked.lock().unwrap().push(to);
        let flying = self.flying.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(flying, Ordering::SeqCst);
        if to == NodeId(3) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.flying.fetch_sub(1, Ordering::SeqCst);
        if to == NodeId(4) { Err("it knows no such check".to_owned()) } else { Ok(Look::Good) }
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_is_not_waited_for_longer_than_a_check_takes() {
    let law = cluster(&["eu", "us", "ap"]).await;
    let peers = Arc::new(Answers::default());
    let others = Others::new(law, peers.clone());
    let begun = tokio::time::Instant::now();
    let mut looks = others.look(&check(0), 3, Duration::from_millis(500)).await;
    let most = Duration::from_millis(500) + WAY;
    assert!((most..most + Duration::from_millis(5)).contains(&begun.elapsed()));
    looks.sort_by_key(|look| format!("{look:?}"));
    assert_eq!(looks[0], Look::Good);
    assert!(matches!(&looks[1], Look::Nothing(why) if why.contains("did not answer in time")));
    assert!(matches!(&looks[2], Look::Nothing(why) if why.contains("knows no such check")));
    assert_eq!(peers.asked.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn when_everything_fails_the_others_are_not_flooded() {
    let law = cluster(&["us"]).await;
    let peers = Arc::new(Answers::default());
    let others = Others::new(law, peers.clone());
    let all = (0..1_000).map(|instance| {
        let others = others.clone();
        async move { others.look(&check(instance), 2, Duration::from_secs(1)).await }
    });
    let looks = join_all(all).await;
    assert!(looks.iter().all(|looks| *looks == [Look::Good]), "each had its turn");
    assert_eq!(peers.most.load(Ordering::SeqCst), ASKED_MAX);
}
