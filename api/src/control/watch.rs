//! `medic.v1.Watch`: the audit chain as a live stream of events.
//!
//! ```text
//!   record store (this node) ──after cursor──► filter, rights ──► client
//!        ▲ applied index moved                      │ nothing for a while
//!        └──────────────────────────────────────────┴──► bookmark
//! ```
//!
//! The cursor moves over records alone, never over the applied index, so nothing is skipped whatever
//! the order in which the two appear. Rights are looked at per event, and on every wake when there is
//! none: a role taken away ends the watch, and so does the end of the certificate.

use std::{pin::Pin, time::Duration};

use futures::Stream;
use medic_proto::v1::{self as pb, events_response::Kind, watch_server::Watch};
use medic_raft::LedgerExt as _;
use medic_state::{AuditRecord, IncidentId, Record, Refusal, State};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Control,
    access::Grant,
    call::{answer, grant_of, id},
    errors::{invalid, refusal_status},
    page::Sight,
};
use crate::convert;

/// Events buffered for a slow reader; then the watch waits, and holds nothing but its cursor.
const BUFFER: usize = 64;
/// An idle watch says how far it has looked.
const BOOKMARK_EVERY: Duration = Duration::from_secs(5);
/// Commands a watch may name.
const COMMANDS_MAX: usize = 64;

/// Watches open on one node at once: each of them wakes and reads with every entry that is applied.
pub(super) const WATCHES_MAX: usize = 256;

type EventStream = Pin<Box<dyn Stream<Item = Result<pb::EventsResponse, Status>> + Send>>;
type Sender = mpsc::Sender<Result<pb::EventsResponse, Status>>;

#[tonic::async_trait]
impl Watch for Control {
    type EventsStream = EventStream;

    async fn events(
        &self,
        request: Request<pb::EventsRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let grant = grant_of(&request)?;
        self.catch_up(&request).await?;
        let ask = request.into_inner();
        let applied = self.ledger.read(|state| {
            Sight::of(state, &grant, &ask.tenant)?;
            Ok::<_, Status>(state.applied)
        })?;
        if ask.commands.len() > COMMANDS_MAX {
            return Err(invalid(format!("a watch names at most {COMMANDS_MAX} commands")));
        }
        let incident: Option<IncidentId> =
            if ask.incident.is_empty() { None } else { Some(id(&ask.incident)?) };
        let cursor = ask.after_index.unwrap_or(applied);
        if cursor > applied {
            return Err(invalid(format!(
                "after_index {cursor} lies ahead of this cluster, which is at {applied}"
            )));
        }
        let place = self.watches.clone().try_acquire_owned().map_err(|_| {
            let full = "watches are open on this node: end some, or watch at another node";
            refusal_status(&Refusal::Limit(format!("{WATCHES_MAX} {full}")))
        })?;
        let (sender, receiver) = mpsc::channel(BUFFER);
        let watcher = Watcher { control: self.clone(), grant, ask, incident, cursor };
        tokio::spawn(async move {
            watcher.run(sender).await;
            drop(place);
        });
        Ok(answer(Box::pin(ReceiverStream::new(receiver)), applied))
    }
}

struct Watcher {
    control: Control,
    grant: Grant,
    ask: pb::EventsRequest,
    incident: Option<IncidentId>,
    cursor: u64,
}

impl Watcher {
    async fn run(mut self, sender: Sender) {
        let mut applied = self.control.ledger.applied();
        let mut bookmark = tokio::time::interval(BOOKMARK_EVERY);
        bookmark.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Marked as seen before looking: a change while looking wakes us again.
            applied.borrow_and_update();
            match self.step(&sender).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(Stop::Gone) => return,
                Err(Stop::Status(status)) => {
                    drop(sender.send(Err(status)).await);
                    return;
                }
            }
            let more = tokio::select! {
                () = sender.closed() => return,
                changed = applied.changed() => changed.is_ok(),
                _ = bookmark.tick() => {
                    let kind = Some(Kind::Bookmark(self.cursor));
                    if sender.send(Ok(pb::EventsResponse { kind })).await.is_err() {
                        return;
                    }
                    true
                }
            };
            if !more {
                drop(sender.send(Err(Status::unavailable("this node is stopping"))).await);
                return;
            }
        }
    }

    /// Sends the events of the next stored records; says whether there were any records.
    async fn step(&mut self, sender: &Sender) -> Result<bool, Stop> {
        let tenant = (!self.ask.tenant.is_empty()).then_some(self.ask.tenant.as_str());
        self.control.still(&self.grant, tenant)?;
        let records = self.control.records(self.cursor).await?;
        let Some(last) = records.last().map(|record| record.index) else { return Ok(false) };
        for stored in records {
            let Record::Audit(record) = stored.record else { continue };
            if !self.wanted(&record) {
                continue;
            }
            let event = self.control.ledger.read(|state| {
                // Looked at again for every event: the watch ends when the right does.
                let sight = Sight::of(state, &self.grant, &self.ask.tenant)?;
                Ok::<_, Status>(sight.sees(&record.tenant).then(|| self.event(state, &record)))
            })?;
            if let Some(event) = event {
                let kind = Some(Kind::Event(event));
                medic_raft::crash_point!("watch_before_event");
                sender.send(Ok(pb::EventsResponse { kind })).await.map_err(|_| Stop::Gone)?;
            }
        }
        self.cursor = last;
        Ok(true)
    }

    fn wanted(&self, record: &AuditRecord) -> bool {
        let commands = &self.ask.commands;
        self.incident.is_none_or(|incident| record.incident == Some(incident))
            && (commands.is_empty() || commands.contains(&record.command))
    }

    fn event(&self, state: &State, record: &AuditRecord) -> pb::Event {
        let incident = record
            .incident
            .and_then(|id| state.incidents.get(&id))
            .filter(|incident| incident.tenant == record.tenant);
        let timeline = incident.map(|incident| {
            let lines = incident.timeline.iter().filter(|item| item.index == record.index);
            lines.map(convert::timeline_item).collect()
        });
        pb::Event {
            index: record.index,
            at: Some(convert::time(record.at)),
            tenant: record.tenant.clone(),
            incident: record.incident.map(|id| id.to_string()).unwrap_or_default(),
            principal: record.principal.to_string(),
            command: record.command.clone(),
            subject: record.subject.clone(),
            outcome: record.outcome.clone(),
            trace_id: record.trace.to_string(),
            timeline: timeline.unwrap_or_default(),
            incident_now: incident.filter(|_| self.ask.with_incident).map(convert::incident),
        }
    }
}

/// Why a watch ends.
enum Stop {
    /// Nobody listens.
    Gone,
    /// The listener is told this.
    Status(Status),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}
