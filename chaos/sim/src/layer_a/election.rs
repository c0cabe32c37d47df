//! Who leads: heartbeats, leases, elections, and what becomes of a dead leader's last words.

use medic_raft::{Leadership, Timing};
use medic_state::NodeId;
use tokio::time::Instant;

use super::consensus::{Core, Pending};
use crate::{
    coverage::Sometimes,
    history::{Recorder, What},
};

impl Core {
    /// A leader's heartbeat.
    pub(super) fn lead(&mut self, node: NodeId, recorder: &Recorder) {
        let now = Instant::now();
        let Some(member) = self.members.get(&node) else { return };
        if !member.leads || !member.up || member.paused {
            return;
        }
        let term = member.term;
        let peers = self.peers_of(node);
        let highest = peers.iter().filter_map(|peer| self.members.get(peer)).map(|m| m.term).max();
        if highest.is_some_and(|highest| highest > term) {
            recorder.reached(Sometimes::LedUnawares);
            self.step_down(node, highest.unwrap_or(term));
            return;
        }
        let quorum = self.majority(peers.len());
        for peer in &peers {
            if *peer != node && self.members.get(peer).is_some_and(|member| member.leads) {
                recorder.reached(Sometimes::LedUnawares);
                self.step_down(*peer, term);
            }
            if let Some(member) = self.members.get_mut(peer).filter(|_| *peer != node) {
                member.term = term;
                member.last_heard = now;
                let told = Leadership { leader: Some(node), term, me: false };
                member.ledger.leadership.send_if_modified(|known| replace(known, told));
                if member.lags_until <= now {
                    self.catch_up(node, *peer, recorder);
                }
            }
        }
        if let Some(member) = self.members.get_mut(&node) {
            for peer in peers {
                member.heard.insert(peer, now);
            }
            if quorum {
                member.last_quorum = Some(now);
                member.last_heard = now;
            }
        }
    }

    /// A leader hears of a higher term.
    pub(super) fn step_down(&mut self, node: NodeId, term: u64) {
        let Some(member) = self.members.get_mut(&node) else { return };
        member.leads = false;
        member.term = term;
        member.last_quorum = None;
        member.last_heard = Instant::now();
        let told = Leadership { leader: None, term, me: false };
        member.ledger.leadership.send_replace(told);
        let pending: Vec<Pending> = member.pending.drain(..).collect();
        pending.into_iter().for_each(|one| one.abandon("leadership was lost"));
    }

    /// A follower that has heard nobody for too long asks for votes.
    pub(super) fn campaign(&mut self, node: NodeId, timing: &Timing, recorder: &Recorder) {
        let now = Instant::now();
        let Some(member) = self.members.get(&node) else { return };
        if member.leads || !member.up || member.paused {
            return;
        }
        if now.duration_since(member.last_heard) < member.patience {
            return;
        }
        let stored = member.stored;
        // Nobody votes within a lease it may have promised, nor for a shorter log.
        let votes = self.peers_of(node).into_iter().filter(|peer| {
            self.members.get(peer).is_some_and(|voter| {
                *peer == node
                    || (!voter.leads
                        && voter.stored <= stored
                        && now.duration_since(voter.last_heard) >= timing.election_max)
            })
        });
        let voters: Vec<NodeId> = votes.collect();
        let patience = self.patience(timing);
        if !self.majority(voters.len()) {
            if let Some(member) = self.members.get_mut(&node) {
                member.patience = patience;
                member.last_heard = now.checked_sub(timing.election_max).unwrap_or(now);
            }
            return;
        }
        self.term += 1;
        let term = self.term;
        for voter in voters {
            if let Some(voter) = self.members.get_mut(&voter) {
                voter.term = term;
            }
        }
        self.take_office(node, patience, recorder);
    }

    /// How long a follower waits for its leader.
    pub(super) fn patience(&mut self, timing: &Timing) -> std::time::Duration {
        let ms =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let more = self.rng.between(ms(timing.election_min), ms(timing.election_max));
        timing.election_max + std::time::Duration::from_millis(more)
    }

    fn take_office(&mut self, node: NodeId, patience: std::time::Duration, recorder: &Recorder) {
        let now = Instant::now();
        let term = self.term;
        let inherited = self.inherit(node, now, recorder);
        recorder.trace(format_args!("{node} elected in term {term}"));
        recorder.happened(What::Elected { node, term });
        let stored = self.members.get(&node).map_or(0, |member| member.stored);
        self.apply_at(node, stored, recorder);
        let Some(member) = self.members.get_mut(&node) else { return };
        member.leads = true;
        member.patience = patience;
        member.last_heard = now;
        member.last_quorum = Some(now);
        member.heard.clear();
        member.pending = inherited.into();
        let told = Leadership { leader: Some(node), term, me: true };
        member.ledger.leadership.send_replace(told);
    }

    /// The uncommitted entries that had reached the new leader.
    fn inherit(&mut self, node: NodeId, now: Instant, recorder: &Recorder) -> Vec<Pending> {
        let living = self.members.iter().filter(|(id, member)| **id != node && member.leads);
        let living = living.flat_map(|(_, member)| member.pending.iter());
        let all: Vec<&Pending> = self.orphans.iter().chain(living).collect();
        let reached: Vec<Pending> = all
            .iter()
            .take_while(|pending| pending.reached.contains(&node))
            .map(|pending| pending.inherited(now))
            .collect();
        if !reached.is_empty() {
            recorder.reached(Sometimes::TailSurvived);
        }
        if reached.len() < all.len() {
            recorder.reached(Sometimes::TailLost);
        }
        self.orphans.clear();
        reached
    }

    /// A follower applies what it holds.
    pub(super) fn follow(&mut self, node: NodeId, recorder: &Recorder) {
        let Some(member) = self.members.get(&node) else { return };
        if member.up && !member.paused && !member.leads {
            let stored = member.stored;
            self.apply_at(node, stored, recorder);
        }
    }
}

fn replace(known: &mut Leadership, told: Leadership) -> bool {
    let news = *known != told;
    *known = told;
    news
}
