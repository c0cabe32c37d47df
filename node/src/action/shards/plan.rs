//! Who watches what. Pure.
//!
//! A shard may be watched by the live followers (by the leader too, only when fewer than two
//! followers live), those of its services' region first. Drained nodes, nodes about to stop and nodes
//! of weight zero watch only where nobody else can. Shards are dealt in proportion to the nodes'
//! weights. A shard stays with its owner unless the owner may not have it any more or has more than
//! its share: what must move moves at once, and nothing else moves. Among those with room, the
//! highest claim takes it: see [`claim`].

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use medic_state::{
    Digest, NodeId, ShardId, State,
    manifest::Spec,
    state::{NodeState, SHARDS},
    symptom::Target,
};

/// The moves that give every shard an owner that may have it, and nobody more than its share.
/// Empty when nothing must move.
///
/// `unheard`: nodes that are live for all that the state says, and that the leader does not hear (yet). They
/// are given nothing; and until it is known whether they live, only what a dead node owns moves, for they
/// may get it all back a moment later.
#[must_use]
pub fn plan_moves(
    state: &State,
    leader: NodeId,
    unheard: &BTreeSet<NodeId>,
) -> BTreeMap<ShardId, NodeId> {
    let mut moves = moves_without(state, leader, unheard);
    if !unheard.is_empty() {
        let owner = |shard: &ShardId| state.shards.get(shard).and_then(|shard| shard.owner);
        let dead = |node| state.nodes.get(&node).is_none_or(|node| !node.live);
        moves.retain(|shard, _| owner(shard).is_some_and(dead));
    }
    moves
}

/// Who would be given each of a node's shards if that node died now: whom it keeps informed.
#[must_use]
pub fn heirs(state: &State, node: NodeId, leader: NodeId) -> BTreeMap<ShardId, NodeId> {
    let mut moves = moves_without(state, leader, &BTreeSet::from([node]));
    moves.retain(|shard, _| state.shards.get(shard).is_some_and(|held| held.owner == Some(node)));
    moves
}

fn moves_without(
    state: &State,
    leader: NodeId,
    without: &BTreeSet<NodeId>,
) -> BTreeMap<ShardId, NodeId> {
    let able = able(state, leader, without);
    let regions = shard_regions(state);
    // Shards with the same candidates are dealt together.
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
        .flat_map(|(candidates, shards)| deal(state, candidates, shards))
        .collect()
}

/// Who may watch: the live ones that are meant to; failing that, those of weight zero; failing that,
/// whoever lives. Of these the followers, where there are two of them.
fn able(state: &State, leader: NodeId, without: &BTreeSet<NodeId>) -> Vec<NodeId> {
    let choices: [fn(&NodeState) -> bool; 3] =
        [|node| node.stays() && node.weight > 0, NodeState::stays, |_| true];
    for may in choices {
        let live = state.nodes.iter().filter(|(id, node)| node.live && !without.contains(id));
        let able: Vec<NodeId> = live.filter(|(_, node)| may(node)).map(|(id, _)| *id).collect();
        if !able.is_empty() {
            let followers: Vec<NodeId> =
                able.iter().copied().filter(|node| *node != leader).collect();
            return if followers.len() >= 2 { followers } else { able };
        }
    }
    Vec::new()
}

/// One candidate's place while a group is dealt.
struct Seat {
    node: NodeId,
    weight: u64,
    /// Its share rounded down, and one more once that was given.
    limit: usize,
    /// What rounding down took, in parts of all weights; zero: its share is whole.
    rest: u64,
    held: Vec<ShardId>,
}

/// Deals one group of shards to its candidates: everybody has its share by weight rounded down, and as
/// many as the rest asks for, of those whose share is not whole, have one more. What fits within that
/// stays where it is.
fn deal(state: &State, candidates: &[NodeId], shards: &[ShardId]) -> Vec<(ShardId, NodeId)> {
    let mut seats = seats(state, candidates, shards.len());
    let mut more = shards.len().saturating_sub(seats.iter().map(|seat| seat.limit).sum());
    let mut homeless = Vec::new();
    for shard in shards {
        let owner = state.shards.get(shard).and_then(|shard| shard.owner);
        match seats.iter_mut().find(|seat| Some(seat.node) == owner) {
            Some(seat) => seat.held.push(*shard),
            None => homeless.push(*shard),
        }
    }
    // One more for those who hold it already: no move is as good as that.
    let mut over: Vec<&mut Seat> =
        seats.iter_mut().filter(|seat| seat.rest > 0 && seat.held.len() > seat.limit).collect();
    over.sort_by_key(|seat| (Reverse(seat.rest), seat.node));
    for seat in over.into_iter().take(more) {
        seat.limit += 1;
        seat.rest = 0;
        more -= 1;
    }
    for seat in &mut seats {
        if seat.held.len() > seat.limit {
            // Those it would be given first, it keeps.
            seat.held.sort_by_cached_key(|shard| Reverse(digest(*shard, seat.node)));
            homeless.extend(seat.held.split_off(seat.limit));
        }
    }
    homeless.sort();
    let mut moves = Vec::with_capacity(homeless.len());
    for shard in homeless {
        let room = |seat: &&mut Seat| {
            seat.held.len() < seat.limit
                || (seat.held.len() == seat.limit && seat.rest > 0 && more > 0)
        };
        let taker = seats.iter_mut().filter(room).max_by(|a, b| {
            let claim = |seat: &Seat| claim(shard, seat.node, seat.weight);
            claim(a).total_cmp(&claim(b)).then(a.node.cmp(&b.node))
        });
        let Some(seat) = taker else { break };
        if seat.held.len() == seat.limit {
            seat.limit += 1;
            seat.rest = 0;
            more -= 1;
        }
        seat.held.push(shard);
        moves.push((shard, seat.node));
    }
    moves
}

/// The candidates with their shares of so many shards, nothing held yet. Where all weigh nothing, all
/// weigh the same.
fn seats(state: &State, candidates: &[NodeId], shards: usize) -> Vec<Seat> {
    let weight_of = |node: &NodeId| state.nodes.get(node).map_or(0, |node| u64::from(node.weight));
    let weights: Vec<u64> = candidates.iter().map(|node| weight_of(node).max(1)).collect();
    let all: u64 = weights.iter().sum::<u64>().max(1);
    let seat = |(node, weight): (&NodeId, u64)| {
        let parts = shards as u64 * weight;
        Seat {
            node: *node,
            weight,
            limit: usize::try_from(parts / all).unwrap_or(shards),
            rest: parts % all,
            held: Vec::new(),
        }
    };
    candidates.iter().zip(weights).map(seat).collect()
}

/// Weighted rendezvous hashing: a node's claim on a shard, `weight / -ln(u)` with `u` uniform in (0, 1)
/// from their hash. Each node's claim is then the highest with a chance in proportion to its weight
/// (Schindelhauer, Schomaker: "Weighted distributed hash tables", SPAA 2005). Equal weights leave the
/// order of the hashes.
fn claim(shard: ShardId, node: NodeId, weight: u64) -> f64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest(shard, node).0[..8]);
    // 53 bits, as many as a float holds, and never at an end.
    let uniform = ((u64::from_be_bytes(first) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    weight as f64 / -uniform.ln()
}

fn digest(shard: ShardId, node: NodeId) -> Digest {
    Digest::of(&[&shard.0.to_be_bytes(), &node.0.to_be_bytes()])
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
        let moves = plan_moves(state, NodeId(leader), &BTreeSet::new());
        for (shard, node) in &moves {
            let owner = ShardState { owner: Some(*node), epoch: Epoch(1), since: Timestamp(0) };
            state.shards.insert(*shard, owner);
        }
        assert!(
            plan_moves(state, NodeId(leader), &BTreeSet::new()).is_empty(),
            "a second look moves nothing"
        );
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
        assert!(plan_moves(&state(&[(1, false, "")]), NodeId(1), &BTreeSet::new()).is_empty());
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
    fn a_leader_gives_nothing_to_a_node_that_it_does_not_hear() {
        let mut cluster = state(&[(1, true, ""), (2, true, ""), (3, true, "")]);
        let waits = plan_moves(&cluster, NodeId(1), &BTreeSet::from([NodeId(2)]));
        assert_eq!(waits, BTreeMap::new(), "a cluster that begins is dealt out once");
        settle(&mut cluster, 1);
        // The leader is killed; its follower takes over, and knows of nobody's death yet.
        let unheard = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let moves =
            |cluster: &State, nodes: &[u64]| plan_moves(cluster, NodeId(3), &unheard(nodes));
        assert_eq!(moves(&cluster, &[1, 2]), BTreeMap::new());
        assert_eq!(moves(&cluster, &[1]), BTreeMap::new(), "it goes on watching what it has");
        let killed = cluster.nodes.get_mut(&NodeId(1)).expect("it is there");
        killed.live = false;
        assert_eq!(moves(&cluster, &[]), BTreeMap::new(), "nothing was lost with it");
        // An owner is dead, and another is not heard: the rest share what it had, for now.
        let mut five =
            state(&[(1, true, ""), (2, true, ""), (3, true, ""), (4, true, ""), (5, true, "")]);
        settle(&mut five, 1);
        five.nodes.get_mut(&NodeId(5)).expect("it is there").live = false;
        let moved = plan_moves(&five, NodeId(1), &unheard(&[4]));
        assert_eq!(moved.len(), 16, "what the dead one had");
        assert!(moved.values().all(|node| [2, 3].contains(&node.0)), "{moved:?}");
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
                let moved = plan_moves(&after, NodeId(1), &BTreeSet::new());
                let held = |shard: &ShardId| cluster.shards[shard].owner == Some(owner);
                assert!(!said.is_empty() && said.keys().all(held), "{owner} of {size}");
                let of_owner: BTreeMap<_, _> =
                    moved.into_iter().filter(|(shard, _)| held(shard)).collect();
                assert_eq!(said, of_owner, "{owner} of {size}");
            }
        }
    }

    fn weigh(state: &mut State, weights: &[u32]) {
        for (node, weight) in state.nodes.values_mut().zip(weights) {
            node.weight = *weight;
        }
    }

    fn drain(state: &mut State, node: u64, drained: bool) {
        if let Some(node) = state.nodes.get_mut(&NodeId(node)) {
            node.drained = drained;
        }
    }

    #[test]
    fn a_drained_node_watches_nothing_and_inherits_nothing() {
        let all = [(1, true, ""), (2, true, ""), (3, true, ""), (4, true, "")];
        let mut cluster = state(&all);
        settle(&mut cluster, 1);
        let before = loads(&cluster)[&3];
        drain(&mut cluster, 3, true);
        assert_eq!(settle(&mut cluster, 1), before, "its shards, and no others");
        assert_eq!(loads(&cluster), BTreeMap::from([(2, 32), (4, 32)]));
        let inherited = heirs(&cluster, NodeId(2), NodeId(1));
        assert!(inherited.values().all(|heir| *heir != NodeId(3)), "{inherited:?}");
        drain(&mut cluster, 4, true);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster), BTreeMap::from([(1, 32), (2, 32)]), "one follower is left");
        drain(&mut cluster, 3, false);
        drain(&mut cluster, 4, false);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster).len(), 3);
    }

    #[test]
    fn a_drained_leader_watches_nothing_and_where_all_are_drained_all_watch() {
        let mut cluster = state(&[(1, true, ""), (2, true, ""), (3, false, "")]);
        drain(&mut cluster, 1, true);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster), BTreeMap::from([(2, 64)]));
        drain(&mut cluster, 2, true);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster), BTreeMap::from([(1, 32), (2, 32)]));
        let leaving = cluster.nodes.get_mut(&NodeId(1)).expect("it is there");
        (leaving.drained, leaving.leaving) = (false, true);
        drain(&mut cluster, 2, false);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster), BTreeMap::from([(2, 64)]), "whoever is about to stop, too");
    }

    #[test]
    fn weight_zero_watches_only_where_nobody_else_can() {
        let mut cluster = state(&[(1, true, ""), (2, true, ""), (3, true, ""), (4, true, "")]);
        weigh(&mut cluster, &[100, 0, 100, 300]);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster), BTreeMap::from([(3, 16), (4, 48)]));
        for node in [1, 3, 4] {
            cluster.nodes.get_mut(&NodeId(node)).expect("it is there").live = false;
        }
        settle(&mut cluster, 2);
        assert_eq!(loads(&cluster), BTreeMap::from([(2, 64)]));
    }

    #[test]
    fn within_a_region_weight_decides_as_well() {
        let mut cluster = state(&[(1, true, ""), (2, true, "a"), (3, true, "a"), (4, true, "b")]);
        weigh(&mut cluster, &[100, 100, 300, 0]);
        settle(&mut cluster, 1);
        assert_eq!(loads(&cluster), BTreeMap::from([(2, 16), (3, 48)]));
    }

    /// Fewest moves to any split in which everybody has its share rounded down or up: those that must,
    /// and of each excess what no choice of who has one more can save.
    fn fewest_moves(state: &State, candidates: &[NodeId]) -> usize {
        let weight = |node: &NodeId| f64::from(state.nodes[node].weight);
        let all: f64 = candidates.iter().map(weight).sum();
        let held = |node: &NodeId| {
            state.shards.values().filter(|shard| shard.owner == Some(*node)).count()
        };
        let exact: Vec<f64> =
            candidates.iter().map(|node| f64::from(SHARDS) * weight(node) / all).collect();
        (0..1_u32 << candidates.len())
            .filter_map(|set| {
                let more = |at: usize| usize::from(set & (1 << at) != 0);
                let target = |at: usize| exact[at].floor() as usize + more(at);
                let fits = (0..exact.len()).all(|at| target(at) as f64 <= exact[at].ceil());
                let sum: usize = (0..exact.len()).map(target).sum();
                let stay: usize =
                    candidates.iter().enumerate().map(|(at, n)| held(n).min(target(at))).sum();
                (fits && sum == SHARDS as usize).then_some(SHARDS as usize - stay)
            })
            .min()
            .expect("some split fits")
    }

    proptest::proptest! {
        /// From any split, by any change of weights, drains and deaths.
        #[test]
        fn shares_follow_weights_and_nothing_moves_that_need_not(
            changes in proptest::collection::vec((2_u64..7, 0_u32..500, 0_u8..8), 1..12),
        ) {
            let ids: Vec<(u64, bool, &str)> = (1..7).map(|id| (id, true, "")).collect();
            let mut cluster = state(&ids);
            for (node, weight, what) in changes {
                let known = cluster.nodes.get_mut(&NodeId(node)).expect("it is there");
                match what {
                    0 => known.live = !known.live,
                    1 => known.drained = !known.drained,
                    2 => known.leaving = !known.leaving,
                    _ => known.weight = weight,
                }
                let candidates = able(&cluster, NodeId(1), &BTreeSet::new());
                let zero = candidates.iter().any(|node| cluster.nodes[node].weight == 0);
                let fewest = if zero { None } else { Some(fewest_moves(&cluster, &candidates)) };
                let moved = settle(&mut cluster, 1);
                proptest::prop_assert!(fewest.is_none_or(|fewest| fewest == moved), "{fewest:?} {moved}");
                let all: f64 = candidates.iter().map(|n| f64::from(cluster.nodes[n].weight)).sum();
                let loads = loads(&cluster);
                proptest::prop_assert!(loads.keys().all(|node| candidates.contains(&NodeId(*node))));
                proptest::prop_assert_eq!(loads.values().sum::<usize>(), SHARDS as usize);
                for node in candidates.iter().filter(|_| !zero) {
                    let share = f64::from(SHARDS) * f64::from(cluster.nodes[node].weight) / all;
                    let held = loads.get(&node.0).copied().unwrap_or(0) as f64;
                    proptest::prop_assert!((held - share).abs() < 1.0, "{node}: {held} of {share}");
                }
            }
        }
    }

    #[test]
    fn claims_are_won_in_proportion_to_weight() {
        let won = (0..20_000)
            .map(ShardId)
            .filter(|shard| claim(*shard, NodeId(1), 300) > claim(*shard, NodeId(2), 100))
            .count();
        assert!((14_700..15_300).contains(&won), "{won} of 20000, 15000 expected");
    }
}
