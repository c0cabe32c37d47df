//! `medic cluster …`.

use medic_proto::v1 as pb;
use medic_raft::env::{Clock as _, SystemClock};
use medic_state::Millis;

use super::{
    args::{ClusterCommand, Connect},
    error::CliError,
    operate::{command, report},
    out::Out,
    render::{Style, lists},
    session::{Session, request_id},
};

/// Adding a node waits until it has caught up.
const ADD_PATIENCE: Millis = Millis::from_secs(90);
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
        ClusterCommand::Transfer { node, connect } => {
            let said = format!("{node} leads now");
            let request = pb::TransferLeadershipRequest { node: node.0, request_id };
            let session = Session::open(&connect)?;
            command!(session, &connect, cluster.transfer_leadership, said, request)
        }
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
