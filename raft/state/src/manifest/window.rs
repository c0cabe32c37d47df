//! `Silence` and `MaintenanceWindow`: times in which symptoms or remediations are held back.

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{Millis, Timestamp};

/// Symptoms that match open no incident.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SilenceSpec {
    /// Prometheus matchers over the symptom's labels; all must match.
    #[n(0)]
    #[serde(rename = "match")]
    pub matchers: Vec<String>,
    /// From, RFC 3339.
    #[n(1)]
    #[schemars(with = "String")]
    #[serde(with = "crate::manifest::window::rfc3339")]
    pub starts_at: Timestamp,
    /// Until, RFC 3339.
    #[n(2)]
    #[schemars(with = "String")]
    #[serde(with = "crate::manifest::window::rfc3339")]
    pub ends_at: Timestamp,
    /// Why.
    #[n(3)]
    pub comment: String,
}

/// Incidents that match are recorded and not remediated.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintenanceWindowSpec {
    /// Prometheus matchers over the symptom's labels; all must match.
    #[n(0)]
    #[serde(rename = "match")]
    pub matchers: Vec<String>,
    /// First start, RFC 3339.
    #[n(1)]
    #[schemars(with = "String")]
    #[serde(with = "crate::manifest::window::rfc3339")]
    pub starts_at: Timestamp,
    /// How long.
    #[n(2)]
    pub duration: Millis,
    /// Repeats after this long. Absent: once.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Millis>,
    /// Why.
    #[n(4)]
    pub comment: String,
}

impl SilenceSpec {
    /// Whether it is in force.
    #[must_use]
    pub fn active(&self, now: Timestamp) -> bool {
        self.starts_at <= now && now < self.ends_at
    }
}

impl MaintenanceWindowSpec {
    /// Whether it is in force.
    #[must_use]
    pub fn active(&self, now: Timestamp) -> bool {
        if now < self.starts_at {
            return false;
        }
        let into = now.since(self.starts_at);
        match self.every {
            Some(every) if every.0 > 0 => into.0 % every.0 < self.duration.0,
            _ => into < self.duration,
        }
    }
}

/// Serde for a [`Timestamp`] as RFC 3339 text in UTC.
pub(crate) mod rfc3339 {
    use serde::{Deserializer, Serializer, de::Error as _};

    use crate::ids::{Timestamp, scalar_text};

    pub(crate) fn serialize<S: Serializer>(
        at: &Timestamp,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&crate::time::format_rfc3339(*at))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        let text = scalar_text(d)?;
        crate::time::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}
