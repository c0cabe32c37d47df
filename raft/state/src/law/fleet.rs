//! Nodes and agents: `RegisterNode`, `MarkNode`, `MarkAgent`, `SetClusterVersion`.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::{
        CLUSTER_VERSION, Command, MarkAgent, MarkNode, NODE_WEIGHT_DEFAULT, NODE_WEIGHT_MAX,
        RegisterNode,
    },
    form::FormError,
    ids::NodeId,
    law::{
        context::{Context, MAX_NAME_BYTES, clip_to},
        snapshot::within,
    },
    state::{AgentState, NodeState, State},
};

/// Nodes that may ever have registered: ids are never reused, clusters have some dozens at most.
const MAX_NODES: usize = 1_024;
/// Agents known at once: one per host of a large fleet.
const MAX_AGENTS: usize = 16_384;

pub(super) fn register_node(
    state: &mut State,
    context: &mut Context<'_>,
    command: &RegisterNode,
) -> Answer {
    if !state.nodes.contains_key(&command.node) && state.nodes.len() >= MAX_NODES {
        return Err(Refusal::Limit(format!("{MAX_NODES} nodes have registered already")));
    }
    let understands = command.understands.unwrap_or(1);
    if understands < state.cluster_version {
        let text = format!(
            "{} understands commands up to version {understands}, and the cluster is at {}: \
             start a newer build on it",
            command.node, state.cluster_version
        );
        return Err(Refusal::IllegalState(text));
    }
    let known = state.nodes.get(&command.node);
    let weight = command.weight.or(known.map(|known| known.weight));
    let node = NodeState {
        region: clip_to(&command.region, MAX_NAME_BYTES),
        api_addr: clip_to(&command.api_addr, MAX_NAME_BYTES),
        boot: command.boot,
        live: true,
        since: context.now,
        version: clip_to(&command.version, MAX_NAME_BYTES),
        understands,
        weight: weight.unwrap_or(NODE_WEIGHT_DEFAULT).min(NODE_WEIGHT_MAX),
        // An operator's word outlives a restart.
        drained: known.is_some_and(|known| known.drained),
        leaving: false,
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
    if !state.agents.contains_key(&command.agent) && state.agents.len() >= MAX_AGENTS {
        forget_an_agent(state)?;
    }
    let known = state.agents.get(&command.agent);
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

/// Makes room: hosts come and go, and names with them. The agent that has been away longest goes.
fn forget_an_agent(state: &mut State) -> Result<(), Refusal> {
    let away = state.agents.iter().filter(|(_, agent)| agent.node.is_none());
    let longest = away.min_by_key(|(name, agent)| (agent.since, name.as_str()));
    let name = longest.map(|(name, _)| name.clone()).ok_or_else(|| {
        Refusal::Limit(format!(
            "{MAX_AGENTS} agents are connected already, as many as there may be"
        ))
    })?;
    state.agents.remove(&name);
    Ok(())
}

/// Nobody who lives may halt over it. A member that is away and too old halts when it comes back,
/// and says what to do.
pub(super) fn set_cluster_version(state: &mut State, version: u32) -> Answer {
    if version > CLUSTER_VERSION {
        let text = format!("version {version} is not known here ({CLUSTER_VERSION} is the newest)");
        return Err(Refusal::Invalid(text));
    }
    if version < state.cluster_version {
        let text = format!("version {} is in force and never goes back", state.cluster_version);
        return Err(Refusal::IllegalState(text));
    }
    if let Some((node, known)) = behind(state, version) {
        let text = format!(
            "{node} understands commands up to version {} only: upgrade it first",
            known.understands
        );
        return Err(Refusal::IllegalState(text));
    }
    if version == state.cluster_version {
        return Ok(Reply::Noted("already so".to_owned()));
    }
    state.cluster_version = version;
    Ok(Reply::Done)
}

/// A member that lives and does not know that version.
fn behind(state: &State, version: u32) -> Option<(&NodeId, &NodeState)> {
    state.nodes.iter().find(|(_, node)| node.live && node.understands < version)
}

impl State {
    /// Whether this build can go on past an entry. It cannot where all members switched on a command set that it
    /// does not know, as after a downgrade: what they admitted, it would refuse, and part from them in
    /// silence. Where the members that know the set refuse the switch, this one does too, and goes on.
    ///
    /// # Errors
    /// [`FormError::Beyond`]: the node must halt.
    pub fn can_follow(&self, command: &Command) -> Result<(), FormError> {
        let Command::SetClusterVersion(version) = command else { return Ok(()) };
        let somebody = self.nodes.values().any(|node| node.understands >= *version);
        if somebody && behind(self, *version).is_none() { within(*version) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::NoteTold,
        ids::{BootId, Digest, Timestamp},
        law::tests::lab::*,
    };

    fn register(node: u64, understands: Option<u32>) -> Command {
        Command::RegisterNode(RegisterNode {
            node: NodeId(node),
            region: "eu".into(),
            api_addr: String::new(),
            boot: BootId(9),
            version: "x".into(),
            understands,
            weight: None,
        })
    }

    #[test]
    fn a_new_kind_waits_until_every_live_node_understands_it() {
        let mut lab = Lab::new();
        lab.state.cluster_version = 1;
        let id = lab.report("api", "a", "down");
        let told =
            || Command::NoteTold(NoteTold { incident: id, text: Digest::default(), on: None });
        let too_early = lab.node(1, told());
        assert!(matches!(&too_early, Err(Refusal::IllegalState(why)) if why.contains("version 2")));
        lab.node(3, register(3, None)).unwrap();
        let behind = lab.node(1, Command::SetClusterVersion(2));
        assert!(matches!(&behind, Err(Refusal::IllegalState(why)) if why.contains("node-3")));
        lab.node(1, Command::MarkNode(MarkNode { node: NodeId(3), live: false })).unwrap();
        lab.node(1, Command::SetClusterVersion(2)).unwrap();
        lab.node(1, told()).unwrap();
        assert!(lab.node(1, Command::SetClusterVersion(1)).is_err(), "never back");
        assert!(lab.node(1, Command::SetClusterVersion(CLUSTER_VERSION + 1)).is_err());
        let old = lab.node(3, register(3, Some(1)));
        assert!(matches!(&old, Err(Refusal::IllegalState(why)) if why.contains("newer build")));
        lab.node(3, register(3, Some(2))).unwrap();
    }

    #[test]
    fn a_build_from_before_the_command_set_in_force_follows_no_further() {
        const NEWER: u32 = CLUSTER_VERSION + 1;
        let mut lab = Lab::new();
        let switch = Command::SetClusterVersion(NEWER);
        let follows = |lab: &Lab| lab.state.can_follow(&switch).is_ok();
        assert!(follows(&lab), "nobody knows it: refused everywhere");
        let ids: Vec<NodeId> = lab.state.nodes.keys().copied().collect();
        for (i, id) in ids.iter().enumerate() {
            lab.node(id.0, register(id.0, Some(NEWER))).unwrap();
            assert_eq!(follows(&lab), i + 1 < ids.len(), "one that lives does not know it yet");
        }
        assert!(lab.state.can_follow(&Command::SetClusterVersion(CLUSTER_VERSION)).is_ok());
    }

    #[test]
    fn agents_that_went_away_make_room_for_new_ones() {
        let mut lab = Lab::new();
        for n in 0..MAX_AGENTS {
            let at = Timestamp(u64::try_from(n).unwrap());
            let node = (n > 1).then_some(NodeId(1));
            let agent =
                AgentState { node, region: String::new(), version: String::new(), since: at };
            lab.state.agents.insert(format!("host-{n}"), agent);
        }
        let mark = |agent: &str| {
            Command::MarkAgent(MarkAgent {
                agent: agent.into(),
                node: Some(NodeId(1)),
                region: String::new(),
                version: String::new(),
            })
        };
        lab.node(1, mark("new-1")).unwrap();
        assert!(!lab.state.agents.contains_key("host-0"), "the one away longest");
        lab.node(1, mark("new-2")).unwrap();
        assert!(matches!(lab.node(1, mark("new-3")), Err(Refusal::Limit(_))));
        assert_eq!(lab.state.agents.len(), MAX_AGENTS);
    }
}
