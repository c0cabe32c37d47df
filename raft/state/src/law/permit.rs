//! Who may propose what. The loop's own commands are the nodes'; everything else is decided by
//! roles; agents propose nothing.

use crate::{
    applied::Refusal,
    command::{Command, Drain, Entry},
    ids::IncidentId,
    manifest::{Kind, ManifestKey},
    rbac::{Permission, Principal, PrincipalKind},
    state::{FreezeScope, State},
};

/// What a command asks of its principal.
enum Needs {
    /// Any node.
    Node,
    /// This very node.
    TheNode(Principal),
    /// A permission within a tenant; `""`: cluster-wide.
    Permission(Permission, String),
}

/// Refuses what the principal may not propose.
pub(super) fn check(state: &State, entry: &Entry) -> Result<(), Refusal> {
    let principal = &entry.principal;
    let since = entry.command.since();
    if since > state.cluster_version {
        let text = format!(
            "{} needs cluster version {since}, and {} is in force: upgrade all members first",
            entry.command.name(),
            state.cluster_version
        );
        return Err(Refusal::IllegalState(text));
    }
    let (allowed, permission, tenant) = match needs(state, &entry.command)? {
        Needs::Node => (principal.kind == PrincipalKind::Node, "node".to_owned(), String::new()),
        Needs::TheNode(node) => (*principal == node, node.to_string(), String::new()),
        Needs::Permission(permission, tenant) => {
            let allowed = state.allows(principal, permission, &tenant)
                || first_binding(state, principal, &entry.command);
            (allowed, format!("{permission:?}").to_lowercase(), tenant)
        }
    };
    if allowed {
        return Ok(());
    }
    let tenant = if tenant.is_empty() { "*".to_owned() } else { tenant };
    Err(Refusal::Denied { principal: principal.to_string(), permission, tenant })
}

fn needs(state: &State, command: &Command) -> Result<Needs, Refusal> {
    let within = |permission, tenant: &str| Ok(Needs::Permission(permission, tenant.to_owned()));
    let of_incident = |permission, id: IncidentId| {
        let incident = state.incidents.get(&id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
        Ok(Needs::Permission(permission, incident.tenant.clone()))
    };
    match command {
        Command::Fence(fence) => Ok(Needs::TheNode(Principal::node(fence.node))),
        Command::RegisterNode(register) => Ok(Needs::TheNode(Principal::node(register.node))),
        Command::Tick
        | Command::MarkNode(_)
        | Command::MarkAgent(_)
        | Command::AssignShards(_)
        | Command::SetClusterVersion(_)
        | Command::ReportSymptom(_)
        | Command::ClearSymptom(_)
        | Command::AdoptDecision(_)
        | Command::EscalateIncident(_)
        | Command::StartStep(_)
        | Command::FinishStep(_)
        | Command::RecordVerdict(_)
        | Command::NoteTold(_) => Ok(Needs::Node),
        Command::Approve(approve) => of_incident(Permission::Approve, approve.incident),
        Command::Reject(reject) => of_incident(Permission::Approve, reject.incident),
        Command::Acknowledge(note) | Command::AddNote(note) => {
            of_incident(Permission::Respond, note.incident)
        }
        Command::JudgeIncident(judge) => of_incident(Permission::Respond, judge.incident),
        Command::CancelRemediation(note)
        | Command::ResolveIncident(note)
        | Command::ReopenIncident(note) => of_incident(Permission::Operate, note.incident),
        Command::Freeze(freeze) => within(Permission::Operate, tenant_of(&freeze.scope)),
        Command::Unfreeze(scope) => within(Permission::Operate, tenant_of(scope)),
        Command::ApplyManifest(apply) => Ok(of_manifest(&apply.manifest.key())),
        Command::DeleteManifest(key) => Ok(of_manifest(key)),
        Command::NoteClusterChange(_) => within(Permission::Cluster, ""),
        Command::DrainNode(drain) => match drain.drain {
            Drain::Begin | Drain::End => within(Permission::Cluster, ""),
            Drain::Leave(_) => Ok(Needs::TheNode(Principal::node(drain.node))),
        },
    }
}

/// The tenant a freeze belongs to; `""`: the cluster.
pub(super) fn tenant_of(scope: &FreezeScope) -> &str {
    match scope {
        FreezeScope::Global | FreezeScope::Region(_) => "",
        FreezeScope::Tenant(tenant)
        | FreezeScope::Service { tenant, .. }
        | FreezeScope::Playbook { tenant, .. } => tenant,
        FreezeScope::Target(target) => &target.tenant,
    }
}

/// Access is an administrator's; a tenant does not set its own quotas.
fn of_manifest(key: &ManifestKey) -> Needs {
    let everywhere = key.tenant == super::access::EVERYWHERE;
    let tenant = if everywhere { String::new() } else { key.tenant.clone() };
    match key.kind {
        Kind::Role | Kind::RoleBinding => Needs::Permission(Permission::Administer, tenant),
        Kind::Tenant => Needs::Permission(Permission::Administer, String::new()),
        Kind::Service
        | Kind::Playbook
        | Kind::Policy
        | Kind::Source
        | Kind::Silence
        | Kind::MaintenanceWindow
        | Kind::Channel => Needs::Permission(Permission::Configure, tenant),
    }
}

/// Cluster bootstrap: a node may make the first binding, in tenant `*`, while there is none.
fn first_binding(state: &State, principal: &Principal, command: &Command) -> bool {
    let Command::ApplyManifest(apply) = command else { return false };
    let key = apply.manifest.key();
    principal.kind == PrincipalKind::Node
        && key.kind == Kind::RoleBinding
        && key.tenant == super::access::EVERYWHERE
        && !state.has_bindings()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::*,
        ids::*,
        law::tests::lab::*,
        manifest::{RoleSpec, Spec},
    };

    fn denied<T: std::fmt::Debug>(answer: Result<T, Refusal>) {
        assert!(matches!(answer, Err(Refusal::Denied { .. })), "{answer:?}");
    }

    fn silence() -> crate::manifest::Manifest {
        manifest("x", TENANT, Spec::Service(service(&["i"], &[])))
    }

    #[test]
    fn nobody_may_do_anything_without_a_binding() {
        let mut lab = Lab::new();
        denied(lab.user("mallory", apply(silence())));
        denied(lab.user("mallory", Command::NoteClusterChange("x".into())));
        let id = lab.report("api", "a", "down");
        denied(lab.user("mallory", Command::AddNote(Lab::note(id))));
        denied(lab.user("mallory", Command::Tick));
    }

    #[test]
    fn nodes_do_nothing_that_operators_do_and_agents_nothing_at_all() {
        let mut lab = Lab::new();
        denied(lab.node(1, apply(silence())));
        let id = lab.report("api", "a", "down");
        denied(lab.node(1, Command::ResolveIncident(Lab::note(id))));
        let agent = Principal::agent("host-1");
        denied(lab.entry(agent.clone(), Command::Tick).answer);
        denied(lab.entry(agent, Command::AddNote(Lab::note(id))).answer);
    }

    #[test]
    fn a_node_speaks_for_itself() {
        let mut lab = Lab::new();
        let fence = FenceCommand { node: NodeId(1), boot: BootId(1) };
        denied(lab.node(2, Command::Fence(fence)));
    }

    #[test]
    fn the_first_binding_may_be_a_nodes_and_only_the_first() {
        let mut state = State::new();
        let first = manifest("admins", "*", binding("admin", &["ann"]));
        let elsewhere = manifest("admins", TENANT, binding("admin", &["ann"]));
        let node = Principal::node(NodeId(1));
        let entry = |manifest| Entry {
            at: Timestamp(1),
            principal: node.clone(),
            request: None,
            trace: TraceId::default(),
            command: apply(manifest),
        };
        denied(state.apply(1, &entry(elsewhere)).answer);
        state.apply(2, &entry(first.clone())).answer.unwrap();
        denied(state.apply(3, &entry(first)).answer);
        assert!(state.allows(&Principal::user("ann"), Permission::Cluster, ""));
    }

    #[test]
    fn a_role_holds_in_its_tenant_alone() {
        let mut lab = Lab::new();
        let role = RoleSpec { permissions: vec![Permission::Operate] };
        lab.root(apply(manifest("stopper", "team", Spec::Role(role)))).unwrap();
        lab.root(apply(manifest("b", "team", binding("stopper", &["ann"])))).unwrap();
        let freeze = |scope| Command::Freeze(Freeze { scope, reason: "x".into(), until: None });
        lab.user("ann", freeze(FreezeScope::Tenant("team".into()))).unwrap();
        denied(lab.user("ann", freeze(FreezeScope::Tenant(TENANT.into()))));
        denied(lab.user("ann", freeze(FreezeScope::Global)));
        denied(lab.user("ann", freeze(FreezeScope::Region("eu".into()))));
        let ann = Principal::user("ann");
        assert!(!lab.state.allows(&ann, Permission::Read, "team"));
        assert!(!lab.state.allows(&ann, Permission::Operate, ""));
    }
}
