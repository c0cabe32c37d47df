//! Alerts as symptoms, over the real law.
#![allow(clippy::unwrap_used)]

mod ends;
mod identity;

use medic_state::symptom::{MAX_SIGNALS, Signal};

use super::*;

fn alert(name: &str, firing: bool, severity: &str) -> IncomingAlert {
    let pairs = [("alertname", name), ("severity", severity), ("service", "web")];
    IncomingAlert {
        firing,
        labels: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        annotations: BTreeMap::from([("summary".to_owned(), format!("{name} is on"))]),
        starts_at: Timestamp(500),
        ..IncomingAlert::default()
    }
}

fn target() -> Target {
    Target { tenant: "default".to_owned(), service: "web".to_owned(), instance: "web-1".to_owned() }
}

fn step(standing: Option<&Symptom>, alerts: &[IncomingAlert]) -> Step {
    let alerts: Vec<&IncomingAlert> = alerts.iter().collect();
    merge(standing, &target(), "main", &alerts, Timestamp(1_000))
}

fn report(step: Step) -> Symptom {
    match step {
        Step::Report(symptom) => *symptom,
        other => panic!("a report was expected, not {other:?}"),
    }
}

#[test]
fn alerts_of_one_target_are_one_symptom_until_the_last_is_resolved() {
    let first = report(step(None, &[alert("Slow", true, "warning")]));
    assert_eq!(first.summary, "alert Slow fires: Slow is on");
    assert_eq!((first.severity, first.since), (Severity::Warning, Timestamp(500)));
    assert_eq!((first.kind.as_str(), first.source.as_str()), ("alert", "alertmanager/main"));
    let both = report(step(Some(&first), &[alert("Burning", true, "critical")]));
    assert_eq!(both.severity, Severity::Critical);
    assert_eq!(both.summary, "alerts Burning, Slow fire");
    assert_eq!(both.fingerprint(), first.fingerprint());
    let again = step(Some(&both), &[alert("Burning", true, "critical")]);
    assert_eq!(again, Step::Nothing, "repeating changes nothing");
    let one = report(step(Some(&both), &[alert("Burning", false, "critical")]));
    assert_eq!((one.severity, one.signals.len()), (Severity::Warning, 1));
    assert_eq!(step(Some(&one), &[alert("Slow", false, "warning")]), Step::Clear(target()));
    assert_eq!(step(None, &[alert("Slow", false, "warning")]), Step::Nothing);
}

#[test]
fn symptoms_stay_small_whatever_is_sent() {
    let many: Vec<IncomingAlert> = (0..500)
        .map(|i| IncomingAlert {
            annotations: BTreeMap::from([("summary".to_owned(), "\u{e9}".repeat(10_000))]),
            ..alert(&format!("A{i}"), true, "info")
        })
        .collect();
    let symptom = report(step(None, &many));
    assert_eq!(symptom.signals.len(), MAX_SIGNALS);
    assert!(medic_state::codec::encode(&symptom).len() < 16 * 1024);
}

fn sender(token: Option<&str>, vouched: bool) -> Sender {
    let token = token.map(|token| medic_state::Digest::of(&[token.as_bytes()]).to_string());
    Sender { tenant: "default".to_owned(), token, vouched }
}

/// A source's spec, and one declared service.
fn declared(source: &serde_json::Value) -> State {
    use medic_state::manifest::{Manifest, Stored};
    let mut state = State::new();
    for (kind, name, spec) in [
        ("Source", "team", source.clone()),
        ("Service", "web", serde_json::json!({"instances": [{"name": "web-1", "port": 80}]})),
    ] {
        let manifest = Manifest {
            metadata: serde_json::from_value(serde_json::json!({"name": name})).unwrap(),
            spec: serde_json::from_value(serde_json::json!({"kind": kind, "spec": spec})).unwrap(),
        };
        let stored = Stored {
            digest: manifest.digest(),
            manifest: Arc::new(manifest),
            index: 1,
            by: "user:test".to_owned(),
            at: Timestamp(0),
        };
        state.manifests.insert(stored.manifest.key(), stored);
    }
    state
}

fn door_over(state: State) -> Alerts {
    use medic_raft::{LocalLedger, env::Env};
    let law = LocalLedger::new(medic_state::NodeId(1), medic_state::BootId(1), Env::system());
    *law.state().write().unwrap() = state;
    Alerts::new(law.clone(), Hub::new(law))
}

#[tokio::test]
async fn a_source_is_spoken_for_by_its_token_alone_and_of_what_it_matches() {
    let secret = medic_state::Digest::of(&[b"secret"]).to_string();
    let guarded = declared(&serde_json::json!({
        "type": "alertmanager", "tokenSha256": secret, "match": ["team=\"blue\""],
    }));
    let alerts = door_over(guarded);
    for stranger in [sender(None, true), sender(Some("guess"), true), sender(None, false)] {
        assert!(matches!(alerts.admit(&stranger), Err(AlertRefusal::Denied(_))), "{stranger:?}");
        let taken = alerts.take(&stranger, vec![alert("Slow", true, "critical")]).await;
        assert!(matches!(taken, Err(AlertRefusal::Denied(_))), "{taken:?}");
    }
    // Its token is enough where the door has one of its own.
    let team = sender(Some("secret"), false);
    assert_eq!(alerts.admit(&team), Ok(()));
    let red = alert("Slow", true, "critical");
    let taken = alerts.receive(&team, std::slice::from_ref(&red)).await.unwrap();
    assert_eq!((taken.reported, taken.foreign.len(), taken.unmapped.len()), (0, 1, 0));
    assert!(taken.foreign[0].contains("no Source that this sender may speak for"));
    // What it matches is found; who stands behind a wall is not vouched for.
    let mut blue = red;
    blue.labels.insert("team".to_owned(), "blue".to_owned());
    let (mapper, allowed) = alerts.ledger.read(|state| Alerts::allowed(state, &team)).unwrap();
    let found =
        alerts.ledger.read(|state| find_target(state, "default", &mapper, allowed, &blue).unwrap());
    assert_eq!((found.0.service.as_str(), found.1.as_str()), ("web", "team"));
    let open = door_over(declared(&serde_json::json!({"type": "alertmanager"})));
    assert!(matches!(open.admit(&sender(None, false)), Err(AlertRefusal::Denied(_))));
    assert_eq!(open.admit(&sender(None, true)), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_tenants_alerts_are_bounded_by_its_quota() {
    let alerts = door_over(declared(&serde_json::json!({"type": "alertmanager"})));
    let anyone = sender(None, true);
    let stranger = IncomingAlert::default();
    // A burst of five seconds at 200 a second, and one call that overdraws.
    for _ in 0..2 {
        let taken = alerts.take(&anyone, vec![stranger.clone(); 600]).await.unwrap();
        assert_eq!((taken.len(), taken.last().unwrap().as_str()), (21, "and 580 more"));
    }
    assert!(matches!(alerts.admit(&anyone), Err(AlertRefusal::Slow(_, 1))));
    let slow = alerts.take(&anyone, vec![stranger.clone()]).await;
    assert!(matches!(slow, Err(AlertRefusal::Slow(_, 1))), "{slow:?}");
    tokio::time::advance(std::time::Duration::from_millis(1_100)).await;
    assert_eq!(alerts.take(&anyone, vec![stranger]).await.unwrap().len(), 1);
}

/// A law with two nodes, of which the other owns every shard, and a service.
async fn law(env: medic_raft::env::Env) -> Arc<medic_raft::LocalLedger> {
    use medic_raft::LocalLedger;
    use medic_state::{
        BootId, Entry, NodeId, ShardId, TraceId,
        command::{ApplyManifest, AssignShards, RegisterNode},
        manifest::Manifest,
        rbac::Principal,
    };
    let law = LocalLedger::new(NodeId(1), BootId(1), env);
    let must = async |entry: Entry| {
        law.propose(entry).await.unwrap().answer.unwrap_or_else(|refusal| panic!("{refusal}"));
    };
    for node in [NodeId(1), NodeId(2)] {
        let register = RegisterNode {
            node,
            region: String::new(),
            api_addr: "127.0.0.1:1".to_owned(),
            boot: BootId(1),
            version: "test".to_owned(),
            understands: Some(medic_state::CLUSTER_VERSION),
            weight: None,
        };
        let entry = law.entry(TraceId::default(), Command::RegisterNode(register));
        must(Entry { principal: Principal::node(node), ..entry }).await;
    }
    let moves = (0..medic_state::state::SHARDS).map(|shard| (ShardId(shard), NodeId(2))).collect();
    must(law.entry(TraceId::default(), Command::AssignShards(AssignShards { moves }))).await;
    for (by, manifest) in [
        (
            Principal::node(NodeId(1)),
            serde_json::json!({"metadata": {"name": "admins", "tenant": "*"}, "spec": {
                "kind": "RoleBinding", "spec": {"role": "admin", "subjects": [{"user": "root"}]}}}),
        ),
        (
            Principal::user("root"),
            serde_json::json!({"metadata": {"name": "web"}, "spec": {
                "kind": "Service", "spec": {"instances": [{"name": "web-1", "port": 80}]}}}),
        ),
        (
            Principal::user("root"),
            serde_json::json!({"metadata": {"name": "main"}, "spec": {
                "kind": "Source", "spec": {"type": "alertmanager"}}}),
        ),
    ] {
        let manifest = Manifest {
            metadata: serde_json::from_value(manifest["metadata"].clone()).unwrap(),
            spec: serde_json::from_value(manifest["spec"].clone()).unwrap(),
        };
        let apply = Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected: None }));
        must(law.entry_for(by, None, apply)).await;
    }
    law
}

/// An alert about the target.
fn about(name: &str, firing: bool) -> IncomingAlert {
    let mut sent = alert(name, firing, "critical");
    sent.labels.insert("instance".to_owned(), "127.0.0.1:80".to_owned());
    sent
}

#[tokio::test]
async fn any_node_passes_alerts_on_and_the_law_takes_them() {
    let law = law(medic_raft::env::Env::system()).await;
    let alerts = Alerts::new(law.clone(), Hub::new(law.clone()));
    let (anyone, elsewhere) =
        (sender(None, true), Sender { tenant: "other".to_owned(), ..sender(None, true) });
    let refused = alerts.receive(&elsewhere, &[about("Slow", true)]).await;
    assert!(matches!(refused, Err(AlertsError::NoSource(_))));
    let stranger = IncomingAlert {
        labels: BTreeMap::from([("alertname".to_owned(), "X".to_owned())]),
        ..IncomingAlert::default()
    };
    let taken = alerts.receive(&anyone, &[about("Slow", true), stranger]).await.unwrap();
    assert_eq!((taken.reported, taken.cleared, taken.unmapped.len()), (1, 0, 1));
    assert_eq!(taken.refused, Vec::<String>::new());
    let active = |state: &State| standing(state, &target()).cloned();
    let symptom = law.read(active).unwrap();
    assert_eq!((symptom.kind.as_str(), symptom.severity), ("alert", Severity::Critical));
    let taken = alerts.receive(&anyone, &[about("Slow", false)]).await.unwrap();
    assert_eq!((taken.reported, taken.cleared), (0, 1));
    assert_eq!(law.read(active), None);
}
