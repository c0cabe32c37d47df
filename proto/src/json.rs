//! How enum numbers and times of `medic.v1` are written for people and programs.

use serde::{Serialize, Serializer};

/// An enum field: its variant's name (`awaiting-approval`); `null` when unspecified; the number
/// when it is unknown to this build.
pub(crate) fn name<E, S>(value: &i32, serializer: S) -> Result<S::Ok, S::Error>
where
    E: TryFrom<i32> + Serialize,
    S: Serializer,
{
    match E::try_from(*value) {
        Ok(_) if *value == 0 => serializer.serialize_none(),
        Ok(known) => known.serialize(serializer),
        Err(_) => serializer.serialize_i32(*value),
    }
}

/// A time: RFC 3339 in UTC, or `null`.
pub(crate) fn time<S: Serializer>(
    value: &Option<prost_types::Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}
