//! What is sent: to webhooks our own JSON, to Slack's and PagerDuty's doors theirs.
//!
//! PagerDuty: Events API v2 (developer.pagerduty.com/docs/events-api-v2). All of one story, an incident
//! and its returns, bears one `dedup_key`, so its events meet in one alert, whichever leader sends them
//! and how often.
//! Slack: incoming webhooks (`text` in mrkdwn, of which `&`, `<` and `>` are escaped).

use medic_state::{
    notice::{Notice, NoticeKind, Telling},
    symptom::{Severity, Target},
};
use serde_json::{Value, json};

use super::About;

/// PagerDuty's own door.
pub(super) const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Characters of a summary that PagerDuty takes.
const PAGERDUTY_SUMMARY: usize = 1_024;

/// By which a receiver recognises a message: cluster, incident, channel, how many were delivered
/// before it, and what it says.
pub(super) fn key(cluster: &str, telling: &Telling) -> String {
    let texts: Vec<&[u8]> = telling.notices.iter().map(|one| one.text.as_bytes()).collect();
    let text = medic_state::Digest::of(&texts);
    let first = telling.notices.first();
    let number = first.map_or(0, |notice| notice.delivered);
    let incident = first.map(|notice| notice.incident.to_string()).unwrap_or_default();
    let (tenant, channel) = (&telling.tenant, &telling.channel);
    format!("{cluster}/{tenant}/{channel}/{incident}/{number}/{}", text.short())
}

/// What a message says, in words: one notice as it is, several under a heading.
pub(super) fn text(telling: &Telling) -> String {
    match telling.notices.as_slice() {
        [one] => one.text.clone(),
        many => {
            let lines: Vec<String> = many.iter().map(|one| format!("- {}", one.text)).collect();
            format!("{}:\n{}", heading(telling), lines.join("\n"))
        }
    }
}

/// In one line.
pub(super) fn heading(telling: &Telling) -> String {
    match telling.notices.as_slice() {
        [one] => one.text.clone(),
        many => format!(
            "{} notices in one message, being more than channel {} takes one by one",
            many.len(),
            telling.channel
        ),
    }
}

/// The worst of what it is about.
pub(super) fn severity(telling: &Telling) -> Severity {
    telling.notices.iter().map(|notice| notice.severity).max().unwrap_or_default()
}

pub(super) fn webhook(cluster: &str, telling: &Telling, about: &About) -> Value {
    let notice = |notice: &Notice| {
        json!({
            "incident": notice.incident.to_string(),
            "kind": notice.kind.to_string(),
            "severity": notice.severity.to_string(),
            "text": notice.text,
        })
    };
    json!({
        "source": "medic",
        "cluster": cluster,
        "tenant": telling.tenant,
        "channel": telling.channel,
        "text": text(telling),
        "severity": severity(telling).to_string(),
        "target": about.target.as_ref().map(Target::to_string),
        "class": about.class,
        "notices": telling.notices.iter().map(notice).collect::<Vec<_>>(),
    })
}

pub(super) fn slack(telling: &Telling) -> Value {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let line = |notice: &Notice| {
        let mark = match notice.kind {
            NoticeKind::NeedsHuman => format!("*{}*", notice.severity),
            NoticeKind::Acknowledged | NoticeKind::Resolved => format!("_{}_", notice.kind),
        };
        format!("{mark} {}", escape(&notice.text))
    };
    let lines: Vec<String> = telling.notices.iter().map(line).collect();
    let text = match lines.as_slice() {
        [one] => one.clone(),
        many => format!("{}:\n{}", heading(telling), many.join("\n")),
    };
    json!({ "text": text })
}

pub(super) fn pagerduty(
    cluster: &str,
    routing_key: &str,
    telling: &Telling,
    about: &About,
) -> Value {
    let single = match telling.notices.as_slice() {
        [one] => Some(one),
        _ => None,
    };
    let dedup_key = match single {
        Some(notice) => format!("{cluster}/{}", notice.thread),
        None => format!("{cluster}/{}/{}/summary", telling.tenant, telling.channel),
    };
    let action = match single.map(|notice| notice.kind) {
        Some(NoticeKind::Acknowledged) => "acknowledge",
        Some(NoticeKind::Resolved) => "resolve",
        Some(NoticeKind::NeedsHuman) | None => "trigger",
    };
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": dedup_key,
        "client": "Medic",
    });
    if action == "trigger" {
        let summary: String = heading(telling).chars().take(PAGERDUTY_SUMMARY).collect();
        let target = single.and(about.target.as_ref());
        event["payload"] = json!({
            "summary": summary,
            "source": target.map_or_else(|| cluster.to_owned(), Target::to_string),
            "severity": match severity(telling) {
                Severity::Info => "info",
                Severity::Warning => "warning",
                Severity::Critical => "critical",
            },
            "component": target.map(|target| target.service.clone()),
            "group": telling.tenant,
            "class": single.map(|_| about.class.clone()),
            "custom_details": {
                "cluster": cluster,
                "text": text(telling),
                "opened": medic_state::time::format_rfc3339(about.opened_at),
            },
        });
    }
    event
}
