//! An opaque step whose leader dies between act and outcome: nobody can tell whether it happened.
//! It ends `Unknown`, its target frozen, the incident with a human, and it is never sent again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use medic_proto::v1 as pb;
use tokio::{io::AsyncReadExt as _, io::AsyncWriteExt as _, net::TcpListener};

use super::support::{World, plan, status};

/// External automation that counts its calls.
async fn automation() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                if matches!(socket.read(&mut request).await, Ok(n) if n > 0) {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let reply =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    drop(socket.write_all(reply).await);
                }
            });
        }
    });
    (port, calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opaque_step_cut_off_between_act_and_outcome_ends_unknown_and_frozen() {
    let mut world = World::start().await;
    let (port, calls) = automation().await;
    let sample = world.sample("outside", 1);
    world.apply(&sample.manifest).await;
    world
        .apply(&format!(
            r#"---
apiVersion: medic/v1
kind: Source
metadata: {{name: alertmanager}}
spec: {{type: alertmanager}}
---
apiVersion: medic/v1
kind: Policy
metadata: {{name: default}}
spec: {{autoExecute: {{confidence: 0.0, risk: 1.0}}, maxBlastRadius: 100%, autoResolveAfter: 1h}}
---
apiVersion: medic/v1
kind: Playbook
metadata: {{name: call-outside}}
spec:
  mode: auto
  match: ['alertname="Trouble"']
  scope: {{maxUnavailable: 100%, maxAttempts: 1}}
  steps: [{{name: call, action: webhook.call, params: {{url: "http://127.0.0.1:{port}/run"}}, timeout: 2s}}]
  verify: {{expect: 'probe.process_alive == 1.0', hold: 0s, timeout: 5s}}
"#
        ))
        .await;
    world.up(&sample).await;
    std::fs::write(&world.failpoints, "driver_after_act_0\n").unwrap();
    world.alert("Trouble", "outside", "outside-1").await;
    let seen = world
        .incident_when("outside", "escalated with an unknown outcome", |seen| {
            status(seen) == pb::IncidentStatus::Escalated
                && seen
                    .remediations
                    .last()
                    .is_some_and(|p| p.status() == pb::RemediationStatus::Unknown)
        })
        .await;
    assert_eq!(plan(&seen).steps[0].status(), pb::StepStatus::Unknown);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "never blindly twice");
    let mut client = world.cluster.client("admin").await.unwrap();
    let freezes = client
        .safety()
        .list_freezes(pb::ListFreezesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .freezes;
    let frozen = freezes.iter().any(|freeze| freeze.description.contains("outside-1"));
    assert!(frozen, "the target is frozen: {freezes:?}");
    world.revive();
    world.agree().await;
    world.cluster.stop().await.unwrap();
}
