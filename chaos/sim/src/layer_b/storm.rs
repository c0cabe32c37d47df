//! Carries the scheduled faults out between two ticks, ends them, and heals everything in the end.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use medic_state::{
    NodeId,
    manifest::{DEFAULT_TENANT, Kind, Manifest, ManifestKey},
};
use turmoil::Sim;

use super::{
    LATENCY_MAX, Stage, marks::Mark, net::host_of, node::Site, operator::Task, power::How,
    wires::Wires,
};
use crate::{
    faults::{Fault, Scheduled, Who},
    history::lock,
    rng::Rng,
    world::{Relief, Struck, manifests},
};

/// Between two looks at whose agents' time has come.
const AGENTS_EVERY_MS: u64 = 500;

/// What ends a fault.
#[derive(Clone, Debug)]
pub(super) enum End {
    Start(NodeId),
    Held(NodeId),
    Cut(Vec<(String, String)>),
    Disk(NodeId),
    Lag(NodeId),
    Space(NodeId),
    Delay,
    Clock(NodeId),
    Fleet(Relief),
    Grant(String),
    Drain(NodeId),
}

/// The faults of one run.
pub(super) struct Storm {
    pub(super) stage: Arc<Stage>,
    pub(super) sites: BTreeMap<NodeId, Arc<Site>>,
    pub(super) wires: Wires,
    pub(super) rng: Rng,
    list: VecDeque<Scheduled>,
    begun: u64,
    ends: BTreeMap<(u64, usize), End>,
    count: usize,
    pub(super) down: BTreeSet<NodeId>,
    /// Nodes whose disk was told to fail, and how their processes end then.
    pub(super) failing: BTreeMap<NodeId, How>,
    agents_down: BTreeSet<String>,
    agents_cut: BTreeSet<(NodeId, String)>,
}

impl Storm {
    pub(super) fn new(
        stage: Arc<Stage>,
        sites: BTreeMap<NodeId, Arc<Site>>,
        mut wires: Wires,
        rng: Rng,
    ) -> Self {
        wires.down(&host_of(stage.spare), true);
        Self {
            down: BTreeSet::from([stage.spare]),
            stage,
            sites,
            wires,
            rng,
            list: VecDeque::new(),
            begun: 0,
            ends: BTreeMap::new(),
            count: 0,
            failing: BTreeMap::new(),
            agents_down: BTreeSet::new(),
            agents_cut: BTreeSet::new(),
        }
    }

    /// These faults, from now on.
    pub(super) fn load<'a>(&mut self, list: impl Iterator<Item = &'a Scheduled>, begun: u64) {
        self.list = list.cloned().collect();
        self.begun = begun;
    }

    /// Does whatever is due.
    pub(super) fn blow(&mut self, sim: &mut Sim<'_>) {
        let now = self.stage.now_ms();
        while self.ends.first_key_value().is_some_and(|((ms, _), _)| *ms <= now) {
            if let Some((_, end)) = self.ends.pop_first() {
                self.end(sim, end);
            }
        }
        while self.list.front().is_some_and(|one| self.begun + one.at_ms <= now) {
            if let Some(one) = self.list.pop_front() {
                self.begin(sim, &one);
            }
        }
        if now.is_multiple_of(AGENTS_EVERY_MS) {
            self.stage.fleet.start_agents(false);
        }
        self.follow_agents(sim);
        self.follow_nodes(sim);
    }

    /// Everything ends.
    pub(super) fn heal(&mut self, sim: &mut Sim<'_>) {
        self.list.clear();
        while let Some((_, end)) = self.ends.pop_first() {
            self.end(sim, end);
        }
        self.stage.fleet.heal();
        self.follow_agents(sim);
        self.wires.mend(sim);
        for (node, site) in self.sites.clone() {
            site.clock.mend();
            lock(&site.disk).slow(0);
            if self.begun_once(node) {
                self.start(sim, node);
            }
        }
    }

    fn until(&mut self, one: &Scheduled, end: End) {
        self.at(self.begun + one.at_ms + one.for_ms, end);
    }

    pub(super) fn at(&mut self, ms: u64, end: End) {
        self.count += 1;
        self.ends.insert((ms, self.count), end);
    }

    /// Agents live and are reached as the world has it.
    fn follow_agents(&mut self, sim: &mut Sim<'_>) {
        for (agent, up) in self.stage.fleet.agents_up() {
            if up && self.agents_down.remove(&agent) {
                sim.bounce(agent.as_str());
            } else if !up && self.agents_down.insert(agent.clone()) {
                sim.crash(agent.as_str());
                self.stage.oracle.marks.reached(Mark::AgentEnded);
            }
        }
        let cut = self.stage.fleet.cut_off();
        let changed: Vec<_> = cut.symmetric_difference(&self.agents_cut).cloned().collect();
        for (node, agent) in changed {
            let now = cut.contains(&(node, agent.clone()));
            self.wires.cut(sim, &host_of(node), &agent, now);
            self.wires.cut(sim, &agent, &host_of(node), now);
        }
        self.agents_cut = cut;
    }

    fn begin(&mut self, sim: &mut Sim<'_>, one: &Scheduled) {
        self.stage.trace(format_args!("FAULT {:?}", one.fault));
        if self.begin_at_nodes(sim, one)
            || self.begin_on_links(sim, one)
            || self.begin_in_fleet(one)
        {
            return;
        }
        match &one.fault {
            Fault::Touch(playbook) => self.touch(playbook, one.at_ms),
            Fault::Revoke(user) => {
                self.ask(Task::Unbind(binding(user)));
                self.until(one, End::Grant(user.clone()));
            }
            Fault::Transfer(node) => self.ask(Task::Transfer(node.0)),
            Fault::Drain(node) => {
                self.ask(Task::Drain { node: node.0, undo: false });
                self.until(one, End::Drain(*node));
            }
            Fault::Replace(node) => self.replace(sim, *node),
            Fault::Rot(node) => {
                self.kill_for(sim, one, Who::Node(*node), How::Rotten);
                self.replace(sim, *node);
            }
            _ => {}
        }
    }

    /// Faults of processes, disks and clocks; false: it is none.
    fn begin_at_nodes(&mut self, sim: &mut Sim<'_>, one: &Scheduled) -> bool {
        match &one.fault {
            Fault::Crash(who) => self.kill_for(sim, one, *who, How::Killed),
            // In the midst of a write, or between two.
            Fault::PowerCut(who) if self.rng.chance(1, 3) => {
                self.fail_for(one, *who, io::ErrorKind::Other, How::PowerCut);
            }
            Fault::PowerCut(who) => self.kill_for(sim, one, *who, How::PowerCut),
            Fault::Damage(node) => self.kill_for(sim, one, Who::Node(*node), How::Damaged),
            Fault::SlowDisk(who, ms) => {
                if let Some(node) = self.who(*who) {
                    self.disk(node, *ms);
                    self.mark(Mark::DiskSlow, self.up(node));
                    self.until(one, End::Disk(node));
                }
            }
            Fault::DiskFull(who) => {
                self.fail_for(one, *who, io::ErrorKind::StorageFull, How::Killed);
            }
            Fault::Snapshot(node) => {
                if let Some((_, site)) = self.site(*node) {
                    site.snapshot.notify_one();
                }
            }
            Fault::Jump(node, by_ms) => {
                if let Some((_, site)) = self.site(*node) {
                    site.clock.jump(*by_ms);
                    self.mark(Mark::ClockJumped, *by_ms != 0 && self.up(*node));
                }
            }
            Fault::Drift(node, per_second_ms) => {
                if let Some((_, site)) = self.site(*node) {
                    site.clock.drift(*per_second_ms);
                    self.mark(Mark::ClockDrifted, *per_second_ms != 0 && self.up(*node));
                }
                self.until(one, End::Clock(*node));
            }
            _ => return false,
        }
        true
    }

    /// Faults of links; false: it is none.
    fn begin_on_links(&mut self, sim: &mut Sim<'_>, one: &Scheduled) -> bool {
        let both = |a: NodeId, b: NodeId| [(host_of(a), host_of(b)), (host_of(b), host_of(a))];
        let all = self.stage.nodes();
        match &one.fault {
            // A process that stands still and one whose messages are all held up look alike.
            Fault::Pause(who) => {
                if let Some(node) = self.who(*who) {
                    self.wires.hold(sim, &host_of(node), true);
                    self.mark(Mark::Held, self.up(node));
                    self.until(one, End::Held(node));
                }
            }
            Fault::Isolate(who) => {
                if let Some(node) = self.who(*who) {
                    if self.leader() == Some(node) {
                        self.stage.oracle.marks.reached(Mark::LeaderIsolated);
                    }
                    let others = all.into_iter().filter(|other| *other != node);
                    self.cut(sim, one, others.flat_map(|other| both(node, other)).collect());
                }
            }
            Fault::OneWay(from, to) => {
                self.mark(Mark::OneWayCut, from != to && self.up(*from) && self.up(*to));
                self.cut(sim, one, vec![(host_of(*from), host_of(*to))]);
            }
            Fault::Split(last) => {
                let (low, high): (Vec<NodeId>, Vec<NodeId>) =
                    all.into_iter().partition(|node| node <= last);
                let some = |half: &[NodeId]| half.iter().any(|node| self.up(*node));
                self.mark(Mark::Split, some(&low) && some(&high));
                let pairs = low.iter().flat_map(|a| high.iter().flat_map(|b| both(*a, *b)));
                self.cut(sim, one, pairs.collect());
            }
            Fault::Lag(node) => {
                let leader = self.leader();
                if leader != Some(*node) {
                    self.wires.hold(sim, &host_of(*node), true);
                    self.mark(Mark::Held, self.up(*node));
                    self.until(one, End::Lag(*node));
                }
            }
            Fault::Delay(ms) => {
                self.stage.oracle.marks.reached(Mark::LinksSlow);
                sim.set_max_message_latency(LATENCY_MAX + Duration::from_millis(*ms));
                self.until(one, End::Delay);
            }
            _ => return false,
        }
        true
    }

    /// Faults of the fleet; false: it is none.
    fn begin_in_fleet(&mut self, one: &Scheduled) -> bool {
        match &one.fault {
            Fault::Blind(node) => self.mark(Mark::TelemetryLost, self.up(*node)),
            Fault::Dark(_) => self.mark(Mark::TelemetryLost, true),
            _ => {}
        }
        match self.stage.fleet.strike(one) {
            Struck::Elsewhere => return false,
            Struck::Once => {}
            Struck::Until(relief) => self.until(one, End::Fleet(relief)),
        }
        true
    }

    fn end(&mut self, sim: &mut Sim<'_>, end: End) {
        match end {
            End::Start(node) => self.start(sim, node),
            End::Held(node) | End::Lag(node) => self.wires.hold(sim, &host_of(node), false),
            End::Cut(links) => {
                for (from, to) in links {
                    self.wires.cut(sim, &from, &to, false);
                }
            }
            End::Disk(node) => self.disk(node, 0),
            End::Space(node) => {
                // It had nothing to write, or room was made before it had.
                if let Some(how) = self.failing.remove(&node) {
                    self.kill(sim, node, how);
                }
                self.start(sim, node);
            }
            End::Delay => sim.set_max_message_latency(LATENCY_MAX),
            End::Clock(node) => {
                if let Some((_, site)) = self.site(node) {
                    site.clock.mend();
                }
            }
            End::Fleet(relief) => self.stage.fleet.relieve(relief),
            End::Drain(node) => self.ask(Task::Drain { node: node.0, undo: true }),
            End::Grant(user) => {
                let name = binding(&user);
                let found = self.stage.declared.iter().find(|one| one.metadata.name == name);
                if let Some(manifest) = found.cloned() {
                    self.apply(manifest);
                }
            }
        }
    }

    /// A node makes room for one that never was a member.
    fn replace(&mut self, sim: &mut Sim<'_>, node: NodeId) {
        let spare = self.stage.spare;
        self.start(sim, spare);
        self.ask(Task::Replace(node.0, spare.0));
    }

    fn kill_for(&mut self, sim: &mut Sim<'_>, one: &Scheduled, who: Who, how: How) {
        if let Some(node) = self.who(who)
            && self.kill(sim, node, how)
        {
            self.until(one, End::Start(node));
        }
    }

    /// The next write of a node goes wrong, and its process ends.
    fn fail_for(&mut self, one: &Scheduled, who: Who, kind: io::ErrorKind, how: How) {
        let starting =
            |node: NodeId| self.site(node).is_none_or(|(_, site)| site.consensus().is_none());
        // One that cannot write when it starts says so and ends: that is no storm's business.
        if let Some(node) = self.who(who).filter(|node| self.up(*node) && !starting(*node)) {
            self.arm(node, kind, how);
            self.until(one, End::Space(node));
        }
    }

    /// A state counts only where somebody was hit.
    fn mark(&self, mark: Mark, hit: bool) {
        if hit {
            self.stage.oracle.marks.reached(mark);
        }
    }

    fn cut(&mut self, sim: &Sim<'_>, one: &Scheduled, links: Vec<(String, String)>) {
        for (from, to) in &links {
            self.wires.cut(sim, from, to, true);
        }
        self.until(one, End::Cut(links));
    }

    fn disk(&self, node: NodeId, ms: u64) {
        if let Some((_, site)) = self.site(node) {
            lock(&site.disk).slow(ms);
        }
    }

    fn ask(&self, task: Task) {
        lock(&self.stage.tasks).push_back(task);
    }

    fn apply(&self, manifest: Manifest) {
        self.ask(Task::Apply(Box::new(manifest)));
    }

    fn touch(&self, playbook: &str, by_ms: u64) {
        let (kind, tenant) = (Kind::Playbook, DEFAULT_TENANT.to_owned());
        let key = ManifestKey { kind, tenant, name: playbook.to_owned() };
        let now = self
            .stage
            .oracle
            .look(|state| state.manifests.get(&key).map(|stored| stored.manifest.as_ref().clone()));
        if let Some(changed) = now.and_then(|now| manifests::touched(&now, 1 + by_ms % 7)) {
            self.apply(changed);
        }
    }
}

fn binding(user: &str) -> String {
    format!("approvers-{user}")
}
