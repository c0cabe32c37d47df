//! States that only whole nodes reach: a campaign that never got there proves nothing about there.

use std::{collections::BTreeMap, sync::Mutex};

use crate::history::lock;

macro_rules! marks {
    ($($name:ident = $text:literal,)*) => {
        /// A state that is reached sometimes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark { $(#[doc = $text] $name,)* }

        impl Mark {
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

marks! {
    Elected = "a node was elected",
    LeaderKilled = "a leader's process was killed",
    KilledActing = "a leader was killed between an intent and its outcome",
    PowerLost = "a node lost its power",
    WritesLost = "writes that were not synced were gone after a power cut",
    NamesLost = "a file that had been renamed or removed was as before after a power cut",
    WriteTorn = "a batch was torn in the middle: nothing of it could be read again",
    FileTorn = "a snapshot was torn in the middle of its file",
    WriteDoneButFailed = "a write was done, and reported as failed",
    DiskFilled = "a write failed for lack of space, and the node took itself out",
    SnapshotDamaged = "a node found its newest snapshot damaged, and started from the one before",
    SnapshotSent = "a node was sent a snapshot by another",
    LogDamaged = "a node refused to start on a damaged log, and was replaced",
    DiskSlow = "a node's disk was slow",
    Split = "the nodes fell in two",
    LinksSlow = "every link was slow",
    ClockDrifted = "a wall clock went too fast or too slow",
    TelemetryLost = "a node or a service had no telemetry",
    LeaderIsolated = "a leader was cut off from the others",
    OneWayCut = "a link was cut in one direction",
    Held = "messages of a node were held up for a while",
    Transferred = "leadership was handed over when it was asked for",
    Drained = "a node was drained",
    DrainEnded = "a node that had been drained might watch again",
    MemberAdded = "a node became a member",
    MemberRemoved = "a member was removed",
    ClockJumped = "a wall clock jumped",
    AgentEnded = "an agent's process ended",
    ManifestChanged = "a playbook was changed",
    CallAnswered = "a client's write was answered",
    ReadAnswered = "a client's read was answered",
    CallUnanswered = "a client never learned what became of its write",
    CallRepeated = "a client asked again under the same request id",
    CompareRefused = "a write was refused because what it expected had changed",
    AbsenceAnswered = "a client was told that a key is not there",
    Forwarded = "a call was answered by a node that did not lead",
}

/// How often each was reached.
#[derive(Debug, Default)]
pub(super) struct Marks(Mutex<BTreeMap<Mark, u64>>);

impl Marks {
    /// Once more.
    pub(super) fn reached(&self, mark: Mark) {
        *lock(&self.0).entry(mark).or_default() += 1;
    }

    /// All counts.
    pub(super) fn counts(&self) -> BTreeMap<Mark, u64> {
        lock(&self.0).clone()
    }
}
