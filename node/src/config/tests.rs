//! Short files, overrides, and mistakes by name.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const GOOD: &str = r#"
cluster = "demo"
node = 1
data_dir = "node-1"
[listen]
api = "127.0.0.1:7440"
peer = "127.0.0.1:7441"
http = "127.0.0.1:7442"
[members]
1 = "127.0.0.1:7441"
node-2 = "127.0.0.1:7451"
[tls]
ca = "ca.crt"
cert = "node-1.crt"
key = "node-1.key"
"#;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<NodeConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).unwrap();
    let find = |name: &str| {
        environment.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    };
    NodeConfig::load_with(&path, find)
        .map(|mut config| {
            let dir = dir.path();
            assert!(config.data_dir.starts_with(dir) && config.tls.key.starts_with(dir));
            config.data_dir = config.data_dir.strip_prefix(dir).unwrap().to_owned();
            config
        })
        .map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "FILE"))
}

#[test]
fn a_short_file_is_enough() {
    let config = load(GOOD, &[]).unwrap();
    assert_eq!(config.members[&NodeId(2)], "127.0.0.1:7451");
    assert_eq!(config.api_addr(), "127.0.0.1:7440");
    assert_eq!(config.detection.interval, Millis::from_secs(5));
    assert_eq!(config.detection.lead, Millis::from_secs(600));
    let opens = config.detection.opens;
    assert!(opens.security_risk && !opens.failure && !opens.performance);
    assert_eq!(config.overrides(), ThresholdOverrides::default());
}

#[test]
fn a_member_is_dialled_where_the_members_say_it_is() {
    // Every interface is where it listens, and no address to tell anybody.
    let listen = "peer = \"127.0.0.1:7441\"\nhttp";
    let everywhere = GOOD.replacen(listen, "peer = \"0.0.0.0:7441\"\nhttp", 1);
    assert_eq!(load(&everywhere, &[]).unwrap().peer_addr(), "127.0.0.1:7441");
    let own = "[members]\n1 = \"127.0.0.1:7441\"";
    let joins = GOOD.replacen("node = 1", "node = 1\njoin = true", 1).replacen(
        own,
        "[advertise]\npeer = \"here\"\n[members]",
        1,
    );
    let error = load(&joins, &[]).unwrap_err();
    assert!(error.contains("`advertise.peer`: `here` is not host:port"), "{error}");
}

#[test]
fn a_node_weighs_what_it_says() {
    let with = |line: &str| load(&GOOD.replacen("node = 1", line, 1), &[]).unwrap().weight;
    assert_eq!((with("node = 1"), with("node = 1\nweight = 0")), (100, 0));
    assert_eq!(with("node = 1\nweight = 10000"), 10_000);
}

#[test]
fn how_early_a_prediction_is_told_can_be_chosen() {
    let with = |lead: &str| load(&format!("{GOOD}[detection]\nlead = \"{lead}\"\n"), &[]);
    assert_eq!(with("2h").unwrap().detection.lead, Millis::from_secs(7_200));
    assert!(with("1s").unwrap_err().contains("`detection.lead`: is from 10s to 24h"));
    assert!(with("2d").is_err());
}

#[test]
fn how_far_predictions_look_can_be_chosen() {
    let with = |text: &str| load(&format!("{GOOD}[detection]\n{text}\n"), &[]);
    let plain = load(GOOD, &[]).unwrap().detection;
    let days = |days: u64| Millis::from_secs(days * 86_400);
    assert_eq!((plain.horizon, plain.certificate_horizon), (days(1), days(14)));
    assert_eq!(with("horizon = \"3d\"").unwrap().detection.horizon, days(3));
    let far = with("certificate_horizon = \"30d\"").unwrap();
    assert_eq!(far.detection.certificate_horizon, days(30));
    let error = "`detection.horizon`: is from 1h (and `detection.lead`) to 30d";
    for bad in ["horizon = \"10m\"", "horizon = \"31d\"", "lead = \"2h\"\nhorizon = \"1h\""] {
        assert!(with(bad).unwrap_err().contains(error), "{bad}");
    }
    let error = "`detection.certificate_horizon`: is from 1h to 90d";
    assert!(with("certificate_horizon = \"1m\"").unwrap_err().contains(error));
}

#[test]
fn the_environment_overrides() {
    let config = load(
        GOOD,
        &[
            ("DETECTION_INTERVAL", "0.5"),
            ("CONFIDENCE_THRESHOLD", "0.9"),
            ("RISK_THRESHOLD", "20%"),
        ],
    )
    .unwrap();
    assert_eq!(config.detection.interval, Millis(500));
    let expected = ThresholdOverrides { confidence: Some(Ppm(900_000)), risk: Some(Ppm(200_000)) };
    assert_eq!(config.overrides(), expected);
    for (name, value) in [
        ("DETECTION_INTERVAL", "0"),
        ("DETECTION_INTERVAL", "5s"),
        ("DETECTION_INTERVAL", "NaN"),
        ("CONFIDENCE_THRESHOLD", "1.5"),
        ("RISK_THRESHOLD", ""),
    ] {
        let error = load(GOOD, &[(name, value)]).unwrap_err();
        assert!(error.contains(name) && error.contains("expected"), "{error}");
    }
}

#[test]
fn mistakes_are_named() {
    for (from, to, expected) in [
        ("node = 1", "nod = 1", "unknown field `nod`"),
        ("node = 1", "node = 1\nweight = 10001", "`weight`: is 10001; it is from 0 to 10000"),
        ("node = 1", "node = 1\nweight = -1", "expected u32"),
        ("node = 1", "node = 3", "node-3 is not among node-1, node-2"),
        ("node-2 =", "node-1 =", "node-1 is listed twice"),
        ("\"127.0.0.1:7451\"", "\"127.0.0.1\"", "is not host:port"),
        ("cluster = \"demo\"", "cluster = \"de mo\"", "`cluster`"),
        ("[members]", "[raft]\nelection_max = \"100ms\"\n[members]", "election_min"),
        ("api = \"127.0.0.1:7440\"", "api = \"0.0.0.0:7440\"", "advertise.api"),
    ] {
        let error = load(&GOOD.replacen(from, to, 1), &[]).unwrap_err();
        assert!(error.starts_with("FILE: ") && error.contains(expected), "{error}");
    }
}
