//! What detectors have learnt travels to whoever will watch next, so that a new owner starts warm.
//!
//! ```text
//!   shard owned here ── every few seconds ───────────────────► its heir (who gets it if we die)
//!   shard lost       ── at once ─────────────────────────────► its new owner
//!   parcel from a node ──► Learnt::restore: goes on from it now, or when the shard arrives
//! ```
//!
//! A parcel that gets lost costs warmth, never a finding: probes, limits and the law's open findings
//! need none. Bounds: one shard in [`EACH`], each once in [`EVERY`], parcels of at most
//! [`MAX_PARCEL_BYTES`], one under way.
//! Deliberately absent: choosing heirs, which is the shard controller's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use medic_raft::{Courier, Ledger, LedgerExt as _, MAX_PARCEL_BYTES, Parcel, ParcelKind};
use medic_state::{NodeId, ShardId, State};
use metrics::counter;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    metrics::Metric,
    runtime::{Learnt, Took},
};

/// Between two shards, so that no burst loads the network.
const EACH: Duration = Duration::from_millis(250);
/// Between two parcels about one shard: what an heir knows is at most so old, and some 16 s with all
/// shards on one node.
const EVERY: Duration = Duration::from_secs(10);

/// Says who would be given each shard of a node (the second) if that node died, while another (the
/// third) leads.
pub type Heirs = fn(&State, NodeId, NodeId) -> BTreeMap<ShardId, NodeId>;

/// What handing over needs.
pub struct Handover {
    /// The law's state.
    pub ledger: Arc<dyn Ledger>,
    /// The way to other nodes.
    pub courier: Arc<dyn Courier>,
    /// What they send.
    pub inbox: mpsc::Receiver<Parcel>,
    /// The detectors of this node.
    pub learnt: Learnt,
    /// Who inherits.
    pub heirs: Heirs,
}

impl Handover {
    /// Sends and receives until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let sending = send(
            self.ledger.clone(),
            self.courier.clone(),
            self.learnt.clone(),
            self.heirs,
            stop.clone(),
        );
        tokio::pin!(sending);
        loop {
            tokio::select! {
                () = &mut sending => return,
                Some(parcel) = self.inbox.recv() => take(&self.learnt, &parcel),
            }
        }
    }
}

fn take(learnt: &Learnt, parcel: &Parcel) {
    let result = match learnt.restore(&parcel.body) {
        Ok(took) => {
            if let Took { unreadable, why: Some(why), .. } = &took {
                tracing::warn!(from = %parcel.from, unreadable, %why, "detector state is left out");
            } else if took.stale > 0 {
                tracing::info!(from = %parcel.from, stale = took.stale, "detector state that is older than what is known here");
            }
            "taken"
        }
        Err(error) => {
            tracing::warn!(from = %parcel.from, %error, "detector state that cannot be read; is it of another version?");
            "unreadable"
        }
    };
    counter!(Metric::Checkpoints.name(), "result" => result).increment(1);
}

async fn send(
    ledger: Arc<dyn Ledger>,
    courier: Arc<dyn Courier>,
    learnt: Learnt,
    heirs: Heirs,
    stop: CancellationToken,
) {
    let me = ledger.node();
    let mut told = Told::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = learnt.lost() => {
                for (shard, bodies) in learnt.take_lost(MAX_PARCEL_BYTES) {
                    let owner = ledger.read(|state| state.shards.get(&shard).and_then(|s| s.owner));
                    if let Some(to) = owner.filter(|owner| *owner != me) {
                        pass(&*courier, to, shard, bodies).await;
                    }
                }
            }
            () = tokio::time::sleep(EACH) => {
                let watched = learnt.shards();
                if watched.is_empty() {
                    continue;
                }
                let Some(leader) = ledger.leadership().borrow().leader else { continue };
                let mut heirs = ledger.read(|state| heirs(state, me, leader));
                heirs.retain(|shard, _| watched.contains(shard));
                if let Some((shard, to)) = told.next(&heirs, Instant::now()) {
                    pass(&*courier, to, shard, learnt.checkpoints(shard, MAX_PARCEL_BYTES)).await;
                }
            }
        }
    }
}

/// Who was told last about which shard, and when.
#[derive(Debug, Default)]
struct Told(BTreeMap<ShardId, (NodeId, Instant)>);

impl Told {
    /// The shard whose heir knows nothing, or has known longest, if that is long enough.
    fn next(
        &mut self,
        heirs: &BTreeMap<ShardId, NodeId>,
        now: Instant,
    ) -> Option<(ShardId, NodeId)> {
        self.0.retain(|shard, (to, _)| heirs.get(shard) == Some(to));
        let known = |shard: &ShardId| self.0.get(shard).map(|(_, at)| *at);
        let (shard, to) = heirs.iter().min_by_key(|(shard, _)| known(shard))?;
        if known(shard).is_some_and(|at| now < at + EVERY) {
            return None;
        }
        self.0.insert(*shard, (*to, now));
        Some((*shard, *to))
    }
}

async fn pass(courier: &dyn Courier, to: NodeId, shard: ShardId, bodies: Vec<Vec<u8>>) {
    for body in bodies {
        let result = match courier.pass(to, ParcelKind::DetectorState, body.into()).await {
            Ok(()) => "sent",
            Err(error) => {
                tracing::debug!(%to, %shard, %error, "detector state was not handed over");
                "failed"
            }
        };
        counter!(Metric::Checkpoints.name(), "result" => result).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_heir_is_told_in_turn_and_a_new_one_first() {
        let mut told = Told::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut heirs: BTreeMap<_, _> =
            [(1, 2), (2, 3), (3, 2)].map(|(shard, node)| (ShardId(shard), NodeId(node))).into();
        let shard = |found: Option<(ShardId, NodeId)>| found.map(|(shard, _)| shard.0);
        assert_eq!(shard(told.next(&heirs, at(0))), Some(1));
        assert_eq!(shard(told.next(&heirs, at(1))), Some(2));
        assert_eq!(shard(told.next(&heirs, at(2))), Some(3));
        assert_eq!(told.next(&heirs, at(3)), None, "all know enough");
        assert_eq!(shard(told.next(&heirs, at(10))), Some(1));
        heirs.insert(ShardId(3), NodeId(4));
        assert_eq!(told.next(&heirs, at(11)), Some((ShardId(3), NodeId(4))), "another heir");
        assert_eq!(shard(told.next(&heirs, at(12))), Some(2));
        heirs.clear();
        assert_eq!(told.next(&heirs, at(60)), None);
    }
}
