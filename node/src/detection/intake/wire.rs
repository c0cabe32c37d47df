//! Protobuf's wire format, read in place and written back: the few forms that telemetry uses.
//!
//! Our own (a hundred lines), because what comes in at half a million samples a second must not cost
//! an allocation per label. Invariant: whatever the bytes, reading ends, allocates nothing and does
//! not panic. Deliberately absent: groups, which no message here has; they are refused.

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWire {
    /// A field ends beyond its message.
    #[error("it is cut off")]
    CutOff,
    /// A number of more than 64 bits.
    #[error("a number has more than 64 bits")]
    Overlong,
    /// A field number of zero, or a group.
    #[error("a field has a form that these messages do not use")]
    Form,
    /// A known field in another form than it should have.
    #[error("field {0} has the wrong form")]
    WrongForm(u32),
    /// A text that is no UTF-8.
    #[error("a text is not UTF-8")]
    NotText,
}

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'b> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// Doubles and fixed integers.
    Fixed64(u64),
    /// Floats and fixed integers.
    Fixed32(u32),
    /// Texts, bytes, messages, packed lists.
    Bytes(&'b [u8]),
}

/// A field: its number and its value.
pub type Field<'b> = (u32, Value<'b>);

impl<'b> Value<'b> {
    /// As bytes.
    pub fn bytes(self, field: u32) -> Result<&'b [u8], BadWire> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed64(_) | Self::Fixed32(_) => Err(BadWire::WrongForm(field)),
        }
    }

    /// As a text.
    pub fn text(self, field: u32) -> Result<&'b str, BadWire> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| BadWire::NotText)
    }

    /// As an integer.
    pub fn varint(self, field: u32) -> Result<u64, BadWire> {
        match self {
            Self::Varint(number) => Ok(number),
            Self::Bytes(_) | Self::Fixed64(_) | Self::Fixed32(_) => Err(BadWire::WrongForm(field)),
        }
    }

    /// As 64 fixed bits.
    pub fn fixed64(self, field: u32) -> Result<u64, BadWire> {
        match self {
            Self::Fixed64(bits) => Ok(bits),
            Self::Bytes(_) | Self::Varint(_) | Self::Fixed32(_) => Err(BadWire::WrongForm(field)),
        }
    }
}

/// Reads fields from the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    /// Over one message.
    #[must_use]
    pub const fn new(message: &'b [u8]) -> Self {
        Self(message)
    }

    /// What is not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'b [u8] {
        self.0
    }

    /// The next field; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no message.
    #[inline]
    pub fn field(&mut self) -> Result<Option<Field<'b>>, BadWire> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| BadWire::Form)?;
        if number == 0 {
            return Err(BadWire::Form);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| BadWire::CutOff)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(BadWire::Form),
        };
        Ok(Some((number, value)))
    }

    /// The next bare number, for packed lists; `None` at the end.
    ///
    /// # Errors
    /// When the bytes are no number.
    pub fn packed(&mut self) -> Result<Option<u64>, BadWire> {
        if self.0.is_empty() { Ok(None) } else { self.varint().map(Some) }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, BadWire> {
        if let Some((&byte, rest)) = self.0.split_first()
            && byte < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(byte));
        }
        let mut number = 0_u64;
        for (at, &byte) in self.0.iter().enumerate().take(10) {
            if at == 9 && byte > 1 {
                return Err(BadWire::Overlong);
            }
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err(if self.0.len() >= 10 { BadWire::Overlong } else { BadWire::CutOff })
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'b [u8], BadWire> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BadWire::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadWire> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(BadWire::CutOff)?;
        self.0 = rest;
        Ok(*taken)
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that a varint takes.
#[must_use]
pub const fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a field of bytes.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a double.
pub fn put_double(out: &mut Vec<u8>, field: u32, value: f64) {
    put_varint(out, u64::from(field) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends an integer.
pub fn put_number(out: &mut Vec<u8>, field: u32, number: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, number);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_bytes(&mut out, 1, b"abc");
        put_double(&mut out, 2, -0.5);
        put_number(&mut out, 300, u64::MAX);
        let mut reader = Reader::new(&out);
        assert_eq!(reader.field().unwrap(), Some((1, Value::Bytes(b"abc"))));
        assert_eq!(reader.field().unwrap(), Some((2, Value::Fixed64((-0.5_f64).to_bits()))));
        assert_eq!(reader.field().unwrap(), Some((300, Value::Varint(u64::MAX))));
        assert_eq!(reader.field().unwrap(), None);
    }

    #[test]
    fn a_varint_is_as_long_as_it_is_said_to_be() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::MAX >> 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out.len(), varint_len(number), "{number}");
        }
    }

    #[test]
    fn odd_bytes_are_named() {
        let first = |bytes: &[u8]| Reader::new(bytes).field().unwrap_err();
        assert_eq!(first(&[0x0a, 5, 1]), BadWire::CutOff);
        assert_eq!(
            first(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            BadWire::CutOff
        );
        assert_eq!(first(&[0x08, 0x80]), BadWire::CutOff);
        assert_eq!(first(&[0xff; 11]), BadWire::Overlong);
        assert_eq!(first(&[0x0b]), BadWire::Form);
        assert_eq!(first(&[0x02, 0]), BadWire::Form);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            let mut fields = 0;
            while let Ok(Some(_)) = reader.field() {
                fields += 1;
            }
            prop_assert!(fields <= bytes.len());
        }
    }
}
