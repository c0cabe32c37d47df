//! Looking for each other, on the peer port: both ends.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use medic_proto::peer::v1::{
    self as pb,
    look_response::Saw,
    observers_client::ObserversClient,
    observers_server::{Observers, ObserversServer},
};
use medic_raft::{ClusterAdmin, Consensus, Ledger, LedgerExt as _};
use medic_state::{
    NodeId, State,
    manifest::{Kind, ManifestKey, ProbeKind, Spec},
    symptom::Target,
};
use metrics::counter;
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Request, Response, Status};

use super::{
    CHECK_TIME_MAX, fill_kind,
    others::{Check, Peers},
    quorum::Look,
};
use crate::detection::{
    fill::fill, intake::admit, metrics::Metric, probe::Outcome, senses::Senses,
};

/// A request names things; an answer says why in a line.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// Looks for others at once; this node's own checks go first.
const LOOKS_MAX: usize = 64;
/// Who waits longer for a turn is told so.
const TURN: Duration = Duration::from_millis(500);
/// Of why a check is bad, so many characters travel.
const WHY_MAX: usize = 512;

/// Asks over the peer ports.
#[derive(Debug)]
pub struct PeerLooks(pub Arc<Consensus>);

#[async_trait]
impl Peers for PeerLooks {
    async fn look(&self, to: NodeId, check: &Check) -> Result<Look, String> {
        let channel = self.0.peer_channel(to).await.map_err(|error| error.to_string())?;
        let Target { tenant, service, instance } = check.target.clone();
        let probe = check.probe.clone();
        let request =
            pb::LookRequest { tenant, service, instance, probe, manifest_index: check.index };
        let mut client = ObserversClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = client.look(request).await.map_err(|status| status.message().to_owned())?;
        let answer = answer.into_inner();
        Ok(match answer.saw() {
            Saw::Good => Look::Good,
            Saw::Bad => Look::Bad(answer.why),
            Saw::Nothing | Saw::Unspecified => Look::Nothing(answer.why),
        })
    }
}

/// What the peer port serves.
pub struct ObserversService {
    ledger: Arc<dyn Ledger>,
    members: Arc<dyn ClusterAdmin>,
    senses: Arc<dyn Senses>,
    turns: Semaphore,
}

impl std::fmt::Debug for ObserversService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObserversService").finish_non_exhaustive()
    }
}

impl ObserversService {
    /// The service, to be served on the peer port beside consensus.
    #[must_use]
    pub fn server(
        ledger: Arc<dyn Ledger>,
        members: Arc<dyn ClusterAdmin>,
        senses: Arc<dyn Senses>,
    ) -> ObserversServer<Self> {
        let turns = Semaphore::new(LOOKS_MAX);
        ObserversServer::new(Self { ledger, members, senses, turns })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn take(&self, check: &Check) -> Result<Outcome, Status> {
        let declared = self.ledger.read(|state| declared(state, check));
        let (kind, limit) = declared.map_err(Status::failed_precondition)?;
        let Ok(Ok(_turn)) = timeout(TURN, self.turns.acquire()).await else {
            let busy = format!("it looks for others {LOOKS_MAX} times already");
            return Err(Status::resource_exhausted(busy));
        };
        Ok(self.senses.probe(&check.target, &kind, limit).await)
    }
}

/// What a check is by what is declared here, and how long it may take.
///
/// # Errors
/// When nothing of the kind is declared here, or not as whoever asks says.
fn declared(state: &State, check: &Check) -> Result<(ProbeKind, Duration), String> {
    let Check { target, probe, index } = check;
    let key = ManifestKey {
        kind: Kind::Service,
        tenant: target.tenant.clone(),
        name: target.service.clone(),
    };
    let unknown = |what: &str| format!("{what} of {target} is not declared here");
    let stored = state.manifests.get(&key).ok_or_else(|| unknown("the service"))?;
    if stored.index != *index {
        return Err(format!("{key} is declared here by entry {}, not {index}", stored.index));
    }
    let Spec::Service(service) = &stored.manifest.spec else { return Err(unknown("the service")) };
    let instance = service.instances.iter().find(|one| one.name == target.instance);
    let instance = instance.ok_or_else(|| unknown("the instance"))?;
    let declared = service.probes.iter().find(|one| one.name == *probe);
    let declared = declared.ok_or_else(|| unknown(&format!("probe {probe}")))?;
    if declared.observers.is_none() || matches!(declared.kind, ProbeKind::Process(_)) {
        return Err(format!("probe {probe} of {target} asks for no observers"));
    }
    let kind = fill_kind(&declared.kind, |text| fill(text, &target.service, service, instance));
    Ok((kind, declared.timeout.as_duration().min(CHECK_TIME_MAX)))
}

#[tonic::async_trait]
impl Observers for ObserversService {
    async fn look(
        &self,
        request: Request<pb::LookRequest>,
    ) -> Result<Response<pb::LookResponse>, Status> {
        admit(&*self.members, &request)?;
        let pb::LookRequest { tenant, service, instance, probe, manifest_index: index } =
            request.into_inner();
        let check = Check { target: Target { tenant, service, instance }, probe, index };
        let taken = self.take(&check).await;
        let result = taken.as_ref().map_or("refused", Outcome::label);
        counter!(Metric::ProbeLooks.name(), "result" => result).increment(1);
        let (saw, why) = match taken? {
            Outcome::Good => (Saw::Good, String::new()),
            Outcome::Bad(failure) => (Saw::Bad, failure.to_string()),
            Outcome::NoData(why) => (Saw::Nothing, why),
        };
        let why = why.chars().take(WHY_MAX).collect();
        Ok(Response::new(pb::LookResponse { saw: saw.into(), why }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use medic_state::{
        Digest, Timestamp,
        manifest::{Manifest, Stored},
    };

    use super::*;

    fn state() -> State {
        let manifest: Manifest = Manifest {
            metadata: serde_json::from_value(serde_json::json!({"name": "web"})).unwrap(),
            spec: serde_json::from_value(serde_json::json!({"kind": "Service", "spec": {
                "instances": [{"name": "web-1", "host": "10.0.0.7", "port": 80}],
                "probes": [
                    {"name": "tcp", "tcp": "${host}:${port}", "timeout": "700ms",
                     "observers": {"of": 3, "agree": 2}},
                    {"name": "own", "tcp": "${host}:${port}"},
                ],
            }}))
            .unwrap(),
        };
        let (by, at, digest) = ("root".to_owned(), Timestamp(1), Digest([0; 32]));
        let key = manifest.key();
        let stored = Stored { manifest: Arc::new(manifest), index: 42, by, at, digest };
        let mut state = State::default();
        state.manifests.insert(key, stored);
        state
    }

    #[test]
    fn only_what_is_declared_here_is_looked_at() {
        let (state, web) = (state(), |instance: &str, probe: &str, index| {
            let target = Target {
                tenant: "default".to_owned(),
                service: "web".to_owned(),
                instance: instance.to_owned(),
            };
            Check { target, probe: probe.to_owned(), index }
        });
        let (kind, limit) = declared(&state, &web("web-1", "tcp", 42)).unwrap();
        assert_eq!(kind, ProbeKind::Tcp("10.0.0.7:80".to_owned()));
        assert_eq!(limit, Duration::from_millis(700));
        let mut elsewhere = web("web-1", "tcp", 42);
        elsewhere.target.tenant = "other".to_owned();
        for (check, why) in [
            (web("web-9", "tcp", 42), "the instance"),
            (web("web-1", "http://10.0.0.9/", 42), "is not declared here"),
            (web("web-1", "tcp", 41), "is declared here by entry 42, not 41"),
            (web("web-1", "own", 42), "asks for no observers"),
            (elsewhere, "the service"),
        ] {
            let refused = declared(&state, &check).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
