//! `medic audit …`: list, export, and verify without a cluster.

use medic_proto::v1 as pb;
use medic_raft::env::{Clock as _, SystemClock};

use super::{
    args::{AuditCommand, Connect, Format},
    error::CliError,
    list::incident_id,
    out::Out,
    render::{Style, lists, words::ms},
    session::Session,
};

/// Runs the command.
pub(super) async fn run(command: AuditCommand) -> Result<(), CliError> {
    match command {
        AuditCommand::List { incident, matchers, oldest_first, after, since, limit, connect } => {
            let incident = incident.as_deref().map(incident_id).transpose()?.unwrap_or_default();
            let oldest = since.map(|span| SystemClock.now().0.saturating_sub(span.0));
            let request = pb::ListAuditRequest {
                tenant: Session::open(&connect)?.tenant(),
                matchers,
                page_size: 1_000,
                page_token: String::new(),
                after_seq: after.unwrap_or_default(),
                after_index: 0,
                incident,
                newest_first: !oldest_first && after.is_none(),
            };
            list(request, oldest, limit, &connect).await
        }
        AuditCommand::Export(connect) => export(&connect).await,
        AuditCommand::Verify(args) => super::chain::verify(&args),
    }
}

async fn list(
    mut request: pb::ListAuditRequest,
    oldest: Option<u64>,
    limit: usize,
    connect: &Connect,
) -> Result<(), CliError> {
    let out = Out::new(connect.output.output);
    let session = Session::open(connect)?;
    let mut found: Vec<pb::AuditRecord> = Vec::new();
    let more = loop {
        let page = session
            .ask(request.clone(), |api, request| async move { api.audit().list(request).await })
            .await?;
        let page_end = page.records.last().and_then(|one| ms(one.at.as_ref()));
        found.extend(
            page.records
                .into_iter()
                .filter(|one| oldest.is_none_or(|t| ms(one.at.as_ref()) >= Some(t))),
        );
        // Further back everything is older still.
        let past =
            request.newest_first && page_end.is_some_and(|at| oldest.is_some_and(|t| at < t));
        if page.next_page_token.is_empty() || past || found.len() >= limit {
            break found.len() > limit || !(past || page.next_page_token.is_empty());
        }
        request.page_token = page.next_page_token;
    };
    found.truncate(limit);
    out.list(&found, |items| lists::audit(items, Style::new(out.color())))?;
    match found.last() {
        Some(_) if more && request.newest_first => {
            out.note("there are older ones: raise --limit, or begin with them: --oldest-first");
        }
        Some(last) if more => {
            let seq = last.seq;
            out.note(&format!("there are more: --after {seq} goes on here, or raise --limit"));
        }
        Some(_) | None => {}
    }
    Ok(())
}

async fn export(connect: &Connect) -> Result<(), CliError> {
    let out = Out::new(Format::Jsonl);
    let session = Session::open(connect)?;
    let request = pb::ExportAuditRequest { after_index: 0 };
    let mut records = session
        .ask(request, |api, request| async move { api.audit().export(request).await })
        .await?;
    while let Some(batch) = records.message().await? {
        out.list(&batch.records, |_| String::new())?;
    }
    Ok(())
}
