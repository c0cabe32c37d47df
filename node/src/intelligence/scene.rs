//! One incident with everything a judgement about it may look at, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Millis, Ppm, State, Timestamp,
    incident::{Incident, SymptomState},
    manifest::{Criticality, ServiceSpec},
    plan::Direction,
    saga::StepStatus,
    symptom::{Severity, Target},
};

use crate::{
    expr::{Facts, Scalar},
    topology,
    world::Observation,
};

/// What is known about one incident.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    /// The law's state.
    pub(super) state: &'a State,
    /// The incident.
    pub(super) incident: &'a Incident,
    /// Its service; `None` when it is declared no longer.
    pub(super) service: Option<&'a ServiceSpec>,
    /// Fresh looks.
    pub(super) observations: &'a BTreeMap<Target, Observation>,
    /// Never before the law's own time: a slow clock must not make judgement wait.
    pub(super) now: Timestamp,
}

/// A fraction as the law stores it; out-of-range and not-a-number become the nearest bound.
#[must_use]
pub(super) fn ppm(fraction: f64) -> Ppm {
    let scaled = (fraction.clamp(0.0, 1.0) * 1e6).round();
    // NaN casts to 0; the clamp keeps the rest within 0 ..= 1e6.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped above")]
    Ppm(scaled as u32)
}

/// A fraction as judgement computes with it.
#[must_use]
pub(super) fn fraction(value: Ppm) -> f64 {
    f64::from(value.0) / 1e6
}

impl<'a> Scene<'a> {
    /// The name of the treated service.
    #[must_use]
    pub(super) fn name(&self) -> &'a str {
        &self.incident.target.service
    }

    /// The tenant.
    #[must_use]
    pub(super) fn tenant(&self) -> &'a str {
        &self.incident.tenant
    }

    /// Symptoms of the treated service that have not cleared, worst and clearest first.
    #[must_use]
    pub(super) fn own(&self) -> Vec<&'a SymptomState> {
        let mut own: Vec<_> =
            self.incident.own_symptoms().filter(|s| s.cleared_at.is_none()).collect();
        own.sort_by_key(|s| {
            let rank = topology::out_of_service(&s.symptom.kind);
            (std::cmp::Reverse((rank, s.symptom.severity)), s.symptom.p_value, s.first_at)
        });
        own
    }

    /// Whether nothing hurts yet: predictions, and beside them at most findings worth knowing.
    #[must_use]
    pub(super) fn predicted(&self) -> bool {
        let own = self.own();
        own.iter().any(|s| s.symptom.predicted())
            && own.iter().all(|s| s.symptom.predicted() || s.symptom.severity == Severity::Info)
    }

    /// How severe the worst own symptom is.
    fn worst(&self) -> Severity {
        self.own().iter().map(|s| s.symptom.severity).max().unwrap_or(Severity::Info)
    }

    /// Symptoms that a judgement rests on: of the affected instances, and of the service as a whole.
    #[must_use]
    pub(super) fn telling(&self) -> Vec<&'a SymptomState> {
        let affected: BTreeSet<Target> = self.affected().into_iter().collect();
        let tells = |s: &&SymptomState| {
            let target = &s.symptom.target;
            target.instance.is_empty() || affected.contains(target)
        };
        self.own().into_iter().filter(tells).collect()
    }

    /// The instances that have symptoms as severe as the worst. Beside one that does not answer, one
    /// that is a little slow is a bystander: it is watched, and not treated for what another has.
    /// A symptom of the service as a whole affects all.
    #[must_use]
    pub(super) fn affected(&self) -> Vec<Target> {
        let worst = self.worst();
        let named: BTreeSet<Target> = self
            .own()
            .into_iter()
            .filter(|s| s.symptom.severity == worst)
            .map(|s| &s.symptom.target)
            .filter(|target| !target.instance.is_empty())
            .cloned()
            .collect();
        if named.is_empty() { self.instances() } else { named.into_iter().collect() }
    }

    /// All instances of the service that are meant to run.
    #[must_use]
    pub(super) fn instances(&self) -> Vec<Target> {
        topology::running_targets(self.state, self.tenant(), self.name())
    }

    /// A label of the symptom, empty when it has none.
    #[must_use]
    pub(super) fn label(symptom: &'a SymptomState, name: &str) -> &'a str {
        symptom.symptom.labels.get(name).map_or("", String::as_str)
    }

    /// The share of its requests that an instance still answers well, from 0 to 1; `None`: it is
    /// out of rotation, nobody is served there anyway.
    ///
    /// Fresh observations first: a failing probe puts it out of rotation, an error rate is the
    /// share that is lost. Without them, by the symptoms.
    #[must_use]
    pub(super) fn serving(&self, target: &Target) -> Option<f64> {
        if let Some(seen) = self.observations.get(target) {
            if seen.probes.values().any(|good| !good) {
                return None;
            }
            let errors = seen.metrics.get("error_rate").filter(|rate| rate.is_finite());
            if let Some(errors) = errors {
                return Some((1.0 - errors.clamp(0.0, 1.0)) * self.in_time(target));
            }
        }
        let mut left = Some(self.in_time(target));
        let of_target = topology::active_symptoms(self.state, self.tenant(), &target.service)
            .filter(|(_, s)| s.symptom.target == *target);
        for (_, symptom) in of_target {
            match symptom.symptom.kind.as_str() {
                kind if topology::out_of_service(kind) => return None,
                "errors" => left = left.map(|left| left * 0.5),
                _ => {}
            }
        }
        left
    }

    /// The share of its answers that come in time, by its symptoms: one over its limit has a hundredth
    /// or more too late, one far over it most.
    fn in_time(&self, target: &Target) -> f64 {
        let late = topology::active_symptoms(self.state, self.tenant(), &target.service)
            .filter(|(_, s)| s.symptom.target == *target && s.symptom.kind == "latency")
            .filter(|(_, s)| s.symptom.signals.iter().any(|signal| signal.detector == "limit"))
            .map(|(_, s)| if s.symptom.severity == Severity::Critical { 0.25 } else { 0.5 });
        late.fold(1.0, f64::min)
    }

    /// When the configuration of the symptom's target last changed, as its agent reports.
    #[must_use]
    pub(super) fn config_changed_at(symptom: &SymptomState) -> Option<Timestamp> {
        let age: u64 = symptom.symptom.labels.get("config_changed_ms")?.parse().ok()?;
        Some(Timestamp(symptom.last_at.0.saturating_sub(age)))
    }

    /// Whether a remediation of Medic's own put the configuration there at that time, so that it
    /// is no roll-out of anybody's.
    #[must_use]
    pub(super) fn changed_by_medic(&self, target: &Target, at: Timestamp) -> bool {
        // Agents and nodes measure with different clocks; reports come every few seconds.
        const SLACK: Millis = Millis(3_000);
        self.state.sagas.values().any(|saga| {
            saga.plan.steps.iter().zip(&saga.steps).any(|(step, state)| {
                let touched = step.target == *target && step.action.name.starts_with("config.");
                let began = state.started_at.unwrap_or(Timestamp(u64::MAX));
                let ended = state.ended_at.unwrap_or(Timestamp(u64::MAX));
                let open = state.intent.as_ref().is_some_and(|i| i.direction == Direction::Forward);
                touched
                    && state.status != StepStatus::Pending
                    && at.plus(SLACK) >= began
                    && (open || at <= ended.plus(SLACK))
            })
        })
    }

    /// The labels that a playbook's matchers see: those of the service, of its symptoms (the
    /// worst last, so that it wins), and what is known of the incident itself.
    #[must_use]
    pub(super) fn labels(&self, class: &str) -> BTreeMap<String, String> {
        let own = self.own();
        let mut labels = BTreeMap::new();
        for symptom in own.iter().rev() {
            labels.extend(self.state.labels_of(&symptom.symptom));
        }
        let kind = own.first().map_or("", |s| s.symptom.kind.as_str());
        for (name, value) in [
            ("tenant", self.tenant().to_owned()),
            ("service", self.name().to_owned()),
            ("instance", self.incident.target.instance.clone()),
            ("class", class.to_owned()),
            ("kind", kind.to_owned()),
            ("severity", self.incident.severity.to_string()),
            ("predicted", self.predicted().to_string()),
        ] {
            labels.insert(name.to_owned(), value);
        }
        labels
    }

    /// What a playbook's `when` may ask for.
    #[must_use]
    pub(super) fn facts(&self, class: &str) -> Facts {
        let mut facts = Facts::default();
        let text = |value: &str| Scalar::Text(value.to_owned());
        let count = |n: usize| Scalar::Count(n as u64);
        let incident = self.incident;
        facts.set("incident", "class", text(class));
        facts.set("incident", "severity", text(&incident.severity.to_string()));
        facts.set("incident", "predicted", Scalar::Flag(self.predicted()));
        let age = self.now.since(incident.opened_at);
        facts.set("incident", "age_s", Scalar::Number(age.as_duration().as_secs_f64()));
        facts.set("incident", "attempts", count(incident.attempts.len()));
        facts.declare("symptom");
        if let Some(worst) = self.own().first() {
            for (name, value) in &worst.symptom.labels {
                facts.set("symptom", name, text(value));
            }
            facts.set("symptom", "kind", text(&worst.symptom.kind));
            facts.set("symptom", "severity", text(&worst.symptom.severity.to_string()));
            facts.set("symptom", "p_value", Scalar::Number(fraction(worst.symptom.p_value)));
            facts.set("symptom", "count", Scalar::Count(worst.count));
            facts.set("symptom", "predicted", Scalar::Flag(worst.symptom.predicted()));
            if let Some(left) = worst.symptom.time_to_event {
                let seconds = left.as_duration().as_secs_f64();
                facts.set("symptom", "time_to_event_s", Scalar::Number(seconds));
            }
        }
        let instances = self.instances();
        let healthy = instances.iter().filter(|target| self.healthy(target)).count();
        facts.set("target", "service", text(self.name()));
        facts.set("target", "instance", text(&incident.target.instance));
        facts.set("target", "replicas", count(instances.len()));
        facts.set("target", "healthy_replicas", count(healthy));
        facts.set("target", "affected", count(self.affected().len()));
        if let Some(service) = self.service {
            facts.set("target", "criticality", text(criticality(service.criticality)));
            let standby = service.instances.iter().filter(|i| i.standby).count();
            facts.set("target", "standby", count(standby));
        }
        let region = topology::instance(self.state, &incident.target)
            .and_then(|instance| instance.region.as_deref())
            .unwrap_or_default();
        facts.set("target", "region", text(region));
        facts
    }

    /// Whether nothing is known against an instance: no failing probe, no symptom but predictions,
    /// and, at an instance of the treated service, such as are milder than what is treated.
    #[must_use]
    pub(super) fn healthy(&self, target: &Target) -> bool {
        let failing = self
            .observations
            .get(target)
            .is_some_and(|seen| seen.probes.values().any(|good| !good));
        let from = if target.service == self.name() {
            self.worst().max(Severity::Warning)
        } else {
            Severity::Warning
        };
        !failing
            && !topology::active_symptoms(self.state, self.tenant(), &target.service).any(
                |(_, s)| {
                    let whole = s.symptom.target.instance.is_empty();
                    (whole || s.symptom.target == *target)
                        && !s.symptom.predicted()
                        && s.symptom.severity >= from
                },
            )
    }
}

/// As written in manifests.
#[must_use]
pub(super) const fn criticality(value: Criticality) -> &'static str {
    match value {
        Criticality::Low => "low",
        Criticality::Medium => "medium",
        Criticality::High => "high",
        Criticality::Critical => "critical",
    }
}
