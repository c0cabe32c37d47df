//! Alerts of an Alertmanager, taken in as symptoms of kind `alert`.
//!
//! Any node may receive the webhook; the law admits such reports from any registered node under the
//! shard's present epoch, because the alert, not the node, is the observer. All alerts of one target
//! are one symptom (one fingerprint), and its signals say which fire: a resolved alert takes its own
//! signal out, and the last one clears the symptom. What fires is read back from the law's state, so
//! that it does not matter which node heard of which alert.
//!
//! Who may speak, and of what, the tenant's Sources of type `alertmanager` say: by the token that each
//! may demand, and by what each matches.
//!
//! Deliberately absent: size limits (the HTTP door's), grouping and silences (the law's), and a memory
//! of our own.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use medic_api::http::{AlertRefusal, AlertSink, IncomingAlert, Sender, alerts::ALERTS_MAX};
use medic_raft::{Ledger, LedgerError, LedgerExt as _};
use medic_state::{
    Command, Ppm, Refusal, State, Timestamp,
    command::{ClearSymptom, ReportSymptom},
    manifest::{Kind as ManifestKind, ManifestKey, SourceKind, Spec},
    symptom::{ALERT_KIND, ALERT_SOURCE, MAX_SIGNALS, Severity, Signal, Symptom, Target},
    text::head,
};
use metrics::counter;

use super::{
    entity::fingerprint_of,
    intake::{
        Hub,
        mapper::{Allowed, Mapper, NoSource},
    },
    metrics::Metric,
};

/// Notes of one answer: who sends a thousand alerts of nobody need not read a thousand lines.
const NOTES_MAX: usize = 20;
const KIND: (SourceKind, &str) = (SourceKind::Alertmanager, "alertmanager");
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
    /// Alerts that no Source matches that their sender may speak for.
    pub foreign: Vec<String>,
    /// What the law refused.
    pub refused: Vec<String>,
}

/// Why a call was not taken at all; the sender should try again later, or mend its configuration.
#[derive(Debug, thiserror::Error)]
pub enum AlertsError {
    /// No `Source` of type `alertmanager` that the sender may speak for.
    #[error(transparent)]
    NoSource(#[from] NoSource),
    /// The tenant sends too many.
    #[error("{0}")]
    Slow(String, u64),
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
    hub: Arc<Hub>,
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
    /// Over a ledger; quotas are the hub's.
    #[must_use]
    pub const fn new(ledger: Arc<dyn Ledger>, hub: Arc<Hub>) -> Self {
        Self { ledger, hub }
    }

    /// The sources that a sender may speak for.
    fn allowed(state: &State, sender: &Sender) -> Result<(Mapper, Allowed), NoSource> {
        let mapper = Mapper::of_sources(state, &sender.tenant);
        let token = sender.token.as_deref();
        let allowed = mapper.allowed(&sender.tenant, KIND, token, sender.vouched)?;
        Ok((mapper, allowed))
    }

    fn charge(&self, tenant: &str, alerts: usize) -> Result<(), AlertsError> {
        let charged = self.hub.charge_alerts(tenant, alerts);
        charged.map_err(|(text, seconds)| AlertsError::Slow(text, seconds))
    }

    /// Takes the alerts of one call. Safe to repeat: the same alerts give the same symptoms.
    ///
    /// # Errors
    /// When nothing could be taken, or the ledger failed half-way (repeat it then).
    pub async fn receive(
        &self,
        sender: &Sender,
        alerts: &[IncomingAlert],
    ) -> Result<Taken, AlertsError> {
        if alerts.len() > ALERTS_MAX {
            return Err(AlertsError::TooMany(alerts.len()));
        }
        let mut taken = Taken::default();
        let (mapper, allowed) = self.ledger.read(|state| Self::allowed(state, sender))?;
        self.charge(&sender.tenant, alerts.len())?;
        let by_target = self.ledger.read(|state| {
            let mut by_target: BTreeMap<Target, (String, Vec<&IncomingAlert>)> = BTreeMap::new();
            for alert in alerts {
                match find_target(state, &sender.tenant, &mapper, allowed, alert) {
                    Ok((target, source)) => {
                        by_target.entry(target).or_insert((source, Vec::new())).1.push(alert);
                    }
                    Err(NoTarget::Unmapped(why)) => taken.unmapped.push(why),
                    Err(NoTarget::Foreign(why)) => taken.foreign.push(why),
                }
            }
            by_target
        });
        count("unmapped", taken.unmapped.len());
        count("foreign", taken.foreign.len());
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
    fn admit(&self, sender: &Sender) -> Result<(), AlertRefusal> {
        let allowed = self.ledger.read(|state| Self::allowed(state, sender).map(drop));
        allowed.map_err(AlertsError::from)?;
        Ok(self.charge(&sender.tenant, 0)?)
    }

    async fn take(
        &self,
        sender: &Sender,
        alerts: Vec<IncomingAlert>,
    ) -> Result<Vec<String>, AlertRefusal> {
        Ok(self.receive(sender, &alerts).await?.notes())
    }
}

impl From<AlertsError> for AlertRefusal {
    fn from(error: AlertsError) -> Self {
        match error {
            AlertsError::NoSource(NoSource::Token(_)) => Self::Denied(error.to_string()),
            AlertsError::NoSource(NoSource::None(..)) | AlertsError::TooMany(_) => {
                Self::Wrong(error.to_string())
            }
            AlertsError::Slow(text, seconds) => Self::Slow(text, seconds),
            AlertsError::Ledger(error) => Self::Later(error.to_string()),
        }
    }
}

impl Taken {
    /// What the sender should know, in words.
    fn notes(self) -> Vec<String> {
        let all = self.refused.into_iter().chain(self.foreign).chain(self.unmapped);
        let mut notes: Vec<String> = all.collect();
        if let Some(more) = notes.len().checked_sub(NOTES_MAX).filter(|more| *more > 0) {
            notes.truncate(NOTES_MAX);
            notes.push(format!("and {more} more"));
        }
        notes
    }
}

fn count(result: &'static str, times: usize) {
    let times = u64::try_from(times).unwrap_or(u64::MAX);
    counter!(Metric::Alerts.name(), "result" => result).increment(times);
}

/// Why an alert has no target.
#[derive(Debug)]
enum NoTarget {
    Unmapped(String),
    Foreign(String),
}

/// The declared target that an alert names, and the source that tells so.
fn find_target(
    state: &State,
    tenant: &str,
    mapper: &Mapper,
    allowed: Allowed,
    alert: &IncomingAlert,
) -> Result<(Target, String), NoTarget> {
    let name =
        alert.labels.get("alertname").map_or_else(|| "?".to_owned(), |name| short_name(name));
    let mut asked = Vec::new();
    for (source, service_label, instance_label) in mapper.taking(allowed, &alert.labels) {
        asked.push(service_label);
        let Some(service) = alert.labels.get(service_label) else { continue };
        let key = ManifestKey {
            kind: ManifestKind::Service,
            tenant: tenant.to_owned(),
            name: service.clone(),
        };
        let Some(stored) = state.manifests.get(&key) else { continue };
        let Spec::Service(declared) = &stored.manifest.spec else { continue };
        // Prometheus' own `instance` label is host:port; a name is as good. Else: the service as
        // a whole.
        let instance = alert.labels.get(instance_label).and_then(|given| {
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
        return Ok((target, source.to_owned()));
    }
    if asked.is_empty() {
        let text = "matches no Source that this sender may speak for";
        return Err(NoTarget::Foreign(format!("alert {name} {text}")));
    }
    let labels = asked.join("` or `");
    let text = format!("alert {name} names no declared service in its label `{labels}`");
    Err(NoTarget::Unmapped(text))
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
