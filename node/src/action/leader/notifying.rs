//! Telling people: each text once per channel and process, at least once over a change of leader.
//!
//! Whether a message was delivered is not in the log: two leaders may both tell. A pager that hears
//! twice is better than one that hears never.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use medic_state::{
    IncidentId, State,
    manifest::{Escalation, Kind, ManifestKey, Spec},
};

use super::{Context, WorkError, desk::End};
use crate::action::metrics::Metric;

/// Texts remembered; older ones belong to incidents that are long over.
const TOLD_MAX: usize = 4_096;

/// Tries per channel, and the waits between them: about ten minutes in all.
const TRIES_MAX: u32 = 16;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// What this process has told already.
#[derive(Debug, Default)]
pub(super) struct Told {
    known: BTreeSet<(IncidentId, String)>,
    /// Oldest first.
    order: VecDeque<(IncidentId, String)>,
}

impl Told {
    pub(super) fn has(&self, incident: IncidentId, text: &str) -> bool {
        self.known.contains(&(incident, text.to_owned()))
    }

    pub(super) fn remember(&mut self, incident: IncidentId, text: &str) {
        let one = (incident, text.to_owned());
        if !self.known.insert(one.clone()) {
            return;
        }
        self.order.push_back(one);
        while self.order.len() > TOLD_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            self.known.remove(&oldest);
        }
    }
}

/// Tells every channel of one incident; one that cannot be told is tried again for a while.
pub(super) async fn notify(
    context: Context,
    id: IncidentId,
    text: String,
) -> Result<End, WorkError> {
    let Some((tenant, mut channels)) = context.read(|state| channels(state, id)) else {
        return Ok(End::Done);
    };
    if channels.is_empty() {
        tracing::warn!(incident = %id, text, "people should know, and no channel is declared");
    }
    let mut wait = RETRY_FIRST;
    for _ in 0..TRIES_MAX {
        let mut failed = BTreeSet::new();
        for channel in channels {
            if let Err(error) = context.world.notify(&tenant, &channel, &text).await {
                tracing::warn!(incident = %id, channel, error, "a channel could not be told");
                metrics::counter!(Metric::NotificationsFailed.name()).increment(1);
                failed.insert(channel);
            }
        }
        if failed.is_empty() {
            return Ok(End::Done);
        }
        channels = failed;
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_LAST);
    }
    tracing::error!(incident = %id, ?channels, text, "channels were not told");
    Ok(End::Done)
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
