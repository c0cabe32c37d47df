//! Alerts of an Alertmanager, taken in as symptoms of kind `alert`.
//!
//! Any node may receive the webhook; the law admits such reports from any registered node under the
//! shard's present epoch, because the alert, not the node, is the observer. All alerts of one target
//! are one symptom (one fingerprint), and it says which fire (`roster.rs`): a resolved alert takes itself
//! out, and the last one clears the symptom. What fires is read back from the law's state, so that it
//! does not matter which node heard of which alert. An alert with an end that was not sent again is
//! taken out by the leader (`sweep.rs`), the same way.
//!
//! What one node is told of a target it takes in one thing after another, each by what the last one
//! left. Two nodes that are told different things of one target within a few milliseconds may still
//! undo each other's: the law does not ask what a report was based on.
//!
//! Who may speak, and of what, the tenant's Sources of type `alertmanager` say: by the token that each
//! may demand, and by what each matches.
//!
//! Deliberately absent: size limits (the HTTP door's), grouping and silences (the law's), and a memory
//! of our own.

mod roster;
mod sweep;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use medic_api::http::{AlertRefusal, AlertSink, IncomingAlert, Sender, alerts::ALERTS_MAX};
use medic_raft::{Ledger, LedgerError, LedgerExt as _};
use medic_state::{
    Command, Ppm, Refusal, Reply, State, Timestamp,
    command::{ClearSymptom, ReportSymptom},
    manifest::{Kind as ManifestKind, ManifestKey, SourceKind, Spec},
    symptom::{ALERT_KIND, ALERT_SOURCE, Severity, Symptom, Target},
};
use metrics::counter;
use tokio::sync::Mutex;

use self::roster::{Roster, short_name};
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
/// Targets that are dealt with at once, at most: as many as there are turns.
const TURNS: usize = 64;
/// How long it is waited until what was committed is applied here too.
const APPLIED_WITHIN: Duration = Duration::from_secs(2);

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
    /// By shard: whoever changes what stands of a target has read what the last one wrote.
    turns: [Mutex<()>; TURNS],
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

/// What was done about one target.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Reported,
    /// The law took no notice: it is silenced, or its incident is full.
    Noted,
    Cleared,
    Unchanged,
    Refused(String),
}

impl Alerts {
    /// Over a ledger; quotas are the hub's.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, hub: Arc<Hub>) -> Self {
        Self { ledger, hub, turns: std::array::from_fn(|_| Mutex::default()) }
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
        // What other nodes were told before this call.
        self.ledger.linearize().await?;
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
            let look = |state: &State, now| {
                merge(standing(state, &target), &target, &source, &alerts, now)
            };
            match self.carry_out(&target, look).await? {
                done @ (Done::Reported | Done::Noted) => {
                    count(if done == Done::Noted { "noted" } else { "reported" }, 1);
                    taken.reported += 1;
                }
                Done::Cleared => {
                    count("cleared", 1);
                    taken.cleared += 1;
                }
                Done::Unchanged => count("unchanged", 1),
                Done::Refused(why) => {
                    count("refused", 1);
                    taken.refused.push(why);
                }
            }
        }
        Ok(taken)
    }

    /// Does what a look at the state says, in its turn.
    async fn carry_out(
        &self,
        target: &Target,
        look: impl Fn(&State, Timestamp) -> Step,
    ) -> Result<Done, LedgerError> {
        /// The shard may move between reading its epoch and the proposal; twice is bad luck.
        const TRIES: usize = 3;
        let shard = State::shard_of(target);
        let turn = usize::try_from(shard.0).unwrap_or_default() % TURNS;
        let _turn = self.turns[turn].lock().await;
        let now = self.ledger.env().clock.now();
        for left in (0..TRIES).rev() {
            let (command, done) = self.ledger.read(|state| {
                let epoch = state.shards.get(&shard).map(|s| s.epoch).unwrap_or_default();
                match look(state, now) {
                    Step::Report(symptom) => {
                        let report = ReportSymptom { shard, epoch, symptom: *symptom };
                        (Some(Command::ReportSymptom(report)), Done::Reported)
                    }
                    Step::Clear(target) => {
                        let fingerprint = fingerprint_of(&target, ALERT_KIND);
                        let clear = ClearSymptom { shard, epoch, fingerprint };
                        (Some(Command::ClearSymptom(clear)), Done::Cleared)
                    }
                    Step::Nothing => (None, Done::Unchanged),
                }
            });
            let Some(command) = command else { return Ok(done) };
            let trace = self.ledger.env().entropy.trace_id();
            let entry = self.ledger.entry(trace, command);
            let committed = self.ledger.propose(entry).await?;
            self.applied(committed.index).await;
            match committed.answer {
                Err(Refusal::StaleEpoch { .. }) if left > 0 => {}
                Err(refusal) => {
                    tracing::warn!(%target, %refusal, "an alert was refused");
                    return Ok(Done::Refused(format!("{target}: {refusal}")));
                }
                Ok(Reply::Noted(why)) if done == Done::Reported => {
                    tracing::debug!(%target, why, "alerts are not taken in");
                    return Ok(Done::Noted);
                }
                Ok(reply) => {
                    let over = done == Done::Cleared;
                    let what = if over { "its alerts are over" } else { "alerts are reported" };
                    tracing::info!(%target, ?reply, %trace, "{what}");
                    return Ok(done);
                }
            }
        }
        Ok(Done::Unchanged)
    }

    /// Waits until this node has applied what was committed: the next call is to build on it.
    async fn applied(&self, index: u64) {
        let mut applied = self.ledger.applied();
        let reached = applied.wait_for(|at| *at >= index);
        if !matches!(tokio::time::timeout(APPLIED_WITHIN, reached).await, Ok(Ok(_))) {
            tracing::warn!(index, "alerts: what was committed is not applied here yet");
        }
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
    let mut roster = standing.map(Roster::read).unwrap_or_default();
    for alert in alerts {
        roster.take(alert, now);
    }
    if standing.is_none() && roster.is_empty() {
        return Step::Nothing;
    }
    step(roster, target, &format!("{ALERT_SOURCE}/{source}"), now)
}

/// What stands, without what has come to its end.
fn ended(standing: &Symptom, now: Timestamp) -> Step {
    let mut roster = Roster::read(standing);
    roster.end(now);
    step(roster, &standing.target, &standing.source, now)
}

fn step(roster: Roster, target: &Target, source: &str, now: Timestamp) -> Step {
    if !roster.changed() {
        return Step::Nothing;
    }
    if roster.is_empty() {
        return Step::Clear(target.clone());
    }
    let mut symptom = Symptom {
        target: target.clone(),
        kind: ALERT_KIND.to_owned(),
        severity: Severity::default(),
        summary: String::new(),
        p_value: Ppm::ZERO,
        signals: Vec::new(),
        since: now,
        time_to_event: None,
        labels: BTreeMap::new(),
        source: source.to_owned(),
    };
    roster.write(&mut symptom, now);
    Step::Report(Box::new(symptom))
}

#[cfg(test)]
mod tests;
