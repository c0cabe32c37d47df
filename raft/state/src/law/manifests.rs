//! `ApplyManifest` and `DeleteManifest`.

use std::sync::Arc;

use crate::{
    applied::{Answer, Refusal, Reply},
    codec,
    command::{AGENTS_OF_TENANTS_SINCE, ApplyManifest},
    ids::Digest,
    law::{context::Context, holds},
    manifest::{Kind, Manifest, ManifestKey, Spec, Stored, validate},
    state::State,
};

/// Size of one encoded manifest: a service with some thousand instances.
const MAX_MANIFEST_BYTES: usize = 256 * 1024;
/// Manifests of all tenants: with their usual size, well within a snapshot of 100 MiB.
const MAX_MANIFESTS: usize = 50_000;
/// Problems named in one refusal.
const MAX_PROBLEMS: usize = 10;

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &ApplyManifest,
) -> Answer {
    let manifest = &command.manifest;
    let key = manifest.key();
    check_sound(command)?;
    check_agents(state, manifest)?;
    let digest = manifest.digest();
    let before = state.manifests.get(&key);
    check_expected(&key, before.map(|stored| stored.digest), command.expected)?;
    if before.is_some_and(|stored| stored.digest == digest) {
        return Ok(Reply::Stored { digest, changed: false });
    }
    if before.is_none() {
        check_quota(state, &key)?;
    }
    let stored = Stored {
        manifest: Arc::new(manifest.clone()),
        index: context.index,
        by: context.actor(),
        at: context.now,
        digest,
    };
    replace(state, &key, Some(stored))?;
    holds::refresh(state, context);
    Ok(Reply::Stored { digest, changed: true })
}

pub(super) fn delete(state: &mut State, context: &mut Context<'_>, key: &ManifestKey) -> Answer {
    if !state.manifests.contains_key(key) {
        return Err(Refusal::NotFound(key.to_string()));
    }
    replace(state, key, None)?;
    if key.kind == Kind::Channel {
        state.channels.remove(&(key.tenant.clone(), key.name.clone()));
    }
    holds::refresh(state, context);
    Ok(Reply::Done)
}

impl State {
    /// A copy on which commands about manifests answer as on this state, without what they never
    /// look at: its cost does not grow with the incidents.
    #[must_use]
    pub fn for_manifests(&self) -> Self {
        Self {
            version: self.version,
            cluster_version: self.cluster_version,
            applied: self.applied,
            now: self.now,
            fence: self.fence,
            nodes: self.nodes.clone(),
            agents: self.agents.clone(),
            manifests: self.manifests.clone(),
            request_order: self.request_order.clone(),
            requests: self.requests.clone(),
            audit: self.audit,
            ..Self::new()
        }
    }
}

fn check_sound(command: &ApplyManifest) -> Result<(), Refusal> {
    let manifest = &command.manifest;
    let problems = validate(manifest);
    if !problems.is_empty() {
        let shown: Vec<String> =
            problems.iter().take(MAX_PROBLEMS).map(ToString::to_string).collect();
        return Err(Refusal::Invalid(format!("{}: {}", manifest.key(), shown.join("; "))));
    }
    let bytes = codec::encode(manifest).len();
    if bytes > MAX_MANIFEST_BYTES {
        let text =
            format!("{} has {bytes} bytes, at most {MAX_MANIFEST_BYTES} are taken", manifest.key());
        return Err(Refusal::Limit(text));
    }
    Ok(())
}

/// A service runs its processes on agents that its tenant was given. Older builds did not look: the
/// rule holds once every member knows it.
fn check_agents(state: &State, manifest: &Manifest) -> Result<(), Refusal> {
    let Spec::Service(service) = &manifest.spec else { return Ok(()) };
    if state.cluster_version < AGENTS_OF_TENANTS_SINCE {
        return Ok(());
    }
    let tenant = &manifest.metadata.tenant;
    let quotas = state.quotas(tenant);
    let foreign = service.instances.iter().enumerate().find_map(|(n, instance)| {
        let agent = instance.agent.as_ref()?;
        (!quotas.may_run_on(tenant, agent)).then_some((n, agent))
    });
    let Some((n, agent)) = foreign else { return Ok(()) };
    Err(Refusal::Invalid(format!(
        "{}: spec.instances[{n}].agent: tenant `{tenant}` was not given agent `{agent}`; an \
         administrator lists it in `spec.agents` of the Tenant manifest",
        manifest.key()
    )))
}

fn check_expected(
    key: &ManifestKey,
    found: Option<Digest>,
    expected: Option<Digest>,
) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != found.unwrap_or_default() => {
            let found = found.map_or_else(|| "none".to_owned(), |digest| digest.short());
            let text = format!("{key} is {found} by now, not {}: look again", expected.short());
            Err(Refusal::Conflict(text))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_quota(state: &State, key: &ManifestKey) -> Result<(), Refusal> {
    let quota = state.quotas(&key.tenant).max_manifests;
    let held = state.manifests.keys().filter(|other| other.tenant == key.tenant).count();
    if u64::try_from(held).unwrap_or(u64::MAX) >= u64::from(quota) {
        return Err(Refusal::Limit(format!("tenant {} has {quota} manifests", key.tenant)));
    }
    if state.manifests.len() >= MAX_MANIFESTS {
        return Err(Refusal::Limit(format!("there are {MAX_MANIFESTS} manifests")));
    }
    Ok(())
}

/// Sets or removes a manifest, unless that leaves a cluster that nobody may administer.
fn replace(state: &mut State, key: &ManifestKey, stored: Option<Stored>) -> Result<(), Refusal> {
    let about_access = matches!(key.kind, Kind::Role | Kind::RoleBinding);
    let had = about_access && state.has_administrator();
    let before = match stored {
        Some(stored) => state.manifests.insert(key.clone(), stored),
        None => state.manifests.remove(key),
    };
    if had && !state.has_administrator() {
        match before {
            Some(before) => state.manifests.insert(key.clone(), before),
            None => state.manifests.remove(key),
        };
        let text = format!("without {key} nobody could administer the cluster");
        return Err(Refusal::Conflict(text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::Command,
        law::tests::lab::{Lab, ROOT, TENANT, apply as lab_apply, binding, manifest, service},
        manifest::*,
    };

    #[test]
    fn the_same_again_changes_nothing() {
        let mut lab = Lab::new();
        let manifest = manifest("x", TENANT, Spec::Service(service(&["i"], &["not-there-yet"])));
        let Ok(Reply::Stored { digest, changed: true }) = lab.root(lab_apply(manifest.clone()))
        else {
            panic!("not stored")
        };
        let again = lab.root(lab_apply(manifest.clone()));
        assert_eq!(again, Ok(Reply::Stored { digest, changed: false }));

        let expecting = |expected| {
            let manifest = manifest.clone();
            Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected: Some(expected) }))
        };
        lab.root(expecting(digest)).unwrap();
        assert!(matches!(lab.root(expecting(Digest::default())), Err(Refusal::Conflict(_))));
        lab.root(Command::DeleteManifest(manifest.key())).unwrap();
        assert!(matches!(lab.root(expecting(digest)), Err(Refusal::Conflict(_))));
        lab.root(expecting(Digest::default())).unwrap();
    }

    #[test]
    fn nobody_locks_everybody_out() {
        let mut lab = Lab::new();
        let admins = manifest("admins", "*", binding("viewer", &[ROOT]));
        let answer = lab.root(lab_apply(admins.clone()));
        assert!(matches!(answer, Err(Refusal::Conflict(_))));
        assert!(matches!(
            lab.root(Command::DeleteManifest(admins.key())),
            Err(Refusal::Conflict(_))
        ));
        lab.root(lab_apply(manifest("more", "*", binding("admin", &["ann"])))).unwrap();
        lab.root(Command::DeleteManifest(admins.key())).unwrap();
    }

    #[test]
    fn quotas_and_unsound_manifests_are_refused() {
        let mut lab = Lab::new();
        let held = u32::try_from(lab.state.stored_of(Kind::Service, TENANT).count()).unwrap() + 1;
        let quota =
            TenantSpec { max_open_incidents: 9, max_manifests: held + 1, ..TenantSpec::default() };
        lab.apply(TENANT, Spec::Tenant(quota));
        let one = manifest("one", TENANT, Spec::Service(service(&["i"], &[])));
        assert!(matches!(lab.root(lab_apply(one)), Err(Refusal::Limit(_))));
        let twice = manifest("db", TENANT, Spec::Service(service(&["i", "i"], &[])));
        let answer = lab.root(lab_apply(twice));
        assert!(
            matches!(&answer, Err(Refusal::Invalid(why)) if why.contains("there already")),
            "{answer:?}"
        );
    }

    #[test]
    fn a_tenant_runs_on_the_agents_it_was_given() {
        let mut lab = Lab::new();
        let on = |name: &str, agent: &str| {
            let mut spec = service(&["i"], &[]);
            for instance in &mut spec.instances {
                instance.agent = Some(agent.into());
            }
            lab_apply(manifest(name, "team", Spec::Service(spec)))
        };
        let refused = |answer: Answer| {
            assert!(
                matches!(&answer, Err(Refusal::Invalid(why)) if why.contains("was not given agent")),
                "{answer:?}"
            );
        };
        refused(lab.root(on("web", "db-host")));
        let given = TenantSpec {
            agents: Some(vec!["one".into(), "team-*".into()]),
            ..TenantSpec::default()
        };
        let tenant = manifest("team", TENANT, Spec::Tenant(given));
        lab.root(lab_apply(tenant)).unwrap();
        lab.root(on("web", "one")).unwrap();
        lab.root(on("web", "team-7")).unwrap();
        refused(lab.root(on("web", "db-host")));
        refused(lab.root(on("web", "one-more")));
    }
}
