//! `NoteTold`: the leader tells people what the law wanted them to know, or has told them, or could
//! not. With an intent before where the receiver would not recognise a repeat, and always with the
//! outcome after: the next leader tells only what is not known to be told.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::{NoteTold, ToldOn},
    ids::{Digest, IncidentId, Millis},
    law::{
        context::{Context, MAX_NAME_BYTES, clip_to},
        incidents::tell,
        topology::as_channel,
    },
    manifest::Kind,
    notice::{ChannelState, Delivery, MAX_CHANNELS, NoticeKind, NoticeState},
    state::State,
};

/// Incidents in one message.
const MAX_ALSO: usize = 256;
/// Longest reason kept.
const MAX_REASON_BYTES: usize = 256;
/// Waits after failures in a row: one second, twice as long each time, five minutes at the most.
const WAIT_FIRST: Millis = Millis::from_secs(1);
const WAIT_LAST: Millis = Millis::from_secs(300);

pub(super) fn apply(state: &mut State, context: &mut Context<'_>, command: &NoteTold) -> Answer {
    let id = command.incident;
    let incident = state.incidents.get(&id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
    let Some(on) = &command.on else {
        if incident.closed() {
            return Ok(Reply::Noted(format!("{id} is resolved")));
        }
        state.told.insert(id, command.text);
        return Ok(Reply::Done);
    };
    let tenant = incident.tenant.clone();
    if on.also.len() > MAX_ALSO {
        return Err(Refusal::Limit(format!("at most {MAX_ALSO} notices go in one message")));
    }
    if state.stored(Kind::Channel, &tenant, &on.channel).is_none() {
        return Ok(Reply::Noted(format!("channel `{}` is not declared any more", on.channel)));
    }
    if let Delivery::Sending(fence) = &on.delivery {
        state.check_fence(context, *fence)?;
    }
    note_channel(state, context, &tenant, on);
    let first = (id, command.text, on.kind);
    for (id, text, kind) in std::iter::once(first).chain(on.also.iter().copied()) {
        note_incident(state, context, &tenant, on, (id, text, kind));
    }
    Ok(Reply::Done)
}

/// How the channel took it.
fn note_channel(state: &mut State, context: &Context<'_>, tenant: &str, on: &ToldOn) {
    let spec = state.stored(Kind::Channel, tenant, &on.channel);
    let Some(spec) = spec.and_then(|stored| as_channel(&stored.manifest.spec)) else { return };
    let (rate, quiets) = (spec.limit(), spec.quiets(on.kind));
    let key = (tenant.to_owned(), on.channel.clone());
    let channel: &mut ChannelState = state.channels.entry(key).or_default();
    match on.delivery {
        Delivery::Sending(_) => return,
        Delivery::Delivered => (channel.failures, channel.wait_until) = (0, context.now),
        Delivery::Refused(_) => {}
        Delivery::Failed(_) | Delivery::Unknown(_) => {
            let doublings = channel.failures.min(16);
            let wait = WAIT_FIRST.0.saturating_mul(1 << doublings).min(WAIT_LAST.0);
            channel.failures = channel.failures.saturating_add(1);
            channel.wait_until = context.now.plus(Millis(wait));
        }
    }
    let out = matches!(on.delivery, Delivery::Delivered | Delivery::Unknown(_));
    if out && !quiets {
        channel.sends.push_back(context.now);
    }
    channel.sends.retain(|at| context.now.since(*at) < rate.per);
    let most = usize::try_from(rate.count).unwrap_or(usize::MAX);
    while channel.sends.len() > most {
        channel.sends.pop_front();
    }
}

/// What became of one notice.
fn note_incident(
    state: &mut State,
    context: &mut Context<'_>,
    tenant: &str,
    on: &ToldOn,
    (id, text, kind): (IncidentId, Digest, NoticeKind),
) {
    let Some(incident) = state.incidents.get_mut(&id).filter(|found| found.tenant == tenant) else {
        return;
    };
    let past = incident.notices.get(&on.channel);
    if past.is_none() && incident.notices.len() >= MAX_CHANNELS {
        return;
    }
    let same = past.filter(|past| past.text == text);
    let out = matches!(on.delivery, Delivery::Delivered | Delivery::Unknown(_));
    let news = same.is_none_or(|past| {
        std::mem::discriminant(&past.delivery) != std::mem::discriminant(&on.delivery)
    });
    let next = NoticeState {
        kind,
        text,
        delivery: clipped(&on.delivery),
        at: context.now,
        index: context.index,
        tries: match on.delivery {
            Delivery::Sending(_) => same.map_or(0, |past| past.tries),
            Delivery::Delivered => 0,
            Delivery::Failed(_) | Delivery::Refused(_) | Delivery::Unknown(_) => {
                same.map_or(0, |past| past.tries).saturating_add(1)
            }
        },
        delivered: past
            .map_or(0, |past| past.delivered)
            .saturating_add(u32::from(on.delivery == Delivery::Delivered)),
        heard: out || past.is_some_and(|past| past.heard),
    };
    incident.notices.insert(on.channel.clone(), next);
    if news && let Some(line) = line(&on.channel, kind, &on.delivery) {
        tell(incident, context, line);
    }
    let closed = incident.closed();
    if closed && !matches!(on.delivery, Delivery::Sending(_)) {
        state.archive(context, id);
    }
    context.touched.insert(id);
}

fn clipped(delivery: &Delivery) -> Delivery {
    let clip = |reason: &str| clip_to(reason, MAX_REASON_BYTES);
    match delivery {
        Delivery::Sending(_) | Delivery::Delivered => delivery.clone(),
        Delivery::Failed(reason) => Delivery::Failed(clip(reason)),
        Delivery::Refused(reason) => Delivery::Refused(clip(reason)),
        Delivery::Unknown(reason) => Delivery::Unknown(clip(reason)),
    }
}

/// The line on the incident's timeline: for what people should know of the telling itself.
fn line(channel: &str, kind: NoticeKind, delivery: &Delivery) -> Option<String> {
    let channel = clip_to(channel, MAX_NAME_BYTES);
    match delivery {
        Delivery::Sending(_) | Delivery::Delivered => None,
        Delivery::Failed(reason) => {
            Some(format!("channel {channel} could not be told ({kind}): {reason}"))
        }
        Delivery::Refused(reason) => Some(format!("channel {channel} refused ({kind}): {reason}")),
        Delivery::Unknown(reason) => {
            Some(format!("nobody knows whether channel {channel} was told ({kind}): {reason}"))
        }
    }
}

#[cfg(test)]
mod tests;
