//! Logs at the doors of two nodes.

use std::io::Write as _;

use super::*;
use crate::detection::intake::log::drain::LEARNING_MS;

fn value(samples: &[crate::detection::exposition::Sample], name: &str, label: &str) -> f64 {
    let fits = |sample: &&crate::detection::exposition::Sample| {
        sample.name == name && sample.labels.values().any(|value| value == label)
    };
    samples.iter().find(fits).map_or(0.0, |sample| sample.value)
}

/// `{service, instance, lines}` as OTLP has it.
fn logs(told: &[(&str, &str, &[&str])]) -> Push {
    let resources: Vec<serde_json::Value> = told
        .iter()
        .map(|(service, instance, lines)| {
            let attribute = |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
            let records: Vec<_> = lines
                .iter()
                .map(|line| serde_json::json!({"severityText": "ERROR", "body": {"stringValue": line}}))
                .collect();
            serde_json::json!({
                "resource": {"attributes": [attribute("service.name", service), attribute("service.instance.id", instance)]},
                "scopeLogs": [{"logRecords": records}],
            })
        })
        .collect();
    let body = serde_json::json!({"resourceLogs": resources}).to_string().into_bytes();
    Push {
        form: PushForm::OtlpLogs,
        encoding: Encoding { gzip: false, json: true },
        body,
        ..push(&[])
    }
}

#[tokio::test(start_paused = true)]
async fn lines_reach_the_node_that_watches_their_instance() {
    let (one, other) = two(&TenantSpec::default());
    let told = logs(&[
        ("solo", "solo-1", &["pool is empty"]),
        ("web", "web-2", &["upstream 10.0.0.1 is slow", "upstream 10.0.0.2 is slow"]),
        ("moon", "moon-1", &["nobody knows me"]),
    ]);
    let taken = one.push(told.clone()).await.unwrap();
    assert_eq!(
        taken,
        PushTaken { samples: 3, ..PushTaken::default() },
        "what nobody watches is no fault"
    );
    let name = "medic_log_template_lines_total";
    let (solo, web) = (target("solo", "solo-1"), target("web", "web-2"));
    assert_eq!(value(&one.log_samples(&solo), name, "pool is empty"), 1.0);
    assert!(one.log_samples(&web).is_empty());
    assert_eq!(value(&other.log_samples(&web), name, "upstream <*> is slow"), 2.0);
    assert_eq!(value(&other.log_samples(&web), "medic_log_lines_total", "error"), 2.0);

    // The same in gzip and protobuf.
    let protobuf = crate::detection::intake::otlp_json::logs(&told.body).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&protobuf).unwrap();
    let encoding = Encoding { gzip: true, json: false };
    one.push(Push { encoding, body: gzip.finish().unwrap(), ..told }).await.unwrap();
    assert_eq!(value(&other.log_samples(&web), name, "upstream <*> is slow"), 4.0);
    assert_eq!(one.log_news(&solo), None, "what a log begins with is no news");
    tokio::time::advance(Duration::from_millis(LEARNING_MS)).await;
    one.push(logs(&[("solo", "solo-1", &["disk is full"])])).await.unwrap();
    assert!(one.log_news(&solo).unwrap().starts_with("`disk is full` (1 line"));
}

#[tokio::test(start_paused = true)]
async fn a_log_goes_on_with_its_new_owner_as_if_it_had_never_moved() {
    let (one, other) = two(&TenantSpec::default());
    let solo = target("solo", "solo-1");
    let told = |line: &str| logs(&[("solo", "solo-1", &[line])]);
    one.push(told("pool is empty")).await.unwrap();
    tokio::time::advance(Duration::from_millis(LEARNING_MS)).await;
    one.push(told("disk is full")).await.unwrap();
    let learnt = one.log_learnt(&solo).unwrap();
    other.log_go_on(&solo, &learnt);
    assert!(other.log_news(&solo).unwrap().starts_with("`disk is full`"), "it is news still");
    let name = "medic_log_template_lines_total";
    assert_eq!(value(&other.log_samples(&solo), name, "disk is full"), 0.0, "counted elsewhere");
    assert_eq!(other.log_learnt(&solo), Some(learnt));
    assert_eq!(one.log_learnt(&target("web", "web-1")), None);
}

#[tokio::test(start_paused = true)]
async fn logs_that_cannot_be_taken_are_told_why() {
    let (one, other) = two(&TenantSpec::default());
    let good = logs(&[("web", "web-2", &["a line"])]);
    for (push, says) in [
        (Push { body: b"[".to_vec(), ..good.clone() }, "no OTLP message in JSON"),
        (Push { encoding: Encoding::default(), ..good.clone() }, "no OTLP message"),
        (Push { encoding: Encoding { gzip: true, json: true }, ..good.clone() }, "no gzip"),
        (Push { tenant: "moon".to_owned(), ..good.clone() }, "no Source of type otlp"),
    ] {
        match one.push(push).await.unwrap_err() {
            PushRefusal::Wrong(why) => assert!(why.contains(says), "{why}"),
            refusal => panic!("{refusal:?}"),
        }
    }
    // A bomb: some KiB that open to more than is held.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![b' '; 1 << 20]).unwrap();
    }
    let encoding = Encoding { gzip: true, json: true };
    let bomb = Push { encoding, body: bomb.finish().unwrap(), ..good.clone() };
    assert!(bomb.body.len() < 1 << 20);
    assert!(matches!(one.push(bomb).await, Err(PushRefusal::TooLarge(_))));
    // Lines without a text, old lines and lines from the future.
    let ns = |offset_ms: i64| ((one.moment().wall_ms + offset_ms) * 1_000_000).to_string();
    let body = serde_json::json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "solo"}}]},
        "scopeLogs": [{"logRecords": [
            {"body": {"arrayValue": {"values": []}}},
            {"timeUnixNano": ns(-7_200_000), "body": {"stringValue": "old"}},
            {"timeUnixNano": ns(7_200_000), "body": {"stringValue": "early"}},
            {"timeUnixNano": ns(0), "body": {"stringValue": "now"}},
        ]}],
    }]});
    let taken =
        one.push(Push { body: body.to_string().into_bytes(), ..good.clone() }).await.unwrap();
    assert_eq!((taken.samples, taken.rejected), (1, 3), "{taken:?}");
    let why = taken.refused.unwrap();
    assert!(why.contains("ten minutes ahead") && why.contains("an hour old"), "{why}");
    // Nobody watches it: the sender is to come again. And an owner takes only what is declared.
    one.reach(Arc::new(Direct(None)));
    let lines = vec![crate::detection::intake::log::records::Line {
        level: crate::detection::intake::log::drain::Level::Error,
        text: "x".to_owned(),
        at_ms: 0,
    }];
    let (service, instance) = ("web".to_owned(), "web-9".to_owned());
    let handed = Handed {
        tenant: "default".to_owned(),
        sources: vec!["collector".to_owned()],
        message: Vec::new(),
        logs: vec![LogLines { service, instance, lines }],
    };
    assert_eq!(other.take_forwarded(handed.clone()).await.unwrap().of(Became::Unmapped), 1);
    let instance = "web-2".to_owned();
    let handed = Handed { logs: vec![LogLines { instance, ..handed.logs[0].clone() }], ..handed };
    assert_eq!(one.take_forwarded(handed).await.unwrap().of(Became::NoOwner), 1);
}

#[tokio::test(start_paused = true)]
async fn lines_count_against_what_a_tenant_may_send() {
    let quota = TenantSpec { max_samples_per_second: Some(1), ..TenantSpec::default() };
    let (one, _) = two(&quota);
    let five = logs(&[("solo", "solo-1", &["a", "b", "c", "d", "e"])]);
    assert_eq!(one.push(five.clone()).await.unwrap().samples, 5);
    assert!(matches!(one.push(five).await, Err(PushRefusal::Slow(_, 1))));
}

#[tokio::test(start_paused = true)]
async fn points_that_are_not_read_are_told_to_otlp_as_rejected() {
    let (one, _) = two(&TenantSpec::default());
    let now_ns = (one.moment().wall_ms * 1_000_000).to_string();
    let body = serde_json::json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "solo"}}]},
        "scopeMetrics": [{"metrics": [
            {"name": "load", "gauge": {"dataPoints": [{"asDouble": 0.5, "timeUnixNano": now_ns}]}},
            {"name": "delta", "sum": {"aggregationTemporality": 1, "dataPoints": [{"asInt": "1", "timeUnixNano": now_ns}]}},
        ]}],
    }]});
    let metrics = Push {
        form: PushForm::OtlpMetrics,
        encoding: Encoding { gzip: false, json: true },
        body: body.to_string().into_bytes(),
        ..push(&[])
    };
    let taken = one.push(metrics).await.unwrap();
    assert_eq!((taken.samples, taken.rejected), (1, 1));
    assert!(taken.refused.unwrap().contains("deltas"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(one.values(&target("solo", "solo-1")).unwrap().values["load"], 0.5);
}
