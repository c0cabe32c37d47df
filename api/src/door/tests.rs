//! Tests of the doors: who comes in, who does not, and what they are told.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use medic_proto::v1 as pb;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Status};

use super::{Door, Limits, TlsSource};
use crate::{
    client::{Client, ClientConfig},
    testing::{CLUSTER, Node, Pki, Subject},
};

/// What a call says, through every layer that has something to say.
async fn list(config: &ClientConfig) -> Result<(), Status> {
    let mut api = Client::lazy(config).unwrap().services().incidents();
    api.list(pb::ListIncidentsRequest::default()).await.map(drop)
}

/// Whether the connection failed, and not a call on it.
fn broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn a_good_certificate_comes_in() {
    let node = Node::start().await;
    list(&node.config(&Subject::new("viewer", "users"))).await.unwrap();
}

#[tokio::test]
async fn another_authority_and_an_expired_certificate_are_refused_in_the_handshake() {
    let node = Node::start().await;
    let strange = Pki::new().issue(&Subject::new("viewer", "users"));
    let status = list(&node.config_of(&strange)).await.unwrap_err();
    assert!(broken(&status), "{}", text(&status));
    let expired = Subject { expired: true, ..Subject::new("viewer", "users") };
    let status = list(&node.config(&expired)).await.unwrap_err();
    assert!(broken(&status), "{}", text(&status));
    // The door goes on.
    list(&node.config(&Subject::new("viewer", "users"))).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_cluster_or_of_no_known_kind_is_told_so() {
    let node = Node::start().await;
    let other = Subject { cluster: "other", ..Subject::new("viewer", "users") };
    let status = list(&node.config(&other)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{}", text(&status));
    assert!(status.message().contains("cluster `other`"), "{}", status.message());
    for (name, unit) in [("viewer", "guests"), ("node-x", "nodes"), ("1", "nodes"), ("", "users")] {
        let status = list(&node.config(&Subject::new(name, unit))).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{name} {unit}: {}", text(&status));
    }
}

#[tokio::test]
async fn the_peer_port_is_for_nodes() {
    let node = Node::with(Limits::default(), Door::peer(CLUSTER)).await;
    for (name, unit) in [("root", "users"), ("host-1", "agents")] {
        let status = list(&node.config(&Subject::new(name, unit))).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("does not open the peer port"), "{}", status.message());
    }
    // A node comes in; what it may call is another question.
    let status = list(&node.config(&Subject::new("node-2", "nodes"))).await.unwrap_err();
    assert!(!status.message().contains("peer port"), "{}", status.message());
}

/// Whether the other side has closed.
async fn closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.read(&mut byte).await, Ok(0) | Err(_))
}

#[tokio::test]
async fn a_slow_handshake_is_cut_off() {
    let limits = Limits { handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let node = Node::with(limits, Door::control(CLUSTER)).await;
    let mut silent = TcpStream::connect(node.addr).await.unwrap();
    let mut noisy = TcpStream::connect(node.addr).await.unwrap();
    noisy.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(closed(&mut silent).await);
    let mut answer = Vec::new();
    // A TLS alert, then the end.
    drop(noisy.read_to_end(&mut answer).await);
    assert!(answer.len() < 64, "{answer:?}");
    list(&node.config(&Subject::new("viewer", "users"))).await.unwrap();
}

#[tokio::test]
async fn too_many_connections_are_closed_at_once_and_places_come_back() {
    let limits = Limits { connections_per_address: 2, ..Limits::default() };
    let node = Node::with(limits, Door::control(CLUSTER)).await;
    let held = [
        TcpStream::connect(node.addr).await.unwrap(),
        TcpStream::connect(node.addr).await.unwrap(),
    ];
    // The two are counted in the order they came; the third finds no place.
    let mut third = TcpStream::connect(node.addr).await.unwrap();
    assert!(closed(&mut third).await);
    drop(held);
    let config = node.config(&Subject::new("viewer", "users"));
    tokio::time::timeout(Duration::from_secs(5), async {
        while list(&config).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn silent_connections_make_room_for_those_that_speak() {
    let limits = Limits { handshakes: 2, ..Limits::default() };
    let node = Node::with(limits, Door::control(CLUSTER)).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(node.addr).await.unwrap());
    }
    // Long before the handshake time is up: the oldest made room for the newest.
    for stream in &mut silent[..6] {
        assert!(closed(stream).await);
    }
    list(&node.config(&Subject::new("viewer", "users"))).await.unwrap();
    assert!(closed(&mut silent[6]).await, "it made room for the one that spoke");
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let node = Node::start().await;
    let mut api = node.user("viewer").await.services().incidents();
    let mut request = tonic::Request::new(pb::ListIncidentsRequest::default());
    request.metadata_mut().insert("x-much", "y".repeat(64 * 1024).parse().unwrap());
    assert!(api.list(request).await.is_err());
    list(&node.config(&Subject::new("viewer", "users"))).await.unwrap();
}

#[tokio::test]
async fn a_renewed_server_certificate_serves_the_next_connection() {
    let pki = Pki::new();
    let first =
        pki.server(&pki.issue(&Subject { expired: true, ..Subject::new("node-1", "nodes") }));
    let current = Arc::new(ArcSwap::new(first));
    let source = Arc::clone(&current);
    let tls: TlsSource = Arc::new(move || source.load_full());
    let node = Node::with_tls(Limits::default(), Door::control(CLUSTER), pki, tls).await;
    let config = node.config(&Subject::new("viewer", "users"));
    assert!(list(&config).await.is_err(), "an expired server certificate was trusted");
    current.store(node.pki.server(&node.pki.issue(&Subject::new("node-1", "nodes"))));
    list(&config).await.unwrap();
}

#[tokio::test]
async fn shutdown_ends_even_an_open_watch() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let mut node = Node::with(limits, Door::control(CLUSTER)).await;
    let mut api = node.user("viewer").await.services().watch();
    let mut live = api.events(pb::EventsRequest::default()).await.unwrap().into_inner();
    drop(node.stop.take());
    tokio::time::timeout(Duration::from_secs(5), &mut node.served).await.unwrap().unwrap().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        while let Ok(Some(_)) = live.message().await {}
    });
    ended.await.unwrap();
}
