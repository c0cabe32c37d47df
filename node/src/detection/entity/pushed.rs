//! Indicators that pushes feed, beside those that a scrape feeds.
//!
//! Where a scrape gives an indicator, pushes do not: two sources of one series would teach the
//! detectors twice. An indicator whose pushes have stopped has no data, never an old value.

use std::collections::{BTreeMap, BTreeSet};

use super::{Entity, Now};
use crate::detection::{counted::Measured, indicator::Values};

/// A pushed value is good for so long: four rounds of a Prometheus at its usual interval.
const GOOD_FOR_MS: u64 = 60_000;

/// What fed which indicator.
#[derive(Debug, Default)]
pub(super) struct Fed {
    scraped: BTreeSet<String>,
    pushed_ms: BTreeMap<String, u64>,
}

impl Fed {
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
        }
        let silent = |at: u64| now.mono_ms.saturating_sub(at) >= GOOD_FOR_MS;
        let series = &mut self.series;
        self.fed.pushed_ms.retain(|name, at| {
            if silent(*at)
                && let Some(series) = series.get_mut(name)
            {
                series.no_value();
            }
            !silent(*at)
        });
    }
}
