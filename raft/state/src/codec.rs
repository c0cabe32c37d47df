//! The law's wire and disk form: CBOR (RFC 8949) with a number for every field and variant.
//!
//! Numbers are never reused; a new field is optional or has a default; an unknown variant is an
//! error, never skipped. One value has one encoding (maps are ordered, lengths definite), so
//! equal values have equal hashes.

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

/// Decodes a value; refuses trailing bytes.
///
/// # Errors
/// When the bytes are not exactly one value of type `T`.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, CodecError> {
    let what = std::any::type_name::<T>();
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|e| CodecError { what, reason: e.to_string() })?;
    if decoder.position() != bytes.len() {
        let reason = format!("{} bytes follow the value", bytes.len() - decoder.position());
        return Err(CodecError { what, reason });
    }
    Ok(value)
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
