//! Nodes and agents: `RegisterNode`, `MarkNode`, `MarkAgent`, `SetClusterVersion`.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::{MarkAgent, MarkNode, RegisterNode},
    law::context::{Context, MAX_NAME_BYTES, clip_to},
    state::{AgentState, NodeState, State},
};

/// Nodes that may ever have registered: ids are never reused, clusters have some dozens at most.
const MAX_NODES: usize = 1_024;
/// Agents known at once: one per host of a large fleet.
const MAX_AGENTS: usize = 16_384;
/// The newest command set this build understands.
const CLUSTER_VERSION: u32 = 1;

pub(super) fn register_node(
    state: &mut State,
    context: &mut Context<'_>,
    command: &RegisterNode,
) -> Answer {
    if !state.nodes.contains_key(&command.node) && state.nodes.len() >= MAX_NODES {
        return Err(Refusal::Limit(format!("{MAX_NODES} nodes have registered already")));
    }
    let node = NodeState {
        region: clip_to(&command.region, MAX_NAME_BYTES),
        api_addr: clip_to(&command.api_addr, MAX_NAME_BYTES),
        boot: command.boot,
        live: true,
        since: context.now,
        version: clip_to(&command.version, MAX_NAME_BYTES),
    };
    state.nodes.insert(command.node, node);
    Ok(Reply::Done)
}

pub(super) fn mark_node(
    state: &mut State,
    context: &mut Context<'_>,
    command: &MarkNode,
) -> Answer {
    let node = state
        .nodes
        .get_mut(&command.node)
        .ok_or_else(|| Refusal::NotFound(command.node.to_string()))?;
    if node.live == command.live {
        return Ok(Reply::Noted("already so".to_owned()));
    }
    node.live = command.live;
    node.since = context.now;
    Ok(Reply::Done)
}

pub(super) fn mark_agent(
    state: &mut State,
    context: &mut Context<'_>,
    command: &MarkAgent,
) -> Answer {
    if command.agent.is_empty() || command.agent.len() > MAX_NAME_BYTES {
        let text = format!("an agent's name has 1 to {MAX_NAME_BYTES} bytes");
        return Err(Refusal::Invalid(text));
    }
    let known = state.agents.get(&command.agent);
    if known.is_none() && state.agents.len() >= MAX_AGENTS {
        return Err(Refusal::Limit(format!("{MAX_AGENTS} agents are known already")));
    }
    let agent = AgentState {
        node: command.node,
        region: clip_to(&command.region, MAX_NAME_BYTES),
        version: clip_to(&command.version, MAX_NAME_BYTES),
        since: context.now,
    };
    let same =
        known.is_some_and(|known| AgentState { since: known.since, ..agent.clone() } == *known);
    if same {
        return Ok(Reply::Noted("already so".to_owned()));
    }
    state.agents.insert(command.agent.clone(), agent);
    Ok(Reply::Done)
}

pub(super) fn set_cluster_version(state: &mut State, version: u32) -> Answer {
    if version > CLUSTER_VERSION {
        let text = format!("version {version} is not known here ({CLUSTER_VERSION} is the newest)");
        return Err(Refusal::Invalid(text));
    }
    if version < state.cluster_version {
        let text = format!("version {} is in force and never goes back", state.cluster_version);
        return Err(Refusal::IllegalState(text));
    }
    state.cluster_version = version;
    Ok(Reply::Done)
}
