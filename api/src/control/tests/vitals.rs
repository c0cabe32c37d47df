//! Health: whose, page by page, and what is not known.

use medic_proto::v1 as pb;
use tonic::Code;

use crate::testing::Node;

fn list(tenant: &str, matchers: &[&str]) -> pb::ListHealthRequest {
    let matchers = matchers.iter().map(|one| (*one).to_owned()).collect();
    pb::ListHealthRequest { tenant: tenant.to_owned(), matchers, ..Default::default() }
}

fn names(found: &[pb::InstanceHealth]) -> Vec<String> {
    let target = |one: &pb::InstanceHealth| one.target.clone().unwrap();
    found.iter().map(|one| format!("{}/{}", target(one).tenant, target(one).instance)).collect()
}

#[tokio::test]
async fn instances_come_by_name_page_by_page_with_their_services_and_gaps() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().health();
    let mut found = Vec::new();
    let mut ask = pb::ListHealthRequest { page_size: 3, ..list("", &[]) };
    loop {
        let page = api.list(ask.clone()).await.unwrap().into_inner();
        assert_eq!((page.gaps.len(), page.gaps[0].node.as_str()), (1, "node-3"));
        let tenants: Vec<String> =
            page.services.into_iter().map(|one| one.target.unwrap().tenant).collect();
        let expected: &[&str] = if found.is_empty() { &["default", "blue"] } else { &["default"] };
        assert_eq!(tenants, expected);
        found.extend(page.instances);
        if page.next_page_token.is_empty() {
            break;
        }
        ask.page_token = page.next_page_token;
    }
    let expected = ["blue/web-1", "blue/web-2", "default/web-1", "default/web-2"];
    assert_eq!(names(&found), expected);
}

#[tokio::test]
async fn matchers_choose_by_entity_status_and_monitor() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().health();
    for (matchers, expected) in [
        (vec!["instance=\"web-2\""], vec!["default/web-2"]),
        (vec!["status=\"degraded\"", "service=\"web\""], vec!["default/web-1"]),
        (vec!["performance=\"degraded\""], vec!["default/web-1"]),
        (vec!["application!=\"healthy\""], vec!["default/web-2"]),
        (vec!["node=\"node-9\""], vec![]),
    ] {
        let page = api.list(list("default", &matchers)).await.unwrap().into_inner();
        assert_eq!(names(&page.instances), expected, "{matchers:?}");
        assert_eq!(page.services.len(), usize::from(!expected.is_empty()));
    }
    let bad = api.list(list("", &["status"])).await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_tenants_user_sees_its_own_and_nothing_else() {
    let node = Node::start().await;
    let mut api = node.user("blue").await.services().health();
    let page = api.list(list("", &[])).await.unwrap().into_inner();
    assert_eq!(names(&page.instances), ["blue/web-1", "blue/web-2"]);
    assert_eq!(page.services.len(), 1);
    let denied = api.list(list("default", &[])).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let mut all = node.user("viewer").await.services().health();
    assert_eq!(all.list(list("green", &[])).await.unwrap_err().code(), Code::NotFound);
}
