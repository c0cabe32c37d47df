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

/// A pushed value is good for so long: four rounds of a Prometheus at its usual interval.
const GOOD_FOR_MS: u64 = 60_000;

/// What fed which indicator.
#[derive(Debug, Default)]
pub(super) struct Fed {
    scraped: BTreeSet<String>,
    pushed_ms: BTreeMap<String, u64>,
    /// When pushes last said that there was nothing to measure.
    idle_ms: BTreeMap<String, u64>,
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
        let pushed = self.pushed_ms.get(name);
        pushed.is_some_and(|at| now_ms.saturating_sub(*at) < GOOD_FOR_MS)
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
                match self.fed.pushed_ms.get_mut(*name) {
                    Some(at) => *at = now.mono_ms,
                    None => {
                        self.fed.pushed_ms.insert((*name).to_owned(), now.mono_ms);
                    }
                }
            }
            self.feed(fresh.into_iter(), now);
            self.pushed_none(values, now);
        }
        let silent = |at: u64| now.mono_ms.saturating_sub(at) >= GOOD_FOR_MS;
        let (series, why) = (&mut self.series, &mut self.silence);
        let nothing = || format!("nothing was pushed for {} s", GOOD_FOR_MS / 1_000);
        let idle_ms = &mut self.fed.idle_ms;
        self.fed.pushed_ms.retain(|name, at| {
            if silent(*at)
                && let Some(series) = series.get_mut(name)
            {
                series.no_value();
                let idles = idle_ms.contains_key(name);
                why.insert(
                    name.clone(),
                    if idles { NOTHING_COUNTED.to_owned() } else { nothing() },
                );
            }
            !silent(*at)
        });
        idle_ms.retain(|name, at| {
            if silent(*at) && series.get(name).is_some_and(|series| series.last.is_none()) {
                why.insert(name.clone(), nothing());
            }
            !silent(*at)
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
                self.fed.idle_ms.insert(name.clone(), now.mono_ms);
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
        entity.on_beside(Some(values(&[("load", 2.0)])), at(90));
        assert_eq!(value(&entity, "load"), Some(2.0));
        entity.on_beside(None, at(91));
        assert_eq!(value(&entity, "load"), None);
    }
}
