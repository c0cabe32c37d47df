//! Asks other nodes to look at what a probe checks, when it fails from here.
//!
//! ```text
//!   own check failed ─► n-1 live nodes, other regions first ─► each looks once ─► `quorum::judge`
//! ```
//!
//! Each answer is waited for no longer than a check may take, and a moment for the way; all are asked at the
//! same time. Bounds: [`ASKED_MAX`] failures are put to others at once; who waits longer for a turn than
//! a check may take goes by what this node sees.
//! Deliberately absent: addresses. Who is asked knows what is declared, or does not look.

use std::{cmp::Reverse, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::join_all;
use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{Digest, NodeId, State, manifest::ObserversSpec, symptom::Target};
use metrics::counter;
use tokio::{sync::Semaphore, time::timeout};

use super::quorum::{self, Judged, Look};
use crate::detection::{
    metrics::Metric,
    probe::{Failure, Outcome},
    senses::Senses,
};

/// Failures put to others at once: when everything fails from here, the others are not flooded.
const ASKED_MAX: usize = 64;
/// For the way there and back, and for a turn there, beside the time of the check.
const WAY: Duration = Duration::from_millis(1_000);

/// A check of an instance, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Instance.
    pub target: Target,
    /// Name of the probe.
    pub probe: String,
    /// Log index of the manifest that declares it.
    pub index: u64,
}

/// Has another node look.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Looks once, from another node.
    ///
    /// # Errors
    /// When that node did not answer, or knows no such check; in words.
    async fn look(&self, to: NodeId, check: &Check) -> Result<Look, String>;
}

/// The other nodes, to be asked.
pub struct Others {
    ledger: Arc<dyn Ledger>,
    peers: Arc<dyn Peers>,
    turns: Semaphore,
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Others").finish_non_exhaustive()
    }
}

impl Others {
    /// As the state knows them.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, peers: Arc<dyn Peers>) -> Arc<Self> {
        Arc::new(Self { ledger, peers, turns: Semaphore::new(ASKED_MAX) })
    }

    /// What at most `count` of them see, within `limit` and [`WAY`]; fewer, when fewer live.
    pub async fn look(&self, check: &Check, count: usize, limit: Duration) -> Vec<Look> {
        let nothing = |why: &str| Look::Nothing(why.to_owned());
        let Ok(Ok(_turn)) = timeout(limit, self.turns.acquire()).await else {
            return vec![nothing("too many checks are put to others")];
        };
        let me = self.ledger.node();
        let chosen = self.ledger.read(|state| chosen(state, me, check, count));
        let asked = chosen.into_iter().map(|to| async move {
            match timeout(limit + WAY, self.peers.look(to, check)).await {
                Ok(Ok(look)) => look,
                Ok(Err(why)) => Look::Nothing(format!("{to}: {why}")),
                Err(_) => Look::Nothing(format!("{to} did not answer in time")),
            }
        });
        join_all(asked).await
    }
}

/// Puts a failure to others, where its probe asks for several observers.
pub(in crate::detection) async fn put(
    senses: &dyn Senses,
    failure: Failure,
    rule: ObserversSpec,
    (check, limit): (&Check, Duration),
) -> Judged {
    // One is enough, and one has seen it.
    if rule.agree <= 1 {
        return Judged::alone(Outcome::Bad(failure));
    }
    let others = usize::try_from(rule.of.saturating_sub(1)).unwrap_or(usize::MAX);
    let looks = senses.elsewhere(check, others, limit).await;
    for look in &looks {
        if let Look::Nothing(why) = look {
            tracing::debug!(target = %check.target, probe = check.probe, why, "another node could not look");
        }
    }
    let judged = quorum::judge(failure, rule, &looks);
    if let Some((verdict, _)) = &judged.put {
        counter!(Metric::ProbeQuorums.name(), "result" => verdict.label()).increment(1);
    }
    judged
}

/// Who is asked: live nodes, those of other regions first and one of each region before a second, among
/// them by the highest hash of (check, node): the same while nobody comes or goes.
fn chosen(state: &State, me: NodeId, check: &Check, count: usize) -> Vec<NodeId> {
    let own = state.nodes.get(&me).map_or("", |node| node.region.as_str());
    let mut by_region: BTreeMap<&str, Vec<([u8; 32], NodeId)>> = BTreeMap::new();
    for (id, node) in state.nodes.iter().filter(|(id, node)| **id != me && node.live) {
        let Target { tenant, service, instance } = &check.target;
        let parts = [tenant, service, instance, &check.probe].map(|part| part.as_bytes());
        let [tenant, service, instance, probe] = parts;
        let number = id.0.to_be_bytes();
        let weight =
            Digest::of(&[tenant, &[0], service, &[0], instance, &[0], probe, &[0], &number]);
        by_region.entry(&node.region).or_default().push((weight.0, *id));
    }
    let mut ranked = Vec::new();
    for (region, mut nodes) in by_region {
        nodes.sort_by_key(|node| Reverse(*node));
        let near = region == own;
        let places = nodes.into_iter().enumerate();
        ranked.extend(places.map(|(rank, node)| (near, rank, Reverse(node))));
    }
    ranked.sort();
    ranked.into_iter().take(count).map(|(_, _, Reverse((_, id)))| id).collect()
}

#[cfg(test)]
mod tests;
