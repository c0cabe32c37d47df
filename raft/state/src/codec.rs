//! The law's wire and disk form: CBOR (RFC 8949) with a number for every field and variant.
//!
//! Numbers are never reused; a new field is optional; what is unknown is an error, never skipped. One
//! value has one encoding (maps are ordered, lengths definite), so equal values have equal hashes,
//! and bytes that do not come back from what was read hold something that this build would lose:
//! a derived decoder by itself ignores fields it does not know, and skips over an unknown variant in
//! an optional field.

use minicbor::{Decode, Encode};

/// Bytes that are not a value of the expected type.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {what}: {reason}")]
pub struct CodecError {
    /// The expected type.
    pub what: &'static str,
    /// What is wrong, and at which byte.
    pub reason: String,
}

/// Encodes a value.
///
/// # Panics
/// Never: the sink is memory and the encoders are derived.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    match minicbor::encode(value, &mut bytes) {
        Ok(()) => bytes,
        Err(error) => unreachable!("encoding into memory failed: {error}"),
    }
}

/// Decodes a value; refuses trailing bytes, and everything that would be lost by encoding the value
/// again: two builds never read two things in the same bytes.
///
/// # Errors
/// When the bytes are not exactly the encoding of one value of type `T`.
pub fn decode<'b, T: Decode<'b, ()> + Encode<()>>(bytes: &'b [u8]) -> Result<T, CodecError> {
    let value: T = decode_older(bytes)?;
    let mut same = Same { left: bytes, so_far: true };
    match minicbor::encode(&value, &mut same) {
        Ok(()) => {}
        Err(error) => unreachable!("comparing in memory failed: {error}"),
    }
    if same.so_far && same.left.is_empty() {
        return Ok(value);
    }
    let reason = "it holds something that this build does not know".to_owned();
    Err(CodecError { what: std::any::type_name::<T>(), reason })
}

/// Decodes a value that a build may have written to whose form fields were added since.
pub(crate) fn decode_older<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, CodecError> {
    let what = std::any::type_name::<T>();
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|e| CodecError { what, reason: e.to_string() })?;
    if decoder.position() != bytes.len() {
        let reason = format!("{} bytes follow the value", bytes.len() - decoder.position());
        return Err(CodecError { what, reason });
    }
    Ok(value)
}

/// A sink that compares instead of storing.
struct Same<'a> {
    left: &'a [u8],
    so_far: bool,
}

impl minicbor::encode::Write for Same<'_> {
    type Error = std::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        match self.left.strip_prefix(bytes) {
            Some(left) if self.so_far => self.left = left,
            Some(_) | None => self.so_far = false,
        }
        Ok(())
    }
}

/// Encodes an `Arc` as what it points to.
pub(crate) mod shared {
    use std::sync::Arc;

    use minicbor::{Decode, Decoder, Encode, Encoder};

    pub(crate) fn encode<C, T: Encode<C>, W: minicbor::encode::Write>(
        value: &Arc<T>,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        T::encode(value, e, ctx)
    }

    pub(crate) fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Arc<T>, minicbor::decode::Error> {
        T::decode(d, ctx).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        law::tests::lab::playbook,
        manifest::{PlaybookSpec, SafetyClass},
    };

    fn playbook_with(safety: SafetyClass) -> Vec<u8> {
        let mut playbook = playbook();
        playbook.steps[0].safety = Some(safety);
        encode(&playbook)
    }

    #[test]
    fn an_unknown_variant_in_an_optional_field_is_an_error() {
        let (one, other) = (playbook_with(SafetyClass::Fenced), playbook_with(SafetyClass::Opaque));
        assert!(decode::<PlaybookSpec>(&one).is_ok() && decode::<PlaybookSpec>(&other).is_ok());
        let at = one.iter().zip(&other).position(|(a, b)| a != b).unwrap();
        let mut newer = one;
        newer[at] = 0x17;
        assert!(decode::<PlaybookSpec>(&newer).is_err());
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let known = encode(&crate::command::FenceCommand {
            node: crate::NodeId(1),
            boot: crate::BootId(2),
        });
        assert_eq!(known[0], 0x82);
        let mut newer = known;
        newer[0] = 0x83;
        newer.push(0x07);
        assert!(decode_older::<crate::command::FenceCommand>(&newer).is_ok(), "it would be lost");
        let error = decode::<crate::command::FenceCommand>(&newer).unwrap_err().to_string();
        assert!(error.contains("does not know"), "{error}");
    }
}
