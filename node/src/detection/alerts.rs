//! Alerts of an Alertmanager, taken in as symptoms of kind `alert`.
//!
//! Any node may receive the webhook; the law admits such reports from any registered node under the
//! shard's present epoch, because the alert, not the node, is the observer. All alerts of one target
//! are one symptom (one fingerprint), and its signals say which fire: a resolved alert takes its own
//! signal out, and the last one clears the symptom. What fires is read back from the law's state, so
//! that it does not matter which node heard of which alert.
//!
//! Deliberately absent: authentication and size limits (the HTTP door's), grouping and silences
//! (the law's), and a memory of our own.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use medic_api::http::{AlertRefusal, AlertSink, IncomingAlert};
use medic_raft::{Ledger, LedgerError, LedgerExt as _};
use medic_state::{
    Command, Ppm, Refusal, State, Timestamp,
    command::{ClearSymptom, ReportSymptom},
    manifest::{Kind as ManifestKind, ManifestKey, SourceKind, SourceSpec, Spec},
    symptom::{ALERT_KIND, ALERT_SOURCE, MAX_SIGNALS, Severity, Signal, Symptom, Target},
    text::head,
};
use metrics::counter;

use super::{entity::fingerprint_of, metrics::Metric};

/// Alerts taken from one call; Alertmanager groups rarely exceed a hundred.
pub const ALERTS_MAX: usize = 1_000;
/// Bytes of a summary kept.
const SUMMARY_BYTES_MAX: usize = 300;
/// Bytes of an alert's name kept; with our prefix it stays below the law's bound of names.
const NAME_BYTES_MAX: usize = 200;

/// What became of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Targets reported.
    pub reported: usize,
    /// Targets cleared.
    pub cleared: usize,
    /// Alerts that name no declared service, with the reason.
    pub unmapped: Vec<String>,
    /// What the law refused.
    pub refused: Vec<String>,
}

/// Why a call was not taken at all; the sender should try again later, or mend its configuration.
#[derive(Debug, thiserror::Error)]
pub enum AlertsError {
    /// No `Source` of type `alertmanager`.
    #[error("tenant `{0}` has no Source of type alertmanager: apply one first")]
    NoSource(String),
    /// Too many at once.
    #[error("{0} alerts in one call; at most {ALERTS_MAX} are taken")]
    TooMany(usize),
    /// Not committed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The door's other side.
pub struct Alerts {
    ledger: Arc<dyn Ledger>,
}

impl std::fmt::Debug for Alerts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alerts").finish_non_exhaustive()
    }
}

/// What to do about one target.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Report(Box<Symptom>),
    Clear(Target),
    Nothing,
}

impl Alerts {
    /// Over a ledger.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger }
    }

    /// Takes the alerts of one call. Safe to repeat: the same alerts give the same symptoms.
    ///
    /// # Errors
    /// When nothing could be taken, or the ledger failed half-way (repeat it then).
    pub async fn receive(
        &self,
        tenant: &str,
        alerts: &[IncomingAlert],
    ) -> Result<Taken, AlertsError> {
        if alerts.len() > ALERTS_MAX {
            return Err(AlertsError::TooMany(alerts.len()));
        }
        let mut taken = Taken::default();
        let by_target = self.ledger.read(|state| {
            let sources = sources(state, tenant);
            if sources.is_empty() {
                return Err(AlertsError::NoSource(tenant.to_owned()));
            }
            let mut by_target: BTreeMap<Target, (String, Vec<&IncomingAlert>)> = BTreeMap::new();
            for alert in alerts {
                match find_target(state, tenant, &sources, alert) {
                    Ok((target, source)) => {
                        by_target.entry(target).or_insert((source, Vec::new())).1.push(alert);
                    }
                    Err(why) => taken.unmapped.push(why),
                }
            }
            Ok(by_target)
        })?;
        count("unmapped", taken.unmapped.len());
        for (target, (source, alerts)) in by_target {
            self.take_one(&target, &source, &alerts, &mut taken).await?;
        }
        Ok(taken)
    }

    async fn take_one(
        &self,
        target: &Target,
        source: &str,
        alerts: &[&IncomingAlert],
        taken: &mut Taken,
    ) -> Result<(), AlertsError> {
        /// The shard may move between reading its epoch and the proposal; twice is bad luck.
        const TRIES: usize = 3;
        let now = self.ledger.env().clock.now();
        for left in (0..TRIES).rev() {
            let (command, report) = self.ledger.read(|state| {
                let shard = State::shard_of(target);
                let epoch = state.shards.get(&shard).map(|s| s.epoch).unwrap_or_default();
                match merge(standing(state, target), target, source, alerts, now) {
                    Step::Report(symptom) => {
                        let report = ReportSymptom { shard, epoch, symptom: *symptom };
                        (Some(Command::ReportSymptom(report)), true)
                    }
                    Step::Clear(target) => {
                        let fingerprint = fingerprint_of(&target, ALERT_KIND);
                        let clear = ClearSymptom { shard, epoch, fingerprint };
                        (Some(Command::ClearSymptom(clear)), false)
                    }
                    Step::Nothing => (None, false),
                }
            });
            let Some(command) = command else { return Ok(()) };
            let trace = self.ledger.env().entropy.trace_id();
            let entry = self.ledger.entry(trace, command);
            match self.ledger.propose(entry).await?.answer {
                Err(Refusal::StaleEpoch { .. }) if left > 0 => {}
                Err(refusal) => {
                    tracing::warn!(%target, %refusal, "an alert was refused");
                    count("refused", 1);
                    taken.refused.push(format!("{target}: {refusal}"));
                    return Ok(());
                }
                Ok(reply) => {
                    let what = if report { "an alert is reported" } else { "an alert is over" };
                    tracing::info!(%target, ?reply, %trace, "{what}");
                    count(if report { "reported" } else { "cleared" }, 1);
                    *(if report { &mut taken.reported } else { &mut taken.cleared }) += 1;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl AlertSink for Alerts {
    async fn take(
        &self,
        tenant: &str,
        alerts: Vec<IncomingAlert>,
    ) -> Result<Vec<String>, AlertRefusal> {
        match self.receive(tenant, &alerts).await {
            Ok(taken) => Ok(taken.unmapped.into_iter().chain(taken.refused).collect()),
            Err(error @ (AlertsError::NoSource(_) | AlertsError::TooMany(_))) => {
                Err(AlertRefusal::Wrong(error.to_string()))
            }
            Err(AlertsError::Ledger(error)) => Err(AlertRefusal::Later(error.to_string())),
        }
    }
}

fn count(result: &'static str, times: usize) {
    let times = u64::try_from(times).unwrap_or(u64::MAX);
    counter!(Metric::Alerts.name(), "result" => result).increment(times);
}

/// Alertmanager sources of a tenant, by name.
fn sources(state: &State, tenant: &str) -> Vec<(String, SourceSpec)> {
    let first =
        ManifestKey { kind: ManifestKind::Source, tenant: tenant.to_owned(), name: String::new() };
    (state.manifests.range(first..))
        .take_while(|(key, _)| key.kind == ManifestKind::Source && key.tenant == tenant)
        .filter_map(|(key, stored)| match &stored.manifest.spec {
            Spec::Source(source) if source.kind == SourceKind::Alertmanager => {
                Some((key.name.clone(), source.clone()))
            }
            _ => None,
        })
        .collect()
}

/// The declared target that an alert names, and the source that tells so.
fn find_target(
    state: &State,
    tenant: &str,
    sources: &[(String, SourceSpec)],
    alert: &IncomingAlert,
) -> Result<(Target, String), String> {
    let name =
        alert.labels.get("alertname").map_or_else(|| "?".to_owned(), |name| short_name(name));
    for (source, spec) in sources {
        let Some(service) = alert.labels.get(&spec.service_label) else { continue };
        let key = ManifestKey {
            kind: ManifestKind::Service,
            tenant: tenant.to_owned(),
            name: service.clone(),
        };
        let Some(stored) = state.manifests.get(&key) else { continue };
        let Spec::Service(declared) = &stored.manifest.spec else { continue };
        // Prometheus' own `instance` label is host:port; a name is as good. Else: the service as
        // a whole.
        let instance = alert.labels.get(&spec.instance_label).and_then(|given| {
            declared.instances.iter().find(|instance| {
                let address = instance.port.map(|port| format!("{}:{port}", instance.host));
                instance.name == *given || address.as_ref() == Some(given)
            })
        });
        let target = Target {
            tenant: tenant.to_owned(),
            service: service.clone(),
            instance: instance.map(|instance| instance.name.clone()).unwrap_or_default(),
        };
        return Ok((target, source.clone()));
    }
    let labels: Vec<&str> = sources.iter().map(|(_, spec)| spec.service_label.as_str()).collect();
    Err(format!("alert {name} names no declared service in its label `{}`", labels.join("` or `")))
}

/// The active alert symptom of a target.
fn standing<'s>(state: &'s State, target: &Target) -> Option<&'s Symptom> {
    let fingerprint = fingerprint_of(target, ALERT_KIND);
    let incident = state.incidents.get(state.fingerprints.get(&fingerprint)?)?;
    let held = incident.symptoms.get(&fingerprint)?;
    held.cleared_at.is_none().then_some(&held.symptom)
}

/// What stands, changed by what came in.
fn merge(
    standing: Option<&Symptom>,
    target: &Target,
    source: &str,
    alerts: &[&IncomingAlert],
    now: Timestamp,
) -> Step {
    let mut signals: BTreeMap<String, Signal> = standing
        .map(|symptom| symptom.signals.iter().map(|s| (s.name.clone(), s.clone())).collect())
        .unwrap_or_default();
    let mut labels = standing.map(|symptom| symptom.labels.clone()).unwrap_or_default();
    let mut since = standing.map_or(now, |symptom| symptom.since);
    for alert in alerts {
        let alertname =
            alert.labels.get("alertname").map_or_else(|| "unnamed".to_owned(), |n| short_name(n));
        let name = format!("alert.{alertname}");
        if !alert.firing {
            signals.remove(&name);
            continue;
        }
        if alert.starts_at.0 > 0 {
            since = since.min(alert.starts_at);
        }
        labels.insert("alertname".to_owned(), alertname);
        let severity = severity_of(alert);
        let text = ["summary", "description"].iter().find_map(|key| alert.annotations.get(*key));
        signals.insert(
            name.clone(),
            Signal {
                name,
                value: text.map_or_else(|| "firing".to_owned(), |text| shortened(text)),
                expected: "not firing".to_owned(),
                detector: format!("{ALERT_SOURCE}/{severity}"),
                p_value: Ppm::ZERO,
            },
        );
    }
    if signals.is_empty() {
        return if standing.is_some() { Step::Clear(target.clone()) } else { Step::Nothing };
    }
    let mut signals: Vec<Signal> = signals.into_values().collect();
    signals.sort_by_key(|signal| std::cmp::Reverse(graded(signal)));
    signals.truncate(MAX_SIGNALS);
    let names: Vec<&str> = (signals.iter())
        .map(|signal| signal.name.strip_prefix("alert.").unwrap_or(&signal.name))
        .collect();
    let first = &signals[0].value;
    let summary = match (names.as_slice(), first.as_str()) {
        ([only], "firing") => format!("alert {only} fires"),
        ([only], text) => format!("alert {only} fires: {text}"),
        (many, _) => format!("alerts {} fire", many.join(", ")),
    };
    Step::Report(Box::new(Symptom {
        target: target.clone(),
        kind: ALERT_KIND.to_owned(),
        severity: graded(&signals[0]),
        summary: shortened(&summary),
        p_value: Ppm::ZERO,
        signals,
        since,
        time_to_event: None,
        labels,
        source: format!("{ALERT_SOURCE}/{source}"),
    }))
}

fn severity_of(alert: &IncomingAlert) -> Severity {
    match alert.labels.get("severity").map(String::as_str) {
        Some("critical" | "page" | "error" | "emergency") => Severity::Critical,
        Some("info" | "none" | "notice") => Severity::Info,
        _ => Severity::Warning,
    }
}

/// The severity that a standing signal was given.
fn graded(signal: &Signal) -> Severity {
    [Severity::Critical, Severity::Info]
        .into_iter()
        .find(|severity| signal.detector.ends_with(&format!("/{severity}")))
        .unwrap_or(Severity::Warning)
}

fn shortened(text: &str) -> String {
    head(text, SUMMARY_BYTES_MAX).to_owned()
}

/// A name that the law keeps whole, so that the same alert is known again when it is resolved.
fn short_name(name: &str) -> String {
    head(name, NAME_BYTES_MAX).to_owned()
}

#[cfg(test)]
mod tests;
