//! Eyes on every node while the campaign runs: who leads, how far each has applied, with what state,
//! which plans are under way, who owns which shard.
//!
//! Every look asks one node for what it has itself (stale on purpose): it must be possible to see
//! what is wrong from a node that cannot reach its leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use medic_proto::v1 as pb;
use serde::Serialize;
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::{Client, Dialer};

/// Between two looks at one node.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks at the plans.
const LOOK_PLANS: Duration = Duration::from_millis(200);
/// A look that takes longer is given up.
const PATIENCE: Duration = Duration::from_millis(900);
/// Plans that were under way longer ago may have ended.
const FRESH_PLANS: Duration = Duration::from_millis(500);
/// What a node said longer ago says nothing about now.
const FRESH: Duration = Duration::from_millis(1_500);

/// What one node said of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Milliseconds since the campaign began.
    pub at_ms: u64,
    /// Who.
    pub node: u64,
    /// Whom it takes for the leader; zero: nobody.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// How far it has applied.
    pub applied: u64,
    /// Hash of its state there.
    pub hash: String,
    /// The fence in force there.
    pub fence: u64,
}

/// A plan as it was seen while it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanSeen {
    /// Its incident.
    pub incident: String,
    /// Digest of the plan when it was first looked at closely.
    pub digest: String,
    /// Statuses it was seen in, in the order they were first seen.
    pub statuses: Vec<String>,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Samples, in order.
    pub samples: Vec<Sample>,
    /// Plans by id.
    pub plans: BTreeMap<String, PlanSeen>,
    /// Plans under way at the last look, with steps begun: running, verifying or unwinding; and
    /// when that was.
    pub under_way: Option<(Instant, BTreeMap<String, pb::RemediationStatus>)>,
    /// Owners by shard and epoch.
    pub owners: BTreeMap<(u32, u64), BTreeSet<u64>>,
    /// When each node last answered.
    last: BTreeMap<u64, (Instant, Sample)>,
}

/// Handle on what is seen; clones share it.
#[derive(Clone, Debug)]
pub struct Eyes {
    seen: Arc<Mutex<Seen>>,
    began: Instant,
}

/// Tasks that look; ended when dropped.
#[derive(Debug)]
pub struct Watching(Vec<JoinHandle<()>>);

impl Drop for Watching {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Eyes {
    /// Nothing seen yet; times count from `began`.
    #[must_use]
    pub fn new(began: Instant) -> Self {
        Self { seen: Arc::default(), began }
    }

    /// Begins to look, at every node the dialer knows of and will know of.
    #[must_use]
    pub fn open(&self, dialer: &Dialer) -> Watching {
        let nodes = tokio::spawn(self.clone().watch_nodes(dialer.clone()));
        let plans = tokio::spawn(self.clone().watch_plans(dialer.clone()));
        Watching(vec![nodes, plans])
    }

    /// What was seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the campaign began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whom the nodes that answered lately take for the leader, by the highest term.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        let seen = self.lock();
        let fresh = seen.last.values().filter(|(at, _)| at.elapsed() < FRESH);
        let known = fresh.map(|(_, sample)| sample).filter(|sample| sample.leader != 0);
        known.max_by_key(|sample| sample.term).map(|sample| sample.leader)
    }

    /// Whether a node has taken itself for the leader since.
    #[must_use]
    pub fn led_since(&self, node: u64, at_ms: u64) -> bool {
        let seen = self.lock();
        let since = seen.samples.iter().rev().take_while(|sample| sample.at_ms >= at_ms);
        since.into_iter().any(|sample| sample.node == node && sample.leader == node)
    }

    /// Plans with begun steps, when somebody said so just now.
    #[must_use]
    pub fn under_way(&self) -> BTreeMap<String, pb::RemediationStatus> {
        let seen = self.lock();
        let fresh = seen.under_way.as_ref().filter(|(at, _)| at.elapsed() < FRESH_PLANS);
        fresh.map(|(_, plans)| plans.clone()).unwrap_or_default()
    }

    /// Plans in the middle of a step, or of being undone.
    #[must_use]
    pub fn in_the_middle(&self) -> (usize, usize) {
        use pb::RemediationStatus as S;
        let plans = self.under_way();
        let count = |status| plans.values().filter(|found| **found == status).count();
        (count(S::Running), count(S::Unwinding))
    }

    /// The newest fence that a node spoke of.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.lock().last.values().map(|(_, sample)| sample.fence).max().unwrap_or(0)
    }

    /// A task for each node there is; dropped together with this one.
    async fn watch_nodes(self, dialer: Dialer) {
        let (mut watched, mut tasks) = (BTreeSet::new(), JoinSet::new());
        loop {
            for node in dialer.nodes() {
                if watched.insert(node) {
                    tasks.spawn(self.clone().watch_node(dialer.clone(), node));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn watch_node(self, dialer: Dialer, node: u64) {
        let mut client: Option<Client> = None;
        let mut looks = 0_u64;
        // Numbers are never used again: whoever has left does not come back.
        while dialer.nodes().contains(&node) {
            tokio::time::sleep(LOOK).await;
            if client.is_none() {
                client = dialer.dial(node).await.ok();
            }
            let Some(connected) = &mut client else { continue };
            looks += 1;
            let looked = async {
                self.look(connected, node).await?;
                if looks.is_multiple_of(4) { self.look_at_shards(connected).await } else { Ok(()) }
            };
            if !matches!(tokio::time::timeout(PATIENCE, looked).await, Ok(Ok(()))) {
                client = None;
            }
        }
    }

    async fn look(&self, client: &mut Client, node: u64) -> Result<(), tonic::Status> {
        let status = client.cluster().status(stale(pb::StatusRequest {})).await?.into_inner();
        if status.answered_by != node {
            return Ok(());
        }
        let sample = Sample {
            at_ms: self.now_ms(),
            node,
            leader: status.leader,
            term: status.term,
            applied: status.applied,
            hash: status.state_hash,
            fence: status.fence,
        };
        let mut seen = self.lock();
        seen.last.insert(node, (Instant::now(), sample.clone()));
        seen.samples.push(sample);
        Ok(())
    }

    async fn look_at_shards(&self, client: &mut Client) -> Result<(), tonic::Status> {
        let request = pb::ListShardsRequest { page_size: 1_000, ..Default::default() };
        let shards = client.cluster().list_shards(stale(request)).await?.into_inner().shards;
        let mut seen = self.lock();
        for shard in shards {
            if let Some(owner) = shard.owner {
                seen.owners.entry((shard.id, shard.epoch)).or_default().insert(owner);
            }
        }
        Ok(())
    }

    async fn watch_plans(self, dialer: Dialer) {
        let mut client: Option<Client> = None;
        let mut turn = 0;
        loop {
            tokio::time::sleep(LOOK_PLANS).await;
            if client.is_none() {
                turn += 1;
                let nodes = dialer.nodes();
                let node = self.leader().or_else(|| nodes.get(turn % nodes.len().max(1)).copied());
                client = match node {
                    Some(node) => dialer.dial(node).await.ok(),
                    None => None,
                };
            }
            let Some(connected) = &mut client else { continue };
            let looked = tokio::time::timeout(PATIENCE, self.look_at_plans(connected)).await;
            if !matches!(looked, Ok(Ok(()))) {
                client = None;
            }
        }
    }

    async fn look_at_plans(&self, client: &mut Client) -> Result<(), tonic::Status> {
        use pb::RemediationStatus as S;
        let request = pb::ListRemediationsRequest { page_size: 500, ..Default::default() };
        let plans = client.remediations().list(stale(request)).await?.into_inner().remediations;
        let under_way = plans
            .iter()
            .filter(|plan| matches!(plan.status(), S::Running | S::Verifying | S::Unwinding))
            .filter(|plan| plan.started_at.is_some())
            .map(|plan| (plan.id.clone(), plan.status()))
            .collect();
        self.lock().under_way = Some((Instant::now(), under_way));
        for plan in plans {
            let known = self.lock().plans.contains_key(&plan.id);
            if !known {
                let request = pb::GetRemediationRequest { id: plan.id.clone() };
                let whole = client.remediations().get(stale(request)).await?.into_inner();
                let digest = whole.remediation.map(|plan| plan.digest).unwrap_or_default();
                let incident = plan.incident.clone();
                let fresh = PlanSeen { incident, digest, statuses: Vec::new() };
                self.lock().plans.insert(plan.id.clone(), fresh);
            }
            let status = plan.status().as_str_name().trim_start_matches("REMEDIATION_STATUS_");
            if let Some(known) = self.lock().plans.get_mut(&plan.id)
                && known.statuses.last().is_none_or(|last| last != status)
            {
                known.statuses.push(status.to_owned());
            }
        }
        Ok(())
    }
}

/// A request that is answered from what the node has.
pub(super) fn stale<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = tonic::metadata::MetadataValue::from_static("stale");
    request.metadata_mut().insert("medic-consistency", value);
    request
}
