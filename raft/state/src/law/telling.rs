//! What people are owed: the next message of each channel, from what is the case and what is known
//! of earlier messages. Nobody remembers anything beside the state: a new leader tells what the last
//! one did not, and nothing twice.
//!
//! ```text
//!   incidents ─► what is the case ─► channels that take it ─► not settled there ─► the channel's rate
//!                needs a human,        named by playbooks,     Delivered, Refused    room for each: one
//!                 not hushed (`hush`)  severity, matchers      and the same text:    at a time; else all
//!                acknowledged          heard of it before      settled               in one message
//!                resolved
//! ```
//!
//! A message whose fate is unknown is sent again where the receiver recognises it, or where no other
//! channel would tell anybody; else it is left at that: a page that came twice is read less well the
//! next time.
//! One message at a time per channel: the rate is kept, and nothing overtakes.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ids::{Digest, IncidentId, Timestamp},
    incident::{Incident, IncidentStatus, Resolution},
    law::{
        hush::Hush,
        topology::{as_channel, as_playbook},
    },
    manifest::{ChannelSpec, Escalation, Kind, Rate, Stored},
    matcher::{Matcher, parse_all},
    notice::{Delivery, MAX_CHANNELS, Notice, NoticeKind, NoticeState, Telling, Tellings},
    state::State,
};

/// Sendings of a message whose fate stays unknown, on a channel that is the only one.
const MAX_BLIND: u32 = 3;
/// Notices in one message: a screen or two. The rest goes with the next.
const MAX_SUMMED: usize = 64;

/// A channel, and its matchers once they were needed.
struct Candidate<'a> {
    stored: &'a Stored,
    spec: &'a ChannelSpec,
    matchers: Option<Vec<Matcher>>,
}

/// Whether this process knows that a text has gone out on a channel, though no entry says so yet.
type KnownTold<'a> = dyn Fn(IncidentId, &str, &Digest) -> bool + 'a;

impl State {
    /// The next message of every channel that is owed one, without what `known` tells to have gone out.
    #[must_use]
    pub fn tellings(&self, known: &KnownTold<'_>) -> Tellings {
        let mut tenants: BTreeMap<&str, Vec<(&Incident, NoticeKind, String)>> = BTreeMap::new();
        for incident in self.incidents.values() {
            if let Some((kind, text)) = the_case(incident) {
                tenants.entry(&incident.tenant).or_default().push((incident, kind, text));
            }
        }
        let mut tellings = Tellings::default();
        for (tenant, cases) in tenants {
            self.tellings_of(tenant, cases, known, &mut tellings);
        }
        tellings
    }

    /// Digest of what people should hear of an incident as it stands, told or not.
    #[must_use]
    pub fn news_of(&self, id: IncidentId) -> Option<Digest> {
        let (_, text) = the_case(self.incidents.get(&id)?)?;
        Some(Digest::of(&[text.as_bytes()]))
    }

    fn tellings_of(
        &self,
        tenant: &str,
        cases: Vec<(&Incident, NoticeKind, String)>,
        known: &KnownTold<'_>,
        tellings: &mut Tellings,
    ) {
        let mut channels = self.channels_of(tenant);
        let hush = Hush::of(self, tenant);
        let mut owed: BTreeMap<&str, Vec<(u32, Notice)>> = BTreeMap::new();
        for (incident, kind, text) in cases {
            let digest = Digest::of(&[text.as_bytes()]);
            let before =
                kind == NoticeKind::NeedsHuman && self.told.get(&incident.id) == Some(&digest);
            let kept_back = match kind {
                NoticeKind::NeedsHuman => before || hush.reason(incident).is_some(),
                NoticeKind::Acknowledged => false,
                NoticeKind::Resolved => self.may_recur_until(incident).is_some(),
            };
            if kept_back {
                continue;
            }
            let told = self.told_of(incident, kind, &mut channels);
            let only = told.len() == 1;
            if told.is_empty() && kind == NoticeKind::NeedsHuman {
                tellings.nobody.push(incident.id);
            }
            for name in told {
                let Some(channel) = channels.get(name) else { continue };
                let past = incident.notices.get(name).filter(|past| past.text == digest);
                let settled = past.is_some_and(|past| is_settled(past, channel, only));
                let stands = kind == NoticeKind::NeedsHuman && self.page_stands(incident, name);
                if settled || stands || known(incident.id, name, &digest) {
                    continue;
                }
                let notice = Notice {
                    incident: incident.id,
                    thread: incident.thread(),
                    kind,
                    severity: incident.severity,
                    text: text.clone(),
                    delivered: incident.notices.get(name).map_or(0, |past| past.delivered),
                    in_doubt: past
                        .is_some_and(|past| matches!(past.delivery, Delivery::Sending(_))),
                };
                owed.entry(name).or_default().push((past.map_or(0, |past| past.tries), notice));
            }
        }
        let message =
            |(name, owed)| self.next_message(tenant, name, channels.get(name)?.spec, owed);
        tellings.next.extend(owed.into_iter().filter_map(message));
    }

    /// What goes out on a channel next.
    fn next_message(
        &self,
        tenant: &str,
        channel: &str,
        spec: &ChannelSpec,
        mut owed: Vec<(u32, Notice)>,
    ) -> Option<Telling> {
        // What has failed before does not stand in the way of the rest; then the worst first.
        owed.sort_by(|(a_tries, a), (b_tries, b)| {
            (a_tries, b.severity, a.incident).cmp(&(b_tries, a.severity, b.incident))
        });
        let (mut not_before, mut room) = self.room(tenant, channel, spec.limit());
        if let Some(at) = owed.iter().position(|(_, notice)| spec.quiets(notice.kind)) {
            owed.swap(0, at);
            (not_before, room) = (self.waits_until(tenant, channel), usize::MAX);
        }
        let doubtful = owed.first().is_some_and(|(_, notice)| notice.in_doubt);
        let take = if doubtful || room > 1 || owed.len() <= room { 1 } else { MAX_SUMMED };
        let notices: Vec<Notice> = owed
            .into_iter()
            .map(|(_, notice)| notice)
            .filter(|notice| notice.in_doubt == doubtful)
            .take(take)
            .collect();
        (!notices.is_empty()).then(|| Telling {
            tenant: tenant.to_owned(),
            channel: channel.to_owned(),
            not_before,
            notices,
        })
    }

    /// When a channel takes the next message, and how many it takes then.
    fn room(&self, tenant: &str, channel: &str, rate: Rate) -> (Timestamp, usize) {
        let most = usize::try_from(rate.count).unwrap_or(usize::MAX).max(1);
        let Some(known) = self.channels.get(&(tenant.to_owned(), channel.to_owned())) else {
            return (Timestamp::default(), most);
        };
        let from = self.now.max(known.wait_until);
        let sent =
            |at: Timestamp| known.sends.iter().filter(|sent| at.since(**sent) < rate.per).count();
        if sent(from) < most {
            return (known.wait_until, most - sent(from));
        }
        // Room comes when the oldest of the last `most` has been long enough ago.
        let oldest = known.sends.len().checked_sub(most).and_then(|at| known.sends.get(at));
        let free = oldest.map_or(from, |oldest| oldest.plus(rate.per).max(from));
        (free, most.saturating_sub(sent(free)).max(1))
    }

    fn waits_until(&self, tenant: &str, channel: &str) -> Timestamp {
        let known = self.channels.get(&(tenant.to_owned(), channel.to_owned()));
        known.map(|known| known.wait_until).unwrap_or_default()
    }

    fn channels_of<'a>(&'a self, tenant: &'a str) -> BTreeMap<&'a str, Candidate<'a>> {
        self.stored_of(Kind::Channel, tenant)
            .filter_map(|(name, stored)| {
                let spec = as_channel(&stored.manifest.spec)?;
                Some((name, Candidate { stored, spec, matchers: None }))
            })
            .collect()
    }

    /// The channels that are told of an incident: of its beginning those that take it, of what
    /// follows those that heard of it.
    fn told_of<'a>(
        &self,
        incident: &Incident,
        kind: NoticeKind,
        channels: &mut BTreeMap<&'a str, Candidate<'_>>,
    ) -> Vec<&'a str> {
        let named = match kind {
            NoticeKind::NeedsHuman => self.named_channels(incident),
            NoticeKind::Acknowledged | NoticeKind::Resolved => BTreeSet::new(),
        };
        // What a playbook names and nobody declared tells nobody.
        let any_named = named.iter().any(|name| channels.contains_key(name.as_str()));
        let mut told = Vec::new();
        for (name, channel) in channels {
            let heard = incident.notices.get(*name).is_some_and(|past| past.heard);
            let takes = match kind {
                NoticeKind::NeedsHuman => {
                    (!any_named || named.contains(*name)) && self.takes(channel, incident)
                }
                NoticeKind::Acknowledged => heard && channel.spec.sends_acknowledged(),
                NoticeKind::Resolved => heard && channel.spec.sends_resolved(),
            };
            // What could not be noted would be told again and again.
            let noted = incident.notices.contains_key(*name);
            if takes && (noted || incident.notices.len() < MAX_CHANNELS) {
                told.push(*name);
            }
        }
        told
    }

    /// The channels that the playbooks tried on an incident name.
    fn named_channels(&self, incident: &Incident) -> BTreeSet<String> {
        let tried = incident.attempts.iter().map(|attempt| attempt.playbook.as_str());
        let now = incident.plan.and_then(|plan| self.sagas.get(&plan));
        let playbooks = tried.chain(now.map(|saga| saga.plan.playbook.as_str()));
        let stored =
            playbooks.filter_map(|name| self.stored(Kind::Playbook, &incident.tenant, name));
        stored
            .filter_map(|stored| as_playbook(&stored.manifest.spec))
            .flat_map(|playbook| &playbook.escalate)
            .filter_map(|next| match next {
                Escalation::Notify(channel) => Some(channel.clone()),
                Escalation::Playbook(_) => None,
            })
            .collect()
    }

    /// Whether a channel's rules let an incident through.
    fn takes(&self, channel: &mut Candidate<'_>, incident: &Incident) -> bool {
        let Some(rules) = channel.spec.rules() else { return true };
        if rules.min_severity.is_some_and(|least| incident.severity < least) {
            return false;
        }
        if rules.matchers.is_empty() {
            return true;
        }
        // A matcher that does not parse was refused at the door; keeping quiet would lose a page.
        let matchers =
            channel.matchers.get_or_insert_with(|| parse_all(&rules.matchers).unwrap_or_default());
        incident.symptoms.values().any(|symptom| {
            let labels = self.labels_of(&symptom.symptom);
            matchers.iter().all(|matcher| matcher.matches(&labels))
        })
    }
}

/// Whether nothing more is to be done about a text on a channel.
fn is_settled(past: &NoticeState, channel: &Candidate<'_>, only: bool) -> bool {
    match past.delivery {
        Delivery::Delivered => true,
        Delivery::Sending(_) | Delivery::Failed(_) => false,
        Delivery::Refused(_) => channel.stored.index <= past.index,
        Delivery::Unknown(_) => {
            !channel.spec.recognises_repeats() && (!only || past.tries >= MAX_BLIND)
        }
    }
}

/// Whether people should hear that they are needed.
pub(super) fn needs_human(incident: &Incident) -> bool {
    let asked = incident.status == IncidentStatus::AwaitingApproval && incident.plan.is_some();
    !incident.closed()
        && incident.acknowledged_by.is_none()
        && (incident.escalation.is_some() || asked)
}

/// What people should hear of an incident as it stands.
fn the_case(incident: &Incident) -> Option<(NoticeKind, String)> {
    let (id, target) = (incident.id, &incident.target);
    if incident.closed() {
        if incident.notices.is_empty() || incident.followed_by.is_some() {
            return None;
        }
        let how = match incident.resolution {
            Some(Resolution::Remediated) => "a remediation was verified",
            Some(Resolution::SelfCleared) => "its symptoms went away",
            Some(Resolution::ByHand) => "closed by hand",
            Some(Resolution::Merged) => "it is an effect of another incident",
            None => "closed",
        };
        return Some((NoticeKind::Resolved, format!("{id} ({target}) is resolved: {how}")));
    }
    if let Some(who) = &incident.acknowledged_by {
        let text = format!("{id} ({target}) was acknowledged by {who}");
        return Some((NoticeKind::Acknowledged, text));
    }
    if let Some(reason) = &incident.escalation {
        let text = format!("{id} ({target}) needs a human: {reason}");
        return Some((NoticeKind::NeedsHuman, text));
    }
    if incident.status == IncidentStatus::AwaitingApproval {
        let plan = incident.plan?;
        let text = format!("{id} ({target}): {plan} waits for approval; `medic approve {id}`");
        return Some((NoticeKind::NeedsHuman, text));
    }
    None
}

/// What was told of an incident is history: the same words are news again.
pub(super) fn begin_anew(incident: &mut Incident) {
    for past in incident.notices.values_mut() {
        past.text = Digest::default();
    }
}
