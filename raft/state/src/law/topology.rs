//! What is declared, looked up: services, instances, dependencies, policies, quotas, labels.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    manifest::{
        DEFAULT_TENANT, InstanceSpec, Kind, ManifestKey, PolicySpec, ServiceSpec, Spec, Stored,
        TenantSpec,
    },
    state::State,
    symptom::{Symptom, Target},
};

/// Unwraps one kind of spec, naming the others once instead of at every lookup.
macro_rules! spec_as {
    ($name:ident, $variant:ident, $type:ty) => {
        /// The spec, if it is of this kind.
        pub(super) fn $name(spec: &Spec) -> Option<&$type> {
            if let Spec::$variant(found) = spec { Some(found) } else { None }
        }
    };
}
spec_as!(as_service, Service, ServiceSpec);
spec_as!(as_policy, Policy, PolicySpec);
spec_as!(as_tenant, Tenant, TenantSpec);
spec_as!(as_silence, Silence, crate::manifest::SilenceSpec);
spec_as!(as_window, MaintenanceWindow, crate::manifest::MaintenanceWindowSpec);
spec_as!(as_channel, Channel, crate::manifest::ChannelSpec);
spec_as!(as_playbook, Playbook, crate::manifest::PlaybookSpec);

impl State {
    /// A stored manifest.
    #[must_use]
    pub fn stored(&self, kind: Kind, tenant: &str, name: &str) -> Option<&Stored> {
        let key = ManifestKey { kind, tenant: tenant.to_owned(), name: name.to_owned() };
        self.manifests.get(&key)
    }

    /// Manifests of one kind within a tenant, by name.
    pub fn stored_of<'a>(
        &'a self,
        kind: Kind,
        tenant: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Stored)> {
        let first = ManifestKey { kind, tenant: tenant.to_owned(), name: String::new() };
        self.manifests
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind && key.tenant == tenant)
            .map(|(key, stored)| (key.name.as_str(), stored))
    }

    /// A declared service.
    #[must_use]
    pub fn service(&self, tenant: &str, name: &str) -> Option<&ServiceSpec> {
        as_service(&self.stored(Kind::Service, tenant, name)?.manifest.spec)
    }

    /// A declared channel.
    #[must_use]
    pub fn channel(&self, tenant: &str, name: &str) -> Option<&crate::manifest::ChannelSpec> {
        as_channel(&self.stored(Kind::Channel, tenant, name)?.manifest.spec)
    }

    /// A declared instance.
    #[must_use]
    pub fn instance(&self, target: &Target) -> Option<&InstanceSpec> {
        let service = self.service(&target.tenant, &target.service)?;
        service.instances.iter().find(|instance| instance.name == target.instance)
    }

    /// The policy in force in a tenant: the one named `default`, or the built-in one.
    #[must_use]
    pub fn policy(&self, tenant: &str) -> PolicySpec {
        self.stored(Kind::Policy, tenant, "default")
            .and_then(|stored| as_policy(&stored.manifest.spec))
            .cloned()
            .unwrap_or_default()
    }

    /// The quotas of a tenant: of the `Tenant` manifest with its name, in that tenant or in
    /// `default`; or the built-in ones.
    #[must_use]
    pub fn quotas(&self, tenant: &str) -> TenantSpec {
        [tenant, DEFAULT_TENANT]
            .into_iter()
            .filter_map(|home| self.stored(Kind::Tenant, home, tenant))
            .find_map(|stored| as_tenant(&stored.manifest.spec))
            .cloned()
            .unwrap_or_default()
    }

    /// Every service that this one calls, directly or through others, nearest first. Cycles and
    /// names that nobody declared do no harm; the service itself is never among them.
    #[must_use]
    pub fn dependencies(&self, tenant: &str, service: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut seen: BTreeSet<String> = BTreeSet::from([service.to_owned()]);
        let mut next = 0;
        let mut at = service.to_owned();
        loop {
            if let Some(spec) = self.service(tenant, &at) {
                let fresh = spec.depends_on.iter().filter(|name| seen.insert((*name).clone()));
                found.extend(fresh.cloned());
            }
            match found.get(next) {
                Some(name) => at.clone_from(name),
                None => return found,
            }
            next += 1;
        }
    }

    /// The instances of a tenant that serve (standby ones do not), over all services.
    pub(super) fn serving_instances(&self, tenant: &str) -> u64 {
        self.stored_of(Kind::Service, tenant)
            .filter_map(|(_, stored)| as_service(&stored.manifest.spec))
            .map(serving)
            .fold(0, u64::saturating_add)
    }

    /// The labels that matchers see of a symptom: the service's, then the symptom's own, then
    /// `tenant`, `service`, `instance`, `kind`, `severity`, which nobody can override.
    #[must_use]
    pub fn labels_of(&self, symptom: &Symptom) -> BTreeMap<String, String> {
        let target = &symptom.target;
        let mut labels = self
            .stored(Kind::Service, &target.tenant, &target.service)
            .map(|stored| stored.manifest.metadata.labels.clone())
            .unwrap_or_default();
        labels.extend(symptom.labels.clone());
        let severity = symptom.severity.to_string();
        labels.extend(
            [
                ("tenant", &target.tenant),
                ("service", &target.service),
                ("instance", &target.instance),
                ("kind", &symptom.kind),
                ("severity", &severity),
            ]
            .map(|(name, value)| (name.to_owned(), value.clone())),
        );
        labels
    }
}

/// Instances of a service that serve.
pub(super) fn serving(service: &ServiceSpec) -> u64 {
    let count = service.instances.iter().filter(|instance| !instance.standby).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}
