//! Nodes that are drained, as they are asked for and shown.

use medic_proto::v1 as pb;
use medic_state::{
    BootId, CLUSTER_VERSION, Command, NodeId, command::RegisterNode, rbac::Principal,
};
use tonic::Code;

use crate::testing::Node;

fn ask(node: u64, undo: bool) -> pb::DrainNodeRequest {
    pb::DrainNodeRequest { node, undo, ..Default::default() }
}

async fn shown(node: &Node) -> Vec<(u64, bool, u32)> {
    let mut api = node.user("viewer").await.services().cluster();
    let status = api.status(pb::StatusRequest {}).await.unwrap().into_inner();
    status.nodes.iter().map(|node| (node.id, node.drained, node.weight)).collect()
}

#[tokio::test]
async fn a_drain_is_noted_shown_and_taken_back() {
    let node = Node::start().await;
    let mut api = node.user("admin").await.services().cluster();
    let second = Principal::node(NodeId(2));
    let register = |weight| {
        Command::RegisterNode(RegisterNode {
            node: NodeId(2),
            region: String::new(),
            api_addr: String::new(),
            boot: BootId(2),
            version: "0".to_owned(),
            understands: Some(CLUSTER_VERSION),
            weight,
        })
    };
    node.register(CLUSTER_VERSION).await;
    node.propose(&second, register(None)).await;
    let early = api.drain_node(ask(2, false)).await.unwrap_err();
    assert_eq!(early.code(), Code::FailedPrecondition, "{early:?}");
    node.propose(&Principal::node(NodeId(1)), Command::SetClusterVersion(CLUSTER_VERSION)).await;
    node.propose(&second, register(Some(250))).await;

    api.drain_node(ask(2, false)).await.unwrap();
    assert_eq!(shown(&node).await, [(1, false, 100), (2, true, 250)]);
    let again = api.drain_node(ask(2, false)).await.unwrap().into_inner().receipt.unwrap();
    assert_eq!(again.note, "already so");
    let last = api.drain_node(ask(1, false)).await.unwrap_err();
    assert!(
        last.code() == Code::FailedPrecondition && last.message().contains("node-1"),
        "{last:?}"
    );
    api.drain_node(ask(2, true)).await.unwrap();
    assert_eq!(shown(&node).await, [(1, false, 100), (2, false, 250)]);

    for (number, code) in [(0, Code::InvalidArgument), (9, Code::NotFound)] {
        let refused = api.drain_node(ask(number, false)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    let mut operator = node.user("operator").await.services().cluster();
    let denied = operator.drain_node(ask(2, false)).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied:?}");
}
