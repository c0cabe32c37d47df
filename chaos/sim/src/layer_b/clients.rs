//! People and programs: they call the real control API over the simulated network, one node after
//! the other, ask again under the same request id, and remember what they were told and when.

use std::{sync::Arc, time::Duration};

use medic_proto::v1::{
    self as pb, approvals_client::ApprovalsClient, cluster_client::ClusterClient,
    incidents_client::IncidentsClient, manifests_client::ManifestsClient,
    safety_client::SafetyClient,
};
use medic_state::manifest::Manifest;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};

use super::{
    Stage,
    calls::{Call, CallKind},
    marks::Mark,
    net::{channel, peer_addr},
};
use crate::{coverage::Sometimes, history::lock, rng::Rng};

/// A client gives an attempt up after so long.
const PATIENCE: Duration = Duration::from_secs(4);
/// Attempts of one call.
const ATTEMPTS: usize = 4;
/// Keys that clients write and read.
const KEYS: u64 = 3;

/// Somebody at a host of their own.
pub(super) struct Client {
    pub(super) stage: Arc<Stage>,
    pub(super) name: String,
    pub(super) rng: Rng,
    channels: Vec<Channel>,
    made: u64,
}

impl Client {
    pub(super) fn new(stage: Arc<Stage>, name: &str, user: &str, seed: u64) -> Self {
        let channels = stage.nodes().into_iter().filter_map(|node| channel(node, user)).collect();
        let rng = Rng::new(seed, name);
        Self { stage, name: name.to_owned(), rng, channels, made: 0 }
    }

    fn node(&mut self) -> Channel {
        let at = self.rng.between(0, self.channels.len() as u64 - 1);
        self.channels[usize::try_from(at).unwrap_or_default()].clone()
    }

    fn request(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.name, self.made)
    }

    async fn pause(&mut self, low_ms: u64, high_ms: u64) {
        sleep(Duration::from_millis(self.rng.between(low_ms, high_ms))).await;
    }

    /// Calls one node after the other until there is an answer that is final.
    async fn call<T, F>(&mut self, attempt: impl Fn(Channel) -> F) -> Option<Result<T, Status>>
    where
        F: Future<Output = Result<T, Status>>,
    {
        for tried in 0..ATTEMPTS {
            if tried > 0 {
                self.stage.oracle.marks.reached(Mark::CallRepeated);
                self.pause(50, 400).await;
            }
            match timeout(PATIENCE, attempt(self.node())).await {
                Ok(Ok(answer)) => return Some(Ok(answer)),
                Ok(Err(status)) if last_word(&status) => return Some(Err(status)),
                Ok(Err(_)) | Err(_) => {}
            }
        }
        None
    }
}

/// Whether a status says what the law answered, and not that nobody could say.
fn last_word(status: &Status) -> bool {
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

/// A manifest as it is applied.
fn text(manifest: &Manifest) -> String {
    let mut all = serde_json::to_value(&manifest.spec).unwrap_or_default();
    if let Some(fields) = all.as_object_mut() {
        fields.insert("apiVersion".to_owned(), "medic/v1".into());
        let metadata = serde_json::to_value(&manifest.metadata).unwrap_or_default();
        fields.insert("metadata".to_owned(), metadata);
    }
    all.to_string()
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
    fn remember(&self, key: &str, begin_ms: u64, ended: bool, what: CallKind) {
        let end_ms = ended.then(|| self.stage.now_ms());
        let (client, key) = (self.name.clone(), key.to_owned());
        lock(&self.stage.calls).push(Call { client, key, begin_ms, end_ms, what });
    }

    async fn write(&mut self, key: &str, expected: Option<String>) {
        let request = self.request();
        let ask = pb::ApplyManifestsRequest {
            text: register(key, &format!("v{}", request)),
            dry_run: false,
            request_id: request.clone(),
            expected_digest: expected.unwrap_or_default(),
        };
        let begin_ms = self.stage.now_ms();
        let called = self.call(|at| {
            let ask = ask.clone();
            async move { ManifestsClient::new(at).apply(ask).await }
        });
        match called.await {
            Some(Ok(answer)) => {
                let answer = answer.into_inner();
                let receipt = answer.manifests.into_iter().next().and_then(|one| one.receipt);
                if let Some(receipt) = receipt {
                    let (request, index) = (receipt.request_id, Some(receipt.index));
                    self.remember(key, begin_ms, true, CallKind::Write { request, index });
                    self.stage.oracle.marks.reached(Mark::CallAnswered);
                }
            }
            Some(Err(_)) => self.stage.oracle.marks.reached(Mark::CompareRefused),
            None => {
                self.remember(key, begin_ms, false, CallKind::Write { request, index: None });
                self.stage.oracle.marks.reached(Mark::CallUnanswered);
            }
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
        let begin_ms = self.stage.now_ms();
        let called = self.call(|at| {
            let ask = ask.clone();
            async move { ManifestsClient::new(at).delete(ask).await }
        });
        match called.await {
            Some(Ok(answer)) => {
                if let Some(receipt) = answer.into_inner().receipt {
                    let (request, index) = (receipt.request_id, Some(receipt.index));
                    self.remember(key, begin_ms, true, CallKind::Write { request, index });
                    self.stage.oracle.marks.reached(Mark::CallAnswered);
                }
            }
            Some(Err(_)) => {}
            None => {
                self.remember(key, begin_ms, false, CallKind::Write { request, index: None });
                self.stage.oracle.marks.reached(Mark::CallUnanswered);
            }
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
        let answer = called.await?.ok()?;
        let index = answer.metadata().get("medic-index")?.to_str().ok()?.parse().ok()?;
        let manifest = answer.into_inner().manifest?;
        let value = manifest.labels.get("value").cloned();
        self.remember(key, begin_ms, true, CallKind::Read { value, index });
        self.stage.oracle.marks.reached(Mark::ReadAnswered);
        Some(manifest.digest)
    }
}

/// Approves and rejects, resolves what was handed over, freezes and lifts freezes.
pub(super) async fn people(mut ann: Client, mut ben: Client, mut olga: Client) {
    loop {
        olga.pause(500, 3_500).await;
        let (approver, other) =
            if olga.rng.chance(2, 3) { (&mut ann, &mut ben) } else { (&mut ben, &mut ann) };
        approver.approvals(other).await;
        olga.incidents().await;
        olga.freezes().await;
    }
}

impl Client {
    async fn approvals(&mut self, other: &mut Self) {
        let listed = self.call(|at| async move {
            ApprovalsClient::new(at).list_pending(pb::ListPendingRequest::default()).await
        });
        let Some(Ok(pending)) = listed.await else { return };
        for one in pending.into_inner().approvals {
            let (incident, plan_digest) = (one.incident, one.plan_digest);
            match self.rng.between(0, 9) {
                0..=4 => {
                    let request_id = self.request();
                    let ask = pb::ApproveRequest { incident, plan_digest, request_id };
                    drop(
                        self.call(|at| {
                            let ask = ask.clone();
                            async move { ApprovalsClient::new(at).approve(ask).await }
                        })
                        .await,
                    );
                }
                5 => {
                    let request_id = other.request();
                    let reason = "not now".to_owned();
                    let ask = pb::RejectRequest { incident, plan_digest, reason, request_id };
                    drop(
                        other
                            .call(|at| {
                                let ask = ask.clone();
                                async move { ApprovalsClient::new(at).reject(ask).await }
                            })
                            .await,
                    );
                }
                _ => {}
            }
        }
    }

    async fn incidents(&mut self) {
        let ask = pb::ListIncidentsRequest {
            matchers: vec!["status=\"escalated\"".to_owned()],
            ..pb::ListIncidentsRequest::default()
        };
        let listed = self.call(|at| {
            let ask = ask.clone();
            async move { IncidentsClient::new(at).list(ask).await }
        });
        let Some(Ok(listed)) = listed.await else { return };
        for one in listed.into_inner().incidents {
            if !self.rng.chance(1, 4) {
                continue;
            }
            self.stage.oracle.recorder.reached(Sometimes::Escalated);
            if let Some(target) = &one.target {
                self.stage.fleet.repair(&target.instance);
            }
            let (id, note, request_id) = (one.id, "by hand".to_owned(), self.request());
            let ask = pb::ResolveIncidentRequest { id, note, request_id };
            drop(
                self.call(|at| {
                    let ask = ask.clone();
                    async move { IncidentsClient::new(at).resolve(ask).await }
                })
                .await,
            );
        }
    }

    async fn freezes(&mut self) {
        let scope = |service: &str| pb::FreezeScope {
            scope: Some(pb::freeze_scope::Scope::Service(pb::ServiceScope {
                tenant: String::new(),
                service: service.to_owned(),
            })),
        };
        let services = self.stage.fleet.services();
        let Some(service) = self.rng.pick(&services).cloned() else { return };
        if self.rng.chance(1, 2) {
            let request_id = self.request();
            let ask = pb::UnfreezeRequest { scope: Some(scope(&service)), request_id };
            drop(
                self.call(|at| {
                    let ask = ask.clone();
                    async move { SafetyClient::new(at).unfreeze(ask).await }
                })
                .await,
            );
        } else if self.rng.chance(1, 12) {
            let (reason, request_id) = ("a deploy".to_owned(), self.request());
            let scope = Some(scope(&service));
            let ask = pb::FreezeRequest { scope, reason, until: None, request_id };
            drop(
                self.call(|at| {
                    let ask = ask.clone();
                    async move { SafetyClient::new(at).freeze(ask).await }
                })
                .await,
            );
        }
    }
}

/// Something that an operator is asked to do.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// Apply a manifest.
    Apply(Box<Manifest>),
    /// Delete a role binding.
    Unbind(String),
    /// Hand leadership over.
    Transfer(u64),
    /// Add the second, promote it, and remove the first.
    Replace(u64, u64),
}

/// Does what is asked, one task after the other.
pub(super) async fn operator(mut me: Client) {
    loop {
        me.pause(40, 60).await;
        let task = lock(&me.stage.tasks).pop_front();
        match task {
            None => {}
            Some(Task::Apply(manifest)) => me.apply(&manifest).await,
            Some(Task::Unbind(name)) => me.unbind(&name).await,
            Some(Task::Transfer(node)) => {
                let request_id = me.request();
                let ask = pb::TransferLeadershipRequest { node, request_id };
                let mut at = ClusterClient::new(me.node());
                let done = timeout(PATIENCE * 2, at.transfer_leadership(ask));
                if let Ok(Ok(_)) = done.await {
                    me.stage.oracle.marks.reached(Mark::Transferred);
                }
            }
            Some(Task::Replace(old, new)) => me.replace(old, new).await,
        }
    }
}

impl Client {
    async fn apply(&mut self, manifest: &Manifest) {
        let ask = pb::ApplyManifestsRequest {
            text: text(manifest),
            request_id: self.request(),
            ..pb::ApplyManifestsRequest::default()
        };
        let called = self.call(|at| {
            let ask = ask.clone();
            async move { ManifestsClient::new(at).apply(ask).await }
        });
        match called.await {
            Some(Ok(_)) => self.stage.oracle.marks.reached(Mark::ManifestChanged),
            Some(Err(status)) => {
                self.stage.trace(format_args!("not applied: {}", status.message()));
            }
            None => {}
        }
    }

    async fn unbind(&mut self, name: &str) {
        let ask = pb::DeleteManifestRequest {
            kind: "RoleBinding".to_owned(),
            name: name.to_owned(),
            request_id: self.request(),
            tenant: String::new(),
        };
        drop(
            self.call(|at| {
                let ask = ask.clone();
                async move { ManifestsClient::new(at).delete(ask).await }
            })
            .await,
        );
    }

    /// Each part until it is done: all of them may be asked for again.
    async fn replace(&mut self, old: u64, new: u64) {
        let long = Duration::from_secs(20);
        loop {
            let peer_addr = peer_addr(medic_state::NodeId(new));
            let request_id = self.request();
            let ask = pb::AddNodeRequest { node: new, peer_addr, request_id };
            if let Ok(Ok(_)) = timeout(long, ClusterClient::new(self.node()).add_node(ask)).await {
                break;
            }
            self.pause(200, 800).await;
        }
        loop {
            let ask = pb::PromoteNodeRequest { node: new, request_id: self.request() };
            let mut at = ClusterClient::new(self.node());
            if let Ok(Ok(_)) = timeout(long, at.promote_node(ask)).await {
                break;
            }
            self.pause(200, 800).await;
        }
        self.stage.oracle.marks.reached(Mark::MemberAdded);
        loop {
            let ask = pb::RemoveNodeRequest { node: old, request_id: self.request() };
            let mut at = ClusterClient::new(self.node());
            match timeout(long, at.remove_node(ask)).await {
                Ok(Ok(_)) => break,
                Ok(Err(status)) if status.message().contains("is not a member") => break,
                Ok(Err(_)) | Err(_) => self.pause(200, 800).await,
            }
        }
        self.stage.oracle.marks.reached(Mark::MemberRemoved);
        self.stage.trace(format_args!("node-{old} has been replaced by node-{new}"));
        lock(&self.stage.removed).insert(medic_state::NodeId(old));
    }
}
