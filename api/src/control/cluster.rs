//! `medic.v1.Cluster`.
//!
//! A change of membership or leadership is first written to the audit log by the caller's own
//! entry, which the law admits or refuses; only then is consensus asked, and what came of it is a
//! second entry. Where that cannot be written (the quorum is gone, this node has left) it is missing.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use medic_proto::v1::{self as pb, cluster_server::Cluster};
use medic_raft::{ClusterAdmin, ClusterStatus, LedgerError, LedgerExt as _};
use medic_state::{
    Command, NodeId, RequestId, ShardId, State,
    command::{Drain, DrainNode},
    manifest::Kind,
    symptom::Target,
};
use tonic::{Request, Response, Status};

use super::{
    Control,
    call::{answer, grant_of},
    errors::{invalid, ledger_status},
    page::{Paging, labels},
};
use crate::convert;

/// The answer waits so long for the entry of what came of a change.
const OUTCOME_PATIENCE: Duration = Duration::from_secs(2);

#[tonic::async_trait]
impl Cluster for Control {
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let grant = grant_of(&request)?;
        // What is wrong with a cluster must be seen from a node that cannot reach its leader.
        let caught_up = self.catch_up(&request).await;
        let status = self.cluster.status();
        let node = self.ledger.node();
        let (mut response, index) = self.ledger.read(|state| {
            grant.check(state, "")?;
            Ok::<_, Status>((describe(state, &status, node), state.applied))
        })?;
        if let (Err(error), true) = (caught_up, response.fatal.is_empty()) {
            response.fatal = error.message().to_owned();
        }
        Ok(answer(response, index))
    }

    async fn add_node(
        &self,
        request: Request<pb::AddNodeRequest>,
    ) -> Result<Response<pb::AddNodeResponse>, Status> {
        let ask = request.get_ref();
        let node = node_id(ask.node)?;
        let (host, port) = ask.peer_addr.rsplit_once(':').unwrap_or_default();
        if host.is_empty() || port.parse::<u16>().is_err() {
            let message = format!("peer_addr `{}` is not of the form host:port", ask.peer_addr);
            return Err(invalid(message));
        }
        let change = Change::Add(node, ask.peer_addr.clone());
        let receipt = self.change(&request, &ask.request_id, change).await?;
        Ok(Response::new(pb::AddNodeResponse { receipt: Some(receipt) }))
    }

    async fn promote_node(
        &self,
        request: Request<pb::PromoteNodeRequest>,
    ) -> Result<Response<pb::PromoteNodeResponse>, Status> {
        let ask = request.get_ref();
        let node = node_id(ask.node)?;
        let change = Change::Promote(node);
        let receipt = self.change(&request, &ask.request_id, change).await?;
        Ok(Response::new(pb::PromoteNodeResponse { receipt: Some(receipt) }))
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::RemoveNodeResponse>, Status> {
        let ask = request.get_ref();
        let node = node_id(ask.node)?;
        let change = Change::Remove(node);
        let receipt = self.change(&request, &ask.request_id, change).await?;
        Ok(Response::new(pb::RemoveNodeResponse { receipt: Some(receipt) }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<pb::TransferLeadershipRequest>,
    ) -> Result<Response<pb::TransferLeadershipResponse>, Status> {
        let ask = request.get_ref();
        let node = node_id(ask.node)?;
        let change = Change::Transfer(node);
        let receipt = self.change(&request, &ask.request_id, change).await?;
        Ok(Response::new(pb::TransferLeadershipResponse { receipt: Some(receipt) }))
    }

    async fn drain_node(
        &self,
        request: Request<pb::DrainNodeRequest>,
    ) -> Result<Response<pb::DrainNodeResponse>, Status> {
        let grant = grant_of(&request)?;
        let ask = request.get_ref();
        let node = node_id(ask.node)?;
        let drain = if ask.undo { Drain::End } else { Drain::Begin };
        // The leader's shard controller does what follows, as soon as this is applied.
        let command = Command::DrainNode(DrainNode { node, drain });
        let (_, receipt) = self.commit(&grant, &ask.request_id, command).await?;
        Ok(Response::new(pb::DrainNodeResponse { receipt: Some(receipt) }))
    }

    async fn list_agents(
        &self,
        request: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let after = paging.after::<String>()?;
        self.view(&request, |state, grant| {
            grant.check(state, "")?;
            let items = state
                .agents
                .iter()
                .filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after))
                .filter(|(name, agent)| {
                    paging.matches(|| {
                        labels([
                            ("name", (*name).clone()),
                            ("region", agent.region.clone()),
                            ("version", agent.version.clone()),
                            ("connected", agent.node.is_some().to_string()),
                        ])
                    })
                })
                .map(|pair| (pair.0.clone(), pair));
            let (agents, next_page_token) = paging.cut(items, |(name, agent)| pb::Agent {
                name: name.clone(),
                node: agent.node.map(|node| node.0),
                region: agent.region.clone(),
                version: agent.version.clone(),
                since: Some(convert::time(agent.since)),
            });
            Ok(pb::ListAgentsResponse { agents, next_page_token })
        })
        .await
    }

    async fn list_shards(
        &self,
        request: Request<pb::ListShardsRequest>,
    ) -> Result<Response<pb::ListShardsResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let after = paging.after::<ShardId>()?;
        self.view(&request, |state, grant| {
            grant.check(state, "")?;
            let services = services_by_shard(state);
            let items = state
                .shards
                .iter()
                .filter(|(id, _)| after.is_none_or(|after| **id > after))
                .filter(|(id, shard)| {
                    let owner = shard.owner.map(|owner| owner.to_string()).unwrap_or_default();
                    paging.matches(|| labels([("shard", id.to_string()), ("owner", owner)]))
                })
                .map(|pair| (pair.0.to_string(), pair));
            let (shards, next_page_token) = paging.cut(items, |(id, shard)| pb::Shard {
                id: id.0,
                owner: shard.owner.map(|owner| owner.0),
                epoch: shard.epoch.0,
                since: Some(convert::time(shard.since)),
                services: services.get(id).cloned().unwrap_or_default(),
            });
            Ok(pb::ListShardsResponse { shards, next_page_token })
        })
        .await
    }
}

/// What is asked of consensus.
enum Change {
    Add(NodeId, String),
    Promote(NodeId),
    Remove(NodeId),
    Transfer(NodeId),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Add(node, addr) => write!(f, "add {node} at {addr}"),
            Self::Promote(node) => write!(f, "promote {node}"),
            Self::Remove(node) => write!(f, "remove {node}"),
            Self::Transfer(node) => write!(f, "transfer leadership to {node}"),
        }
    }
}

impl Change {
    async fn ask(&self, cluster: &dyn ClusterAdmin) -> Result<(), LedgerError> {
        match self {
            Self::Add(node, addr) => cluster.add_learner(*node, addr.clone()).await,
            Self::Promote(node) => cluster.promote(*node).await,
            Self::Remove(node) => cluster.remove(*node).await,
            Self::Transfer(node) => cluster.transfer(*node).await,
        }
    }
}

impl Control {
    /// Asks consensus for a change, between the entry that it is asked for and the one that says what
    /// came of it. It comes to its end though the caller goes away.
    async fn change<R: Sync>(
        &self,
        request: &Request<R>,
        request_id: &str,
        change: Change,
    ) -> Result<pb::Receipt, Status> {
        let principal = grant_of(request)?.principal;
        let asked = Command::NoteClusterChange(format!("{change}: asked"));
        let (_, receipt) = self.commit(&grant_of(request)?, request_id, asked).await?;
        let (ledger, cluster) = (Arc::clone(&self.ledger), Arc::clone(&self.cluster));
        let (told, outcome) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let done = change.ask(&*cluster).await;
            let text = format!("{change}: {}", outcome_of(&done));
            // A request id of its own: the same change may be asked for again, and end otherwise.
            let id = RequestId(ledger.env().entropy.request_id().0);
            let command = Command::NoteClusterChange(text.clone());
            let noting = ledger.propose(ledger.entry_for(principal, Some(id), command));
            tokio::pin!(noting);
            let in_time = tokio::time::timeout(OUTCOME_PATIENCE, &mut noting).await;
            drop(told.send(done));
            let noted = match in_time {
                Ok(noted) => noted,
                Err(_) => noting.await,
            };
            match noted.map(|noted| noted.answer) {
                Ok(Ok(_)) => {}
                Ok(Err(refusal)) => tracing::warn!(text, %refusal, "not in the audit log"),
                Err(error) => tracing::warn!(text, %error, "perhaps not in the audit log"),
            }
        });
        let ended = |_| LedgerError::Ambiguous("this node ended meanwhile".to_owned());
        let done = outcome.await.map_err(ended).flatten();
        done.map_err(|error| ledger_status(&error))?;
        Ok(receipt)
    }
}

/// What came of a change, for the audit log.
fn outcome_of(done: &Result<(), LedgerError>) -> String {
    match done {
        Ok(()) => "done".to_owned(),
        Err(LedgerError::Ambiguous(why)) => format!("outcome unknown: {why}"),
        Err(error @ LedgerError::Refused(_)) => error.to_string(),
        Err(error) => format!("failed: {error}"),
    }
}

fn node_id(number: u64) -> Result<NodeId, Status> {
    if number == 0 { Err(invalid("node ids begin at 1")) } else { Ok(NodeId(number)) }
}

fn services_by_shard(state: &State) -> BTreeMap<ShardId, Vec<String>> {
    let mut services: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
    for key in state.manifests.keys().filter(|key| key.kind == Kind::Service) {
        let target = Target {
            tenant: key.tenant.clone(),
            service: key.name.clone(),
            instance: String::new(),
        };
        let name = format!("{}/{}", key.tenant, key.name);
        services.entry(State::shard_of(&target)).or_default().push(name);
    }
    services
}

fn describe(state: &State, status: &ClusterStatus, answered_by: NodeId) -> pb::StatusResponse {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let totals = state.totals;
    let open = state.incidents.values().filter(|incident| !incident.closed()).count();
    pb::StatusResponse {
        cluster_id: status.cluster_id.clone(),
        answered_by: answered_by.0,
        leader: status.leadership.leader.map_or(0, |node| node.0),
        term: status.leadership.term,
        fence: state.fence.fence.0,
        fenced_at: (state.fence.fence.0 > 0).then(|| convert::time(state.fence.at)),
        last_log: status.last_log,
        applied: state.applied,
        snapshot: status.snapshot.unwrap_or(0),
        state_hash: state.hash().to_string(),
        nodes: nodes(state, status),
        totals: Some(pb::Totals {
            incidents: totals.incidents,
            detected: totals.detected,
            attempted: totals.attempted,
            successful: totals.successful,
            manual: totals.manual,
            rolled_back: totals.rolled_back,
            unknown: totals.unknown,
            refused_symptoms: totals.refused_symptoms,
        }),
        audit_seq: state.audit.seq,
        audit_hash: state.audit.hash.to_string(),
        fatal: status.fatal.clone().unwrap_or_default(),
        cluster_version: state.cluster_version,
        open_incidents: count(open),
        freezes: count(state.freezes.len()),
    }
}

/// Members as consensus knows them, joined with what the law knows of each; then former ones.
fn nodes(state: &State, status: &ClusterStatus) -> Vec<pb::Node> {
    let mut nodes: BTreeMap<NodeId, pb::Node> = BTreeMap::new();
    for (id, known) in &state.nodes {
        nodes.insert(
            *id,
            pb::Node {
                id: id.0,
                api_addr: known.api_addr.clone(),
                region: known.region.clone(),
                version: known.version.clone(),
                live: known.live,
                since: Some(convert::time(known.since)),
                former: true,
                weight: known.weight,
                drained: known.drained,
                leaving: known.leaving,
                ..pb::Node::default()
            },
        );
    }
    for member in &status.members {
        let node = nodes.entry(member.node).or_default();
        node.id = member.node.0;
        node.peer_addr = member.peer_addr.clone();
        node.voter = member.voter;
        node.leader = status.leadership.leader == Some(member.node);
        node.matched = member.matched;
        node.silent_ms = member.silent_ms;
        node.former = false;
    }
    for owner in state.shards.values().filter_map(|shard| shard.owner) {
        if let Some(node) = nodes.get_mut(&owner) {
            node.shards += 1;
        }
    }
    nodes.into_values().collect()
}
