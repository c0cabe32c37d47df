//! Events of the instances of a tenant, as evidence: bounded, and forgotten when they are old. Pure.

use std::collections::BTreeMap;

use medic_state::{Timestamp, symptom::Target};

use super::wire::Event;
use crate::detection::exposition::Sample;

/// Instances whose events are held.
pub const INSTANCES_MAX: usize = 2_000;
/// Reasons held of one instance; the longest unseen makes room.
const REASONS_MAX: usize = 24;
/// What happened so long ago explains nothing now.
const NEWS_MS: u64 = 600_000;
/// Reasons of `Normal` events that say that something was changed.
const CHANGES: [&str; 8] = [
    "Killing",
    "Scheduled",
    "Pulled",
    "Started",
    "ScalingReplicaSet",
    "SuccessfulCreate",
    "SuccessfulDelete",
    "Preempting",
];

/// One reason of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    count: u64,
    at: Timestamp,
    message: String,
}

/// What happened to instances.
#[derive(Debug, Default)]
pub struct EventBook(BTreeMap<Target, BTreeMap<(bool, String), Seen>>);

/// What a symptom should say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventNews {
    /// The reason of the latest warning, and all about it in words.
    pub warning: Option<(String, String)>,
    /// The latest change, in words.
    pub change: Option<String>,
}

impl EventBook {
    /// Takes an event about an instance. `counts`: it is news, and not merely known from before the watch.
    /// Gives whether there was room.
    pub fn take(&mut self, target: &Target, event: &Event, counts: bool, now: Timestamp) -> bool {
        if !self.0.contains_key(target) && self.0.len() >= INSTANCES_MAX {
            self.0.retain(|_, seen| seen.values().any(|one| fresh(one, now)));
            if self.0.len() >= INSTANCES_MAX {
                return false;
            }
        }
        let reasons = self.0.entry(target.clone()).or_default();
        let key = (event.warning, event.reason.clone());
        if !reasons.contains_key(&key)
            && reasons.len() >= REASONS_MAX
            && let Some(oldest) =
                reasons.iter().min_by_key(|(_, one)| one.at).map(|(key, _)| key.clone())
        {
            reasons.remove(&oldest);
        }
        // A clock that is ahead must not make an event the latest for ever.
        let at = if event.at.0 == 0 { now } else { event.at.min(now) };
        let first = Seen { count: 0, at: Timestamp(0), message: String::new() };
        let seen = reasons.entry(key).or_insert(first);
        seen.count += u64::from(counts);
        if at >= seen.at {
            (seen.at, seen.message) = (at, event.message.clone());
        }
        true
    }

    /// How often what happened, as samples that indicators can select.
    #[must_use]
    pub fn samples(&self, target: &Target) -> Vec<Sample> {
        let Some(reasons) = self.0.get(target) else { return Vec::new() };
        let all = reasons.iter().map(|((warning, reason), seen)| {
            let form = if *warning { "Warning" } else { "Normal" };
            let labels = [("type", form), ("reason", reason.as_str())];
            Sample {
                name: "medic_kube_events_total".to_owned(),
                labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                value: seen.count as f64,
            }
        });
        all.collect()
    }

    /// What is new about an instance.
    #[must_use]
    pub fn news(&self, target: &Target, now: Timestamp) -> EventNews {
        let Some(reasons) = self.0.get(target) else { return EventNews::default() };
        let latest = |wanted: &dyn Fn(bool, &str) -> bool| {
            let fit = reasons
                .iter()
                .filter(|((warning, reason), one)| fresh(one, now) && wanted(*warning, reason));
            fit.max_by_key(|(_, one)| one.at)
        };
        let ago = |one: &Seen| now.since(one.at).0 / 1_000;
        let warning = latest(&|warning, _| warning).map(|((_, reason), one)| {
            let text = format!("{reason} {} s ago: {}", ago(one), one.message);
            (reason.clone(), text)
        });
        let change = latest(&|warning, reason| !warning && CHANGES.contains(&reason));
        let change = change.map(|((_, reason), one)| format!("{reason} {} s ago", ago(one)));
        EventNews { warning, change }
    }
}

fn fresh(seen: &Seen, now: Timestamp) -> bool {
    now.since(seen.at).0 < NEWS_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::target;

    fn event(warning: bool, reason: &str, at: u64) -> Event {
        Event {
            warning,
            reason: reason.to_owned(),
            message: format!("{reason} it is"),
            kind: "Pod".to_owned(),
            namespace: "prod".to_owned(),
            name: "web-1".to_owned(),
            at: Timestamp(at),
        }
    }

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn the_latest_warning_and_change_are_news_and_all_is_counted() {
        let (mut book, web) = (EventBook::default(), target("default", "web", "web-1"));
        // Known from before the watch: context, and nothing to count.
        assert!(book.take(&web, &event(true, "Unhealthy", NOW.0 - 60_000), false, NOW));
        for ago in [30_000, 12_000] {
            assert!(book.take(&web, &event(true, "BackOff", NOW.0 - ago), true, NOW));
        }
        book.take(&web, &event(false, "Killing", NOW.0 - 40_000), true, NOW);
        book.take(&web, &event(false, "SawCompletedJob", NOW.0 - 1_000), true, NOW);
        let news = book.news(&web, NOW);
        let text = "BackOff 12 s ago: BackOff it is".to_owned();
        assert_eq!(news.warning, Some(("BackOff".to_owned(), text)));
        assert_eq!(news.change.as_deref(), Some("Killing 40 s ago"));
        let value = |reason: &str| {
            let samples = book.samples(&web);
            let found = samples.iter().find(|one| one.labels.values().any(|v| v == reason));
            found.map(|one| one.value)
        };
        assert_eq!((value("BackOff"), value("Unhealthy")), (Some(2.0), Some(0.0)));
        let later = NOW.plus(medic_state::Millis(NEWS_MS));
        assert_eq!(book.news(&web, later), EventNews::default(), "it is news no longer");
        assert_eq!(book.news(&target("default", "web", "web-2"), NOW), EventNews::default());
    }

    #[test]
    fn memory_is_bounded_and_clocks_ahead_do_no_harm() {
        let (mut book, web) = (EventBook::default(), target("default", "web", "web-1"));
        for n in 0..100 {
            book.take(&web, &event(true, &format!("R{n}"), NOW.0 + n * 1_000_000), true, NOW);
        }
        assert_eq!(book.samples(&web).len(), REASONS_MAX);
        assert!(book.news(&web, NOW).warning.is_some_and(|(_, text)| text.contains(" 0 s ago")));
        for n in 0..INSTANCES_MAX {
            book.take(&target("default", "web", &n.to_string()), &event(true, "R", 0), true, NOW);
        }
        let more = target("default", "web", "more");
        assert!(!book.take(&more, &event(true, "R", 0), true, NOW));
        let later = NOW.plus(medic_state::Millis(NEWS_MS));
        assert!(book.take(&more, &event(true, "R", 0), true, later));
    }
}
