//! What was measured before a treatment ended says nothing about what it left.
//!
//! Where scrapes are far apart, a plan is done and verified between two of them. The newest figures are then
//! those of the fault, and rates of the next ones are of a time that reaches back into it. So after a treatment
//! indicators raise nothing, and reopen nothing that was closed with it, before figures have come twice; probes
//! before they have looked once; and levels take no such figure for an example of the usual. Those looks come
//! soon ([`super::closer`]).

use super::{Entity, Now};
use crate::detection::ensemble::{Vote, Voter};

/// Looks after a treatment that come soon: whoever gives no figures by then is waited for as ever.
const SOON_LOOKS: u8 = 8;

/// When figures came, and when a treatment was last under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// A treatment is under way, as was last known.
    under_way: bool,
    treated_ms: Option<u64>,
    /// Of the figures before the newest: rates of the newest begin there.
    begun_ms: Option<u64>,
    newest_ms: Option<u64>,
    /// Looks since the treatment.
    looks: u8,
}

impl Figures {
    /// Whether a treatment is under way.
    pub(super) const fn treated(&mut self, under_way: bool, now: Now) {
        self.under_way = under_way;
        if under_way {
            (self.treated_ms, self.looks) = (Some(now.mono_ms), 0);
        }
    }

    /// It was looked at, with or without figures.
    pub(super) const fn looked(&mut self) {
        self.looks = self.looks.saturating_add(1);
    }

    /// Figures have come.
    pub(super) const fn came(&mut self, now: Now) {
        self.begun_ms = self.newest_ms.replace(now.mono_ms);
    }

    fn after(&self, at_ms: Option<u64>) -> bool {
        self.treated_ms.is_none_or(|treated| at_ms.is_some_and(|at| at >= treated))
    }

    /// Whether figures that come now are, in part, of the time before the last treatment ended: rates begin at
    /// the figures before them.
    pub(super) fn reach_into_treatment(&self) -> bool {
        self.under_way || !self.after(self.newest_ms)
    }

    /// Whether the newest figures are of the time after the treatment alone.
    fn fresh(&self) -> bool {
        self.after(self.begun_ms)
    }

    /// Whether the next figures should come soon.
    pub(super) fn awaited(&self) -> bool {
        !self.fresh() && self.looks <= SOON_LOOKS
    }
}

impl Entity {
    /// Whether what somebody says is of the time after the last treatment.
    pub(super) fn fresh(&self, voter: &Voter) -> bool {
        match voter {
            Voter::Series(_) | Voter::Together | Voter::Budget => self.figures.fresh(),
            Voter::Probe(name) => {
                self.figures.after(self.probes.get(name).map(|track| track.heard_ms))
            }
            Voter::Guard(_) => self.figures.after(self.guard.heard_ms()),
            Voter::Process | Voter::Agent => true,
        }
    }

    /// The votes that are of the time after the last treatment.
    pub(super) fn fresh_votes(&self, votes: &[Vote]) -> Vec<Vote> {
        votes.iter().filter(|vote| self.fresh(&vote.voter)).cloned().collect()
    }
}
