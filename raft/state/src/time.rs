//! RFC 3339 in UTC, for manifests and for people. Reads no clock.

use crate::ids::{BadQuantity, Timestamp};

/// `2026-11-23T22:30:00Z`.
#[must_use]
pub fn format_rfc3339(at: Timestamp) -> String {
    i64::try_from(at.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| format!("{}ms", at.0), |t| t.to_string())
}

/// Reads RFC 3339 with any offset.
///
/// # Errors
/// When the text is not RFC 3339 or lies before 1970.
pub fn parse_rfc3339(text: &str) -> Result<Timestamp, BadQuantity> {
    let bad = || BadQuantity::new(text, "an RFC 3339 time such as 2026-11-23T22:30:00Z");
    let at: jiff::Timestamp = text.parse().map_err(|_| bad())?;
    u64::try_from(at.as_millisecond()).map(Timestamp).map_err(|_| bad())
}
