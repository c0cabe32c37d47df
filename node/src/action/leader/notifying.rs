//! Telling people: each notice once per channel, whoever leads.
//!
//! ```text
//!   owed ─┬─ the receiver recognises a repeat ───────────────► sent ─► NoteTold(outcome)
//!         └─ it does not ─► NoteTold(Sending) under our fence ─► sent ─► NoteTold(outcome)
//!                 └ the leader dies here: the next one notes that nobody knows, and sends nothing
//! ```
//!
//! When a failure is tried again, and whether an unknown fate is, the law says (`law/telling.rs`).

use std::collections::{BTreeMap, BTreeSet};

use medic_state::{
    Command, Digest, IncidentId, State, TraceId,
    command::{CHANNELS_SINCE, NoteTold, ToldOn},
    notice::{Delivery, NoticeKind, Telling},
};

use super::{Context, WorkError, desk::End};
use crate::action::metrics::Metric;

/// Messages under way at once: in a storm many channels are owed one, and each takes a socket.
pub(super) const TELLING_MAX: usize = 64;

/// What this process has told, by incident and channel: an entry that says so may not have landed.
/// Bounded by what people should hear.
#[derive(Debug, Default)]
pub(super) struct Told {
    texts: BTreeMap<(IncidentId, String), Digest>,
    /// Incidents of which it was said that no channel takes them.
    warned: BTreeSet<IncidentId>,
}

impl Told {
    pub(super) fn has(&self, incident: IncidentId, channel: &str, text: &Digest) -> bool {
        self.texts.get(&(incident, channel.to_owned())) == Some(text)
    }

    /// Forgets what is not the case any more: when it is again, it is news.
    pub(super) fn keep(&mut self, state: &State) {
        self.texts.retain(|(incident, _), text| state.news_of(*incident) == Some(*text));
        self.warned.retain(|incident| state.news_of(*incident).is_some());
    }

    pub(super) fn remember(&mut self, telling: &Telling) {
        for notice in &telling.notices {
            let key = (notice.incident, telling.channel.clone());
            self.texts.insert(key, notice.digest());
        }
    }

    /// Says so, once, when nobody will be told.
    pub(super) fn warn_of(&mut self, nobody: &[IncidentId]) {
        for incident in nobody {
            if self.warned.insert(*incident) {
                tracing::warn!(%incident, "people should know, and no channel takes it");
            }
        }
    }
}

/// Sends one message, and notes what became of it.
pub(super) async fn notify(
    context: Context,
    telling: Telling,
    trace: TraceId,
) -> Result<End, WorkError> {
    let Some(first) = telling.notices.first() else { return Ok(End::Done) };
    let (noted, recognises) = context.read(|state| {
        let channel = state.channel(&telling.tenant, &telling.channel);
        let recognises = channel.is_none_or(|channel| channel.recognises_repeats());
        (state.cluster_version >= CHANNELS_SINCE, recognises)
    });
    let _room = context.telling.acquire().await;
    if noted && !recognises {
        if first.in_doubt {
            let why = "the leader that was about to send it is gone".to_owned();
            return Ok(after_note(note(&context, trace, &telling, Delivery::Unknown(why)).await));
        }
        let intent = Delivery::Sending(context.office.fence());
        if !note(&context, trace, &telling, intent).await {
            return Ok(End::HeldBack("the intent to tell people is not in the log".to_owned()));
        }
    }
    crate::crash_point!("notify_before_send");
    let delivery = context.world.tell(&telling).await;
    crate::crash_point!("notify_after_send");
    log(&telling, &delivery);
    let told = delivery == Delivery::Delivered;
    let landed = noted && note(&context, trace, &telling, delivery).await;
    Ok(if told { End::Told } else { after_note(landed) })
}

/// What the law knows it deals with; what it does not is tried again from here.
fn after_note(landed: bool) -> End {
    if landed { End::Done } else { End::HeldBack("a channel could not be told".to_owned()) }
}

fn log(telling: &Telling, delivery: &Delivery) {
    let (channel, notices) = (&telling.channel, telling.notices.len());
    match delivery {
        Delivery::Delivered => tracing::info!(channel, notices, "told"),
        Delivery::Failed(reason) | Delivery::Refused(reason) | Delivery::Unknown(reason) => {
            tracing::warn!(channel, notices, reason, "a channel could not be told");
            metrics::counter!(Metric::NotificationsFailed.name()).increment(1);
        }
        Delivery::Sending(_) => {}
    }
}

/// Commits what is known of a message; gives whether that is in the log.
async fn note(context: &Context, trace: TraceId, telling: &Telling, delivery: Delivery) -> bool {
    let mut notices = telling.notices.iter().map(|one| (one.incident, one.digest(), one.kind));
    let Some((incident, text, kind)) = notices.next() else { return false };
    let also: Vec<(IncidentId, Digest, NoticeKind)> = notices.collect();
    let on = ToldOn { channel: telling.channel.clone(), kind, delivery, also };
    let command = Command::NoteTold(NoteTold { incident, text, on: Some(on) });
    match context.office.ask(trace, command).await {
        Ok(Ok(_)) => true,
        Ok(Err(refusal)) => {
            tracing::debug!(%incident, %refusal, "not noted");
            false
        }
        Err(error) => {
            tracing::debug!(%incident, %error, "not noted");
            false
        }
    }
}

#[cfg(test)]
mod tests;
