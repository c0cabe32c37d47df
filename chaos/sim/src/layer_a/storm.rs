//! Carries the scheduled faults out, ends them, and heals everything in the end.

use std::{collections::BTreeMap, time::Duration};

use medic_raft::Ledger as _;
use medic_state::{
    Command, NodeId, RequestId, TraceId,
    command::ApplyManifest,
    manifest::{Kind, ManifestKey},
    rbac::Principal,
};
use tokio::time::{Instant, sleep_until, timeout};

use super::cluster::Cluster;
use crate::{
    faults::{Fault, Scheduled},
    history::lock,
    world::{Relief, Struck, manifests},
};

/// What ends a fault.
#[derive(Clone, Debug)]
enum End {
    Start(NodeId),
    Resume(NodeId),
    Link(Vec<(NodeId, NodeId)>),
    Disk(NodeId),
    Delay,
    Clock(NodeId),
    Fleet(Relief),
    Grant(String),
}

/// The faults of one run.
pub(super) struct Storm {
    cluster: Cluster,
    ends: BTreeMap<(u64, usize), End>,
    count: usize,
}

impl Storm {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster, ends: BTreeMap::new(), count: 0 }
    }

    /// Carries out the list, and everything's end up to `until_ms`, counted from `begun`.
    pub(super) async fn rage(
        &mut self,
        list: impl Iterator<Item = &Scheduled>,
        begun: Instant,
        until_ms: u64,
    ) {
        let mut list = list.filter(|one| one.at_ms < until_ms).peekable();
        loop {
            let next_end = self.ends.keys().next().copied().filter(|(ms, _)| *ms < until_ms);
            let next = list.peek().map(|one| one.at_ms);
            let (ms, begins) = match (next, next_end) {
                (None, None) => break,
                (Some(at), Some((end, _))) => (at.min(end), at <= end),
                (Some(at), None) => (at, true),
                (None, Some((end, _))) => (end, false),
            };
            sleep_until(begun + Duration::from_millis(ms)).await;
            if begins {
                if let Some(one) = list.next() {
                    self.begin(one).await;
                }
            } else if let Some((_, end)) = self.ends.pop_first() {
                self.end(end).await;
            }
        }
        sleep_until(begun + Duration::from_millis(until_ms)).await;
    }

    /// Everything ends.
    pub(super) async fn heal(&mut self) {
        while let Some((_, end)) = self.ends.pop_first() {
            self.end(end).await;
        }
        self.cluster.fleet.heal();
        for node in self.cluster.ids() {
            self.cluster.consensus.pause(node, false);
            self.cluster.start(node);
            if let Some(clock) = self.cluster.clock(node) {
                clock.mend();
            }
        }
        lock(&self.cluster.consensus.core).cuts.clear();
    }

    fn until(&mut self, one: &Scheduled, end: End) {
        self.count += 1;
        self.ends.insert((one.at_ms + one.for_ms, self.count), end);
    }

    fn say(&self, fault: &Fault) {
        self.cluster.consensus.recorder.trace(format_args!("FAULT {fault:?}"));
    }

    async fn begin(&mut self, one: &Scheduled) {
        self.say(&one.fault);
        if !self.begin_at_nodes(one) && !self.begin_in_fleet(one) {
            match &one.fault {
                Fault::Touch(playbook) => self.touch(playbook, one.at_ms).await,
                Fault::Revoke(user) => {
                    let delete = Command::DeleteManifest(binding(user));
                    self.as_root(delete).await;
                    self.until(one, End::Grant(user.clone()));
                }
                _ => {}
            }
        }
    }

    /// Faults of nodes and links; false: it is none.
    fn begin_at_nodes(&mut self, one: &Scheduled) -> bool {
        let cluster = self.cluster.clone();
        match &one.fault {
            Fault::Crash(who) => {
                if let Some(node) = cluster.who(*who) {
                    cluster.kill(node);
                    self.until(one, End::Start(node));
                }
            }
            Fault::Pause(who) => {
                if let Some(node) = cluster.who(*who) {
                    cluster.consensus.pause(node, true);
                    self.until(one, End::Resume(node));
                }
            }
            Fault::Isolate(who) => {
                if let Some(node) = cluster.who(*who) {
                    let others = cluster.ids().into_iter().filter(|other| *other != node);
                    let links = others.flat_map(|other| [(node, other), (other, node)]).collect();
                    self.cut(one, links);
                }
            }
            Fault::OneWay(from, to) => self.cut(one, vec![(*from, *to)]),
            Fault::Split(last) => {
                let (low, high): (Vec<NodeId>, Vec<NodeId>) =
                    cluster.ids().into_iter().partition(|node| node <= last);
                let links = low.iter().flat_map(|a| high.iter().flat_map(|b| [(*a, *b), (*b, *a)]));
                self.cut(one, links.collect());
            }
            Fault::SlowDisk(who, ms) => {
                if let Some(node) = cluster.who(*who) {
                    self.disk(node, *ms);
                    self.until(one, End::Disk(node));
                }
            }
            Fault::Lag(node) => {
                let until = Instant::now() + Duration::from_millis(one.for_ms);
                if let Some(member) = lock(&cluster.consensus.core).members.get_mut(node) {
                    member.lags_until = until;
                }
            }
            Fault::Delay(ms) => {
                lock(&cluster.consensus.core).delay_ms = *ms;
                self.until(one, End::Delay);
            }
            Fault::Jump(node, by_ms) => {
                if let Some(clock) = cluster.clock(*node) {
                    clock.jump(*by_ms);
                }
            }
            Fault::Drift(node, per_second_ms) => {
                if let Some(clock) = cluster.clock(*node) {
                    clock.drift(*per_second_ms);
                }
                self.until(one, End::Clock(*node));
            }
            _ => return false,
        }
        true
    }

    /// Faults of the fleet; false: it is none.
    fn begin_in_fleet(&mut self, one: &Scheduled) -> bool {
        match self.cluster.fleet.strike(one) {
            Struck::Elsewhere => return false,
            Struck::Once => {}
            Struck::Until(relief) => self.until(one, End::Fleet(relief)),
        }
        true
    }

    async fn end(&mut self, end: End) {
        let cluster = self.cluster.clone();
        match end {
            End::Start(node) => cluster.start(node),
            End::Resume(node) => cluster.consensus.pause(node, false),
            End::Link(links) => {
                let mut core = lock(&cluster.consensus.core);
                for link in links {
                    core.cuts.remove(&link);
                }
            }
            End::Disk(node) => self.disk(node, 0),
            End::Delay => lock(&cluster.consensus.core).delay_ms = 0,
            End::Clock(node) => {
                if let Some(clock) = cluster.clock(node) {
                    clock.mend();
                }
            }
            End::Fleet(relief) => self.cluster.fleet.relieve(relief),
            End::Grant(user) => {
                let name = binding(&user).name;
                let all = manifests::all().unwrap_or_default();
                let found = all.into_iter().find(|manifest| manifest.metadata.name == name);
                if let Some(manifest) = found {
                    self.apply(manifest).await;
                }
            }
        }
    }

    fn cut(&mut self, one: &Scheduled, links: Vec<(NodeId, NodeId)>) {
        let links: Vec<_> = links.into_iter().filter(|(from, to)| from != to).collect();
        lock(&self.cluster.consensus.core).cuts.extend(links.iter().copied());
        self.until(one, End::Link(links));
    }

    fn disk(&self, node: NodeId, ms: u64) {
        if let Some(member) = lock(&self.cluster.consensus.core).members.get_mut(&node) {
            member.disk_ms = ms;
        }
    }

    async fn touch(&mut self, playbook: &str, by_ms: u64) {
        let changed = self.cluster.playbook(playbook);
        if let Some(changed) = changed.and_then(|found| manifests::touched(&found, 1 + by_ms % 7)) {
            self.apply(changed).await;
        }
    }

    async fn apply(&mut self, manifest: medic_state::manifest::Manifest) {
        let apply = ApplyManifest { manifest, expected: None };
        self.as_root(Command::ApplyManifest(Box::new(apply))).await;
    }

    /// Tries on every node, for a second each: the cluster may be in pieces.
    async fn as_root(&mut self, command: Command) {
        self.count += 1;
        let request = RequestId(format!("storm-{}", self.count));
        for ledger in self.cluster.ledgers() {
            let entry = medic_state::Entry {
                at: ledger.env().clock.now(),
                principal: Principal::user("root"),
                request: Some(request.clone()),
                trace: TraceId::default(),
                command: command.clone(),
            };
            let asked = timeout(Duration::from_secs(1), ledger.propose(entry)).await;
            if matches!(asked, Ok(Ok(_))) {
                return;
            }
        }
    }
}

fn binding(user: &str) -> ManifestKey {
    ManifestKey {
        kind: Kind::RoleBinding,
        tenant: medic_state::manifest::DEFAULT_TENANT.to_owned(),
        name: format!("approvers-{user}"),
    }
}
