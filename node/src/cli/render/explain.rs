//! The story of one incident, on one screen, for someone who has never seen the code:
//! what was seen, what was decided and why, what was done by whom, what was verified, how it ended.

use medic_proto::v1 as pb;

use super::{
    Style,
    page::Page,
    span,
    steps::steps,
    words::{
        clock, date, day, ms, paint_incident, paint_remediation, paint_severity, paint_verdict,
        plural, risk, route, target,
    },
};
use crate::figures::readable;

/// Signals shown per symptom; the rest is in `-o json`.
const SIGNALS: usize = 3;
/// Playbooks shown that were weighed and not chosen.
const ALSO_WEIGHED: usize = 3;
/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// The actor of what the law does by itself.
const LAW: &str = "medic";
/// Room for labels such as `confidence`.
const LABEL: usize = 13;

/// The page.
#[must_use]
pub fn explain(story: &pb::ExplainIncidentResponse, now: u64, style: Style) -> String {
    let Some(incident) = &story.incident else { return "no such incident".to_owned() };
    let mut page = Page::new(style);
    header(&mut page, incident, now, style);
    seen(&mut page, incident, style);
    decided(&mut page, incident, story.thresholds.as_ref(), style);
    let many = story.remediations.len() > 1;
    for (i, remediation) in story.remediations.iter().enumerate() {
        let number = if many {
            format!(" ({} of {})", i + 1, story.remediations.len())
        } else {
            String::new()
        };
        done(&mut page, remediation, &number, style);
        verified(&mut page, remediation, now, style);
    }
    people(&mut page, incident);
    told(&mut page, incident, &story.hushed_by, style);
    ended(&mut page, incident, story.remediations.last(), now, style);
    page.finish()
}

fn header(page: &mut Page, incident: &pb::Incident, now: u64, style: Style) {
    let own = own_symptoms(incident).next();
    let what = own.map_or_else(|| "no symptom".to_owned(), |s| s.summary.clone());
    page.raw(format!(
        "{}  {}: {what}",
        style.head(&incident.id),
        style.name(&target(incident.target.as_ref()))
    ));
    let opened = ms(incident.opened_at.as_ref()).unwrap_or(now);
    let length = ms(incident.resolved_at.as_ref()).unwrap_or(now).saturating_sub(opened);
    let mut facts = vec![
        paint_severity(style, incident.severity()),
        paint_incident(style, incident.status()),
        format!("{} UTC", date(opened)),
        format!("open for {}", span(length)),
    ];
    if incident.resolved_at.is_some() {
        facts[3] = format!("lasted {}", span(length));
    }
    if incident.predicted {
        facts.push("predicted: nothing was broken yet".to_owned());
    }
    facts.push(format!("tenant {}", incident.tenant));
    if !incident.trace_id.is_empty() {
        facts.push(format!("trace {}", style.dim(&incident.trace_id)));
    }
    page.raw(facts.join(" · "));
}

/// Symptoms of the treated service itself, the first reported first.
fn own_symptoms(incident: &pb::Incident) -> impl Iterator<Item = &pb::Symptom> {
    let mut own: Vec<&pb::Symptom> = incident.symptoms.iter().filter(|s| !s.grouped).collect();
    own.sort_by_key(|s| (ms(s.first_at.as_ref()), s.fingerprint.clone()));
    own.into_iter()
}

fn seen(page: &mut Page, incident: &pb::Incident, style: Style) {
    page.heading(
        "SEEN",
        if incident.symptoms.is_empty() { "nothing that is still kept" } else { "" },
    );
    let ended = incident.resolved_at.is_some();
    for symptom in own_symptoms(incident) {
        symptom_lines(page, symptom, ended, style);
    }
    let grouped: Vec<String> = incident
        .symptoms
        .iter()
        .filter(|s| s.grouped)
        .map(|s| format!("{} {}", target(s.target.as_ref()), s.kind))
        .collect();
    if !grouped.is_empty() {
        let text = format!("{} (they depend on it; only the cause is treated)", grouped.join(", "));
        page.labelled(2, "effects", LABEL, &text);
    }
    if incident.recurrences > 0 {
        let text =
            format!("return {} of what was over: see {}", incident.recurrences, incident.recurs_of);
        page.labelled(2, "again", LABEL, &text);
    }
    if !incident.followed_by.is_empty() {
        let text = format!("it was back soon: {} goes on with it", incident.followed_by);
        page.labelled(2, "later", LABEL, &text);
    }
    if !incident.merged_into.is_empty() {
        let text = format!("this turned out to be an effect of {}", incident.merged_into);
        page.labelled(2, "merged", LABEL, &text);
    }
}

fn symptom_lines(page: &mut Page, symptom: &pb::Symptom, ended: bool, style: Style) {
    let first = ms(symptom.first_at.as_ref()).unwrap_or(0);
    let since = ms(symptom.since.as_ref()).unwrap_or(first);
    let name = style.name(&target(symptom.target.as_ref()));
    // Some summaries begin with the kind.
    let said = symptom.summary.strip_prefix(&symptom.kind).and_then(|rest| rest.strip_prefix(": "));
    let text = format!("{name} {}: {}", symptom.kind, said.unwrap_or(&symptom.summary));
    // A time of day says little about another day.
    let began = if first.saturating_sub(since) < DAY { clock(since) } else { day(since) };
    page.labelled(2, &began, LABEL, &text);
    for signal in symptom.signals.iter().take(SIGNALS) {
        let expected = if signal.expected.is_empty() {
            String::new()
        } else {
            format!(", expected {}", readable(&signal.name, &signal.expected))
        };
        let chance = probability(signal.p_value);
        let value = readable(&signal.name, &signal.value);
        let text = format!("{} = {value}{expected} ({}, {chance})", signal.name, signal.detector);
        page.text(4 + LABEL, &text);
    }
    if symptom.signals.len() > SIGNALS {
        page.text(4 + LABEL, &format!("and {} more", symptom.signals.len() - SIGNALS));
    }
    if let Some(ahead) = symptom.time_to_event_ms {
        page.text(4 + LABEL, &format!("foreseen {} before it would have happened", span(ahead)));
    }
    let cleared = match ms(symptom.cleared_at.as_ref()) {
        Some(at) => format!("gone since {}", clock(at)),
        None if ended => style.warn("still there when the incident ended"),
        None => style.warn("still there"),
    };
    let detected = span(first.saturating_sub(since));
    let reports = plural(usize::try_from(symptom.count).unwrap_or(usize::MAX), "report");
    page.text(
        4 + LABEL,
        &format!("detected after {detected} by {}, {reports}, {cleared}", symptom.source),
    );
}

/// How likely a value this extreme is when all is well.
fn probability(p: f64) -> String {
    if p <= 1e-6 {
        "p < 0.000001".to_owned()
    } else {
        // Two digits that count, however small it is.
        let decimals = (1.0 - p.log10().floor()).clamp(2.0, 6.0) as usize;
        let text = format!("p = {p:.decimals$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

fn decided(
    page: &mut Page,
    incident: &pb::Incident,
    thresholds: Option<&pb::Thresholds>,
    style: Style,
) {
    let Some(decision) = &incident.decision else {
        let ended = incident.resolved_at.is_some();
        page.heading(
            "DECIDED",
            if ended { "nothing: it ended before that" } else { "nothing yet" },
        );
        if !incident.held_by.is_empty() {
            page.labelled(2, "held back", LABEL, &incident.held_by);
        }
        return;
    };
    let at = ms(decision.at.as_ref()).unwrap_or(0);
    let after = at.saturating_sub(ms(incident.opened_at.as_ref()).unwrap_or(at));
    let who = format!("at {} by {}, {} after detection", clock(at), decision.by, span(after));
    page.heading("DECIDED", &who);
    let class = format!(
        "{}, confidence {:.2}: {}",
        style.name(&decision.class),
        decision.class_confidence,
        decision.class_reasons.join("; ")
    );
    page.labelled(2, "class", LABEL, &class);
    if let Some(cause) = &decision.root_cause {
        page.labelled(2, "cause", LABEL, &target(Some(cause)));
    }
    playbooks(page, decision, style);
    if !decision.risks.is_empty() {
        page.labelled(2, "risk", LABEL, &format!("{:.2}, made of", decision.risk));
        for one in &decision.risks {
            let label = format!("{:.2} {}", one.score, risk(one.kind()));
            page.labelled(4 + LABEL, &label, 22, &one.reasons.join("; "));
        }
    }
    let confidence =
        format!("{:.2}: {}", decision.confidence, decision.confidence_reasons.join("; "));
    page.labelled(2, "confidence", LABEL, &confidence);
    let so = match decision.route() {
        pb::Route::AutoExecute => style.good("act without asking"),
        pb::Route::RecommendWithApproval => style.warn("ask for approval"),
        pb::Route::EscalateToHuman => style.bad("a human decides"),
        pb::Route::Shadow => style.warn("shadow mode: recorded, not done"),
        pb::Route::Unspecified => "unknown".to_owned(),
    };
    let why = decision.route_reasons.join("; ");
    page.labelled(2, "so", LABEL, &format!("{so} ({}): {why}", route(decision.route())));
    if let Some(bounds) = thresholds {
        page.labelled(2, "bounds", LABEL, &bounds_text(bounds, decision));
    }
    if !incident.held_by.is_empty() {
        page.labelled(2, "held back", LABEL, &incident.held_by);
    }
}

fn playbooks(page: &mut Page, decision: &pb::Decision, style: Style) {
    if decision.recommendations.is_empty() {
        page.labelled(2, "playbook", LABEL, "none fits");
    }
    for (i, one) in decision.recommendations.iter().take(1 + ALSO_WEIGHED).enumerate() {
        let chosen = i == 0 && one.eligible;
        let label = if chosen || i == 0 { "playbook" } else { "" };
        let name = if chosen { style.name(&one.playbook) } else { format!("not {}", one.playbook) };
        let text = format!("{name}, score {:.2} by {}: {}", one.score, one.by, one.reason);
        page.labelled(2, label, LABEL, &text);
    }
}

fn bounds_text(bounds: &pb::Thresholds, decision: &pb::Decision) -> String {
    let confidence = decision.confidence_override.unwrap_or(bounds.auto_confidence);
    let risk = decision.risk_override.unwrap_or(bounds.auto_risk);
    let overridden = if decision.confidence_override.or(decision.risk_override).is_some() {
        " (set by the environment of the deciding node)"
    } else {
        ""
    };
    format!(
        "acts alone above confidence {confidence:.2} and below risk {risk:.2}{overridden}; asks above \
         {:.2} and below {:.2}; else a human decides",
        bounds.approval_confidence, bounds.approval_risk
    )
}

fn done(page: &mut Page, remediation: &pb::Remediation, number: &str, style: Style) {
    let digest: String = remediation.digest.chars().take(12).collect();
    let remark = format!(
        "{} from playbook {}: {}  {}",
        remediation.id,
        style.name(&remediation.playbook),
        paint_remediation(style, remediation.status()),
        style.dim(&format!("plan {digest}"))
    );
    let begun = remediation.steps.iter().any(|step| !step.history.is_empty());
    let title = match (begun, remediation.ended_at.is_some() || remediation.verdict.is_some()) {
        (false, _) => "PLANNED",
        (true, false) if remediation.status() == pb::RemediationStatus::Running => "DOING",
        (true, _) => "DONE",
    };
    page.heading(&format!("{title}{number}"), &remark);
    for approval in &remediation.approvals {
        let at = ms(approval.at.as_ref()).map(clock).unwrap_or_default();
        page.labelled(2, &at, LABEL, &format!("approved by {}", approval.user));
    }
    steps(page, &remediation.steps, LABEL, style);
    if !remediation.reason.is_empty() {
        page.labelled(2, "because", LABEL, &remediation.reason);
    }
}

fn verified(page: &mut Page, remediation: &pb::Remediation, now: u64, style: Style) {
    let Some(verdict) = &remediation.verdict else {
        if let Some(since) = ms(remediation.verifying_since.as_ref())
            && remediation.status() == pb::RemediationStatus::Verifying
        {
            let expect = remediation.verification.as_ref().map_or("", |v| v.expect.as_str());
            let running = span(now.saturating_sub(since));
            page.heading("VERIFYING", &format!("for {running}: {expect}"));
        }
        return;
    };
    let at = ms(verdict.at.as_ref()).unwrap_or(0);
    let value = paint_verdict(style, verdict.value());
    let remark =
        format!("{value} at {}, score {:.2} (more than 0.80 is needed)", clock(at), verdict.score);
    page.heading("VERIFIED", &remark);
    if let Some(verification) = &remediation.verification {
        let held = span(verification.hold_ms);
        page.labelled(2, "expected", LABEL, &format!("{} for {held}", verification.expect));
    }
    for check in &verdict.checks {
        let value = paint_verdict(style, check.value());
        page.labelled(
            2,
            &check.kind,
            LABEL,
            &format!("{value} {:.2}: {}", check.score, check.detail),
        );
    }
}

/// Users stand by their bare names, or with `user:` where those could be taken for a node's, an
/// agent's or the law's.
fn is_person(actor: &str) -> bool {
    match actor.split_once(':') {
        Some((kind, _)) => kind == "user",
        None => !(actor.is_empty() || actor.starts_with("node-") || actor == LAW),
    }
}

/// What people did and wrote.
fn people(page: &mut Page, incident: &pb::Incident) {
    let lines: Vec<&pb::TimelineItem> =
        incident.timeline.iter().filter(|item| is_person(&item.actor)).collect();
    if lines.is_empty() && incident.acknowledged_by.is_empty() {
        return;
    }
    let remark = match incident.acknowledged_by.as_str() {
        "" => String::new(),
        user => format!("{user} is on it"),
    };
    page.heading("PEOPLE", &remark);
    let mut said = 0;
    for item in lines {
        // What one command led to is told by its first line.
        if std::mem::replace(&mut said, item.index) == item.index {
            continue;
        }
        let at = ms(item.at.as_ref()).map(clock).unwrap_or_default();
        let who = item.actor.trim_start_matches("user:");
        let named = item.text.split([' ', ':', ',']).any(|word| word == who);
        let text = if named { item.text.clone() } else { format!("{who}: {}", item.text) };
        page.labelled(2, &at, LABEL, &text);
    }
}

/// Which channels were told what, and how that went.
fn told(page: &mut Page, incident: &pb::Incident, hushed_by: &str, style: Style) {
    if incident.notices.is_empty() && hushed_by.is_empty() {
        return;
    }
    page.heading("TOLD", "");
    if !hushed_by.is_empty() {
        page.labelled(2, "quiet", LABEL, &format!("nobody is paged for it: {hushed_by}"));
    }
    for notice in &incident.notices {
        let at = ms(notice.at.as_ref()).map(clock).unwrap_or_default();
        let outcome = match notice.outcome.as_str() {
            "delivered" => "delivered".to_owned(),
            "sending" => "being sent".to_owned(),
            "failed" => style.warn(&format!("not delivered yet, {} times", notice.tries)),
            "refused" => style.warn("refused, until the channel is changed"),
            _ => style.warn("nobody knows whether it arrived"),
        };
        let reason = match notice.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let text = format!("channel {}: {}: {outcome}{reason}", notice.channel, notice.kind);
        page.labelled(2, &at, LABEL, &text);
    }
}

fn ended(
    page: &mut Page,
    incident: &pb::Incident,
    last: Option<&pb::Remediation>,
    now: u64,
    style: Style,
) {
    use pb::IncidentStatus as S;
    let id = &incident.id;
    let began = incident.symptoms.iter().filter_map(|s| ms(s.since.as_ref())).min();
    let opened = ms(incident.opened_at.as_ref()).unwrap_or(now);
    match incident.status() {
        S::Resolved => {
            let at = ms(incident.resolved_at.as_ref()).unwrap_or(now);
            let how = match incident.resolution() {
                pb::Resolution::Remediated => " by a verified remediation",
                pb::Resolution::SelfCleared => ": its symptoms went away by themselves",
                pb::Resolution::ByHand => " by hand",
                pb::Resolution::Merged => " as an effect of another incident",
                pb::Resolution::Unspecified => "",
            };
            let human = if incident.manual { "with a human's help" } else { "no human took part" };
            let whole = span(at.saturating_sub(began.unwrap_or(opened)));
            let remark = format!("{} at {}{how}; {human}", style.good("resolved"), clock(at));
            page.heading("ENDED", &remark);
            page.text(
                2,
                &format!(
                    "{whole} after the fault began, {} after detection",
                    span(at.saturating_sub(opened))
                ),
            );
        }
        S::Escalated => {
            page.heading("NOW", &style.bad("a human is needed"));
            page.labelled(2, "because", LABEL, &incident.escalation);
            page.labelled(2, "next", LABEL, &format!("medic ack {id}; then medic resolve {id} -m … or medic reopen {id} to let Medic try again"));
        }
        S::AwaitingApproval => waiting(page, incident, last, now, style),
        S::Open if !incident.held_by.is_empty() => {
            page.heading("NOW", &format!("held back by {}", incident.held_by));
        }
        S::Open => page.heading("NOW", "a decision is due"),
        S::Remediating => page.heading("NOW", "the plan is being carried out"),
        S::Verifying => {
            page.heading("NOW", "the steps are done; whether they helped is being watched")
        }
        S::RollingBack => page.heading("NOW", &style.warn("what was started is being undone")),
        S::Unspecified => {}
    }
}

fn waiting(
    page: &mut Page,
    incident: &pb::Incident,
    last: Option<&pb::Remediation>,
    now: u64,
    style: Style,
) {
    page.heading("NOW", &style.warn("waits for approval"));
    if let Some(rules) = last.and_then(|plan| plan.approval_rules.as_ref()) {
        let given = last.map_or(0, |plan| plan.approvals.len());
        let mut text =
            format!("{given} of {} given; by {}", rules.min_approvers, rules.roles.join(" or "));
        let author = last.map_or("", |plan| plan.requested_by.as_str());
        if rules.forbid_self && !author.is_empty() {
            text += &format!("; not by {author}, who is the cause of it");
        }
        page.labelled(2, "needed", LABEL, &text);
    }
    if let Some(until) = last.and_then(|plan| ms(plan.approval_until.as_ref())) {
        let text = format!("{} (in {})", clock(until), span(until.saturating_sub(now)));
        page.labelled(2, "until", LABEL, &text);
    }
    let id = &incident.id;
    page.labelled(
        2,
        "next",
        LABEL,
        &format!("medic approve {id}, or medic reject {id} --reason …"),
    );
}
