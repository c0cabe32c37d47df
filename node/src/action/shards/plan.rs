//! Who watches what. Pure.
//!
//! A shard may be watched by the live followers (by the leader too, only when fewer than two
//! followers live), those of its services' region first. A shard stays with its owner unless the
//! owner may not have it any more or has more than its share: what must move moves at once, and
//! nothing else moves. Among those with room, the highest hash of (shard, node) takes it.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{Digest, NodeId, ShardId, State, manifest::Spec, state::SHARDS, symptom::Target};

/// The moves that give every shard an owner that may have it, and nobody more than a fair share.
/// Empty when nothing must move.
#[must_use]
pub fn plan_moves(state: &State, leader: NodeId) -> BTreeMap<ShardId, NodeId> {
    moves_without(state, leader, None)
}

/// Who would be given each of a node's shards if that node died now: whom it keeps informed.
#[must_use]
pub fn heirs(state: &State, node: NodeId, leader: NodeId) -> BTreeMap<ShardId, NodeId> {
    let mut moves = moves_without(state, leader, Some(node));
    moves.retain(|shard, _| state.shards.get(shard).is_some_and(|held| held.owner == Some(node)));
    moves
}

fn moves_without(state: &State, leader: NodeId, dead: Option<NodeId>) -> BTreeMap<ShardId, NodeId> {
    let live = state.nodes.iter().filter(|(id, node)| node.live && Some(**id) != dead);
    let live: Vec<NodeId> = live.map(|(id, _)| *id).collect();
    let followers: Vec<NodeId> = live.iter().copied().filter(|node| *node != leader).collect();
    let able = if followers.len() >= 2 { followers } else { live };
    let regions = shard_regions(state);
    // Shards with the same candidates share them evenly.
    let mut groups: BTreeMap<Vec<NodeId>, Vec<ShardId>> = BTreeMap::new();
    for shard in (0..SHARDS).map(ShardId) {
        let near: Vec<NodeId> = match regions.get(&shard) {
            Some(region) => able.iter().copied().filter(|n| in_region(state, *n, region)).collect(),
            None => Vec::new(),
        };
        let candidates = if near.is_empty() { able.clone() } else { near };
        groups.entry(candidates).or_default().push(shard);
    }
    groups
        .iter()
        .filter(|(candidates, _)| !candidates.is_empty())
        .flat_map(|(candidates, shards)| spread(state, candidates, shards))
        .collect()
}

/// Spreads one group of shards over its candidates: everybody has the fair share rounded down, and
/// as many as the rest asks for have one more. What fits within that stays where it is.
fn spread(state: &State, candidates: &[NodeId], shards: &[ShardId]) -> Vec<(ShardId, NodeId)> {
    let share = shards.len() / candidates.len();
    let mut one_more = shards.len() % candidates.len();
    let mut held: BTreeMap<NodeId, Vec<ShardId>> =
        candidates.iter().map(|node| (*node, Vec::new())).collect();
    let mut homeless = Vec::new();
    for shard in shards {
        let owner = state.shards.get(shard).and_then(|shard| shard.owner);
        match owner.and_then(|owner| held.get_mut(&owner)) {
            Some(of_owner) => of_owner.push(*shard),
            None => homeless.push(*shard),
        }
    }
    for (node, of_node) in &mut held {
        let mut keep = share;
        if of_node.len() > share && one_more > 0 {
            one_more -= 1;
            keep += 1;
        }
        if of_node.len() > keep {
            // Those it would be given first, it keeps.
            of_node.sort_by_cached_key(|shard| std::cmp::Reverse(weight(*shard, *node)));
            homeless.extend(of_node.split_off(keep));
        }
    }
    homeless.sort();
    let mut moves = Vec::with_capacity(homeless.len());
    for shard in homeless {
        let room = |of_node: &Vec<ShardId>| {
            of_node.len() < share || (of_node.len() == share && one_more > 0)
        };
        let with_room = held.iter_mut().filter(|(_, of_node)| room(of_node));
        let taker = with_room.max_by_key(|(node, _)| weight(shard, **node));
        let Some((node, of_node)) = taker else { break };
        if of_node.len() == share {
            one_more -= 1;
        }
        of_node.push(shard);
        moves.push((shard, *node));
    }
    moves
}

/// Rendezvous hashing: a node's claim on a shard.
fn weight(shard: ShardId, node: NodeId) -> (Digest, NodeId) {
    (Digest::of(&[&shard.0.to_be_bytes(), &node.0.to_be_bytes()]), node)
}

fn in_region(state: &State, node: NodeId, region: &str) -> bool {
    state.nodes.get(&node).is_some_and(|node| node.region == region)
}

/// The region most instances of a shard's services are in, where they name one.
fn shard_regions(state: &State) -> BTreeMap<ShardId, String> {
    let mut counts: BTreeMap<ShardId, BTreeMap<&str, usize>> = BTreeMap::new();
    for stored in state.manifests.values() {
        let Spec::Service(service) = &stored.manifest.spec else { continue };
        let regions: Vec<&str> =
            service.instances.iter().filter_map(|instance| instance.region.as_deref()).collect();
        if regions.is_empty() {
            continue;
        }
        let target = Target {
            tenant: stored.manifest.metadata.tenant.clone(),
            service: stored.manifest.metadata.name.clone(),
            instance: String::new(),
        };
        let of_shard = counts.entry(State::shard_of(&target)).or_default();
        for region in regions {
            *of_shard.entry(region).or_default() += 1;
        }
    }
    let most = |regions: BTreeMap<&str, usize>| {
        regions.into_iter().max_by_key(|(_, count)| *count).map(|(region, _)| region.to_owned())
    };
    counts.into_iter().filter_map(|(shard, regions)| Some((shard, most(regions)?))).collect()
}

/// The nodes that own shards, for people and tests.
#[must_use]
pub fn owners(state: &State) -> BTreeSet<NodeId> {
    state.shards.values().filter_map(|shard| shard.owner).collect()
}

#[cfg(test)]
mod tests {
    use medic_state::{Epoch, Timestamp, state::ShardState};

    use super::{super::tests::state, *};

    fn settle(state: &mut State, leader: u64) -> usize {
        let moves = plan_moves(state, NodeId(leader));
        for (shard, node) in &moves {
            let owner = ShardState { owner: Some(*node), epoch: Epoch(1), since: Timestamp(0) };
            state.shards.insert(*shard, owner);
        }
        assert!(plan_moves(state, NodeId(leader)).is_empty(), "a second look moves nothing");
        moves.len()
    }

    fn loads(state: &State) -> BTreeMap<u64, usize> {
        let mut loads = BTreeMap::new();
        for owner in state.shards.values().filter_map(|shard| shard.owner) {
            *loads.entry(owner.0).or_default() += 1;
        }
        loads
    }

    #[test]
    fn followers_share_evenly_and_the_leader_watches_nothing() {
        let mut three = state(&[(1, true, ""), (2, true, ""), (3, true, "")]);
        settle(&mut three, 1);
        assert_eq!(loads(&three), BTreeMap::from([(2, 32), (3, 32)]));
    }

    #[test]
    fn with_one_follower_the_leader_takes_half_and_alone_it_takes_all() {
        let mut cluster = state(&[(1, true, ""), (2, true, ""), (3, false, "")]);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster), BTreeMap::from([(1, 32), (2, 32)]));
        let mut alone = state(&[(1, true, "")]);
        assert_eq!(settle(&mut alone, 1), 64);
        assert!(plan_moves(&state(&[(1, false, "")]), NodeId(1)).is_empty());
    }

    #[test]
    fn only_what_must_move_moves() {
        let all = [(1, true, ""), (2, true, ""), (3, true, ""), (4, true, ""), (5, true, "")];
        let mut cluster = state(&all);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster).values().sum::<usize>(), 64);
        if let Some(node) = cluster.nodes.get_mut(&NodeId(3)) {
            node.live = false;
        }
        assert_eq!(settle(&mut cluster, 1), 16, "a dead owner's shards, and no others");
        if let Some(node) = cluster.nodes.get_mut(&NodeId(3)) {
            node.live = true;
        }
        assert_eq!(settle(&mut cluster, 1), 16, "it gets its share back");
        assert_eq!(loads(&cluster), BTreeMap::from([(2, 16), (3, 16), (4, 16), (5, 16)]));
    }

    #[test]
    fn the_heirs_are_those_who_get_the_shards_when_their_owner_dies() {
        let all = [(1, true, ""), (2, true, "a"), (3, true, "b"), (4, true, "a"), (5, true, "")];
        for size in 2..=all.len() {
            let mut cluster = state(&all[..size]);
            settle(&mut cluster, 1);
            let owners = owners(&cluster);
            for owner in owners {
                let said = heirs(&cluster, owner, NodeId(1));
                let mut after = cluster.clone();
                if let Some(node) = after.nodes.get_mut(&owner) {
                    node.live = false;
                }
                let moved = plan_moves(&after, NodeId(1));
                let held = |shard: &ShardId| cluster.shards[shard].owner == Some(owner);
                assert!(!said.is_empty() && said.keys().all(held), "{owner} of {size}");
                let of_owner: BTreeMap<_, _> =
                    moved.into_iter().filter(|(shard, _)| held(shard)).collect();
                assert_eq!(said, of_owner, "{owner} of {size}");
            }
        }
    }
}
