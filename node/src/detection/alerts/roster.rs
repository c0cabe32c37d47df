//! The alerts of one target that fire: read from the symptom that stands, changed, written as one.
//!
//! ```text
//!   signal     alert.DiskFull = sda is full     `alertmanager/ID/critical`   `not firing after END`
//!                   │                                        │                         │
//!                 shown                          who it is, how bad        over then, unless sent again
//!
//!   labels     alertname: DiskFull
//!              more_alerts_0: critical@END:ID,ID warning:ID    those for which there is no signal
//!              forgotten_alerts_until: END                     there were more than that
//! ```
//!
//! Invariant: an alert that fires is ended by its own word, or by its own end, and by nothing that
//! becomes of another one. An alert is who its sender's fingerprint says, else its labels; its name is
//! what people see. What earlier builds wrote goes by the name alone, and is ended by it.
//!
//! An end is written later than it was told by a slack, so that not every repeat is an entry of the
//! log: only one that goes beyond what is written. So an alert stands never shorter than its sender
//! said, and at most [`SLACK_MAX`] longer.
//!
//! Deliberately absent: a clock, and what is done about it (the parent).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use medic_api::http::IncomingAlert;
use medic_state::{
    Digest, Millis, Ppm, Timestamp,
    symptom::{ALERT_SOURCE, MAX_SIGNALS, Severity, Signal, Symptom},
    text::head,
    time::{format_rfc3339, parse_rfc3339},
};

/// Bytes of a summary kept.
const SUMMARY_BYTES_MAX: usize = 300;
/// Bytes of an alert's text kept: the law keeps them whole, so that a repeat is known for one.
const TEXT_BYTES_MAX: usize = 250;
/// Bytes of an alert's name kept; with our prefix it stays below the law's bound of names.
const NAME_BYTES_MAX: usize = 200;
/// Alerts of one target that are told apart: as many as one call may bring. They are some 15 KiB of an
/// entry, and twice that when each has an end of its own.
const ALERTS_KEPT_MAX: usize = 1_000;
/// Bytes of a label that lists alerts: the law clips at 2,048.
const LIST_BYTES_MAX: usize = 2_000;
/// Alerts in one part of such a list.
const PART_ALERTS_MAX: usize = 100;
/// How long an end is put off, at most; three times as long as Prometheus waits before it sends again.
const SLACK_MAX: Millis = Millis::from_secs(120);
/// For how long an alert without an end counts that is one too many to be told apart: some of the
/// longest usual `repeat_interval`s.
const FORGOTTEN_AFTER: Millis = Millis::from_secs(24 * 3_600);

const NAME: &str = "alertname";
const MORE: &str = "more_alerts_";
const FORGOTTEN: &str = "forgotten_alerts_until";
const SIGNAL: &str = "alert.";
/// The signal that stands for all that have none.
const MORE_SIGNAL: &str = "alerts.more";
const FIRING: &str = "firing";
const EXPECTED: &str = "not firing";
const EXPECTED_AFTER: &str = "not firing after ";

/// One alert that fires.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alert {
    severity: Severity,
    /// Over then, slack included; none: until its sender says so.
    ends: Option<Timestamp>,
    /// Not of those that there was no signal for.
    shown: Option<Shown>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    name: String,
    text: String,
}

/// All alerts of a target that fire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Roster {
    /// By [`identity`].
    alerts: BTreeMap<String, Alert>,
    /// Some that cannot be told apart fire until then.
    forgotten: Option<Timestamp>,
    /// The name in the symptom's label.
    named: Option<String>,
    since: Option<Timestamp>,
    changed: bool,
}

impl Roster {
    /// What a symptom says. What cannot be read is left out: signals and labels are text.
    pub(super) fn read(symptom: &Symptom) -> Self {
        let mut roster = Self {
            named: symptom.labels.get(NAME).cloned(),
            since: Some(symptom.since),
            forgotten: symptom.labels.get(FORGOTTEN).and_then(|text| parse_rfc3339(text).ok()),
            ..Self::default()
        };
        for signal in &symptom.signals {
            let Some(name) = signal.name.strip_prefix(SIGNAL) else { continue };
            let mut said = signal.detector.split('/').skip(1);
            let (id, severity) = match (said.next(), said.next()) {
                (Some(id), Some(severity)) => (id.to_owned(), severity),
                (severity, _) => (named_alone(name), severity.unwrap_or_default()),
            };
            let ends = signal.expected.strip_prefix(EXPECTED_AFTER);
            let alert = Alert {
                severity: severity_called(severity),
                ends: ends.and_then(|ends| parse_rfc3339(ends).ok()),
                shown: Some(Shown { name: name.to_owned(), text: signal.value.clone() }),
            };
            roster.alerts.insert(id, alert);
        }
        let lists = symptom.labels.iter().filter(|(name, _)| name.starts_with(MORE));
        for (head, ids) in
            lists.flat_map(|(_, list)| list.split(' ')).filter_map(|part| part.split_once(':'))
        {
            let (severity, ends) = head
                .split_once('@')
                .map_or((head, None), |(severity, secs)| (severity, Some(secs)));
            let severity = severity_called(severity);
            let ends = ends.and_then(|secs| secs.parse().ok());
            let ends = ends.map(|secs: u64| Timestamp(secs.saturating_mul(1_000)));
            for id in ids.split(',') {
                let alert = Alert { severity, ends, shown: None };
                roster.alerts.entry(id.to_owned()).or_insert(alert);
            }
        }
        roster
    }

    /// An alert fires, or is over.
    pub(super) fn take(&mut self, alert: &IncomingAlert, now: Timestamp) {
        let name = name_of(alert);
        let id = identity(alert, &name);
        // What an earlier build has written of it.
        let old = self.alerts.remove(&named_alone(&name)).is_some();
        self.changed |= old;
        if !alert.firing {
            self.changed |= self.alerts.remove(&id).is_some();
            return;
        }
        if alert.starts_at.0 > 0 {
            self.since = Some(self.since.unwrap_or(now).min(alert.starts_at));
        }
        let text = ["summary", "description"].iter().find_map(|key| alert.annotations.get(*key));
        let fresh = Alert {
            severity: severity_of(alert),
            ends: alert.ends_at,
            shown: Some(Shown {
                name: name.clone(),
                text: text.map_or_else(
                    || FIRING.to_owned(),
                    |text| head(text, TEXT_BYTES_MAX).to_owned(),
                ),
            }),
        };
        let (kept, is_room) = (self.alerts.len(), self.alerts.len() < MAX_SIGNALS);
        match self.alerts.entry(id) {
            Entry::Occupied(known) if !known.get().outdated_by(&fresh, is_room) => return,
            Entry::Occupied(mut known) => {
                let ends = fresh
                    .ends
                    .map(|ends| put_off(ends, now).max(known.get().ends.unwrap_or_default()));
                known.insert(Alert { ends, ..fresh });
            }
            Entry::Vacant(_) if kept >= ALERTS_KEPT_MAX => {
                let until = fresh.ends.unwrap_or_else(|| now.plus(FORGOTTEN_AFTER));
                if self.forgotten.is_some_and(|known| known >= until) {
                    return;
                }
                self.forgotten = Some(put_off(until, now));
            }
            Entry::Vacant(place) => {
                place.insert(Alert { ends: fresh.ends.map(|ends| put_off(ends, now)), ..fresh });
                self.named = Some(name);
            }
        }
        self.changed = true;
    }

    /// Ends have come.
    pub(super) fn end(&mut self, now: Timestamp) {
        let before = (self.alerts.len(), self.forgotten);
        self.alerts.retain(|_, alert| alert.ends.is_none_or(|ends| ends > now));
        self.forgotten = self.forgotten.filter(|until| *until > now);
        self.changed |= before != (self.alerts.len(), self.forgotten);
    }

    /// Whether there is anything new to write.
    pub(super) const fn changed(&self) -> bool {
        self.changed
    }

    /// Whether nothing fires.
    pub(super) fn is_empty(&self) -> bool {
        self.alerts.is_empty() && self.forgotten.is_none()
    }

    /// Fills in what a symptom says of its alerts.
    pub(super) fn write(self, symptom: &mut Symptom, now: Timestamp) {
        let mut shown: Vec<(&String, &Alert, &Shown)> = (self.alerts.iter())
            .filter_map(|(id, alert)| Some((id, alert, alert.shown.as_ref()?)))
            .collect();
        shown.sort_by_key(|(id, alert, shown)| (Reverse(alert.severity), &shown.name, *id));
        let all_fit = shown.len() == self.alerts.len() && shown.len() <= MAX_SIGNALS;
        if !all_fit || self.forgotten.is_some() {
            shown.truncate(MAX_SIGNALS - 1);
        }
        let severity = self.alerts.values().map(|alert| alert.severity).max().unwrap_or_default();
        let mut rest = self.alerts.clone();
        rest.retain(|id, _| !shown.iter().any(|(shown, ..)| *shown == id));
        let more = match (rest.len(), self.forgotten) {
            (0, None) => None,
            (some, None) => Some(some.to_string()),
            (some, Some(_)) => Some(format!("at least {}", some + 1)),
        };
        symptom.severity = severity;
        symptom.since = self.since.unwrap_or(now);
        symptom.summary = head(&summary(&shown, more.as_deref()), SUMMARY_BYTES_MAX).to_owned();
        symptom.signals = shown.iter().map(|(id, alert, shown)| signal(id, alert, shown)).collect();
        symptom.signals.extend(more.map(|more| Signal {
            name: MORE_SIGNAL.to_owned(),
            value: more,
            expected: EXPECTED.to_owned(),
            detector: format!("{ALERT_SOURCE}/{severity}"),
            p_value: Ppm::ZERO,
        }));
        let named = (self.named.as_ref())
            .filter(|named| shown.iter().any(|(_, _, shown)| shown.name == **named))
            .or_else(|| shown.first().map(|(_, _, shown)| &shown.name));
        symptom.labels = (lists(&rest).into_iter().enumerate())
            .map(|(n, list)| (format!("{MORE}{n}"), list))
            .chain(named.map(|name| (NAME.to_owned(), name.clone())))
            .chain(self.forgotten.map(|until| (FORGOTTEN.to_owned(), format_rfc3339(until))))
            .collect();
    }
}

impl Alert {
    /// Whether a repeat, with the end as it was told, says something that must be written. A text alone
    /// is not worth an entry where the alert is sent every minute (it may hold a value): it is written
    /// with the next end.
    fn outdated_by(&self, repeat: &Self, is_room: bool) -> bool {
        self.severity != repeat.severity
            || (self.shown.is_none() && is_room)
            || match (self.ends, repeat.ends) {
                (Some(known), Some(told)) => told > known,
                (None, None) => self.shown.is_some() && self.shown != repeat.shown,
                (None, Some(_)) | (Some(_), None) => true,
            }
    }
}

/// An end with its slack, in whole seconds.
fn put_off(ends: Timestamp, now: Timestamp) -> Timestamp {
    let slack = Millis((ends.since(now).0 / 2).min(SLACK_MAX.0));
    Timestamp(ends.plus(slack).0.div_ceil(1_000).saturating_mul(1_000))
}

/// Who an alert is. The name counts beside a fingerprint: some senders give all the same one. An empty
/// label is none, as for Alertmanager.
fn identity(alert: &IncomingAlert, name: &str) -> String {
    if let Some(fingerprint) = &alert.fingerprint {
        return Digest::of(&[b"f\0", name.as_bytes(), b"\0", fingerprint.as_bytes()]).short();
    }
    let mut parts: Vec<&[u8]> = vec![b"l\0"];
    for (label, value) in alert.labels.iter().filter(|(_, value)| !value.is_empty()) {
        parts.extend([label.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
    }
    Digest::of(&parts).short()
}

/// Who an alert is of which an earlier build has written the name alone.
fn named_alone(name: &str) -> String {
    Digest::of(&[b"n\0", name.as_bytes()]).short()
}

fn signal(id: &str, alert: &Alert, shown: &Shown) -> Signal {
    let Shown { name, text } = shown;
    Signal {
        name: format!("{SIGNAL}{name}"),
        value: text.clone(),
        expected: alert.ends.map_or_else(
            || EXPECTED.to_owned(),
            |ends| format!("{EXPECTED_AFTER}{}", format_rfc3339(ends)),
        ),
        // Earlier builds take the name for the identity, and what stands last for the severity.
        detector: format!("{ALERT_SOURCE}/{id}/{}", alert.severity),
        p_value: Ppm::ZERO,
    }
}

fn summary(shown: &[(&String, &Alert, &Shown)], more: Option<&str>) -> String {
    let mut names: Vec<(&str, usize)> = Vec::new();
    for (_, _, Shown { name, .. }) in shown {
        match names.iter_mut().find(|(known, _)| known == name) {
            Some((_, times)) => *times += 1,
            None => names.push((name, 1)),
        }
    }
    let names: Vec<String> = (names.into_iter())
        .map(|(name, times)| if times == 1 { name.to_owned() } else { format!("{name} ({times})") })
        .collect();
    let names = names.join(", ");
    match (shown, more) {
        ([(_, _, only)], None) if only.text == FIRING => format!("alert {names} fires"),
        ([(_, _, only)], None) => format!("alert {names} fires: {}", only.text),
        (_, None) => format!("alerts {names} fire"),
        ([], Some(more)) => format!("alerts fire: {more} of which no more is kept"),
        (_, Some(more)) => format!("alerts {names} and {more} more fire"),
    }
}

/// Alerts without signals, as texts of bounded length.
fn lists(rest: &BTreeMap<String, Alert>) -> Vec<String> {
    let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (id, Alert { severity, ends, .. }) in rest {
        let head = ends.map_or_else(
            || severity.to_string(),
            |ends| format!("{severity}@{}", ends.0.div_ceil(1_000)),
        );
        alike.entry(head).or_default().push(id);
    }
    let parts = alike.iter().flat_map(|(head, ids)| {
        ids.chunks(PART_ALERTS_MAX).map(move |ids| format!("{head}:{}", ids.join(",")))
    });
    let mut lists: Vec<String> = Vec::new();
    for part in parts {
        match lists.last_mut().filter(|list| list.len() + 1 + part.len() <= LIST_BYTES_MAX) {
            Some(list) => list.extend([" ", part.as_str()]),
            None => lists.push(part),
        }
    }
    lists
}

fn severity_of(alert: &IncomingAlert) -> Severity {
    match alert.labels.get("severity").map(String::as_str) {
        Some("critical" | "page" | "error" | "emergency") => Severity::Critical,
        Some("info" | "none" | "notice") => Severity::Info,
        _ => Severity::Warning,
    }
}

/// The severity as it was written.
fn severity_called(text: &str) -> Severity {
    [Severity::Critical, Severity::Info]
        .into_iter()
        .find(|severity| severity.to_string() == text)
        .unwrap_or(Severity::Warning)
}

/// A name that the law keeps whole, so that the same alert is known again when it is resolved.
pub(super) fn short_name(name: &str) -> String {
    head(name, NAME_BYTES_MAX).to_owned()
}

fn name_of(alert: &IncomingAlert) -> String {
    alert.labels.get(NAME).map_or_else(|| "unnamed".to_owned(), |name| short_name(name))
}
