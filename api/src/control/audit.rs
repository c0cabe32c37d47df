//! `medic.v1.Audit`.

use std::pin::Pin;

use futures::Stream;
use medic_proto::v1::{self as pb, audit_server::Audit};
use medic_raft::{About, LedgerExt as _, StoredRecord};
use medic_state::{AuditRecord, IncidentId, Record};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Control,
    access::Grant,
    call::{answer, grant_of, id},
    errors::ledger_status,
    page::{Labels, Paging, Sight, labels},
};
use crate::convert;

/// Records looked through for one page, where no index leads to them: a page may come back short,
/// with a token to go on.
const SCAN_MAX: usize = 10_000;

/// Log entries looked through at once, going backwards, and records read at once, at most.
const WINDOW_MAX: usize = 1_000;

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

/// Where a page that begins with the newest link goes on: before this log index.
struct Before(u64);

impl std::fmt::Display for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{}", self.0)
    }
}

impl std::str::FromStr for Before {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('<').unwrap_or("none").parse().map(Self)
    }
}

impl Control {
    /// Records of entries after an index: of one incident, or all.
    async fn links(
        &self,
        incident: Option<IncidentId>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Status> {
        match incident {
            Some(incident) => self.records_about(About::Incident(incident), after, limit).await,
            None => self.some_records(after, limit).await,
        }
    }

    /// All records of entries within `after..before`, both exclusive.
    async fn window(
        &self,
        incident: Option<IncidentId>,
        mut after: u64,
        before: u64,
    ) -> Result<Vec<StoredRecord>, Status> {
        let mut found = Vec::new();
        while after + 1 < before {
            let records = self.links(incident, after, WINDOW_MAX).await?;
            let Some(last) = records.last().map(|record| record.index) else { break };
            found.extend(records.into_iter().filter(|record| record.index < before));
            after = last;
        }
        Ok(found)
    }

    /// One page that begins with the newest link, and the token of the next one. The log is read in
    /// windows, backwards; they grow, so that what an index finds far back costs few of them.
    async fn newest(
        &self,
        grant: &Grant,
        ask: &pb::ListAuditRequest,
        paging: &Paging,
        incident: Option<IncidentId>,
    ) -> Result<(Vec<pb::AuditRecord>, String), Status> {
        let Before(mut before) = match paging.after()? {
            Some(before) => before,
            None => Before(self.ledger.read(|state| state.applied) + 1),
        };
        let (mut page, mut scanned, mut width) = (Vec::new(), 0, LEAST_READ as u64);
        while before > ask.after_index + 1 && scanned < SCAN_MAX {
            let low = before.saturating_sub(width + 1).max(ask.after_index);
            let records = self.window(incident, low, before).await?;
            scanned += records.len();
            let more = self.ledger.read(|state| {
                let sight = Sight::of(state, grant, &ask.tenant)?;
                for stored in records.into_iter().rev() {
                    let Record::Audit(record) = stored.record else { continue };
                    if record.seq <= ask.after_seq {
                        return Ok(Some(false));
                    }
                    if !sight.sees(&record.tenant) || !paging.matches(|| audit_labels(&record)) {
                        continue;
                    }
                    if page.len() >= paging.size() {
                        return Ok(Some(true));
                    }
                    before = stored.index;
                    page.push(convert::audit_record(&record));
                }
                Ok::<_, Status>(None)
            })?;
            match more {
                Some(true) => return Ok((page, Before(before).to_string())),
                Some(false) => return Ok((page, String::new())),
                None => before = low + 1,
            }
            // Without an index a window is read whole.
            let widest = if incident.is_some() { u64::MAX / 4 } else { WINDOW_MAX as u64 };
            width = (width * 2).min(widest);
        }
        let done = before <= ask.after_index + 1;
        Ok((page, if done { String::new() } else { Before(before).to_string() }))
    }
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
        if ask.newest_first {
            let (page, next_page_token) = self.newest(&grant, ask, &paging, incident).await?;
            let index = self.ledger.read(|state| state.applied);
            return Ok(answer(pb::ListAuditResponse { records: page, next_page_token }, index));
        }
        let mut after = paging.after::<u64>()?.unwrap_or(ask.after_index);
        let wanted = |record: &AuditRecord| {
            record.seq > ask.after_seq
                && incident.is_none_or(|incident| record.incident == Some(incident))
                && paging.matches(|| audit_labels(record))
        };
        let (mut page, mut scanned) = (Vec::new(), 0);
        let more = loop {
            let limit = paging.size().max(LEAST_READ);
            let records = self.links(incident, after, limit).await?;
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
