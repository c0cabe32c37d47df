//! States that a campaign must have reached: a simulation that never gets there proves nothing
//! about there.

use std::collections::BTreeMap;

macro_rules! sometimes {
    ($($name:ident = $text:literal,)*) => {
        /// A state that is reached sometimes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Sometimes { $(#[doc = $text] $name,)* }

        impl Sometimes {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// In words.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

sometimes! {
    LeaderDiedUnderWay = "a leader died between an intent and its outcome",
    ForwardResumed = "a step was taken over by the next leader",
    UndoInterrupted = "an undo was taken over by the next leader",
    OldFenceRefused = "a target refused an old fence",
    StaleFenceRefused = "the law refused a deposed leader",
    LateOutcomeKept = "an outcome under an old fence was kept as evidence",
    SnapshotDuringSaga = "a snapshot was installed while a plan was under way",
    RestartedFromSnapshot = "a node restarted from a snapshot and its log",
    ApprovalGiven = "a plan was approved",
    ApprovalUsedAfterFailover = "an approval was used by another leader than it was given to",
    ApprovalRevoked = "an approval did not count any more when it was used",
    PlanSucceeded = "a plan was verified",
    PlanRolledBack = "a plan was rolled back",
    SeveralUndone = "a rollback undid more than one step",
    OutcomeUnknown = "nobody could tell what became of a step",
    UnknownSettled = "a human settled an unknown outcome",
    VerificationFailed = "a verification failed",
    VerificationInconclusive = "a verification was inconclusive",
    Escalated = "an incident went to a human",
    CancelledUnderWay = "a plan was cancelled under way",
    BudgetRefused = "the budget held a plan back",
    LockRefused = "a lock held a plan back",
    CooldownRefused = "a cooldown held a plan back",
    FreezeRefused = "a freeze held something back",
    PlaybookChanged = "a playbook changed under a plan that had not begun",
    ShardMoved = "a shard got another owner",
    StaleEpochRefused = "a report under an old epoch was refused",
    RequestRepeated = "a request that had been committed was committed again",
    ActRetried = "a step was tried again after it had provably failed",
    AnswerLost = "an act took effect and its answer was lost",
    AgentDiedActing = "an agent died in the middle of an act",
    OrderArrivedLate = "an order arrived after another leader had taken office",
    OrderRepeated = "an order was sent again under its key, and not carried out again",
    OpaqueCalled = "an act that nobody can ask about was carried out",
    TailLost = "an uncommitted entry was lost with its leader",
    TailSurvived = "an uncommitted entry of a dead leader was committed by the next",
    LedUnawares = "a leader had been replaced and did not know it",
    Drilled = "a watcher of shards went, and what it would have seen broke",
    BrokenForLong = "what the faults left broken was still so when it had to have been reported",
    TimeWentBack = "a leader's wall clock was behind the law's time",
}

impl Sometimes {
    /// Whether it can be seen in every layer. The rest only the simulated log can tell, or, as for what
    /// a deposed leader proposes, keeps waiting long enough: real consensus drops it with the term.
    #[must_use]
    pub const fn of_every_layer(self) -> bool {
        !matches!(
            self,
            Self::TailLost
                | Self::TailSurvived
                | Self::LedUnawares
                | Self::StaleFenceRefused
                | Self::LateOutcomeKept
        )
    }
}

/// How often each state was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<Sometimes, u64>);

impl Coverage {
    /// It was reached once more.
    pub fn reached(&mut self, state: Sometimes) {
        self.add(state, 1);
    }

    /// It was reached so many times more.
    pub(crate) fn add(&mut self, state: Sometimes, times: u64) {
        *self.0.entry(state).or_default() += times;
    }

    /// How often.
    #[must_use]
    pub fn count(&self, state: Sometimes) -> u64 {
        self.0.get(&state).copied().unwrap_or_default()
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: &Self) {
        for (state, count) in &other.0 {
            *self.0.entry(*state).or_default() += count;
        }
    }
}
