//! What operators say about incidents and scopes: approve, reject, ack, resolve, freeze, …

use medic_proto::v1 as pb;
use medic_raft::env::{Clock as _, SystemClock};

use super::{
    args::{
        ApproveArgs, Connect, FreezeArgs, NoteArgs, RejectArgs, ScopeArgs, ScopeKind, UnfreezeArgs,
    },
    error::CliError,
    list::{incident_id, story},
    out::Out,
    render::{Style, explain, words},
    session::{Session, request_id},
};

/// Makes a command with a fresh request id, and prints what became of it.
macro_rules! command {
    ($connect:expr, $client:ident :: $type:ident, $method:ident, $said:expr, $request:expr) => {{
        let session = Session::open($connect)?;
        let request = $request(&session, request_id());
        let response = session
            .call(|channel| {
                let request = request.clone();
                async move { pb::$client::$type::new(channel).$method(request).await }
            })
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
        let note =
            if receipt.note.is_empty() { String::new() } else { format!(": {}", receipt.note) };
        format!("{said}{note} (log index {})", receipt.index)
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
    let (note, connect) = (&note, &connect);
    match word {
        Word::Ack => command!(
            connect,
            incidents_client::IncidentsClient,
            acknowledge,
            format!("{id} is acknowledged"),
            |_: &Session, request_id| {
                pb::AcknowledgeIncidentRequest { id: id.clone(), note: note.clone(), request_id }
            }
        ),
        Word::Resolve => command!(
            connect,
            incidents_client::IncidentsClient,
            resolve,
            format!("{id} is resolved"),
            |_: &Session, request_id| {
                pb::ResolveIncidentRequest { id: id.clone(), note: note.clone(), request_id }
            }
        ),
        Word::Reopen => command!(
            connect,
            incidents_client::IncidentsClient,
            reopen,
            format!("{id} is open again"),
            |_: &Session, request_id| {
                pb::ReopenIncidentRequest { id: id.clone(), note: note.clone(), request_id }
            }
        ),
        Word::Note => command!(
            connect,
            incidents_client::IncidentsClient,
            add_note,
            format!("noted on {id}"),
            |_: &Session, request_id| {
                pb::AddNoteRequest { id: id.clone(), note: note.clone(), request_id }
            }
        ),
        Word::Cancel => command!(
            connect,
            remediations_client::RemediationsClient,
            cancel,
            format!("the remediation of {id} is cancelled; what was started is undone"),
            |_: &Session, request_id| {
                pb::CancelRemediationRequest { id: id.clone(), note: note.clone(), request_id }
            }
        ),
    }
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
    let response = session
        .call(|channel| {
            let request = request.clone();
            async move { pb::approvals_client::ApprovalsClient::new(channel).approve(request).await }
        })
        .await?;
    report(
        &args.connect,
        response.receipt,
        &format!("{} of {} is approved", plan.id, plan.incident),
    )
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
    let response = session
        .call(|channel| {
            let request = request.clone();
            async move { pb::approvals_client::ApprovalsClient::new(channel).reject(request).await }
        })
        .await?;
    let said = format!("{} of {} is rejected; a human has it", plan.id, plan.incident);
    report(&args.connect, response.receipt, &said)
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
    let tenant = Session::open(&args.connect)?.one_tenant();
    let (scope, words) = scope(&args.scope, tenant)?;
    let until = args.duration.map(|span| words::timestamp(SystemClock.now().plus(span).0));
    let said = match args.duration {
        Some(span) => format!("{words} is frozen for {span}"),
        None => format!("{words} is frozen until medic unfreeze"),
    };
    command!(&args.connect, safety_client::SafetyClient, freeze, said, |_: &Session, request_id| {
        pb::FreezeRequest { scope: Some(scope), reason: args.reason.clone(), until, request_id }
    })
}

/// `medic unfreeze`.
pub(super) async fn unfreeze(args: UnfreezeArgs) -> Result<(), CliError> {
    let tenant = Session::open(&args.connect)?.one_tenant();
    let (scope, words) = scope(&args.scope, tenant)?;
    let said = format!("{words} is not frozen any more");
    command!(
        &args.connect,
        safety_client::SafetyClient,
        unfreeze,
        said,
        |_: &Session, request_id| { pb::UnfreezeRequest { scope: Some(scope), request_id } }
    )
}
