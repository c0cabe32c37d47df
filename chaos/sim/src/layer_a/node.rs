//! One node: the real desk, driver, office, shard controller and detection over a simulated ledger
//! and a simulated world. Started, killed, stopped and started again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use medic_node::{
    action::{
        Leader, LeaderConfig,
        shards::{self, ShardsConfig},
    },
    detection::{
        Observer, Runtime,
        predict::forecast::{Horizons, Opens},
        runtime::Timings,
    },
};
use medic_raft::{ClusterAdmin, Leadership, Ledger, LedgerExt as _};
use medic_state::{
    BootId, CLUSTER_VERSION, Command, Millis, NodeId, State, TraceId,
    command::{MarkAgent, RegisterNode},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    consensus::{Consensus, Member, Pending},
    ledger::SimLedger,
};
use crate::{
    clock::{SkewedClock, Time, env},
    coverage::Sometimes,
    history::{What, lock},
    rng::Rng,
    world::{Fleet, NodeSenses, NodeWorld},
};

/// Between two looks at which agents are connected; and how long one must be away or back.
const MARK_EVERY: Duration = Duration::from_millis(1_000);

/// A node of the cluster: its clock outlives its processes.
#[derive(Debug)]
pub(super) struct Node {
    id: NodeId,
    /// Its wall clock.
    pub(super) clock: Arc<SkewedClock>,
    rng: Rng,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    ledger: Arc<SimLedger>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _detection: Runtime,
}

impl Node {
    /// Not started yet.
    #[must_use]
    pub(super) fn new(id: NodeId, seed: u64, begun: Instant) -> Self {
        let rng = Rng::new(seed, &format!("node {id}"));
        Self { id, clock: SkewedClock::new(Time::Runtime(begun)), rng, process: None }
    }

    /// The ledger of the process that runs, if one does.
    #[must_use]
    pub(super) fn ledger(&self) -> Option<Arc<SimLedger>> {
        self.process.as_ref().map(|process| process.ledger.clone())
    }

    /// Starts it, from what its disk holds.
    pub(super) fn start(&mut self, consensus: &Arc<Consensus>, fleet: &Arc<Fleet>) {
        if self.process.is_some() {
            return;
        }
        let env = env(self.clock.clone(), &mut self.rng);
        let boot = BootId(self.rng.next_u64());
        let ledger = consensus.boot(self.id, boot, env);
        let stop = CancellationToken::new();
        let dynamic: Arc<dyn Ledger> = ledger.clone();
        let admin: Arc<dyn ClusterAdmin> = ledger.clone();
        let senses = NodeSenses::new(fleet.clone(), ledger.clone());
        let observer = Observer::with(senses.clone(), ledger.env().clone());
        let world = NodeWorld::new(fleet.clone(), ledger.clone(), consensus.clone(), observer);
        let timings = Timings {
            scrape: Millis::from_secs(5),
            process: Millis(1_000),
            lead: Millis::from_secs(600),
            opens: Opens::default(),
            horizons: Horizons::default(),
        };
        let detection = Runtime::spawn_with(dynamic.clone(), senses, timings, stop.clone());
        let mut tasks = JoinSet::new();
        let leader = Leader::new(dynamic.clone(), world, LeaderConfig::default());
        tasks.spawn(leader.run(stop.clone()));
        let config = ShardsConfig::default();
        tasks.spawn(shards::run(dynamic, admin, config, stop.clone()));
        tasks.spawn(register(ledger.clone()));
        tasks.spawn(mark_agents(ledger.clone(), fleet.clone()));
        self.process = Some(Process { ledger, stop, tasks, _detection: detection });
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, consensus: &Consensus) {
        let Some(mut process) = self.process.take() else { return };
        process.ledger.kill();
        process.stop.cancel();
        process.tasks.abort_all();
        consensus.crash(self.id);
    }
}

impl Consensus {
    /// A process of a node begins: from its snapshot and the log it holds, or from nothing.
    fn boot(self: &Arc<Self>, node: NodeId, boot: BootId, env: medic_raft::Env) -> Arc<SimLedger> {
        let mut core = lock(&self.core);
        let now = Instant::now();
        let before = core.members.remove(&node);
        let snapshot = before.as_ref().and_then(|member| member.snapshot.clone());
        let state = snapshot.as_ref().and_then(|(_, bytes)| State::from_snapshot(bytes).ok());
        if state.is_some() {
            self.recorder.reached(Sometimes::RestartedFromSnapshot);
        }
        let state = state.unwrap_or_default();
        let ledger = SimLedger::new(self.clone(), node, boot, env, state);
        let patience = core.patience(&self.timing);
        let stored = before.as_ref().map_or(0, |member| member.stored);
        let member = Member {
            ledger: ledger.clone(),
            up: true,
            paused: false,
            leads: false,
            term: before.as_ref().map_or(0, |member| member.term),
            stored,
            last_heard: now,
            patience,
            last_quorum: None,
            heard: BTreeMap::new(),
            pending: VecDeque::new(),
            snapshot,
            lags_until: now,
            disk_ms: before.as_ref().map_or(0, |member| member.disk_ms),
        };
        let again = before.is_some();
        core.members.insert(node, member);
        if again {
            self.recorder.trace(format_args!("{node} starts again"));
            self.recorder.happened(What::Restarted(node));
        }
        core.apply_at(node, stored, &self.recorder);
        ledger
    }

    fn crash(&self, node: NodeId) {
        let mut core = lock(&self.core);
        let synced = core.rng.chance(1, 2);
        let orphaned: Vec<Pending> = {
            let Some(member) = core.members.get_mut(&node) else { return };
            member.up = false;
            if member.leads {
                let died_acting = |state: &State| {
                    let mut steps = state.sagas.values().flat_map(|saga| &saga.steps);
                    let fence = state.fence.fence;
                    steps.any(|step| step.intent.as_ref().is_some_and(|i| i.fence == fence))
                };
                if member.ledger.read(died_acting) {
                    self.recorder.reached(Sometimes::LeaderDiedUnderWay);
                }
            }
            member.leads = false;
            member.pending.drain(..).collect()
        };
        for mut pending in orphaned {
            if synced {
                pending.reached.insert(node);
            } else {
                pending.reached.remove(&node);
            }
            let heir = pending.inherited(Instant::now());
            pending.abandon("the leader has ended");
            core.orphans.push(heir);
        }
        drop(core);
        self.recorder.trace(format_args!("{node} is killed"));
        self.recorder.happened(What::Crashed(node));
    }

    /// SIGSTOP and SIGCONT.
    pub fn pause(&self, node: NodeId, paused: bool) {
        if let Some(member) = lock(&self.core).members.get_mut(&node) {
            member.paused = paused;
            member.ledger.paused.send_replace(paused);
            self.recorder
                .trace(format_args!("{node} {}", if paused { "stops" } else { "goes on" }));
        }
    }

    /// The node that leads in the newest term, if it is up.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let core = lock(&self.core);
        let newest = core.members.iter().filter(|(_, member)| member.leads && member.up);
        newest.max_by_key(|(_, member)| member.term).map(|(node, _)| *node)
    }

    /// Ends everything, so that nothing holds on to anything.
    pub fn close(&self) {
        lock(&self.core).members.clear();
    }

    /// Beats until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            self.beat();
        }
    }
}

/// What a node says of itself when it starts.
async fn register(ledger: Arc<SimLedger>) {
    let node = ledger.node();
    let command = Command::RegisterNode(RegisterNode {
        node,
        region: String::new(),
        api_addr: node.to_string(),
        boot: ledger.boot(),
        version: "sim".to_owned(),
        understands: Some(CLUSTER_VERSION),
        weight: None,
    });
    while ledger.propose(ledger.entry(TraceId::default(), command.clone())).await.is_err() {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if ledger.dead() {
            return;
        }
    }
}

/// The leader tells the law which agents it hears: two looks in a row must agree.
async fn mark_agents(ledger: Arc<SimLedger>, fleet: Arc<Fleet>) {
    let node = ledger.node();
    let mut before: BTreeMap<String, bool> = BTreeMap::new();
    loop {
        tokio::time::sleep(MARK_EVERY).await;
        if ledger.dead() {
            return;
        }
        let Leadership { me, .. } = *ledger.leadership().borrow();
        if !me {
            before.clear();
            continue;
        }
        let seen = fleet.agents_seen_by(node);
        for (agent, here) in &seen {
            let known =
                ledger.read(|state| state.agents.get(agent).map(|known| known.node.is_some()));
            let told = known == Some(*here) || (known.is_none() && !here);
            if told || before.get(agent) != Some(here) {
                continue;
            }
            let mark = MarkAgent {
                agent: agent.clone(),
                node: here.then_some(node),
                region: String::new(),
                version: "sim".to_owned(),
            };
            let entry = ledger.entry(TraceId::default(), Command::MarkAgent(mark));
            if ledger.propose_as_leader(entry).await.is_err() {
                break;
            }
        }
        before = seen;
    }
}
