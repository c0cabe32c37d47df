//! The processes of nodes: ended in several ways, started again, and what is left of their disks.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use medic_raft::{Consensus, Ledger as _, LedgerExt as _, store::Fate};
use medic_state::{NodeId, State};
use turmoil::Sim;

use super::{
    disk::{Bad, Lost},
    marks::Mark,
    net::host_of,
    node::Site,
    storm::{End, Storm},
};
use crate::{
    coverage::Sometimes,
    faults::Who,
    history::{What, lock},
};

/// A node whose disk failed is started again after this, when nothing else is said.
const AGAIN_MS: u64 = 2_000;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Killed,
    PowerCut,
    Damaged,
    Rotten,
}

impl Storm {
    /// Members, and their processes.
    pub(super) fn members(&self) -> Vec<(NodeId, Option<Arc<Consensus>>)> {
        let removed = lock(&self.stage.removed);
        let sites = self.sites.iter();
        let members = sites.filter(|(node, _)| !removed.contains(node) && self.begun_once(**node));
        members.map(|(node, site)| (*node, site.consensus())).collect()
    }

    /// Whether all members have applied all that was committed, and one leads.
    pub(super) fn even(&self) -> bool {
        let log = self.stage.oracle.look(|state| state.applied);
        let members = self.members();
        let at = |member: &Option<Arc<Consensus>>| {
            member.as_ref().is_some_and(|raft| raft.read(|state| state.applied) == log)
        };
        let leads = |member: &Option<Arc<Consensus>>| {
            member.as_ref().is_some_and(|raft| raft.leadership().borrow().me)
        };
        let leaders = members.iter().filter(|(_, member)| leads(member)).count();
        leaders == 1 && members.iter().all(|(_, member)| at(member))
    }

    /// The spare node counts from when it was first started.
    pub(super) fn begun_once(&self, node: NodeId) -> bool {
        node != self.stage.spare || self.sites.get(&node).is_some_and(|site| site.begun())
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = self.sites.iter().filter_map(|(node, site)| {
            let now = *site.consensus()?.leadership().borrow();
            now.me.then_some((now.term, *node))
        });
        leads.max().map(|(_, node)| node)
    }

    pub(super) fn who(&self, who: Who) -> Option<NodeId> {
        match who {
            Who::Leader => self.leader(),
            Who::Node(node) => Some(node),
        }
    }

    /// Nodes that have ended by themselves, or are no members any more.
    pub(super) fn follow_nodes(&mut self, sim: &mut Sim<'_>) {
        for (node, site) in self.sites.clone() {
            let gone = lock(&self.stage.removed).contains(&node);
            if !site.over.load(Ordering::Acquire) && !gone || self.down.contains(&node) {
                continue;
            }
            let how = self.failing.remove(&node);
            if how.is_none() && !gone {
                let text = format!("{node} took itself out, and nothing was wrong with its disk");
                self.stage.oracle.wrong(14, "liveness", text);
            }
            self.kill(sim, node, how.unwrap_or(How::Killed));
            self.at(self.stage.now_ms() + AGAIN_MS, End::Start(node));
        }
    }

    /// False: it does not run.
    pub(super) fn kill(&mut self, sim: &mut Sim<'_>, node: NodeId, how: How) -> bool {
        let Some((_, site)) = self.site(node) else { return false };
        if !self.down.insert(node) {
            return false;
        }
        self.failing.remove(&node);
        self.note_death(node, &site);
        lock(&self.stage.leads).remove(&node);
        let host = host_of(node);
        // What it holds must be let go within its own runtime.
        drop(lock(&site.process).take());
        sim.crash(host.as_str());
        self.wires.down(&host, true);
        let before = lock(&site.disk).clone();
        self.note_bad_write(before.hit());
        let after = match how {
            How::Killed => before.after_kill(),
            How::PowerCut => {
                let rng = &mut self.rng;
                let (after, lost) = before.after_power_cut(|unsynced| rng.between(0, unsynced));
                self.note_power_cut(node, lost);
                after
            }
            How::Damaged => {
                let after = before.after_kill();
                if after.damage_newest_snapshot() {
                    self.stage.trace(format_args!("the newest snapshot of {node} is damaged"));
                }
                after
            }
            How::Rotten => {
                let after = before.after_kill();
                let rng = &mut self.rng;
                if after.damage_log(|entries| rng.between(0, entries - 1)) {
                    site.rotten.store(true, Ordering::Release);
                }
                after
            }
        };
        *lock(&site.disk) = after;
        self.stage.trace(format_args!("{node} is killed"));
        self.stage.oracle.recorder.happened(What::Crashed(node));
        true
    }

    fn note_power_cut(&self, node: NodeId, lost: Lost) {
        let marks = &self.stage.oracle.marks;
        marks.reached(Mark::PowerLost);
        let Lost { batches, names } = lost;
        if batches > 0 {
            marks.reached(Mark::WritesLost);
        }
        if names > 0 {
            marks.reached(Mark::NamesLost);
        }
        if batches + names > 0 {
            self.stage.trace(format_args!("{node} loses {batches} writes and {names} names"));
        }
    }

    /// Counts how a write went wrong, once it did.
    fn note_bad_write(&self, hit: Option<Bad>) {
        let Some(bad) = hit else { return };
        let marks = &self.stage.oracle.marks;
        if bad.kind == io::ErrorKind::StorageFull {
            marks.reached(Mark::DiskFilled);
        }
        match bad.fate {
            Fate::Torn(_) if bad.file => marks.reached(Mark::FileTorn),
            Fate::Torn(_) => marks.reached(Mark::WriteTorn),
            Fate::DoneButFail(_) => marks.reached(Mark::WriteDoneButFailed),
            Fate::Done | Fate::Fail(_) | Fate::Hang => {}
        }
    }

    /// A write of a node goes wrong from here on, in one of three ways; whenever the node has taken
    /// itself out, or in the end, its process is ended like this.
    pub(super) fn arm(&mut self, node: NodeId, kind: io::ErrorKind, how: How) {
        let Some((_, site)) = self.site(node) else { return };
        let fates = [Fate::Fail(kind), Fate::DoneButFail(kind), Fate::Torn(kind)];
        let fate = self.rng.pick(&fates).copied().unwrap_or(Fate::Fail(kind));
        let file = self.rng.chance(1, 3);
        self.stage.trace(format_args!("{node}'s next write: {fate:?}, of a file: {file}"));
        lock(&site.disk).arm(Bad { fate, kind, file });
        if file {
            site.snapshot.notify_one();
        }
        self.failing.insert(node, how);
    }

    /// Whether a process of it runs.
    pub(super) fn up(&self, node: NodeId) -> bool {
        !self.down.contains(&node) && self.sites.get(&node).is_some_and(|site| site.begun())
    }

    fn note_death(&self, node: NodeId, site: &Site) {
        if self.leader() != Some(node) {
            return;
        }
        self.stage.oracle.marks.reached(Mark::LeaderKilled);
        let acting = |state: &State| {
            let mut steps = state.sagas.values().flat_map(|saga| &saga.steps);
            let fence = state.fence.fence;
            steps.any(|step| step.intent.as_ref().is_some_and(|intent| intent.fence == fence))
        };
        if site.consensus().is_some_and(|raft| raft.read(acting)) {
            self.stage.oracle.marks.reached(Mark::KilledActing);
            self.stage.oracle.recorder.reached(Sometimes::LeaderDiedUnderWay);
        }
    }

    pub(super) fn start(&mut self, sim: &mut Sim<'_>, node: NodeId) {
        if lock(&self.stage.removed).contains(&node) || !self.down.remove(&node) {
            return;
        }
        if let Some((_, site)) = self.site(node) {
            site.over.store(false, Ordering::Release);
            if site.begun() {
                self.stage.trace(format_args!("{node} starts again"));
                self.stage.oracle.recorder.happened(What::Restarted(node));
            }
        }
        sim.bounce(host_of(node));
        self.wires.down(&host_of(node), false);
    }

    pub(super) fn site(&self, node: NodeId) -> Option<(NodeId, Arc<Site>)> {
        self.sites.get(&node).map(|site| (node, site.clone()))
    }
}
