//! The operator: changes manifests under way, hands leadership over, replaces members, one task after
//! the other, as the storm asks for it.

use std::{sync::atomic::Ordering, time::Duration};

use medic_proto::v1::{
    self as pb, cluster_client::ClusterClient, manifests_client::ManifestsClient,
};
use medic_state::manifest::Manifest;
use tokio::time::timeout;
use tonic::Code::{FailedPrecondition, NotFound};

use super::{
    clients::{Client, PATIENCE},
    marks::Mark,
    net::peer_addr,
};
use crate::history::lock;

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

/// Something that an operator is asked to do.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// Apply a manifest.
    Apply(Box<Manifest>),
    /// Delete a role binding.
    Unbind(String),
    /// Hand leadership over.
    Transfer(u64),
    /// Drain a node, or take that back.
    Drain {
        /// Which.
        node: u64,
        /// Take it back.
        undo: bool,
    },
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
                let mut at = ClusterClient::new(me.node().1);
                let done = timeout(PATIENCE * 2, at.transfer_leadership(ask));
                if let Ok(Ok(_)) = done.await {
                    me.stage.oracle.marks.reached(Mark::Transferred);
                }
            }
            Some(Task::Drain { node, undo }) => me.drain(node, undo).await,
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
        let request = ask.request_id.clone();
        let changed = self.change("a manifest", &request, |at| {
            let ask = ask.clone();
            async move {
                let answer = ManifestsClient::new(at).apply(ask).await?.into_inner();
                Ok(answer.manifests.into_iter().next().and_then(|one| one.receipt))
            }
        });
        match changed.await {
            Ok(()) => self.stage.oracle.marks.reached(Mark::ManifestChanged),
            Err(status) => {
                self.stage.trace(format_args!("not applied: {}", status.message()));
            }
        }
    }

    async fn unbind(&mut self, name: &str) {
        let ask = pb::DeleteManifestRequest {
            kind: "RoleBinding".to_owned(),
            name: name.to_owned(),
            request_id: self.request(),
            tenant: String::new(),
        };
        let request = ask.request_id.clone();
        let removed = self.change("a manifest", &request, |at| {
            let ask = ask.clone();
            async move { Ok(ManifestsClient::new(at).delete(ask).await?.into_inner().receipt) }
        });
        if let Err(status) = removed.await {
            self.stage.trace(format_args!("not unbound: {}", status.message()));
        }
    }

    /// Until there is an answer: what nobody took back would stay.
    async fn drain(&mut self, node: u64, undo: bool) {
        loop {
            let ask = pb::DrainNodeRequest { node, undo, request_id: self.request() };
            let mut at = ClusterClient::new(self.node().1);
            match timeout(PATIENCE, at.drain_node(ask)).await {
                Ok(Ok(_)) => {
                    let mark = if undo { Mark::DrainEnded } else { Mark::Drained };
                    return self.stage.oracle.marks.reached(mark);
                }
                // The last one that may watch, or a node that never registered.
                Ok(Err(status)) if matches!(status.code(), FailedPrecondition | NotFound) => {
                    self.stage.trace(format_args!("not drained: {}", status.message()));
                    return;
                }
                Ok(Err(_)) | Err(_) => self.pause(200, 800).await,
            }
        }
    }

    /// Each part until it is done: all of them may be asked for again.
    async fn replace(&mut self, old: u64, new: u64) {
        let long = Duration::from_secs(20);
        loop {
            let peer_addr = peer_addr(medic_state::NodeId(new));
            let request_id = self.request();
            let ask = pb::AddNodeRequest { node: new, peer_addr, request_id };
            if let Ok(Ok(_)) = timeout(long, ClusterClient::new(self.node().1).add_node(ask)).await
            {
                break;
            }
            self.pause(200, 800).await;
        }
        loop {
            let ask = pb::PromoteNodeRequest { node: new, request_id: self.request() };
            let mut at = ClusterClient::new(self.node().1);
            if let Ok(Ok(_)) = timeout(long, at.promote_node(ask)).await {
                break;
            }
            self.pause(200, 800).await;
        }
        self.stage.joined.store(true, Ordering::Release);
        self.stage.oracle.marks.reached(Mark::MemberAdded);
        loop {
            let ask = pb::RemoveNodeRequest { node: old, request_id: self.request() };
            let mut at = ClusterClient::new(self.node().1);
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
