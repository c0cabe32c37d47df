//! What the state wants this node to watch. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use medic_state::{
    Epoch, Millis, NodeId, ShardId, State, Timestamp,
    incident::Resolution,
    manifest::{InstanceSpec, Kind as ManifestKind, Manifest, ManifestKey, ServiceSpec, Spec},
    symptom::{Fingerprint, Symptom, Target},
};

use super::foretell::{Topic, is_ours};
use crate::detection::{ensemble::Kind, entity::fingerprint_of};

/// As long as the built-in playbook leaves a target alone: people would be asked about what may not be done yet.
const FAILURE_RESTS: Millis = Millis::from_secs(6 * 3_600);

/// One instance to be watched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    /// Log index of the manifest: another one starts the task anew.
    pub(super) index: u64,
    pub(super) manifest: Arc<Manifest>,
    /// Position among the manifest's instances.
    pub(super) position: usize,
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        (self.shard, self.epoch, self.index, self.position)
            == (other.shard, other.epoch, other.index, other.position)
    }
}

impl Wanted {
    /// The service and the instance.
    pub(super) fn declared(&self) -> Option<(&ServiceSpec, &InstanceSpec)> {
        let Spec::Service(service) = &self.manifest.spec else { return None };
        Some((service, service.instances.get(self.position)?))
    }
}

/// Every instance of the shards this node owns, save shards whose epoch was refused already.
pub(super) fn wanted(
    state: &State,
    node: NodeId,
    stale: &BTreeMap<ShardId, Epoch>,
) -> BTreeMap<Target, Wanted> {
    let mut all = BTreeMap::new();
    for (key, stored) in services(state) {
        let Spec::Service(service) = &stored.manifest.spec else { continue };
        let shard = State::shard_of(&whole(key));
        let Some(owned) = state.shards.get(&shard).filter(|s| s.owner == Some(node)) else {
            continue;
        };
        if stale.get(&shard).is_some_and(|epoch| owned.epoch <= *epoch) {
            continue;
        }
        for (position, instance) in service.instances.iter().enumerate() {
            let target = Target { instance: instance.name.clone(), ..whole(key) };
            let wanted = Wanted {
                shard,
                epoch: owned.epoch,
                index: stored.index,
                manifest: stored.manifest.clone(),
                position,
            };
            all.insert(target, wanted);
        }
    }
    all
}

/// Active findings of detection about a target, with the time they began.
pub(super) fn held(state: &State, target: &Target) -> Vec<(Kind, Timestamp)> {
    active(state)
        .filter(|symptom| symptom.target == *target)
        .filter_map(|symptom| Some((Kind::parse(&symptom.kind)?, symptom.since)))
        .collect()
}

/// Active findings of detection, in owned shards, about instances that are not declared.
pub(super) fn orphans(state: &State, node: NodeId) -> Vec<(ShardId, Epoch, Fingerprint)> {
    active(state)
        .filter(|symptom| Kind::parse(&symptom.kind).is_some() || is_ours(&symptom.kind))
        .filter(|symptom| !declared(state, &symptom.target))
        .filter_map(|symptom| {
            let shard = State::shard_of(&symptom.target);
            let owned = state.shards.get(&shard).filter(|s| s.owner == Some(node))?;
            Some((shard, owned.epoch, symptom.fingerprint()))
        })
        .collect()
}

/// What was foretold of a target that open incidents hold.
pub(super) fn foretold(state: &State, target: &Target) -> BTreeSet<Topic> {
    let all = super::foretell::fingerprints(target).into_iter();
    all.filter(|(_, fingerprint)| state.fingerprints.contains_key(fingerprint))
        .map(|(topic, _)| topic)
        .collect()
}

/// Whether a failure that was foretold of a target has been dealt with so lately that it is not foretold anew: what
/// history says of its process, it says of the one before the treatment; and whoever closed it by hand knows of it.
pub(super) fn failure_rests(state: &State, target: &Target) -> bool {
    let foretold = fingerprint_of(target, Topic::Failure.symptom());
    let dealt_with = [Some(Resolution::Remediated), Some(Resolution::ByHand)];
    state.incidents.values().any(|incident| {
        let lately = incident.resolved_at.is_some_and(|at| state.now.since(at) < FAILURE_RESTS);
        incident.closed()
            && lately
            && dealt_with.contains(&incident.resolution)
            && incident.symptoms.contains_key(&foretold)
    })
}

fn active(state: &State) -> impl Iterator<Item = &Symptom> {
    state
        .incidents
        .values()
        .filter(|incident| !incident.closed())
        .flat_map(|incident| incident.symptoms.values())
        .filter(|held| held.cleared_at.is_none() && held.symptom.source.starts_with("shard-"))
        .map(|held| &held.symptom)
}

fn declared(state: &State, target: &Target) -> bool {
    let key = ManifestKey {
        kind: ManifestKind::Service,
        tenant: target.tenant.clone(),
        name: target.service.clone(),
    };
    state.manifests.get(&key).is_some_and(|stored| match &stored.manifest.spec {
        Spec::Service(service) => {
            target.instance.is_empty()
                || service.instances.iter().any(|instance| instance.name == target.instance)
        }
        _ => false,
    })
}

fn services(state: &State) -> impl Iterator<Item = (&ManifestKey, &medic_state::manifest::Stored)> {
    let first =
        ManifestKey { kind: ManifestKind::Service, tenant: String::new(), name: String::new() };
    state.manifests.range(first..).take_while(|(key, _)| key.kind == ManifestKind::Service)
}

fn whole(key: &ManifestKey) -> Target {
    Target { tenant: key.tenant.clone(), service: key.name.clone(), instance: String::new() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use medic_state::incident::IncidentStatus;

    use super::*;
    use crate::fixture::{T0, at, open, symptom};

    #[test]
    fn a_foretold_failure_rests_once_it_was_dealt_with_and_not_where_it_merely_ended() {
        for (resolution, kind, rests) in [
            (Resolution::Remediated, "failure-predicted", true),
            (Resolution::ByHand, "failure-predicted", true),
            (Resolution::SelfCleared, "failure-predicted", false),
            (Resolution::Merged, "failure-predicted", false),
            (Resolution::Remediated, "down", false),
        ] {
            let mut state = State::default();
            let id = open(&mut state, 7, vec![symptom("orders-1", kind, &[])]);
            state.now = T0.plus(Millis(1));
            assert!(!failure_rests(&state, &at("orders-1")), "it is open still");
            let incident = state.incidents.get_mut(&id).unwrap();
            (incident.status, incident.resolution) = (IncidentStatus::Resolved, Some(resolution));
            incident.resolved_at = Some(T0);
            assert_eq!(failure_rests(&state, &at("orders-1")), rests, "{resolution:?} {kind}");
            assert!(!failure_rests(&state, &at("orders-2")), "another one");
            state.now = T0.plus(FAILURE_RESTS);
            assert!(!failure_rests(&state, &at("orders-1")), "long ago");
        }
    }
}
