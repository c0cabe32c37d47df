//! Who may do what: principals, permissions, built-in roles. Default deny.
//!
//! Checked at the door and again by `apply`, against the same bindings: a role taken away between
//! the two closes the door.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who speaks. Comes from a verified certificate, never from the message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Principal {
    /// What kind of identity.
    #[n(0)]
    pub kind: PrincipalKind,
    /// Its name: user name, agent name, or `node-<id>`.
    #[n(1)]
    pub name: String,
}

impl Principal {
    /// A person or program.
    #[must_use]
    pub fn user(name: &str) -> Self {
        Self { kind: PrincipalKind::User, name: name.to_owned() }
    }

    /// A node of the cluster.
    #[must_use]
    pub fn node(id: crate::ids::NodeId) -> Self {
        Self { kind: PrincipalKind::Node, name: id.to_string() }
    }

    /// An agent on a host.
    #[must_use]
    pub fn agent(name: &str) -> Self {
        Self { kind: PrincipalKind::Agent, name: name.to_owned() }
    }
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            PrincipalKind::User => "user",
            PrincipalKind::Node => "node",
            PrincipalKind::Agent => "agent",
        };
        write!(f, "{kind}:{}", self.name)
    }
}

/// Kinds of identities; the certificate's organizational unit says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum PrincipalKind {
    /// A person or program: roles decide.
    #[n(0)]
    User,
    /// A member of the cluster: may propose the loop's own commands, nothing an operator does.
    #[n(1)]
    Node,
    /// An agent: the fleet service alone.
    #[n(2)]
    Agent,
}

/// One thing a role opens.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Read incidents, decisions, remediations, manifests, cluster status; watch.
    #[n(0)]
    Read,
    /// Acknowledge, add notes, say what turned out about detection.
    #[n(1)]
    Respond,
    /// Approve and reject.
    #[n(2)]
    Approve,
    /// Cancel, resolve, reopen, freeze, unfreeze.
    #[n(3)]
    Operate,
    /// Apply and delete services, playbooks, policies, sources, silences, windows, channels.
    #[n(4)]
    Configure,
    /// Tenants, roles, bindings.
    #[n(5)]
    Administer,
    /// Cluster membership and leadership.
    #[n(6)]
    Cluster,
    /// Read the audit log.
    #[n(7)]
    Audit,
}

/// The built-in roles.
pub const BUILTIN_ROLES: [&str; 5] = ["viewer", "responder", "approver", "operator", "admin"];

/// What a built-in role opens; `None` when there is no such role.
#[must_use]
pub fn builtin_role(name: &str) -> Option<BTreeSet<Permission>> {
    use Permission::{Administer, Approve, Audit, Cluster, Configure, Operate, Read, Respond};
    let permissions: &[Permission] = match name {
        "viewer" => &[Read],
        "responder" => &[Read, Respond],
        "approver" => &[Read, Respond, Approve],
        "operator" => &[Read, Respond, Operate, Configure, Audit],
        "admin" => &[Read, Respond, Approve, Operate, Configure, Administer, Cluster, Audit],
        _ => return None,
    };
    Some(permissions.iter().copied().collect())
}
