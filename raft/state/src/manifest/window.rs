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
    /// Comes again and again between `startsAt` and `endsAt`, each time for `duration`. Absent: it is
    /// in force all the time between them.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    /// How long, each time it comes.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Millis>,
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
    /// Comes at these times of day from `startsAt` until `endsAt`. Absent: see `every`.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleSpec>,
    /// Does not come any more from then on, RFC 3339. Absent: without end; a schedule needs one.
    #[n(6)]
    #[schemars(with = "Option<String>")]
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::manifest::window::rfc3339_option"
    )]
    pub ends_at: Option<Timestamp>,
}

/// Times in somebody's time zone. The law has neither calendar nor time zones: the door that lets a
/// manifest in works the times out, once.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduleSpec {
    /// Five fields of cron: `0 2 * * SUN`.
    #[n(0)]
    pub cron: String,
    /// Name in the IANA database: `Europe/Berlin`.
    #[n(1)]
    #[serde(default = "utc")]
    pub timezone: String,
    /// When it comes, in order. Not for people to write.
    #[n(2)]
    #[serde(skip)]
    pub starts: Vec<Timestamp>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// Times a schedule may come: daily for some three years.
pub const MAX_STARTS: usize = 1_100;

impl ScheduleSpec {
    /// When it came last, if it has come.
    #[must_use]
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let come = self.starts.partition_point(|start| *start <= now);
        self.starts.get(come.checked_sub(1)?).copied()
    }
}

impl SilenceSpec {
    /// Whether it is in force.
    #[must_use]
    pub fn active(&self, now: Timestamp) -> bool {
        let between = self.starts_at <= now && now < self.ends_at;
        between
            && self.schedule.as_ref().is_none_or(|schedule| {
                let duration = self.duration.unwrap_or_default();
                schedule.last(now).is_some_and(|last| now.since(last) < duration)
            })
    }

    /// When it ends this time, if it is in force.
    #[must_use]
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        self.active(now).then_some(())?;
        let last = self.schedule.as_ref().and_then(|schedule| schedule.last(now));
        let over = last.map(|last| last.plus(self.duration.unwrap_or_default()));
        Some(over.map_or(self.ends_at, |over| over.min(self.ends_at)))
    }
}

impl MaintenanceWindowSpec {
    /// Whether it is in force.
    #[must_use]
    pub fn active(&self, now: Timestamp) -> bool {
        self.begun(now).is_some_and(|begun| now.since(begun) < self.duration)
    }

    /// When it ends this time, if it is in force.
    #[must_use]
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        self.active(now).then_some(())?;
        let over = self.begun(now)?.plus(self.duration);
        Some(self.ends_at.map_or(over, |end| end.min(over)))
    }

    /// When it came last, if it has come; its time may be over.
    #[must_use]
    pub fn begun(&self, now: Timestamp) -> Option<Timestamp> {
        if now < self.starts_at || self.ends_at.is_some_and(|end| end <= now) {
            return None;
        }
        if let Some(schedule) = &self.schedule {
            return schedule.last(now);
        }
        let into = now.since(self.starts_at).0;
        let begun = match self.every {
            Some(every) if every.0 > 0 => into - into % every.0,
            Some(_) | None => 0,
        };
        Some(self.starts_at.plus(Millis(begun)))
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

/// [`rfc3339`] of what may be absent.
pub(crate) mod rfc3339_option {
    use serde::{Deserializer, Serializer, de::Error as _};

    use crate::ids::{Timestamp, scalar_text};

    #[allow(clippy::ref_option, reason = "serde gives a reference")]
    pub(crate) fn serialize<S: Serializer>(
        at: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.collect_str(&crate::time::format_rfc3339(*at)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        let text = scalar_text(d)?;
        crate::time::parse_rfc3339(&text).map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn window() -> MaintenanceWindowSpec {
        MaintenanceWindowSpec {
            matchers: vec![r#"a="b""#.into()],
            starts_at: Timestamp(1_000),
            duration: Millis(10),
            every: None,
            comment: String::new(),
            schedule: None,
            ends_at: None,
        }
    }

    #[test]
    fn a_window_comes_when_its_schedule_says() {
        let schedule = ScheduleSpec {
            cron: "0 2 * * *".into(),
            timezone: "UTC".into(),
            starts: vec![Timestamp(1_000), Timestamp(2_000), Timestamp(3_000)],
        };
        let planned = MaintenanceWindowSpec {
            schedule: Some(schedule.clone()),
            ends_at: Some(Timestamp(3_000)),
            ..window()
        };
        let silence = SilenceSpec {
            matchers: Vec::new(),
            starts_at: Timestamp(1_000),
            ends_at: Timestamp(3_000),
            comment: String::new(),
            schedule: Some(schedule),
            duration: Some(Millis(10)),
        };
        for (now, active) in [
            (999, false),
            (1_000, true),
            (1_009, true),
            (1_010, false),
            (2_005, true),
            (2_500, false),
            (3_001, false),
        ] {
            assert_eq!(planned.active(Timestamp(now)), active, "{now}");
            assert_eq!(silence.active(Timestamp(now)), active, "{now}");
            for until in [planned.until(Timestamp(now)), silence.until(Timestamp(now))] {
                let end = Timestamp(now - now % 1_000 + 10);
                assert_eq!(until, active.then_some(end), "{now}");
            }
        }
        let cut = SilenceSpec { ends_at: Timestamp(2_007), ..silence };
        assert_eq!(cut.until(Timestamp(2_005)), Some(Timestamp(2_007)));
    }

    #[test]
    fn a_window_repeats_until_its_end() {
        let every = MaintenanceWindowSpec { every: Some(Millis(100)), ..window() };
        let ended = MaintenanceWindowSpec { ends_at: Some(Timestamp(1_200)), ..every.clone() };
        for (now, active) in [(1_005, true), (1_015, false), (1_105, true)] {
            assert_eq!(every.active(Timestamp(now)), active, "{now}");
            assert_eq!(ended.active(Timestamp(now)), active, "{now}");
        }
        assert!(every.active(Timestamp(1_205)) && !ended.active(Timestamp(1_205)));
        assert_eq!(every.begun(Timestamp(1_250)), Some(Timestamp(1_200)));
    }
}
