//! Telemetry between nodes, on the peer port: both ends.

use std::sync::Arc;

use async_trait::async_trait;
use medic_proto::peer::v1::{
    self as pb,
    telemetry_client::TelemetryClient,
    telemetry_server::{Telemetry, TelemetryServer},
};
use medic_raft::{ClusterAdmin, Consensus};
use medic_state::NodeId;
use tonic::{Request, Response, Status};

use super::{
    counts::Counts,
    hub::{Forward, Handed, Hub, LogLines},
    log::{drain::Level, records::Line},
    write::MESSAGE_BYTES_MAX,
};

/// A message as large as the doors take, and what it is wrapped in.
const WRAPPED_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 4_096;

/// Reaches owners over their peer ports.
#[derive(Debug)]
pub struct PeerForward(pub Arc<Consensus>);

#[async_trait]
impl Forward for PeerForward {
    async fn forward(&self, to: NodeId, handed: Handed) -> Result<Counts, String> {
        let channel = self.0.peer_channel(to).await.map_err(|error| error.to_string())?;
        let Handed { tenant, sources, message, logs } = handed;
        let lines: usize = logs.iter().map(|logs| logs.lines.len()).sum();
        let logs = logs.into_iter().map(written).collect();
        let request = pb::HandRequest { tenant, message: message.into(), sources, logs };
        let mut client = TelemetryClient::new(channel)
            .max_encoding_message_size(WRAPPED_BYTES_MAX)
            .max_decoding_message_size(64 << 10);
        let answer = client.hand(request).await.map_err(|status| status.message().to_owned())?;
        let pb::HandResponse { counts, example } = answer.into_inner();
        let counts = Counts::read(&counts, example);
        if counts.total() < lines as u64 {
            return Err("it runs an older version, which takes no logs".to_owned());
        }
        Ok(counts)
    }
}

fn written(logs: LogLines) -> pb::LogLines {
    let LogLines { service, instance, lines } = logs;
    let lines = lines.into_iter().map(|Line { level, text, at_ms }| pb::LogLine {
        level: level as u32,
        text,
        at_unix_ms: at_ms,
    });
    pb::LogLines { service, instance, lines: lines.collect() }
}

fn read(logs: pb::LogLines) -> LogLines {
    let pb::LogLines { service, instance, lines } = logs;
    let lines = lines.into_iter().map(|pb::LogLine { level, text, at_unix_ms }| {
        let level = Level::ALL.get(level as usize).copied().unwrap_or(Level::Unset);
        Line { level, text, at_ms: at_unix_ms }
    });
    LogLines { service, instance, lines: lines.collect() }
}

/// What the peer port serves.
pub struct TelemetryService {
    hub: Arc<Hub>,
    members: Arc<dyn ClusterAdmin>,
}

impl std::fmt::Debug for TelemetryService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TelemetryService").finish_non_exhaustive()
    }
}

impl TelemetryService {
    /// The service, to be served on the peer port beside consensus.
    #[must_use]
    pub fn server(hub: Arc<Hub>, members: Arc<dyn ClusterAdmin>) -> TelemetryServer<Self> {
        TelemetryServer::new(Self { hub, members })
            .max_decoding_message_size(WRAPPED_BYTES_MAX)
            .max_encoding_message_size(64 << 10)
    }
}

/// The certificate of a node that was removed is still good; what it asks or hands over is not.
pub(in crate::detection) fn admit<T>(
    members: &dyn ClusterAdmin,
    request: &Request<T>,
) -> Result<(), Status> {
    let Some(node) = medic_api::door::node_identity(request.extensions())? else {
        return Err(Status::unauthenticated("this is for nodes of the cluster"));
    };
    if members.status().members.iter().any(|member| member.node == node) {
        return Ok(());
    }
    Err(Status::permission_denied(format!("{node} is not a member of this cluster")))
}

#[tonic::async_trait]
impl Telemetry for TelemetryService {
    async fn hand(
        &self,
        request: Request<pb::HandRequest>,
    ) -> Result<Response<pb::HandResponse>, Status> {
        admit(&*self.members, &request)?;
        let pb::HandRequest { tenant, message, sources, logs } = request.into_inner();
        let logs = logs.into_iter().map(read).collect();
        let handed = Handed { tenant, sources, message: message.into(), logs };
        let taken = self.hub.take_forwarded(handed).await;
        let (counts, example) = taken.map_err(Status::invalid_argument)?.written();
        Ok(Response::new(pb::HandResponse { counts, example }))
    }
}
