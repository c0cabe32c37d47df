//! What calls answer, good ones and bad ones.

use medic_proto::v1::{self as pb, freeze_scope::Scope};
use medic_raft::LedgerExt as _;
use medic_state::{Command, NodeId, rbac::Principal};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::{
    control::{CONSISTENCY, INDEX, PAGE_MAX, REFUSAL},
    testing::{Node, SERVICE},
};

fn service(tenant: &str, name: &str) -> String {
    SERVICE.replace("TENANT", tenant).replace("NAME", name)
}

fn apply(text: &str) -> pb::ApplyManifestsRequest {
    pb::ApplyManifestsRequest { text: text.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn manifests_are_rehearsed_applied_listed_and_deleted() {
    let node = Node::start().await;
    let mut api = node.user("operator").await.services().manifests();
    let text = service("default", "web");
    let dry = pb::ApplyManifestsRequest { dry_run: true, ..apply(&text) };
    let shown = api.apply(dry).await.unwrap().into_inner().manifests.remove(0);
    assert!(shown.created && shown.changed && shown.refusal.is_empty(), "{shown:?}");
    assert!(shown.before.is_empty() && shown.after.contains("web-1"), "{shown:?}");
    assert!(shown.receipt.is_none());
    let list = || pb::ListManifestsRequest { kind: "service".to_owned(), ..Default::default() };
    assert_eq!(api.list(list()).await.unwrap().into_inner().manifests.len(), 0);

    let first = api.apply(apply(&text)).await.unwrap().into_inner().manifests.remove(0);
    assert!(first.changed && first.receipt.unwrap().index > 0);
    let again = api.apply(apply(&text)).await.unwrap().into_inner().manifests.remove(0);
    assert!(!again.changed && !again.created && again.before == again.after);

    let get = pb::GetManifestRequest {
        kind: "Service".to_owned(),
        name: "web".to_owned(),
        ..Default::default()
    };
    let got = api.get(get.clone()).await.unwrap().into_inner().manifest.unwrap();
    assert_eq!((got.by.as_str(), got.digest), ("operator", first.digest));

    let delete = pb::DeleteManifestRequest {
        kind: "Service".to_owned(),
        name: "web".to_owned(),
        ..Default::default()
    };
    api.delete(delete).await.unwrap();
    assert_eq!(api.get(get).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_cluster_that_has_just_begun_is_asked_again_and_an_old_one_refuses() {
    let node = Node::start().await;
    let admin = node.user("admin").await;
    let source = "apiVersion: medic/v1\nkind: Source\nmetadata: {name: written, tenant: blue}\n\
                  spec: {type: remote-write}\n";
    // No member has said yet what it understands.
    let mut api = admin.services().manifests();
    let refused = api.apply(apply(source)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("ask again"), "{refused:?}");
    node.register(1).await;
    let refused = api.apply(apply(source)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("upgrade all members first"), "{refused:?}");
    // The leader's controller switches it on, when all members know it.
    node.register(medic_state::CLUSTER_VERSION).await;
    assert_eq!(api.apply(apply(source)).await.unwrap_err().code(), Code::Unavailable);
    let switch = Command::SetClusterVersion(medic_state::CLUSTER_VERSION);
    node.propose(&Principal::node(NodeId(1)), switch).await;
    api.apply(apply(source)).await.unwrap();
}

#[tokio::test]
async fn a_rehearsal_shows_nothing_of_a_tenant_that_is_not_open() {
    let node = Node::start().await;
    let mut api = node.user("operator").await.services().manifests();
    api.apply(apply(&service("default", "web"))).await.unwrap();
    let mut blue = node.user("blue").await.services().manifests();
    let mut shown = Vec::new();
    for name in ["web", "absent"] {
        let dry = apply(&service("default", name));
        let dry = pb::ApplyManifestsRequest { dry_run: true, ..dry };
        let one = blue.apply(dry).await.unwrap().into_inner().manifests.remove(0);
        assert!(one.before.is_empty() && !one.refusal.is_empty(), "{one:?}");
        shown.push((one.created, one.changed, one.refusal));
    }
    assert_eq!(shown[0], shown[1], "whether it is there cannot be told");
}

#[tokio::test]
async fn a_bundle_is_refused_as_a_whole_before_anything_is_applied() {
    let node = Node::start().await;
    let mut api = node.user("operator").await.services().manifests();
    // An operator may configure, but not administer.
    let binding = "apiVersion: medic/v1\nkind: RoleBinding\nmetadata: {name: x}\n\
                   spec: {role: admin, subjects: [{user: operator}]}\n";
    let text = format!("{}---\n{binding}", service("default", "web"));
    let refused = api.apply(apply(&text)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.metadata().get(REFUSAL).unwrap(), "denied");
    assert!(refused.message().contains("nothing was applied"), "{}", refused.message());
    let details = refused.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("DENIED", "medic.v1"));
    assert_eq!(info.metadata.get("tenant").map(String::as_str), Some("default"));
    let dry = pb::ApplyManifestsRequest { dry_run: true, ..apply(&text) };
    let shown = api.apply(dry).await.unwrap().into_inner().manifests;
    assert_eq!(shown.iter().filter(|one| !one.refusal.is_empty()).count(), 1);
    let services =
        node.ledger.read(|state| state.manifests.keys().filter(|key| key.name == "web").count());
    assert_eq!(services, 0);
}

#[tokio::test]
async fn bad_manifests_say_where() {
    let node = Node::start().await;
    let mut api = node.user("operator").await.services().manifests();
    let text = service("default", "web").replace("instances", "instanzes");
    let bad = api.apply(apply(&text)).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert!(bad.message().contains("instanzes"), "{}", bad.message());
    for text in ["", "---\n---\n", "\u{0}", "{"] {
        assert_eq!(api.apply(apply(text)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let two = format!("{}---\n{}", service("default", "a"), service("default", "b"));
    let expected = pb::ApplyManifestsRequest { expected_digest: "00".repeat(32), ..apply(&two) };
    assert_eq!(api.apply(expected).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().incidents();
    for i in 0..5 {
        node.incident("default", &format!("svc-{i}")).await;
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let ask =
            pb::ListIncidentsRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = api.list(ask).await.unwrap().into_inner();
        assert!(page.incidents.len() <= 2);
        seen.extend(page.incidents.into_iter().map(|one| one.target.unwrap().service));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["svc-4", "svc-3", "svc-2", "svc-1", "svc-0"]);
    let ask = pb::ListIncidentsRequest {
        matchers: vec![r#"service=~"svc-[12]""#.to_owned(), r#"status="open""#.to_owned()],
        ..Default::default()
    };
    assert_eq!(api.list(ask).await.unwrap().into_inner().incidents.len(), 2);
}

#[tokio::test]
async fn bad_list_requests_are_told_so() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().incidents();
    let plain = pb::ListIncidentsRequest::default;
    let bad = [
        pb::ListIncidentsRequest { page_size: PAGE_MAX + 1, ..plain() },
        pb::ListIncidentsRequest { page_token: "what".to_owned(), ..plain() },
        pb::ListIncidentsRequest { page_token: "9".repeat(2_000), ..plain() },
        pb::ListIncidentsRequest { matchers: vec!["status".to_owned()], ..plain() },
        pb::ListIncidentsRequest { matchers: vec![r#"a="b""#.to_owned(); 33], ..plain() },
    ];
    for ask in bad {
        let status = api.list(ask).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    }
    let unknown = pb::ListIncidentsRequest { tenant: "atlantis".to_owned(), ..plain() };
    let status = api.list(unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("atlantis"));
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let node = Node::start().await;
    let theirs = node.incident("default", "web").await;
    let ours = node.incident("blue", "shop").await;
    let services = node.user("blue").await.services();
    let mut api = services.incidents();
    let all = api.list(pb::ListIncidentsRequest::default()).await.unwrap().into_inner().incidents;
    assert_eq!(all.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [ours.as_str()]);
    let named = pb::ListIncidentsRequest { tenant: "default".to_owned(), ..Default::default() };
    assert_eq!(api.list(named).await.unwrap_err().code(), Code::PermissionDenied);
    // Theirs, and one that does not exist, look alike.
    let get = |id: &str| pb::GetIncidentRequest { id: id.to_owned() };
    let foreign = api.get(get(&theirs)).await.unwrap_err();
    let absent = api.get(get("INC-999999")).await.unwrap_err();
    assert_eq!((foreign.code(), absent.code()), (Code::NotFound, Code::NotFound));
    let explain = pb::ExplainIncidentRequest { id: ours.clone() };
    assert_eq!(api.explain(explain).await.unwrap().into_inner().incident.unwrap().id, ours);
    let note = pb::AddNoteRequest { id: theirs, note: "hm".to_owned(), ..Default::default() };
    assert_eq!(api.add_note(note).await.unwrap_err().code(), Code::NotFound);
    // Who may look but not touch is told so.
    let mut viewer = node.user("viewer").await.services().incidents();
    let note = pb::AddNoteRequest { id: ours.clone(), note: "hm".to_owned(), ..Default::default() };
    assert_eq!(viewer.add_note(note).await.unwrap_err().code(), Code::PermissionDenied);
    let manifests = services.manifests().list(pb::ListManifestsRequest::default()).await.unwrap();
    assert!(manifests.into_inner().manifests.iter().all(|one| one.tenant == "blue"));
    let global = pb::FreezeRequest {
        scope: Some(pb::FreezeScope { scope: Some(Scope::Global(true)) }),
        reason: "mine".to_owned(),
        ..Default::default()
    };
    let denied = services.safety().freeze(global).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn who_holds_nothing_anywhere_is_told_that_a_binding_in_the_tenant_is_enough() {
    let node = Node::start().await;
    let mut api = node.user("nobody").await.services().incidents();
    let named = pb::ListIncidentsRequest { tenant: "default".to_owned(), ..Default::default() };
    let denied = api.list(named).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(denied.metadata().get(REFUSAL).unwrap(), "denied");
    for part in ["user:nobody lacks `read` in every tenant", "`default`", "or in `*`"] {
        assert!(denied.message().contains(part), "{}", denied.message());
    }
}

#[tokio::test]
async fn a_retried_request_is_applied_once() {
    let node = Node::start().await;
    let incident = node.incident("default", "web").await;
    let mut api = node.user("responder").await.services().incidents();
    let note = pb::AddNoteRequest {
        id: incident.clone(),
        note: "looking".to_owned(),
        request_id: "retry-1".to_owned(),
    };
    api.add_note(note.clone()).await.unwrap();
    api.add_note(note.clone()).await.unwrap();
    let get = pb::GetIncidentRequest { id: incident };
    let shown = api.get(get).await.unwrap().into_inner().incident.unwrap();
    assert_eq!(shown.timeline.iter().filter(|item| item.text.contains("looking")).count(), 1);
    // The same id for something else is a mistake, and so is an id that is none.
    for (request_id, text) in [("retry-1", "other"), ("two words", "x"), (&*"x".repeat(200), "x")] {
        let bad = pb::AddNoteRequest {
            request_id: request_id.to_owned(),
            note: text.to_owned(),
            ..note.clone()
        };
        assert_eq!(api.add_note(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    // Without one the server mints it, and says which.
    let minted = pb::AddNoteRequest { request_id: String::new(), ..note };
    let receipt = api.add_note(minted).await.unwrap().into_inner().receipt.unwrap();
    assert_eq!(receipt.request_id.len(), 32);
}

#[tokio::test]
async fn freezes_are_set_listed_and_lifted() {
    let node = Node::start().await;
    let mut api = node.user("operator").await.services().safety();
    let scope = pb::FreezeScope { scope: Some(Scope::Tenant("default".to_owned())) };
    let freeze = pb::FreezeRequest {
        scope: Some(scope.clone()),
        reason: "release".to_owned(),
        ..Default::default()
    };
    for bad in [
        pb::FreezeRequest { reason: " ".to_owned(), ..freeze.clone() },
        pb::FreezeRequest { scope: None, ..freeze.clone() },
    ] {
        assert_eq!(api.freeze(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    api.freeze(freeze).await.unwrap();
    let list = || pb::ListFreezesRequest::default();
    let listed = api.list_freezes(list()).await.unwrap().into_inner().freezes;
    assert_eq!((listed.len(), listed[0].by.as_str()), (1, "operator"));
    api.unfreeze(pb::UnfreezeRequest { scope: Some(scope), ..Default::default() }).await.unwrap();
    assert!(api.list_freezes(list()).await.unwrap().into_inner().freezes.is_empty());
}

#[tokio::test]
async fn approvals_of_what_does_not_wait_are_refused() {
    let node = Node::start().await;
    let incident = node.incident("default", "web").await;
    let mut api = node.user("approver").await.services().approvals();
    let ask = pb::ApproveRequest { incident, plan_digest: "ab".repeat(32), ..Default::default() };
    let refused = api.approve(ask.clone()).await.unwrap_err();
    assert!(refused.metadata().get(REFUSAL).is_some(), "{refused:?}");
    let bad = pb::ApproveRequest { plan_digest: "abc".to_owned(), ..ask };
    assert_eq!(api.approve(bad).await.unwrap_err().code(), Code::InvalidArgument);
    let pending = api.list_pending(pb::ListPendingRequest::default()).await.unwrap();
    assert!(pending.into_inner().approvals.is_empty());
}

#[tokio::test]
async fn cluster_changes_are_audited_as_asked_for_and_by_what_came_of_them() {
    let node = Node::start().await;
    let services = node.user("admin").await.services();
    let mut api = services.cluster();
    let add = pb::AddNodeRequest {
        node: 4,
        peer_addr: "127.0.0.1:7441".to_owned(),
        ..Default::default()
    };
    api.add_node(add.clone()).await.unwrap();
    assert_eq!(node.admin.0.lock().unwrap().as_slice(), ["add node-4 127.0.0.1:7441"]);
    for bad in [
        pb::AddNodeRequest { node: 0, ..add.clone() },
        pb::AddNodeRequest { peer_addr: "nowhere".to_owned(), ..add },
    ] {
        assert_eq!(api.add_node(bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let promote = pb::PromoteNodeRequest { node: 7, request_id: "r-1".to_owned() };
    for _ in 0..2 {
        let refused = api.promote_node(promote.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    }
    let list = pb::ListAuditRequest {
        matchers: vec![r#"command="NoteClusterChange""#.to_owned()],
        ..Default::default()
    };
    let records = services.audit().list(list).await.unwrap().into_inner().records;
    let told: Vec<&str> = records.iter().map(|record| record.subject.as_str()).collect();
    let refused = "promote node-7: refused: node-7 is not a member of the cluster";
    let expected = [
        "add node-4 at 127.0.0.1:7441: asked",
        "add node-4 at 127.0.0.1:7441: done",
        "promote node-7: asked",
        refused,
        "promote node-7: asked",
        refused,
    ];
    assert_eq!(told, expected, "each time it is asked, and what came of it each time");
    let status = api.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.cluster_id.as_str(), status.answered_by), ("test", 1));
}

#[tokio::test]
async fn the_audit_chain_is_exported_whole_and_pages_join_up() {
    let node = Node::start().await;
    for i in 0..7 {
        node.incident("default", &format!("svc-{i}")).await;
    }
    let mut api = node.user("admin").await.services().audit();
    let mut stream = api.export(pb::ExportAuditRequest::default()).await.unwrap().into_inner();
    let mut chain = Vec::new();
    while let Some(page) = stream.message().await.unwrap() {
        chain.extend(page.records);
    }
    let head = node.ledger.read(|state| state.audit);
    assert_eq!(chain.len() as u64, head.seq);
    assert!(chain.iter().zip(1..).all(|(record, seq)| record.seq == seq));
    assert!(chain.windows(2).all(|pair| pair[0].hash == pair[1].previous));
    assert_eq!(chain.last().unwrap().hash, head.hash.to_string());
    for record in &chain {
        let back = crate::convert::audit_record_from(record).unwrap();
        assert_eq!(&crate::convert::audit_record(&back), record);
    }
    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let ask = pb::ListAuditRequest { page_size: 3, page_token: token, ..Default::default() };
        let page = api.list(ask).await.unwrap().into_inner();
        paged.extend(page.records);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, chain);
}

#[tokio::test]
async fn the_audit_chain_can_be_read_from_its_newest_link() {
    let node = Node::start().await;
    let first = node.incident("default", "svc-0").await;
    // More than one window of the log, of which most is about something else.
    for i in 1..150 {
        node.incident("default", &format!("svc-{i}")).await;
    }
    let mut api = node.user("admin").await.services().audit();
    let whole = pb::ListAuditRequest { page_size: 1_000, ..Default::default() };
    let chain = api.list(whole).await.unwrap().into_inner().records;
    assert!(chain.len() > 150);
    let mut newest = async |ask: pb::ListAuditRequest| {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let ask = pb::ListAuditRequest { newest_first: true, page_token: token, ..ask.clone() };
            let page = api.list(ask).await.unwrap().into_inner();
            found.extend(page.records);
            token = page.next_page_token;
            if token.is_empty() {
                return found;
            }
        }
    };
    let turned = |keep: &dyn Fn(&pb::AuditRecord) -> bool| -> Vec<_> {
        chain.iter().rev().filter(|record| keep(record)).cloned().collect()
    };
    for page_size in [1, 7, 100, 1_000] {
        let ask = pb::ListAuditRequest { page_size, ..Default::default() };
        assert_eq!(newest(ask.clone()).await, turned(&|_| true), "{page_size} a page");
        let after = pb::ListAuditRequest { after_seq: 20, ..ask.clone() };
        assert_eq!(newest(after).await, turned(&|record| record.seq > 20));
        let after = pb::ListAuditRequest { after_index: chain[30].index, ..ask.clone() };
        assert_eq!(newest(after).await, turned(&|record| record.index > chain[30].index));
        let matchers = vec!["command!=\"ReportSymptom\"".to_owned()];
        let some = pb::ListAuditRequest { matchers, ..ask.clone() };
        assert_eq!(newest(some).await, turned(&|record| record.command != "ReportSymptom"));
        let one = pb::ListAuditRequest { incident: first.to_string(), ..ask };
        assert_eq!(newest(one.clone()).await, turned(&|record| record.incident == one.incident));
    }
    let wrong = pb::ListAuditRequest {
        newest_first: true,
        page_token: chain[3].index.to_string(),
        ..Default::default()
    };
    assert_eq!(api.list(wrong).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn reads_are_linearizable_unless_asked_otherwise() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().incidents();
    let ask = |consistency: Option<&'static str>| {
        let mut request = Request::new(pb::ListIncidentsRequest::default());
        if let Some(value) = consistency {
            request.metadata_mut().insert(CONSISTENCY, value.parse().unwrap());
        }
        request
    };
    for consistency in [None, Some("linearizable"), Some("stale")] {
        let answer = api.list(ask(consistency)).await.unwrap();
        assert!(answer.metadata().get(INDEX).is_some());
    }
    let bad = api.list(ask(Some("whatever"))).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_oversized_message_is_refused() {
    let node = Node::start().await;
    let mut api = node.user("operator").await.services().manifests();
    let huge = api.apply(apply(&"#".repeat(3 << 20))).await.unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange);
    // The connection goes on.
    api.list(pb::ListManifestsRequest::default()).await.unwrap();
}

#[tokio::test]
async fn reflection_and_health_answer() {
    let node = Node::start().await;
    let services = node.user("viewer").await.services();
    let mut health = tonic_health::pb::health_client::HealthClient::new(services.channel());
    let ask = tonic_health::pb::HealthCheckRequest { service: "medic.v1.Incidents".to_owned() };
    let status = health.check(ask).await.unwrap().into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);
}

#[tokio::test]
async fn a_client_turns_to_the_node_that_is_there() {
    let node = Node::start().await;
    let mut config = node.config(&crate::testing::Subject::new("viewer", "users"));
    // Bound and closed again: nobody listens there.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    config.endpoints.insert(0, gone.local_addr().unwrap().to_string());
    drop(gone);
    let client = crate::client::Client::lazy(&config).unwrap();
    let list = async |api: crate::client::Services| {
        api.incidents().list(pb::ListIncidentsRequest::default()).await
    };
    client.call(list).await.unwrap();
    assert_eq!(client.endpoint(), config.endpoints[1]);
    config.endpoints.pop();
    let nowhere = crate::client::Client::lazy(&config).unwrap().call(list).await.unwrap_err();
    assert!(nowhere.message().contains(&config.endpoints[0]), "{}", nowhere.message());
    assert_eq!(nowhere.code(), Code::Unavailable);
}
