//! Alerts as symptoms, over the real law.
#![allow(clippy::unwrap_used)]

use super::*;

fn alert(name: &str, firing: bool, severity: &str) -> IncomingAlert {
    let pairs = [("alertname", name), ("severity", severity), ("service", "web")];
    IncomingAlert {
        firing,
        labels: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        annotations: BTreeMap::from([("summary".to_owned(), format!("{name} is on"))]),
        starts_at: Timestamp(500),
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
    let again = report(step(Some(&both), &[alert("Burning", true, "critical")]));
    assert_eq!(again, both, "repeating changes nothing");
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

#[tokio::test]
async fn any_node_passes_alerts_on_and_the_law_takes_them() {
    use medic_raft::{LocalLedger, env::Env};
    use medic_state::{
        BootId, Entry, NodeId, ShardId, TraceId,
        command::{ApplyManifest, AssignShards, RegisterNode},
        manifest::Manifest,
        rbac::Principal,
    };
    let law = LocalLedger::new(NodeId(1), BootId(1), Env::system());
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
    // The other node owns every shard.
    let moves = (0..medic_state::state::SHARDS).map(|shard| (ShardId(shard), NodeId(2))).collect();
    must(law.entry(TraceId::default(), Command::AssignShards(AssignShards { moves }))).await;
    let alerts = Alerts::new(law.clone());
    let firing = [IncomingAlert { firing: true, ..alert("Slow", true, "critical") }];
    assert!(matches!(alerts.receive("default", &firing).await, Err(AlertsError::NoSource(_))));
    for (by, manifest) in [
        (
            Principal::node(NodeId(1)),
            serde_json::json!({"metadata": {"name": "admins", "tenant": "*"}, "spec": {
                "kind": "RoleBinding", "spec": {"role": "admin", "subjects": [{"user": "root"}]}}}),
        ),
        (
            Principal::user("root"),
            serde_json::json!({"metadata": {"name": "main"}, "spec": {
                "kind": "Source", "spec": {"type": "alertmanager"}}}),
        ),
        (
            Principal::user("root"),
            serde_json::json!({"metadata": {"name": "web"}, "spec": {
                "kind": "Service", "spec": {"instances": [{"name": "web-1", "port": 80}]}}}),
        ),
    ] {
        let manifest = Manifest {
            metadata: serde_json::from_value(manifest["metadata"].clone()).unwrap(),
            spec: serde_json::from_value(manifest["spec"].clone()).unwrap(),
        };
        let apply = Command::ApplyManifest(Box::new(ApplyManifest { manifest, expected: None }));
        must(law.entry_for(by, None, apply)).await;
    }
    let stranger = IncomingAlert {
        labels: BTreeMap::from([("alertname".to_owned(), "X".to_owned())]),
        ..IncomingAlert::default()
    };
    let mut sent = firing[0].clone();
    sent.labels.insert("instance".to_owned(), "127.0.0.1:80".to_owned());
    let taken = alerts.receive("default", &[sent.clone(), stranger]).await.unwrap();
    assert_eq!((taken.reported, taken.cleared, taken.unmapped.len()), (1, 0, 1));
    assert_eq!(taken.refused, Vec::<String>::new());
    let active = |state: &State| standing(state, &target()).cloned();
    let symptom = law.read(active).unwrap();
    assert_eq!((symptom.kind.as_str(), symptom.severity), ("alert", Severity::Critical));
    sent.firing = false;
    let taken = alerts.receive("default", &[sent]).await.unwrap();
    assert_eq!((taken.reported, taken.cleared), (0, 1));
    assert_eq!(law.read(active), None);
}
