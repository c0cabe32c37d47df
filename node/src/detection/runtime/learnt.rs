//! What the detectors of this node have learnt, as others see it.
//!
//! What comes from another node is taken only where it is the later word. Each checkpoint carries the epoch
//! under which its shard was watched, and an instance goes on from it
//! * when its watch begins, unless what waits already is of a later epoch;
//! * while it is watched here, only from an earlier owner (an earlier epoch), who is no earlier than the one it
//!   began from, and within [`LAST_WORD_MS`] of the beginning: later, more is known here than there.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use medic_state::{Epoch, ShardId, State, codec, symptom::Target};
use metrics::counter;

use super::{Shared, Watched, lock};
use crate::detection::{
    entity::{
        Entity, EntityCheckpoint, Misfits, Now,
        carried::{BadCheckpoint, Carried, unpack},
    },
    metrics::Metric,
};

/// Detector state kept for instances that arrive later, or that have just left.
const KEPT_MAX: usize = 10_000;
/// State that is older says little about how things are now, and is not begun with.
const STALE_MS: u64 = 15 * 60 * 1_000;
/// An earlier owner's last word comes within this time of the beginning of a watch, or too late: parcels take
/// milliseconds, and a node that lags behind some seconds to see that a shard is no longer its own.
const LAST_WORD_MS: u64 = 30_000;
/// What one checkpoint adds to a parcel beside its body, in bytes.
const SURROUNDINGS_BYTES: usize = 32;

/// A checkpoint that waits for its shard, under which epoch it was learnt, and when it came.
#[derive(Debug)]
pub(super) struct Waiting {
    checkpoint: EntityCheckpoint,
    epoch: Epoch,
    came_ms: u64,
}

/// What became of a parcel of checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// Checkpoints that are gone on from, or wait for their shard.
    pub taken: u64,
    /// Those that are not the later word.
    pub stale: u64,
    /// Those that this build cannot read.
    pub unreadable: u64,
    /// Why the first of these cannot be read.
    pub why: Option<BadCheckpoint>,
}

/// The state of all detectors of a node: to be handed over, and to be begun with.
#[derive(Clone, Debug)]
pub struct Learnt(pub(super) Arc<Shared>);

impl Learnt {
    fn now(&self) -> Now {
        Now { mono_ms: self.0.mono_ms(), ..Now::default() }
    }

    /// Detector state of a shard's instances, in pieces of at most `bytes_max` (an instance that is
    /// larger by itself is left out). None when nothing of it is watched here.
    #[must_use]
    pub fn checkpoints(&self, shard: ShardId, bytes_max: usize) -> Vec<Vec<u8>> {
        let now = self.now();
        let mut of_shard: Vec<(Epoch, EntityCheckpoint)> = {
            let entities = lock(&self.0.entities);
            let of_shard = entities.values().filter(|watched| watched.shard == shard);
            let of_one = |one: &Watched| (one.epoch, self.0.checkpoint(&lock(&one.entity), now));
            of_shard.map(of_one).collect()
        };
        self.0.put_stream(shard, &mut of_shard);
        pieces(of_shard, bytes_max)
    }

    /// Shards of which instances are watched here.
    pub(crate) fn shards(&self) -> BTreeSet<ShardId> {
        lock(&self.0.entities).values().map(|watched| watched.shard).collect()
    }

    /// Waits until instances have gone to another node.
    pub(crate) async fn lost(&self) {
        self.0.left.notified().await;
    }

    /// Detector state of instances that are watched here no longer, by shard.
    pub(crate) fn take_lost(&self, bytes_max: usize) -> BTreeMap<ShardId, Vec<Vec<u8>>> {
        let mut by_shard: BTreeMap<ShardId, Vec<(Epoch, EntityCheckpoint)>> = BTreeMap::new();
        for (_, (shard, epoch, checkpoint)) in std::mem::take(&mut *lock(&self.0.leaving)) {
            by_shard.entry(shard).or_default().push((epoch, checkpoint));
        }
        let whole = by_shard.into_iter().map(|(shard, mut all)| {
            self.0.put_stream(shard, &mut all);
            (shard, pieces(all, bytes_max))
        });
        whole.collect()
    }

    /// Takes detector state from another node: instances watched here go on from it now, others
    /// when their shard arrives. What is not the later word, or in another form, is left out, and told.
    ///
    /// # Errors
    /// When the bytes are no parcel of checkpoints; nothing is changed then.
    pub fn restore(&self, bytes: &[u8]) -> Result<Took, BadCheckpoint> {
        let now_ms = self.0.mono_ms();
        lock(&self.0.restored)
            .retain(|_, waiting| now_ms.saturating_sub(waiting.came_ms) < STALE_MS);
        let mut took = Took::default();
        for carried in unpack(bytes)? {
            match carried.open().map(|checkpoint| self.take(carried.epoch, checkpoint)) {
                Ok(true) => took.taken += 1,
                Ok(false) => took.stale += 1,
                Err(why) => {
                    took.unreadable += 1;
                    took.why.get_or_insert(why);
                }
            }
        }
        refused("stale", took.stale);
        refused("unreadable", took.unreadable);
        Ok(took)
    }

    /// Takes one in; tells whether it is the later word.
    fn take(&self, epoch: Epoch, mut checkpoint: EntityCheckpoint) -> bool {
        let (now, target) = (self.now(), checkpoint.target.clone());
        let stream = checkpoint.stream.take();
        let mut entities = lock(&self.0.entities);
        match entities.get_mut(&target) {
            Some(watched) if epoch <= watched.epoch => {
                if !watched.heeds(epoch, now.mono_ms) {
                    return false;
                }
                watched.from = Some(epoch);
                self.0.go_on(&mut lock(&watched.entity), checkpoint, now);
            }
            // Under a later epoch than is known here yet: it waits for that.
            Some(_) | None => {
                if !self.0.wait(epoch, checkpoint, now.mono_ms) {
                    return false;
                }
            }
        }
        drop(entities);
        if let Some(stream) = stream {
            let shard = State::shard_of(&target);
            lock(&self.0.streams).entry(shard).or_default().take_over(stream);
        }
        true
    }
}

impl Watched {
    /// Whether what was learnt under an epoch is a later word than what it began with and has learnt since.
    fn heeds(&self, epoch: Epoch, now_ms: u64) -> bool {
        epoch < self.epoch
            && self.from.is_none_or(|from| from <= epoch)
            && now_ms.saturating_sub(self.began_ms) <= LAST_WORD_MS
    }
}

fn refused(reason: &'static str, count: u64) {
    if count > 0 {
        counter!(Metric::CheckpointsRefused.name(), "reason" => reason).increment(count);
    }
}

/// Counts and tells what of a checkpoint did not fit.
fn note_misfits(target: &Target, misfits: Misfits) {
    refused("series", misfits.series);
    refused("panel", misfits.panel);
    if misfits != Misfits::default() {
        let Misfits { series, panel } = misfits;
        tracing::info!(
            %target, series, panel,
            "what was learnt of these is of other indicators, or by another build: they start cold"
        );
    }
}

impl Shared {
    /// All that is known of an instance, to be shipped.
    pub(super) fn checkpoint(&self, entity: &Entity, now: Now) -> EntityCheckpoint {
        let mut checkpoint = entity.checkpoint(now);
        checkpoint.log = self.senses.log_learnt(&checkpoint.target);
        checkpoint
    }

    /// Goes on from what was learnt elsewhere, which came at a time.
    pub(super) fn go_on(&self, entity: &mut Entity, mut checkpoint: EntityCheckpoint, came: Now) {
        let target = checkpoint.target.clone();
        if let Some(mut log) = checkpoint.log.take() {
            log.age(self.mono_ms().saturating_sub(came.mono_ms));
            self.senses.log_go_on(&target, &log);
        }
        note_misfits(&target, entity.restore(checkpoint, came));
    }

    /// Puts what a shard's tests have spent and earned beside its first instance.
    fn put_stream(&self, shard: ShardId, of_shard: &mut [(Epoch, EntityCheckpoint)]) {
        if let Some((_, first)) = of_shard.first_mut() {
            first.stream = lock(&self.streams).get(&shard).cloned();
        }
    }

    /// Keeps a checkpoint for when its shard arrives, unless a later word waits already; tells whether.
    fn wait(&self, epoch: Epoch, checkpoint: EntityCheckpoint, now_ms: u64) -> bool {
        let mut waiting = lock(&self.restored);
        let room = waiting.len() < KEPT_MAX;
        match waiting.entry(checkpoint.target.clone()) {
            Entry::Occupied(known) if known.get().epoch > epoch => false,
            Entry::Occupied(mut known) => {
                known.insert(Waiting { checkpoint, epoch, came_ms: now_ms });
                true
            }
            Entry::Vacant(vacant) if room => {
                vacant.insert(Waiting { checkpoint, epoch, came_ms: now_ms });
                true
            }
            Entry::Vacant(_) => {
                tracing::warn!(target = %checkpoint.target, "no room for its checkpoint");
                true
            }
        }
    }

    /// Keeps what was learnt about an instance that is watched here no longer, in case that it comes back;
    /// `again`: it will be watched here, in another form, and nobody else is told.
    pub(super) fn keep(
        &self,
        (shard, epoch): (ShardId, Epoch),
        checkpoint: EntityCheckpoint,
        again: bool,
    ) {
        let mut leaving = lock(&self.leaving);
        if !again && leaving.len() < KEPT_MAX {
            leaving.insert(checkpoint.target.clone(), (shard, epoch, checkpoint.clone()));
            self.left.notify_one();
        }
        drop(leaving);
        self.wait(epoch, checkpoint, self.mono_ms());
    }

    /// What is known about an instance that begins to be watched, under which epoch it was learnt, and
    /// when that came.
    pub(super) fn begin_with(&self, target: &Target) -> Option<(Epoch, EntityCheckpoint, Now)> {
        let Waiting { checkpoint, epoch, came_ms } = lock(&self.restored).remove(target)?;
        let fresh = self.mono_ms().saturating_sub(came_ms) < STALE_MS;
        fresh.then_some((epoch, checkpoint, Now { mono_ms: came_ms, ..Now::default() }))
    }
}

/// Encodes checkpoints together, as many as fit.
fn pieces(
    all: impl IntoIterator<Item = (Epoch, EntityCheckpoint)>,
    bytes_max: usize,
) -> Vec<Vec<u8>> {
    let (mut done, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (epoch, checkpoint) in all {
        let carried = Carried::new(epoch, &checkpoint);
        let length = carried.body.len() + SURROUNDINGS_BYTES;
        if length > bytes_max {
            tracing::warn!(target = %checkpoint.target, length, "its detector state is too large to hand over");
            continue;
        }
        if bytes + length > bytes_max {
            done.push(codec::encode(&std::mem::take(&mut piece)));
            bytes = 0;
        }
        bytes += length;
        piece.push(carried);
    }
    if !piece.is_empty() {
        done.push(codec::encode(&piece));
    }
    done
}

#[cfg(test)]
mod tests;
