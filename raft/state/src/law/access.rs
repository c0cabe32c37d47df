//! Roles, resolved against the bindings in the state. Default deny.

use std::collections::BTreeSet;

use crate::{
    manifest::{Kind, ManifestKey, RoleBindingSpec, Spec, Subject},
    rbac::{Permission, Principal, PrincipalKind, builtin_role},
    state::State,
};

/// The tenant whose bindings hold in every tenant and for the cluster itself.
pub(super) const EVERYWHERE: &str = "*";

impl State {
    /// Whether the principal may do this within the tenant (`""` or `*`: cluster-wide).
    ///
    /// Bindings of the tenant and of tenant `*` count; cluster-wide only those of `*`. Nodes and
    /// agents hold no role: what they may propose is fixed by their kind.
    #[must_use]
    pub fn allows(&self, principal: &Principal, permission: Permission, tenant: &str) -> bool {
        match principal.kind {
            PrincipalKind::User => self
                .roles(&principal.name, tenant)
                .any(|(home, role)| self.role_opens(home, role, permission)),
            PrincipalKind::Node | PrincipalKind::Agent => false,
        }
    }

    /// Whether the user holds one of these roles within the tenant.
    pub(super) fn holds_role(&self, user: &str, roles: &[String], tenant: &str) -> bool {
        self.roles(user, tenant).any(|(_, held)| roles.iter().any(|role| role == held))
    }

    /// Whether anybody at all may administer the whole cluster.
    pub(super) fn has_administrator(&self) -> bool {
        self.bindings(EVERYWHERE).any(|(home, binding)| {
            !binding.subjects.is_empty()
                && self.role_opens(home, &binding.role, Permission::Administer)
        })
    }

    /// Whether there is any binding: before the first one, a node may make one.
    pub(super) fn has_bindings(&self) -> bool {
        self.manifests.keys().any(|key| key.kind == Kind::RoleBinding)
    }

    /// Roles a user holds within a tenant, each with the tenant of its binding.
    fn roles<'a>(
        &'a self,
        user: &'a str,
        tenant: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.bindings(tenant)
            .filter(move |(_, binding)| {
                binding.subjects.iter().any(|Subject::User(name)| name == user)
            })
            .map(|(home, binding)| (home, binding.role.as_str()))
    }

    /// Bindings that hold within a tenant, each with its own tenant.
    fn bindings<'a>(
        &'a self,
        tenant: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a RoleBindingSpec)> {
        let homes: BTreeSet<&str> = match tenant {
            "" => [EVERYWHERE].into(),
            tenant => [EVERYWHERE, tenant].into(),
        };
        homes.into_iter().flat_map(move |home| {
            let first = ManifestKey {
                kind: Kind::RoleBinding,
                tenant: home.to_owned(),
                name: String::new(),
            };
            self.manifests
                .range(first..)
                .take_while(move |(key, _)| key.kind == Kind::RoleBinding && key.tenant == home)
                .filter_map(move |(_, stored)| match &stored.manifest.spec {
                    Spec::RoleBinding(binding) => Some((home, binding)),
                    Spec::Service(_)
                    | Spec::Playbook(_)
                    | Spec::Policy(_)
                    | Spec::Source(_)
                    | Spec::Silence(_)
                    | Spec::MaintenanceWindow(_)
                    | Spec::Role(_)
                    | Spec::Tenant(_)
                    | Spec::Channel(_) => None,
                })
        })
    }

    /// Whether a role, named by a binding of tenant `home`, opens a permission.
    fn role_opens(&self, home: &str, role: &str, permission: Permission) -> bool {
        if let Some(permissions) = builtin_role(role) {
            return permissions.contains(&permission);
        }
        let key = ManifestKey { kind: Kind::Role, tenant: home.to_owned(), name: role.to_owned() };
        self.manifests.get(&key).is_some_and(|stored| match &stored.manifest.spec {
            Spec::Role(role) => role.permissions.contains(&permission),
            Spec::Service(_)
            | Spec::Playbook(_)
            | Spec::Policy(_)
            | Spec::Source(_)
            | Spec::Silence(_)
            | Spec::MaintenanceWindow(_)
            | Spec::RoleBinding(_)
            | Spec::Tenant(_)
            | Spec::Channel(_) => false,
        })
    }
}
