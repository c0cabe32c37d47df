//! People and programs: they call the real control API over the simulated network, one node after
//! the other, ask again under the same request id, and remember what they were told and when.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use medic_api::control::{OUTCOME_UNKNOWN, REFUSAL};
use medic_proto::v1::{self as pb, manifests_client::ManifestsClient};
use medic_state::NodeId;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};

use super::{
    Stage,
    calls::{Call, CallKind},
    marks::Mark,
    net::channel,
};
use crate::{coverage::Sometimes, history::lock, rng::Rng};

/// A client gives an attempt up after so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// Attempts of one call.
const ATTEMPTS: usize = 4;
/// Keys that clients write and read.
const KEYS: u64 = 3;

/// Somebody at a host of their own.
pub(super) struct Client {
    pub(super) stage: Arc<Stage>,
    pub(super) name: String,
    pub(super) rng: Rng,
    channels: Vec<(NodeId, Channel)>,
    made: u64,
}

impl Client {
    pub(super) fn new(stage: Arc<Stage>, name: &str, user: &str, seed: u64) -> Self {
        let to = |node| channel(node, user).map(|channel| (node, channel));
        let channels = stage.nodes().into_iter().filter_map(to).collect();
        let rng = Rng::new(seed, name);
        Self { stage, name: name.to_owned(), rng, channels, made: 0 }
    }

    /// One of the nodes that are or were members.
    pub(super) fn node(&mut self) -> (NodeId, Channel) {
        let spare = usize::from(!self.stage.joined.load(Ordering::Acquire));
        let known = self.channels.len().saturating_sub(spare);
        let at = self.rng.between(0, known as u64 - 1);
        self.channels[usize::try_from(at).unwrap_or_default()].clone()
    }

    pub(super) fn request(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.name, self.made)
    }

    pub(super) async fn pause(&mut self, low_ms: u64, high_ms: u64) {
        sleep(Duration::from_millis(self.rng.between(low_ms, high_ms))).await;
    }

    /// Calls one node after the other until there is an answer that is final.
    pub(super) async fn call<T, F>(
        &mut self,
        attempt: impl Fn(Channel) -> F,
    ) -> Option<Result<T, Status>>
    where
        F: Future<Output = Result<T, Status>>,
    {
        for tried in 0..ATTEMPTS {
            if tried > 0 {
                self.stage.oracle.marks.reached(Mark::CallRepeated);
                self.pause(50, 400).await;
            }
            let (node, channel) = self.node();
            match timeout(PATIENCE, attempt(channel)).await {
                Ok(Ok(answer)) => {
                    if !lock(&self.stage.leads).contains(&node) {
                        self.stage.oracle.marks.reached(Mark::Forwarded);
                    }
                    return Some(Ok(answer));
                }
                Ok(Err(status)) if last_word(&status) => return Some(Err(status)),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        None
    }
}

/// Whether a status says what the law answered, and not that nobody could say.
pub(super) fn last_word(status: &Status) -> bool {
    if let Some(kind) = status.metadata().get(REFUSAL) {
        return kind != OUTCOME_UNKNOWN;
    }
    let from_afar = std::error::Error::source(status).is_some();
    !from_afar
        && matches!(
            status.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
        )
}

fn register(key: &str, value: &str) -> String {
    format!(
        "{{apiVersion: medic/v1, kind: Channel, metadata: {{name: {key}, labels: {{value: {value}}}}}, \
         spec: {{webhook: {{url: \"http://register.sim/\"}}}}}}"
    )
}

/// Writes and reads registers for ever.
pub(super) async fn registers(mut me: Client) {
    loop {
        me.pause(50, 900).await;
        let key = format!("register-{}", me.rng.between(1, KEYS));
        match me.rng.between(0, 9) {
            0..=3 => me.write(&key, None).await,
            4 => {
                let known = me.read(&key).await;
                me.write(&key, known).await;
            }
            5 => me.remove(&key).await,
            _ => {
                me.read(&key).await;
            }
        }
    }
}

impl Client {
    pub(super) fn remember(&self, key: &str, begin_ms: u64, ended: bool, what: CallKind) {
        let end_ms = ended.then(|| self.stage.now_ms());
        let (client, key) = (self.name.clone(), key.to_owned());
        lock(&self.stage.calls).push(Call { client, key, begin_ms, end_ms, what });
    }

    /// Makes a call that changes something, and remembers what came of it; `Err`: it was refused.
    /// Now and then it is made again under the same request id, which must change nothing.
    pub(super) async fn change<F>(
        &mut self,
        key: &str,
        request: &str,
        attempt: impl Fn(Channel) -> F,
    ) -> Result<(), Status>
    where
        F: Future<Output = Result<Option<pb::Receipt>, Status>>,
    {
        let begin_ms = self.stage.now_ms();
        let request = request.to_owned();
        let Some(answer) = self.call(&attempt).await else {
            self.remember(key, begin_ms, false, CallKind::Write { request, index: None });
            self.stage.oracle.marks.reached(Mark::CallUnanswered);
            return Ok(());
        };
        let Some(receipt) = answer? else { return Ok(()) };
        let index = Some(receipt.index);
        self.remember(key, begin_ms, true, CallKind::Write { request: receipt.request_id, index });
        self.stage.oracle.marks.reached(Mark::CallAnswered);
        if !self.rng.chance(1, 8) {
            return Ok(());
        }
        self.pause(10, 600).await;
        if let Some(Ok(Some(again))) = self.call(&attempt).await {
            self.stage.oracle.recorder.reached(Sometimes::RequestRepeated);
            if again.index != receipt.index {
                let text = format!(
                    "{request} was acknowledged at {}, and when it was asked for again at {}",
                    receipt.index, again.index
                );
                self.stage.oracle.wrong(1, "linearizability", text);
            }
        }
        Ok(())
    }

    async fn write(&mut self, key: &str, expected: Option<String>) {
        let request = self.request();
        let ask = pb::ApplyManifestsRequest {
            text: register(key, &format!("v{}", request)),
            dry_run: false,
            request_id: request.clone(),
            expected_digest: expected.unwrap_or_default(),
        };
        let changed = self.change(key, &request, |at| {
            let ask = ask.clone();
            async move {
                let answer = ManifestsClient::new(at).apply(ask).await?.into_inner();
                Ok(answer.manifests.into_iter().next().and_then(|one| one.receipt))
            }
        });
        if changed.await.is_err() {
            self.stage.oracle.marks.reached(Mark::CompareRefused);
        }
    }

    async fn remove(&mut self, key: &str) {
        let request = self.request();
        let ask = pb::DeleteManifestRequest {
            kind: "Channel".to_owned(),
            tenant: String::new(),
            name: key.to_owned(),
            request_id: request.clone(),
        };
        let removed = self.change(key, &request, |at| {
            let ask = ask.clone();
            async move { Ok(ManifestsClient::new(at).delete(ask).await?.into_inner().receipt) }
        });
        if let Err(status) = removed.await {
            self.stage.trace(format_args!("not removed: {}", status.message()));
        }
    }

    /// Reads a register; gives its digest.
    async fn read(&mut self, key: &str) -> Option<String> {
        let ask = pb::GetManifestRequest {
            kind: "Channel".to_owned(),
            tenant: String::new(),
            name: key.to_owned(),
        };
        let begin_ms = self.stage.now_ms();
        let called = self.call(|at| {
            let ask = ask.clone();
            async move { ManifestsClient::new(at).get(ask).await }
        });
        let answer = match called.await? {
            Ok(answer) => answer,
            Err(status) if status.code() == Code::NotFound => {
                let latest = self.stage.oracle.look(|state| state.applied);
                self.remember(key, begin_ms, true, CallKind::Absent { latest });
                self.stage.oracle.marks.reached(Mark::AbsenceAnswered);
                return None;
            }
            Err(_) => return None,
        };
        let index = answer.metadata().get("medic-index")?.to_str().ok()?.parse().ok()?;
        let manifest = answer.into_inner().manifest?;
        let value = manifest.labels.get("value").cloned();
        self.remember(key, begin_ms, true, CallKind::Read { value, index });
        self.stage.oracle.marks.reached(Mark::ReadAnswered);
        Some(manifest.digest)
    }
}
