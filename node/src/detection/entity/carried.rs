//! A checkpoint on its way to another node, which may run another build.
//!
//! ```text
//!   parcel:      [ (form, epoch, checkpoint as bytes) ]
//!   checkpoint:  … series: { name: (form, query, state as bytes) }, panel as bytes …
//! ```
//!
//! Each piece says in which form it is and stands as bytes of its own: what another build wrote in another form is
//! refused by itself, named and counted, and what lies beside it is taken. A field that is only added is no
//! other form: who does not know it passes over it. Forms: [`FORM`] here, `SERIES_FORM` of series, and the panel's
//! own.

use medic_state::{Epoch, codec};
use minicbor::{Decode, Encode};

use super::EntityCheckpoint;

/// The form of a checkpoint; raised when what a field means changes.
pub const FORM: u16 = 1;

/// A checkpoint, with what must be known before it is read.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Carried {
    /// See [`FORM`].
    #[n(0)]
    pub form: u16,
    /// The epoch under which its shard was watched when this was learnt.
    #[n(1)]
    pub epoch: Epoch,
    /// An [`EntityCheckpoint`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

/// Why a checkpoint is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCheckpoint {
    /// Another build wrote it.
    #[error("it is in form {0}, and form {FORM} is what this build reads")]
    Form(u16),
    /// It is none.
    #[error("it cannot be read: {0}")]
    Body(String),
}

impl Carried {
    /// Packs one.
    #[must_use]
    pub fn new(epoch: Epoch, checkpoint: &EntityCheckpoint) -> Self {
        Self { form: FORM, epoch, body: codec::encode(checkpoint) }
    }

    /// Unpacks it.
    ///
    /// # Errors
    /// When it is in another form, or no checkpoint.
    pub fn open(&self) -> Result<EntityCheckpoint, BadCheckpoint> {
        if self.form != FORM {
            return Err(BadCheckpoint::Form(self.form));
        }
        read(&self.body).map_err(|error| BadCheckpoint::Body(error.to_string()))
    }
}

/// Reads a value; fields that this build does not know are passed over.
pub(super) fn read<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, minicbor::decode::Error> {
    minicbor::decode(bytes)
}

/// The checkpoints of a parcel.
///
/// # Errors
/// When it is no parcel of them.
pub fn unpack(parcel: &[u8]) -> Result<Vec<Carried>, BadCheckpoint> {
    read(parcel).map_err(|error| BadCheckpoint::Body(error.to_string()))
}
