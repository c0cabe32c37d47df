//! Several observers of one probe, for real: nodes in network namespaces, and a target whose path to one of
//! them, then to all, is cut by the kernel.

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use medic_chaos::netns::{Network, Standing, Use, within};
use medic_state::{State, symptom::Target};

use super::{
    netns::skipped,
    support::{PATIENCE, World},
};

/// The place that no node has: the target lives there.
const PLACE: u8 = 4;
const PORT: u16 = 9_000;
/// What nobody reaches is told within this: two failures, and what others say of them.
const IN_TIME: Duration = Duration::from_secs(15);

#[test]
fn what_one_node_alone_cannot_reach_is_told_by_nobody_and_what_none_reaches_in_time() {
    if skipped() {
        return;
    }
    let standing = Standing::make(PLACE).unwrap();
    let network = standing.network();
    let target = SocketAddr::from((network.address(PLACE), PORT));
    let listener = within(&network.path(Use::Place(PLACE)), || TcpListener::bind(target));
    let listener = listener.unwrap().unwrap();
    std::thread::spawn(move || while listener.accept().is_ok() {});
    let played = within(&network.path(Use::Hub), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(network, target));
    });
    played.unwrap();
    standing.remove().unwrap();
}

/// A service that the same node watches as it watches `other`.
fn beside(other: &str) -> String {
    let shard = |service: &str| {
        State::shard_of(&Target {
            tenant: "default".to_owned(),
            service: service.to_owned(),
            instance: String::new(),
        })
    };
    let mut names = (0..).map(|number| format!("alone-{number}"));
    names.find(|name| shard(name) == shard(other)).unwrap()
}

/// A whole number from a node's metrics; zero while there is none.
async fn metric(world: &World, node: u64, name: &str) -> u64 {
    let ports = world.cluster.ports(node).unwrap();
    let url = format!("http://{}:{}/metrics", ports.host, ports.http);
    let Ok(answer) = reqwest::get(url).await else { return 0 };
    let text = answer.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

async fn told(world: &World, service: &str) -> Option<String> {
    for summary in world.incidents().await {
        if summary.target.as_ref().is_some_and(|target| target.service == service) {
            return Some(format!("{:?}", world.explain(&summary.id).await?));
        }
    }
    None
}

async fn play(network: Network, target: SocketAddr) {
    let mut world = World::start_with(|options| {
        options.agents.clear();
        options.network = Some(network);
    })
    .await;
    let alone = beside("asked");
    let service = |name: &str, observers: &str| {
        format!(
            r#"---
apiVersion: medic/v1
kind: Service
metadata: {{name: {name}}}
spec:
  instances: [{{name: {name}-1}}]
  probes: [{{name: up, tcp: "{target}", interval: 500ms, timeout: 500ms{observers}}}]
"#
        )
    };
    let observers = ", observers: {of: 3, agree: 2}";
    // Version 8 is in force a moment after all nodes have said that they understand it.
    world.apply(&(service("asked", observers) + &service(&alone, ""))).await;
    let owner = {
        let deadline = Instant::now() + PATIENCE;
        'found: loop {
            for node in 1..=3 {
                if metric(&world, node, "medic_watched_instances").await == 2 {
                    break 'found node;
                }
            }
            assert!(Instant::now() < deadline, "nobody watches both");
        }
    };
    let at = |node: u64| network.address(u8::try_from(node).unwrap());
    let from_target = |node: u64| (network.address(PLACE), at(node));

    // The owner alone cannot reach it. By its own word it would be an incident, and is one.
    network.cut(&[from_target(owner)]).unwrap();
    let overruled = "medic_probe_quorums_total{result=\"overruled\"}";
    world
        .until("others see it well, again and again", || async {
            metric(&world, owner, overruled).await >= 6 && told(&world, &alone).await.is_some()
        })
        .await;
    assert_eq!(told(&world, "asked").await, None, "others reach it");
    let looked = (1..=3).filter(|node| *node != owner);
    for node in looked {
        assert!(metric(&world, node, "medic_probe_looks_total{result=\"good\"}").await > 0);
    }

    // Nobody reaches it.
    network.cut(&[1, 2, 3].map(from_target)).unwrap();
    let began = Instant::now();
    world.until("it is told", || async { told(&world, "asked").await.is_some() }).await;
    let took = began.elapsed();
    assert!(took <= IN_TIME, "after {took:?}");
    let incident = told(&world, "asked").await.unwrap();
    assert!(incident.contains("of 3 observers saw it fail"), "{incident}");

    // It is back for the others: what the owner alone says is no reason to go on.
    network.cut(&[from_target(owner)]).unwrap();
    world
        .until("it is taken back", || async {
            metric(&world, owner, "medic_active_findings").await == 1
        })
        .await;
    world.cluster.stop().await.unwrap();
}
