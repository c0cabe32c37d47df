//! A certificate ends at a time that is written in it: nothing is uncertain but whether it is renewed.
//!
//! ```text
//!  gauge ─► its end (Unix time, or what is left) ─┬ the same ────► stands; ended once the time is past
//!                                                 └ a later one ─► renewed: what was foreseen is prevented
//! ```

use medic_state::manifest::{IndicatorSource, IndicatorSpec};
use minicbor::{Decode, Encode};

use super::forecast::{Fact, Forecast, ForecastKind, When};

/// Who has not renewed this late has mostly forgotten it: what renews by itself does so with a third of a
/// certificate's time left (RFC 9773 and the ACME clients' defaults). The record corrects this.
const RENEWED_RARELY: f64 = 0.9;
/// A certificate that was seen to come is foreseen to end in this last share of its time at the
/// earliest: those that live for hours are renewed every few hours.
const LAST_SHARE: f64 = 0.25;
/// Ends this near to each other are one: what is left is read a moment after it was written.
const SAME_S: f64 = 60.0;
/// It is looked at this often at the least, so that its end is seen this late at the most.
const SEEN_LATE_S: f64 = 120.0;
/// Times before 2001 are no ends of certificates: `certificate_expired` is 0 or 1.
const UNIX_MIN_S: f64 = 1e9;
const DAY_S: f64 = 86_400.0;

/// How a gauge tells the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// As Unix time in seconds, as `probe_ssl_earliest_cert_expiry` does.
    At,
    /// As what is left, as `medic_certificate_seconds_left` does; in units of so many seconds.
    Left(f64),
}

impl Form {
    /// By the names of the indicator and of its gauge; `None`: it tells of no certificate's end.
    #[must_use]
    pub fn of(spec: &IndicatorSpec) -> Option<Self> {
        const LEFT: [&str; 7] =
            ["_left", "left_", "remaining", "until", "expires_in", "expire_in", "ttl"];
        const ENDS: [&str; 3] = ["expir", "not_after", "notafter"];
        let IndicatorSource::Gauge(selector) = &spec.source else { return None };
        let metric = selector.split('{').next().unwrap_or_default();
        let names = [spec.name.to_ascii_lowercase(), metric.to_ascii_lowercase()];
        let says = |words: &[&str]| names.iter().any(|n| words.iter().any(|word| n.contains(word)));
        if !says(&["cert"]) {
            return None;
        }
        let unit = if says(&["days"]) { DAY_S } else { 1.0 };
        // The gauge says how it counts, whatever the indicator is called.
        match () {
            () if metric == "probe_ssl_earliest_cert_expiry" => Some(Self::At),
            () if says(&LEFT) => Some(Self::Left(unit)),
            () if says(&ENDS) => Some(Self::At),
            () => None,
        }
    }

    /// The end in Unix time, seconds; `None`: the value is no such thing.
    #[must_use]
    pub fn not_after(self, value: f64, now: f64) -> Option<f64> {
        match self {
            Self::At => (value >= UNIX_MIN_S).then_some(value),
            Self::Left(unit) => value.is_finite().then_some(now + value * unit),
        }
    }
}

/// What is known of one certificate; times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Certificate {
    #[n(0)]
    not_after: Option<f64>,
    /// When it was seen to take the place of another.
    #[n(1)]
    issued: Option<f64>,
}

impl Certificate {
    /// It ends then. Tells whether it is a new one that ends later.
    pub fn seen(&mut self, not_after: f64, now: f64) -> bool {
        let Some(before) = self.not_after else {
            self.not_after = Some(not_after);
            return false;
        };
        if (not_after - before).abs() < SAME_S {
            return false;
        }
        let renewed = not_after > before;
        *self = Self { not_after: Some(not_after), issued: renewed.then_some(now) };
        renewed
    }

    /// Whether its end has passed.
    #[must_use]
    pub fn ended(&self, now: f64) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }

    /// That it has ended.
    #[must_use]
    pub fn fact(&self, subject: &str, now: f64) -> Option<Fact> {
        let since = now - self.not_after.filter(|end| *end <= now)?;
        Some(Fact::Expired { subject: subject.to_owned(), since })
    }

    /// That it will end, within `horizon` seconds.
    #[must_use]
    pub fn forecast(&self, subject: &str, now: f64, horizon: f64) -> Option<Forecast> {
        let end = self.not_after?;
        let left = end - now;
        let whole = self.issued.map_or(f64::INFINITY, |issued| end - issued);
        if left <= 0.0 || left > horizon.min(whole * LAST_SHARE) {
            return None;
        }
        let when = When { seconds: left, earliest: left, latest: left + SEEN_LATE_S };
        let factors = vec![match left > 2.0 * DAY_S {
            true => format!("{subject} says it ends in {:.1} days", left / DAY_S),
            false => format!("{subject} says it ends in {left:.0} s"),
        }];
        let about = (ForecastKind::SecurityRisk, subject);
        Some(Forecast::new(about, RENEWED_RARELY, 1.0, when, factors)?.within(horizon))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HORIZON: f64 = 14.0 * DAY_S;

    fn form(name: &str, source: &str) -> Option<Form> {
        let spec = serde_json::json!({"name": name, "source": {"gauge": source}});
        Form::of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn gauges_say_how_they_count() {
        let left = Some(Form::Left(1.0));
        for (name, source, expected) in [
            ("cert_expiry", "probe_ssl_earliest_cert_expiry", Some(Form::At)),
            ("cert_left", "probe_ssl_earliest_cert_expiry", Some(Form::At)),
            ("cert_expiry", "medic_certificate_seconds_left", left),
            ("tls", "medic_certificate_seconds_left{job=\"web\"}", left),
            ("tls", "x509_cert_not_after", Some(Form::At)),
            ("cert_days", "x509_cert_expires_in_days", Some(Form::Left(DAY_S))),
            ("cert_used", "medic_certificate_used_ratio", None),
            ("memory_left", "mem_free", None),
        ] {
            assert_eq!(form(name, source), expected, "{name} over {source}");
        }
        assert_eq!(Form::At.not_after(1.0, 1.7e9), None, "a flag is no time");
        assert_eq!(Form::Left(1.0).not_after(-5.0, 1.7e9), Some(1.7e9 - 5.0));
    }

    #[test]
    fn its_end_is_foreseen_within_the_horizon_and_a_fact_afterwards() {
        let mut one = Certificate::default();
        let end = 1.7e9;
        assert!(!one.seen(end, end - 20.0 * DAY_S) && !one.seen(end + 1.0, end - 19.0 * DAY_S));
        assert!(one.forecast("tls", end - 15.0 * DAY_S, HORIZON).is_none());
        let told = one.forecast("tls", end - 13.0 * DAY_S, HORIZON).unwrap();
        assert_eq!((told.seconds, told.horizon), (13.0 * DAY_S, HORIZON));
        assert!(!one.ended(end - 1.0) && one.fact("tls", end - 1.0).is_none());
        let ended = Fact::Expired { subject: "tls".to_owned(), since: 5.0 };
        assert_eq!(one.fact("tls", end + 5.0), Some(ended));
        assert!(one.forecast("tls", end + 5.0, HORIZON).is_none());
    }

    #[test]
    fn a_short_life_that_was_seen_to_begin_is_foreseen_near_its_end() {
        let (mut one, now) = (Certificate::default(), 1.7e9);
        one.seen(now + 3_600.0, now);
        assert!(one.seen(now + DAY_S, now), "a later end is a renewal");
        assert!(one.forecast("tls", now + 0.5 * DAY_S, HORIZON).is_none());
        assert!(one.forecast("tls", now + 0.8 * DAY_S, HORIZON).is_some());
        assert!(!one.seen(now + 3_600.0, now + 60.0), "an earlier end is none");
        assert!(one.forecast("tls", now + 60.0, HORIZON).is_some());
    }
}
