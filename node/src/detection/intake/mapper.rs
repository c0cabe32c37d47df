//! Whose is a series? From a tenant's Source and Service manifests to the instance that a series
//! speaks of, and to the indicators that want it. Pure.
//!
//! A source names the labels that name service and instance. An instance is found by its name or by
//! its `host:port`, which is what Prometheus writes into `instance`; a service of one instance needs
//! no such label. Series that no indicator selects are of no use here and cost a hash to ignore.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use medic_state::{
    Digest, ShardId, State,
    manifest::{Kind as ManifestKind, ManifestKey, ServiceSpec, SourceKind, Spec},
    matcher::{Matcher, parse_all},
    symptom::Target,
};

use super::sample::SeriesView;
use crate::detection::indicator::{Indicators, Source};

/// Sources of one tenant that are heeded; a mask has so many bits.
pub const SOURCES_MAX: usize = 64;

/// Which sources a push may speak for: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed(pub u64);

/// What a series adds to an indicator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// Its value, to a sum.
    Gauge,
    /// Its increase, to a rate or a numerator.
    Of,
    /// Its increase, to a denominator.
    To,
    /// Its increase, to the bucket with this bound.
    Bucket(f64),
}

/// Why a series is not watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotWatched {
    /// It names no declared instance.
    Unmapped,
    /// No indicator selects it.
    Unwanted,
    /// It is not the sender's: no source that the sender may speak for matches it.
    Foreign,
}

/// Where a series belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Position of the source that it came through.
    pub source: usize,
    /// Service.
    pub service: String,
    /// Instance.
    pub instance: String,
    /// What it adds to which indicator of the service, by position.
    pub parts: Box<[(u16, Part)]>,
}

#[derive(Debug)]
struct SourceRule {
    name: String,
    kind: SourceKind,
    service_label: String,
    instance_label: String,
    matchers: Vec<Matcher>,
    token: Option<String>,
}

/// What the mapper knows of a service.
#[derive(Debug)]
pub struct ServiceRule {
    /// Its shard.
    pub shard: ShardId,
    /// Its indicators.
    pub indicators: Arc<Indicators>,
    instances: HashMap<String, String>,
    only: Option<String>,
}

/// A tenant's manifests, compiled.
#[derive(Debug, Default)]
pub struct Mapper {
    stamp: Vec<(u64, usize)>,
    sources: Vec<SourceRule>,
    services: BTreeMap<String, ServiceRule>,
}

/// Why a sender may speak for no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSource {
    /// None is declared.
    #[error("tenant `{0}` has no Source of type {1}: apply one first")]
    None(String, &'static str),
    /// All want a token that was not given.
    #[error("this needs the bearer token of a Source of tenant `{0}`")]
    Token(String),
}

impl Mapper {
    /// Compiles a tenant's manifests.
    #[must_use]
    pub fn of(state: &State, tenant: &str) -> Self {
        let mut mapper = Self::of_sources(state, tenant);
        mapper.stamp = stamp(state, tenant);
        for (key, stored) in of_kind(state, ManifestKind::Service, tenant) {
            let Spec::Service(spec) = &stored.manifest.spec else { continue };
            mapper.services.insert(key.name.clone(), ServiceRule::of(tenant, &key.name, spec));
        }
        mapper
    }

    /// Compiles a tenant's sources alone: enough to tell who may push.
    #[must_use]
    pub fn of_sources(state: &State, tenant: &str) -> Self {
        let mut mapper = Self::default();
        for (key, stored) in of_kind(state, ManifestKind::Source, tenant).take(SOURCES_MAX) {
            let Spec::Source(spec) = &stored.manifest.spec else { continue };
            // The law has proven that they parse.
            let Ok(matchers) = parse_all(spec.matchers.as_deref().unwrap_or_default()) else {
                continue;
            };
            mapper.sources.push(SourceRule {
                name: key.name.clone(),
                kind: spec.kind,
                service_label: spec.service_label.clone(),
                instance_label: spec.instance_label.clone(),
                matchers,
                token: spec.token_sha256.clone(),
            });
        }
        mapper
    }

    /// Whether it still says what the state says.
    #[must_use]
    pub fn current(&self, state: &State, tenant: &str) -> bool {
        self.stamp == stamp(state, tenant)
    }

    /// Names of the sources, by position.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.name.as_str())
    }

    /// A service.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceRule> {
        self.services.get(name)
    }

    /// The sources of a kind that a push may speak for. `vouched`: the door has let it in by its own
    /// token, or has none.
    ///
    /// # Errors
    /// When there are none.
    pub fn allowed(
        &self,
        tenant: &str,
        (kind, kind_name): (SourceKind, &'static str),
        token: Option<&str>,
        vouched: bool,
    ) -> Result<Allowed, NoSource> {
        let (mut allowed, mut any) = (Allowed::default(), false);
        // Compared by digest of digests, so that the time taken says nothing.
        let digest = |text: &str| Digest::of(&[text.as_bytes()]);
        for (at, source) in self.sources.iter().enumerate().filter(|(_, s)| s.kind == kind) {
            any = true;
            let fits = match (&source.token, token) {
                (None, _) => vouched,
                (Some(wanted), Some(given)) => digest(wanted) == digest(given),
                (Some(_), None) => false,
            };
            allowed.0 |= u64::from(fits) << at;
        }
        match (allowed.0, any) {
            (0, false) => Err(NoSource::None(tenant.to_owned(), kind_name)),
            (0, true) => Err(NoSource::Token(tenant.to_owned())),
            (_, _) => Ok(allowed),
        }
    }

    /// The sources of these names.
    #[must_use]
    pub fn named(&self, names: &[String]) -> Allowed {
        let bits = self.sources.iter().enumerate();
        let named = bits.filter(|(_, source)| names.contains(&source.name));
        Allowed(named.fold(0, |allowed, (at, _)| allowed | 1 << at))
    }

    /// The names of these sources.
    #[must_use]
    pub fn names(&self, allowed: Allowed) -> Vec<String> {
        let bits = self.sources.iter().enumerate();
        bits.filter(|(at, _)| allowed.0 >> at & 1 == 1).map(|(_, s)| s.name.clone()).collect()
    }

    /// The sources among these that take labels like these: the name of each, and the labels that name
    /// service and instance.
    pub fn taking<'m>(
        &'m self,
        allowed: Allowed,
        labels: &'m BTreeMap<String, String>,
    ) -> impl Iterator<Item = (&'m str, &'m str, &'m str)> {
        let sources = self.sources.iter().enumerate();
        sources
            .filter(move |(at, source)| {
                allowed.0 >> at & 1 == 1 && source.matchers.iter().all(|m| m.matches(labels))
            })
            .map(|(_, s)| (s.name.as_str(), s.service_label.as_str(), s.instance_label.as_str()))
    }

    /// Whether an indicator of any service may want series of this name.
    #[must_use]
    pub fn wants(&self, metric: &str) -> bool {
        self.services.values().any(|service| service.indicators.wants(metric))
    }

    /// Where a series belongs.
    ///
    /// # Errors
    /// Why nobody watches it.
    pub fn place(&self, allowed: Allowed, view: &SeriesView<'_>) -> Result<Place, NotWatched> {
        let labels = view.owned_labels();
        let mut verdict = NotWatched::Foreign;
        for (at, source) in self.sources.iter().enumerate() {
            if allowed.0 >> at & 1 == 0 || !source.matchers.iter().all(|m| m.matches(&labels)) {
                continue;
            }
            verdict = NotWatched::Unmapped;
            let Some((name, instance)) = self.named_by(source, &labels) else { continue };
            let Some(service) = self.services.get(name) else { continue };
            let parts = service.parts(view.name(), &labels);
            if parts.is_empty() {
                return Err(NotWatched::Unwanted);
            }
            let (service, instance) = (name.to_owned(), instance.to_owned());
            return Ok(Place { source: at, service, instance, parts });
        }
        Err(verdict)
    }

    /// The service and the instance that labels speak of.
    ///
    /// # Errors
    /// Why there is none.
    pub fn instance(
        &self,
        allowed: Allowed,
        labels: &BTreeMap<String, String>,
    ) -> Result<(&str, &str), NotWatched> {
        let mut verdict = NotWatched::Foreign;
        for (at, source) in self.sources.iter().enumerate() {
            if allowed.0 >> at & 1 == 0 || !source.matchers.iter().all(|m| m.matches(labels)) {
                continue;
            }
            verdict = NotWatched::Unmapped;
            if let Some(found) = self.named_by(source, labels) {
                return Ok(found);
            }
        }
        Err(verdict)
    }

    fn named_by(
        &self,
        source: &SourceRule,
        labels: &BTreeMap<String, String>,
    ) -> Option<(&str, &str)> {
        let (name, service) = self.services.get_key_value(labels.get(&source.service_label)?)?;
        let instance = match labels.get(&source.instance_label) {
            Some(given) => service.instances.get(given).or(service.only.as_ref()),
            None => service.only.as_ref(),
        };
        Some((name, instance?))
    }
}

impl ServiceRule {
    /// Whether an instance of this name is declared.
    #[must_use]
    pub fn has(&self, instance: &str) -> bool {
        self.instances.get(instance).is_some_and(|name| name == instance)
    }

    fn of(tenant: &str, name: &str, spec: &ServiceSpec) -> Self {
        let mut instances = HashMap::new();
        for instance in &spec.instances {
            if let Some(port) = instance.port {
                instances.insert(format!("{}:{port}", instance.host), instance.name.clone());
            }
        }
        // A name wins over an address.
        instances.extend(spec.instances.iter().map(|one| (one.name.clone(), one.name.clone())));
        let only = match spec.instances.as_slice() {
            [one] => Some(one.name.clone()),
            _ => None,
        };
        let whole =
            Target { tenant: tenant.to_owned(), service: name.to_owned(), instance: String::new() };
        let indicators = Arc::new(Indicators::of(spec));
        Self { shard: State::shard_of(&whole), indicators, instances, only }
    }

    fn parts(&self, name: &str, labels: &BTreeMap<String, String>) -> Box<[(u16, Part)]> {
        let mut parts = Vec::new();
        for (at, indicator) in (0_u16..).zip(&self.indicators.list) {
            let mut add = |part| parts.push((at, part));
            match &indicator.source {
                Source::Gauge(s) if s.selects(name, labels) => add(Part::Gauge),
                Source::Rate(s) if s.selects(name, labels) => add(Part::Of),
                Source::Ratio { of, to } => {
                    if of.selects(name, labels) {
                        add(Part::Of);
                    }
                    if to.selects(name, labels) {
                        add(Part::To);
                    }
                }
                Source::Quantile { buckets, .. } if buckets.selects(name, labels) => {
                    if let Some(bound) = labels.get("le").and_then(|le| le.parse().ok()) {
                        add(Part::Bucket(bound));
                    }
                }
                Source::Gauge(_) | Source::Rate(_) | Source::Quantile { .. } => {}
            }
        }
        parts.into_boxed_slice()
    }
}

/// Tells one set of manifests from another: log index and count by kind.
fn stamp(state: &State, tenant: &str) -> Vec<(u64, usize)> {
    [ManifestKind::Source, ManifestKind::Service]
        .into_iter()
        .map(|kind| {
            let (mut newest, mut count) = (0, 0);
            for (_, stored) in of_kind(state, kind, tenant) {
                newest = newest.max(stored.index);
                count += 1;
            }
            (newest, count)
        })
        .collect()
}

fn of_kind<'s>(
    state: &'s State,
    kind: ManifestKind,
    tenant: &'s str,
) -> impl Iterator<Item = (&'s ManifestKey, &'s medic_state::manifest::Stored)> {
    let first = ManifestKey { kind, tenant: tenant.to_owned(), name: String::new() };
    let of_it = move |key: &ManifestKey| key.kind == kind && key.tenant == tenant;
    state.manifests.range(first..).take_while(move |(key, _)| of_it(key))
}

#[cfg(test)]
pub(super) mod tests;
