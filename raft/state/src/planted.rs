//! Mistakes on purpose: what a simulation must be able to find. Each is one small change of
//! behaviour, behind a question that is answered `false` at compile time in every build without the
//! feature `planted`; no production build has it.
//!
//! A mistake is switched on per thread, so that simulations of different ones run beside each other;
//! or for a whole process, which is a real node of a real cluster.

macro_rules! mistakes {
    ($($name:ident = $text:literal,)*) => {
        /// A mistake that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Planted { $(#[doc = $text] $name,)* }

        impl Planted {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What is wrong with it.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

mistakes! {
    FenceUnchecked = "the law takes steps, decisions and verdicts under any fence",
    LateOutcomeMoves = "an outcome under an old fence moves the step",
    BudgetForgotten = "the budget counts only plans begun under the present fence",
    UnknownNotCounted = "plans with an unknown outcome do not count in the budget",
    UndoInOrder = "undo goes forward instead of in reverse",
    UndoSkipped = "a plan counts as rolled back before its steps are undone",
    AuditGap = "the audit chain skips a link now and then",
    EpochIgnored = "reports are taken from whoever does not own the shard any more",
    EpochKept = "a shard that moves keeps its epoch",
    CooldownReset = "an election ends all cooldowns",
    ApprovalNotRechecked = "an approval counts when it is used, whatever became of the approver",
    UnknownAssumed = "the law takes an unknown outcome for done",
    RequestsForgotten = "a request id does not keep a command from being applied twice",
    SnapshotForgetsLocks = "a state read back from a snapshot has no locks",
    TimeRunsBack = "the law's time follows whoever stamps an entry",
    PlaybookNotPinned = "a plan from a changed playbook is adopted and started",
    LocksExpire = "locks end by time instead of by their plan",
    FreezeIgnored = "a step starts on a frozen target",
    LawReadsOutside = "what apply does depends on more than the log",
    AttemptsUncapped = "a plan that did not help is followed by another for ever",
    ActBeforeCommit = "the act is sent before its intent is committed",
    LeaseUnchecked = "an act is sent without a quorum having been heard",
    FreshKeyOnRetry = "a step that is tried again is sent under another key",
    OpaqueSentAgain = "an act that nobody can ask about is sent again when taken over",
    UnknownReportedDone = "the driver reports an act without an answer as done",
    FenceKept = "a node that leads again goes on under its last fence",
    OldFenceResumed = "a step is taken over under the fence of its intent",
    NoDataPasses = "verification without data passes",
    DeadOwnerKeepsShards = "shards stay with an owner that is gone",
    AgentTakesAnyFence = "an agent obeys any fence",
    AgentForgetsKeys = "an agent carries a key out again",
    FsyncSkipped = "writes are acknowledged before they are synced",
    AcknowledgedEarly = "entries count as durable as soon as they are queued",
    VoteNotDurable = "a vote is kept in memory alone",
    StaleReadServed = "a read is served without asking the leader",
}

impl Planted {
    /// Whether it is a mistake of consensus, its disk or its network, which only whole nodes make.
    #[must_use]
    pub const fn of_whole_nodes(self) -> bool {
        matches!(
            self,
            Self::FsyncSkipped
                | Self::AcknowledgedEarly
                | Self::VoteNotDurable
                | Self::StaleReadServed
        )
    }
}

/// There is no mistake of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no planted mistake `{0}`; there are {names}", names = names())]
pub struct UnknownMistake(String);

fn names() -> String {
    let names: Vec<&str> = Planted::ALL.iter().map(|one| one.name()).collect();
    names.join(", ")
}

impl std::str::FromStr for Planted {
    type Err = UnknownMistake;

    fn from_str(text: &str) -> Result<Self, UnknownMistake> {
        let mut all = Self::ALL.iter().copied();
        all.find(|one| one.name() == text).ok_or_else(|| UnknownMistake(text.to_owned()))
    }
}

#[cfg(feature = "planted")]
mod switch {
    use std::{cell::Cell, sync::OnceLock};

    use super::Planted;

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    static EVERYWHERE: OnceLock<Planted> = OnceLock::new();

    /// Whether this mistake is made on this thread.
    #[must_use]
    pub fn planted(which: Planted) -> bool {
        PLANTED.get() == Some(which) || EVERYWHERE.get() == Some(&which)
    }

    thread_local! {
        static CALLS: Cell<u64> = const { Cell::new(0) };
    }

    /// Something that is not in the log: how often this was asked.
    pub(crate) fn outside() -> u64 {
        CALLS.replace(CALLS.get().wrapping_add(1))
    }

    /// Plants one mistake on this thread, or none.
    pub fn plant(which: Option<Planted>) {
        PLANTED.set(which);
    }

    /// Plants one mistake in the whole process, for as long as it lives; the first one stays.
    pub fn plant_everywhere(which: Planted) {
        EVERYWHERE.get_or_init(|| which);
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    use super::Planted;

    /// No mistakes are compiled in.
    #[inline(always)]
    #[must_use]
    pub const fn planted(_: Planted) -> bool {
        false
    }

    /// Nothing.
    #[inline(always)]
    pub(crate) const fn outside() -> u64 {
        0
    }
}

pub(crate) use switch::outside;
pub use switch::planted;
#[cfg(feature = "planted")]
pub use switch::{plant, plant_everywhere};
