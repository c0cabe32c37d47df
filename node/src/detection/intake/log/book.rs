//! The logs of all instances of one node: bounded, and as samples.

use std::collections::BTreeMap;

use medic_state::symptom::Target;

use super::{
    drain::{Drain, Level, NEWS_MS},
    handed::HandedLog,
    records::Line,
};
use crate::detection::exposition::Sample;

/// Instances whose logs are held: with the bounds on each some 70 MiB when all are at theirs.
pub const INSTANCES_MAX: usize = 2_000;
/// A log not heard of for this long makes room for another.
const IDLE_MS: u64 = 3_600_000;
/// Characters of a template in the words of a symptom.
const NEWS_CHARS_MAX: usize = 160;

/// The logs of the instances that this node watches.
#[derive(Debug, Default)]
pub struct Book(BTreeMap<Target, (Drain, u64)>);

impl Book {
    /// Takes lines of an instance's log. Gives whether there was room for it.
    pub fn take(&mut self, target: &Target, lines: &[Line], now_ms: u64) -> bool {
        let Some((drain, heard_ms)) = self.open(target, now_ms) else { return false };
        *heard_ms = now_ms;
        for line in lines {
            drain.take(line.level, &line.text, now_ms);
        }
        true
    }

    /// What was learnt of an instance's log, to be shipped.
    #[must_use]
    pub fn handed(&self, target: &Target, now_ms: u64) -> Option<HandedLog> {
        self.0.get(target).map(|(drain, _)| drain.handed(now_ms))
    }

    /// Goes on from what was learnt of an instance's log elsewhere, where there is room for it.
    pub fn go_on_from(&mut self, target: &Target, handed: &HandedLog, now_ms: u64) {
        if let Some((drain, _)) = self.open(target, now_ms) {
            drain.go_on_from(handed, now_ms);
        }
    }

    fn open(&mut self, target: &Target, now_ms: u64) -> Option<&mut (Drain, u64)> {
        if !self.0.contains_key(target) {
            if self.0.len() >= INSTANCES_MAX {
                self.0.retain(|_, (_, heard_ms)| now_ms.saturating_sub(*heard_ms) < IDLE_MS);
            }
            if self.0.len() >= INSTANCES_MAX && !self.make_room(&target.tenant) {
                return None;
            }
            self.0.insert(target.clone(), (Drain::new(now_ms), now_ms));
        }
        self.0.get_mut(target)
    }

    /// Of the tenant that holds most, the instance that is silent for longest makes room, unless the tenant that wants it
    /// holds as many.
    fn make_room(&mut self, wanted_by: &str) -> bool {
        let mut held: BTreeMap<&str, usize> = BTreeMap::new();
        for target in self.0.keys() {
            *held.entry(&target.tenant).or_default() += 1;
        }
        let own = held.get(wanted_by).copied().unwrap_or(0);
        let most = held.into_iter().max_by_key(|(_, count)| *count);
        let Some((tenant, _)) = most.filter(|(_, count)| *count > own + 1) else { return false };
        let of_it = self.0.iter().filter(|(target, _)| target.tenant == tenant);
        let silent = of_it.min_by_key(|(_, (_, heard_ms))| *heard_ms);
        let Some(silent) = silent.map(|(target, _)| target.clone()) else { return false };
        self.0.remove(&silent);
        true
    }

    /// An instance's log as samples: lines by level and by template, and templates never seen before.
    #[must_use]
    pub fn samples(&self, target: &Target) -> Vec<Sample> {
        let Some((drain, _)) = self.0.get(target) else { return Vec::new() };
        let sample = |name: &str, labels: &[(&str, &str)], value: u64| Sample {
            name: name.to_owned(),
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            value: value as f64,
        };
        let mut samples = Vec::new();
        for level in Level::ALL {
            let labels = [("level", level.label())];
            samples.push(sample("medic_log_lines_total", &labels, drain.lines(level)));
        }
        for (level, error) in [("error", true), ("other", false)] {
            let labels = [("level", level)];
            samples.push(sample("medic_log_new_templates_total", &labels, drain.news(error)));
        }
        // Two may have come to have the same text.
        let mut by_text: BTreeMap<(bool, &str), u64> = BTreeMap::new();
        for template in drain.templates() {
            *by_text.entry((template.error, &*template.text)).or_default() +=
                template.lines_of_text();
        }
        for ((error, text), lines) in by_text {
            let labels = [("level", if error { "error" } else { "other" }), ("template", text)];
            samples.push(sample("medic_log_template_lines_total", &labels, lines));
        }
        samples
    }

    /// The error that is new in an instance's log, in words: what a symptom should say of it.
    #[must_use]
    pub fn news(&self, target: &Target, now_ms: u64) -> Option<String> {
        let (drain, _) = self.0.get(target)?;
        let fresh = |first_ms: u64| now_ms.saturating_sub(first_ms) < NEWS_MS;
        let news = drain.templates().filter(|t| t.news && t.error && fresh(t.first_ms));
        let most = news.max_by_key(|template| template.lines)?;
        let text: String = most.text.chars().take(NEWS_CHARS_MAX).collect();
        let ago = now_ms.saturating_sub(most.first_ms) / 1_000;
        let lines = if most.lines == 1 { "line" } else { "lines" };
        Some(format!("`{text}` ({} {lines}, first seen {ago} s ago)", most.lines))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{super::drain::LEARNING_MS, *};
    use crate::topology::target;

    fn line(level: Level, text: &str) -> Line {
        Line { level, text: text.to_owned(), at_ms: 0 }
    }

    #[test]
    fn a_log_is_told_as_samples_and_its_new_errors_in_words() {
        let (mut book, web) = (Book::default(), target("default", "web", "web-1"));
        let known = [line(Level::Info, "served in 5 ms"), line(Level::Error, "upstream is slow")];
        assert!(book.take(&web, &known, 0));
        let new = [line(Level::Error, "pool is empty"), line(Level::Error, "pool is empty")];
        assert!(book.take(&web, &new, LEARNING_MS));
        let value = |name: &str, label: &str| {
            let samples = book.samples(&web);
            let fits = |s: &&Sample| s.name == name && s.labels.values().any(|v| v == label);
            samples.iter().find(fits).map(|sample| sample.value)
        };
        assert_eq!(value("medic_log_lines_total", "error"), Some(3.0));
        assert_eq!(value("medic_log_new_templates_total", "error"), Some(1.0));
        assert_eq!(value("medic_log_template_lines_total", "served in <*> ms"), Some(1.0));
        let told = book.news(&web, LEARNING_MS + 7_000).unwrap();
        assert_eq!(told, "`pool is empty` (2 lines, first seen 7 s ago)");
        assert_eq!(book.news(&web, LEARNING_MS + NEWS_MS), None, "it is news no longer");
        let other = target("default", "web", "web-2");
        assert!(book.samples(&other).is_empty() && book.news(&other, 0).is_none());
    }

    #[test]
    fn a_template_that_becomes_more_general_is_a_series_that_begins_then() {
        let (mut book, web) = (Book::default(), target("default", "web", "web-1"));
        let failed =
            |user: &str| line(Level::Info, &format!("Failed password for user {user} now"));
        let value = |book: &Book, text: &str| {
            let samples = book.samples(&web);
            let fits = |s: &&Sample| s.labels.get("template").is_some_and(|label| label == text);
            samples.iter().find(fits).map(|sample| sample.value)
        };
        assert!(book.take(&web, &vec![failed("ann"); 5_000], 0));
        assert_eq!(value(&book, "Failed password for user ann now"), Some(5_000.0));
        assert!(book.take(&web, &[failed("bob"), failed("ann")], 1));
        assert_eq!(value(&book, "Failed password for user ann now"), None);
        let general = "Failed password for user <*> now";
        assert_eq!(value(&book, general), Some(2.0), "not five thousand lines at once");
        assert!(book.take(&web, &[failed("carol")], 2));
        assert_eq!(value(&book, general), Some(3.0));
    }

    #[test]
    fn instances_are_bounded_and_silent_ones_make_room() {
        let mut book = Book::default();
        for n in 0..INSTANCES_MAX {
            assert!(book.take(&target("default", "web", &n.to_string()), &[], 0));
        }
        let more = target("default", "web", "one more");
        assert!(!book.take(&more, &[], IDLE_MS - 1));
        assert!(book.take(&more, &[], IDLE_MS));
    }

    #[test]
    fn a_tenant_that_holds_all_makes_room_for_another() {
        let mut book = Book::default();
        for n in 0..INSTANCES_MAX {
            let at = u64::from(n != 7);
            assert!(book.take(&target("big", "web", &n.to_string()), &[], at));
        }
        assert!(!book.take(&target("big", "web", "one more"), &[], 2), "its own have no more room");
        let other = target("small", "web", "web-1");
        assert!(book.take(&other, &[line(Level::Info, "served")], 2));
        assert!(!book.samples(&other).is_empty());
        assert!(book.samples(&target("big", "web", "7")).is_empty(), "silent for longest");
        assert_eq!(book.0.len(), INSTANCES_MAX);
    }
}
