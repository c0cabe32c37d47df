//! `medic cluster …`.

use std::time::Duration;

use medic_proto::v1 as pb;
use medic_raft::env::{Clock as _, SystemClock};
use medic_state::{Millis, NodeId};
use tokio::time::Instant;

use super::{
    args::{ClusterCommand, Connect},
    error::CliError,
    operate::{command, report},
    out::Out,
    render::{Style, lists, words::plural},
    session::{Session, request_id},
};

/// Adding a node waits until it has caught up.
const ADD_PATIENCE: Millis = Millis::from_secs(90);
/// Between two looks at how far a drain has come.
const LOOK: Duration = Duration::from_millis(200);
/// What another node said is shown when the leader does not answer within this.
const LEADER_PATIENCE: Millis = Millis::from_secs(2);

/// The cluster as one node sees it.
pub(super) async fn status_of(session: &Session) -> Result<pb::StatusResponse, CliError> {
    session
        .ask(
            pb::StatusRequest {},
            |api, request| async move { api.cluster().status(request).await },
        )
        .await
}

/// Runs the command.
pub(super) async fn run(command: ClusterCommand) -> Result<(), CliError> {
    let request_id = request_id();
    match command {
        ClusterCommand::Status(connect) => status(&connect).await,
        ClusterCommand::Add { node, peer_addr, connect } => {
            let session = Session::open_with(&connect, ADD_PATIENCE)?;
            let node = node.0;
            let said = format!(
                "node-{node} is a learner and has caught up; next: medic cluster promote {node}"
            );
            let request = pb::AddNodeRequest { node, peer_addr, request_id };
            command!(session, &connect, cluster.add_node, said, request)
        }
        ClusterCommand::Promote { node, connect } => {
            let request = pb::PromoteNodeRequest { node: node.0, request_id };
            let session = Session::open(&connect)?;
            command!(session, &connect, cluster.promote_node, format!("{node} votes now"), request)
        }
        ClusterCommand::Remove { node, connect } => {
            let said = format!("{node} is removed; its number is never used again");
            let request = pb::RemoveNodeRequest { node: node.0, request_id };
            let session = Session::open(&connect)?;
            command!(session, &connect, cluster.remove_node, said, request)
        }
        ClusterCommand::Drain { node, undo, wait, connect } => {
            drain(node, undo, wait, &connect).await
        }
        ClusterCommand::Transfer { node, connect } => {
            let said = format!("{node} leads now");
            let request = pb::TransferLeadershipRequest { node: node.0, request_id };
            let session = Session::open(&connect)?;
            command!(session, &connect, cluster.transfer_leadership, said, request)
        }
    }
}

/// Drains a node and waits until it is, or takes that back.
async fn drain(node: NodeId, undo: bool, wait: Millis, connect: &Connect) -> Result<(), CliError> {
    let session = Session::open(connect)?;
    let request = pb::DrainNodeRequest { node: node.0, undo, request_id: request_id() };
    let response = session
        .ask(request, |api, request| async move { api.cluster().drain_node(request).await })
        .await?;
    if undo {
        return report(connect, response.receipt, &format!("{node} may watch and lead again"));
    }
    let deadline = Instant::now() + wait.as_duration();
    loop {
        let left = match status_by_leader(connect).await {
            Ok(status) => left_to_drain(&status, node),
            Err(error) => Some(format!("how far it has come is not known: {error}")),
        };
        let Some(left) = left else {
            let said = format!("{node} is drained: it watches nothing and does not lead");
            return report(connect, response.receipt, &said);
        };
        if wait == Millis(0) {
            return report(connect, response.receipt, &format!("{node} is being drained; {left}"));
        }
        if Instant::now() >= deadline {
            let text = format!("{node} is to be drained, and after {wait} {left}");
            return Err(CliError::Unavailable(text));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What a node that is drained has still; `None`: nothing.
fn left_to_drain(status: &pb::StatusResponse, node: NodeId) -> Option<String> {
    let known = status.nodes.iter().find(|known| known.id == node.0);
    let shards = known.map_or(0, |known| known.shards);
    match (shards, status.leader) {
        (0, 0) => Some("nobody leads".to_owned()),
        (0, leader) if leader == node.0 => Some("it leads still".to_owned()),
        (0, _) => None,
        (shards, _) => Some(format!("it has {} still", plural(shards as usize, "shard"))),
    }
}

/// The cluster as its leader sees it, who alone knows how far each member has come; as another node
/// sees it where the leader cannot be reached, or where the node that answered has failed.
pub(super) async fn status_by_leader(connect: &Connect) -> Result<pb::StatusResponse, CliError> {
    let seen = status_of(&Session::open(connect)?).await?;
    let leader = seen.nodes.iter().find(|node| node.id == seen.leader && node.leader);
    let endpoint = leader.map(|node| node.api_addr.clone()).unwrap_or_default();
    if seen.answered_by == seen.leader || endpoint.is_empty() || !seen.fatal.is_empty() {
        return Ok(seen);
    }
    let by_leader =
        async { status_of(&Session::open_at(connect, endpoint, LEADER_PATIENCE)?).await };
    Ok(by_leader.await.unwrap_or(seen))
}

async fn status(connect: &Connect) -> Result<(), CliError> {
    let out = Out::new(connect.output.output);
    let status = status_by_leader(connect).await?;
    let style = Style::new(out.color());
    out.value(&status, |status| lists::cluster(status, SystemClock.now().0, style))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_done_when_shards_and_leadership_are_gone() {
        let left = |leader, shards| {
            let node = pb::Node { id: 2, shards, ..Default::default() };
            let status = pb::StatusResponse { leader, nodes: vec![node], ..Default::default() };
            left_to_drain(&status, NodeId(2))
        };
        assert_eq!(left(1, 0), None);
        assert_eq!(left(1, 3).as_deref(), Some("it has 3 shards still"));
        assert_eq!(left(2, 0).as_deref(), Some("it leads still"));
        assert_eq!(left(0, 0).as_deref(), Some("nobody leads"));
    }
}
