//! What the detectors of this node have learnt, as others see it.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use medic_state::{ShardId, State, codec, symptom::Target};

use super::{Shared, lock};
use crate::detection::entity::{EntityCheckpoint, Now};

/// Detector state kept for instances that arrive later, or that have just left.
const KEPT_MAX: usize = 10_000;
/// State that is older says little about how things are now, and is not begun with.
const STALE_MS: u64 = 15 * 60 * 1_000;
/// What one checkpoint adds to a parcel beside its series, in bytes.
const SURROUNDINGS_BYTES: usize = 16;

/// A checkpoint that waits for its shard, and when it came.
#[derive(Debug)]
pub(super) struct Waiting {
    checkpoint: EntityCheckpoint,
    came_ms: u64,
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
        let mut of_shard: Vec<EntityCheckpoint> = {
            let entities = lock(&self.0.entities);
            let of_shard = entities.values().filter(|(home, _)| *home == shard);
            of_shard.map(|(_, entity)| lock(entity).checkpoint(now)).collect()
        };
        self.0.put_stream(shard, &mut of_shard);
        pieces(of_shard, bytes_max)
    }

    /// Shards of which instances are watched here.
    pub(crate) fn shards(&self) -> BTreeSet<ShardId> {
        lock(&self.0.entities).values().map(|(home, _)| *home).collect()
    }

    /// Waits until instances have gone to another node.
    pub(crate) async fn lost(&self) {
        self.0.left.notified().await;
    }

    /// Detector state of instances that are watched here no longer, by shard.
    pub(crate) fn take_lost(&self, bytes_max: usize) -> BTreeMap<ShardId, Vec<Vec<u8>>> {
        let mut by_shard: BTreeMap<ShardId, Vec<EntityCheckpoint>> = BTreeMap::new();
        for (_, (shard, checkpoint)) in std::mem::take(&mut *lock(&self.0.leaving)) {
            by_shard.entry(shard).or_default().push(checkpoint);
        }
        let whole = by_shard.into_iter().map(|(shard, mut all)| {
            self.0.put_stream(shard, &mut all);
            (shard, pieces(all, bytes_max))
        });
        whole.collect()
    }

    /// Takes detector state from another node: instances watched here go on from it now, others
    /// when their shard arrives.
    ///
    /// # Errors
    /// When the bytes are no checkpoint; nothing is changed then.
    pub fn restore(&self, bytes: &[u8]) -> Result<(), codec::CodecError> {
        let all: Vec<EntityCheckpoint> = codec::decode(bytes)?;
        let now = self.now();
        let entities = lock(&self.0.entities);
        let mut waiting = lock(&self.0.restored);
        waiting.retain(|_, waiting| now.mono_ms.saturating_sub(waiting.came_ms) < STALE_MS);
        for mut checkpoint in all {
            if let Some(stream) = checkpoint.stream.take() {
                let shard = State::shard_of(&checkpoint.target);
                lock(&self.0.streams).entry(shard).or_default().take_over(stream);
            }
            if let Some((_, entity)) = entities.get(&checkpoint.target) {
                lock(entity).restore(checkpoint, now);
                continue;
            }
            let room = waiting.len() < KEPT_MAX;
            match waiting.entry(checkpoint.target.clone()) {
                Entry::Occupied(mut known) => {
                    known.insert(Waiting { checkpoint, came_ms: now.mono_ms });
                }
                Entry::Vacant(vacant) if room => {
                    vacant.insert(Waiting { checkpoint, came_ms: now.mono_ms });
                }
                Entry::Vacant(_) => {
                    tracing::warn!(target = %checkpoint.target, "no room for its checkpoint");
                }
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Puts what a shard's tests have spent and earned beside its first instance.
    fn put_stream(&self, shard: ShardId, of_shard: &mut [EntityCheckpoint]) {
        if let Some(first) = of_shard.first_mut() {
            first.stream = lock(&self.streams).get(&shard).cloned();
        }
    }

    /// Keeps what was learnt about an instance that is watched here no longer.
    pub(super) fn keep(&self, shard: ShardId, checkpoint: EntityCheckpoint, again: bool) {
        let target = checkpoint.target.clone();
        if again {
            let waiting = Waiting { checkpoint, came_ms: self.mono_ms() };
            lock(&self.restored).insert(target, waiting);
            return;
        }
        let mut leaving = lock(&self.leaving);
        if leaving.len() < KEPT_MAX {
            leaving.insert(target, (shard, checkpoint));
            self.left.notify_one();
        }
    }

    /// What is known about an instance that begins to be watched, and when that came.
    pub(super) fn begin_with(&self, target: &Target) -> Option<(EntityCheckpoint, Now)> {
        let Waiting { checkpoint, came_ms } = lock(&self.restored).remove(target)?;
        let fresh = self.mono_ms().saturating_sub(came_ms) < STALE_MS;
        fresh.then_some((checkpoint, Now { mono_ms: came_ms, ..Now::default() }))
    }
}

/// Encodes checkpoints together, as many as fit.
fn pieces(all: impl IntoIterator<Item = EntityCheckpoint>, bytes_max: usize) -> Vec<Vec<u8>> {
    let (mut done, mut piece, mut bytes) = (Vec::new(), Vec::new(), 0);
    for checkpoint in all {
        let length = codec::encode(&checkpoint).len();
        if length + SURROUNDINGS_BYTES > bytes_max {
            tracing::warn!(target = %checkpoint.target, length, "its detector state is too large to hand over");
            continue;
        }
        if bytes + length + SURROUNDINGS_BYTES > bytes_max {
            done.push(codec::encode(&std::mem::take(&mut piece)));
            bytes = 0;
        }
        bytes += length;
        piece.push(checkpoint);
    }
    if !piece.is_empty() {
        done.push(codec::encode(&piece));
    }
    done
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use medic_state::Timestamp;

    use super::*;
    use crate::detection::lord;

    fn checkpoint(number: usize) -> EntityCheckpoint {
        let target = Target {
            tenant: "default".to_owned(),
            service: "web".to_owned(),
            instance: format!("web-{number}"),
        };
        EntityCheckpoint {
            target,
            at_ms: 7,
            series: BTreeMap::default(),
            panel: None,
            burn: None,
            restarts: None,
            budget: None,
            stream: None,
            foreknown: None,
        }
    }

    #[test]
    fn pieces_hold_everything_and_no_more_than_they_may() {
        let all: Vec<_> = (0..100).map(checkpoint).collect();
        for bytes_max in [64, 100, 1_000, 1_000_000] {
            let pieces = pieces(all.clone(), bytes_max);
            assert!(pieces.iter().all(|piece| piece.len() <= bytes_max), "{bytes_max}");
            let back: Vec<EntityCheckpoint> =
                pieces.iter().flat_map(|p| codec::decode::<Vec<_>>(p).unwrap()).collect();
            assert_eq!(back, all, "{bytes_max}");
        }
        assert_eq!(pieces(all, 20), Vec::<Vec<u8>>::new(), "what is too large is left out");
    }

    fn shared() -> Arc<Shared> {
        Arc::new(Shared::new(lord::LEVEL))
    }

    #[tokio::test]
    async fn what_a_shards_tests_have_earned_goes_with_its_instances() {
        let (owner, heir) = (Learnt(shared()), Learnt(shared()));
        let shard = State::shard_of(&checkpoint(0).target);
        owner.0.prove(shard, |prover| {
            prover.stream.begin(prover.level, Timestamp(1_700_000_000_000));
            prover.stream.discover();
        });
        for number in 0..3 {
            owner.0.keep(shard, checkpoint(number), false);
        }
        for body in owner.take_lost(1 << 20).remove(&shard).unwrap() {
            heir.restore(&body).unwrap();
        }
        let of = |learnt: &Learnt| lock(&learnt.0.streams).get(&shard).cloned().unwrap();
        assert_eq!(of(&heir), of(&owner));
        assert_eq!((of(&heir).tests(), of(&heir).discoveries()), (1, 1));
        assert_eq!(lock(&heir.0.restored).len(), 3);
    }
}
