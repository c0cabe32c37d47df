//! Predictions: whose, in which order, and what is not known.

use medic_proto::v1 as pb;
use tonic::Code;

use crate::testing::Node;

fn list(tenant: &str) -> pb::ListPredictionsRequest {
    pb::ListPredictionsRequest { tenant: tenant.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn the_likeliest_come_first_page_by_page_and_gaps_are_told() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().predictions();
    let mut found = Vec::new();
    let mut ask = pb::ListPredictionsRequest { page_size: 3, ..list("") };
    loop {
        let page = api.list(ask.clone()).await.unwrap().into_inner();
        assert_eq!((page.gaps.len(), page.gaps[0].node.as_str()), (1, "node-3"));
        found.extend(page.predictions);
        if page.next_page_token.is_empty() {
            break;
        }
        ask.page_token = page.next_page_token;
    }
    assert_eq!(found.len(), 8);
    assert!(found.is_sorted_by(|a, b| a.probability >= b.probability), "{found:?}");
    assert_eq!(found[0].kind(), pb::PredictionKind::SecurityRisk);
}

#[tokio::test]
async fn matchers_choose() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().predictions();
    let matchers = vec!["kind=~\"capacity|security-risk\"".to_owned()];
    let ask = pb::ListPredictionsRequest { matchers, ..list("default") };
    let found = api.list(ask).await.unwrap().into_inner().predictions;
    assert_eq!(found.len(), 2);
    let bad = pb::ListPredictionsRequest { matchers: vec!["kind".to_owned()], ..list("") };
    assert_eq!(api.list(bad).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_tenants_user_sees_its_own_and_nothing_else() {
    let node = Node::start().await;
    let mut api = node.user("blue").await.services().predictions();
    let found = api.list(list("")).await.unwrap().into_inner().predictions;
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|one| one.target.as_ref().unwrap().tenant == "blue"));
    assert_eq!(api.list(list("default")).await.unwrap_err().code(), Code::PermissionDenied);
    let score = |tenant: &str| pb::ScorePredictionsRequest { tenant: tenant.to_owned() };
    let own = api.score(score("")).await.unwrap().into_inner();
    assert_eq!((own.scores[0].count, own.gaps.len()), (1, 1));
    assert_eq!(api.score(score("default")).await.unwrap_err().code(), Code::PermissionDenied);
    let mut all = node.user("viewer").await.services().predictions();
    assert_eq!(all.score(score("")).await.unwrap().into_inner().scores[0].count, 2);
    assert_eq!(all.score(score("green")).await.unwrap_err().code(), Code::NotFound);
}
