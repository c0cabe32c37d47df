//! What all nodes foresee, known to each of them.
//!
//! ```text
//!   runtime here ─► table: likeliest predictions, shards they cover ──┐  every few seconds, to all
//!   outcomes of shards (own, and as told by others) ──────────────────┴─► other nodes: told
//!                                                                               │
//!   control API on any node ◄── own table + told tables + gaps, sums of outcomes ┘
//! ```
//!
//! A prediction counts when its teller owns the shard by the law; so none stands twice while a shard
//! moves. A shard is a gap unless its owner has told lately, under the shard's present epoch: an answer
//! is never silently less. Outcomes of a shard live on every node that has heard of them, so that they
//! outlive its owner; the last seconds before a death may be lost, and what waits for its outcome is.
//! Bounds: [`PREDICTIONS_MAX`] predictions a node, one parcel of them every few seconds a peer.
//!
//! Deliberately absent: the log. Predictions change by the second, and losing one costs nothing.

pub mod outcomes;
mod share;
mod table;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use medic_api::control::{self, Foreseen};
use medic_proto::v1 as pb;
use medic_raft::{Ledger, LedgerExt as _, MAX_PARCEL_BYTES};
use medic_state::{
    Epoch, NodeId, ShardId, State, codec,
    state::{SHARDS, ShardState},
};
use tokio::time::Instant;

use self::{
    outcomes::Outcomes,
    table::{Message, Table, scored},
};
use super::runtime::{Predictions, lock};

pub use share::Sharing;

/// Predictions of one node that are told of, the likeliest: some hundreds of bytes each.
pub const PREDICTIONS_MAX: usize = 2_000;
/// What was told so long ago is old: three rounds.
const STALE: Duration = Duration::from_secs(15);

/// Asks for the present predictions of this node.
pub type Own = Arc<dyn Fn() -> Predictions + Send + Sync>;

/// What this node knows of what all nodes foresee.
pub struct Foresight {
    ledger: Arc<dyn Ledger>,
    own: Own,
    outcomes: Arc<Mutex<Outcomes>>,
    told: Mutex<BTreeMap<NodeId, Told>>,
}

/// What another node has told, and when that came.
struct Told {
    table: Table,
    came: Instant,
}

impl fmt::Debug for Foresight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foresight").field("node", &self.ledger.node()).finish_non_exhaustive()
    }
}

impl Foresight {
    /// Nothing told yet. `outcomes` are those that the runtime adds to.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, own: Own, outcomes: Arc<Mutex<Outcomes>>) -> Self {
        Self { ledger, own, outcomes, told: Mutex::default() }
    }

    /// What other nodes should know, in bodies of parcels. `all`: outcomes too.
    fn to_tell(&self, all: bool) -> Vec<Vec<u8>> {
        let mut bodies = vec![self.own_table().encoded(MAX_PARCEL_BYTES)];
        if all {
            let outcomes = lock(&self.outcomes).clone();
            bodies.extend(outcomes.pieces(MAX_PARCEL_BYTES).into_iter().map(Message::outcomes));
        }
        bodies
    }

    fn own_table(&self) -> Table {
        let (node, at) = (self.ledger.node(), self.ledger.env().clock.now());
        let covers = self.ledger.read(|state| owned(state, node));
        Table::of((self.own)(), at, covers, PREDICTIONS_MAX)
    }

    /// How often an outcome was added here.
    fn edits(&self) -> u64 {
        lock(&self.outcomes).edits()
    }

    /// Takes what another node has told.
    ///
    /// # Errors
    /// When the bytes are no such message; nothing is changed then.
    fn take(&self, from: NodeId, body: &[u8]) -> Result<(), codec::CodecError> {
        match codec::decode::<Message>(body)? {
            Message::Table(table) => {
                let known =
                    |node: &NodeId| self.ledger.read(|state| state.nodes.contains_key(node));
                let mut told = lock(&self.told);
                // Whoever was removed no longer tells, and never comes back under its number.
                told.retain(|node, _| known(node));
                told.insert(from, Told { table, came: Instant::now() });
            }
            Message::Outcomes(outcomes) => lock(&self.outcomes).merge(outcomes),
        }
        Ok(())
    }
}

fn owned(state: &State, node: NodeId) -> BTreeMap<ShardId, Epoch> {
    let held = state.shards.iter().filter(|(_, held)| held.owner == Some(node));
    held.map(|(shard, held)| (*shard, held.epoch)).collect()
}

/// Why nothing is known about a shard, by who would know.
fn gap(
    told: &BTreeMap<NodeId, Told>,
    me: NodeId,
    shard: ShardId,
    held: Option<&ShardState>,
) -> Option<(Option<NodeId>, String)> {
    let held = held.copied().unwrap_or_default();
    let Some(owner) = held.owner else { return Some((None, "nobody watches them".to_owned())) };
    if owner == me {
        return None;
    }
    let why = match told.get(&owner) {
        None => "it has not told yet what it foresees".to_owned(),
        Some(told) if told.came.elapsed() > STALE => {
            format!("it was last heard from {} s ago", told.came.elapsed().as_secs())
        }
        Some(told) if told.table.covers.get(&shard) != Some(&held.epoch) => {
            "it has just begun to watch them".to_owned()
        }
        Some(_) => return None,
    };
    Some((Some(owner), why))
}

impl control::Foresight for Foresight {
    fn foreseen(&self) -> Foreseen {
        let me = self.ledger.node();
        let own = self.own_table();
        let mut gaps = control::Foresight::gaps(self);
        let told = lock(&self.told);
        let tables = told.iter().map(|(node, told)| (*node, &told.table));
        let mut predictions = Vec::new();
        for (node, table) in tables.chain([(me, &own)]) {
            let covers = self.ledger.read(|state| owned(state, node));
            let shown = table.predictions.iter().filter(|one| covers.contains_key(&one.shard));
            predictions.extend(shown.map(|one| one.shown(node, table.at)));
            if table.left_off > 0 && !covers.is_empty() {
                let reason = format!("{} less likely predictions are left off", table.left_off);
                gaps.push(pb::PredictionGap { node: node.to_string(), shards: Vec::new(), reason });
            }
        }
        Foreseen { predictions, gaps }
    }

    fn gaps(&self) -> Vec<pb::PredictionGap> {
        let me = self.ledger.node();
        let told = lock(&self.told);
        let mut found: BTreeMap<(Option<NodeId>, String), Vec<u32>> = BTreeMap::new();
        self.ledger.read(|state| {
            for shard in (0..SHARDS).map(ShardId) {
                if let Some(why) = gap(&told, me, shard, state.shards.get(&shard)) {
                    found.entry(why).or_default().push(shard.0);
                }
            }
        });
        let said = |((node, reason), shards): ((Option<NodeId>, String), _)| {
            let node = node.map_or_else(String::new, |node| node.to_string());
            pb::PredictionGap { node, shards, reason }
        };
        found.into_iter().map(said).collect()
    }

    fn scores(&self, sees: &dyn Fn(&str) -> bool) -> Vec<pb::PredictionScore> {
        let record = lock(&self.outcomes).of_tenants(sees);
        record.scores().iter().map(scored).collect()
    }
}

#[cfg(test)]
mod tests;
