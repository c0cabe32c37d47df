//! `medic.v1.Incidents`.

use medic_proto::v1::{self as pb, incidents_server::Incidents};
use medic_raft::{About, LedgerExt as _};
use medic_state::{
    ClosedIncident, Command, IncidentId, State,
    command::{IncidentNote, JudgeIncident},
    incident::Incident,
    saga::Saga,
};
use tonic::{Request, Response, Status};

use super::{
    Control,
    access::Grant,
    call::{answer, grant_of, id, live},
    errors::{invalid, not_found},
    page::{Labels, Paging, Sight, labels},
};
use crate::convert;

/// Longest note: it lives in the timeline, in memory, on every node.
const NOTE_MAX: usize = 4_096;
/// Indicators that one opinion may name; the law's own bound.
const INDICATORS_MAX: usize = 64;

/// What matchers of incidents see.
pub(super) fn incident_labels(incident: &Incident) -> Labels {
    let mut kinds: Vec<&str> =
        incident.symptoms.values().map(|s| s.symptom.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    labels([
        ("tenant", incident.tenant.clone()),
        ("service", incident.target.service.clone()),
        ("instance", incident.target.instance.clone()),
        ("status", incident.status.to_string()),
        ("severity", incident.severity.to_string()),
        ("class", incident.decision.as_ref().map(|d| d.proposal.class.clone()).unwrap_or_default()),
        ("symptom", kinds.join(",")),
        ("predicted", incident.predicted.to_string()),
        ("manual", incident.manual.to_string()),
        ("acknowledged", incident.acknowledged_by.is_some().to_string()),
        ("judged", incident.judged.as_ref().map(|j| j.opinion.to_string()).unwrap_or_default()),
    ])
}

#[tonic::async_trait]
impl Incidents for Control {
    async fn list(
        &self,
        request: Request<pb::ListIncidentsRequest>,
    ) -> Result<Response<pb::ListIncidentsResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let before = paging.after::<IncidentId>()?.unwrap_or(IncidentId(u64::MAX));
        self.view(&request, |state, grant| {
            let sight = Sight::of(state, grant, &ask.tenant)?;
            let items = state
                .incidents
                .range(..before)
                .rev()
                .filter(|(_, incident)| sight.sees(&incident.tenant))
                .filter(|(_, incident)| paging.matches(|| incident_labels(incident)))
                .map(|(id, incident)| (id.to_string(), incident));
            let (incidents, next_page_token) = paging.cut(items, convert::incident_summary);
            Ok(pb::ListIncidentsResponse { incidents, next_page_token })
        })
        .await
    }

    async fn get(
        &self,
        request: Request<pb::GetIncidentRequest>,
    ) -> Result<Response<pb::GetIncidentResponse>, Status> {
        let (found, index) = self.find(&request, &request.get_ref().id).await?;
        let incident = match &found {
            Found::Live(explained) => explained.incident.clone(),
            Found::Archived(closed) => Some(convert::incident(&closed.incident)),
        };
        Ok(answer(pb::GetIncidentResponse { incident }, index))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainIncidentRequest>,
    ) -> Result<Response<pb::ExplainIncidentResponse>, Status> {
        let (found, index) = self.find(&request, &request.get_ref().id).await?;
        let explained = match found {
            Found::Live(explained) => *explained,
            Found::Archived(closed) => self.ledger.read(|state| pb::ExplainIncidentResponse {
                incident: Some(convert::incident(&closed.incident)),
                remediations: closed.sagas.iter().map(convert::remediation).collect(),
                archived: true,
                thresholds: Some(thresholds(state, &closed.incident.tenant)),
                hushed_by: String::new(),
            }),
        };
        Ok(answer(explained, index))
    }

    async fn acknowledge(
        &self,
        request: Request<pb::AcknowledgeIncidentRequest>,
    ) -> Result<Response<pb::AcknowledgeIncidentResponse>, Status> {
        let ask = request.get_ref();
        let command = |note| Command::Acknowledge(note);
        let receipt = self.say(&request, &ask.id, &ask.note, &ask.request_id, command).await?;
        Ok(Response::new(pb::AcknowledgeIncidentResponse { receipt: Some(receipt) }))
    }

    async fn add_note(
        &self,
        request: Request<pb::AddNoteRequest>,
    ) -> Result<Response<pb::AddNoteResponse>, Status> {
        let ask = request.get_ref();
        if ask.note.trim().is_empty() {
            return Err(invalid("the note is empty"));
        }
        let command = |note| Command::AddNote(note);
        let receipt = self.say(&request, &ask.id, &ask.note, &ask.request_id, command).await?;
        Ok(Response::new(pb::AddNoteResponse { receipt: Some(receipt) }))
    }

    async fn resolve(
        &self,
        request: Request<pb::ResolveIncidentRequest>,
    ) -> Result<Response<pb::ResolveIncidentResponse>, Status> {
        let ask = request.get_ref();
        let command = |note| Command::ResolveIncident(note);
        let receipt = self.say(&request, &ask.id, &ask.note, &ask.request_id, command).await?;
        Ok(Response::new(pb::ResolveIncidentResponse { receipt: Some(receipt) }))
    }

    async fn reopen(
        &self,
        request: Request<pb::ReopenIncidentRequest>,
    ) -> Result<Response<pb::ReopenIncidentResponse>, Status> {
        let ask = request.get_ref();
        let command = |note| Command::ReopenIncident(note);
        let receipt = self.say(&request, &ask.id, &ask.note, &ask.request_id, command).await?;
        Ok(Response::new(pb::ReopenIncidentResponse { receipt: Some(receipt) }))
    }

    async fn judge(
        &self,
        request: Request<pb::JudgeIncidentRequest>,
    ) -> Result<Response<pb::JudgeIncidentResponse>, Status> {
        let ask = request.get_ref();
        let opinion = convert::opinion_from(ask.opinion())
            .ok_or_else(|| invalid("`opinion` is false-alarm, missed or genuine"))?;
        if ask.indicators.len() > INDICATORS_MAX {
            return Err(invalid(format!("at most {INDICATORS_MAX} indicators are taken")));
        }
        let families = ask.indicators.clone();
        let command = |IncidentNote { incident, note }| {
            Command::JudgeIncident(JudgeIncident { incident, opinion, families, note })
        };
        let receipt = self.say(&request, &ask.id, &ask.note, &ask.request_id, command).await?;
        Ok(Response::new(pb::JudgeIncidentResponse { receipt: Some(receipt) }))
    }
}

/// Where an incident was found.
enum Found {
    Live(Box<pb::ExplainIncidentResponse>),
    Archived(Box<ClosedIncident>),
}

impl Control {
    /// An incident that the caller may see, in the live state or in the record store.
    async fn find<R: Sync>(
        &self,
        request: &Request<R>,
        text: &str,
    ) -> Result<(Found, u64), Status> {
        let id: IncidentId = id(text)?;
        let grant = grant_of(request)?;
        self.catch_up(request).await?;
        let (alive, index) = self.ledger.read(|state| {
            let alive = state.incidents.contains_key(&id);
            let shown = live(state, &grant, id).map(|incident| explain(state, incident));
            (alive.then_some(shown), state.applied)
        });
        match alive {
            Some(Some(explained)) => return Ok((Found::Live(Box::new(explained)), index)),
            Some(None) => return Err(not_found(id)),
            None => {}
        }
        let closed = self.archived(About::Closed(id)).await?.ok_or_else(|| not_found(id))?;
        let seen = self.ledger.read(|state| grant.opens(state, &closed.incident.tenant));
        if seen { Ok((Found::Archived(Box::new(closed)), index)) } else { Err(not_found(id)) }
    }

    /// An operator's word about an incident.
    pub(super) async fn say<R: Sync>(
        &self,
        request: &Request<R>,
        text: &str,
        note: &str,
        request_id: &str,
        command: impl FnOnce(IncidentNote) -> Command + Send,
    ) -> Result<pb::Receipt, Status> {
        let grant: Grant = grant_of(request)?;
        let incident: IncidentId = id(text)?;
        if note.len() > NOTE_MAX {
            return Err(invalid(format!("a note has at most {NOTE_MAX} bytes")));
        }
        self.may(&grant, incident).await?;
        let note = IncidentNote { incident, note: note.to_owned() };
        let (_, receipt) = self.commit(&grant, request_id, command(note)).await?;
        Ok(receipt)
    }
}

fn explain(state: &State, incident: &Incident) -> pb::ExplainIncidentResponse {
    let sagas = state.sagas.values().filter(|saga: &&Saga| saga.incident == incident.id);
    pb::ExplainIncidentResponse {
        incident: Some(convert::incident(incident)),
        remediations: sagas.map(convert::remediation).collect(),
        archived: false,
        thresholds: Some(thresholds(state, &incident.tenant)),
        hushed_by: state.hushed(incident).unwrap_or_default(),
    }
}

/// Of the tenant's policy in force.
fn thresholds(state: &State, tenant: &str) -> pb::Thresholds {
    let policy = state.policy(tenant);
    pb::Thresholds {
        auto_confidence: convert::fraction(policy.auto_execute.confidence),
        auto_risk: convert::fraction(policy.auto_execute.risk),
        approval_confidence: convert::fraction(policy.recommend.confidence),
        approval_risk: convert::fraction(policy.recommend.risk),
    }
}
