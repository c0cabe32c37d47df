//! The shard controller: the leader sees nodes come and go, and gives every shard an owner.
//!
//! ```text
//!   ClusterAdmin::status ─ silent for how long ─► MarkNode ─┐
//!                                                           ├─► plan_moves ─► AssignShards
//!   State: nodes, shards, services with a region ───────────┘     pure
//! ```
//!
//! A shard may be watched by the live followers (by the leader too, only when fewer than two
//! followers live), those of its services' region first. A shard stays with its owner unless the
//! owner may not have it any more or has more than its share: what must move moves at once, and
//! nothing else moves. Among those with room, the highest hash of (shard, node) takes it.
//!
//! Deliberately absent: epochs. The law counts them, and refuses reports under old ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use medic_raft::{ClusterAdmin, Ledger, LedgerError, LedgerExt as _, Member};
use medic_state::{
    CLUSTER_VERSION, Command, Digest, NodeId, ShardId, State, TraceId,
    command::{AssignShards, MarkNode},
    manifest::Spec,
    planted::{Planted, planted},
    state::SHARDS,
    symptom::Target,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::metrics::Metric;

/// Bounds of the controller.
#[derive(Clone, Copy, Debug)]
pub struct ShardsConfig {
    /// A node that the leader has not heard for so long is dead: some election timeouts.
    pub dead_after: Duration,
    /// Time between two looks.
    pub interval: Duration,
}

impl ShardsConfig {
    /// With slower elections, silence means less.
    #[must_use]
    pub fn for_elections_of(election_max: Duration) -> Self {
        let least = Self::default();
        Self { dead_after: least.dead_after.max(election_max * 5), ..least }
    }
}

impl Default for ShardsConfig {
    fn default() -> Self {
        Self { dead_after: Duration::from_millis(1_500), interval: Duration::from_millis(250) }
    }
}

/// Runs until `stop`; works only while this node leads.
pub async fn run(
    ledger: Arc<dyn Ledger>,
    admin: Arc<dyn ClusterAdmin>,
    config: ShardsConfig,
    stop: CancellationToken,
) {
    let mut leadership = ledger.leadership();
    let mut leading_since = None;
    loop {
        let now = *leadership.borrow_and_update();
        if now.me {
            // A new term is a new beginning, even when this node led the last one too.
            let since = match leading_since {
                Some((term, since)) if term == now.term => since,
                _ => Instant::now(),
            };
            leading_since = Some((now.term, since));
            let status = admin.status();
            if let Err(error) = once(ledger.as_ref(), &status.members, since, config).await {
                tracing::debug!(%error, "shards are not assigned this time");
            }
        } else {
            leading_since = None;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(config.interval), if now.me => {}
        }
    }
}

/// One look: marks who came or went, then moves what must move.
async fn once(
    ledger: &dyn Ledger,
    members: &[Member],
    leading_since: Instant,
    config: ShardsConfig,
) -> Result<(), LedgerError> {
    let me = ledger.node();
    let marks = ledger.read(|state| marks(state, me, members, leading_since.elapsed(), config));
    for mark in marks {
        tracing::info!(node = %mark.node, live = mark.live, "a node came or went");
        propose(ledger, Command::MarkNode(mark)).await?;
    }
    if let Some(version) = ledger.read(|state| newer_version(state, members)) {
        tracing::info!(version, "every member understands a newer command set: switching it on");
        propose(ledger, Command::SetClusterVersion(version)).await?;
    }
    let moves = ledger.read(|state| plan_moves(state, me));
    if moves.is_empty() {
        return Ok(());
    }
    tracing::info!(moves = moves.len(), "shards get new owners");
    metrics::counter!(Metric::ShardMoves.name()).increment(moves.len() as u64);
    propose(ledger, Command::AssignShards(AssignShards { moves })).await
}

async fn propose(ledger: &dyn Ledger, command: Command) -> Result<(), LedgerError> {
    let name = command.name();
    crate::crash_point!("shards_before_propose");
    let committed = ledger.propose_as_leader(ledger.entry(TraceId::default(), command)).await?;
    crate::crash_point!("shards_after_propose");
    if let Err(refusal) = committed.answer {
        tracing::warn!(command = name, %refusal, "refused");
    }
    Ok(())
}

/// The command set that every member understands, whether it lives or not, if that is newer than the
/// one in force. Above what this build knows it is a newer leader's to say.
fn newer_version(state: &State, members: &[Member]) -> Option<u32> {
    let understood = members.iter().map(|member| {
        // One that never said who it is may be of any build.
        state.nodes.get(&member.node).map_or(0, |node| node.understands)
    });
    let version = understood.min()?.min(CLUSTER_VERSION);
    (version > state.cluster_version).then_some(version)
}

/// The nodes whose liveness differs from what the state says.
fn marks(
    state: &State,
    me: NodeId,
    members: &[Member],
    leading_for: Duration,
    config: ShardsConfig,
) -> Vec<MarkNode> {
    let dead_after_ms = u64::try_from(config.dead_after.as_millis()).unwrap_or(u64::MAX);
    let live = |node: NodeId, said: bool| {
        let Some(member) = members.iter().find(|member| member.node == node) else {
            // Removed from the cluster.
            return node == me;
        };
        match member.silent_ms {
            _ if node == me => true,
            Some(silent_ms) if silent_ms >= dead_after_ms => planted(Planted::DeadOwnerKeepsShards),
            // Back only when clearly heard, so that it does not flap at the bound.
            Some(silent_ms) => said || silent_ms < dead_after_ms / 2,
            // Not heard yet by a leader this young: as its predecessor said.
            None => said && leading_for < config.dead_after,
        }
    };
    let nodes = state.nodes.iter().map(|(node, known)| (*node, known.live));
    nodes
        .map(|(node, said)| (said, MarkNode { node, live: live(node, said) }))
        .filter(|(said, mark)| *said != mark.live)
        .map(|(_, mark)| mark)
        .collect()
}

/// The moves that give every shard an owner that may have it, and nobody more than a fair share.
/// Empty when nothing must move.
#[must_use]
pub fn plan_moves(state: &State, leader: NodeId) -> BTreeMap<ShardId, NodeId> {
    let live: Vec<NodeId> =
        state.nodes.iter().filter(|(_, node)| node.live).map(|(id, _)| *id).collect();
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
        // Those it would be given first, it keeps.
        of_node.sort_by_key(|shard| std::cmp::Reverse(weight(*shard, *node)));
        homeless.extend(of_node.split_off(keep.min(of_node.len())));
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
    use medic_state::{BootId, Epoch, Timestamp, state::NodeState, state::ShardState};

    use super::*;

    fn state(live: &[(u64, bool, &str)]) -> State {
        let mut state = State::new();
        for (node, live, region) in live {
            let known = NodeState {
                region: (*region).to_owned(),
                api_addr: String::new(),
                boot: BootId(*node),
                live: *live,
                since: Timestamp(0),
                version: String::new(),
                understands: 1,
            };
            state.nodes.insert(NodeId(*node), known);
        }
        state
    }

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
    fn slower_elections_make_silence_mean_less() {
        let dead_after = |ms| ShardsConfig::for_elections_of(Duration::from_millis(ms)).dead_after;
        assert_eq!(dead_after(300), Duration::from_millis(1_500));
        assert_eq!(dead_after(1_000), Duration::from_millis(5_000));
    }

    #[test]
    fn a_command_set_is_switched_on_when_every_member_understands_it() {
        let mut cluster = state(&[(1, true, ""), (2, true, ""), (9, false, "")]);
        let members = [1, 2].map(|node| Member {
            node: NodeId(node),
            peer_addr: String::new(),
            voter: true,
            matched: None,
            silent_ms: None,
        });
        let understands = |cluster: &mut State, node: u64, version: u32| {
            if let Some(node) = cluster.nodes.get_mut(&NodeId(node)) {
                node.understands = version;
            }
        };
        assert_eq!(newer_version(&cluster, &members), None);
        understands(&mut cluster, 1, CLUSTER_VERSION + 1);
        assert_eq!(newer_version(&cluster, &members), None, "one of them does not");
        understands(&mut cluster, 2, CLUSTER_VERSION + 1);
        assert_eq!(newer_version(&cluster, &members), Some(CLUSTER_VERSION), "what we know");
        cluster.cluster_version = CLUSTER_VERSION;
        assert_eq!(newer_version(&cluster, &members), None);
        assert_eq!(newer_version(&cluster, &[]), None);
    }

    #[test]
    fn liveness_has_two_bounds_and_a_young_leader_believes_its_predecessor() {
        let member = |silent_ms| Member {
            node: NodeId(2),
            peer_addr: String::new(),
            voter: true,
            matched: None,
            silent_ms,
        };
        let config = ShardsConfig::default();
        let mark = |live, silent_ms, leading_ms| {
            let state = state(&[(2, live, "")]);
            let leading = Duration::from_millis(leading_ms);
            marks(&state, NodeId(1), &[member(silent_ms)], leading, config).pop().map(|m| m.live)
        };
        assert_eq!(mark(true, Some(100), 10_000), None);
        assert_eq!(mark(true, Some(1_500), 10_000), Some(false));
        assert_eq!(mark(false, Some(1_000), 10_000), None);
        assert_eq!(mark(false, Some(100), 10_000), Some(true));
        assert_eq!(mark(true, None, 100), None);
        assert_eq!(mark(true, None, 2_000), Some(false));
    }
}
