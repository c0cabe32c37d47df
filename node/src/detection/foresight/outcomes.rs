//! How predictions turned out, by shard and tenant: what outlives the owner of a shard.
//!
//! Only the owner of a shard adds outcomes to it; everybody else holds copies. Of two copies the one of
//! the later epoch counts, and within an epoch the one with more outcomes: so copies may come in any
//! order, more than once, or over others. A new owner goes on from the copy it holds. Bounded: the
//! shards of a cluster, [`TENANTS_MAX`] tenants each, ten sums a kind.

use std::collections::BTreeMap;

use medic_state::{Epoch, ShardId, codec, state::SHARDS};
use minicbor::{Decode, Encode};

use crate::detection::predict::record::{Record, Scored};

/// Tenants of one shard whose outcomes are kept apart; those of others are not kept.
const TENANTS_MAX: usize = 1_000;

/// Outcomes of one shard.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct OfShard {
    /// Of the owner who added last.
    #[n(0)]
    epoch: Epoch,
    /// Outcomes ever added.
    #[n(1)]
    edits: u64,
    /// By tenant.
    #[n(2)]
    by_tenant: BTreeMap<String, Record>,
}

/// Outcomes of all shards that this node has watched or heard of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcomes {
    by_shard: BTreeMap<ShardId, OfShard>,
    edits: u64,
}

impl Outcomes {
    /// An outcome of a shard that is owned here under this epoch.
    pub fn note(&mut self, (shard, epoch): (ShardId, Epoch), tenant: &str, scored: Scored) {
        let of_shard = self.by_shard.entry(shard).or_default();
        let room = of_shard.by_tenant.len() < TENANTS_MAX;
        if !room && !of_shard.by_tenant.contains_key(tenant) {
            return;
        }
        of_shard.by_tenant.entry(tenant.to_owned()).or_default().note(scored);
        of_shard.epoch = of_shard.epoch.max(epoch);
        // It may be a copy, which counts as its sender says.
        of_shard.edits = of_shard.edits.saturating_add(1);
        self.edits += 1;
    }

    /// Outcomes that were added here, so that it can be told whether there is news.
    #[must_use]
    pub const fn edits(&self) -> u64 {
        self.edits
    }

    /// Takes copies of other nodes.
    ///
    /// # Errors
    /// When one holds what are no sums; none is taken then.
    pub fn merge(&mut self, others: BTreeMap<ShardId, OfShard>) -> Result<(), String> {
        let records =
            others.iter().flat_map(|(shard, of)| of.by_tenant.values().map(move |r| (shard, r)));
        if let Some((shard, _)) = records.into_iter().find(|(_, record)| !record.sums()) {
            return Err(format!("the outcomes of {shard} are no sums"));
        }
        for (shard, other) in others {
            if shard.0 >= SHARDS || other.by_tenant.len() > TENANTS_MAX {
                continue;
            }
            let own = self.by_shard.entry(shard).or_default();
            if (other.epoch, other.edits) > (own.epoch, own.edits) {
                *own = other;
            }
        }
        Ok(())
    }

    /// Copies in pieces of at most `bytes_max` as encoded. A shard larger by itself is left out: with all
    /// its tenants it is far smaller than a parcel.
    pub(super) fn pieces(self, bytes_max: usize) -> Vec<BTreeMap<ShardId, OfShard>> {
        let (mut done, mut piece, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
        for (shard, of_shard) in self.by_shard {
            // The number of the shard, and what the map and the message around it take.
            let length = codec::encode(&of_shard).len() + 32;
            if length > bytes_max {
                continue;
            }
            if bytes + length > bytes_max {
                done.push(std::mem::take(&mut piece));
                bytes = 0;
            }
            bytes += length;
            piece.insert(shard, of_shard);
        }
        done.extend((!piece.is_empty()).then_some(piece));
        done
    }

    /// The outcomes of one tenant.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Record {
        let mut all = Record::default();
        let records = self.by_shard.values().filter_map(|shard| shard.by_tenant.get(tenant));
        records.for_each(|record| all.add(record));
        all
    }

    /// The outcomes of some tenants, together.
    #[must_use]
    pub fn of_tenants(&self, sees: impl Fn(&str) -> bool) -> Record {
        let mut all = Record::default();
        let tenants = self.by_shard.values().flat_map(|of_shard| &of_shard.by_tenant);
        tenants.filter(|(tenant, _)| sees(tenant)).for_each(|(_, record)| all.add(record));
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::detection::predict::{forecast::ForecastKind, record::Outcome};

    const SHARD: ShardId = ShardId(3);

    fn outcome(probability: f64) -> Scored {
        let (kind, outcome) = (ForecastKind::Capacity, Outcome::CameTrue);
        Scored { kind, probability, outcome, on_time: true }
    }

    fn count(outcomes: &Outcomes) -> u64 {
        outcomes.of_tenants(|_| true).scores().iter().map(|score| score.count).sum()
    }

    fn add(outcomes: &mut Outcomes, epoch: u64, times: usize) {
        (0..times).for_each(|_| outcomes.note((SHARD, Epoch(epoch)), "default", outcome(0.7)));
    }

    #[test]
    fn outcomes_outlive_their_owner_and_none_counts_twice() {
        let (mut first, mut second) = (Outcomes::default(), Outcomes::default());
        add(&mut first, 1, 5);
        let early = first.clone().by_shard;
        add(&mut first, 1, 2);
        // Copies come twice, and an old one comes last.
        for copy in [&first.by_shard, &first.by_shard, &early] {
            second.merge(copy.clone()).unwrap();
        }
        assert_eq!(count(&second), 7);
        // The first owner is gone; the second goes on, and whoever comes back learns from it.
        add(&mut second, 2, 1);
        assert_eq!(count(&second), 8);
        let mut back = Outcomes::default();
        add(&mut back, 1, 3);
        back.merge(second.by_shard.clone()).unwrap();
        assert_eq!(back.by_shard, second.by_shard);
        second.merge(first.by_shard).unwrap();
        assert_eq!(count(&second), 8, "what is older changes nothing");
    }

    #[test]
    fn tenants_are_apart_and_bounded() {
        let mut outcomes = Outcomes::default();
        for tenant in 0..TENANTS_MAX + 10 {
            outcomes.note((SHARD, Epoch(1)), &tenant.to_string(), outcome(0.5));
        }
        assert_eq!(count(&outcomes), TENANTS_MAX as u64);
        let one = outcomes.of_tenants(|tenant| tenant == "7");
        assert_eq!(one.scores()[0].count, 1);
        assert_eq!(outcomes.of_tenant("7"), one);
        assert_eq!(outcomes.of_tenant("nobody"), Record::default());
    }

    #[test]
    fn pieces_hold_everything_and_no_more_than_they_may() {
        let mut outcomes = Outcomes::default();
        for shard in 0..SHARDS {
            outcomes.note((ShardId(shard), Epoch(1)), "default", outcome(0.5));
        }
        let one = codec::encode(&outcomes.by_shard[&ShardId(0)]).len() + 32;
        for bytes_max in [one, 3 * one, 1 << 20] {
            let mut back = Outcomes::default();
            for piece in outcomes.clone().pieces(bytes_max) {
                assert!(codec::encode(&piece).len() <= bytes_max);
                back.merge(piece).unwrap();
            }
            assert_eq!(back.by_shard, outcomes.by_shard, "{bytes_max}");
        }
        let strange = BTreeMap::from([(ShardId(SHARDS), OfShard::default())]);
        outcomes.merge(strange).unwrap();
        assert_eq!(outcomes.by_shard.len(), SHARDS as usize);
    }

    #[test]
    fn what_are_no_sums_is_refused_whole_and_sums_never_overflow() {
        let (mut outcomes, mut other) = (Outcomes::default(), Outcomes::default());
        add(&mut other, 1, 3);
        let mut bad = other.by_shard.clone();
        bad.insert(ShardId(4), OfShard::default());
        let tenant = bad.get_mut(&SHARD).unwrap().by_tenant.get_mut("default").unwrap();
        tenant.note(Scored { probability: f64::NAN, ..outcome(0.5) });
        let said = outcomes.merge(bad).unwrap_err();
        assert_eq!(said, "the outcomes of shard-3 are no sums");
        assert_eq!(outcomes, Outcomes::default());
        other.by_shard.get_mut(&SHARD).unwrap().edits = u64::MAX;
        outcomes.merge(other.by_shard).unwrap();
        add(&mut outcomes, 1, 1);
        assert_eq!(count(&outcomes), 4);
    }
}
