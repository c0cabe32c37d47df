//! `medic.fleet.v1.Fleet` over the wire: one stream per agent.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use medic_proto::fleet::v1::{
    self as wire, agent_message, fleet_server::Fleet, fleet_server::FleetServer, node_message,
};
use medic_state::rbac::PrincipalKind;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{FleetHub, SILENCE, Session, session::QUEUE};

/// Largest message from an agent: a report of thousands of instances fits.
const DECODE_MAX: usize = 4 << 20;
/// Largest message to an agent: a declaration with its configuration files fits.
const ENCODE_MAX: usize = 16 << 20;
/// An agent says hello within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Names and versions are no longer than this.
const TEXT_MAX: usize = 128;

/// The service, for a router.
#[derive(Clone, Debug)]
pub struct FleetService(Arc<FleetHub>);

type NodeStream = Pin<Box<dyn Stream<Item = Result<wire::NodeMessage, Status>> + Send>>;

impl FleetHub {
    /// The gRPC service, with limits set.
    #[must_use]
    pub fn service(self: &Arc<Self>) -> FleetServer<FleetService> {
        FleetServer::new(FleetService(Arc::clone(self)))
            .max_decoding_message_size(DECODE_MAX)
            .max_encoding_message_size(ENCODE_MAX)
    }

    /// Reads one agent until it leaves, falls silent or is replaced.
    async fn listen(self: Arc<Self>, session: Arc<Session>, mut inbound: Inbound) {
        loop {
            let message = tokio::select! {
                () = session.closed.cancelled() => break,
                message = timeout(SILENCE, inbound.message()) => message,
            };
            match message {
                Ok(Ok(Some(wire::AgentMessage { kind: Some(kind) }))) => {
                    self.heard(&session, kind);
                }
                // A kind this build does not know: a newer agent's.
                Ok(Ok(Some(wire::AgentMessage { kind: None }))) => {}
                Ok(Ok(None)) => break,
                Ok(Err(status)) => {
                    tracing::debug!(agent = session.agent, %status, "agent's stream broke");
                    break;
                }
                Err(_) => {
                    tracing::warn!(agent = session.agent, "nothing heard for {SILENCE:?}; closing");
                    break;
                }
            }
        }
        self.depart(&session);
    }

    fn heard(&self, session: &Session, kind: agent_message::Kind) {
        match kind {
            agent_message::Kind::Hello(_) => {
                tracing::debug!(agent = session.agent, "a second hello is ignored");
            }
            agent_message::Kind::Report(report) => self.reported(&session.agent, report),
            agent_message::Kind::Outcome(outcome) => {
                medic_raft::crash_point!("fleet_outcome_received");
                if !session.finished(&outcome) {
                    self.keep_late(&session.agent, outcome);
                }
            }
            agent_message::Kind::Answer(answer) => session.answered(answer),
        }
    }
}

type Inbound = Streaming<wire::AgentMessage>;

#[tonic::async_trait]
impl Fleet for FleetService {
    type ConnectStream = NodeStream;

    async fn connect(&self, request: Request<Inbound>) -> Result<Response<NodeStream>, Status> {
        let hub = &self.0;
        let principal = (hub.identify)(request.extensions())?;
        if principal.kind != PrincipalKind::Agent {
            let denied = format!("{principal} is not an agent: the fleet service is for agents");
            return Err(Status::permission_denied(denied));
        }
        let mut inbound = request.into_inner();
        let hello = first_hello(&mut inbound).await?;
        if hello.agent != principal.name {
            return Err(Status::permission_denied(format!(
                "the certificate is of agent `{}`, the hello of `{}`: set `name` in the agent's configuration to the certificate's",
                principal.name, hello.agent
            )));
        }
        let (outbound, queued) = mpsc::channel(QUEUE);
        let session = Session::new(hello, hub.next_serial(), outbound);
        let welcome = wire::Welcome { node_id: hub.node.0, cluster_id: hub.cluster_id.clone() };
        session
            .send(node_message::Kind::Welcome(welcome))
            .map_err(|error| Status::internal(error.to_string()))?;
        hub.declare_to(&session);
        medic_raft::crash_point!("fleet_before_admit");
        let session = hub.admit(session)?;
        // What changed between the two lines above.
        hub.declare_to(&session);
        tracing::info!(agent = session.agent, region = session.region, "agent connected");
        let closed = session.closed.clone();
        tokio::spawn(Arc::clone(hub).listen(session, inbound));
        let last = futures::stream::once(async {
            Err(Status::aborted("the node closed this connection: replaced, silent or not read"))
        });
        let stream =
            ReceiverStream::new(queued).map(Ok).take_until(closed.cancelled_owned()).chain(last);
        Ok(Response::new(Box::pin(stream)))
    }
}

async fn first_hello(inbound: &mut Inbound) -> Result<wire::Hello, Status> {
    let first = timeout(HELLO_TIMEOUT, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello within 5 s"))??;
    let Some(wire::AgentMessage { kind: Some(agent_message::Kind::Hello(hello)) }) = first else {
        return Err(Status::invalid_argument("the first message must be a hello"));
    };
    let fits = |text: &str| text.len() <= TEXT_MAX;
    if hello.agent.is_empty()
        || !fits(&hello.agent)
        || !fits(&hello.region)
        || !fits(&hello.version)
    {
        return Err(Status::invalid_argument(format!(
            "agent, region and version have at most {TEXT_MAX} bytes, and agent at least one"
        )));
    }
    Ok(hello)
}
