//! What the leader says about telling people.

use minicbor::{Decode, Encode};

use crate::{
    ids::{Digest, IncidentId},
    notice::{Delivery, NoticeKind},
};

/// See [`Command::NoteTold`](super::Command::NoteTold).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NoteTold {
    /// The incident.
    #[n(0)]
    pub incident: IncidentId,
    /// Digest of the text.
    #[n(1)]
    pub text: Digest,
    /// On which channel, and how that went. Absent: every channel has it, as said before version 5.
    #[n(2)]
    pub on: Option<ToldOn>,
}

/// How telling one channel went, or that it begins.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ToldOn {
    /// The channel, of the incident's tenant.
    #[n(0)]
    pub channel: String,
    /// What the notice says.
    #[n(1)]
    pub kind: NoticeKind,
    /// How it went.
    #[n(2)]
    pub delivery: Delivery,
    /// Notices about other incidents in the same message.
    #[n(3)]
    pub also: Vec<(IncidentId, Digest, NoticeKind)>,
}
