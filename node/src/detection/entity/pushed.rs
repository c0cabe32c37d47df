//! Indicators that pushes feed, and those that what stands beside the instance feeds, besides those of
//! a scrape.
//!
//! Where a scrape gives an indicator, pushes do not, and where either does, what stands beside does not:
//! two sources of one series would teach the detectors twice. An indicator whose source has stopped has
//! no data, never an old value. What stands beside a scraped instance goes with its scrapes, as one row.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entity, Now};
use crate::detection::{
    counted::{Measured, NOTHING_COUNTED},
    indicator::{Values, idle},
};

/// A pushed value is good for so many of its sender's intervals,
const ROUNDS_GOOD: u64 = 4;
/// and at least for so long: four rounds at the 15 s that most are set to,
const GOOD_FOR_MIN_MS: u64 = 60_000;
/// and at most: three rounds of a source that is asked every five minutes.
const GOOD_FOR_MAX_MS: u64 = 900_000;
/// The first one is good for as long as a series lives for Prometheus: nobody knows yet how often it comes.
const FIRST_GOOD_FOR_MS: u64 = 300_000;

/// When something was heard of last, and how often it is.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at_ms: u64,
    /// Time between two of it: at once when it grows, slowly when it shrinks, since the series of one round
    /// may come in several pushes.
    every_ms: Option<u64>,
}

impl Heard {
    const fn first(at_ms: u64) -> Self {
        Self { at_ms, every_ms: None }
    }

    fn again(&mut self, at_ms: u64) {
        let gap = at_ms.saturating_sub(self.at_ms);
        let known = self.every_ms.unwrap_or_default();
        (self.at_ms, self.every_ms) = (at_ms, Some(gap.max(known / 4 * 3)));
    }

    fn good_for_ms(&self) -> u64 {
        self.every_ms.map_or(FIRST_GOOD_FOR_MS, |every| {
            every.saturating_mul(ROUNDS_GOOD).clamp(GOOD_FOR_MIN_MS, GOOD_FOR_MAX_MS)
        })
    }

    fn silent(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.at_ms) >= self.good_for_ms()
    }
}

fn heard(all: &mut BTreeMap<String, Heard>, name: &str, now_ms: u64) {
    match all.get_mut(name) {
        Some(known) => known.again(now_ms),
        None => {
            all.insert(name.to_owned(), Heard::first(now_ms));
        }
    }
}

/// What fed which indicator.
#[derive(Debug, Default)]
pub(super) struct Fed {
    scraped: BTreeSet<String>,
    pushed: BTreeMap<String, Heard>,
    /// When pushes last said that there was nothing to measure.
    idle: BTreeMap<String, Heard>,
    /// Scrapes come: what stands beside waits for the next one.
    by_scrapes: bool,
    beside: BTreeMap<String, f64>,
}

impl Fed {
    /// Of an instance that is scraped, or is not.
    pub(super) fn new(by_scrapes: bool) -> Self {
        Self { by_scrapes, ..Self::default() }
    }

    /// What stood beside it at the last look, where nothing else feeds the same.
    pub(super) fn take_beside(&mut self, now_ms: u64) -> BTreeMap<String, f64> {
        let mut beside = std::mem::take(&mut self.beside);
        beside.retain(|name, _| !self.scraped.contains(name) && !self.by_pushes(name, now_ms));
        beside
    }

    /// A scrape came back. A failed one says nothing of what others push.
    pub(super) fn scraped(&mut self, values: Option<&Values>) {
        if let Some(values) = values {
            self.scraped = values.values.keys().cloned().collect();
        }
    }

    /// Whether pushes have fed it of late.
    pub(super) fn by_pushes(&self, name: &str, now_ms: u64) -> bool {
        self.pushed.get(name).is_some_and(|pushed| !pushed.silent(now_ms))
    }
}

impl Entity {
    /// What stands beside it gave these values; `None`: nothing stands there now.
    pub fn on_beside(&mut self, values: Option<Values>, now: Now) {
        let values = values.map(|values| values.values).unwrap_or_default();
        if self.fed.by_scrapes {
            self.fed.beside = values;
            return;
        }
        self.beside_alone(values, now);
        self.heed_indicators(now);
    }

    /// The same, of an instance that is not scraped.
    fn beside_alone(&mut self, values: BTreeMap<String, f64>, now: Now) {
        // Kept as well, to know who falls silent.
        let before = std::mem::replace(&mut self.fed.beside, values.clone());
        let by_pushes: Vec<String> =
            values.keys().filter(|name| self.fed.by_pushes(name, now.mono_ms)).cloned().collect();
        let fresh = values.iter().filter(|(name, _)| !by_pushes.contains(name));
        let fresh: Vec<(&str, Measured)> =
            fresh.map(|(name, value)| (name.as_str(), Measured::exact(*value))).collect();
        if !fresh.is_empty() {
            self.feed(fresh.into_iter(), now);
        }
        for name in before.keys().filter(|name| !values.contains_key(*name)) {
            if !self.fed.by_pushes(name, now.mono_ms)
                && let Some(series) = self.series.get_mut(name)
            {
                series.no_value();
            }
        }
    }

    /// Pushes gave these values; `None`: there is no news.
    pub fn on_pushed(&mut self, values: Option<&Values>, now: Now) {
        if let Some(values) = values {
            let fresh: Vec<(&str, Measured)> =
                values.measured().filter(|(name, _)| !self.fed.scraped.contains(*name)).collect();
            for (name, _) in &fresh {
                heard(&mut self.fed.pushed, name, now.mono_ms);
            }
            self.feed(fresh.into_iter(), now);
            self.pushed_none(values, now);
        }
        let (series, why) = (&mut self.series, &mut self.silence);
        let nothing =
            |heard: &Heard| format!("nothing was pushed for {} s", heard.good_for_ms() / 1_000);
        let idle = &mut self.fed.idle;
        self.fed.pushed.retain(|name, heard| {
            let silent = heard.silent(now.mono_ms);
            if silent && let Some(series) = series.get_mut(name) {
                series.no_value();
                let idles = idle.contains_key(name);
                let text = if idles { NOTHING_COUNTED.to_owned() } else { nothing(heard) };
                why.insert(name.clone(), text);
            }
            !silent
        });
        idle.retain(|name, heard| {
            let silent = heard.silent(now.mono_ms);
            if silent && series.get(name).is_some_and(|series| series.last.is_none()) {
                why.insert(name.clone(), nothing(heard));
            }
            !silent
        });
    }

    /// Pushes came, and gave no value to some indicators. One that nothing happens to speaks all the same;
    /// its last value stands for as long as any, since pushes come in parts.
    fn pushed_none(&mut self, values: &Values, now: Now) {
        for name in values.values.keys() {
            if !self.fed.scraped.contains(name) {
                self.silence.remove(name);
            }
        }
        for (name, why) in &values.missing {
            let known = self.series.get(name).filter(|_| !self.fed.scraped.contains(name));
            let Some(series) = known else { continue };
            if idle(why) {
                heard(&mut self.fed.idle, name, now.mono_ms);
            }
            if series.last.is_none() && (idle(why) || !self.fed.by_scrapes) {
                self.silence.insert(name.clone(), why.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use medic_state::{Millis, manifest::ServiceSpec};

    use super::*;

    fn entity(scraped: bool) -> Entity {
        let mut spec = serde_json::json!({
            "instances": [{"name": "web-1"}],
            "indicators": [{"name": "load", "source": {"gauge": "node_load1"}},
                {"name": "memory", "source": {"gauge": "mem"}}],
        });
        if scraped {
            spec["scrape"] = serde_json::json!({"url": "http://x/"});
        }
        let service: ServiceSpec = serde_json::from_value(spec).unwrap();
        let target = crate::topology::target("default", "web", "web-1");
        let lead = Millis::from_secs(600);
        Entity::new(target, "t".to_owned(), &service, &service.instances[0], lead, at(0))
    }

    fn at(second: u64) -> Now {
        Now { mono_ms: second * 1_000, ..Now::default() }
    }

    fn values(all: &[(&str, f64)]) -> Values {
        let values = all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Values { values, ..Values::default() }
    }

    fn value(entity: &Entity, name: &str) -> Option<f64> {
        entity.series[name].last.as_ref().map(|reading| reading.value)
    }

    #[test]
    fn what_stands_beside_goes_with_scrapes_and_yields_to_them() {
        let mut entity = entity(true);
        entity.on_beside(Some(values(&[("load", 2.0), ("memory", 9.0)])), at(1));
        assert_eq!(value(&entity, "load"), None, "it waits for the scrape");
        entity.on_scrape(Ok(&values(&[("memory", 1.0)])), at(2));
        assert_eq!((value(&entity, "load"), value(&entity, "memory")), (Some(2.0), Some(1.0)));
        // A scrape that fails takes nothing from the host.
        entity.on_beside(Some(values(&[("load", 3.0)])), at(3));
        entity.on_scrape(Err("scrape answered HTTP status 503".to_owned()), at(4));
        assert_eq!((value(&entity, "load"), value(&entity, "memory")), (Some(3.0), None));
        // A host that fell silent has no value at the next scrape.
        entity.on_scrape(Ok(&values(&[("memory", 1.0)])), at(5));
        assert_eq!(value(&entity, "load"), None);
    }

    #[test]
    fn what_stands_beside_yields_to_pushes_and_is_missed_when_it_is_gone() {
        let mut entity = entity(false);
        entity.on_pushed(Some(&values(&[("load", 5.0)])), at(1));
        entity.on_beside(Some(values(&[("load", 2.0), ("memory", 9.0)])), at(2));
        assert_eq!((value(&entity, "load"), value(&entity, "memory")), (Some(5.0), Some(9.0)));
        entity.on_beside(None, at(3));
        assert_eq!((value(&entity, "load"), value(&entity, "memory")), (Some(5.0), None));
        // The pushes have stopped.
        entity.on_pushed(Some(&values(&[("load", 5.0)])), at(16));
        entity.on_beside(Some(values(&[("load", 2.0)])), at(90));
        assert_eq!(value(&entity, "load"), Some(2.0));
        entity.on_beside(None, at(91));
        assert_eq!(value(&entity, "load"), None);
    }

    #[test]
    fn a_value_is_good_for_four_of_its_senders_intervals() {
        for (every, good_s) in [(5, 60), (15, 60), (60, 240), (300, 900)] {
            let mut entity = entity(false);
            for round in 0..10 {
                let now = round * every;
                // It comes in two pushes, a second apart, at times.
                for part in 0..=round % 2 {
                    entity.on_pushed(Some(&values(&[("load", 5.0)])), at(now + part));
                }
                entity.on_pushed(None, at(now + every - 1));
                assert_eq!(value(&entity, "load"), Some(5.0), "every {every} s, round {round}");
            }
            let last = 9 * every + 1;
            entity.on_pushed(None, at(last + good_s / 2));
            assert_eq!(value(&entity, "load"), Some(5.0), "every {every} s");
            entity.on_pushed(None, at(last + good_s));
            assert_eq!(value(&entity, "load"), None, "every {every} s");
            let why = &entity.silence["load"];
            assert!(why.starts_with("nothing was pushed for"), "{why}");
        }
    }
}
