//! What a node does before it stops, while its doors are still open: others watch what it watched, and
//! lead if it led, after one look of the shard controller and one round of votes; not after its silence
//! was noticed and an election timed out.
//!
//! All of it is bounded, since whatever stops a node gives it some ten seconds. What is not reached in
//! time follows from the node's silence, as when it is killed.

use std::{future::Future, time::Duration};

use medic_raft::{Consensus, Ledger, LedgerError, LedgerExt as _};
use medic_state::{
    Command, NodeId, State, TraceId,
    command::{DRAIN_SINCE, Drain, DrainNode},
};

/// Time the shards are given to move: some looks of the leader's controller.
const SHARDS_PATIENCE: Duration = Duration::from_secs(2);
/// Time the next leader is given to take over.
const LEADER_PATIENCE: Duration = Duration::from_secs(3);

/// Hands on what this node watches, then leadership where it has it.
pub(super) async fn leave(consensus: &Consensus) {
    match within(SHARDS_PATIENCE, hand_shards_on(consensus)).await {
        Ok(true) => tracing::info!("others watch what this node watched"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "leaving without handing shards on"),
    }
    match within(LEADER_PATIENCE, consensus.hand_over()).await {
        Ok(None) => {}
        Ok(Some(to)) => tracing::info!(%to, "leadership is handed over"),
        Err(error) => tracing::warn!(%error, "leaving without handing leadership over"),
    }
}

async fn within<T>(
    patience: Duration,
    handing: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    tokio::time::timeout(patience, handing).await.unwrap_or_else(|_| {
        Err(LedgerError::Unavailable(format!("nobody has taken over in {patience:?}")))
    })
}

/// Says that this incarnation is about to stop, and waits until it watches nothing. False: nobody is
/// there to watch instead or to say so, or some member is too old to be told.
async fn hand_shards_on(ledger: &dyn Ledger) -> Result<bool, LedgerError> {
    let me = ledger.node();
    let may = |state: &State| state.cluster_version >= DRAIN_SINCE && others_stay(state, me);
    if !ledger.read(may) || ledger.leadership().borrow().leader.is_none() {
        return Ok(false);
    }
    let drain = Drain::Leave(ledger.boot());
    let command = Command::DrainNode(DrainNode { node: me, drain });
    let committed = ledger.propose(ledger.entry(TraceId::default(), command)).await?;
    if let Err(refusal) = committed.answer {
        return Err(LedgerError::Refused(refusal.to_string()));
    }
    let mut applied = ledger.applied();
    loop {
        applied.borrow_and_update();
        let (stay, watched) = ledger.read(|state| (others_stay(state, me), watches(state, me)));
        if !watched || !stay {
            return Ok(!watched);
        }
        if applied.changed().await.is_err() {
            return Ok(false);
        }
    }
}

fn watches(state: &State, node: NodeId) -> bool {
    state.shards.values().any(|shard| shard.owner == Some(node))
}

/// Whether somebody else lives that is neither drained nor about to stop.
fn others_stay(state: &State, me: NodeId) -> bool {
    state.nodes.iter().any(|(id, node)| *id != me && node.live && node.stays())
}
