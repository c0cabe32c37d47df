//! Newtypes for ids, units and points in time.
//!
//! Everything here is an integer or a short string: the law has no floats and reads no clock.
//! Ids of things the log creates (incidents, plans, fences) *are* the log index of the entry that
//! created them: unique, ordered and short enough to type, without a random number.

use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode,
            Serialize, Deserialize,
        )]
        #[cbor(transparent)]
        #[serde(transparent)]
        pub struct $name(#[n(0)] pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;

            /// Accepts the displayed form in any case, and the bare number.
            fn from_str(text: &str) -> Result<Self, BadId> {
                let lower = text.to_ascii_lowercase();
                let digits = lower.strip_prefix(&$prefix.to_ascii_lowercase()).unwrap_or(&lower);
                digits.parse().map(Self).map_err(|_| BadId {
                    text: text.to_owned(),
                    expected: concat!($prefix, "<number>"),
                })
            }
        }
    };
}

/// A text that is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form {expected}")]
pub struct BadId {
    /// What was given.
    pub text: String,
    /// The form that is accepted.
    pub expected: &'static str,
}

integer_id!(
    /// A member of the consensus cluster. Never reused.
    NodeId(u64), "node-"
);
integer_id!(
    /// Log index of the entry that opened the incident.
    IncidentId(u64), "INC-"
);
integer_id!(
    /// Log index of the `AdoptDecision` that committed the plan.
    PlanId(u64), "PLAN-"
);
integer_id!(
    /// Log index of the `Fence` entry of the leader in office: one ever growing number, different
    /// for each incarnation of a process. Zero: no leader has fenced yet.
    Fence(u64), "fence-"
);
integer_id!(
    /// One slice of the entity space, watched by one node at a time.
    ShardId(u32), "shard-"
);
integer_id!(
    /// Counts the owners a shard has had; a report under an old epoch is refused.
    Epoch(u64), "epoch-"
);
integer_id!(
    /// Counts the changes to one incident; a decision names the revision it was based on.
    Revision(u64), "rev-"
);
integer_id!(
    /// Minted at process start; tells two incarnations of one node apart.
    BootId(u64), "boot-"
);

/// Milliseconds since the Unix epoch, stamped by the proposer and made monotone by the law.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    Serialize,
    Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Timestamp(#[n(0)] pub u64);

impl Timestamp {
    /// This point in time, `millis` later; saturates.
    #[must_use]
    pub const fn plus(self, millis: Millis) -> Self {
        Self(self.0.saturating_add(millis.0))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A span of time in milliseconds. In manifests: `30s`, `15m`, `1h`, `500ms`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Millis(#[n(0)] pub u64);

impl Millis {
    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// The same span as the standard library's type.
    #[must_use]
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

/// Units of [`Millis`], largest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, size) = UNITS
            .into_iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
            .unwrap_or(("ms", 1));
        write!(f, "{}{name}", self.0 / size)
    }
}

impl std::str::FromStr for Millis {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new(text, "a duration such as 500ms, 30s, 15m, 1h or 7d");
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (digits, unit) = text.split_at(split);
        let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        let count: u64 = digits.parse().map_err(|_| bad())?;
        count.checked_mul(size).map(Self).ok_or_else(bad)
    }
}

/// A fraction in parts per million: probabilities, confidences, risks, shares.
/// In manifests: `0.8`, `34%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Ppm(#[n(0)] pub u32);

impl Ppm {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The whole.
    pub const ONE: Self = Self(1_000_000);

    /// `self` of `count`, rounded down.
    #[must_use]
    pub const fn of(self, count: u64) -> u64 {
        (count as u128 * self.0 as u128 / 1_000_000) as u64
    }
}

impl fmt::Display for Ppm {
    /// Two to six decimals: `0.80`, `0.001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000);
        let keep = text.trim_end_matches('0').len().max(text.len() - 4);
        f.write_str(&text[..keep])
    }
}

impl std::str::FromStr for Ppm {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new(text, "a fraction from 0 to 1 or a percentage up to 100%");
        let (number, decimals) = match text.strip_suffix('%') {
            Some(number) => (number.trim_end(), 4_usize),
            None => (text, 6),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits_only = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty()
            || !digits_only(whole)
            || !digits_only(fraction)
            || fraction.len() > decimals
        {
            return Err(bad());
        }
        let scaled: u32 = format!("{whole}{fraction:0<decimals$}").parse().map_err(|_| bad())?;
        if scaled > Self::ONE.0 { Err(bad()) } else { Ok(Self(scaled)) }
    }
}

/// A text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct BadQuantity {
    text: String,
    expected: &'static str,
}

impl BadQuantity {
    /// `text` was given where `expected` was due.
    #[must_use]
    pub fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.to_owned(), expected }
    }
}

/// Implements serde and JSON Schema for a type through its `Display` and `FromStr`.
macro_rules! string_serde {
    ($name:ty, $schema_name:literal, $pattern:literal) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = $crate::ids::scalar_text(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $schema_name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": ["string", "number"], "pattern": $pattern })
            }
        }
    };
}
pub(crate) use string_serde;

/// Reads a YAML or JSON scalar as the text it was written as, so that `0.8` and `"80%"` both work.
pub(crate) fn scalar_text<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<String, D::Error> {
    struct Scalar;
    impl serde::de::Visitor<'_> for Scalar {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a number")
        }

        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_u64<E>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_i64<E>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_f64<E>(self, number: f64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Scalar)
}

string_serde!(Millis, "Duration", r"^[0-9]+(ms|s|m|h|d)$");
string_serde!(Ppm, "Fraction", r"^([0-9]+(\.[0-9]+)?%?)$");

/// SHA-256 of a canonical encoding.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Digest(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl Digest {
    /// SHA-256 over the parts, in order.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        use sha2::Digest as _;
        let mut hasher = sha2::Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// The first 12 hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = BadQuantity;

    fn from_str(text: &str) -> Result<Self, BadQuantity> {
        let bad = || BadQuantity::new(text, "64 hexadecimal digits");
        // `from_str_radix` takes a sign for a digit's place.
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// A W3C trace id (16 bytes) that follows one incident from symptom to verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TraceId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Minted by a client; a command retried under the same id is applied once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct RequestId(#[n(0)] pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for text in ["500ms", "30s", "15m", "1h", "7d"] {
            assert_eq!(text.parse::<Millis>().map(|m| m.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "5", "s", "1.5s", "-1s", "1w", "99999999999999999999s"] {
            assert!(text.parse::<Millis>().is_err(), "{text}");
        }
    }

    #[test]
    fn fractions_and_percentages_are_the_same_number() {
        assert_eq!("34%".parse(), Ok(Ppm(340_000)));
        assert_eq!("0.34".parse(), Ok(Ppm(340_000)));
        assert_eq!("99.95%".parse(), Ok(Ppm(999_500)));
        assert_eq!("1".parse(), Ok(Ppm::ONE));
        for text in ["1.1", "101%", "-0.1", ".5", "0.1234567", "x"] {
            assert!(text.parse::<Ppm>().is_err(), "{text}");
        }
        assert_eq!(Ppm(800_000).to_string(), "0.80");
        assert_eq!(Ppm(1_000).to_string(), "0.001");
    }

    #[test]
    fn ids_read_back_as_displayed() {
        assert_eq!("INC-42".parse(), Ok(IncidentId(42)));
        assert_eq!("inc-42".parse(), Ok(IncidentId(42)));
        assert_eq!("42".parse(), Ok(IncidentId(42)));
        assert!("PLAN-42".parse::<IncidentId>().is_err());
    }
}
