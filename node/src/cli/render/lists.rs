//! Tables of everything that can be listed.

use medic_proto::v1 as pb;
use medic_state::manifest::{Mode, Spec};

use super::{
    Style, Table, span,
    words::{
        clock, date, ms, opinion, paint_incident, paint_remediation, paint_severity, paint_verdict,
        plural, route, target,
    },
};

fn ago(at: Option<&prost_types::Timestamp>, now: u64) -> String {
    ms(at).map_or_else(|| "-".to_owned(), |at| span(now.saturating_sub(at)))
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Text cut to a table's patience.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width - 1).collect();
    cut.push('…');
    cut
}

/// Incidents.
#[must_use]
pub fn incidents(items: &[pb::IncidentSummary], now: u64, style: Style) -> String {
    let mut table =
        Table::new(["INCIDENT", "SEVERITY", "STATUS", "TARGET", "CLASS", "AGE", "WHAT"]);
    for one in items {
        let what = if one.escalation.is_empty() { &one.summary } else { &one.escalation };
        table.row([
            one.id.clone(),
            paint_severity(style, one.severity()),
            paint_incident(style, one.status()),
            target(one.target.as_ref()),
            dash(&one.class),
            ago(one.opened_at.as_ref(), now),
            cut(what, 60),
        ]);
    }
    table.render(&style)
}

/// Decisions.
#[must_use]
pub fn decisions(items: &[pb::Decision], now: u64, style: Style) -> String {
    let mut table = Table::new([
        "INCIDENT",
        "TARGET",
        "CLASS",
        "PLAYBOOK",
        "RISK",
        "CONFIDENCE",
        "ROUTE",
        "BY",
        "AGE",
    ]);
    for one in items {
        let chosen = one.recommendations.iter().find(|r| r.eligible);
        table.row([
            one.incident.clone(),
            target(one.target.as_ref()),
            one.class.clone(),
            chosen.map_or_else(|| "-".to_owned(), |r| r.playbook.clone()),
            format!("{:.2}", one.risk),
            format!("{:.2}", one.confidence),
            route(one.route()),
            one.by.clone(),
            ago(one.at.as_ref(), now),
        ]);
    }
    table.render(&style)
}

/// Remediations.
#[must_use]
pub fn remediations(items: &[pb::RemediationSummary], now: u64, style: Style) -> String {
    let mut table = Table::new([
        "PLAN", "INCIDENT", "SERVICE", "PLAYBOOK", "STATUS", "STEPS", "VERDICT", "AGE", "REASON",
    ]);
    for one in items {
        let verdict = match one.verdict() {
            pb::VerdictValue::Unspecified => "-".to_owned(),
            value => paint_verdict(style, value),
        };
        table.row([
            one.id.clone(),
            one.incident.clone(),
            one.service.clone(),
            one.playbook.clone(),
            paint_remediation(style, one.status()),
            format!("{}/{}", one.steps_done, one.steps),
            verdict,
            ago(one.created_at.as_ref(), now),
            cut(&dash(&one.reason), 50),
        ]);
    }
    table.render(&style)
}

/// Plans that wait for people.
#[must_use]
pub fn approvals(items: &[pb::PendingApproval], now: u64, style: Style) -> String {
    let mut table = Table::new([
        "INCIDENT",
        "TARGET",
        "CLASS",
        "PLAYBOOK",
        "RISK",
        "CONFIDENCE",
        "GIVEN",
        "LEFT",
        "WHY",
    ]);
    for one in items {
        let needed = one.rules.as_ref().map_or(1, |rules| rules.min_approvers);
        let left = ms(one.until.as_ref()).map_or(0, |until| until.saturating_sub(now));
        table.row([
            one.incident.clone(),
            target(one.target.as_ref()),
            one.class.clone(),
            one.playbook.clone(),
            format!("{:.2}", one.risk),
            format!("{:.2}", one.confidence),
            format!("{}/{needed}", one.approvals.len()),
            span(left),
            cut(&one.reasons.join("; "), 50),
        ]);
    }
    table.render(&style)
}

/// Freezes in force.
#[must_use]
pub fn freezes(items: &[pb::FreezeInfo], now: u64, style: Style) -> String {
    let mut table = Table::new(["SCOPE", "BY", "SINCE", "LEFT", "REASON"]);
    for one in items {
        let left = ms(one.until.as_ref())
            .map_or_else(|| "until lifted".to_owned(), |until| span(until.saturating_sub(now)));
        table.row([
            one.description.clone(),
            one.by.clone(),
            ago(one.at.as_ref(), now),
            left,
            cut(&one.reason, 60),
        ]);
    }
    table.render(&style)
}

/// How far detectors are believed, and what changed that last.
#[must_use]
pub fn weights(items: &[pb::DetectorWeight], now: u64, style: Style) -> String {
    let mut table = Table::new([
        "TENANT", "FAMILY", "DETECTOR", "WEIGHT", "P-VALUES", "VERSION", "BECAUSE", "BY", "AGE",
    ]);
    for one in items {
        table.row([
            one.tenant.clone(),
            one.family.clone(),
            one.detector.clone(),
            format!("{:+.1}", f64::from(one.millinats) / 1e3),
            format!("x {:.2}", one.factor),
            one.version.to_string(),
            format!("{} {}", opinion(one.opinion()), one.incident),
            one.by.clone(),
            ago(one.at.as_ref(), now),
        ]);
    }
    table.render(&style)
}

/// Manifests.
#[must_use]
pub fn manifests(items: &[pb::ManifestInfo], now: u64, style: Style) -> String {
    let mut table = Table::new(["KIND", "TENANT", "NAME", "AGE", "BY", "DIGEST"]);
    for one in items {
        table.row([
            one.kind.clone(),
            one.tenant.clone(),
            one.name.clone(),
            ago(one.at.as_ref(), now),
            one.by.clone(),
            one.digest.chars().take(12).collect(),
        ]);
    }
    table.render(&style)
}

/// Playbooks: what each may do, and about what.
#[must_use]
pub fn playbooks(items: &[pb::ManifestInfo], now: u64, style: Style) -> String {
    let mut table = Table::new(["TENANT", "NAME", "MODE", "MATCHES", "ACTIONS", "AGE", "BY"]);
    for one in items {
        let parsed = medic_api::manifest::parse_bundle(&one.yaml).unwrap_or_default();
        let spec = parsed.iter().find_map(|manifest| match &manifest.spec {
            Spec::Playbook(spec) => Some(spec),
            _ => None,
        });
        let mode = match spec.map(|spec| spec.mode) {
            Some(Mode::Auto) => style.good("auto"),
            Some(Mode::Approve) => style.warn("approve"),
            Some(Mode::Shadow) => "shadow".to_owned(),
            None => "-".to_owned(),
        };
        let matches = spec.map_or_else(String::new, |spec| spec.matchers.join(", "));
        let mut actions: Vec<&str> = spec
            .map(|spec| spec.steps.iter().map(|step| step.action.as_str()).collect())
            .unwrap_or_default();
        actions.dedup();
        table.row([
            one.tenant.clone(),
            one.name.clone(),
            mode,
            cut(&dash(&matches), 50),
            cut(&dash(&actions.join(", ")), 40),
            ago(one.at.as_ref(), now),
            one.by.clone(),
        ]);
    }
    table.render(&style)
}

/// Agents.
#[must_use]
pub fn agents(items: &[pb::Agent], now: u64, style: Style) -> String {
    let mut table = Table::new(["AGENT", "STATE", "REGION", "VERSION", "SINCE"]);
    for one in items {
        let state = match one.node {
            Some(_) => style.good("connected"),
            None => style.bad("away"),
        };
        table.row([
            one.name.clone(),
            state,
            dash(&one.region),
            one.version.clone(),
            ago(one.since.as_ref(), now),
        ]);
    }
    table.render(&style)
}

/// Shards.
#[must_use]
pub fn shards(items: &[pb::Shard], now: u64, style: Style) -> String {
    let mut table = Table::new(["SHARD", "OWNER", "EPOCH", "SINCE", "SERVICES"]);
    for one in items {
        table.row([
            format!("shard-{}", one.id),
            one.owner.map_or_else(|| style.warn("nobody"), |node| format!("node-{node}")),
            one.epoch.to_string(),
            ago(one.since.as_ref(), now),
            cut(&dash(&one.services.join(" ")), 70),
        ]);
    }
    table.render(&style)
}

/// Members of the cluster.
#[must_use]
pub fn nodes(items: &[pb::Node], now: u64, style: Style) -> String {
    let mut table = Table::new([
        "NODE", "ROLE", "STATE", "REGION", "PEER", "API", "SHARDS", "WEIGHT", "MATCHED", "VERSION",
        "SINCE",
    ]);
    for one in items {
        let role = match (one.former, one.leader, one.voter) {
            (true, _, _) => style.dim("former"),
            (false, true, _) => style.head("leader"),
            (false, false, true) => "voter".to_owned(),
            (false, false, false) => "learner".to_owned(),
        };
        let state = match (one.live, one.leaving, one.drained) {
            (false, _, false) => style.bad("away"),
            (false, _, true) => style.bad("away, drained"),
            (true, true, _) => style.warn("leaving"),
            (true, false, true) => style.warn("drained"),
            (true, false, false) => style.good("live"),
        };
        table.row([
            format!("node-{}", one.id),
            role,
            state,
            dash(&one.region),
            dash(&one.peer_addr),
            dash(&one.api_addr),
            one.shards.to_string(),
            one.weight.to_string(),
            one.matched.map_or_else(|| "-".to_owned(), |index| index.to_string()),
            dash(&one.version),
            ago(one.since.as_ref(), now),
        ]);
    }
    table.render(&style)
}

/// The cluster: a few lines, then its members.
#[must_use]
pub fn cluster(status: &pb::StatusResponse, now: u64, style: Style) -> String {
    let leader = match status.leader {
        0 => style.bad("no leader"),
        node => format!("node-{node} leads in term {}", status.term),
    };
    let since = ms(status.fenced_at.as_ref()).map_or_else(String::new, |at| {
        format!(" since {} ({} ago)", clock(at), span(now.saturating_sub(at)))
    });
    let totals = status.totals.unwrap_or_default();
    let mut lines = vec![
        format!("{}  {leader} under fence-{}{since}", style.head(&status.cluster_id), status.fence),
        format!(
            "log {}, applied {}, snapshot {}, state {} (as node-{} sees it)",
            status.last_log,
            status.applied,
            status.snapshot,
            status.state_hash.chars().take(12).collect::<String>(),
            status.answered_by
        ),
        format!(
            "{} open, {} in force; since the beginning {} incidents, {} remediations, {} verified, {} \
             rolled back, {} unknown, {} with a human",
            plural(status.open_incidents as usize, "incident"),
            plural(status.freezes as usize, "freeze"),
            totals.incidents,
            totals.attempted,
            totals.successful,
            totals.rolled_back,
            totals.unknown,
            totals.manual
        ),
        format!(
            "audit chain: {} links, head {}",
            status.audit_seq,
            status.audit_hash.chars().take(12).collect::<String>()
        ),
    ];
    if !status.fatal.is_empty() {
        lines.push(style.bad(&format!("node-{} has failed: {}", status.answered_by, status.fatal)));
    }
    lines.push(String::new());
    lines.push(nodes(&status.nodes, now, style));
    lines.join("\n")
}

/// Links of the audit chain.
#[must_use]
pub fn audit(items: &[pb::AuditRecord], style: Style) -> String {
    let mut table = Table::new(["SEQ", "AT (UTC)", "WHO", "COMMAND", "ABOUT", "OUTCOME"]);
    for one in items {
        let who = one.principal.as_ref().map_or("-", |principal| principal.name.as_str());
        let about = match one.incident.as_str() {
            "" => one.subject.clone(),
            incident => format!("{incident} {}", one.subject),
        };
        let (about, outcome) = of_change(one).unwrap_or((about, one.outcome.clone()));
        let shown = cut(&outcome, 60);
        let outcome = if outcome.starts_with("refused") { style.warn(&shown) } else { shown };
        table.row([
            one.seq.to_string(),
            ms(one.at.as_ref()).map(date).unwrap_or_default(),
            who.to_owned(),
            one.command.clone(),
            cut(&about, 50),
            outcome,
        ]);
    }
    table.render(&style)
}

/// A change of the cluster and what came of it: the law admits only that it is written down.
fn of_change(record: &pb::AuditRecord) -> Option<(String, String)> {
    if record.command != "NoteClusterChange" || record.outcome != "ok" {
        return None;
    }
    let (change, outcome) = record.subject.split_once(": ").unwrap_or((&record.subject, "asked"));
    Some((change.to_owned(), outcome.to_owned()))
}

/// One event, on one line or one per line of the story it added.
#[must_use]
pub fn event(event: &pb::Event, style: Style) -> String {
    let at = ms(event.at.as_ref()).map(clock).unwrap_or_default();
    let incident = if event.incident.is_empty() { "" } else { &event.incident };
    let head = format!("{} {:>7} {:<9}", style.dim(&at), event.index, style.name(incident));
    if event.timeline.is_empty() {
        let outcome = match event.outcome.as_str() {
            "ok" => String::new(),
            refused if refused.starts_with("refused") => format!(" – {}", style.warn(refused)),
            other => format!(" – {other}"),
        };
        return format!(
            "{head} {} {} by {}{outcome}",
            event.command, event.subject, event.principal
        );
    }
    let lines: Vec<String> = event
        .timeline
        .iter()
        .map(|item| format!("{head} {} ({})", item.text, item.actor))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_say_what_changed_them() {
        let one = pb::DetectorWeight {
            tenant: "default".to_owned(),
            family: "latency_p99".to_owned(),
            detector: "level".to_owned(),
            millinats: -1_400,
            factor: 1.4_f64.exp(),
            version: 7,
            by: "ann".to_owned(),
            opinion: pb::Opinion::FalseAlarm.into(),
            incident: "INC-42".to_owned(),
            ..Default::default()
        };
        let table = weights(&[one], 0, Style::default());
        let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        let expected = [
            "default",
            "latency_p99",
            "level",
            "-1.4",
            "x",
            "4.06",
            "7",
            "false-alarm",
            "INC-42",
            "ann",
            "-",
        ];
        assert_eq!(row, expected, "{table}");
    }

    #[test]
    fn a_change_of_the_cluster_is_shown_with_what_came_of_it() {
        let row = |subject: &str, outcome: &str| pb::AuditRecord {
            command: "NoteClusterChange".to_owned(),
            subject: subject.to_owned(),
            outcome: outcome.to_owned(),
            ..pb::AuditRecord::default()
        };
        let rows = [
            row("add node-4 at m4:7441: asked", "ok"),
            row("promote node-7: refused: node-7 is not a member of the cluster", "ok"),
            row("promote node-7: asked", "refused: user:ann lacks `cluster`"),
        ];
        let shown = audit(&rows, Style::new(false));
        let lines: Vec<Vec<&str>> =
            shown.lines().skip(1).map(|line| line.split("  ").map(str::trim).collect()).collect();
        let last: Vec<&str> = lines.iter().filter_map(|line| line.last().copied()).collect();
        let refused = "refused: node-7 is not a member of the cluster";
        assert_eq!(last, ["asked", refused, "refused: user:ann lacks `cluster`"], "{shown}");
        assert!(
            !lines[0].contains(&"ok") && lines[0].contains(&"add node-4 at m4:7441"),
            "{shown}"
        );
    }
}
