//! Layer B: whole nodes with real consensus and real RPC code, agents and clients with the real
//! links and stubs, over a simulated network and simulated disks.
//!
//! ```text
//!   seed ─► faults ─► storm ─► wires (turmoil), disks, clocks, fleet
//!                                │
//!   clients ─ gRPC ─► node (doors, consensus, desk, driver, shards, detection) ─ gRPC ─► agents ─► Fleet
//!      │                │ witness                                                            │
//!      └─► calls        └─► oracle ─────────► history ◄──────────────────────────────────────┘
//!            └────────────────┴─► check
//! ```
//!
//! Every host has a runtime of its own with time paused; turmoil runs them one after the other, a tick
//! each. Invariant: one seed, one trace, in whatever process.

mod agent;
mod calls;
mod clients;
mod disk;
mod hands;
mod marks;
mod net;
mod node;
mod operator;
mod oracle;
mod people;
mod power;
mod storm;
mod wires;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    future::Future,
    io,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use mad_turmoil::time::SimClocksGuard;
use medic_raft::{Ledger as _, LedgerExt as _};
use medic_state::{
    Command, NodeId,
    manifest::{Kind, Manifest, Spec},
};
use turmoil::{Builder, Sim};

pub use self::marks::Mark;
use self::{
    calls::{Call, Log, Written},
    clients::Client,
    net::host_of,
    node::Site,
    operator::Task,
    oracle::Oracle,
    storm::Storm,
    wires::{Reach, Wires},
};
use crate::{
    clock::{SkewedClock, Time},
    drill,
    faults::{self, Breakable, Scheduled},
    history::{Recorder, What, lock},
    rng::Rng,
    run::{Plan, Ran},
    world::{Fleet, manifests},
};

/// Every host is run for so long at a time.
const TICK: Duration = Duration::from_millis(10);
/// A message takes at least this long, …
const LATENCY_MIN: Duration = Duration::from_millis(1);
/// … and at most this, as long as no fault delays it.
const LATENCY_MAX: Duration = Duration::from_millis(12);
/// The fleet is declared, and everything is up, after this.
const UP_MS: u64 = 10_000;
/// How long faults go on.
const STORM_MS: u64 = 60_000;
/// After them, everything must serve again within this.
const HEAL_MS: u64 = 30_000;
/// Between two looks for something that a drill may break.
const DRILL_EVERY_MS: u64 = 500;
/// And what is under way must end within this (approvals, holds and waiting-out included).
const SETTLE_MS: u64 = 90_000;
/// All nodes must have applied the same entry at one moment within this, when nobody asks for more.
const EVEN_MS: u64 = 10_000;

/// What everything in a run shares.
pub(super) struct Stage {
    oracle: Arc<Oracle>,
    fleet: Arc<Fleet>,
    reach: Reach,
    founders: BTreeMap<NodeId, String>,
    /// A node that is no member yet.
    spare: NodeId,
    declared: Arc<Vec<Manifest>>,
    /// What the operator is to do.
    tasks: Mutex<VecDeque<Task>>,
    /// The spare node is one.
    joined: AtomicBool,
    /// Nodes that lead, as far as they know.
    leads: Mutex<BTreeSet<NodeId>>,
    /// Members that have been removed.
    removed: Mutex<BTreeSet<NodeId>>,
    calls: Mutex<Vec<Call>>,
    /// Nodes are asked to serve.
    asked: AtomicBool,
    /// Nodes that did.
    serves: Mutex<BTreeSet<NodeId>>,
}

impl Stage {
    /// All nodes there are, members or not.
    fn nodes(&self) -> Vec<NodeId> {
        self.founders.keys().copied().chain([self.spare]).collect()
    }

    fn now_ms(&self) -> u64 {
        self.oracle.recorder.now_ms()
    }

    fn trace(&self, text: fmt::Arguments<'_>) {
        self.oracle.recorder.trace(text);
    }
}

/// A run in the making.
struct Run<'a> {
    sim: Sim<'a>,
    ms: Arc<AtomicU64>,
    stage: Arc<Stage>,
    storm: Storm,
}

/// One run. Called on a thread of its own, once in a process.
pub(crate) fn simulate(plan: &Plan) -> io::Result<(Ran, Recorder)> {
    Rng::new(plan.seed, "process").rule();
    // Dropped last: every host is gone by then.
    let _clock = SimClocksGuard::init();
    medic_raft::runtime::seed_thread(plan.seed);
    let ms = Arc::new(AtomicU64::new(0));
    let time = Time::Ticks(ms.clone());
    let recorder = Recorder::new(plan.trace, time.clone());
    let declared = Arc::new(manifests::all().map_err(io::Error::other)?);
    let size = if plan.seed % 8 == 7 { 5 } else { 3 };
    let reach = Reach::new(time.clone());
    let stage = Arc::new(Stage {
        oracle: Oracle::new(recorder.clone()),
        fleet: Fleet::new(&declared, recorder.clone(), plan.seed),
        reach: reach.clone(),
        founders: node::founders(size),
        spare: NodeId(size + 1),
        declared: declared.clone(),
        tasks: Mutex::default(),
        joined: AtomicBool::new(false),
        leads: Mutex::default(),
        removed: Mutex::default(),
        calls: Mutex::default(),
        asked: AtomicBool::new(false),
        serves: Mutex::default(),
    });
    let mut sim = network(plan.seed);
    let sites = people_it(&mut sim, &stage, &time, plan.seed);
    let majority = usize::try_from(size / 2 + 1).unwrap_or(2);
    let wires = Wires::new(stage.nodes(), stage.fleet.agents(), majority, reach);
    let storm = Storm::new(stage.clone(), sites, wires, Rng::new(plan.seed, "storm"));
    let mut run = Run { sim, ms, stage, storm };
    // A panic in a host's own task ends the run; it is a finding like any other.
    let schedule = match std::panic::catch_unwind(AssertUnwindSafe(|| run.all(plan))) {
        Ok(schedule) => schedule?,
        Err(_) => BTreeMap::new(),
    };
    let mut violations = run.stage.oracle.violations();
    let log = log_of(&recorder);
    violations.extend(calls::check(&lock(&run.stage.calls), &log));
    let ran = Ran {
        schedule,
        simulated: Duration::from_millis(run.ms.load(Ordering::Acquire)),
        committed: run.stage.oracle.committed(),
        violations,
        marks: run.stage.oracle.marks.counts(),
        calls: lock(&run.stage.calls).len() as u64,
    };
    Ok((ran, recorder))
}

fn network(seed: u64) -> Sim<'static> {
    let mut builder = Builder::new();
    builder
        .tick_duration(TICK)
        .simulation_duration(Duration::from_secs(86_400))
        .min_message_latency(LATENCY_MIN)
        .max_message_latency(LATENCY_MAX)
        .tcp_capacity(4_096)
        .enable_random_order()
        .rng_seed(seed);
    builder.build()
}

/// Puts a process on every host; the spare node does not run yet.
fn people_it(
    sim: &mut Sim<'static>,
    stage: &Arc<Stage>,
    time: &Time,
    seed: u64,
) -> BTreeMap<NodeId, Arc<Site>> {
    let mut sites = BTreeMap::new();
    for node in stage.nodes() {
        let founds = stage.founders.contains_key(&node);
        let site = Site::new(node, seed, SkewedClock::new(time.clone()), founds);
        sites.insert(node, site.clone());
        let stage = stage.clone();
        host(sim, &host_of(node), move || node::live(stage.clone(), site.clone()));
    }
    sim.crash(host_of(stage.spare));
    for name in stage.fleet.agents() {
        let (oracle, fleet, nodes) = (stage.oracle.clone(), stage.fleet.clone(), stage.nodes());
        let lives = Mutex::new(Rng::new(seed, &name));
        host(sim, &name.clone(), move || {
            let seed = lock(&lives).next_u64();
            agent::live(oracle.clone(), fleet.clone(), name.clone(), nodes.clone(), seed)
        });
    }
    let client = move |stage: &Arc<Stage>, name: &str, user: &str| {
        Client::new(stage.clone(), name, user, seed)
    };
    for name in CLIENTS {
        let stage = stage.clone();
        host(sim, name, move || clients::registers(client(&stage, name, "root")));
    }
    let all = stage.clone();
    host(sim, PEOPLE, move || {
        let [ann, ben, olga] = ["ann", "ben", "olga"].map(|name| client(&all, name, name));
        people::people(ann, ben, olga)
    });
    let stage = stage.clone();
    host(sim, OPERATOR, move || operator::operator(client(&stage, OPERATOR, "root")));
    sites
}

const CLIENTS: [&str; 3] = ["client-1", "client-2", "client-3"];
const PEOPLE: &str = "people";
const OPERATOR: &str = "operator";

/// A host whose process never ends by itself.
fn host<F: Future<Output = ()> + 'static>(
    sim: &mut Sim<'static>,
    name: &str,
    process: impl Fn() -> F + 'static,
) {
    sim.host(name, move || {
        let process = process();
        async move {
            process.await;
            Ok(())
        }
    });
}

impl Run<'_> {
    fn all(&mut self, plan: &Plan) -> io::Result<BTreeMap<usize, Scheduled>> {
        self.step_until(UP_MS, |_| false)?;
        let begun = self.now();
        let schedule = self.schedule(plan);
        self.storm.load(schedule.values(), begun);
        self.step_until(STORM_MS, |_| false)?;
        self.storm.heal(&mut self.sim);
        let stage = self.stage.clone();
        stage.trace(format_args!("all faults are over"));
        stage.oracle.recorder.happened(What::Healed);
        stage.asked.store(true, Ordering::Release);
        let broken = stage.fleet.broken();
        self.step_until(drill::BOUND_MS, |_| false)?;
        drill::note_lasting(&broken, &stage.fleet, &stage.oracle.recorder);
        self.step_until(HEAL_MS - drill::BOUND_MS, |_| false)?;
        let serves = lock(&stage.serves).clone();
        self.drill(plan.seed)?;
        self.settle()?;
        for name in CLIENTS.into_iter().chain([PEOPLE, OPERATOR]) {
            self.sim.crash(name);
        }
        self.step_until(EVEN_MS, |run| run.storm.even())?;
        self.note_final(&serves);
        stage.fleet.close();
        Ok(schedule)
    }

    fn now(&self) -> u64 {
        self.ms.load(Ordering::Acquire)
    }

    /// Steps until it is so, or for so long; whether it came to be so.
    fn step_until(&mut self, for_ms: u64, so: impl Fn(&Self) -> bool) -> io::Result<bool> {
        let until = self.now() + for_ms;
        while self.now() < until {
            if so(self) {
                return Ok(true);
            }
            self.storm.blow(&mut self.sim);
            self.sim.step().map_err(|error| io::Error::other(error.to_string()))?;
            let elapsed = u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.ms.store(elapsed, Ordering::Release);
        }
        Ok(so(self))
    }

    /// The faults of the plan, cut down where it says so.
    fn schedule(&self, plan: &Plan) -> BTreeMap<usize, Scheduled> {
        let stage = &self.stage;
        let playbooks = stage.declared.iter().filter(|one| matches!(one.spec, Spec::Playbook(_)));
        let what = Breakable {
            nodes: stage.founders.keys().copied().collect(),
            instances: stage.fleet.running(),
            services: stage.fleet.services(),
            agents: stage.fleet.agents(),
            playbooks: playbooks.map(|one| one.metadata.name.clone()).collect(),
        };
        let drawn = faults::draw(plan.seed, &what, STORM_MS);
        let drawn = faults::with_disks(plan.seed, &what, STORM_MS, drawn);
        faults::kept(faults::with_drains(plan.seed, &what, STORM_MS, drawn), plan.keep.as_ref())
    }

    /// A node that watches shards goes, and right after it something that it would have seen breaks.
    fn drill(&mut self, seed: u64) -> io::Result<()> {
        let (stage, mut rng) = (self.stage.clone(), Rng::new(seed, "drill"));
        let mut found = Vec::new();
        for _ in 0..drill::WAIT_MS / DRILL_EVERY_MS {
            let leader = self.storm.leader();
            found = stage.oracle.look(|state| drill::candidates(state, &stage.fleet, leader));
            found.retain(|(owner, _)| leader.is_some() && self.storm.up(*owner));
            if !found.is_empty() {
                break;
            }
            self.step_until(DRILL_EVERY_MS, |_| false)?;
        }
        let Some((owner, instance)) = rng.pick(&found).cloned() else {
            drill::missed(&stage.oracle.recorder);
            return Ok(());
        };
        self.storm.kill(&mut self.sim, owner, power::How::Killed);
        self.step_until(rng.between(50, 400), |_| false)?;
        drill::break_it(&stage.fleet, &instance);
        self.step_until(drill::BOUND_MS + 1_000, |_| false)?;
        self.storm.start(&mut self.sim, owner);
        Ok(())
    }

    /// Waits until no plan is under way and the operator has nothing left to do, or for as long as
    /// that may take.
    fn settle(&mut self) -> io::Result<()> {
        let quiet = self.step_until(SETTLE_MS, |run| {
            let idle = lock(&run.stage.tasks).is_empty();
            idle && !run.stage.oracle.look(|state| {
                let mut sagas = state.sagas.values();
                sagas.any(|saga| saga.started_at.is_some() && !saga.status.ended())
            })
        })?;
        if !quiet {
            // Too long is found by the checkers, in the history.
            self.stage.trace(format_args!("plans are still under way"));
        }
        Ok(())
    }

    /// Writes down the state of every member, all in one moment.
    fn note_final(&self, serves: &BTreeSet<NodeId>) {
        for (node, consensus) in self.storm.members() {
            let Some(consensus) = consensus else {
                let text = format!("{node} does not run at the end");
                self.stage.oracle.wrong(14, "liveness", text);
                continue;
            };
            let (index, state) = consensus.read(|now| (now.applied, now.hash()));
            let leads = consensus.leadership().borrow().me;
            let serves = serves.contains(&node);
            let last = What::Final { node, index, state, leads, serves };
            self.stage.oracle.recorder.happened(last);
        }
    }
}

/// What the log says of the clients' keys.
fn log_of(recorder: &Recorder) -> Log {
    let mut log = Log::default();
    for event in &recorder.book().events {
        let What::Committed(commit) = &event.what else { continue };
        if commit.repeated {
            continue;
        }
        if let Some(request) = &commit.entry.request {
            log.requests.insert(commit.index, request.0.clone());
        }
        if commit.answer.is_err() {
            continue;
        }
        let (key, value) = if let Command::ApplyManifest(apply) = &commit.entry.command {
            let value = apply.manifest.metadata.labels.get("value").cloned();
            (apply.manifest.key(), value)
        } else if let Command::DeleteManifest(key) = &commit.entry.command {
            (key.clone(), None)
        } else {
            continue;
        };
        if key.kind == Kind::Channel {
            log.effects.insert(commit.index, Written { key: key.name, value });
        }
    }
    log
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// h2 forgets a stream that was reset after a second of it: whether a late frame is answered must
    /// not hang on how fast the machine is.
    #[test]
    fn the_clock_that_libraries_ask_is_the_simulations() {
        let _clock = SimClocksGuard::init();
        let mut sim = network(7);
        sim.client("host", async {
            let begun = Instant::now();
            tokio::time::sleep(Duration::from_secs(40)).await;
            assert_eq!(begun.elapsed().as_secs(), 40);
            Ok(())
        });
        assert!(sim.run().is_ok());
    }
}
