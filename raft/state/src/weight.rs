//! Weights: how far each detector is believed about a family of metrics, as outcomes have taught.
//!
//! ```text
//!   what turned out                                  about whom                      a human   an outcome
//!   false alarm, or: it ended, and nothing was done  the detectors that called it     ▼ 700     ▼  50
//!   missed, or: verified, and they were silent       those that should have           ▲ 700     ▲  50
//!   genuine, or: verified                            those that called it, to zero    ▲ 700     ▲ 100
//! ```
//!
//! A weight is a logarithm in thousandths: a detector's p-value is multiplied by `exp(-weight / 1000)`
//! before it is held against anything (p-value weighting: Genovese, Roeder & Wasserman, Biometrika 93
//! (2006)). The law keeps integers; what they do to a p-value is detection's.
//!
//! Invariant: a weight lies within [`LEAST`] and [`MOST`], so no detector is ever silenced and none
//! shouts; one incident moves a weight once, and a second opinion about it takes the first one back.
//!
//! Outcomes are weak evidence: what ended by itself may have been something, and a limit may be set where
//! values are usual. So that weights do not drift on them, whatever a fleet does for years:
//! * they move a weight by little, and no further than [`LEAST_BY_OUTCOME`] and [`MOST_BY_OUTCOME`], which
//!   leaves a detector its voice (half a minute's patience) and its reserve; beyond go people alone;
//! * the three pull against each other. A detector of whose alarms one in three is verified gains as much as it
//!   loses, and one that speaks too soon for having missed something loses that again by false alarms;
//! * each feeds on what it ends. Patience keeps the transients quiet that taught it, so they teach no more;
//!   and who speaks sooner is no longer silent when the limit is crossed;
//! * a fleet on which nothing happens opens no incident, and moves nothing.
//!
//! Deliberately absent: evidence that is no test (a probe that fails, a limit that is crossed), and
//! forgetting by time: a detector that is quiet has given no reason to be believed more or less.

use std::{collections::BTreeMap, fmt};

use minicbor::{Decode, Encode};

use crate::ids::{IncidentId, Timestamp};

/// Least weight: p-values count as twenty times what they are.
pub const LEAST: i32 = -3_000;
/// Greatest weight: p-values count as a seventh of what they are.
pub const MOST: i32 = 2_000;
/// What an opinion of a human moves a weight by: a factor of two.
pub const STEP: i32 = 700;
/// What a verified remediation gives back to a detector that is believed less: a tenth.
pub const STEP_VERIFIED: i32 = 100;
/// What the end of an incident takes from those that called it when nothing came of it, and what a verified
/// remediation gives to those that were silent when a limit was crossed. Half of [`STEP_VERIFIED`], so that
/// one treatment that helped outweighs two alarms that nobody heeded; after eight of these a detector waits as
/// long as a usual scrape interval.
pub const STEP_BY_OUTCOME: i32 = 50;
/// Outcomes alone take a weight no lower: as two humans' opinions would.
pub const LEAST_BY_OUTCOME: i32 = -2 * STEP;
/// Outcomes alone lift a weight no higher: as one human's opinion would.
pub const MOST_BY_OUTCOME: i32 = STEP;
/// Weights kept, over all tenants: a thousand indicators by name, each with all of its detectors. When
/// there are more, the tenant that holds most gives way.
pub const MAX_WEIGHTS: usize = 4_096;

/// A detector that tests: it can be wrong without anything being wrong with the world or with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Detector {
    /// A value far from what is usual.
    #[n(0)]
    Level,
    /// A small shift that lasts.
    #[n(1)]
    Cusum,
    /// A trend towards a limit.
    #[n(2)]
    Trend,
    /// All metrics of an instance, looked at together.
    #[n(3)]
    Panel,
}

impl Detector {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Level, Self::Cusum, Self::Trend, Self::Panel];

    /// As in `Signal::detector`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Level => "level",
            Self::Cusum => "cusum",
            Self::Trend => "trend",
            Self::Panel => "panel",
        }
    }

    /// The detector of that name; `None`: what speaks is no test.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|detector| detector.as_str() == text)
    }
}

impl fmt::Display for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The family of metrics behind a signal: the indicator's name, which instances and services of a
/// tenant share; `together` for all of them at once.
#[must_use]
pub fn family_of(signal: &str) -> &str {
    let of_one = signal.strip_prefix("metric.");
    of_one.or_else(|| signal.strip_prefix("metrics.")).unwrap_or(signal)
}

/// The family of [`Detector::Panel`].
pub const TOGETHER: &str = "together";

/// What turned out about the detection of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Opinion {
    /// Nothing was wrong.
    #[n(0)]
    FalseAlarm,
    /// Something was wrong, and no detector said so.
    #[n(1)]
    Missed,
    /// Something was wrong, as the detectors said.
    #[n(2)]
    Genuine,
}

impl fmt::Display for Opinion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FalseAlarm => "false-alarm",
            Self::Missed => "missed",
            Self::Genuine => "genuine",
        })
    }
}

/// Whose weight.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct WeightKey {
    /// Tenant.
    #[n(0)]
    pub tenant: String,
    /// Family of metrics, see [`family_of`].
    #[n(1)]
    pub family: String,
    /// Detector.
    #[n(2)]
    pub detector: Detector,
}

/// A weight, and what changed it last.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Weight {
    /// Thousandths of a natural logarithm, from [`LEAST`] to [`MOST`].
    #[n(0)]
    pub millinats: i32,
    /// [`Weights::version`] as of its last change.
    #[n(1)]
    pub version: u64,
    /// Log index of that change.
    #[n(2)]
    pub index: u64,
    /// When.
    #[n(3)]
    pub at: Timestamp,
    /// By whom.
    #[n(4)]
    pub by: String,
    /// About which incident.
    #[n(5)]
    pub incident: IncidentId,
    /// What was said of it.
    #[n(6)]
    pub opinion: Opinion,
}

/// All weights. One that is not there is zero: the detector is taken at its word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Weights {
    /// Grows by one with every change.
    #[n(0)]
    pub version: u64,
    /// At most [`MAX_WEIGHTS`].
    #[n(1)]
    pub all: BTreeMap<WeightKey, Weight>,
}

impl Weights {
    /// Those of a tenant.
    pub fn of_tenant<'s>(
        &'s self,
        tenant: &'s str,
    ) -> impl Iterator<Item = (&'s WeightKey, &'s Weight)> {
        let (tenant_owned, family) = (tenant.to_owned(), String::new());
        let first = WeightKey { tenant: tenant_owned, family, detector: Detector::Level };
        self.all.range(first..).take_while(move |(key, _)| key.tenant == tenant)
    }
}

/// What an opinion moved, so that it can be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Move {
    /// Family of metrics, in the incident's tenant.
    #[n(0)]
    pub family: String,
    /// Detector.
    #[n(1)]
    pub detector: Detector,
    /// Thousandths of a natural logarithm, as far as the bounds allowed.
    #[n(2)]
    pub millinats: i32,
}

/// The opinion in force about the detection of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Judged {
    /// What turned out.
    #[n(0)]
    pub opinion: Opinion,
    /// Who says so.
    #[n(1)]
    pub by: String,
    /// When.
    #[n(2)]
    pub at: Timestamp,
    /// The indicators that were named.
    #[n(3)]
    pub families: Vec<String>,
    /// What it did.
    #[n(4)]
    pub moves: Vec<Move>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_families_are_indicators() {
        for detector in Detector::ALL {
            assert_eq!(Detector::parse(detector.as_str()), Some(detector));
        }
        for fact in ["limit", "probe", "process", "agents", "forecast", ""] {
            assert_eq!(Detector::parse(fact), None, "{fact} is no test");
        }
        assert_eq!(family_of("metric.error_rate"), "error_rate");
        assert_eq!(family_of("metrics.together"), TOGETHER);
        assert_eq!(family_of("alert.HighLatency"), "alert.HighLatency");
    }
}
