//! Telling people: each text once per channel, unless a leader dies between telling and saying so.
//!
//! ```text
//!   owed ─► every channel told ─► NoteTold committed ─► owed no more, to this leader or the next
//! ```
//!
//! A pager that hears twice is better than one that hears never: the note follows the delivery.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use medic_state::{
    Command, Digest, IncidentId, State, TraceId,
    command::NoteTold,
    manifest::{Escalation, Kind, ManifestKey, Spec},
};

use super::{
    Context, WorkError,
    desk::{End, Work},
};
use crate::action::metrics::Metric;

/// Tries per channel, and the waits between them: about ten minutes in all.
const TRIES_MAX: u32 = 16;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);
/// Messages under way at once: in a storm thousands are owed, and each takes a socket.
pub(super) const TELLING_MAX: usize = 64;

/// What this process has told already and is owed all the same: the note of it has not landed, or a
/// channel could not be told. Bounded by what the law owes.
#[derive(Debug, Default)]
pub(super) struct Told(HashSet<Work>);

impl Told {
    pub(super) fn has(&self, work: &Work) -> bool {
        self.0.contains(work)
    }

    /// Forgets what is not owed any more: owed again, it is news.
    pub(super) fn keep(&mut self, owed: impl Fn(&Work) -> bool) {
        self.0.retain(owed);
    }

    /// Remembers a message that was delivered; other work is no message.
    pub(super) fn remember(&mut self, work: Work) {
        if matches!(work, Work::Notify(..)) {
            self.0.insert(work);
        }
    }
}

/// Tells every channel of one incident; one that cannot be told is tried again for a while.
pub(super) async fn notify(
    context: Context,
    id: IncidentId,
    trace: TraceId,
    text: String,
) -> Result<End, WorkError> {
    let Some((tenant, mut channels)) = context.read(|state| channels(state, id)) else {
        return Ok(End::Done);
    };
    if channels.is_empty() {
        tracing::warn!(incident = %id, text, "people should know, and no channel is declared");
        return Ok(End::Done);
    }
    let mut wait = RETRY_FIRST;
    for _ in 0..TRIES_MAX {
        let mut failed = BTreeSet::new();
        for channel in channels {
            crate::crash_point!("notify_before_send");
            let telling = context.telling.acquire().await;
            let told = context.world.notify(&tenant, &channel, &text).await;
            drop(telling);
            if let Err(error) = told {
                tracing::warn!(incident = %id, channel, error, "a channel could not be told");
                metrics::counter!(Metric::NotificationsFailed.name()).increment(1);
                failed.insert(channel);
            }
        }
        if failed.is_empty() {
            return Ok(note(&context, id, trace, &text).await);
        }
        channels = failed;
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
    tracing::error!(incident = %id, ?channels, text, "channels were not told");
    Ok(End::Done)
}

/// Commits that people were told, so that no other leader tells them again.
async fn note(context: &Context, incident: IncidentId, trace: TraceId, text: &str) -> End {
    let command = Command::NoteTold(NoteTold { incident, text: Digest::of(&[text.as_bytes()]) });
    if context.read(|state| state.cluster_version) < command.since() {
        return End::Done;
    }
    // They have been told, whatever becomes of the note.
    match context.office.ask(trace, command).await {
        Ok(Ok(_)) => {}
        Ok(Err(refusal)) => tracing::debug!(%incident, %refusal, "not noted as told"),
        Err(error) => tracing::debug!(%incident, %error, "not noted as told"),
    }
    End::Done
}

/// The channels that the incident's playbooks name; else every channel of its tenant.
fn channels(state: &State, id: IncidentId) -> Option<(String, BTreeSet<String>)> {
    let incident = state.incidents.get(&id)?;
    let tenant = incident.tenant.clone();
    let tried = incident.attempts.iter().map(|attempt| attempt.playbook.as_str());
    let now = incident.plan.and_then(|plan| state.sagas.get(&plan));
    let playbooks = tried.chain(now.map(|saga| saga.plan.playbook.as_str()));
    let mut named = BTreeSet::new();
    for name in playbooks {
        let key =
            ManifestKey { kind: Kind::Playbook, tenant: tenant.clone(), name: name.to_owned() };
        let Some(stored) = state.manifests.get(&key) else { continue };
        if let Spec::Playbook(playbook) = &stored.manifest.spec {
            named.extend(playbook.escalate.iter().filter_map(|next| match next {
                Escalation::Notify(channel) => Some(channel.clone()),
                Escalation::Playbook(_) => None,
            }));
        }
    }
    if named.is_empty() {
        let all = state.manifests.keys();
        let all = all.filter(|key| key.kind == Kind::Channel && key.tenant == tenant);
        named.extend(all.map(|key| key.name.clone()));
    }
    Some((tenant, named))
}
