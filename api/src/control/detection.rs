//! `medic.v1.Detection`.

use medic_proto::v1::{self as pb, detection_server::Detection};
use medic_state::weight::{Weight, WeightKey};
use tonic::{Request, Response, Status};

use super::{
    Control,
    page::{Labels, Paging, Sight, labels},
};
use crate::convert;

fn weight_labels(key: &WeightKey, weight: &Weight) -> Labels {
    labels([
        ("tenant", key.tenant.clone()),
        ("family", key.family.clone()),
        ("detector", key.detector.to_string()),
        ("opinion", weight.opinion.to_string()),
        ("incident", weight.incident.to_string()),
        ("by", weight.by.clone()),
    ])
}

#[tonic::async_trait]
impl Detection for Control {
    async fn list_weights(
        &self,
        request: Request<pb::ListWeightsRequest>,
    ) -> Result<Response<pb::ListWeightsResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        self.view(&request, |state, grant| {
            let sight = Sight::of(state, grant, &ask.tenant)?;
            let items = paging
                .numbered(state.weights.all.iter())?
                .filter(|(_, (key, _))| sight.sees(&key.tenant))
                .filter(|(_, (key, weight))| paging.matches(|| weight_labels(key, weight)));
            let (weights, next_page_token) =
                paging.cut(items, |(key, weight)| convert::detector_weight(key, weight));
            let version = state.weights.version;
            Ok(pb::ListWeightsResponse { weights, next_page_token, version })
        })
        .await
    }
}
