//! Every command that can be typed, at a real cluster: what it says, what it changes, how it ends.
//! What more is to be said of approving, watching and members is in `operator`.

use std::path::PathBuf;

use medic_chaos::harness::{kill_services_below, processes_with};
use medic_proto::v1 as pb;
use serde_json::Value;

use super::{
    support::{OPEN_GROUND, World, status},
    typed::medic,
};

/// Who may look.
const VIEWER: &str = r#"---
apiVersion: medic/v1
kind: RoleBinding
metadata: {name: viewer}
spec: {role: viewer, subjects: [{user: viewer}]}
"#;

/// Restarts the instance an alert names.
fn playbook(service: &str, mode: &str, hold: &str) -> String {
    format!(
        r#"---
apiVersion: medic/v1
kind: Playbook
metadata: {{name: restart-{service}}}
spec:
  mode: {mode}
  match: ['alertname="Trouble"', 'service="{service}"']
  scope: {{maxUnavailable: 100%}}
  steps: [{{name: restart, action: process.restart, timeout: 10s, undo: {{action: process.restart}}}}]
  verify: {{expect: 'probe.process_alive == 1.0', hold: {hold}, timeout: 30s}}
"#
    )
}

fn file(world: &World, name: &str, text: &str) -> String {
    let path: PathBuf = world.dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// `medic validate | schema | completion | version | context`.
async fn without_a_cluster(world: &World) {
    let good = file(world, "good.yaml", &format!("{OPEN_GROUND}{VIEWER}"));
    let said = medic(world, "admin", &["validate", "-f", &good]).await.ok();
    assert!(said.out.contains("3 manifests are good"), "{said:#?}");
    let misspelt = playbook("web", "auto", "0s").replace("mode: auto", "mood: auto");
    let bad = file(world, "bad.yaml", &misspelt);
    let said = medic(world, "admin", &["validate", "-f", &good, "-f", &bad]).await;
    assert_eq!(said.code, 1, "{said:#?}");
    let place = format!("{bad}:6:3: ");
    assert!(said.out.contains(&place) && said.out.contains("mode"), "placed at {place}: {said:#?}");
    let said = medic(world, "admin", &["validate", "-f", &bad, "-o", "json"]).await;
    let problems: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&problems[0]["line"], &problems[0]["column"]), (&6.into(), &3.into()));
    medic(world, "admin", &["validate", "-f", "/nonexistent.yaml"])
        .await
        .failed(2, "/nonexistent.yaml");

    let schema = medic(world, "admin", &["schema"]).await.json().to_string();
    for kind in ["Service", "Playbook", "Policy", "Silence", "MaintenanceWindow", "Channel"] {
        assert!(schema.contains(&format!("\"{kind}\"")), "the schema knows no {kind}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = medic(world, "admin", &["completion", shell]).await.ok().out;
        assert!(script.contains("explain") && script.contains("unfreeze"), "{shell}");
    }
    let version = medic(world, "admin", &["version", "-o", "json"]).await.json();
    assert_eq!(version["manifests"], "medic/v1");

    let listed = medic(world, "admin", &["context", "list", "-o", "json"]).await.json();
    assert!(listed["viewer"].is_object(), "{listed}");
    let copy = world.cluster.dir().join("other.toml").display().to_string();
    std::fs::copy(world.cluster.dir().join("medic.toml"), &copy).unwrap();
    medic(world, "admin", &["context", "use", "viewer", "--config", &copy]).await.ok();
    let table = medic(world, "admin", &["context", "list", "--config", &copy]).await.ok().out;
    let current = table.lines().find(|line| line.trim_start().starts_with('*')).unwrap();
    assert!(current.contains("viewer"), "{table}");
    medic(world, "admin", &["context", "use", "nobody", "--config", &copy])
        .await
        .failed(2, "nobody");
}

/// `medic apply | get | describe | delete` of manifests.
async fn manifests(world: &World) {
    let path = file(world, "web.yaml", &playbook("web", "shadow", "0s"));
    medic(world, "viewer", &["apply", "-f", &path]).await.refused("viewer");
    let said = medic(world, "admin", &["apply", "-f", &path, "--dry-run"]).await.ok();
    assert!(said.out.contains("restart-web (tenant default) would be created"), "{said:#?}");
    let missing = ["describe", "playbook", "restart-web"];
    medic(world, "admin", &missing).await.failed(1, "there is no");

    medic(world, "admin", &["apply", "-f", &path]).await.ok();
    let shown = medic(world, "viewer", &[&missing[..], &["-o", "json"]].concat()).await.json();
    assert!(shown.to_string().contains("shadow"), "{shown}");
    std::fs::write(&path, playbook("web", "approve", "0s")).unwrap();
    let said = medic(world, "admin", &["apply", "-f", &path, "--dry-run"]).await.ok();
    let lines: Vec<&str> = said.out.lines().map(str::trim).collect();
    assert!(
        lines.contains(&"-   mode: shadow") && lines.contains(&"+   mode: approve"),
        "{said:#?}"
    );
    let shown = medic(world, "viewer", &[&missing[..], &["-o", "json"]].concat()).await.json();
    assert!(shown.to_string().contains("shadow"), "a dry run changes nothing: {shown}");
    medic(world, "admin", &["apply", "-f", &path]).await.ok();
    let again = medic(world, "admin", &["apply", "-f", &path]).await.ok();
    assert!(again.out.contains("unchanged"), "{again:#?}");

    medic(world, "viewer", &["delete", "playbook", "restart-web"]).await.refused("viewer");
    medic(world, "admin", &["delete", "playbook", "restart-web"]).await.ok();
    medic(world, "admin", &missing).await.failed(1, "there is no");
}

/// `medic get` of everything, as a table, as JSON and as YAML.
async fn lists(world: &World) {
    let all = [
        "incidents",
        "decisions",
        "remediations",
        "approvals",
        "freezes",
        "nodes",
        "agents",
        "shards",
    ];
    let manifests =
        ["manifests", "services", "playbooks", "policies", "roles", "rolebindings", "sources"];
    for what in all.into_iter().chain(manifests) {
        medic(world, "admin", &["get", what]).await.ok();
        let json = medic(world, "admin", &["get", what, "-o", "json"]).await.json();
        assert!(json.is_array(), "{what}: {json}");
        let yaml = medic(world, "admin", &["get", what, "-o", "yaml"]).await.ok().out;
        let empty = json.as_array().unwrap().is_empty();
        if !manifests.contains(&what) {
            assert_eq!(yaml.trim_start().starts_with('-'), !empty, "{what}: {yaml}");
        } else if !empty {
            // What is shown can be kept, and put back.
            let kept = file(world, &format!("{what}.yaml"), &yaml);
            let said = medic(world, "admin", &["validate", "-f", &kept]).await.ok().out;
            assert!(said.contains("good"), "{what}: {said}");
        }
    }
    let two = medic(world, "admin", &["get", "shards", "--limit", "2", "-o", "json"]).await.json();
    assert_eq!(two.as_array().unwrap().len(), 2);
    let only = ["get", "services", "-l", "name=\"careful\"", "-o", "json"];
    assert_eq!(medic(world, "admin", &only).await.json().as_array().unwrap().len(), 1);
    medic(world, "admin", &["get", "unicorns"]).await.failed(2, "unicorns");
    medic(world, "admin", &["get", "incidents", "-l", "=nothing"]).await.failed(2, "matcher");
}

/// Waits until the incident of a service has a status; gives its id.
async fn incident(world: &World, service: &str, wanted: pb::IncidentStatus) -> String {
    let seen =
        world.incident_when(service, wanted.as_str_name(), |seen| status(seen) == wanted).await;
    seen.incident.unwrap().id
}

/// Without the breaks and margins of a page.
fn flat(page: &str) -> String {
    page.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `medic ack | note | cancel | reopen | reject | resolve`, and what `explain` and `describe` then say.
async fn people(world: &World) {
    use pb::IncidentStatus::{AwaitingApproval, Escalated, Resolved};
    world.alert("Trouble", "careful", "careful-1").await;
    let id = incident(world, "careful", AwaitingApproval).await;
    let page = medic(world, "viewer", &["explain", &id]).await.ok().out;
    // What asks for people is said before the scores.
    let so = "ask for approval (recommend_with_approval): playbook restart-careful acts only after";
    assert!(flat(&page).contains(so), "{page}");

    for refused in ["ack", "cancel", "resolve", "reopen"] {
        medic(world, "viewer", &[refused, &id]).await.refused("viewer");
    }
    medic(world, "admin", &["ack", &id, "-m", "looking"]).await.ok();
    medic(world, "admin", &["note", &id]).await.failed(2, "-m");
    medic(world, "admin", &["note", &id, "-m", "the disk was swapped"]).await.ok();
    let page = medic(world, "viewer", &["explain", &id]).await.ok().out;
    for said in ["admin is on it", "the disk was swapped"] {
        assert!(flat(&page).contains(said), "no `{said}`: {page}");
    }
    medic(world, "admin", &["reopen", &id]).await.refused("");

    medic(world, "admin", &["cancel", &id, "-m", "not now"]).await.ok();
    incident(world, "careful", Escalated).await;
    medic(world, "admin", &["cancel", &id]).await.refused("");
    medic(world, "admin", &["reopen", &id]).await.ok();
    assert_eq!(incident(world, "careful", AwaitingApproval).await, id);
    medic(world, "viewer", &["reject", &id, "--reason", "no"]).await.refused("viewer");
    medic(world, "admin", &["reject", &id, "--reason", "too dear"]).await.ok();
    incident(world, "careful", Escalated).await;
    let page = medic(world, "viewer", &["explain", &id]).await.ok().out;
    assert!(page.contains("too dear"), "{page}");
    medic(world, "admin", &["resolve", &id, "-m", "by hand"]).await.ok();
    incident(world, "careful", Resolved).await;
    let shown = medic(world, "viewer", &["describe", &id, "-o", "json"]).await.json();
    assert!(shown.to_string().contains("by hand"), "{shown}");
    medic(world, "viewer", &["explain", "INC-999999"]).await.failed(1, "INC-999999");
    medic(world, "viewer", &["explain", "nonsense"]).await.failed(2, "nonsense");
}

/// `medic freeze` and `medic unfreeze` of every scope.
async fn freezes(world: &World) {
    let scopes: [(&[&str], &str); 6] = [
        (&["all"], "everything"),
        (&["tenant", "default"], "tenant default"),
        (&["region", "eu"], "region eu"),
        (&["service", "careful"], "service careful (tenant default)"),
        (&["playbook", "restart-careful"], "playbook restart-careful (tenant default)"),
        (&["target", "careful/careful-1"], "target careful/careful-1"),
    ];
    for (scope, words) in scopes {
        let freeze = [&["freeze"][..], scope, &["--reason", "a drill", "--for", "1h"]].concat();
        let unfreeze = [&["unfreeze"][..], scope].concat();
        medic(world, "viewer", &freeze).await.refused("viewer");
        let said = medic(world, "admin", &freeze).await.ok().out;
        assert!(said.contains(words), "{said}");
        let list = medic(world, "viewer", &["get", "freezes"]).await.ok().out;
        assert!(list.contains("a drill"), "{words}: {list}");
        medic(world, "viewer", &unfreeze).await.refused("viewer");
        medic(world, "admin", &unfreeze).await.ok();
        medic(world, "admin", &unfreeze).await.failed(1, &format!("there is no freeze of {words}"));
        let list = medic(world, "viewer", &["get", "freezes", "-o", "json"]).await.json();
        assert_eq!(list, Value::Array(Vec::new()), "{words}");
    }
    medic(world, "admin", &["freeze", "all"]).await.failed(2, "--reason");
    medic(world, "admin", &["unfreeze", "target", "careful"]).await.failed(2, "service/instance");
}

/// `medic audit list | export | verify`; and one trace id from the symptom to the verdict.
async fn audit(world: &World, healed: &str) {
    let list = ["audit", "list", "--incident", healed, "-o", "json"];
    let newest = medic(world, "admin", &list).await.json();
    let oldest = medic(world, "admin", &[&list[..], &["--oldest-first"]].concat()).await.json();
    let (newest, oldest) = (newest.as_array().unwrap(), oldest.as_array().unwrap());
    assert!(newest.iter().eq(oldest.iter().rev()), "{newest:#?}");
    let of = |command: &str| {
        let link = oldest.iter().find(|link| link["command"] == command);
        link.unwrap_or_else(|| panic!("no {command} in {oldest:#?}"))["traceId"].clone()
    };
    let trace = of("ReportSymptom");
    assert_eq!(trace.as_str().unwrap().len(), 32);
    for command in ["AdoptDecision", "StartStep", "FinishStep", "RecordVerdict"] {
        assert_eq!(of(command), trace, "{command} is under another trace");
    }
    let story = world.explain(healed).await.unwrap();
    assert_eq!(story.incident.unwrap().trace_id, trace.as_str().unwrap());
    let logs = ["node-1", "node-2", "node-3", "agent-host-a"].map(|name| world.log(name)).concat();
    for word in ["reported", "decided", "acting", "outcome", "verdict"] {
        let said = |line: &str| line.contains(word) && line.contains(trace.as_str().unwrap());
        assert!(logs.lines().any(said), "no log line of `{word}` names the trace {trace}");
    }

    let whole =
        medic(world, "admin", &["audit", "list", "--limit", "3", "-o", "json"]).await.json();
    let seq = |n: usize| whole[n]["seq"].as_u64().unwrap();
    assert!(seq(0) > seq(1) && seq(1) > seq(2), "{whole:#}");
    let after = (seq(2) - 1).to_string();
    let after = ["audit", "list", "--limit", "3", "--after", &after, "-o", "json"];
    let after = medic(world, "admin", &after).await.json();
    assert_eq!(after[0], whole[2], "from there on, oldest first");

    medic(world, "viewer", &["audit", "export"]).await.refused("viewer");
    let export = medic(world, "admin", &["audit", "export"]).await.ok().out;
    let path = file(world, "audit.jsonl", &export);
    let said = medic(world, "viewer", &["audit", "verify", "--file", &path]).await.ok().out;
    assert!(said.contains("the chain holds") && said.contains("from the first one on"), "{said}");
    let forged = export.replacen("\"ok", "\"no", 1);
    assert_ne!(forged, export);
    let path = file(world, "forged.jsonl", &forged);
    medic(world, "viewer", &["audit", "verify", "--file", &path]).await.failed(1, "broken");
}

/// What monitoring sees: the same totals on every node, under the names that dashboards rely on.
async fn metrics(world: &World) {
    let mut seen = Vec::new();
    for node in 1..=3 {
        let port = world.cluster.ports(node).unwrap().http;
        for path in ["healthz", "readyz"] {
            let url = format!("http://127.0.0.1:{port}/{path}");
            assert!(reqwest::get(url).await.unwrap().status().is_success(), "{path} of {node}");
        }
        let url = format!("http://127.0.0.1:{port}/metrics");
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("node {node} has no {name}")).parse::<u64>().unwrap()
        };
        seen.push([
            value("incidents_total"),
            value("incidents_detected_total"),
            value("remediations_attempted_total"),
            value("remediations_successful_total"),
            value("manual_interventions_total"),
        ]);
    }
    // Two alerts: one incident was healed alone, the other ended by hand.
    assert_eq!(seen, [[2, 2, 1, 1, 1]; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_does_what_it_says() {
    let world = World::start().await;
    world.apply(OPEN_GROUND).await;
    world.apply(VIEWER).await;
    for (service, mode) in [("careful", "approve"), ("quick", "auto")] {
        let sample = world.sample(service, 1);
        world.apply(&sample.manifest).await;
        world.apply(&playbook(service, mode, "0s")).await;
        world.up(&sample).await;
    }
    without_a_cluster(&world).await;
    manifests(&world).await;
    freezes(&world).await;
    people(&world).await;
    world.alert("Trouble", "quick", "quick-1").await;
    let healed = incident(&world, "quick", pb::IncidentStatus::Resolved).await;
    let plans = medic(&world, "viewer", &["get", "remediations", "-o", "json"]).await.json();
    let plan = plans.as_array().unwrap().iter().find(|plan| plan["incident"] == healed.as_str());
    let plan = plan.unwrap()["id"].as_str().unwrap().to_owned();
    let page = medic(&world, "viewer", &["describe", &plan]).await.ok().out;
    assert!(page.contains("restart-quick"), "{page}");
    lists(&world).await;
    audit(&world, &healed).await;
    world.agree().await;
    metrics(&world).await;
    ended(world).await;
}

/// Services outlive their agents; whoever raised a cluster to play with can end what was applied to it,
/// whatever its command line says.
async fn ended(mut world: World) {
    let seconds = format!("98765.{}", std::process::id());
    let sleeper = format!(
        r#"---
apiVersion: medic/v1
kind: Service
metadata: {{name: sleeper}}
spec:
  process: {{command: /bin/sleep, args: ["{seconds}"]}}
  probes: [{{name: process_alive, process: true, interval: 1s}}]
  instances: [{{name: sleeper-1, agent: host-a}}]
"#
    );
    world.apply(&sleeper).await;
    let running = || processes_with(&seconds).len();
    world.until("it sleeps", || async { running() == 1 }).await;
    world.cluster.stop().await.unwrap();
    assert_eq!(running(), 1, "it outlives its agent");
    kill_services_below(world.dir.path());
    world.until("it has ended", || async { running() == 0 }).await;
}
