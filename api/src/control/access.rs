//! The gate: one table says what every RPC demands. What is not in the table is denied.
//!
//! It asks whether the caller holds the permission in any tenant at all; the handler, which knows
//! the tenant, asks again about that one, and for mutations the law asks once more.

use std::{collections::BTreeSet, sync::Arc};

use axum::{extract::Request, middleware::Next, response::Response};
use medic_raft::LedgerExt as _;
use medic_state::{
    Refusal, State, Timestamp,
    manifest::{DEFAULT_TENANT, Kind},
    rbac::{
        Permission::{
            self, Administer, Approve, Audit, Cluster, Configure, Operate, Read, Respond,
        },
        Principal, PrincipalKind,
    },
};
use tonic::{Status, service::Routes};

use super::{
    CALL_TIMEOUT, Control,
    errors::{not_found, reworded},
    refusal_status,
};
use crate::{door::Identity, metrics::Metric};

/// What an RPC demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// One of these within the tenant it is about.
    Tenant(&'static [Permission]),
    /// This, by a binding in tenant `*`.
    Everywhere(Permission),
    /// A certificate of an agent.
    Agents,
    /// Any certificate but an agent's.
    NotAgents,
}

/// Every RPC of the control port.
pub const PERMISSIONS: &[(&str, Access)] = &[
    ("/medic.v1.Incidents/List", Access::Tenant(&[Read])),
    ("/medic.v1.Incidents/Get", Access::Tenant(&[Read])),
    ("/medic.v1.Incidents/Explain", Access::Tenant(&[Read])),
    ("/medic.v1.Incidents/Acknowledge", Access::Tenant(&[Respond])),
    ("/medic.v1.Incidents/AddNote", Access::Tenant(&[Respond])),
    ("/medic.v1.Incidents/Resolve", Access::Tenant(&[Operate])),
    ("/medic.v1.Incidents/Reopen", Access::Tenant(&[Operate])),
    ("/medic.v1.Incidents/Judge", Access::Tenant(&[Respond])),
    ("/medic.v1.Decisions/List", Access::Tenant(&[Read])),
    ("/medic.v1.Decisions/Get", Access::Tenant(&[Read])),
    ("/medic.v1.Predictions/List", Access::Tenant(&[Read])),
    ("/medic.v1.Predictions/Score", Access::Tenant(&[Read])),
    ("/medic.v1.Health/List", Access::Tenant(&[Read])),
    ("/medic.v1.Detection/ListWeights", Access::Tenant(&[Read])),
    ("/medic.v1.Approvals/ListPending", Access::Tenant(&[Read])),
    ("/medic.v1.Approvals/Approve", Access::Tenant(&[Approve])),
    ("/medic.v1.Approvals/Reject", Access::Tenant(&[Approve])),
    ("/medic.v1.Remediations/List", Access::Tenant(&[Read])),
    ("/medic.v1.Remediations/Get", Access::Tenant(&[Read])),
    ("/medic.v1.Remediations/Cancel", Access::Tenant(&[Operate])),
    ("/medic.v1.Manifests/Apply", Access::Tenant(&[Configure, Administer])),
    ("/medic.v1.Manifests/Delete", Access::Tenant(&[Configure, Administer])),
    ("/medic.v1.Manifests/Get", Access::Tenant(&[Read])),
    ("/medic.v1.Manifests/List", Access::Tenant(&[Read])),
    ("/medic.v1.Safety/Freeze", Access::Tenant(&[Operate])),
    ("/medic.v1.Safety/Unfreeze", Access::Tenant(&[Operate])),
    ("/medic.v1.Safety/ListFreezes", Access::Tenant(&[Read])),
    ("/medic.v1.Cluster/Status", Access::Everywhere(Read)),
    ("/medic.v1.Cluster/AddNode", Access::Everywhere(Cluster)),
    ("/medic.v1.Cluster/PromoteNode", Access::Everywhere(Cluster)),
    ("/medic.v1.Cluster/RemoveNode", Access::Everywhere(Cluster)),
    ("/medic.v1.Cluster/TransferLeadership", Access::Everywhere(Cluster)),
    ("/medic.v1.Cluster/DrainNode", Access::Everywhere(Cluster)),
    ("/medic.v1.Cluster/ListAgents", Access::Everywhere(Read)),
    ("/medic.v1.Cluster/ListShards", Access::Everywhere(Read)),
    ("/medic.v1.Audit/List", Access::Tenant(&[Audit])),
    ("/medic.v1.Audit/Export", Access::Everywhere(Audit)),
    ("/medic.v1.Watch/Events", Access::Tenant(&[Read])),
    ("/medic.fleet.v1.Fleet/Connect", Access::Agents),
    ("/grpc.health.v1.Health/Check", Access::NotAgents),
    ("/grpc.health.v1.Health/Watch", Access::NotAgents),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::NotAgents),
];

/// What the gate granted; handlers read it, and there is none without the gate.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) principal: Principal,
    /// One of these opens a tenant.
    pub(super) permissions: &'static [Permission],
    /// When the certificate ends.
    pub(super) not_after: Timestamp,
}

impl Grant {
    /// Whether it opens this tenant (`""`: the cluster).
    pub(super) fn opens(&self, state: &State, tenant: &str) -> bool {
        self.permissions.iter().any(|one| state.allows(&self.principal, *one, tenant))
    }

    /// The refusal for a tenant that it does not open.
    pub(super) fn denied(&self, tenant: &str) -> Status {
        let tenant = if tenant.is_empty() { "*" } else { tenant };
        match self.permissions.first() {
            Some(first) => refusal_status(&Refusal::denied(&self.principal, *first, tenant)),
            None => Status::permission_denied("nothing was granted"),
        }
    }

    /// Refuses unless it opens the tenant of this thing; who may not even see it is told that there is
    /// none.
    pub(super) fn check_seen(
        &self,
        state: &State,
        tenant: &str,
        what: impl std::fmt::Display,
    ) -> Result<(), Status> {
        if !self.opens(state, tenant) && !state.allows(&self.principal, Read, tenant) {
            return Err(not_found(what));
        }
        self.check(state, tenant)
    }

    /// Refuses unless it opens some tenant.
    fn check_any(&self, state: &State) -> Result<(), Status> {
        if tenants(state).iter().any(|tenant| self.opens(state, tenant)) {
            Ok(())
        } else {
            // Which tenant it is about is not known here; that a binding there is enough must be said.
            let Some(first) = self.permissions.first() else { return Err(self.denied("*")) };
            let message = format!(
                "{} lacks `{}` in every tenant; ask an admin for a role that has it, bound in the tenant that this is about (`{DEFAULT_TENANT}` unless you name one) or in `*`",
                self.principal,
                format!("{first:?}").to_lowercase(),
            );
            Err(reworded(&self.denied("*"), message))
        }
    }

    /// Refuses unless it opens this tenant.
    pub(super) fn check(&self, state: &State, tenant: &str) -> Result<(), Status> {
        if self.opens(state, tenant) { Ok(()) } else { Err(self.denied(tenant)) }
    }
}

/// Puts the gate in front of all routes.
pub(super) fn gate(routes: Routes, control: Arc<Control>) -> Routes {
    let layer = axum::middleware::from_fn(move |request: Request, next: Next| {
        let control = Arc::clone(&control);
        async move { Box::pin(pass(&control, request, next)).await }
    });
    Routes::from(routes.into_axum_router().layer(layer))
}

async fn pass(control: &Control, mut request: Request, next: Next) -> Response {
    let known = PERMISSIONS.iter().find(|(path, _)| *path == request.uri().path());
    let method = known.map_or("unknown", |(path, _)| *path);
    let access = known.map(|(_, access)| *access);
    let granted = match request.extensions().get::<Identity>().cloned() {
        Some(identity) => control.admit(identity, access).await,
        None => Err(Status::unauthenticated("a client certificate is needed")),
    };
    match granted {
        Ok(grant) => {
            request.extensions_mut().insert(grant);
        }
        Err(status) => {
            metrics::counter!(Metric::Denied.name(), "method" => method).increment(1);
            tracing::info!(method, code = ?status.code(), why = status.message(), "call denied");
            return status.into_http();
        }
    }
    let response = match tokio::time::timeout(CALL_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded(
            "the call took too long; what it asked for may still happen: retry under the same request id",
        )
        .into_http(),
    };
    let code = match response.headers().get("grpc-status") {
        Some(code) => code.to_str().unwrap_or("?").to_owned(),
        None => "0".to_owned(),
    };
    metrics::counter!(Metric::Calls.name(), "method" => method, "code" => code).increment(1);
    response
}

impl Control {
    async fn admit(&self, identity: Identity, access: Option<Access>) -> Result<Grant, Status> {
        let principal = identity.principal;
        let grant = |permissions| Grant {
            principal: principal.clone(),
            permissions,
            not_after: identity.not_after,
        };
        let kind = principal.kind;
        match access {
            None => Err(Status::permission_denied(format!(
                "there is no such call, or none that {principal} may make"
            ))),
            Some(Access::Agents) if kind == PrincipalKind::Agent => Ok(grant(&[])),
            Some(Access::NotAgents) if kind != PrincipalKind::Agent => Ok(grant(&[])),
            Some(Access::Agents) => Err(Status::permission_denied(format!(
                "only agents may call this; the certificate is of {principal}"
            ))),
            Some(_) if kind == PrincipalKind::Agent => Err(Status::permission_denied(format!(
                "the certificate of {principal} opens the fleet service alone"
            ))),
            Some(Access::NotAgents) => Err(Status::permission_denied("not for agents")),
            Some(Access::Tenant(permissions)) => {
                let grant = grant(permissions);
                self.fresh(|state| grant.check_any(state)).await?;
                Ok(grant)
            }
            Some(Access::Everywhere(permission)) => {
                let grant = grant(one(permission));
                self.fresh(|state| grant.check(state, "")).await?;
                Ok(grant)
            }
        }
    }

    /// Whether a stream may go on: the certificate is good, and the grant still opens the tenant
    /// (`""`: the cluster), or any where the caller named none.
    pub(super) fn still(&self, grant: &Grant, tenant: Option<&str>) -> Result<(), Status> {
        if self.ledger.env().clock.now() >= grant.not_after {
            let why = "the client certificate has expired; renew it and resume";
            return Err(Status::unauthenticated(why));
        }
        self.ledger.read(|state| match tenant {
            None => grant.check_any(state),
            Some(tenant) => grant.check(state, tenant),
        })
    }

    /// Looks at the local state; when that says no, catches up first: it may be old news.
    pub(super) async fn fresh<T>(
        &self,
        look: impl Fn(&State) -> Result<T, Status> + Send + Sync,
    ) -> Result<T, Status>
    where
        T: Send,
    {
        if let Ok(found) = self.ledger.read(&look) {
            return Ok(found);
        }
        self.ledger.linearize().await.map_err(|error| super::errors::ledger_status(&error))?;
        self.ledger.read(&look)
    }
}

/// Tenants in which anybody could hold anything: `*`, and those with a binding.
fn tenants(state: &State) -> BTreeSet<&str> {
    let bound = state.manifests.keys().filter(|key| key.kind == Kind::RoleBinding);
    bound.map(|key| key.tenant.as_str()).chain(["*"]).collect()
}

const fn one(permission: Permission) -> &'static [Permission] {
    match permission {
        Read => &[Read],
        Respond => &[Respond],
        Approve => &[Approve],
        Operate => &[Operate],
        Configure => &[Configure],
        Administer => &[Administer],
        Cluster => &[Cluster],
        Audit => &[Audit],
    }
}
