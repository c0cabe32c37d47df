//! `medic.v1.Audit`.

use std::pin::Pin;

use futures::Stream;
use medic_proto::v1::{self as pb, audit_server::Audit};
use medic_raft::{About, LedgerExt as _};
use medic_state::{AuditRecord, IncidentId, Record};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Control,
    call::{answer, grant_of, id},
    errors::ledger_status,
    page::{Labels, Paging, Sight, labels},
};
use crate::convert;

/// Records looked through for one page, where no index leads to them: a page may come back short,
/// with a token to go on.
const SCAN_MAX: usize = 10_000;

/// Records read at once, at least.
const LEAST_READ: usize = 100;

fn audit_labels(record: &AuditRecord) -> Labels {
    labels([
        ("tenant", record.tenant.clone()),
        ("incident", record.incident.map(|id| id.to_string()).unwrap_or_default()),
        ("principal", record.principal.to_string()),
        ("command", record.command.clone()),
        ("outcome", record.outcome.clone()),
    ])
}

type ExportStream = Pin<Box<dyn Stream<Item = Result<pb::ExportAuditResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Audit for Control {
    async fn list(
        &self,
        request: Request<pb::ListAuditRequest>,
    ) -> Result<Response<pb::ListAuditResponse>, Status> {
        let grant = grant_of(&request)?;
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let incident: Option<IncidentId> =
            if ask.incident.is_empty() { None } else { Some(id(&ask.incident)?) };
        self.catch_up(&request).await?;
        let mut after = paging.after::<u64>()?.unwrap_or(ask.after_index);
        let wanted = |record: &AuditRecord| {
            record.seq > ask.after_seq
                && incident.is_none_or(|incident| record.incident == Some(incident))
                && paging.matches(|| audit_labels(record))
        };
        let (mut page, mut scanned) = (Vec::new(), 0);
        let more = loop {
            let limit = paging.size().max(LEAST_READ);
            let records = match incident {
                Some(incident) => {
                    self.records_about(About::Incident(incident), after, limit).await?
                }
                None => self.some_records(after, limit).await?,
            };
            let Some(last) = records.last().map(|record| record.index) else { break false };
            scanned += records.len();
            let full = self.ledger.read(|state| {
                let sight = Sight::of(state, &grant, &ask.tenant)?;
                for stored in records {
                    // Entries are not split: the token is a log index.
                    if page.len() >= paging.size() && stored.index > after {
                        return Ok(true);
                    }
                    after = stored.index;
                    let Record::Audit(record) = stored.record else { continue };
                    if sight.sees(&record.tenant) && wanted(&record) {
                        page.push(convert::audit_record(&record));
                    }
                }
                Ok::<_, Status>(false)
            })?;
            if full || scanned >= SCAN_MAX {
                break true;
            }
            after = last;
        };
        let next_page_token = if more { after.to_string() } else { String::new() };
        let index = self.ledger.read(|state| state.applied);
        Ok(answer(pb::ListAuditResponse { records: page, next_page_token }, index))
    }

    type ExportStream = ExportStream;

    async fn export(
        &self,
        request: Request<pb::ExportAuditRequest>,
    ) -> Result<Response<ExportStream>, Status> {
        let grant = grant_of(&request)?;
        // Everything up to here, and no further: an export ends.
        let until = self.ledger.linearize().await.map_err(|error| ledger_status(&error))?;
        self.still(&grant, Some(""))?;
        let mut after = request.get_ref().after_index;
        // Two pages ahead of the reader.
        let (sender, receiver) = mpsc::channel(2);
        let control = self.clone();
        tokio::spawn(async move {
            while after < until {
                // Looked at again for every page: a slow reader must not outlast its right.
                let read = match control.still(&grant, Some("")) {
                    Ok(()) => control.records(after).await,
                    Err(status) => Err(status),
                };
                let page = match read {
                    Ok(page) => page,
                    Err(status) => {
                        drop(sender.send(Err(status)).await);
                        return;
                    }
                };
                let Some(last) = page.last() else { return };
                after = last.index;
                let records = page
                    .into_iter()
                    .filter(|stored| stored.index <= until)
                    .filter_map(|stored| match stored.record {
                        Record::Audit(record) => Some(convert::audit_record(&record)),
                        Record::Closed(_) => None,
                    })
                    .collect();
                if sender.send(Ok(pb::ExportAuditResponse { records })).await.is_err() {
                    return;
                }
            }
        });
        Ok(answer(Box::pin(ReceiverStream::new(receiver)), until))
    }
}
