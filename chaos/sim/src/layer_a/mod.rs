//! Layer A: the real law, desk, driver, shard controller, detection and judgement of several nodes,
//! over a simulated log and a simulated world, without sockets.
//!
//! ```text
//!   seed ─► faults ─► storm ─┐
//!                            ▼
//!   consensus ◄─ SimLedger ◄─ Node (Leader, Runtime, shards) ─► NodeWorld, NodeSenses ─► Fleet
//!        │                                                                                │
//!        └──────────────────────────── history ◄──────────────────────────────────────────┘
//!                                         └─► check
//! ```
//!
//! A run is one tokio runtime of one thread with time paused and chance seeded: time advances when
//! everybody waits, which makes the runtime a discrete-event loop. Invariant: one seed, one trace.

mod cluster;
mod consensus;
mod election;
mod ledger;
mod node;
mod people;
mod replica;
mod storm;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use medic_raft::{Ledger as _, LedgerExt as _};
use medic_state::{
    Command, NodeId, TraceId,
    command::ApplyManifest,
    manifest::{Manifest, Spec},
    rbac::Principal,
};
use tokio::time::{Instant, sleep, timeout};

use self::{cluster::Cluster, people::People, storm::Storm};
pub use self::{consensus::Consensus, ledger::SimLedger};
use crate::{
    drill,
    faults::{self, Breakable, Scheduled},
    history::{Recorder, What, lock},
    rng::Rng,
    run::{Plan, Ran},
    world::{Fleet, manifests},
};

/// How long faults go on.
const STORM_MS: u64 = 150_000;
/// After them, everything must serve again within this.
const HEAL: Duration = Duration::from_secs(30);
/// And what is under way must end within this (approvals, holds and waiting-out included).
const SETTLE: Duration = Duration::from_secs(90);

/// One run. Called within its own runtime.
pub(crate) async fn simulate(plan: &Plan, recorder: Recorder) -> Ran {
    let begun = Instant::now();
    let declared = manifests::all().unwrap_or_default();
    let consensus = Consensus::new(recorder.clone(), Rng::new(plan.seed, "consensus"));
    let fleet = Fleet::new(&declared, recorder.clone(), plan.seed);
    let size = if plan.seed % 4 == 3 { 5 } else { 3 };
    let cluster = Cluster::new(size, plan.seed, consensus.clone(), fleet.clone());
    let mut parts = tokio::task::JoinSet::new();
    parts.spawn(consensus.clone().run());
    parts.spawn(keep_agents(fleet.clone()));
    declare(&cluster, &declared).await;
    let people = People {
        rng: Rng::new(plan.seed, "people"),
        fleet: fleet.clone(),
        recorder: recorder.clone(),
        cluster: cluster.clone(),
        made: 0,
    };
    parts.spawn(people.work());
    let schedule = schedule(plan, &cluster, &declared);
    let mut storm = Storm::new(cluster.clone());
    storm.rage(schedule.values(), Instant::now(), STORM_MS).await;
    storm.heal().await;
    recorder.trace(format_args!("all faults are over"));
    recorder.happened(What::Healed);
    let (serves, ()) = tokio::join!(serving(&cluster), look_at_what_lasts(&cluster));
    drill(&cluster, plan.seed).await;
    settle(&cluster).await;
    cluster.note_final(&serves);
    fleet.close();
    for node in cluster.ids() {
        cluster.kill(node);
    }
    parts.abort_all();
    consensus.close();
    Ran {
        schedule,
        simulated: begun.elapsed(),
        committed: consensus.committed(),
        violations: Vec::new(),
        marks: BTreeMap::new(),
        calls: 0,
    }
}

/// The faults of the plan, cut down where it says so.
fn schedule(plan: &Plan, cluster: &Cluster, declared: &[Manifest]) -> BTreeMap<usize, Scheduled> {
    let playbook = |manifest: &&Manifest| matches!(manifest.spec, Spec::Playbook(_));
    let what = Breakable {
        nodes: cluster.ids(),
        instances: cluster.fleet.running(),
        services: cluster.fleet.services(),
        agents: cluster.fleet.agents(),
        playbooks: declared.iter().filter(playbook).map(|one| one.metadata.name.clone()).collect(),
    };
    faults::kept(faults::draw(plan.seed, &what, STORM_MS), plan.keep.as_ref())
}

/// Supervises the agents: one that ended is started again when its time has come.
async fn keep_agents(fleet: Arc<Fleet>) {
    loop {
        sleep(Duration::from_millis(500)).await;
        fleet.start_agents(false);
    }
}

/// Declares the fleet, as an operator would.
async fn declare(cluster: &Cluster, declared: &[Manifest]) {
    while cluster.consensus.leader().is_none() {
        sleep(Duration::from_millis(50)).await;
    }
    for manifest in declared {
        let Some(leader) = cluster.consensus.leader().and_then(|node| cluster.ledger(node)) else {
            continue;
        };
        let by = if manifest.metadata.tenant == "*" {
            Principal::node(leader.node())
        } else {
            Principal::user("root")
        };
        let apply = ApplyManifest { manifest: manifest.clone(), expected: None };
        let entry = leader.entry_for(by, None, Command::ApplyManifest(Box::new(apply)));
        if let Err(error) = leader.propose(entry).await {
            cluster.consensus.recorder.trace(format_args!("not declared: {error}"));
        }
    }
}

/// Whether every node serves reads and writes in time.
async fn serving(cluster: &Cluster) -> BTreeMap<NodeId, bool> {
    let until = Instant::now() + HEAL;
    let mut serves = BTreeMap::new();
    for ledger in cluster.ledgers() {
        let command = Command::Tick;
        let served = async {
            // As any client: without an answer it asks again.
            loop {
                let entry = ledger.entry(TraceId::default(), command.clone());
                if ledger.propose(entry).await.is_ok() && ledger.linearize().await.is_ok() {
                    return true;
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        let served = tokio::time::timeout_at(until, served).await;
        serves.insert(ledger.node(), served.unwrap_or(false));
    }
    tokio::time::sleep_until(until).await;
    serves
}

/// What the faults left broken must have been reported in time.
async fn look_at_what_lasts(cluster: &Cluster) {
    let before = cluster.fleet.broken();
    sleep(Duration::from_millis(drill::BOUND_MS)).await;
    drill::note_lasting(&before, &cluster.fleet, &cluster.consensus.recorder);
}

/// A node that watches shards goes, and right after it something that it would have seen breaks.
async fn drill(cluster: &Cluster, seed: u64) {
    let mut rng = Rng::new(seed, "drill");
    let until = Instant::now() + Duration::from_millis(drill::WAIT_MS);
    let (owner, instance) = loop {
        let leader = cluster.consensus.leader();
        let found =
            cluster.consensus.look(|state| drill::candidates(state, &cluster.fleet, leader));
        if let Some(found) = rng.pick(&found).filter(|_| leader.is_some()) {
            break found.clone();
        }
        if Instant::now() >= until {
            return drill::missed(&cluster.consensus.recorder);
        }
        sleep(Duration::from_millis(500)).await;
    };
    cluster.kill(owner);
    sleep(Duration::from_millis(rng.between(50, 400))).await;
    drill::break_it(&cluster.fleet, &instance);
    sleep(Duration::from_millis(drill::BOUND_MS + 1_000)).await;
    cluster.start(owner);
}

/// Waits until no plan is under way, or for as long as that may take.
async fn settle(cluster: &Cluster) {
    let quiet = async {
        loop {
            sleep(Duration::from_secs(2)).await;
            let busy = cluster.consensus.look(|state| {
                state.sagas.values().any(|saga| saga.started_at.is_some() && !saga.status.ended())
            });
            let pending =
                lock(&cluster.consensus.core).members.values().any(|m| !m.pending.is_empty());
            if !busy && !pending {
                return;
            }
        }
    };
    // Too long is found by the checkers, in the history.
    if timeout(SETTLE, quiet).await.is_err() {
        cluster.consensus.recorder.trace(format_args!("plans are still under way"));
    }
}
