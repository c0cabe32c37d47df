//! What a node says of itself once consensus runs: who it is, and, in a new cluster, who the first
//! admins are.

use std::{sync::Arc, time::Duration};

use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{
    CLUSTER_VERSION, Command, State, TraceId,
    command::{ApplyManifest, DRAIN_SINCE, RegisterNode},
    manifest::{Kind, Manifest, Metadata, RoleBindingSpec, Spec, Subject},
};

use crate::config::NodeConfig;

/// Between two tries while no leader is known.
const RETRY: Duration = Duration::from_millis(300);
/// The binding that bootstraps a cluster; in tenant `*` it holds in every tenant.
const BOOTSTRAP_BINDING: &str = "bootstrap-admins";

/// Registers this node, then, where the state has no role binding at all, proposes the configured
/// admins; says the node's weight once every member understands it. Ends when all are settled.
pub(super) async fn register(ledger: Arc<dyn Ledger>, config: NodeConfig) {
    let boot = ledger.boot();
    let itself = |weight| {
        Command::RegisterNode(RegisterNode {
            node: config.node,
            region: config.region.clone(),
            api_addr: config.api_addr(),
            boot,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            understands: Some(CLUSTER_VERSION),
            weight,
        })
    };
    let weight = ledger.read(|state| may_say_weight(state).then_some(config.weight));
    propose(ledger.as_ref(), itself(weight), "register this node").await;
    bind_first_admins(ledger.as_ref(), &config).await;
    // Members of older builds would halt at a weight: it waits until there are none.
    let mut applied = ledger.applied();
    while !ledger.read(may_say_weight) {
        if applied.changed().await.is_err() {
            return;
        }
    }
    let known = ledger.read(|state| state.nodes.get(&config.node).map(|known| known.weight));
    if known != Some(config.weight) {
        propose(ledger.as_ref(), itself(Some(config.weight)), "say this node's weight").await;
    }
}

const fn may_say_weight(state: &State) -> bool {
    state.cluster_version >= DRAIN_SINCE
}

/// In a new cluster, which has no role binding at all.
async fn bind_first_admins(ledger: &dyn Ledger, config: &NodeConfig) {
    if config.admins.is_empty() {
        return;
    }
    let settled = |ledger: &dyn Ledger| {
        ledger.read(|state| state.manifests.keys().any(|key| key.kind == Kind::RoleBinding))
    };
    if ledger.linearize().await.is_ok() && settled(ledger) {
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
    propose(ledger, command, "bind the first admins").await;
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
