//! `medic.v1.Cluster`.
//!
//! A change of membership or leadership is first written to the audit log by the caller's own
//! entry, which the law admits or refuses; only then is consensus asked.

use std::collections::BTreeMap;

use medic_proto::v1::{self as pb, cluster_server::Cluster};
use medic_raft::{ClusterStatus, LedgerExt as _};
use medic_state::{
    Command, NodeId, ShardId, State,
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
        let what = format!("add {node} at {}", ask.peer_addr);
        let receipt = self.note(&request, &ask.request_id, what).await?;
        let added = self.cluster.add_learner(node, ask.peer_addr.clone()).await;
        added.map_err(|error| ledger_status(&error))?;
        Ok(Response::new(pb::AddNodeResponse { receipt: Some(receipt) }))
    }

    async fn promote_node(
        &self,
        request: Request<pb::PromoteNodeRequest>,
    ) -> Result<Response<pb::PromoteNodeResponse>, Status> {
        let ask = request.get_ref();
        let node = node_id(ask.node)?;
        let receipt = self.note(&request, &ask.request_id, format!("promote {node}")).await?;
        self.cluster.promote(node).await.map_err(|error| ledger_status(&error))?;
        Ok(Response::new(pb::PromoteNodeResponse { receipt: Some(receipt) }))
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Result<Response<pb::RemoveNodeResponse>, Status> {
        let ask = request.get_ref();
        let node = node_id(ask.node)?;
        let receipt = self.note(&request, &ask.request_id, format!("remove {node}")).await?;
        self.cluster.remove(node).await.map_err(|error| ledger_status(&error))?;
        Ok(Response::new(pb::RemoveNodeResponse { receipt: Some(receipt) }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<pb::TransferLeadershipRequest>,
    ) -> Result<Response<pb::TransferLeadershipResponse>, Status> {
        let ask = request.get_ref();
        let node = node_id(ask.node)?;
        let what = format!("transfer leadership to {node}");
        let receipt = self.note(&request, &ask.request_id, what).await?;
        self.cluster.transfer(node).await.map_err(|error| ledger_status(&error))?;
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

impl Control {
    /// Writes into the audit log what is about to be asked of consensus.
    async fn note<R: Sync>(
        &self,
        request: &Request<R>,
        request_id: &str,
        what: String,
    ) -> Result<pb::Receipt, Status> {
        let grant = grant_of(request)?;
        let (_, receipt) =
            self.commit(&grant, request_id, Command::NoteClusterChange(what)).await?;
        Ok(receipt)
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
