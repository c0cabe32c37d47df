//! What handlers share: a consistent look at the state, and a proposal in the caller's name.

use medic_proto::v1 as pb;
use medic_raft::{About, LedgerError, LedgerExt as _, RecordQuery, StoredRecord};
use medic_state::{
    ClosedIncident, Command, IncidentId, Record, Reply, RequestId, State, incident::Incident,
};
use tonic::{Request, Response, Status};

use super::{
    Control,
    access::Grant,
    errors::{CONSISTENCY, INDEX, invalid, ledger_status, not_found, refusal_status},
};

/// Longest request id; the law's own bound, less room for the position within a bundle.
const REQUEST_ID_MAX: usize = 120;
/// Records per look into the store.
pub(super) const RECORDS_PER_READ: usize = 1_000;

/// What the gate granted for this request.
pub(super) fn grant_of<T>(request: &Request<T>) -> Result<Grant, Status> {
    let grant = request.extensions().get::<Grant>().cloned();
    grant.ok_or_else(|| Status::permission_denied("the call did not pass the gate"))
}

/// An answer with the index it was read at.
pub(super) fn answer<T>(message: T, index: u64) -> Response<T> {
    let mut response = Response::new(message);
    response.metadata_mut().insert(INDEX, index.into());
    response
}

impl Control {
    /// Catches up with all that was committed before the call, unless the caller wants it stale;
    /// then looks.
    pub(super) async fn view<T, R>(
        &self,
        request: &Request<R>,
        look: impl FnOnce(&State, &Grant) -> Result<T, Status> + Send,
    ) -> Result<Response<T>, Status>
    where
        T: Send,
        R: Sync,
    {
        let grant = grant_of(request)?;
        self.catch_up(request).await?;
        self.ledger.read(|state| {
            let message = look(state, &grant)?;
            Ok(answer(message, state.applied))
        })
    }

    /// Catches up, unless the caller wants it stale.
    pub(super) async fn catch_up<R: Sync>(&self, request: &Request<R>) -> Result<(), Status> {
        match request.metadata().get(CONSISTENCY).map(|value| value.as_bytes()) {
            None | Some(b"linearizable") => {
                self.ledger.linearize().await.map_err(|error| ledger_status(&error))?;
                Ok(())
            }
            Some(b"stale") => Ok(()),
            Some(_) => {
                Err(invalid(format!("{CONSISTENCY} is `linearizable` (the default) or `stale`")))
            }
        }
    }

    /// Proposes in the caller's name. The law checks their permission again.
    pub(super) async fn commit(
        &self,
        grant: &Grant,
        request_id: &str,
        command: Command,
    ) -> Result<(Reply, pb::Receipt), Status> {
        let request_id = self.request_id(request_id)?;
        let id = RequestId(request_id.clone());
        let entry = self.ledger.entry_for(grant.principal.clone(), Some(id), command);
        medic_raft::crash_point!("control_before_commit");
        let committed = self.ledger.propose(entry).await.map_err(|error| ledger_status(&error))?;
        medic_raft::crash_point!("control_after_commit");
        let reply = committed.answer.map_err(|refusal| refusal_status(&refusal))?;
        let note = match &reply {
            Reply::Noted(note) => note.clone(),
            Reply::Done
            | Reply::Incident(_)
            | Reply::Decided { .. }
            | Reply::Fenced(_)
            | Reply::Stored { .. } => String::new(),
        };
        Ok((reply, pb::Receipt { index: committed.index, request_id, note }))
    }

    /// The caller's request id, or a fresh one. A bad one is refused: replacing it in silence would
    /// take from its sender the safety of retrying.
    pub(super) fn request_id(&self, given: &str) -> Result<String, Status> {
        if given.is_empty() {
            return Ok(self.ledger.env().entropy.request_id().0);
        }
        if given.len() > REQUEST_ID_MAX || !given.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(invalid(format!(
                "a request_id has at most {REQUEST_ID_MAX} printable ASCII characters, without spaces"
            )));
        }
        Ok(given.to_owned())
    }

    /// Refuses unless the caller may do this to the incident.
    pub(super) async fn may(&self, grant: &Grant, id: IncidentId) -> Result<(), Status> {
        self.fresh(|state| {
            let incident = state.incidents.get(&id).ok_or_else(|| not_found(id))?;
            grant.check_seen(state, &incident.tenant, id)
        })
        .await
    }

    /// An incident that has left the live state, with its sagas, as it closed last: found by the
    /// index of the record store.
    pub(super) async fn archived(&self, about: About) -> Result<Option<ClosedIncident>, Status> {
        let (mut after, mut found) = (0, None);
        loop {
            let records = self.records_about(about, after, RECORDS_PER_READ).await?;
            let Some(last) = records.last() else { return Ok(found) };
            after = last.index;
            for record in records {
                match record.record {
                    Record::Closed(closed) => found = Some(*closed),
                    Record::Audit(_) => {}
                }
            }
        }
    }

    /// The next records about something after an index.
    pub(super) async fn records_about(
        &self,
        about: About,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Status> {
        let ledger = std::sync::Arc::clone(&self.ledger);
        let query = RecordQuery { after, limit };
        blocking(move || ledger.records_about(about, query)).await
    }

    /// The next records after an index.
    pub(super) async fn records(&self, after: u64) -> Result<Vec<StoredRecord>, Status> {
        self.some_records(after, RECORDS_PER_READ).await
    }

    /// So many records after an index.
    pub(super) async fn some_records(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Status> {
        let ledger = std::sync::Arc::clone(&self.ledger);
        let query = RecordQuery { after, limit };
        blocking(move || ledger.records(query)).await
    }
}

/// Reads the disk, so not on a runtime thread.
async fn blocking(
    read: impl FnOnce() -> Result<Vec<StoredRecord>, LedgerError> + Send + 'static,
) -> Result<Vec<StoredRecord>, Status> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| Err(LedgerError::Stopped(error.to_string())))
        .map_err(|error| ledger_status(&error))
}

/// An incident in the live state, if the caller may see it.
pub(super) fn live<'s>(state: &'s State, grant: &Grant, id: IncidentId) -> Option<&'s Incident> {
    state.incidents.get(&id).filter(|incident| grant.opens(state, &incident.tenant))
}

/// An id as it was typed.
pub(super) fn id<T>(text: &str) -> Result<T, Status>
where
    T: std::str::FromStr<Err = medic_state::ids::BadId>,
{
    text.parse().map_err(|bad: medic_state::ids::BadId| invalid(bad.to_string()))
}
