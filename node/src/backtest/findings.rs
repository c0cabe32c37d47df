//! What the owner of an instance would have raised, had its history come in row by row.
//!
//! Judged by the code that runs live ([`Replay`]), with a law that admits everything at once. A finding is told with
//! its kind, since when it is thought to have been so, when it was raised, and when it was over.
//!
//! Invariant: memory does not grow with the rows, but with what is found, and that has a bound too.

use std::collections::BTreeMap;

use medic_state::{
    Millis, Timestamp,
    symptom::{Severity, Signal, Symptom},
    time::format_rfc3339,
};
use serde::Serialize;

use super::{
    csv::Row,
    watched::{Declared, Watched},
};
use crate::{
    config::DetectionConfig,
    detection::runtime::{Replay, Timings, Told},
};

/// Findings of one entity that are told in full; further ones are counted. Nobody reads more.
const FINDINGS_MAX: usize = 10_000;
/// Of them, those that a summary repeats.
const WORST_MAX: usize = 5;

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// As in symptoms: `errors`, `saturation-predicted`.
    pub kind: String,
    /// The worst it was told as.
    pub severity: Severity,
    /// One sentence for people.
    pub summary: String,
    /// What it is about, where one indicator is.
    pub indicator: Option<String>,
    /// Of all that spoke for it, over all that was looked at; 0 where a fact did.
    pub p_value: f64,
    /// When the fault is thought to have begun; absent where rows have no times.
    pub since: Option<String>,
    /// When it was raised.
    pub raised: Option<String>,
    /// When it was over; absent too where it was open at the end.
    pub until: Option<String>,
    /// The row with which it was raised, from 0: the newest at that time.
    pub row: u64,
    /// The row with which it was over.
    pub row_until: Option<u64>,
    /// How many rows it lasted.
    pub rows: u64,
    /// Of a prediction: seconds until what is foreseen.
    pub time_to_event_s: Option<f64>,
    /// What it rests on.
    pub signals: Vec<Observed>,
}

/// One observation that a finding rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observed {
    /// Of what: `metric.memory`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What was expected.
    pub expected: String,
    /// Who noticed.
    pub detector: String,
    /// Probability of such a value when all is well; 0 for facts.
    pub p_value: f64,
}

/// All that was found about one entity.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    /// How many, by kind.
    pub(super) by_kind: BTreeMap<String, u64>,
    /// The indicator of each metric.
    pub(super) indicators: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Watches one entity through its history.
pub(super) struct Owner {
    watched: Watched,
    timings: (Timings, medic_state::Ppm),
    /// Since its first row.
    replay: Option<Replay>,
    /// Between rows without times.
    step: Millis,
    stamped: bool,
    unstamped_rows: i64,
    left_out: u64,
    book: Book,
}

/// What was told of it.
#[derive(Debug, Default)]
struct Book {
    found: Found,
    /// Its place in the list, where it is there, by kind.
    open: BTreeMap<String, Option<usize>>,
    stamped: bool,
    /// Rows judged so far.
    rows: u64,
}

impl Owner {
    /// `step`: what lies between two rows without times.
    pub(super) fn new(
        entity: &str,
        metrics: &[String],
        declared: Option<&Declared>,
        step: Millis,
        rates: impl Fn(usize) -> bool,
    ) -> Self {
        let config = DetectionConfig::default();
        Self {
            watched: Watched::new(entity, metrics, declared, rates),
            timings: (Timings::from(&config), config.false_discovery_rate),
            replay: None,
            step,
            stamped: true,
            unstamped_rows: 0,
            left_out: 0,
            book: Book { stamped: true, ..Book::default() },
        }
    }

    /// Learns from a row; what is found in it is not told.
    pub(super) fn warm_up(&mut self, row: &Row) {
        let (at_ms, values) = self.read(row);
        self.replay(at_ms).row(at_ms, values, &mut |_, _| {});
    }

    /// From here on it is told.
    pub(super) fn warmed_up(&mut self) {
        if let Some(replay) = &mut self.replay {
            replay.begin_anew();
        }
    }

    /// Takes a row in.
    pub(super) fn row(&mut self, row: &Row) {
        let (at_ms, values) = self.read(row);
        let mut book = std::mem::take(&mut self.book);
        book.stamped = self.stamped;
        let taken = self.replay(at_ms).row(at_ms, values, &mut |at, told| {
            book.note(at, i64::try_from(at.0).is_ok_and(|at| at < at_ms), told);
        });
        book.rows += 1;
        self.book = book;
        self.left_out += u64::from(!taken);
    }

    /// Another owner goes on from here, as when a shard moves.
    pub(super) fn moves(&mut self) -> Result<(), String> {
        let timings = self.timings;
        let moved = self.replay.take().map(|replay| replay.moved(&self.watched.spec, timings));
        self.replay = moved.transpose().map_err(|error| format!("its checkpoint: {error}"))?;
        Ok(())
    }

    fn read(&mut self, row: &Row) -> (i64, BTreeMap<String, f64>) {
        let at_ms = row.at_ms.unwrap_or_else(|| {
            self.stamped = false;
            let step = i64::try_from(self.step.0).unwrap_or(i64::MAX);
            self.unstamped_rows += 1;
            self.unstamped_rows.saturating_mul(step)
        });
        let there = self.watched.names.iter().zip(&row.values).filter(|(_, value)| !value.is_nan());
        (at_ms, there.map(|(name, value)| (name.clone(), *value)).collect())
    }

    fn replay(&mut self, first_ms: i64) -> &mut Replay {
        let Watched { target, spec, .. } = &self.watched;
        let timings = self.timings;
        self.replay.get_or_insert_with(|| Replay::new(target.clone(), spec, timings, first_ms))
    }

    /// What was found.
    pub(super) fn ended(self) -> Found {
        let mut found = self.book.found;
        for place in self.book.open.into_values().flatten() {
            if let Some(one) = found.findings.get_mut(place) {
                one.rows = self.book.rows.saturating_sub(one.row);
            }
        }
        let mut notes = self.watched.notes;
        if !self.stamped {
            notes.push(format!(
                "rows have no times: they are taken as {} apart (--step)",
                self.step
            ));
        }
        if self.left_out > 0 {
            let left_out = plural(self.left_out, "row");
            notes.push(format!("{left_out} no later than the one before: left out"));
        }
        let apart = self.replay.as_ref().map_or(0, Replay::apart_count);
        if apart > 0 {
            let apart = plural(apart as u64, "metric");
            notes.push(format!(
                "{apart} more than are looked at together: watched each by itself alone"
            ));
        }
        let all: u64 = found.by_kind.values().sum();
        if all > found.findings.len() as u64 {
            notes.push(format!("of {all} findings the first {FINDINGS_MAX} are listed"));
        }
        (found.indicators, found.notes) = (self.watched.names, notes);
        found
    }
}

impl Found {
    /// The worst first: by severity, then by how long they lasted.
    pub(super) fn worst(&self) -> Vec<Finding> {
        let mut all: Vec<&Finding> = self.findings.iter().collect();
        all.sort_by_key(|one| one.rank());
        all.into_iter().take(WORST_MAX).cloned().collect()
    }
}

impl Finding {
    /// Less is worse.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        std::cmp::Reverse((self.severity, self.rows))
    }

    /// Of what kind, how bad, from when to when, and what.
    pub(crate) fn says(&self) -> String {
        let begun = self.raised.clone().unwrap_or_else(|| format!("row {}", self.row));
        let row = self.row_until.map(|row| format!("row {row}"));
        let ended = self.until.clone().or(row).unwrap_or_else(|| "the end".to_owned());
        format!("{} ({}), {begun} to {ended}: {}", self.kind, self.severity, self.summary)
    }

    /// One that says nothing, for tests to say something with.
    #[cfg(test)]
    pub(super) const fn of_nothing() -> Self {
        Self {
            kind: String::new(),
            severity: Severity::Info,
            summary: String::new(),
            indicator: None,
            p_value: 0.0,
            since: None,
            raised: None,
            until: None,
            row: 0,
            row_until: None,
            rows: 0,
            time_to_event_s: None,
            signals: Vec::new(),
        }
    }

    fn of(symptom: Symptom, at: Timestamp, row: u64, stamped: bool) -> Self {
        let time = |at: Timestamp| stamped.then(|| format_rfc3339(at));
        Self {
            since: time(symptom.since),
            raised: time(at),
            until: None,
            row,
            row_until: None,
            rows: 0,
            time_to_event_s: symptom.time_to_event.map(|span| span.as_duration().as_secs_f64()),
            indicator: symptom.labels.get("indicator").cloned(),
            kind: symptom.kind,
            severity: symptom.severity,
            summary: symptom.summary,
            p_value: share(symptom.p_value),
            signals: symptom.signals.into_iter().map(Observed::of).collect(),
        }
    }
}

impl Observed {
    fn of(signal: Signal) -> Self {
        let Signal { name, value, expected, detector, p_value } = signal;
        Self { name, value, expected, detector, p_value: share(p_value) }
    }
}

impl Book {
    /// `before`: it was told before the row that comes now.
    fn note(&mut self, at: Timestamp, before: bool, told: Told) {
        let row = self.rows.saturating_sub(u64::from(before));
        match told {
            Told::Report(symptom) => self.report(*symptom, at, row),
            Told::Clear(kind) => {
                let known = self.open.remove(kind).flatten();
                if let Some(one) = known.and_then(|place| self.found.findings.get_mut(place)) {
                    one.until = self.stamped.then(|| format_rfc3339(at));
                    one.row_until = Some(row);
                    one.rows = row.saturating_sub(one.row);
                }
            }
        }
    }

    fn report(&mut self, symptom: Symptom, at: Timestamp, row: u64) {
        let findings = &mut self.found.findings;
        if let Some(known) = self.open.get(&symptom.kind) {
            let known = known.and_then(|place| findings.get_mut(place));
            // What it grew to says more than how it began.
            if let Some(one) = known.filter(|one| symptom.severity > one.severity) {
                let now = Finding::of(symptom, at, row, self.stamped);
                let (severity, summary, signals) = (now.severity, now.summary, now.signals);
                (one.severity, one.summary, one.signals) = (severity, summary, signals);
                one.p_value = one.p_value.min(now.p_value);
            }
            return;
        }
        *self.found.by_kind.entry(symptom.kind.clone()).or_default() += 1;
        let place = (findings.len() < FINDINGS_MAX).then_some(findings.len());
        self.open.insert(symptom.kind.clone(), place);
        if place.is_some() {
            findings.push(Finding::of(symptom, at, row, self.stamped));
        }
    }
}

fn plural(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn share(p_value: medic_state::Ppm) -> f64 {
    f64::from(p_value.0) / 1e6
}

#[cfg(test)]
mod tests;
