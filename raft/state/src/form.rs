//! Forms of what is stored: each value of its own begins with the number of its form, so that a
//! build can tell what it reads before it reads it.
//!
//! ```text
//!   record    form ‖ Record            (this file)
//!   snapshot  [form, …the state]       (`State::to_snapshot`, `State::from_snapshot`)
//!   log entry no form: kinds are switched on by the cluster version (`Command::since`)
//! ```
//!
//! Invariant: an older form is lifted step by step to the present one, a newer one is refused with a
//! word on what to do, and nothing is ever read as something else.

use crate::{
    applied::Record,
    codec::{self, CodecError},
};

/// The form in which records are written.
pub const RECORD_FORM: u32 = 1;

/// Stored bytes that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// A newer build wrote them.
    #[error(
        "{what} has form {found}, and this build knows forms up to {known}: start a build at least as new as the one that wrote it"
    )]
    Newer {
        /// What was read.
        what: &'static str,
        /// As stored.
        found: u32,
        /// Known here.
        known: u32,
    },
    /// A newer build wrote them, and they mean what this one does not know.
    #[error(
        "the cluster has command set {found} in force, and this build knows sets up to {known}: start a build at least as new as that of its other members"
    )]
    Beyond {
        /// In force.
        found: u32,
        /// Known here.
        known: u32,
    },
    /// They are damaged, or something else.
    #[error(transparent)]
    Unreadable(#[from] CodecError),
}

impl Record {
    /// As it is stored and sent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = codec::encode(&RECORD_FORM);
        bytes.extend(codec::encode(self));
        bytes
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// When the bytes are no record, or one of a newer form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormError> {
        let what = "a record";
        let mut decoder = minicbor::Decoder::new(bytes);
        let found = decoder.u32().map_err(|error| CodecError {
            what,
            reason: format!("it does not begin with the number of its form: {error}"),
        })?;
        match found {
            0 => Err(CodecError { what, reason: "there is no form 0".to_owned() }.into()),
            RECORD_FORM => Ok(codec::decode(bytes.get(decoder.position()..).unwrap_or_default())?),
            _ => Err(FormError::Newer { what, found, known: RECORD_FORM }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::law::tests::lab::Lab;

    #[test]
    fn a_record_reads_back_and_a_newer_form_is_refused_with_a_way_out() {
        let record = Lab::new().records.remove(0);
        let mut bytes = record.to_bytes();
        assert_eq!(Record::from_bytes(&bytes).unwrap(), record);
        bytes[0] = 9;
        let error = Record::from_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains("form 9") && error.contains("at least as new"), "{error}");
        for damaged in [&b""[..], b"\0", b"\x01", b"\x82\0", &bytes[1..]] {
            assert!(matches!(Record::from_bytes(damaged), Err(FormError::Unreadable(_))));
        }
    }
}
