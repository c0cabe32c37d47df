//! Watches: they begin, resume and end where they should.

use std::time::Duration;

use medic_proto::v1::{self as pb, events_response::Kind, watch_server::Watch as _};
use medic_raft::{Ledger as _, LedgerExt as _};
use medic_state::{
    Command, Timestamp,
    manifest::{Kind as ManifestKind, ManifestKey},
    rbac::{Permission, Principal},
};
use tonic::{Code, Streaming};

use crate::{
    control::{Control, Views, access::Grant, watch::WATCHES_MAX},
    testing::Node,
};

async fn event(stream: &mut Streaming<pb::EventsResponse>) -> pb::Event {
    loop {
        match stream.message().await.unwrap().unwrap().kind.unwrap() {
            Kind::Event(event) => return event,
            Kind::Bookmark(_) => {}
        }
    }
}

#[tokio::test]
async fn a_watch_sees_what_happens_and_resumes_without_a_gap() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().watch();
    let ask = pb::EventsRequest {
        commands: vec!["ReportSymptom".to_owned()],
        with_incident: true,
        ..Default::default()
    };
    let mut live = api.events(ask.clone()).await.unwrap().into_inner();
    let first = node.incident("default", "one").await;
    let seen = event(&mut live).await;
    assert_eq!((seen.command.as_str(), seen.incident.as_str()), ("ReportSymptom", &*first));
    assert!(seen.outcome.starts_with("ok"), "{}", seen.outcome);
    assert_eq!(seen.incident_now.unwrap().id, first);
    drop(live);
    let second = node.incident("default", "two").await;
    let third = node.incident("default", "three").await;
    let resume = pb::EventsRequest { after_index: Some(seen.index), ..ask };
    let mut live = api.events(resume).await.unwrap().into_inner();
    let ids = [event(&mut live).await, event(&mut live).await].map(|one| one.subject);
    assert!(ids[0].contains("two") && ids[1].contains("three"), "{ids:?}");
    assert!(first < second && second < third);
    let ahead = pb::EventsRequest { after_index: Some(1 << 40), ..Default::default() };
    assert_eq!(api.events(ahead).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_watch_shows_its_own_tenants_alone() {
    let node = Node::start().await;
    let mut api = node.user("blue").await.services().watch();
    let ask = pb::EventsRequest { after_index: Some(0), ..Default::default() };
    let mut live = api.events(ask).await.unwrap().into_inner();
    node.incident("default", "web").await;
    node.incident("blue", "shop").await;
    loop {
        let seen = event(&mut live).await;
        assert_eq!(seen.tenant, "blue");
        if seen.command == "ReportSymptom" {
            break;
        }
    }
}

/// Takes the only role of `blue` away.
async fn take_the_role_away(node: &Node) {
    let key = ManifestKey {
        kind: ManifestKind::RoleBinding,
        tenant: "blue".to_owned(),
        name: "blue".to_owned(),
    };
    let delete = Command::DeleteManifest(key);
    let entry = node.ledger.entry_for(Principal::user("root"), None, delete);
    node.ledger.propose(entry).await.unwrap().answer.unwrap();
}

/// How a stream ends; it must not go on for long.
async fn end_of(live: &mut Streaming<pb::EventsResponse>) -> Code {
    let ended = async {
        loop {
            match live.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break status.code(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap()
}

#[tokio::test]
async fn a_watch_ends_when_the_role_is_taken_away() {
    let node = Node::start().await;
    let mut api = node.user("blue").await.services().watch();
    let ask = pb::EventsRequest { tenant: "blue".to_owned(), ..Default::default() };
    let mut live = api.events(ask).await.unwrap().into_inner();
    node.incident("blue", "shop").await;
    event(&mut live).await;
    take_the_role_away(&node).await;
    assert_eq!(end_of(&mut live).await, Code::PermissionDenied);
}

#[tokio::test]
async fn a_watch_that_waits_for_something_else_ends_with_the_role_too() {
    let node = Node::start().await;
    let mut api = node.user("blue").await.services().watch();
    let mut watches = Vec::new();
    for tenant in ["", "blue"] {
        let ask = pb::EventsRequest {
            tenant: tenant.to_owned(),
            commands: vec!["Approve".to_owned()],
            ..Default::default()
        };
        watches.push(api.events(ask).await.unwrap().into_inner());
    }
    take_the_role_away(&node).await;
    for live in &mut watches {
        assert_eq!(end_of(live).await, Code::PermissionDenied);
    }
}

#[tokio::test]
async fn watches_are_bounded_and_their_places_come_back() {
    let node = Node::start().await;
    let control = Control::new(node.ledger.clone(), node.admin.clone(), Views::default());
    let permissions: &[Permission] = &[Permission::Read];
    let grant =
        Grant { principal: Principal::user("viewer"), permissions, not_after: Timestamp(u64::MAX) };
    let open = async || {
        let mut request = tonic::Request::new(pb::EventsRequest::default());
        request.extensions_mut().insert(grant.clone());
        control.events(request).await
    };
    let mut held = Vec::new();
    for _ in 0..WATCHES_MAX {
        held.push(open().await.unwrap());
    }
    let full = open().await.err().unwrap();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full}");
    held.pop();
    tokio::time::timeout(Duration::from_secs(5), async {
        while open().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stream_goes_on_only_while_its_right_and_its_certificate_do() {
    let node = Node::start().await;
    let control = Control::new(node.ledger.clone(), node.admin.clone(), Views::default());
    let permissions: &[Permission] = &[Permission::Read];
    let grant =
        Grant { principal: Principal::user("blue"), permissions, not_after: Timestamp(u64::MAX) };
    let code = |grant: &Grant, tenant| control.still(grant, tenant).map_err(|status| status.code());
    assert_eq!(code(&grant, Some("blue")), Ok(()));
    assert_eq!(code(&grant, None), Ok(()));
    assert_eq!(code(&grant, Some("")), Err(Code::PermissionDenied));
    let over = Grant { not_after: node.ledger.env().clock.now(), ..grant.clone() };
    assert_eq!(code(&over, Some("blue")), Err(Code::Unauthenticated));
    take_the_role_away(&node).await;
    assert_eq!(code(&grant, Some("blue")), Err(Code::PermissionDenied));
    assert_eq!(code(&grant, None), Err(Code::PermissionDenied));
}
