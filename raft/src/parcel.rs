//! Parcels: what the layers above consensus hand to the same layer of another node.
//!
//! ```text
//!   Courier::pass ─► peer port of the other node ─► its inbox for that kind ─► whoever opened it
//! ```
//!
//! A parcel may get lost, and nobody is told when it is opened: what must not get lost goes through
//! the log. Deliberately absent: any look into a parcel.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use medic_proto::peer::v1::pass_request::Kind;
use medic_state::NodeId;
use tokio::sync::mpsc;
use tonic::Status;

use crate::{config::MAX_MESSAGE_BYTES, ledger::LedgerError};

/// Parcels waiting in one inbox: they are opened at once, so more means that nobody keeps up.
const INBOX_PARCELS: usize = 64;
/// Largest body of a parcel: a message with room for what surrounds it.
pub const MAX_PARCEL_BYTES: usize = MAX_MESSAGE_BYTES / 4;

/// What is in a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ParcelKind {
    /// What detectors have learnt about the instances of a shard.
    DetectorState,
    /// What a node foresees, and how earlier predictions turned out.
    Predictions,
    /// How the instances do that a node watches.
    Health,
}

impl ParcelKind {
    pub(crate) const fn out(self) -> Kind {
        match self {
            Self::DetectorState => Kind::DetectorState,
            Self::Predictions => Kind::Predictions,
            Self::Health => Kind::Health,
        }
    }

    pub(crate) const fn taken(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Unspecified => None,
            Kind::DetectorState => Some(Self::DetectorState),
            Kind::Predictions => Some(Self::Predictions),
            Kind::Health => Some(Self::Health),
        }
    }
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// From whom; a member of the cluster.
    pub from: NodeId,
    /// As the sender made it.
    pub body: Bytes,
}

/// Takes parcels to other nodes.
#[async_trait]
pub trait Courier: Send + Sync + 'static {
    /// Takes one to the inbox of another member, at most [`MAX_PARCEL_BYTES`] long.
    ///
    /// # Errors
    /// When that node is no member, cannot be reached, or has no room now.
    async fn pass(&self, to: NodeId, kind: ParcelKind, body: Bytes) -> Result<(), LedgerError>;
}

/// The inboxes of one node.
#[derive(Debug, Default)]
pub(crate) struct Inboxes(Mutex<BTreeMap<ParcelKind, mpsc::Sender<Parcel>>>);

impl Inboxes {
    /// Opens the inbox of a kind; one that was open before is closed.
    pub(crate) fn open(&self, kind: ParcelKind) -> mpsc::Receiver<Parcel> {
        let (sender, receiver) = mpsc::channel(INBOX_PARCELS);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, sender);
        receiver
    }

    /// Puts a parcel in.
    pub(crate) fn put(&self, kind: ParcelKind, parcel: Parcel) -> Result<(), Status> {
        let inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let inbox = inboxes
            .get(&kind)
            .ok_or_else(|| Status::unavailable(format!("nobody takes {kind:?} here")))?;
        inbox.try_send(parcel).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Status::resource_exhausted(format!("{INBOX_PARCELS} of {kind:?} wait already"))
            }
            mpsc::error::TrySendError::Closed(_) => {
                Status::unavailable(format!("nobody takes {kind:?} here any more"))
            }
        })
    }
}
