//! What operators say about incidents and scopes: approve, reject, ack, resolve, freeze, …

use medic_proto::v1 as pb;
use medic_raft::env::{Clock as _, SystemClock};

use super::{
    args::{
        ApproveArgs, Connect, FreezeArgs, JudgeArgs, NoteArgs, Opinion, RejectArgs, ScopeArgs,
        ScopeKind, UnfreezeArgs, WordArgs,
    },
    error::CliError,
    list::{incident_id, story},
    out::Out,
    render::{Style, explain, words},
    session::{Session, request_id},
};

/// Makes a command, and prints what became of it.
macro_rules! command {
    ($session:expr, $connect:expr, $service:ident . $method:ident, $said:expr, $request:expr) => {{
        let response = $session
            .ask($request, |api, request| async move { api.$service().$method(request).await })
            .await?;
        report($connect, response.receipt, &$said)
    }};
}
pub(super) use command;

/// Says what became of a command.
pub(super) fn report(
    connect: &Connect,
    receipt: Option<pb::Receipt>,
    said: &str,
) -> Result<(), CliError> {
    let out = Out::new(connect.output.output);
    out.value(&receipt.unwrap_or_default(), |receipt| {
        // With a note it was so already: the note says how it is.
        let said = if receipt.note.is_empty() { said } else { &receipt.note };
        format!("{said} (log index {})", receipt.index)
    })
}

/// What an operator says about an incident.
#[derive(Clone, Copy)]
pub(super) enum Word {
    Ack,
    Resolve,
    Reopen,
    Note,
    Cancel,
}

/// `medic ack | resolve | reopen | note | cancel`.
pub(super) async fn say(word: Word, args: NoteArgs) -> Result<(), CliError> {
    let NoteArgs { incident, note, connect } = args;
    let is_plan = incident.to_ascii_uppercase().starts_with("PLAN-");
    let id = if is_plan && matches!(word, Word::Cancel) {
        incident.to_ascii_uppercase()
    } else {
        incident_id(&incident)?
    };
    if matches!(word, Word::Note) && note.is_empty() {
        return Err(CliError::Usage("what shall be noted? say it with -m".to_owned()));
    }
    let session = Session::open(&connect)?;
    let (s, c, request_id) = (&session, &connect, request_id());
    match word {
        Word::Ack => {
            let said = format!("{id} is acknowledged");
            let request = pb::AcknowledgeIncidentRequest { id, note, request_id };
            command!(s, c, incidents.acknowledge, said, request)
        }
        Word::Resolve => {
            let said = format!("{id} is resolved");
            let request = pb::ResolveIncidentRequest { id, note, request_id };
            command!(s, c, incidents.resolve, said, request)
        }
        Word::Reopen => {
            let said = format!("{id} is open again");
            let request = pb::ReopenIncidentRequest { id, note, request_id };
            command!(s, c, incidents.reopen, said, request)
        }
        Word::Note => {
            let said = format!("noted on {id}");
            let request = pb::AddNoteRequest { id, note, request_id };
            command!(s, c, incidents.add_note, said, request)
        }
        Word::Cancel => {
            let said = format!("the remediation of {id} is cancelled; what was started is undone");
            let request = pb::CancelRemediationRequest { id, note, request_id };
            command!(s, c, remediations.cancel, said, request)
        }
    }
}

/// `medic ack | resolve`, with what turned out about detection before it: if that is refused, nothing
/// is done.
pub(super) async fn say_of(word: Word, args: WordArgs) -> Result<(), CliError> {
    let WordArgs { note, false_alarm } = args;
    if false_alarm {
        let session = Session::open(&note.connect)?;
        let request = pb::JudgeIncidentRequest {
            id: incident_id(&note.incident)?,
            opinion: pb::Opinion::FalseAlarm.into(),
            indicators: Vec::new(),
            note: note.note.clone(),
            request_id: request_id(),
        };
        session
            .ask(request, |api, request| async move { api.incidents().judge(request).await })
            .await?;
    }
    say(word, note).await
}

/// `medic judge`.
pub(super) async fn judge(args: JudgeArgs) -> Result<(), CliError> {
    let JudgeArgs { incident, opinion, indicators, note, connect } = args;
    let id = incident_id(&incident)?;
    let (opinion, what) = match opinion {
        Opinion::FalseAlarm => (pb::Opinion::FalseAlarm, "a false alarm"),
        Opinion::Missed => (pb::Opinion::Missed, "missed by detection"),
        Opinion::Genuine => (pb::Opinion::Genuine, "genuine"),
    };
    if opinion != pb::Opinion::Missed && !indicators.is_empty() {
        let text = "--indicator goes with `missed`; who called an incident is known";
        return Err(CliError::Usage(text.to_owned()));
    }
    let session = Session::open(&connect)?;
    let said = format!("{id} is judged {what}; see medic get weights");
    let (opinion, request_id) = (opinion.into(), request_id());
    let request = pb::JudgeIncidentRequest { id, opinion, indicators, note, request_id };
    command!(session, &connect, incidents.judge, said, request)
}

/// The plan that waits for approval.
fn waiting(story: &pb::ExplainIncidentResponse) -> Result<&pb::Remediation, CliError> {
    let incident = story.incident.as_ref().map_or("", |incident| incident.id.as_str());
    story
        .remediations
        .iter()
        .rev()
        .find(|plan| plan.status() == pb::RemediationStatus::AwaitingApproval)
        .ok_or_else(|| {
            CliError::Refused(format!(
                "no plan of {incident} waits for approval; see medic explain {incident}"
            ))
        })
}

/// `medic approve`.
pub(super) async fn approve(args: ApproveArgs) -> Result<(), CliError> {
    let out = Out::new(args.connect.output.output);
    let session = Session::open(&args.connect)?;
    let story = story(&session, &args.incident).await?;
    let plan = waiting(&story)?;
    if let Some(wanted) = &args.plan_digest
        && !(wanted.len() >= 8 && plan.digest.starts_with(&wanted.to_ascii_lowercase()))
    {
        return Err(CliError::Refused(format!(
            "the plan that waits is {}, not {wanted}: look at it with medic explain {}",
            plan.digest, plan.incident
        )));
    }
    if !args.yes && args.plan_digest.is_none() && !out.for_program() {
        out.note(&explain(&story, SystemClock.now().0, Style::new(out.color())));
        if !out.confirm(&format!("\nApprove {} for {}?", plan.id, plan.incident)) {
            return Err(CliError::Refused(
                "not approved; without a terminal, say --yes or --plan-digest".to_owned(),
            ));
        }
    }
    let request = pb::ApproveRequest {
        incident: plan.incident.clone(),
        plan_digest: plan.digest.clone(),
        request_id: request_id(),
    };
    let said = format!("{} of {} is approved", plan.id, plan.incident);
    command!(session, &args.connect, approvals.approve, said, request)
}

/// `medic reject`.
pub(super) async fn reject(args: RejectArgs) -> Result<(), CliError> {
    let session = Session::open(&args.connect)?;
    let story = story(&session, &args.incident).await?;
    let plan = waiting(&story)?;
    let request = pb::RejectRequest {
        incident: plan.incident.clone(),
        plan_digest: plan.digest.clone(),
        reason: args.reason,
        request_id: request_id(),
    };
    let said = format!("{} of {} is rejected; a human has it", plan.id, plan.incident);
    command!(session, &args.connect, approvals.reject, said, request)
}

/// The scope as the API has it, and in words.
fn scope(args: &ScopeArgs, tenant: String) -> Result<(pb::FreezeScope, String), CliError> {
    use pb::freeze_scope::Scope;
    let name = args.name.clone().unwrap_or_default();
    let (scope, words) = match args.scope {
        ScopeKind::All => (Scope::Global(true), "everything".to_owned()),
        ScopeKind::Tenant => (Scope::Tenant(name.clone()), format!("tenant {name}")),
        ScopeKind::Region => (Scope::Region(name.clone()), format!("region {name}")),
        ScopeKind::Service => {
            let words = format!("service {name} (tenant {tenant})");
            (Scope::Service(pb::ServiceScope { tenant, service: name }), words)
        }
        ScopeKind::Playbook => {
            let words = format!("playbook {name} (tenant {tenant})");
            (Scope::Playbook(pb::PlaybookScope { tenant, playbook: name }), words)
        }
        ScopeKind::Target => {
            let Some((service, instance)) = name.split_once('/') else {
                return Err(CliError::Usage(format!("`{name}` is not service/instance")));
            };
            let words = format!("target {name} (tenant {tenant})");
            let (service, instance) = (service.to_owned(), instance.to_owned());
            (Scope::Target(pb::Target { tenant, service, instance }), words)
        }
    };
    if args.scope == ScopeKind::All && args.name.is_some() {
        return Err(CliError::Usage("`all` takes no name".to_owned()));
    }
    Ok((pb::FreezeScope { scope: Some(scope) }, words))
}

/// `medic freeze`.
pub(super) async fn freeze(args: FreezeArgs) -> Result<(), CliError> {
    let session = Session::open(&args.connect)?;
    let (scope, words) = scope(&args.scope, session.one_tenant())?;
    let unknown = undeclared(&session, &args.scope).await;
    let until = args.duration.map(|span| words::timestamp(SystemClock.now().plus(span).0));
    let said = match args.duration {
        Some(span) => format!("{words} is frozen for {span}"),
        None => format!("{words} is frozen until medic unfreeze"),
    };
    let (reason, request_id) = (args.reason, request_id());
    let request = pb::FreezeRequest { scope: Some(scope), reason, until, request_id };
    command!(session, &args.connect, safety.freeze, said, request)?;
    if let Some(unknown) = unknown {
        Out::new(args.connect.output.output).note(&unknown);
    }
    Ok(())
}

/// A remark where the service or playbook to freeze is not declared: it may be misspelt, or still to
/// come. Whoever may freeze but not look gets none.
async fn undeclared(session: &Session, args: &ScopeArgs) -> Option<String> {
    let name = args.name.clone().unwrap_or_default();
    let (kind, name) = match args.scope {
        ScopeKind::Service => ("Service", name),
        ScopeKind::Playbook => ("Playbook", name),
        ScopeKind::Target => ("Service", name.split('/').next().unwrap_or_default().to_owned()),
        ScopeKind::All | ScopeKind::Tenant | ScopeKind::Region => return None,
    };
    let tenant = session.one_tenant();
    let remark = format!("note: no {kind} `{name}` is declared in tenant {tenant}");
    let request = pb::GetManifestRequest { kind: kind.to_owned(), tenant, name };
    let found = session
        .ask(request, |api, request| async move { api.manifests().get(request).await })
        .await;
    matches!(found, Err(CliError::Failed(_))).then_some(remark)
}

/// `medic unfreeze`.
pub(super) async fn unfreeze(args: UnfreezeArgs) -> Result<(), CliError> {
    let session = Session::open(&args.connect)?;
    let (scope, words) = scope(&args.scope, session.one_tenant())?;
    let said = format!("{words} is not frozen any more");
    let request = pb::UnfreezeRequest { scope: Some(scope), request_id: request_id() };
    command!(session, &args.connect, safety.unfreeze, said, request)
}
