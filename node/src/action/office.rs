//! One term in office: from the moment this node's `Fence` is applied here until leadership, or the
//! fence, is lost.
//!
//! Everything the leader does is done through an [`Office`], and stops when it is no longer held.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use medic_raft::{Committed, LawClock, Leadership, Ledger, LedgerError, LedgerExt as _};
use medic_state::{
    Answer, Command, Entry, Fence, Reply, TraceId,
    command::FenceCommand,
    planted::{Planted, planted},
    rbac::Principal,
};
use tokio::time::Instant;

/// First and last wait between two tries of one proposal.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_millis(500);

/// Why something was not done by this leader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfficeError {
    /// Another leader has, or may have, taken over; it finds what is pending in the state.
    #[error("{0} is no longer in office: {1}")]
    Lost(Fence, String),
    /// The entry can never be committed.
    #[error("cannot propose {command}: {reason}")]
    Rejected {
        /// Command name.
        command: &'static str,
        /// Why.
        reason: String,
    },
}

fn law_clock(ledger: &dyn Ledger) -> LawClock {
    LawClock::start(ledger.env().clock.clone(), ledger.read(|state| state.now))
}

/// One term in office.
#[derive(Clone)]
pub struct Office {
    ledger: Arc<dyn Ledger>,
    clock: LawClock,
    fence: Fence,
    term: u64,
    since: Instant,
    deposed: Arc<AtomicBool>,
}

impl Office {
    /// Commits a `Fence` for this incarnation and waits until it is applied here.
    ///
    /// # Errors
    /// When this node is not leader, or ceases to be.
    pub async fn take(ledger: Arc<dyn Ledger>) -> Result<Self, OfficeError> {
        let leadership = *ledger.leadership().borrow();
        let clock = law_clock(ledger.as_ref());
        let mut office = Self {
            clock,
            fence: Fence(0),
            term: leadership.term,
            since: Instant::now(),
            deposed: Arc::new(AtomicBool::new(false)),
            ledger,
        };
        let last = office.ledger.read(|state| state.fence);
        if planted(Planted::FenceKept) && last.node == office.ledger.node() {
            office.fence = last.fence;
            return Ok(office);
        }
        let command =
            Command::Fence(FenceCommand { node: office.ledger.node(), boot: office.ledger.boot() });
        let trace = office.ledger.env().entropy.trace_id();
        crate::crash_point!("office_before_fence");
        match office.propose(trace, command).await?.answer {
            Ok(Reply::Fenced(fence)) => office.fence = fence,
            other => {
                let reason = format!("the law answered a Fence with {other:?}");
                return Err(OfficeError::Rejected { command: "Fence", reason });
            }
        }
        crate::crash_point!("office_after_fence");
        // Only now is all that earlier leaders committed applied here; their time counts too.
        office.clock = law_clock(office.ledger.as_ref());
        office.since = Instant::now();
        Ok(office)
    }

    /// The fence.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// When the fence was applied here, by the monotonic clock. Every act of an earlier leader was
    /// sent before.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.since
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn Ledger> {
        &self.ledger
    }

    /// The clock entries are stamped with.
    #[must_use]
    pub fn clock(&self) -> &LawClock {
        self.clock.heed(self.ledger.read(|state| state.now));
        &self.clock
    }

    /// Whether this node still leads in the same term, with its fence in force, as far as it knows.
    #[must_use]
    pub fn held(&self) -> bool {
        self.leads() && self.ledger.read(|state| state.fence.fence == self.fence)
    }

    /// Stops acting under this fence: somebody has seen a higher one.
    pub fn depose(&self) {
        self.deposed.store(true, Ordering::Release);
    }

    /// The error to give back once the office is lost.
    #[must_use]
    pub fn lost(&self, why: impl Into<String>) -> OfficeError {
        OfficeError::Lost(self.fence, why.into())
    }

    fn leads(&self) -> bool {
        let Leadership { me, term, .. } = *self.ledger.leadership().borrow();
        me && term == self.term && !self.deposed.load(Ordering::Acquire)
    }

    /// Proposes until the answer is known, under one request id, so that it is applied once.
    ///
    /// # Errors
    /// When office is lost first (it may have been committed or not), or it can never be committed.
    pub async fn propose(
        &self,
        trace: TraceId,
        command: Command,
    ) -> Result<Committed, OfficeError> {
        let name = command.name();
        let entry = Entry {
            at: self.clock().now(),
            principal: Principal::node(self.ledger.node()),
            request: Some(self.ledger.env().entropy.request_id()),
            trace,
            command,
        };
        let mut wait = RETRY_FIRST;
        loop {
            match self.ledger.propose_as_leader(entry.clone()).await {
                Ok(committed) => {
                    tracing::debug!(command = name, index = committed.index, answer = ?committed.answer, "proposed");
                    return Ok(committed);
                }
                Err(LedgerError::NotLeader) => return Err(self.lost("this node is not leader")),
                Err(LedgerError::Stopped(why)) => return Err(self.lost(why)),
                Err(LedgerError::TooLarge(reason) | LedgerError::Refused(reason)) => {
                    return Err(OfficeError::Rejected { command: name, reason });
                }
                Err(error @ (LedgerError::Unavailable(_) | LedgerError::Ambiguous(_))) => {
                    tracing::debug!(command = name, %error, "no answer yet");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_LAST);
            if !self.leads() {
                return Err(self.lost(format!("before {name} was answered")));
            }
        }
    }

    /// Proposes, and gives back the law's answer alone.
    ///
    /// # Errors
    /// As [`Office::propose`].
    pub async fn ask(&self, trace: TraceId, command: Command) -> Result<Answer, OfficeError> {
        self.propose(trace, command).await.map(|committed| committed.answer)
    }
}

impl std::fmt::Debug for Office {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Office").field("fence", &self.fence).field("term", &self.term).finish()
    }
}
