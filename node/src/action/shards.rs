//! The shard controller: the leader sees nodes come and go, and gives every shard an owner.
//!
//! ```text
//!   ClusterAdmin::status ─ silent for how long ─► MarkNode ─┐
//!                                                           ├─► plan_moves ─► AssignShards
//!   State: nodes, shards, services with a region ───────────┘     pure
//!   State: this leader is drained ─────────────────────────────► transfer to one that is not
//! ```
//!
//! Deliberately absent: epochs. The law counts them, and refuses reports under old ones.

mod plan;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use medic_raft::{ClusterAdmin, Ledger, LedgerError, LedgerExt as _, Member};
use medic_state::{
    CLUSTER_VERSION, Command, NodeId, State, TraceId,
    command::{AssignShards, MarkNode},
    planted::{Planted, planted},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::plan::{heirs, owners, plan_moves};
use super::metrics::Metric;

/// After a drained leader could not hand leadership over, until it is tried again: a try costs the
/// acts' lease for a moment.
const TRANSFER_AGAIN: Duration = Duration::from_secs(10);

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
    let mut transfer_from = Instant::now();
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
            let me = ledger.node();
            if let Some(to) = ledger.read(|state| successor(state, me, &status.members, config))
                && Instant::now() >= transfer_from
            {
                transfer_from = Instant::now() + TRANSFER_AGAIN;
                match admin.transfer(to).await {
                    Ok(()) => tracing::info!(%to, "drained: leadership is handed over"),
                    Err(error) => tracing::warn!(%to, %error, "drained, and leading still"),
                }
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
    let moves = ledger.read(|state| plan_moves(state, me, &unheard(state, me, members, config)));
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

/// Whom a drained leader hands leadership to: of the voters it hears that stay, the one that has come
/// furthest. A leader about to stop hands over by itself, before its doors close.
fn successor(
    state: &State,
    me: NodeId,
    members: &[Member],
    config: ShardsConfig,
) -> Option<NodeId> {
    let known = state.nodes.get(&me)?;
    if !known.drained || known.leaving {
        return None;
    }
    let stays = |node: NodeId| state.nodes.get(&node).is_some_and(|node| node.live && node.stays());
    members
        .iter()
        .filter(|member| {
            member.voter && member.node != me && heard(member, config) && stays(member.node)
        })
        .max_by_key(|member| member.matched)
        .map(|member| member.node)
}

/// Whether a node was clearly heard of late.
fn heard(member: &Member, config: ShardsConfig) -> bool {
    member.silent_ms.is_some_and(|ms| Duration::from_millis(ms) < config.dead_after / 2)
}

/// Nodes that live for all that the state says, and that this leader does not hear: a leader has mostly come
/// to be one because its predecessor has gone, and does not know that yet.
fn unheard(
    state: &State,
    me: NodeId,
    members: &[Member],
    config: ShardsConfig,
) -> BTreeSet<NodeId> {
    let heard = |node| members.iter().any(|one| one.node == node && heard(one, config));
    let live = state.nodes.iter().filter(|(_, known)| known.live).map(|(node, _)| *node);
    live.filter(|node| *node != me && !heard(*node)).collect()
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

#[cfg(test)]
pub(super) mod tests {
    use medic_state::{BootId, Timestamp, command::NODE_WEIGHT_DEFAULT, state::NodeState};

    use super::*;

    pub(super) fn state(live: &[(u64, bool, &str)]) -> State {
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
                weight: NODE_WEIGHT_DEFAULT,
                drained: false,
                leaving: false,
            };
            state.nodes.insert(NodeId(*node), known);
        }
        state
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
    fn a_drained_leader_hands_over_to_a_voter_that_is_there_and_stays() {
        let mut cluster = state(&[(1, true, ""), (2, true, ""), (3, true, ""), (4, false, "")]);
        let member = |node, voter, matched, silent_ms| Member {
            node: NodeId(node),
            peer_addr: String::new(),
            voter,
            matched: Some(matched),
            silent_ms: Some(silent_ms),
        };
        let members = [
            member(1, true, 9, 0),
            member(2, true, 7, 10),
            member(3, true, 8, 10),
            member(4, true, 9, 10),
            member(5, false, 9, 10),
        ];
        let to = |cluster: &State, members: &[Member]| {
            successor(cluster, NodeId(1), members, ShardsConfig::default()).map(|node| node.0)
        };
        assert_eq!(to(&cluster, &members), None, "it is not drained");
        let mut drain = |node| {
            cluster.nodes.get_mut(&NodeId(node)).expect("it is there").drained = true;
            cluster.clone()
        };
        assert_eq!(to(&drain(1), &members), Some(3), "a voter, live, the furthest");
        let deaf = [member(2, true, 7, 10), member(3, true, 8, 1_000)];
        assert_eq!(to(&drain(1), &deaf), Some(2), "one that is heard");
        assert_eq!(to(&drain(3), &members), Some(2), "one that is not drained");
        assert_eq!(to(&drain(2), &members), None);
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
