//! What a node says of itself once consensus runs: who it is, and, in a new cluster, who the first
//! admins are.

use std::{sync::Arc, time::Duration};

use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{
    CLUSTER_VERSION, Command, TraceId,
    command::{ApplyManifest, RegisterNode},
    manifest::{Kind, Manifest, Metadata, RoleBindingSpec, Spec, Subject},
};

use crate::config::NodeConfig;

/// Between two tries while no leader is known.
const RETRY: Duration = Duration::from_millis(300);
/// The binding that bootstraps a cluster; in tenant `*` it holds in every tenant.
const BOOTSTRAP_BINDING: &str = "bootstrap-admins";

/// Registers this node, then, where the state has no role binding at all, proposes the configured
/// admins. Ends when both are settled.
pub(super) async fn register(ledger: Arc<dyn Ledger>, config: NodeConfig) {
    let command = Command::RegisterNode(RegisterNode {
        node: config.node,
        region: config.region.clone(),
        api_addr: config.api_addr(),
        boot: ledger.boot(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        understands: Some(CLUSTER_VERSION),
    });
    propose(ledger.as_ref(), command, "register this node").await;
    if config.admins.is_empty() {
        return;
    }
    let settled = |ledger: &dyn Ledger| {
        ledger.read(|state| state.manifests.keys().any(|key| key.kind == Kind::RoleBinding))
    };
    if ledger.linearize().await.is_ok() && settled(ledger.as_ref()) {
        return;
    }
    let subjects = config.admins.iter().cloned().map(Subject::User).collect();
    let manifest = Manifest {
        metadata: Metadata {
            name: BOOTSTRAP_BINDING.to_owned(),
            tenant: "*".to_owned(),
            labels: std::collections::BTreeMap::new(),
        },
        spec: Spec::RoleBinding(RoleBindingSpec { role: "admin".to_owned(), subjects }),
    };
    let command = Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected: None }));
    propose(ledger.as_ref(), command, "bind the first admins").await;
}

/// Proposes until there is an answer; a refusal is an answer (another node may have been first).
async fn propose(ledger: &dyn Ledger, command: Command, what: &str) {
    loop {
        match ledger.propose(ledger.entry(TraceId::default(), command.clone())).await {
            Ok(committed) => match committed.answer {
                Ok(_) => return,
                Err(refusal) => {
                    tracing::warn!(%refusal, what, "not taken");
                    return;
                }
            },
            Err(error) => {
                tracing::debug!(%error, what, "trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
