//! Pages and tables as people see them.

use medic_proto::v1 as pb;

use super::{Style, explain, lists, words::timestamp};

/// 2026-11-18 14:02:10 UTC.
const T: u64 = 1_795_010_530_000;

fn at(after_ms: u64) -> Option<prost_types::Timestamp> {
    Some(timestamp(T + after_ms))
}

fn target(service: &str, instance: &str) -> Option<pb::Target> {
    Some(pb::Target {
        tenant: "default".to_owned(),
        service: service.to_owned(),
        instance: instance.to_owned(),
    })
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn symptoms() -> Vec<pb::Symptom> {
    let signal = |name: &str, value: &str, expected: &str, detector: &str, p_value| pb::Signal {
        name: name.to_owned(),
        value: value.to_owned(),
        expected: expected.to_owned(),
        detector: detector.to_owned(),
        p_value,
    };
    let own = pb::Symptom {
        target: target("store", "store-1"),
        kind: "down".to_owned(),
        severity: pb::Severity::Critical.into(),
        summary: "the process is dead and its port refuses connections".to_owned(),
        p_value: 0.0,
        signals: vec![
            signal("process", "dead", "running", "liveness", 0.0),
            signal("memory", "44144640", "<= 33554432", "limit", 0.012_345),
            signal("probe.http_ok", "0", "1", "probe", 0.000_02),
        ],
        since: at(0),
        source: "shard-12".to_owned(),
        fingerprint: "a".to_owned(),
        first_at: at(900),
        last_at: at(3_000),
        count: 3,
        cleared_at: at(4_100),
        ..Default::default()
    };
    let effect = pb::Symptom {
        target: target("gateway", ""),
        kind: "errors".to_owned(),
        grouped: true,
        since: at(300),
        first_at: at(1_900),
        ..Default::default()
    };
    vec![effect, own]
}

fn decision() -> pb::Decision {
    let weighed = |playbook: &str, score, eligible, reason: &str| pb::Recommendation {
        playbook: playbook.to_owned(),
        score,
        by: "rules".to_owned(),
        reason: reason.to_owned(),
        eligible,
    };
    let risk = |kind: pb::RiskKind, score, reasons: &[&str]| pb::Risk {
        kind: kind.into(),
        score,
        reasons: texts(reasons),
    };
    pb::Decision {
        index: 57,
        at: at(1_150),
        by: "node-1".to_owned(),
        incident: "INC-42".to_owned(),
        target: target("store", "store-1"),
        class: "application/crash".to_owned(),
        class_confidence: 0.97,
        class_reasons: texts(&[
            "the process is dead while its host answers",
            "no change of configuration",
        ]),
        recommendations: vec![
            weighed("restart-crashed", 0.94, true, "matches the class; helped 11 of 12 times"),
            weighed("fail-over", 0.31, false, "no standby instance is declared"),
        ],
        risks: vec![
            risk(
                pb::RiskKind::BlastRadius,
                0.1,
                &["touches 1 of 2 instances", "gateway depends on it"],
            ),
            risk(pb::RiskKind::BusinessImpact, 0.25, &["store is of high criticality"]),
            risk(pb::RiskKind::Technical, 0.05, &["process.restart has a danger of 0.05"]),
            risk(pb::RiskKind::Compliance, 0.0, &["no regime"]),
            risk(pb::RiskKind::Rollback, 0.1, &["every step has an undo"]),
        ],
        risk: 0.14,
        confidence: 0.91,
        confidence_reasons: texts(&[
            "class application/crash: 0.97",
            "restart-crashed helped 11 of 12 times",
        ]),
        route: pb::Route::AutoExecute.into(),
        route_reasons: texts(&["confidence 0.91 > 0.80", "risk 0.14 < 0.30", "mode auto"]),
        plan: "PLAN-57".to_owned(),
        ..Default::default()
    }
}

fn remediation() -> pb::Remediation {
    let event = |after, fence, node: &str, text: &str| pb::StepEvent {
        index: 60,
        at: at(after),
        fence,
        node: node.to_owned(),
        text: text.to_owned(),
    };
    let step = pb::Step {
        name: "restart".to_owned(),
        action: Some(pb::Action { name: "process.restart".to_owned(), ..Default::default() }),
        target: target("store", "store-1"),
        agent: "host-b".to_owned(),
        safety: pb::SafetyClass::Fenced.into(),
        status: pb::StepStatus::Done.into(),
        forward_attempts: 1,
        started_at: at(1_200),
        ended_at: at(3_400),
        history: vec![
            event(1_200, 31, "node-1", "started"),
            event(2_900, 66, "node-2", "resumed"),
            event(3_400, 66, "node-2", "done"),
        ],
        ..Default::default()
    };
    let warm = pb::Step {
        name: "warm".to_owned(),
        action: Some(pb::Action {
            name: "webhook.call".to_owned(),
            params: [("url".to_owned(), "http://cache.internal:8080/warm-it-up".to_owned())].into(),
        }),
        agent: String::new(),
        history: vec![event(3_450, 66, "node-2", "started"), event(3_600, 66, "node-2", "done")],
        started_at: at(3_450),
        ended_at: at(3_600),
        ..step.clone()
    };
    let check = |kind: &str, detail: &str| pb::Check {
        kind: kind.to_owned(),
        value: pb::VerdictValue::Passed.into(),
        score: 1.0,
        detail: detail.to_owned(),
    };
    pb::Remediation {
        id: "PLAN-57".to_owned(),
        incident: "INC-42".to_owned(),
        playbook: "restart-crashed".to_owned(),
        digest: "9f21c0aa55ee9f21c0aa55ee".to_owned(),
        status: pb::RemediationStatus::Succeeded.into(),
        steps: vec![step, warm],
        verification: Some(pb::Verification {
            expect: "probe.http_ok == 1.0".to_owned(),
            hold_ms: 5_000,
            ..Default::default()
        }),
        verdict: Some(pb::Verdict {
            value: pb::VerdictValue::Passed.into(),
            score: 1.0,
            checks: vec![
                check("functional", "probe.http_ok == 1.0 held for 5s on store/store-1"),
                check("regression", "no new symptom on services that depend on it"),
            ],
            at: at(8_700),
        }),
        ..Default::default()
    }
}

fn story() -> pb::ExplainIncidentResponse {
    pb::ExplainIncidentResponse {
        incident: Some(pb::Incident {
            id: "INC-42".to_owned(),
            tenant: "default".to_owned(),
            target: target("store", "store-1"),
            status: pb::IncidentStatus::Resolved.into(),
            severity: pb::Severity::Critical.into(),
            symptoms: symptoms(),
            decision: Some(decision()),
            plan: "PLAN-57".to_owned(),
            opened_at: at(900),
            decided_at: at(1_150),
            resolved_at: at(8_700),
            resolution: pb::Resolution::Remediated.into(),
            trace_id: "4bf92f3577b34da6".to_owned(),
            timeline: vec![pb::TimelineItem {
                at: at(5_000),
                index: 70,
                actor: "ann".to_owned(),
                text: "the host was patched this morning".to_owned(),
            }],
            ..Default::default()
        }),
        remediations: vec![remediation()],
        archived: false,
        thresholds: Some(pb::Thresholds {
            auto_confidence: 0.8,
            auto_risk: 0.3,
            approval_confidence: 0.6,
            approval_risk: 0.5,
        }),
        hushed_by: String::new(),
    }
}

#[test]
fn a_healed_incident_with_a_change_of_leader() {
    insta::assert_snapshot!(explain(&story(), T + 60_000, Style::default()), @r#"
    INC-42  store/store-1: the process is dead and its port refuses connections
    critical · resolved · 2026-11-18 14:02:10 UTC · lasted 7.8s · tenant default · trace 4bf92f3577b34da6

    SEEN
      14:02:10.0   store/store-1 down: the process is dead and its port refuses connections
                     process = dead, expected running (liveness, p < 0.000001)
                     memory = 42.1 MiB, expected <= 32.0 MiB (limit, p = 0.012)
                     probe.http_ok = 0, expected 1 (probe, p = 0.00002)
                     detected after 900ms by shard-12, 3 reports, gone since 14:02:14.1
      effects      gateway errors (they depend on it; only the cause is treated)

    DECIDED  at 14:02:11.1 by node-1, 250ms after detection
      class        application/crash, confidence 0.97: the process is dead while its host answers; no
                   change of configuration
      playbook     restart-crashed, score 0.94 by rules: matches the class; helped 11 of 12 times
                   not fail-over, score 0.31 by rules: no standby instance is declared
      risk         0.14, made of
                     0.10 blast radius     touches 1 of 2 instances; gateway depends on it
                     0.25 business impact  store is of high criticality
                     0.05 technical        process.restart has a danger of 0.05
                     0.00 compliance       no regime
                     0.10 rollback         every step has an undo
      confidence   0.91: class application/crash: 0.97; restart-crashed helped 11 of 12 times
      so           act without asking (auto_execute): confidence 0.91 > 0.80; risk 0.14 < 0.30; mode
                   auto
      bounds       acts alone above confidence 0.80 and below risk 0.30; asks above 0.60 and below 0.50;
                   else a human decides

    DONE  PLAN-57 from playbook restart-crashed: succeeded  plan 9f21c0aa55ee
      14:02:11.2   restart: process.restart on store/store-1 through host-b: done in 2.2s
                     14:02:11.2  started – node-1 under fence-31
                     14:02:12.9  resumed – node-2 under fence-66, who took over
                     14:02:13.4  done – node-2 under fence-66
      14:02:13.4   warm: webhook.call(url=http://cache.internal:80…) on store/store-1 through the
                   leader: done in 150ms (node-2 leading under fence-66)

    VERIFIED  passed at 14:02:18.7, score 1.00 (more than 0.80 is needed)
      expected     probe.http_ok == 1.0 for 5s
      functional   passed 1.00: probe.http_ok == 1.0 held for 5s on store/store-1
      regression   passed 1.00: no new symptom on services that depend on it

    PEOPLE
      14:02:15.0   ann: the host was patched this morning

    ENDED  resolved at 14:02:18.7 by a verified remediation; no human took part
      8.7s after the fault began, 7.8s after detection
    "#);
}

#[test]
fn who_was_told_and_how_it_went() {
    let notice = |channel: &str, outcome: &str, reason: &str| pb::Notice {
        channel: channel.to_owned(),
        kind: "needs-human".to_owned(),
        outcome: outcome.to_owned(),
        reason: reason.to_owned(),
        at: at(5_000),
        tries: 3,
        delivered: 0,
    };
    let mut story = story();
    if let Some(incident) = &mut story.incident {
        incident.notices = vec![
            notice("chat", "unknown", "no answer in time"),
            notice("mail", "failed", "nothing was sent"),
            notice("pager", "delivered", ""),
        ];
        (incident.recurrences, incident.recurs_of) = (2, "INC-7".to_owned());
        incident.followed_by = "INC-12".to_owned();
    }
    story.hushed_by = "inhibited by INC-9 (down of db/d), rule store-down".to_owned();
    let page = explain(&story, T + 60_000, Style::default());
    let told = page.find("TOLD").map(|from| &page[from..]).unwrap_or_default();
    let told = told.split("\n\n").next().unwrap_or_default();
    insta::assert_snapshot!(told, @r"
    TOLD
      quiet        nobody is paged for it: inhibited by INC-9 (down of db/d), rule store-down
      14:02:15.0   channel chat: needs-human: nobody knows whether it arrived: no answer in time
      14:02:15.0   channel mail: needs-human: not delivered yet, 3 times: nothing was sent
      14:02:15.0   channel pager: needs-human: delivered
    ");
    assert!(page.contains("again        return 2 of what was over: see INC-7"), "{page}");
    assert!(page.contains("later        it was back soon: INC-12 goes on with it"), "{page}");
}

#[test]
fn an_incident_that_waits_for_approval() {
    let mut story = story();
    if let Some(incident) = &mut story.incident {
        incident.status = pb::IncidentStatus::AwaitingApproval.into();
        incident.resolved_at = None;
        incident.timeline.clear();
    }
    let plan = &mut story.remediations[0];
    plan.status = pb::RemediationStatus::AwaitingApproval.into();
    plan.verdict = None;
    plan.steps.truncate(1);
    plan.steps[0].history.clear();
    plan.steps[0].status = pb::StepStatus::Pending.into();
    (plan.steps[0].started_at, plan.steps[0].ended_at) = (None, None);
    plan.approval_until = at(900_000);
    plan.approval_rules = Some(pb::ApprovalRules {
        roles: texts(&["approver", "admin"]),
        min_approvers: 1,
        ..Default::default()
    });
    let page = explain(&story, T + 60_000, Style::default());
    let tail = &page[page.find("PLAN-57 from").unwrap_or(0)..];
    insta::assert_snapshot!(tail, @r#"
    PLAN-57 from playbook restart-crashed: awaiting-approval  plan 9f21c0aa55ee
                   restart: process.restart on store/store-1 through host-b: pending

    NOW  waits for approval
      needed       0 of 1 given; by approver or admin
      until        14:17:10.0 (in 14m00s)
      next         medic approve INC-42, or medic reject INC-42 --reason …
    "#);
}

#[test]
fn an_escalated_incident_whose_outcome_is_unknown() {
    let mut story = story();
    if let Some(incident) = &mut story.incident {
        incident.status = pb::IncidentStatus::Escalated.into();
        incident.resolved_at = None;
        incident.escalation =
            "the outcome of webhook.call is unknown; its target is frozen".to_owned();
        incident.timeline.clear();
        incident.acknowledged_by = "bob".to_owned();
    }
    let plan = &mut story.remediations[0];
    plan.status = pb::RemediationStatus::Unknown.into();
    plan.verdict = None;
    plan.reason = "nobody can tell whether step warm happened".to_owned();
    let step = &mut plan.steps[1];
    step.status = pb::StepStatus::Unknown.into();
    step.evidence = [("query".to_owned(), "the webhook has no memory".to_owned())].into();
    if let Some(end) = step.history.last_mut() {
        end.text = "unknown: the old leader's lease has passed".to_owned();
    }
    let page = explain(&story, T + 60_000, Style::default());
    let tail = &page[page.find("PLAN-57 from").unwrap_or(0)..];
    insta::assert_snapshot!(tail, @r#"
    PLAN-57 from playbook restart-crashed: unknown  plan 9f21c0aa55ee
      14:02:11.2   restart: process.restart on store/store-1 through host-b: done in 2.2s
                     14:02:11.2  started – node-1 under fence-31
                     14:02:12.9  resumed – node-2 under fence-66, who took over
                     14:02:13.4  done – node-2 under fence-66
      14:02:13.4   warm: webhook.call(url=http://cache.internal:80…) on store/store-1 through the
                   leader: unknown in 150ms
                     14:02:13.4  started – node-2 under fence-66
                     14:02:13.6  unknown: the old leader's lease has passed – node-2 under fence-66
                     evidence: query the webhook has no memory
      because      nobody can tell whether step warm happened

    PEOPLE  bob is on it

    NOW  a human is needed
      because      the outcome of webhook.call is unknown; its target is frozen
      next         medic ack INC-42; then medic resolve INC-42 -m … or medic reopen INC-42 to let Medic
                   try again
    "#);
}

#[test]
fn an_incident_that_is_only_a_moment_old() {
    let story = pb::ExplainIncidentResponse {
        incident: Some(pb::Incident {
            id: "INC-1".to_owned(),
            tenant: "default".to_owned(),
            target: target("web", "web-1"),
            status: pb::IncidentStatus::Open.into(),
            opened_at: at(0),
            held_by: "freeze of everything by ann: datacentre work".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    insta::assert_snapshot!(explain(&story, T + 1_500, Style::default()), @r#"
    INC-1  web/web-1: no symptom
    unspecified · open · 2026-11-18 14:02:10 UTC · open for 1.5s · tenant default

    SEEN  nothing that is still kept

    DECIDED  nothing yet
      held back    freeze of everything by ann: datacentre work

    NOW  held back by freeze of everything by ann: datacentre work
    "#);
}

#[test]
fn tables() {
    let incident = pb::IncidentSummary {
        id: "INC-42".to_owned(),
        target: target("store", "store-1"),
        status: pb::IncidentStatus::Remediating.into(),
        severity: pb::Severity::Critical.into(),
        class: "application/crash".to_owned(),
        summary: "the process is dead".to_owned(),
        opened_at: at(0),
        ..Default::default()
    };
    let young = pb::IncidentSummary { id: "INC-7".to_owned(), ..Default::default() };
    let node = |id, leader| pb::Node {
        id,
        peer_addr: format!("127.0.0.1:74{id}1"),
        region: "eu-1".to_owned(),
        version: "0.1.0".to_owned(),
        voter: true,
        leader,
        live: id != 3,
        since: at(0),
        shards: if leader { 0 } else { 32 },
        weight: 100,
        drained: leader,
        ..Default::default()
    };
    let status = pb::StatusResponse {
        cluster_id: "demo".to_owned(),
        answered_by: 1,
        leader: 2,
        term: 3,
        fence: 66,
        fenced_at: at(1_000),
        last_log: 120,
        applied: 120,
        state_hash: "ab".repeat(32),
        nodes: vec![node(1, false), node(2, true), node(3, false)],
        audit_seq: 99,
        audit_hash: "cd".repeat(32),
        open_incidents: 1,
        ..Default::default()
    };
    let event = pb::Event {
        index: 57,
        at: at(1_150),
        incident: "INC-42".to_owned(),
        principal: "node:node-1".to_owned(),
        command: "AdoptDecision".to_owned(),
        subject: "class application/crash".to_owned(),
        outcome: "ok".to_owned(),
        ..Default::default()
    };
    let style = Style::default();
    let all = [
        lists::incidents(&[incident, young], T + 5_000, style),
        lists::cluster(&status, T + 61_000, style),
        lists::event(&event, style),
        lists::freezes(&[], T, style),
    ];
    insta::assert_snapshot!(all.join("\n\n"), @r#"
    INCIDENT   SEVERITY      STATUS        TARGET          CLASS               AGE   WHAT
    INC-42     critical      remediating   store/store-1   application/crash   5s    the process is dead
    INC-7      unspecified   unspecified   -               -                   -

    demo  node-2 leads in term 3 under fence-66 since 14:02:11.0 (1m00s ago)
    log 120, applied 120, snapshot 0, state abababababab (as node-1 sees it)
    1 incident open, 0 freezes in force; since the beginning 0 incidents, 0 remediations, 0 verified, 0 rolled back, 0 unknown, 0 with a human
    audit chain: 99 links, head cdcdcdcdcdcd

    NODE     ROLE     STATE     REGION   PEER             API   SHARDS   WEIGHT   MATCHED   VERSION   SINCE
    node-1   voter    live      eu-1     127.0.0.1:7411   -     32       100      -         0.1.0     1m01s
    node-2   leader   drained   eu-1     127.0.0.1:7421   -     0        100      -         0.1.0     1m01s
    node-3   voter    away      eu-1     127.0.0.1:7431   -     32       100      -         0.1.0     1m01s

    14:02:11.1      57 INC-42    AdoptDecision class application/crash by node:node-1

    none
    "#);
}
