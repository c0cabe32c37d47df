//! Nodes tell each other what they foresee.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use medic_raft::{Courier, Ledger, LedgerExt as _, Parcel, ParcelKind};
use medic_state::NodeId;
use metrics::counter;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::Foresight;
use crate::detection::metrics::Metric;

/// Between two rounds.
pub(super) const EVERY: Duration = Duration::from_secs(4);
/// Time for telling one node; one that is away must not make the others wait for the next round.
const TELLING: Duration = Duration::from_secs(1);
/// Outcomes are told when there is news, and once in so many rounds for those who did not hear it.
const OUTCOMES_ROUNDS: u64 = 8;

/// What telling needs.
pub struct Sharing {
    /// The law's state: who the nodes are.
    pub ledger: Arc<dyn Ledger>,
    /// The way to other nodes.
    pub courier: Arc<dyn Courier>,
    /// What they send.
    pub inbox: mpsc::Receiver<Parcel>,
    /// What is known here.
    pub foresight: Arc<Foresight>,
}

impl Sharing {
    /// Tells and hears until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let telling = tell(&self.ledger, &self.courier, &self.foresight);
        tokio::pin!(telling);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = &mut telling => return,
                Some(parcel) = self.inbox.recv() => take(&self.foresight, &parcel),
            }
        }
    }
}

fn take(foresight: &Foresight, parcel: &Parcel) {
    let result = match foresight.take(parcel.from, &parcel.body) {
        Ok(()) => "taken",
        Err(error) => {
            tracing::warn!(from = %parcel.from, %error, "predictions that cannot be read; are they of another version?");
            "unreadable"
        }
    };
    count(result);
}

fn count(result: &'static str) {
    counter!(Metric::PredictionParcels.name(), "result" => result).increment(1);
}

async fn tell(ledger: &Arc<dyn Ledger>, courier: &Arc<dyn Courier>, foresight: &Foresight) {
    let me = ledger.node();
    let mut told = 0;
    for round in 0u64.. {
        let edits = foresight.edits();
        let outcomes = edits != told || round % OUTCOMES_ROUNDS == 0;
        let bodies: Vec<Bytes> = foresight.to_tell(outcomes).into_iter().map(Bytes::from).collect();
        told = edits;
        let others: Vec<NodeId> =
            ledger.read(|state| state.nodes.keys().copied().filter(|node| *node != me).collect());
        join_all(others.into_iter().map(|to| pass(&**courier, to, &bodies))).await;
        tokio::time::sleep(EVERY).await;
    }
}

async fn pass(courier: &dyn Courier, to: NodeId, bodies: &[Bytes]) {
    for body in bodies {
        let passed = timeout(TELLING, courier.pass(to, ParcelKind::Predictions, body.clone()));
        let result = match passed.await {
            Ok(Ok(())) => "sent",
            Ok(Err(error)) => {
                tracing::debug!(%to, %error, "it was not told what is foreseen");
                "failed"
            }
            Err(_) => "failed",
        };
        count(result);
    }
}
