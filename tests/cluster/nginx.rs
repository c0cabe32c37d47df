//! Real software: an nginx from the system's packages, run by an agent. Medic heals its death, its
//! hanging, and a broken configuration.

use std::{path::PathBuf, time::Duration};

use medic_chaos::harness::free_ports;
use medic_proto::v1 as pb;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::support::{World, plan, status};

fn nginx() -> PathBuf {
    ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx", "/usr/local/bin/nginx"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("nginx is installed: `make test` installs it, or install your system's package")
}

/// nginx in the foreground with all its files in one folder; answers 200 on every path.
fn configuration(folder: &std::path::Path, port: u16, status: u16) -> String {
    let folder = folder.display();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n  \
         fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n  \
         server {{ listen 127.0.0.1:{port}; location / {{ return {status} \"hello\\n\"; }} }}\n}}\n"
    )
}

fn manifest(folder: &std::path::Path, port: u16) -> String {
    format!(
        r#"---
apiVersion: medic/v1
kind: Service
metadata: {{name: web, labels: {{env: prod-test}}}}
spec:
  criticality: medium
  process:
    command: {nginx:?}
    args: ["-p", {folder:?}, "-c", "${{config}}", "-e", "{folder}/error.log"]
    stop: {{signal: SIGTERM, timeout: 2s}}
    config: {{path: "{folder}/nginx.conf", content: {content:?}}}
  probes:
    - {{name: process_alive, process: true, interval: 1s}}
    - {{name: http_ok, http: "http://127.0.0.1:${{port}}/", interval: 1s, timeout: 700ms}}
  instances: [{{name: web-1, agent: host-a, port: {port}}}]
"#,
        nginx = nginx().display().to_string(),
        folder = folder.display().to_string(),
        content = configuration(folder, port, 200),
    )
}

fn pid(folder: &std::path::Path) -> Option<Pid> {
    let text = std::fs::read_to_string(folder.join("nginx.pid")).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

async fn answers(port: u16) -> bool {
    let request = reqwest::Client::new()
        .get(format!("http://127.0.0.1:{port}/"))
        .timeout(Duration::from_millis(500));
    matches!(request.send().await, Ok(response) if response.status().is_success())
}

async fn healed(
    world: &World,
    port: u16,
    class: &str,
    known: &mut Vec<String>,
) -> pb::ExplainIncidentResponse {
    let seen = world
        .incident_when("web", &format!("healed of {class}"), |seen| {
            let fresh =
                seen.incident.as_ref().is_some_and(|incident| !known.contains(&incident.id));
            fresh && status(seen) == pb::IncidentStatus::Resolved && !seen.remediations.is_empty()
        })
        .await;
    let incident = seen.incident.clone().unwrap();
    assert_eq!(plan(&seen).status(), pb::RemediationStatus::Succeeded, "{seen:#?}");
    assert_eq!(incident.decision.as_ref().unwrap().class, class);
    assert!(!incident.manual, "no human took part");
    assert!(answers(port).await, "nginx answers again");
    known.push(incident.id);
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_nginx_is_healed_of_death_hanging_and_a_broken_configuration() {
    let mut world = World::start().await;
    let folder = world.dir.path().join("web");
    std::fs::create_dir_all(&folder).unwrap();
    let port = free_ports(1).unwrap()[0];
    world.apply(&manifest(&folder, port)).await;
    world.apply(&medic_node::intelligence::builtin::manifests()).await;
    world.until("nginx answers", || answers(port)).await;
    let mut known = Vec::new();

    kill(pid(&folder).unwrap(), Signal::SIGKILL).unwrap();
    healed(&world, port, "application/crash", &mut known).await;

    kill(pid(&folder).unwrap(), Signal::SIGSTOP).unwrap();
    healed(&world, port, "application/hang", &mut known).await;

    // Somebody rolls out a configuration that answers 503 to everyone, and restarts nginx with it.
    let good = super::support::read(&folder.join("nginx.conf"));
    std::fs::write(folder.join("nginx.conf"), configuration(&folder, port, 503)).unwrap();
    kill(pid(&folder).unwrap(), Signal::SIGHUP).unwrap();
    healed(&world, port, "configuration/bad-rollout", &mut known).await;
    assert_eq!(
        super::support::read(&folder.join("nginx.conf")),
        good,
        "the good configuration is back"
    );
    world.cluster.stop().await.unwrap();
}
