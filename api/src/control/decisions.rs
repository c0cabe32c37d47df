//! `medic.v1.Decisions`.

use medic_proto::v1::{self as pb, decisions_server::Decisions};
use medic_state::{IncidentId, decision::Decision, incident::Incident};
use tonic::{Request, Response, Status};

use super::{
    Control,
    call::{id, live},
    errors::not_found,
    page::{Labels, Paging, Sight, labels},
};
use crate::convert;

fn decision_labels(incident: &Incident, decision: &Decision) -> Labels {
    labels([
        ("tenant", incident.tenant.clone()),
        ("service", incident.target.service.clone()),
        ("incident", incident.id.to_string()),
        ("class", decision.proposal.class.clone()),
        ("route", decision.route.to_string()),
        ("by", decision.by.clone()),
    ])
}

#[tonic::async_trait]
impl Decisions for Control {
    async fn list(
        &self,
        request: Request<pb::ListDecisionsRequest>,
    ) -> Result<Response<pb::ListDecisionsResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let before = paging.after::<u64>()?.unwrap_or(u64::MAX);
        self.view(&request, |state, grant| {
            let sight = Sight::of(state, grant, &ask.tenant)?;
            let mut decided: Vec<(&Incident, &Decision)> = state
                .incidents
                .values()
                .filter_map(|incident| Some((incident, incident.decision.as_ref()?)))
                .filter(|(incident, decision)| {
                    decision.index < before && sight.sees(&incident.tenant)
                })
                .filter(|(incident, decision)| {
                    paging.matches(|| decision_labels(incident, decision))
                })
                .collect();
            decided.sort_unstable_by_key(|(_, decision)| std::cmp::Reverse(decision.index));
            let items = decided.into_iter().map(|pair| (pair.1.index.to_string(), pair));
            let (decisions, next_page_token) =
                paging.cut(items, |(incident, decision)| convert::decision(incident, decision));
            Ok(pb::ListDecisionsResponse { decisions, next_page_token })
        })
        .await
    }

    async fn get(
        &self,
        request: Request<pb::GetDecisionRequest>,
    ) -> Result<Response<pb::GetDecisionResponse>, Status> {
        let id: IncidentId = id(&request.get_ref().incident)?;
        self.view(&request, |state, grant| {
            let incident = live(state, grant, id).ok_or_else(|| not_found(id))?;
            let none = || not_found(format!("decision about {id} (yet)"));
            let decision = incident.decision.as_ref().ok_or_else(none)?;
            Ok(pb::GetDecisionResponse { decision: Some(convert::decision(incident, decision)) })
        })
        .await
    }
}
