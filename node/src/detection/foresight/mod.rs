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
mod table;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use medic_api::control::{self, Foreseen};
use medic_proto::v1 as pb;
use medic_raft::{Ledger, LedgerExt as _, MAX_PARCEL_BYTES, ParcelKind};
use medic_state::{NodeId, ShardId, codec, state::SHARDS};
use tokio::time::Instant;

use self::{
    outcomes::Outcomes,
    table::{Message, Table, scored},
};
use super::{
    runtime::{Predictions, lock},
    share::{Tells, gaps, lack, owned},
};
use crate::intelligence::Preventive;

/// Predictions of one node that are told of, the likeliest: some hundreds of bytes each.
pub const PREDICTIONS_MAX: usize = 2_000;
/// Outcomes are told when there is news, and once in so many rounds for those who did not hear it.
const OUTCOMES_ROUNDS: u64 = 8;

/// Asks for the present predictions of this node.
pub type Own = Arc<dyn Fn() -> Predictions + Send + Sync>;

/// What this node knows of what all nodes foresee.
pub struct Foresight {
    ledger: Arc<dyn Ledger>,
    own: Own,
    outcomes: Arc<Mutex<Outcomes>>,
    told: Mutex<BTreeMap<NodeId, Told>>,
    /// How many outcomes others know of.
    outcomes_told: AtomicU64,
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
        Self { ledger, own, outcomes, told: Mutex::default(), outcomes_told: AtomicU64::new(0) }
    }

    fn own_table(&self) -> Table {
        let (node, at) = (self.ledger.node(), self.ledger.env().clock.now());
        let covers = self.ledger.read(|state| owned(state, node));
        Table::of((self.own)(), at, covers, PREDICTIONS_MAX)
    }
}

impl Tells for Foresight {
    fn parcels(&self) -> ParcelKind {
        ParcelKind::Predictions
    }

    fn to_tell(&self, round: u64) -> Vec<Vec<u8>> {
        let mut bodies = vec![self.own_table().encoded(MAX_PARCEL_BYTES)];
        let edits = lock(&self.outcomes).edits();
        let news = self.outcomes_told.swap(edits, Ordering::Relaxed) != edits;
        if news || round.is_multiple_of(OUTCOMES_ROUNDS) {
            let outcomes = lock(&self.outcomes).clone();
            bodies.extend(outcomes.pieces(MAX_PARCEL_BYTES).into_iter().map(Message::outcomes));
        }
        bodies
    }

    fn take(&self, from: NodeId, body: &[u8]) -> Result<(), codec::CodecError> {
        let bad = |reason| codec::CodecError { what: "what a node foresees", reason };
        match codec::decode::<Message>(body)? {
            Message::Table(table) => {
                table.check().map_err(bad)?;
                let known =
                    |node: &NodeId| self.ledger.read(|state| state.nodes.contains_key(node));
                let mut told = lock(&self.told);
                // Whoever was removed no longer tells, and never comes back under its number.
                told.retain(|node, _| known(node));
                told.insert(from, Told { table, came: Instant::now() });
            }
            Message::Outcomes(outcomes) => lock(&self.outcomes).merge(outcomes).map_err(bad)?,
        }
        Ok(())
    }
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
            self.ledger.read(|state| {
                let mut preventive = Preventive::of(state);
                predictions.extend(shown.map(|one| one.shown(node, table.at, &mut preventive)));
            });
            if table.left_off > 0 && !covers.is_empty() {
                let reason = format!("{} less likely predictions are left off", table.left_off);
                gaps.push(pb::Gap { node: node.to_string(), shards: Vec::new(), reason });
            }
        }
        Foreseen { predictions, gaps }
    }

    fn gaps(&self) -> Vec<pb::Gap> {
        let me = self.ledger.node();
        let told = lock(&self.told);
        self.ledger.read(|state| {
            gaps((0..SHARDS).map(ShardId).filter_map(|shard| {
                let heard = |owner| {
                    let told: &Told = told.get(&owner)?;
                    Some((told.came, told.table.covers.get(&shard).copied()))
                };
                let (node, lack) = lack(state, me, shard, heard)?;
                Some((shard, (node, lack.why("what it foresees"))))
            }))
        })
    }

    fn scores(&self, sees: &dyn Fn(&str) -> bool) -> Vec<pb::PredictionScore> {
        let record = lock(&self.outcomes).of_tenants(sees);
        record.scores().iter().map(scored).collect()
    }
}

#[cfg(test)]
mod tests;
