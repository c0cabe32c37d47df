//! What people are not told for the time being, though it is so: silences, maintenance windows, and
//! inhibition (what another incident makes plain).
//!
//! ```text
//!   incident ─► in a maintenance window? ─────────────────────────────► hushed
//!      └─ each of its active symptoms ─► silenced? inhibited? ─ all ──► hushed, until one is not
//! ```
//!
//! Inhibition is Prometheus Alertmanager's: an active symptom that matches `source` inhibits one that
//! matches `target`, where the labels `equal` are the same (missing and empty are); what matches both
//! sides of a rule is not inhibited by what does too. An inhibited incident still inhibits others.
//!
//! Invariant: of a ring of incidents that inhibit one another, directly or round about, the oldest is not
//! inhibited by the rest. All of a ring is downstream of its oldest, and rings hang together without a
//! ring: so behind every inhibited incident stands one that is not. Only pages are hushed: healing goes
//! on, and what ends a page that was sent goes out.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    ids::{IncidentId, Timestamp},
    incident::{Incident, IncidentStatus, SymptomState},
    law::topology::{as_policy, as_silence, as_window},
    manifest::{InhibitSpec, Kind},
    matcher::{Matcher, parse_all},
    state::State,
};

/// Reasons named of one incident.
const MAX_REASONS: usize = 3;

type Labels = BTreeMap<String, String>;

/// What is in force in one tenant right now.
pub(super) struct Hush<'a> {
    state: &'a State,
    tenant: &'a str,
    silences: Vec<Held>,
    windows: Vec<Held>,
    inhibition: OnceCell<Inhibition<'a>>,
}

/// A silence or window in force.
struct Held {
    text: String,
    matchers: Vec<Matcher>,
}

impl Held {
    fn covers(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

impl State {
    /// Why people are told nothing of an incident for the time being, though a human were needed.
    #[must_use]
    pub fn hushed(&self, incident: &Incident) -> Option<String> {
        Hush::of(self, &incident.tenant).reason(incident)
    }

    /// When the next silence or window ends in a tenant in which somebody waits for people.
    pub(super) fn hush_ends(&self) -> Option<Timestamp> {
        let waiting: BTreeSet<&str> = self
            .incidents
            .values()
            .filter(|incident| super::telling::needs_human(incident))
            .map(|incident| incident.tenant.as_str())
            .collect();
        let ends = waiting.into_iter().flat_map(|tenant| {
            let silences = self
                .stored_of(Kind::Silence, tenant)
                .filter_map(|(_, stored)| as_silence(&stored.manifest.spec)?.until(self.now));
            let windows = self
                .stored_of(Kind::MaintenanceWindow, tenant)
                .filter_map(|(_, stored)| as_window(&stored.manifest.spec)?.until(self.now));
            silences.chain(windows)
        });
        ends.min()
    }
}

impl<'a> Hush<'a> {
    pub(super) fn of(state: &'a State, tenant: &'a str) -> Self {
        // A matcher that does not parse was refused at the door; matching nothing tells people.
        let held = |text: String, matchers: &[String]| {
            Some(Held { text, matchers: parse_all(matchers).ok()? })
        };
        let silences = state.stored_of(Kind::Silence, tenant).filter_map(|(name, stored)| {
            let silence = as_silence(&stored.manifest.spec)?;
            silence.active(state.now).then_some(())?;
            held(format!("silenced by {name}: {}", silence.comment), &silence.matchers)
        });
        let windows =
            state.stored_of(Kind::MaintenanceWindow, tenant).filter_map(|(name, stored)| {
                let window = as_window(&stored.manifest.spec)?;
                window.active(state.now).then_some(())?;
                held(format!("maintenance window {name}: {}", window.comment), &window.matchers)
            });
        let (silences, windows) = (silences.collect(), windows.collect());
        Self { state, tenant, silences, windows, inhibition: OnceCell::new() }
    }

    /// Why nothing is told of an incident of this tenant; `None`: nothing keeps it back.
    pub(super) fn reason(&self, incident: &Incident) -> Option<String> {
        if incident.closed() {
            return None;
        }
        let labels = |known: &&SymptomState| self.state.labels_of(&known.symptom);
        if !self.windows.is_empty() {
            let own: Vec<Labels> = incident.own_symptoms().map(|known| labels(&known)).collect();
            let window = self.windows.iter().find(|held| own.iter().any(|one| held.covers(one)));
            if let Some(window) = window {
                return Some(window.text.clone());
            }
        }
        let mut reasons: Vec<String> = Vec::new();
        for known in spoken_of(incident) {
            let labels = labels(&known);
            let silence = self.silences.iter().find(|held| held.covers(&labels));
            let reason = match silence {
                Some(silence) => silence.text.clone(),
                None => self.inhibition().reason(incident.id, &labels)?,
            };
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let more = reasons.len().saturating_sub(MAX_REASONS);
        reasons.truncate(MAX_REASONS);
        if more > 0 {
            reasons.push(format!("and {more} more"));
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    fn inhibition(&self) -> &Inhibition<'a> {
        self.inhibition.get_or_init(|| Inhibition::of(self.state, self.tenant))
    }
}

/// The symptoms that a page would be about: of its own, the active ones; else the nearest to that.
fn spoken_of(incident: &Incident) -> Vec<&SymptomState> {
    let own: Vec<&SymptomState> = incident.own_symptoms().collect();
    let own = if own.is_empty() { incident.symptoms.values().collect() } else { own };
    let active: Vec<&SymptomState> =
        own.iter().copied().filter(|known| known.cleared_at.is_none()).collect();
    if active.is_empty() { own } else { active }
}

/// One declared rule.
struct Rule<'a> {
    spec: &'a InhibitSpec,
    source: Vec<Matcher>,
    target: Vec<Matcher>,
}

/// Which sides of a rule a symptom matches.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sides {
    source: bool,
    target: bool,
}

impl Rule<'_> {
    fn sides(&self, labels: &Labels) -> Sides {
        let all = |side: &[Matcher]| side.iter().all(|matcher| matcher.matches(labels));
        Sides { source: all(&self.source), target: all(&self.target) }
    }

    fn values(&self, labels: &Labels) -> Vec<String> {
        let value = |name: &String| labels.get(name).cloned().unwrap_or_default();
        self.spec.equal.iter().map(value).collect()
    }
}

/// A rule, and the values of its `equal` labels.
type Key = (usize, Vec<String>);

/// Who stands at the two ends of a key, each with whether its symptom matches the other side too.
#[derive(Default)]
struct Ends {
    sources: BTreeMap<(IncidentId, bool), String>,
    targets: BTreeSet<(IncidentId, bool)>,
}

/// The rules of a tenant, and who inhibits whom by them.
struct Inhibition<'a> {
    rules: Vec<Rule<'a>>,
    ends: BTreeMap<Key, Ends>,
    /// The keys that an incident is a source of, and those it is a target of.
    source_of: KeysOf,
    target_of: KeysOf,
}

type KeysOf = BTreeMap<IncidentId, BTreeSet<(Key, bool)>>;

impl<'a> Inhibition<'a> {
    fn of(state: &'a State, tenant: &str) -> Self {
        let policy = state.stored(Kind::Policy, tenant, "default");
        let policy = policy.and_then(|stored| as_policy(&stored.manifest.spec));
        let specs = policy.map(|policy| policy.inhibit.as_slice()).unwrap_or_default();
        let rule = |spec: &'a InhibitSpec| {
            let (source, target) = (parse_all(&spec.source).ok()?, parse_all(&spec.target).ok()?);
            Some(Rule { spec, source, target })
        };
        let mut found = Self {
            rules: specs.iter().filter_map(rule).collect(),
            ends: BTreeMap::new(),
            source_of: BTreeMap::new(),
            target_of: BTreeMap::new(),
        };
        if !found.rules.is_empty() {
            let of_tenant = |incident: &&Incident| incident.tenant == tenant && !incident.closed();
            for incident in state.incidents.values().filter(of_tenant) {
                found.enter(state, incident);
            }
        }
        found
    }

    fn enter(&mut self, state: &State, incident: &Incident) {
        let id = incident.id;
        let treated = matches!(
            incident.status,
            IncidentStatus::Remediating | IncidentStatus::Verifying | IncidentStatus::RollingBack
        );
        let targets: BTreeSet<_> =
            spoken_of(incident).into_iter().map(|known| known.symptom.fingerprint()).collect();
        for (fingerprint, known) in &incident.symptoms {
            let labels = state.labels_of(&known.symptom);
            // What is being treated may flicker.
            let active = known.cleared_at.is_none() || treated;
            for (at, rule) in self.rules.iter().enumerate() {
                let sides = rule.sides(&labels);
                let key = || (at, rule.values(&labels));
                if sides.source && active {
                    let what = format!("{} of {}", known.symptom.kind, known.symptom.target);
                    let ends = self.ends.entry(key()).or_default();
                    ends.sources.entry((id, sides.target)).or_insert(what);
                    self.source_of.entry(id).or_default().insert((key(), sides.target));
                }
                if sides.target && targets.contains(fingerprint) {
                    self.ends.entry(key()).or_default().targets.insert((id, sides.source));
                    self.target_of.entry(id).or_default().insert((key(), sides.source));
                }
            }
        }
    }

    /// By what a symptom of an incident is inhibited, in words.
    fn reason(&self, target: IncidentId, labels: &Labels) -> Option<String> {
        let mut spared = None;
        for (at, rule) in self.rules.iter().enumerate() {
            let sides = rule.sides(labels);
            if !sides.target {
                continue;
            }
            let Some(ends) = self.ends.get(&(at, rule.values(labels))) else { continue };
            for ((source, both), what) in &ends.sources {
                if *source == target || (*both && sides.source) {
                    continue;
                }
                if spared.get_or_insert_with(|| self.younger_of_ring(target)).contains(source) {
                    continue;
                }
                return Some(format!("inhibited by {source} ({what}), rule {}", rule.spec.name));
            }
        }
        None
    }

    /// The rest of the ring that an incident is the oldest of; empty: it is in none, or not the oldest.
    fn younger_of_ring(&self, of: IncidentId) -> BTreeSet<IncidentId> {
        let downstream =
            self.walk(of, &self.source_of, |ends| ends.targets.iter().copied().collect());
        if downstream.is_empty() {
            return downstream;
        }
        let upstream =
            self.walk(of, &self.target_of, |ends| ends.sources.keys().copied().collect());
        let ring: BTreeSet<IncidentId> = downstream.intersection(&upstream).copied().collect();
        if ring.first().is_some_and(|oldest| *oldest < of) { BTreeSet::new() } else { ring }
    }

    /// Every incident that is reached from one, by the keys it has and their far ends.
    fn walk(
        &self,
        from: IncidentId,
        keys: &KeysOf,
        far: impl Fn(&Ends) -> Vec<(IncidentId, bool)>,
    ) -> BTreeSet<IncidentId> {
        let mut found = BTreeSet::new();
        let mut next = vec![from];
        // From both sides to both sides there is no way: each key is gone through twice at most.
        let mut seen = BTreeSet::new();
        while let Some(at) = next.pop() {
            for (key, both) in keys.get(&at).into_iter().flatten() {
                if !seen.insert((key, *both)) {
                    continue;
                }
                for (other, other_both) in self.ends.get(key).map(&far).unwrap_or_default() {
                    if !(*both && other_both) && found.insert(other) {
                        next.push(other);
                    }
                }
            }
        }
        found
    }
}

#[cfg(test)]
pub(super) mod tests;
