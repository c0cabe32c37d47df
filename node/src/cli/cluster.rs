//! `medic cluster …`.

use medic_proto::v1 as pb;
use medic_raft::env::{Clock as _, SystemClock};

use super::{
    args::{ClusterCommand, Connect},
    error::CliError,
    operate::{command, report},
    out::Out,
    render::{Style, lists},
    session::{Session, request_id},
};

/// The cluster as one node sees it.
pub(super) async fn status_of(session: &Session) -> Result<pb::StatusResponse, CliError> {
    session
        .call(|channel| async move {
            pb::cluster_client::ClusterClient::new(channel).status(pb::StatusRequest {}).await
        })
        .await
}

/// Runs the command.
pub(super) async fn run(command: ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Status(connect) => status(&connect).await,
        ClusterCommand::Add { node, peer_addr, connect } => {
            let said = format!(
                "{node} is a learner and has caught up; next: medic cluster promote {}",
                node.0
            );
            command!(
                &connect,
                cluster_client::ClusterClient,
                add_node,
                said,
                |_: &Session, request_id| {
                    pb::AddNodeRequest { node: node.0, peer_addr: peer_addr.clone(), request_id }
                }
            )
        }
        ClusterCommand::Promote { node, connect } => {
            let said = format!("{node} votes now");
            command!(
                &connect,
                cluster_client::ClusterClient,
                promote_node,
                said,
                |_: &Session, request_id| { pb::PromoteNodeRequest { node: node.0, request_id } }
            )
        }
        ClusterCommand::Remove { node, connect } => {
            let said = format!("{node} is removed; its number is never used again");
            command!(
                &connect,
                cluster_client::ClusterClient,
                remove_node,
                said,
                |_: &Session, request_id| { pb::RemoveNodeRequest { node: node.0, request_id } }
            )
        }
        ClusterCommand::Transfer { node, connect } => {
            let said = format!("{node} leads now");
            command!(
                &connect,
                cluster_client::ClusterClient,
                transfer_leadership,
                said,
                |_: &Session, request_id| {
                    pb::TransferLeadershipRequest { node: node.0, request_id }
                }
            )
        }
    }
}

async fn status(connect: &Connect) -> Result<(), CliError> {
    let out = Out::new(connect.output.output);
    let status = status_of(&Session::open(connect)?).await?;
    let style = Style::new(out.color());
    out.value(&status, |status| lists::cluster(status, SystemClock.now().0, style))
}
