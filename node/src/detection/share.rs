//! Nodes tell each other what they alone know: what they foresee, and how what they watch does.
//!
//! Deliberately absent: what is told ([`Tells`]), and the log. What is told changes by the second, and
//! what gets lost is told again in the next round.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use medic_proto::v1 as pb;
use medic_raft::{Courier, Ledger, LedgerExt as _, Parcel, ParcelKind};
use medic_state::{Epoch, NodeId, ShardId, State, codec};
use metrics::counter;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::metrics::Metric;

/// Between two rounds.
pub(super) const EVERY: Duration = Duration::from_secs(4);
/// What was told so long ago is old: three rounds.
pub(super) const STALE: Duration = Duration::from_secs(15);
/// Time for telling one node; one that is away must not make the others wait for the next round.
const TELLING: Duration = Duration::from_secs(1);

/// Something that nodes tell each other.
pub trait Tells: fmt::Debug + Send + Sync + 'static {
    /// In which parcels.
    fn parcels(&self) -> ParcelKind;
    /// What other nodes should know in this round (counted from zero), in bodies of parcels.
    fn to_tell(&self, round: u64) -> Vec<Vec<u8>>;
    /// Takes what another node has told.
    ///
    /// # Errors
    /// When the bytes are none of those; nothing is changed then.
    fn take(&self, from: NodeId, body: &[u8]) -> Result<(), codec::CodecError>;
}

/// What telling needs.
pub struct Sharing {
    /// The law's state: who the nodes are.
    pub ledger: Arc<dyn Ledger>,
    /// The way to other nodes.
    pub courier: Arc<dyn Courier>,
    /// What they send.
    pub inbox: mpsc::Receiver<Parcel>,
    /// What is known here.
    pub tells: Arc<dyn Tells>,
}

impl Sharing {
    /// Tells and hears until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let telling = tell(&self.ledger, &self.courier, &self.tells);
        tokio::pin!(telling);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut telling => return,
                Some(parcel) = self.inbox.recv() => take(&*self.tells, &parcel),
            }
        }
    }
}

fn take(tells: &dyn Tells, parcel: &Parcel) {
    let result = match tells.take(parcel.from, &parcel.body) {
        Ok(()) => "taken",
        Err(error) => {
            let what = tells.parcels();
            tracing::warn!(from = %parcel.from, ?what, %error, "a parcel that cannot be read; is its sender of another version?");
            "unreadable"
        }
    };
    count(tells.parcels(), result);
}

fn count(what: ParcelKind, result: &'static str) {
    let metric = match what {
        ParcelKind::DetectorState => Metric::Checkpoints,
        ParcelKind::Predictions => Metric::PredictionParcels,
        ParcelKind::Health => Metric::HealthParcels,
    };
    counter!(metric.name(), "result" => result).increment(1);
}

async fn tell(ledger: &Arc<dyn Ledger>, courier: &Arc<dyn Courier>, tells: &Arc<dyn Tells>) {
    let me = ledger.node();
    for round in 0u64.. {
        let bodies: Vec<Bytes> = tells.to_tell(round).into_iter().map(Bytes::from).collect();
        let others: Vec<NodeId> =
            ledger.read(|state| state.nodes.keys().copied().filter(|node| *node != me).collect());
        join_all(others.into_iter().map(|to| pass(&**courier, to, tells.parcels(), &bodies))).await;
        tokio::time::sleep(EVERY).await;
    }
}

async fn pass(courier: &dyn Courier, to: NodeId, what: ParcelKind, bodies: &[Bytes]) {
    for body in bodies {
        let passed = timeout(TELLING, courier.pass(to, what, body.clone()));
        let result = match passed.await {
            Ok(Ok(())) => "sent",
            Ok(Err(error)) => {
                tracing::debug!(%to, ?what, %error, "it was not told");
                "failed"
            }
            Err(_) => "failed",
        };
        count(what, result);
    }
}

/// The shards that a node owns, with their epochs.
pub(super) fn owned(state: &State, node: NodeId) -> BTreeMap<ShardId, Epoch> {
    let held = state.shards.iter().filter(|(_, held)| held.owner == Some(node));
    held.map(|(shard, held)| (*shard, held.epoch)).collect()
}

/// Why a node knows nothing of a shard that it does not own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// It has no owner.
    Nobody,
    /// Its owner was never heard.
    Unheard,
    /// Its owner has been silent for so long.
    Silent(Duration),
    /// Its owner has not told of it under its present epoch.
    Begun,
}

impl Lack {
    /// In words; `what` an owner that was never heard has not told.
    pub(super) fn why(self, what: &str) -> String {
        match self {
            Self::Nobody => "nobody watches them".to_owned(),
            Self::Unheard => format!("it has not told yet {what}"),
            Self::Silent(since) => format!("it was last heard from {} s ago", since.as_secs()),
            Self::Begun => "it has just begun to watch them".to_owned(),
        }
    }
}

/// Who would know of a shard, and why it is not known to `me`; nothing, where it is. `heard`: when an owner was
/// last heard, and the epoch under which it has lately told of the shard.
pub(super) fn lack(
    state: &State,
    me: NodeId,
    shard: ShardId,
    heard: impl FnOnce(NodeId) -> Option<(Instant, Option<Epoch>)>,
) -> Option<(Option<NodeId>, Lack)> {
    let held = state.shards.get(&shard).copied().unwrap_or_default();
    let Some(owner) = held.owner else { return Some((None, Lack::Nobody)) };
    if owner == me {
        return None;
    }
    let lack = match heard(owner) {
        None => Lack::Unheard,
        Some((came, _)) if came.elapsed() > STALE => Lack::Silent(came.elapsed()),
        Some((_, told)) if told != Some(held.epoch) => Lack::Begun,
        Some(_) => return None,
    };
    Some((Some(owner), lack))
}

/// Who would know of a shard (if anybody watches it), and why it is not known here.
pub(super) type Unknown = (Option<NodeId>, String);

/// Gaps from what is unknown, by shard.
pub(super) fn gaps(unknown: impl IntoIterator<Item = (ShardId, Unknown)>) -> Vec<pb::Gap> {
    let mut found: BTreeMap<Unknown, Vec<u32>> = BTreeMap::new();
    for (shard, why) in unknown {
        found.entry(why).or_default().push(shard.0);
    }
    let said = |((node, reason), shards): (Unknown, _)| {
        let node = node.map_or_else(String::new, |node| node.to_string());
        pb::Gap { node, shards, reason }
    };
    found.into_iter().map(said).collect()
}
