//! Notices: what people are told of an incident, channel by channel, and what is known of each telling.
//!
//! ```text
//!            intent (channels that do not recognise a repeat)          the answer
//!   owed ─► Sending{fence} ─► the message goes out ─► Delivered            over
//!                 │                                 ├► Failed              owed again, after a wait
//!                 │ the sender is gone              ├► Refused             over, until the channel changes
//!                 └──────────────────────────────►  └► Unknown             see `law/telling.rs`
//! ```
//!
//! A message is known by cluster, incident, channel, the digest of its text, and how many were
//! delivered before it: the same words after a new beginning are news.

use minicbor::{Decode, Encode};

use crate::{
    ids::{Digest, Fence, IncidentId, Timestamp},
    symptom::Severity,
};

/// Channels that hear of one incident: more than a tenant has use for.
pub const MAX_CHANNELS: usize = 64;

/// What a notice says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum NoticeKind {
    /// A human is needed.
    #[n(0)]
    NeedsHuman,
    /// Somebody has said "I am on it".
    #[n(1)]
    Acknowledged,
    /// It is over.
    #[n(2)]
    Resolved,
}

impl std::fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NeedsHuman => "needs-human",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        })
    }
}

/// What is known of a telling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Delivery {
    /// The leader of this fence is about to send it.
    #[n(0)]
    Sending(#[n(0)] Fence),
    /// The receiver has taken it.
    #[n(1)]
    Delivered,
    /// Proven not taken, for a reason that may pass.
    #[n(2)]
    Failed(#[n(0)] String),
    /// Proven not taken, for a reason that will not pass by itself.
    #[n(3)]
    Refused(#[n(0)] String),
    /// It was sent, and nobody knows whether it was taken.
    #[n(4)]
    Unknown(#[n(0)] String),
}

/// The last notice about one incident on one channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NoticeState {
    /// What it says.
    #[n(0)]
    pub kind: NoticeKind,
    /// Digest of its text; zero: what was told is no longer the case.
    #[n(1)]
    pub text: Digest,
    /// What is known of it.
    #[n(2)]
    pub delivery: Delivery,
    /// Since when.
    #[n(3)]
    pub at: Timestamp,
    /// Log index of the entry that said so.
    #[n(4)]
    pub index: u64,
    /// Sendings of this text without delivery.
    #[n(5)]
    pub tries: u32,
    /// Notices delivered on this channel about this incident.
    #[n(6)]
    pub delivered: u32,
    /// Whether anything about the incident was, or may have been, heard on this channel.
    #[n(7)]
    pub heard: bool,
}

/// A channel as the leader's sendings have found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ChannelState {
    /// When messages went out, oldest first: as far back as the channel's rate looks.
    #[n(0)]
    pub sends: std::collections::VecDeque<Timestamp>,
    /// Failures in a row.
    #[n(1)]
    pub failures: u32,
    /// Nothing is sent before this.
    #[n(2)]
    pub wait_until: Timestamp,
}

/// One notice that is owed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Notice {
    /// About which incident.
    pub incident: IncidentId,
    /// What it is filed under: the incident that the story began with.
    pub thread: IncidentId,
    /// What it says.
    pub kind: NoticeKind,
    /// The incident's severity.
    pub severity: Severity,
    /// In one line.
    pub text: String,
    /// Notices delivered before it, on this channel about this incident.
    pub delivered: u32,
    /// A sender of it is gone without a word: it may have been sent.
    pub in_doubt: bool,
}

impl Notice {
    /// Digest of the text.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&[self.text.as_bytes()])
    }
}

/// What people are owed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tellings {
    /// The next message of each channel that is owed one.
    pub next: Vec<Telling>,
    /// Incidents that need a human, and no channel takes them.
    pub nobody: Vec<IncidentId>,
}

/// The next message that is owed to a channel: one notice, or several in one message because the
/// channel's rate leaves no room for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Telling {
    /// The channel's tenant.
    pub tenant: String,
    /// The channel.
    pub channel: String,
    /// Not before this.
    pub not_before: Timestamp,
    /// What it says; never empty.
    pub notices: Vec<Notice>,
}
