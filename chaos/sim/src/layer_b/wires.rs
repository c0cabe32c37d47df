//! The state of every link, and what follows from it: since when a node can have heard no quorum.
//!
//! Faults overlap: a link is whole again when the last of them has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use medic_state::NodeId;
use turmoil::Sim;

use super::net::host_of;
use crate::{clock::Time, history::lock};

/// Who can be heard by whom, as the network has it: the judge of what nodes believe.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    time: Time,
    /// When a node lost its quorum; absent: it has one.
    lost: Arc<Mutex<BTreeMap<NodeId, u64>>>,
}

impl Reach {
    pub(super) fn new(time: Time) -> Self {
        Self { time, lost: Arc::default() }
    }

    /// How long ago a node can have heard a quorum last.
    pub(super) fn quorum_age_ms(&self, node: NodeId) -> u64 {
        let lost = lock(&self.lost);
        lost.get(&node).map_or(0, |at| self.time.ms().saturating_sub(*at))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Whole,
    Held,
    /// Cut from the first to the second, and the other way.
    Cut(bool, bool),
}

/// All links between nodes, and between nodes and agents.
pub(super) struct Wires {
    nodes: Vec<NodeId>,
    hosts: Vec<String>,
    /// How many faults cut a link in one direction.
    cuts: BTreeMap<(String, String), u32>,
    /// How many faults hold a host's messages up.
    held: BTreeMap<String, u32>,
    down: BTreeSet<String>,
    links: BTreeMap<(String, String), Link>,
    reach: Reach,
    majority: usize,
}

impl Wires {
    pub(super) fn new(
        nodes: Vec<NodeId>,
        agents: Vec<String>,
        majority: usize,
        reach: Reach,
    ) -> Self {
        let hosts = nodes.iter().map(|node| host_of(*node)).chain(agents).collect();
        Self {
            nodes,
            hosts,
            cuts: BTreeMap::new(),
            held: BTreeMap::new(),
            down: BTreeSet::new(),
            links: BTreeMap::new(),
            reach,
            majority,
        }
    }

    /// Cuts a link in one direction, or takes the cut back.
    pub(super) fn cut(&mut self, sim: &Sim<'_>, from: &str, to: &str, cut: bool) {
        if from == to {
            return;
        }
        count(&mut self.cuts, (from.to_owned(), to.to_owned()), cut);
        self.settle(sim, from, to);
        self.judge();
    }

    /// Holds all messages of a host up, or lets them go.
    pub(super) fn hold(&mut self, sim: &Sim<'_>, host: &str, hold: bool) {
        count(&mut self.held, host.to_owned(), hold);
        for other in self.hosts.clone() {
            if other != host {
                self.settle(sim, host, &other);
            }
        }
        self.judge();
    }

    /// A host's process runs, or does not.
    pub(super) fn down(&mut self, host: &str, down: bool) {
        if down {
            self.down.insert(host.to_owned());
        } else {
            self.down.remove(host);
        }
        self.judge();
    }

    /// Everything is whole.
    pub(super) fn mend(&mut self, sim: &Sim<'_>) {
        self.cuts.clear();
        self.held.clear();
        for (a, b) in self.links.keys().cloned().collect::<Vec<_>>() {
            self.settle(sim, &a, &b);
        }
        self.judge();
    }

    fn settle(&mut self, sim: &Sim<'_>, a: &str, b: &str) {
        let (a, b) = if a < b { (a, b) } else { (b, a) };
        let cut = |from: &str, to: &str| self.cuts.contains_key(&(from.to_owned(), to.to_owned()));
        let wanted = match (cut(a, b), cut(b, a)) {
            (false, false) if self.held.contains_key(a) || self.held.contains_key(b) => Link::Held,
            (false, false) => Link::Whole,
            (there, back) => Link::Cut(there, back),
        };
        let key = (a.to_owned(), b.to_owned());
        let now = self.links.get(&key).copied().unwrap_or(Link::Whole);
        if now == wanted {
            return;
        }
        match now {
            Link::Whole => {}
            Link::Held => sim.release(a, b),
            Link::Cut(..) => sim.repair(a, b),
        }
        match wanted {
            Link::Whole => {}
            Link::Held => sim.hold(a, b),
            Link::Cut(true, true) => sim.partition(a, b),
            Link::Cut(true, false) => sim.partition_oneway(a, b),
            Link::Cut(..) => sim.partition_oneway(b, a),
        }
        self.links.insert(key, wanted);
    }

    /// Both ways, and both alive.
    fn linked(&self, a: &str, b: &str) -> bool {
        let key = if a < b { (a, b) } else { (b, a) };
        let key = (key.0.to_owned(), key.1.to_owned());
        let up = !self.down.contains(a) && !self.down.contains(b);
        up && self.links.get(&key).is_none_or(|link| *link == Link::Whole)
    }

    fn judge(&self) {
        let now = self.reach.time.ms();
        let mut lost = lock(&self.reach.lost);
        for node in &self.nodes {
            let me = host_of(*node);
            let others = self.nodes.iter().filter(|other| *other != node);
            let heard = 1 + others.filter(|other| self.linked(&me, &host_of(**other))).count();
            if heard >= self.majority {
                lost.remove(node);
            } else {
                lost.entry(*node).or_insert(now);
            }
        }
    }
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K, up: bool) {
    let now = counts.get(&key).copied().unwrap_or_default();
    match (up, now) {
        (true, now) => {
            counts.insert(key, now + 1);
        }
        (false, 0 | 1) => {
            counts.remove(&key);
        }
        (false, now) => {
            counts.insert(key, now - 1);
        }
    }
}
