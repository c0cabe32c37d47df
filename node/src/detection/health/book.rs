//! How everything that is watched does, known to each node.
//!
//! ```text
//!   runtime here ─► instances of owned shards, by shard ── every few seconds, to all ──► other nodes: told
//!                                                                                            │
//!   control API on any node ◄── every declared instance: own, told, or why nothing is known ◄┘
//! ```
//!
//! Word of a shard counts when it comes from the owner by the law, under the present epoch, and is fresh.
//! An instance of which there is none is listed as well: in [`Status::Error`], or [`Status::Waiting`] where
//! its owner, or this node, has only just begun. It is never shown as it was: old health is no health.
//! Bounds: [`CAUSES_MAX`] causes of [`CAUSE_BYTES_MAX`] a monitor; parcels of at most
//! [`MAX_PARCEL_BYTES`]; of a shard too large for one, the instances that find no room are unknown.
//!
//! Deliberately absent: the log. Health changes by the second, and is made out anew anywhere.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use medic_api::control::{HealthView, Healths};
use medic_raft::{Ledger, LedgerExt as _, MAX_PARCEL_BYTES, ParcelKind};
use medic_state::{
    Epoch, NodeId, ShardId, State, Timestamp, codec,
    manifest::{Kind, Spec},
    state::SHARDS,
    symptom::Target,
    text::clip_to,
};
use minicbor::{Decode, Encode};
use tokio::time::Instant;

use super::{InstanceHealth, Status, callees, of_services, shown};
use crate::detection::{
    runtime::{Health, lock},
    share::{Lack, STALE, Tells, Unknown, gaps, lack, owned},
};

/// Causes of one monitor that are told of, the worst: whoever wants all asks its watcher.
const CAUSES_MAX: usize = 8;
/// Longest cause that is told of.
const CAUSE_BYTES_MAX: usize = 512;

/// Asks for the present health of what this node watches.
pub type OwnHealth = Arc<dyn Fn() -> Health + Send + Sync>;

/// By instance name.
type Instances = BTreeMap<Target, InstanceHealth>;

/// What this node knows of how everything does.
pub struct HealthBook {
    ledger: Arc<dyn Ledger>,
    own: OwnHealth,
    told: Mutex<BTreeMap<NodeId, BTreeMap<ShardId, OfShard>>>,
    begun: Instant,
}

/// The last word about a shard.
struct OfShard {
    epoch: Epoch,
    at: Timestamp,
    came: Instant,
    instances: Instances,
}

/// One parcel: some shards, each with all its instances.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
struct Message {
    /// When, by the sender's clock.
    #[n(0)]
    at: Timestamp,
    #[n(1)]
    shards: BTreeMap<ShardId, Told>,
}

/// A shard as it travels.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
struct Told {
    /// Under which the sender owns it.
    #[n(0)]
    epoch: Epoch,
    #[n(1)]
    instances: Vec<(Target, InstanceHealth)>,
}

impl fmt::Debug for HealthBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthBook").field("node", &self.ledger.node()).finish_non_exhaustive()
    }
}

impl HealthBook {
    /// Nothing told yet.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, own: OwnHealth) -> Self {
        Self { ledger, own, told: Mutex::default(), begun: Instant::now() }
    }

    fn watched(&self) -> Instances {
        let services = (self.own)().services.into_iter();
        let all = services.flat_map(|of| {
            let (tenant, service) = (of.tenant, of.service);
            of.instances.into_iter().map(move |health| {
                let instance = health.instance.clone();
                (Target { tenant: tenant.clone(), service: service.clone(), instance }, health)
            })
        });
        all.collect()
    }

    /// Why nothing is known about a shard, and who would know.
    fn unknown(
        &self,
        state: &State,
        told: &BTreeMap<NodeId, BTreeMap<ShardId, OfShard>>,
        shard: ShardId,
    ) -> Option<(Status, Unknown)> {
        let heard = |owner| {
            let shards = told.get(&owner)?;
            let newest = shards.values().map(|one| one.came).max()?;
            let fresh = shards.get(&shard).filter(|one| one.came.elapsed() <= STALE);
            Some((newest, fresh.map(|one| one.epoch)))
        };
        let (owner, lack) = lack(state, self.ledger.node(), shard, heard)?;
        let new_here = self.begun.elapsed() <= STALE;
        let status = match lack {
            Lack::Begun => Status::Waiting,
            Lack::Unheard if new_here => Status::Waiting,
            Lack::Nobody | Lack::Unheard | Lack::Silent(_) => Status::Error,
        };
        Some((status, (owner, lack.why("how they do"))))
    }
}

/// Shards in messages that fit a parcel each.
fn pieces(at: Timestamp, shards: BTreeMap<ShardId, Told>, bytes_max: usize) -> Vec<Vec<u8>> {
    let (mut done, mut piece, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
    let encoded = |piece: &mut BTreeMap<ShardId, Told>| {
        codec::encode(&Message { at, shards: std::mem::take(piece) })
    };
    for (shard, mut told) in shards {
        // The number of the shard, and what the message around it takes.
        let length = |told: &Told| codec::encode(told).len() + 64;
        while length(&told) > bytes_max && !told.instances.is_empty() {
            let half = told.instances.len() / 2;
            tracing::warn!(%shard, left_off = told.instances.len() - half, "too much health for a parcel");
            told.instances.truncate(half);
        }
        let length = length(&told);
        if bytes + length > bytes_max && !piece.is_empty() {
            done.push(encoded(&mut piece));
            bytes = 0;
        }
        bytes += length;
        piece.insert(shard, told);
    }
    if !piece.is_empty() {
        done.push(encoded(&mut piece));
    }
    done
}

/// With bounded causes.
fn bounded(mut health: InstanceHealth) -> InstanceHealth {
    for monitor in &mut health.monitors {
        let more = monitor.causes.len().saturating_sub(CAUSES_MAX);
        monitor.causes.truncate(CAUSES_MAX);
        for cause in &mut monitor.causes {
            *cause = clip_to(cause, CAUSE_BYTES_MAX);
        }
        if more > 0 {
            monitor.causes.push(format!("and {more} more"));
        }
    }
    health
}

impl Tells for HealthBook {
    fn parcels(&self) -> ParcelKind {
        ParcelKind::Health
    }

    fn to_tell(&self, _round: u64) -> Vec<Vec<u8>> {
        let (node, at) = (self.ledger.node(), self.ledger.env().clock.now());
        let covers = self.ledger.read(|state| owned(state, node));
        let empty = |(shard, epoch)| (shard, Told { epoch, instances: Vec::new() });
        let mut shards: BTreeMap<ShardId, Told> = covers.into_iter().map(empty).collect();
        for (target, health) in self.watched() {
            if let Some(told) = shards.get_mut(&State::shard_of(&target)) {
                told.instances.push((target, bounded(health)));
            }
        }
        pieces(at, shards, MAX_PARCEL_BYTES)
    }

    fn take(&self, from: NodeId, body: &[u8]) -> Result<(), codec::CodecError> {
        let Message { at, shards } = codec::decode(body)?;
        let mut all = shards.values().flat_map(|told| &told.instances);
        if let Some((target, _)) = all.find(|(_, health)| !health.scored()) {
            let reason = format!("the score of {target} is above 100");
            return Err(codec::CodecError { what: "how instances do", reason });
        }
        let came = Instant::now();
        let nodes: Vec<NodeId> = self.ledger.read(|state| state.nodes.keys().copied().collect());
        let mut told = lock(&self.told);
        // Whoever was removed no longer tells, and never comes back under its number.
        told.retain(|node, _| nodes.contains(node));
        let of_node = told.entry(from).or_default();
        for (shard, one) in shards.into_iter().filter(|(shard, _)| shard.0 < SHARDS) {
            let instances = one.instances.into_iter().collect();
            of_node.insert(shard, OfShard { epoch: one.epoch, at, came, instances });
        }
        Ok(())
    }
}

impl HealthView for HealthBook {
    fn healths(&self) -> Healths {
        let (me, now) = (self.ledger.node(), self.ledger.env().clock.now());
        let own = self.watched();
        let told = lock(&self.told);
        self.ledger.read(|state| {
            let unknown: BTreeMap<ShardId, (Status, Unknown)> = (0..SHARDS)
                .map(ShardId)
                .filter_map(|shard| Some((shard, self.unknown(state, &told, shard)?)))
                .collect();
            let (mut words, mut of_service) = (Vec::new(), Vec::new());
            for (target, depends_on) in declared(state) {
                let shard = State::shard_of(&target);
                let (health, word) = match unknown.get(&shard) {
                    Some((status, (node, why))) => {
                        (nothing_known(&target, *status), (*node, Err(why.clone())))
                    }
                    None => {
                        let owner = state.shards.get(&shard).and_then(|held| held.owner);
                        let of_owner = owner.and_then(|owner| told.get(&owner)?.get(&shard));
                        let known = match of_owner.filter(|_| owner != Some(me)) {
                            Some(one) => one.instances.get(&target).map(|found| (found, one.at)),
                            None => own.get(&target).map(|found| (found, now)),
                        };
                        known.map_or_else(
                            || {
                                let why =
                                    "its watch has just begun, or finds no room in what is told";
                                (
                                    nothing_known(&target, Status::Waiting),
                                    (owner, Err(why.to_owned())),
                                )
                            },
                            |(health, at)| (health.clone(), (owner, Ok(at))),
                        )
                    }
                };
                let known = (target.tenant.clone(), target.service.clone(), health.clone());
                of_service.push(known);
                words.push((target, depends_on, health, word));
            }
            let alone = of_services(of_service);
            let by_name = callees::by_name(&alone);
            let mut of_service = Vec::new();
            let mut instances = Vec::new();
            for (target, depends_on, mut health, word) in words {
                callees::heed(&mut health, &target.tenant, depends_on, &by_name);
                instances.push(shown::instance(&target, &health, &word));
                of_service.push((target.tenant, target.service, health));
            }
            let services = of_services(of_service).iter().map(shown::service).collect();
            let gaps = gaps(unknown.into_iter().map(|(shard, (_, why))| (shard, why)));
            Healths { instances, services, gaps }
        })
    }
}

fn nothing_known(target: &Target, status: Status) -> InstanceHealth {
    let instance = target.instance.clone();
    InstanceHealth { instance, status, score: None, monitors: Vec::new() }
}

/// Every instance that is declared, and on what its service depends.
fn declared(state: &State) -> Vec<(Target, &[String])> {
    let services = state.manifests.iter().filter(|(key, _)| key.kind == Kind::Service);
    let all = services.flat_map(|(key, stored)| {
        let (named, depends_on) = match &stored.manifest.spec {
            Spec::Service(service) => (service.instances.as_slice(), service.depends_on.as_slice()),
            _ => (&[][..], &[][..]),
        };
        named.iter().map(move |instance| {
            let target = Target {
                tenant: key.tenant.clone(),
                service: key.name.clone(),
                instance: instance.name.clone(),
            };
            (target, depends_on)
        })
    });
    all.collect()
}

#[cfg(test)]
mod tests;
