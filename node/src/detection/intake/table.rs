//! All pushed series of one tenant on one node: found by their labels, bounded in number.
//!
//! ```text
//!   labels ─► key ─► hash ─┬─► held: which instance, which series      (at most the tenant's quota)
//!                          └─► dropped: why nobody watches it          (a hash each, forgotten when many)
//! ```
//!
//! Invariant: memory is bounded whatever is sent: a series costs at most its labels and some 150
//! bytes, and there are at most so many; those that nobody watches cost 9 bytes.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    sync::Arc,
};

use medic_state::ShardId;

use super::{
    mapper::{Allowed, Mapper, NotWatched},
    sample::SeriesView,
    tally::{Held, IDLE_MS, Moment, Offered, Tally},
};
use crate::detection::indicator::Values;

/// Series that nobody watches, remembered so that they cost one look-up each.
const DROPPED_MAX: usize = 200_000;
/// Between two looks for series that have ended, when there is no room.
const SWEEP_EVERY_MS: u64 = 10_000;

/// Where a series was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    tally: u32,
    series: u32,
    /// Its shard.
    pub shard: ShardId,
}

/// Why a series was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// See [`NotWatched`].
    NotWatched(NotWatched),
    /// The tenant has its number of series.
    Full,
}

/// Keys are hashes already, keyed by chance: no sender can choose them.
#[derive(Clone, Copy, Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Where it is noted that nobody watches a series from such a sender.
const fn dropped(hash: u64, allowed: Allowed) -> u64 {
    hash ^ allowed.0.rotate_left(32)
}

type ByHash<T> = HashMap<u64, T, BuildHasherDefault<Hashed>>;

/// The pushed series of one tenant.
#[derive(Debug, Default)]
pub struct Table {
    mapper: Arc<Mapper>,
    chance: RandomState,
    held: ByHash<(u32, u32)>,
    dropped: ByHash<NotWatched>,
    tallies: Vec<(ShardId, Tally)>,
    by_instance: HashMap<(String, String), u32>,
    swept_ms: u64,
    key: Vec<u8>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(mapper: Arc<Mapper>) -> Self {
        Self { mapper, ..Self::default() }
    }

    /// What it goes by.
    #[must_use]
    pub const fn mapper(&self) -> &Arc<Mapper> {
        &self.mapper
    }

    /// Series held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Goes by other manifests from now on: counters start anew.
    pub fn remap(&mut self, mapper: Arc<Mapper>) {
        *self = Self { mapper, chance: self.chance.clone(), ..Self::default() };
    }

    /// What is known of a series by the bytes of its labels alone, where they are a key; `None`: read them, and
    /// [`Self::find`] it.
    #[must_use]
    pub fn known(&self, allowed: Allowed, labels: &[u8]) -> Option<Result<Spot, Refused>> {
        let hash = self.chance.hash_one(labels);
        let Some(&(tally, series)) = self.held.get(&hash) else {
            let dropped = self.dropped.get(&dropped(hash, allowed))?;
            return Some(Err(Refused::NotWatched(*dropped)));
        };
        let (shard, held) = self.at(tally, series);
        held?.is(labels, allowed).then_some(Ok(Spot { tally, series, shard }))
    }

    /// Finds or makes room for a (checked) series.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn find(
        &mut self,
        allowed: Allowed,
        view: &SeriesView<'_>,
        series_max: usize,
        now: Moment,
    ) -> Result<Spot, Refused> {
        let mut key = std::mem::take(&mut self.key);
        view.key(&mut key);
        let found = self.find_key(allowed, view, &key, series_max, now);
        self.key = key;
        found
    }

    fn find_key(
        &mut self,
        allowed: Allowed,
        view: &SeriesView<'_>,
        key: &[u8],
        series_max: usize,
        now: Moment,
    ) -> Result<Spot, Refused> {
        let hash = self.chance.hash_one(key);
        if let Some(&(tally, series)) = self.held.get(&hash) {
            let (shard, held) = self.at(tally, series);
            // Another sender may not speak for a series only because it is known.
            if held.is_some_and(|held| held.is(key, allowed)) {
                return Ok(Spot { tally, series, shard });
            }
            return match self.mapper.place(allowed, view) {
                Ok(_) if held.is_some_and(|held| *held.key == *key) => {
                    Ok(Spot { tally, series, shard })
                }
                // Two series with one hash: once in the lifetime of a universe; the second is not watched.
                Ok(_) => Err(Refused::NotWatched(NotWatched::Unwanted)),
                Err(why) => Err(Refused::NotWatched(why)),
            };
        }
        let dropped = dropped(hash, allowed);
        if let Some(why) = self.dropped.get(&dropped) {
            return Err(Refused::NotWatched(*why));
        }
        match self.mapper.place(allowed, view) {
            Ok(place) => {
                if self.held.len() >= series_max {
                    self.sweep(now);
                }
                if self.held.len() >= series_max {
                    return Err(Refused::Full);
                }
                let Some((tally, shard)) = self.tally(&place.service, &place.instance, now) else {
                    return Err(Refused::NotWatched(NotWatched::Unmapped));
                };
                let held = Held::new(key, place.source, place.parts, now);
                let (_, of_instance) = &mut self.tallies[tally as usize];
                let series = of_instance.put(held);
                self.held.insert(hash, (tally, series));
                Ok(Spot { tally, series, shard })
            }
            Err(why) => {
                if self.dropped.len() >= DROPPED_MAX {
                    self.dropped.clear();
                }
                self.dropped.insert(dropped, why);
                Err(Refused::NotWatched(why))
            }
        }
    }

    fn at(&self, tally: u32, series: u32) -> (ShardId, Option<&Held>) {
        match self.tallies.get(tally as usize) {
            Some((shard, tally)) => {
                (*shard, tally.series.get(series as usize).and_then(Option::as_ref))
            }
            None => (ShardId(0), None),
        }
    }

    fn tally(&mut self, service: &str, instance: &str, now: Moment) -> Option<(u32, ShardId)> {
        let rule = self.mapper.service(service)?;
        let (shard, indicators) = (rule.shard, rule.indicators.clone());
        let next = u32::try_from(self.tallies.len()).ok()?;
        let whose = (service.to_owned(), instance.to_owned());
        let at = *self.by_instance.entry(whose).or_insert(next);
        if at == next {
            self.tallies.push((shard, Tally::new(indicators, now)));
        }
        Some((at, shard))
    }

    /// Offers the samples of a view to what [`Self::find`] found just now; `told` hears of each.
    pub fn offer(
        &mut self,
        spot: Spot,
        view: &SeriesView<'_>,
        now: Moment,
        mut told: impl FnMut(Offered),
    ) -> bool {
        let Some((_, tally)) = self.tallies.get_mut(spot.tally as usize) else { return false };
        let at = spot.series as usize;
        let changed = tally
            .series
            .get_mut(at)
            .and_then(Option::as_mut)
            .is_some_and(|h| h.told_kind(view.kind));
        for sample in &view.samples {
            told(tally.offer(at, *sample, now));
        }
        changed
    }

    /// The indicators of an instance, when there is news of them.
    pub fn values(&mut self, service: &str, instance: &str, now_ms: u64) -> Option<Values> {
        // A look-up by borrowed parts would need a key type of its own; this is once a second.
        let at = *self.by_instance.get(&(service.to_owned(), instance.to_owned()))?;
        self.tallies.get_mut(at as usize)?.1.values(now_ms)
    }

    /// Lets go of series that have not been heard of for long.
    pub fn sweep(&mut self, now: Moment) {
        if self.swept_ms != 0 && now.mono_ms.saturating_sub(self.swept_ms) < SWEEP_EVERY_MS {
            return;
        }
        self.swept_ms = now.mono_ms.max(1);
        let tallies = &mut self.tallies;
        self.held.retain(|_, (tally, series)| {
            let Some((_, tally)) = tallies.get_mut(*tally as usize) else { return false };
            let slot = tally.series.get_mut(*series as usize);
            let Some(slot) = slot else { return false };
            let idle = slot
                .as_ref()
                .is_none_or(|held| now.mono_ms.saturating_sub(held.heard_ms) >= IDLE_MS);
            if idle {
                *slot = None;
                tally.free.push(*series);
            }
            !idle
        });
    }
}

#[cfg(test)]
mod tests;
