//! Tests of what people are told: which channels, once, after failures, after a change of leader.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    command::Command,
    ids::{Digest, Fence, IncidentId},
    law::tests::lab::*,
    manifest::{ChannelRules, ChannelSpec, Rate, SlackSpec, Spec},
    notice::Telling,
    symptom::Severity,
};

fn slack(rules: Option<ChannelRules>) -> Spec {
    let url = Some("http://chat/".to_owned());
    Spec::Channel(ChannelSpec::Slack(SlackSpec { url, url_from: None, rules }))
}

fn hook(rules: Option<ChannelRules>) -> Spec {
    Spec::Channel(ChannelSpec::Webhook { url: "http://hook/".into(), rules })
}

fn owed(lab: &Lab) -> Vec<Telling> {
    lab.state.tellings(&|_, _, _| false).next
}

/// (channel, what) of everything that is owed.
fn said(lab: &Lab) -> Vec<(String, NoticeKind)> {
    let one = |telling: Telling| {
        let kinds: Vec<NoticeKind> = telling.notices.iter().map(|notice| notice.kind).collect();
        kinds.into_iter().map(move |kind| (telling.channel.clone(), kind))
    };
    owed(lab).into_iter().flat_map(one).collect()
}

fn note(lab: &mut Lab, telling: &Telling, delivery: Delivery) -> Answer {
    let mut rest = telling.notices.iter().map(|one| (one.incident, one.digest(), one.kind));
    let (incident, text, kind) = rest.next().unwrap();
    let on = ToldOn { channel: telling.channel.clone(), kind, delivery, also: rest.collect() };
    lab.node(1, Command::NoteTold(NoteTold { incident, text, on: Some(on) }))
}

/// The next message of a channel, after time for it has come.
fn next(lab: &mut Lab, channel: &str) -> Telling {
    let found = owed(lab).into_iter().find(|telling| telling.channel == channel).unwrap();
    lab.now = lab.now.max(found.not_before.0);
    found
}

fn escalated(lab: &mut Lab, instance: &str) -> IncidentId {
    let id = lab.report("web", instance, "down");
    lab.propose(id, lab.proposal(None)).unwrap();
    id
}

fn unsent() -> Delivery {
    Delivery::Failed("connection refused".into())
}

#[test]
fn every_channel_is_told_once_whoever_leads() {
    let mut lab = Lab::new();
    lab.apply("chat", slack(None));
    lab.apply("hook", hook(None));
    escalated(&mut lab, "w");
    let chat = next(&mut lab, "chat");
    note(&mut lab, &chat, Delivery::Delivered).unwrap();
    lab.fence(2);
    assert_eq!(
        said(&lab),
        [("hook".to_owned(), NoticeKind::NeedsHuman)],
        "what was not told is not lost"
    );
    let hook = next(&mut lab, "hook");
    note(&mut lab, &hook, Delivery::Delivered).unwrap();
    lab.fence(1);
    assert!(owed(&lab).is_empty());
}

#[test]
fn a_failure_is_tried_again_after_a_wait_that_grows_and_that_elections_keep() {
    let mut lab = Lab::new();
    lab.apply("hook", hook(None));
    let id = escalated(&mut lab, "w");
    for wait in [1_000, 2_000, 4_000] {
        let telling = next(&mut lab, "hook");
        note(&mut lab, &telling, unsent()).unwrap();
        lab.fence(2);
        lab.fence(1);
        assert_eq!(owed(&lab)[0].not_before.0, lab.now + wait);
    }
    for _ in 0..20 {
        let telling = next(&mut lab, "hook");
        note(&mut lab, &telling, unsent()).unwrap();
    }
    assert_eq!(owed(&lab)[0].not_before.0, lab.now + WAIT_LAST.0, "never given up");
    let said =
        lab.incident(id).timeline.iter().filter(|item| item.text.contains("could not be told"));
    assert_eq!(said.count(), 1, "a failure that stays the same is one line");
    let telling = next(&mut lab, "hook");
    note(&mut lab, &telling, Delivery::Delivered).unwrap();
    assert!(owed(&lab).is_empty());
}

#[test]
fn what_is_refused_waits_for_another_channel_manifest() {
    let mut lab = Lab::new();
    lab.apply("hook", hook(None));
    escalated(&mut lab, "w");
    let telling = next(&mut lab, "hook");
    note(&mut lab, &telling, Delivery::Refused("400".into())).unwrap();
    assert!(owed(&lab).is_empty());
    let other = ChannelSpec::Webhook { url: "http://other/".into(), rules: None };
    lab.apply("hook", Spec::Channel(other));
    assert_eq!(said(&lab).len(), 1);
}

#[test]
fn an_unknown_fate_is_left_at_that_unless_nobody_else_would_tell() {
    let mut lab = Lab::new();
    lab.apply("chat", slack(None));
    lab.apply("mail", slack(None));
    let unknown = || Delivery::Unknown("timed out".into());
    escalated(&mut lab, "w");
    let telling = next(&mut lab, "chat");
    note(&mut lab, &telling, unknown()).unwrap();
    assert_eq!(said(&lab), [("mail".to_owned(), NoticeKind::NeedsHuman)]);

    let mut lab = Lab::new();
    lab.apply("chat", slack(None));
    escalated(&mut lab, "w");
    for _ in 0..3 {
        let telling = next(&mut lab, "chat");
        note(&mut lab, &telling, unknown()).unwrap();
    }
    assert!(owed(&lab).is_empty(), "three times blindly, and no more");

    let mut lab = Lab::new();
    lab.apply("hook", hook(None));
    lab.apply("chat", slack(None));
    escalated(&mut lab, "w");
    for _ in 0..5 {
        let telling = next(&mut lab, "hook");
        note(&mut lab, &telling, unknown()).unwrap();
        assert_eq!(next(&mut lab, "hook").notices[0].delivered, 0, "under the same key");
    }
}

#[test]
fn a_sender_that_is_gone_leaves_a_doubt_and_an_old_leader_sends_nothing_more() {
    let mut lab = Lab::new();
    lab.apply("chat", slack(None));
    lab.apply("hook", hook(None));
    escalated(&mut lab, "w");
    let telling = next(&mut lab, "chat");
    let old = lab.state.fence.fence;
    note(&mut lab, &telling, Delivery::Sending(old)).unwrap();
    lab.fence(2);
    let again = next(&mut lab, "chat");
    assert!(again.notices[0].in_doubt && again.notices.len() == 1);
    let stale = note(&mut lab, &telling, Delivery::Sending(old));
    assert!(matches!(stale, Err(Refusal::StaleFence { .. })), "{stale:?}");
    assert!(note(&mut lab, &telling, Delivery::Sending(Fence(999))).is_err());
    note(&mut lab, &again, Delivery::Unknown("its sender is gone".into())).unwrap();
    assert_eq!(said(&lab), [("hook".to_owned(), NoticeKind::NeedsHuman)]);
}

#[test]
fn those_who_heard_of_it_hear_that_it_is_over_and_those_who_want_to_that_somebody_has_it() {
    let mut lab = Lab::new();
    lab.apply("chat", slack(None));
    lab.apply("hook", hook(None));
    let wants = ChannelRules {
        send_resolved: Some(true),
        send_acknowledged: Some(true),
        ..ChannelRules::default()
    };
    lab.apply("all", hook(Some(wants)));
    let id = escalated(&mut lab, "w");
    for channel in ["all", "chat", "hook"] {
        let telling = next(&mut lab, channel);
        note(&mut lab, &telling, Delivery::Delivered).unwrap();
    }
    lab.root(Command::Acknowledge(Lab::note(id))).unwrap();
    assert_eq!(said(&lab), [("all".to_owned(), NoticeKind::Acknowledged)]);
    lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
    let over = |channel: &str| (channel.to_owned(), NoticeKind::Resolved);
    assert_eq!(said(&lab), [over("all"), over("chat")]);
    for channel in ["all", "chat"] {
        let telling = next(&mut lab, channel);
        note(&mut lab, &telling, Delivery::Delivered).unwrap();
    }
    assert!(owed(&lab).is_empty());
    let archived = lab.records.iter().rev().find_map(|record| match record {
        crate::Record::Closed(closed) => Some(closed.incident.notices.clone()),
        crate::Record::Audit(_) => None,
    });
    assert_eq!(archived.unwrap(), lab.incident(id).notices, "the record says who was told");

    // Nobody heard of this one: its end is no news.
    let quiet = lab.report("web", "x", "down");
    lab.root(Command::ResolveIncident(Lab::note(quiet))).unwrap();
    assert!(owed(&lab).is_empty());
}

#[test]
fn the_same_words_after_a_new_beginning_are_news_under_another_key() {
    let mut lab = Lab::new();
    lab.apply("hook", hook(None));
    let id = escalated(&mut lab, "w");
    let first = next(&mut lab, "hook");
    note(&mut lab, &first, Delivery::Delivered).unwrap();
    lab.root(Command::ReopenIncident(Lab::note(id))).unwrap();
    lab.propose(id, lab.proposal(None)).unwrap();
    let again = next(&mut lab, "hook");
    let key = |telling: &Telling| (telling.notices[0].text.clone(), telling.notices[0].delivered);
    assert_eq!((key(&first).0, key(&first).1 + 1), key(&again));
}

#[test]
fn a_channel_hears_of_what_its_rules_let_through() {
    let mut lab = Lab::new();
    let least = ChannelRules { min_severity: Some(Severity::Critical), ..ChannelRules::default() };
    let kinds =
        ChannelRules { matchers: vec![r#"instance=~"w|x""#.into()], ..ChannelRules::default() };
    lab.apply("bad", hook(Some(least)));
    lab.apply("some", hook(Some(kinds)));
    let channels = |lab: &Lab| owed(lab).into_iter().map(|one| one.channel).collect::<Vec<_>>();
    escalated(&mut lab, "y");
    assert!(owed(&lab).is_empty(), "a warning of y");
    let mut worse = symptom("web", "y", "down");
    worse.severity = Severity::Critical;
    lab.report_symptom(worse).unwrap();
    assert_eq!(channels(&lab), ["bad"]);
    lab.root(Command::ReopenIncident(Lab::note(*lab.state.incidents.keys().next().unwrap())))
        .unwrap();
    lab.apply("hush", hook(None));
    lab.root(Command::DeleteManifest(crate::manifest::ManifestKey {
        kind: Kind::Channel,
        tenant: TENANT.into(),
        name: "bad".into(),
    }))
    .unwrap();
    assert!(channels(&lab).is_empty(), "undecided again");
}

#[test]
fn what_is_beyond_the_rate_is_summed_up_in_one_message_and_nothing_is_lost() {
    let mut lab = Lab::new();
    let limit = Some(Rate { count: 3, per: Millis::from_secs(60) });
    lab.apply("hook", hook(Some(ChannelRules { limit, ..ChannelRules::default() })));
    let mut open: Vec<IncidentId> = Vec::new();
    let mut heard: Vec<IncidentId> = Vec::new();
    let mut sizes = Vec::new();
    for (service, instance) in [
        ("web", "w"),
        ("web", "x"),
        ("web", "y"),
        ("web", "z"),
        ("api", "a"),
        ("api", "b"),
        ("api", "c"),
        ("db", "d"),
    ] {
        // Of one service each, or they would be one incident.
        let id = lab.report(service, instance, "down");
        lab.propose(id, lab.proposal(None)).unwrap();
        if !open.contains(&id) {
            open.push(id);
        }
    }
    let begun = lab.now;
    while let Some(telling) = owed(&lab).pop() {
        lab.now = lab.now.max(telling.not_before.0);
        heard.extend(telling.notices.iter().map(|notice| notice.incident));
        sizes.push((lab.now - begun, telling.notices.len()));
        note(&mut lab, &telling, Delivery::Delivered).unwrap();
    }
    heard.sort();
    open.sort();
    assert_eq!(heard, open, "each exactly once");
    assert!(open.len() > 3, "{open:?}");
    assert_eq!(
        sizes,
        [(0, 1), (0, 1), (0, open.len() - 2)],
        "the last of the rate is for all the rest"
    );
    let more = lab.report("web", "w", "errors");
    lab.propose(more, lab.proposal(None)).ok();
    assert_eq!(lab.state.channels.len(), 1);
}

#[test]
fn a_full_channel_waits_until_its_oldest_message_is_old_enough() {
    let mut lab = Lab::new();
    let limit = Some(Rate { count: 1, per: Millis::from_secs(60) });
    lab.apply("hook", hook(Some(ChannelRules { limit, ..ChannelRules::default() })));
    escalated(&mut lab, "w");
    let telling = next(&mut lab, "hook");
    note(&mut lab, &telling, Delivery::Delivered).unwrap();
    let full = lab.now;
    lab.now += 10_000;
    for service in ["api", "db"] {
        let instance = if service == "api" { "a" } else { "d" };
        let id = lab.report(service, instance, "down");
        lab.propose(id, lab.proposal(None)).ok();
    }
    lab.fence(2);
    let waiting = owed(&lab);
    assert_eq!(waiting[0].not_before.0, full + 60_000);
    assert!(!waiting[0].notices.is_empty());
}

#[test]
fn what_was_told_before_channels_were_told_apart_is_not_told_again() {
    let mut lab = Lab::new();
    lab.apply("hook", hook(None));
    let incident = escalated(&mut lab, "w");
    let text = owed(&lab)[0].notices[0].digest();
    lab.node(1, Command::NoteTold(NoteTold { incident, text: Digest::default(), on: None }))
        .unwrap();
    assert_eq!(owed(&lab).len(), 1);
    lab.node(1, Command::NoteTold(NoteTold { incident, text, on: None })).unwrap();
    assert!(owed(&lab).is_empty());
}

#[test]
fn a_channel_that_is_gone_is_owed_nothing_and_leaves_nothing() {
    let mut lab = Lab::new();
    lab.apply("hook", hook(None));
    escalated(&mut lab, "w");
    let telling = next(&mut lab, "hook");
    note(&mut lab, &telling, unsent()).unwrap();
    let key = crate::manifest::ManifestKey {
        kind: Kind::Channel,
        tenant: TENANT.into(),
        name: "hook".into(),
    };
    lab.root(Command::DeleteManifest(key)).unwrap();
    assert!(owed(&lab).is_empty() && lab.state.channels.is_empty());
    assert!(matches!(note(&mut lab, &telling, Delivery::Delivered), Ok(Reply::Noted(_))));
    assert!(lab.state.channels.is_empty());
}
