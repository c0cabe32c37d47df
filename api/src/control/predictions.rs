//! `medic.v1.Predictions`.

use medic_proto::v1::{self as pb, predictions_server::Predictions};
use medic_raft::LedgerExt as _;
use tonic::{Request, Response, Status};

use super::{
    Control,
    call::{answer, grant_of},
    page::{Labels, Paging, Sight, labels},
};

/// What is foreseen of all tenants, and what the answer lacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreseen {
    /// In any order.
    pub predictions: Vec<pb::Prediction>,
    /// Not empty: there may be more.
    pub gaps: Vec<pb::Gap>,
}

/// What a node knows of what the nodes of the cluster foresee.
pub trait Foresight: Send + Sync + 'static {
    /// What is foreseen now. May look at the ledger.
    fn foreseen(&self) -> Foreseen;

    /// What is not known now. May look at the ledger.
    fn gaps(&self) -> Vec<pb::Gap>;

    /// How earlier predictions about the tenants that are seen turned out, by kind. Is asked while the
    /// ledger is looked at, so it must not look itself.
    fn scores(&self, sees: &dyn Fn(&str) -> bool) -> Vec<pb::PredictionScore>;
}

/// For a node that watches nothing and hears of nobody: the answer is one gap.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoForesight;

impl Foresight for NoForesight {
    fn foreseen(&self) -> Foreseen {
        Foreseen { predictions: Vec::new(), gaps: self.gaps() }
    }

    fn gaps(&self) -> Vec<pb::Gap> {
        let reason = "this node does not hear what others foresee".to_owned();
        vec![pb::Gap { reason, ..pb::Gap::default() }]
    }

    fn scores(&self, _: &dyn Fn(&str) -> bool) -> Vec<pb::PredictionScore> {
        Vec::new()
    }
}

fn prediction_labels(one: &pb::Prediction) -> Labels {
    let target = one.target.clone().unwrap_or_default();
    labels([
        ("tenant", target.tenant),
        ("service", target.service),
        ("instance", target.instance),
        ("kind", kind(one).to_owned()),
        ("subject", one.subject.clone()),
        ("node", one.node.clone()),
    ])
}

/// The kind as matchers and JSON name it.
fn kind(one: &pb::Prediction) -> &'static str {
    match one.kind() {
        pb::PredictionKind::Unspecified => "",
        pb::PredictionKind::Failure => "failure",
        pb::PredictionKind::Capacity => "capacity",
        pb::PredictionKind::Performance => "performance",
        pb::PredictionKind::SecurityRisk => "security-risk",
    }
}

/// Sorts the likeliest first, and names one prediction.
fn key(one: &pb::Prediction) -> String {
    let target = one.target.clone().unwrap_or_default();
    let unlikely = ((1.0 - one.probability) * 1e6) as u32;
    let about = [&target.tenant, &target.service, &target.instance].map(String::as_str).join("/");
    format!("{unlikely:07}/{about}/{}/{}", kind(one), one.subject)
}

#[tonic::async_trait]
impl Predictions for Control {
    async fn list(
        &self,
        request: Request<pb::ListPredictionsRequest>,
    ) -> Result<Response<pb::ListPredictionsResponse>, Status> {
        let ask = request.get_ref();
        let paging = Paging::read(ask.page_size, &ask.page_token, &ask.matchers)?;
        let before: String = paging.after()?.unwrap_or_default();
        let grant = grant_of(&request)?;
        self.catch_up(&request).await?;
        let Foreseen { predictions, gaps } = self.views.foresight.foreseen();
        self.ledger.read(|state| {
            let sight = Sight::of(state, &grant, &ask.tenant)?;
            let seen = |one: &pb::Prediction| {
                one.target.as_ref().is_some_and(|target| sight.sees(&target.tenant))
            };
            let mut found: Vec<(String, pb::Prediction)> = predictions
                .into_iter()
                .filter(|one| seen(one) && paging.matches(|| prediction_labels(one)))
                .map(|one| (key(&one), one))
                .filter(|(key, _)| *key > before)
                .collect();
            found.sort_by(|(a, _), (b, _)| a.cmp(b));
            let (predictions, next_page_token) = paging.cut(found.into_iter(), |one| one);
            let message = pb::ListPredictionsResponse { predictions, next_page_token, gaps };
            Ok(answer(message, state.applied))
        })
    }

    async fn score(
        &self,
        request: Request<pb::ScorePredictionsRequest>,
    ) -> Result<Response<pb::ScorePredictionsResponse>, Status> {
        let tenant = &request.get_ref().tenant;
        let grant = grant_of(&request)?;
        self.catch_up(&request).await?;
        let gaps = self.views.foresight.gaps();
        self.ledger.read(|state| {
            let sight = Sight::of(state, &grant, tenant)?;
            let scores = self.views.foresight.scores(&|tenant| sight.sees(tenant));
            Ok(answer(pb::ScorePredictionsResponse { scores, gaps }, state.applied))
        })
    }
}
