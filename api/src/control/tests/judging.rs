//! What is said of an incident's detection, and what everybody then sees.

use medic_proto::v1 as pb;
use medic_raft::LedgerExt as _;
use medic_state::{
    Command, NodeId, Ppm, State, Timestamp,
    command::ReportSymptom,
    rbac::Principal,
    symptom::{Severity, Signal, Symptom, Target},
};
use tonic::Code;

use crate::testing::Node;

/// An incident of `web` that a detector called. Gives its id.
async fn called(node: &Node) -> String {
    let id = node.incident("default", "web").await;
    let leader = Principal::node(NodeId(1));
    let newest = Command::SetClusterVersion(medic_state::CLUSTER_VERSION);
    node.propose(&leader, newest).await;
    let target = Target {
        tenant: "default".to_owned(),
        service: "web".to_owned(),
        instance: "web-1".to_owned(),
    };
    let shard = State::shard_of(&target);
    let epoch = node.ledger.read(|state| state.shards[&shard].epoch);
    let signal = Signal {
        name: "metric.latency_p99".to_owned(),
        value: "0.9".to_owned(),
        expected: "about 0.1".to_owned(),
        detector: "level".to_owned(),
        p_value: Ppm(3),
    };
    let symptom = Symptom {
        target,
        kind: "latency".to_owned(),
        severity: Severity::Warning,
        summary: "slow".to_owned(),
        p_value: Ppm(3),
        signals: vec![signal],
        since: Timestamp(0),
        time_to_event: None,
        labels: [].into(),
        source: "test".to_owned(),
    };
    let report = ReportSymptom { shard, epoch, symptom };
    node.propose(&leader, Command::ReportSymptom(report)).await;
    id
}

fn judge(id: &str, opinion: pb::Opinion) -> pb::JudgeIncidentRequest {
    let note = "the nightly batch".to_owned();
    pb::JudgeIncidentRequest {
        id: id.to_owned(),
        opinion: opinion.into(),
        note,
        ..Default::default()
    }
}

fn list(tenant: &str) -> pb::ListWeightsRequest {
    pb::ListWeightsRequest { tenant: tenant.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_false_alarm_moves_a_weight_that_readers_see_with_its_cause() {
    let node = Node::start().await;
    let id = called(&node).await;
    let mut viewer = node.user("viewer").await.services().incidents();
    let refused = viewer.judge(judge(&id, pb::Opinion::FalseAlarm)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut responder = node.user("responder").await.services().incidents();
    let unsaid = responder.judge(judge(&id, pb::Opinion::Unspecified)).await.unwrap_err();
    assert_eq!(unsaid.code(), Code::InvalidArgument);
    let receipt = responder.judge(judge(&id, pb::Opinion::FalseAlarm)).await.unwrap();
    let receipt = receipt.into_inner().receipt.unwrap();
    assert_eq!(receipt.note, "");

    let mut api = node.user("viewer").await.services().detection();
    let page = api.list_weights(list("default")).await.unwrap().into_inner();
    assert_eq!((page.weights.len(), page.version), (1, 1));
    let weight = &page.weights[0];
    assert_eq!((weight.family.as_str(), weight.detector.as_str()), ("latency_p99", "level"));
    assert_eq!((weight.millinats, weight.version, weight.index), (-700, 1, receipt.index));
    assert!((weight.factor - 0.7_f64.exp()).abs() < 1e-9, "{}", weight.factor);
    assert_eq!((weight.by.as_str(), &weight.incident), ("responder", &id));
    assert_eq!(weight.opinion(), pb::Opinion::FalseAlarm);
    let get = pb::GetIncidentRequest { id: id.clone() };
    let seen = viewer.get(get).await.unwrap().into_inner().incident.unwrap();
    assert_eq!((seen.opinion(), seen.judged_by.as_str()), (pb::Opinion::FalseAlarm, "responder"));

    let again = responder.judge(judge(&id, pb::Opinion::FalseAlarm)).await.unwrap().into_inner();
    assert!(again.receipt.unwrap().note.contains("already"));
    let matchers = vec!["detector=\"cusum\"".to_owned()];
    let none = api.list_weights(pb::ListWeightsRequest { matchers, ..list("") }).await.unwrap();
    assert!(none.into_inner().weights.is_empty());
}

#[tokio::test]
async fn weights_are_their_tenants() {
    let node = Node::start().await;
    let id = called(&node).await;
    let blue = node.user("blue").await.services();
    let mut incidents = blue.incidents();
    let hidden = incidents.judge(judge(&id, pb::Opinion::FalseAlarm)).await.unwrap_err();
    assert_eq!(hidden.code(), Code::NotFound, "there is none that they may see");
    let mut responder = node.user("responder").await.services().incidents();
    responder.judge(judge(&id, pb::Opinion::FalseAlarm)).await.unwrap();
    let page = blue.detection().list_weights(list("")).await.unwrap().into_inner();
    assert!(page.weights.is_empty());
    let other = blue.detection().list_weights(list("default")).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let missed = pb::JudgeIncidentRequest {
        indicators: vec!["nonsense".to_owned()],
        ..judge(&id, pb::Opinion::Missed)
    };
    let unknown = responder.judge(missed).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument, "{unknown:?}");
}
