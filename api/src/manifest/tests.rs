//! What is read, what is refused, and where the finger points.
#![allow(clippy::unwrap_used, reason = "tests")]

use medic_state::{
    Millis, Ppm,
    manifest::{Escalation, IndicatorSource, Mode, ProbeKind, SafetyClass, Spec},
};

use super::*;

const PLAYBOOK: &str = r#"apiVersion: medic/v1
kind: Playbook
metadata: {name: restart-crashed-service, tenant: default}
spec:
  mode: auto                      # shadow | approve | auto
  match: ['class="application/crash"', 'env=~"prod.*"']
  when: 'target.replicas > 1 && symptom.p_value < 0.001'
  scope: {maxUnavailable: 34%, perTarget: 2/1h, perPlaybook: 10/1h}
  approval: {whenRisk: '>= 0.3', roles: [approver], minApprovers: 1, forbidSelf: true, ttl: 15m, onTimeout: escalate}
  steps:
    - {name: restart, action: process.restart, safety: probeable, timeout: 30s, retry: {max: 1}, undo: {action: process.restore}}
  verify: {expect: 'probe.http_ok == 1.0 && delta.error_rate <= 0.0', hold: 10s, noData: inconclusive}
  escalate: [{playbook: fail-over-zone}, {notify: pager}]
"#;

const SERVICE: &str = r#"
apiVersion: medic/v1
kind: Service
metadata:
  name: web
  labels: {env: prod-eu, version: 1.10}
spec:
  criticality: high
  dependsOn: [store]
  process:
    command: /usr/bin/web
    args: [--port, "${port}"]
    env: {WORKERS: 4}
    config: {path: "/etc/web/${instance}.conf"}
    reloadSignal: SIGHUP
  instances:
    - {name: web-1, agent: host-a, port: 8081, region: eu-1}
    - {name: web-2, agent: host-b, port: 8082, standby: true}
  probes:
    - {name: http_ok, http: "http://127.0.0.1:${port}/healthz", interval: 500ms}
    - {name: port_open, tcp: "127.0.0.1:${port}"}
    - {name: alive, process: true}
  scrape: {url: "http://127.0.0.1:${port}/metrics"}
  indicators:
    - {name: memory, source: {gauge: process_resident_memory_bytes}, limit: 64MiB}
    - name: error_rate
      source: {ratio: {of: 'http_requests_total{code=~"5.."}', to: http_requests_total}}
      limit: 0.05
    - {name: latency_p99, source: {quantile: {histogram: http_seconds, q: 0.99}}}
  slo: {availability: 99.9%}
"#;

/// The problems of a text, as they are shown.
fn problems(text: &str) -> Vec<String> {
    parse_bundle(text).unwrap_err().iter().map(ToString::to_string).collect()
}

/// Replaces a piece that is there, and gives the one problem that follows.
fn spoilt(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    let found = problems(&text.replacen(from, to, 1));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

#[test]
fn the_example_of_the_design_reads() {
    let manifests = parse_bundle(PLAYBOOK).unwrap();
    let Spec::Playbook(playbook) = &manifests[0].spec else { panic!("not a playbook") };
    assert_eq!(playbook.mode, Mode::Auto);
    assert_eq!(playbook.scope.per_target.to_string(), "2/1h");
    assert_eq!(playbook.approval.when_risk.unwrap().0, Ppm(300_000));
    assert_eq!(playbook.steps[0].safety, Some(SafetyClass::Probeable));
    assert_eq!(playbook.verify.hold, Millis::from_secs(10));
    let then =
        [Escalation::Playbook("fail-over-zone".to_owned()), Escalation::Notify("pager".to_owned())];
    assert_eq!(playbook.escalate, then);
}

#[test]
fn a_service_reads_with_every_kind_of_probe_and_source() {
    let manifests = parse_bundle(SERVICE).unwrap();
    let manifest = &manifests[0];
    assert_eq!(manifest.metadata.tenant, "default");
    assert_eq!(manifest.metadata.labels["version"], "1.10");
    let Spec::Service(service) = &manifest.spec else { panic!("not a service") };
    assert_eq!(service.process.as_ref().unwrap().env["WORKERS"], "4");
    let http = ProbeKind::Http("http://127.0.0.1:${port}/healthz".to_owned());
    assert_eq!(service.probes[0].kind, http);
    assert_eq!(service.probes[0].interval, Millis(500));
    assert_eq!(service.probes[1].kind, ProbeKind::Tcp("127.0.0.1:${port}".to_owned()));
    assert_eq!(service.probes[2].kind, ProbeKind::Process(true));
    assert!(matches!(&service.indicators[1].source, IndicatorSource::Ratio { to, .. }
        if to == "http_requests_total"));
    assert_eq!(service.slo.as_ref().unwrap().availability, Ppm(999_000));
}

#[test]
fn what_is_written_reads_back_equal() {
    let both = format!("{PLAYBOOK}---\n{SERVICE}---\n# nothing here\n---\n");
    let manifests = parse_bundle(&both).unwrap();
    assert_eq!(manifests.len(), 2);
    for manifest in manifests {
        let yaml = to_yaml(&manifest).unwrap();
        assert!(yaml.starts_with("apiVersion: medic/v1\nkind: "), "{yaml}");
        assert_eq!(parse_bundle(&yaml).unwrap(), std::slice::from_ref(&manifest), "{yaml}");
        let json = serde_json::to_string_pretty(&to_json(&manifest).unwrap()).unwrap();
        assert_eq!(parse_bundle(&json).unwrap(), [manifest], "{json}");
    }
}

#[test]
fn unknown_keys_are_placed_and_the_near_one_is_named() {
    let found = spoilt(PLAYBOOK, "hold: 10s", "hodl: 10s");
    assert!(
        found.starts_with("12:71: spec.verify.hodl: unknown key `hodl`; did you mean `hold`?"),
        "{found}"
    );
    let found = spoilt(PLAYBOOK, "\nspec:", "\nspecs: 1\nspec:");
    assert!(found.starts_with("4:1: specs: unknown key `specs`; did you mean `spec`?"), "{found}");
    let found = spoilt(SERVICE, "interval: 500ms", "intervall: 500ms");
    assert!(found.starts_with("20:65: spec.probes[0].intervall: unknown key"), "{found}");
}

#[test]
fn duplicate_keys_are_placed() {
    let found = spoilt(PLAYBOOK, "  when:", "  mode: shadow\n  when:");
    assert_eq!(found, "7:3: duplicate key `mode`: it stands already in line 5");
}

#[test]
fn a_probe_checks_one_thing() {
    let found = spoilt(SERVICE, "tcp: \"127.0.0.1:${port}\"", "tcp: \"a:1\", http: \"http://a\"");
    assert!(found.starts_with("21:7: spec.probes[1]: a probe has exactly one of"), "{found}");
    let found = spoilt(SERVICE, ", process: true", "");
    assert!(found.contains("spec.probes[2]: a probe has exactly one of"), "{found}");
}

#[test]
fn conditions_are_placed_in_the_file() {
    let found = spoilt(PLAYBOOK, "&& symptom.p_value", "&& symptoms.p_value");
    assert!(found.starts_with("7:33: spec.when: unknown variable `symptoms`"), "{found}");
    let block = "when: |\n    target.replicas > 1 &&\n      taget.x";
    let found = spoilt(PLAYBOOK, "when: 'target.replicas > 1 && symptom.p_value < 0.001'", block);
    assert!(found.starts_with("9:7: spec.when: unknown variable `taget`"), "{found}");
    let found = spoilt(PLAYBOOK, "probe.http_ok == 1.0", "probe.http_ok == ");
    assert!(found.starts_with("12:") && found.contains("spec.verify.expect"), "{found}");
}

#[test]
fn wrong_values_are_placed() {
    for (text, from, to, expected) in [
        (
            PLAYBOOK,
            "timeout: 30s",
            "timeout: soon",
            "11:76: spec.steps[0].timeout: `soon` is not a duration",
        ),
        (
            PLAYBOOK,
            "timeout: 30s",
            "timeout: 400d",
            "11:76: spec.steps[0].timeout: 400d is too long: at most 1d",
        ),
        (PLAYBOOK, "hold: 10s", "hold: 2d", "spec.verify.hold: 2d is too long"),
        (PLAYBOOK, "mode: auto ", "mode: automatic ", "5:9: spec.mode: unknown value `automatic`"),
        (
            PLAYBOOK,
            "kind: Playbook",
            "kind: Playbok",
            "2:7: kind: unknown value `Playbok`; did you mean `Playbook`?",
        ),
        (PLAYBOOK, "medic/v1", "medic/v2", "1:13: apiVersion: this release reads"),
        (PLAYBOOK, "{max: 1}", "{max: -1}", "spec.steps[0].retry.max: invalid value"),
        (PLAYBOOK, "name: restart,", "", "11:7: spec.steps[0]: key `name` is missing"),
        (
            PLAYBOOK,
            "{notify: pager}",
            "{notify: pager, playbook: x}",
            "spec.escalate[1]: expected exactly one of",
        ),
        (SERVICE, "limit: 64MiB", "limit: 64 apples", "spec.indicators[0].limit: `64 apples`"),
        (
            SERVICE,
            "to: http_requests_total",
            "to: 'http_requests_total{'",
            "spec.indicators[1].source.ratio.to",
        ),
        (SERVICE, "http: \"http://127", "http: \"ftp://127", "spec.probes[0].http: `ftp://127"),
        (SERVICE, "tcp: \"127.0.0.1:${port}\"", "tcp: \"127.0.0.1\"", "spec.probes[1].tcp"),
        (
            SERVICE,
            "interval: 500ms}",
            "observers: {of: 3, agree: 4}}",
            "spec.probes[0].observers.agree: 1 to `of`, which is 3",
        ),
        (
            SERVICE,
            "interval: 500ms}",
            "observers: {of: 3, agrees: 2}}",
            "spec.probes[0].observers.agrees: unknown key",
        ),
        (SERVICE, "port: 8081", "port: 80810", "spec.instances[0].port: invalid value"),
        (SERVICE, "name: web\n", "name:\n", "metadata.name: invalid type: nothing"),
    ] {
        let found = spoilt(text, from, to);
        assert!(found.contains(expected), "{found}\n  lacks {expected}");
    }
}

#[test]
fn one_bad_document_does_not_hide_another() {
    let text = "kind: [\n---\napiVersion: medic/v1\n---\n- 1\n";
    let found = parse_bundle(text).unwrap_err();
    let documents: Vec<usize> = found.iter().map(|problem| problem.document).collect();
    assert!(documents.starts_with(&[1, 2]) && documents.ends_with(&[3]), "{found:?}");
}

#[test]
fn the_same_manifest_twice_is_refused() {
    let found = problems(&format!("{PLAYBOOK}---\n{PLAYBOOK}"));
    assert!(found[0].contains("is declared twice, first in line 1"), "{found:?}");
}

#[test]
fn aliases_cannot_make_a_short_text_long() {
    let text = format!("a: &x \"{}\"\nb: [{}]", "x".repeat(100_000), "*x,".repeat(50));
    let found = problems(&text);
    assert!(found[0].contains("aliases copy more than"), "{found:?}");
}

#[test]
fn hostile_texts_end_soon() {
    let laughs = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, i| {
        let p = i - 1;
        format!("{text}a{i}: &a{i} [*a{p}, *a{p}]\n")
    });
    for text in [
        laughs,
        "[".repeat(100_000),
        "- ".repeat(100_000),
        format!("a: {}", "{b: ".repeat(1000)),
        "a: &x [*x]".to_owned(),
        format!("a: &a {}\nb: [{}]", "x".repeat(100_000), "*a, ".repeat(10_000)),
        format!("{}{}{}", "&a [".repeat(30), "x".repeat(1 << 20), "]".repeat(30)),
        "? [1, 2]\n: 3".to_owned(),
        "a: !!binary aGVsbG8=".to_owned(),
        "%YAML 9.9\n---\nx".to_owned(),
        "x".repeat(MAX_BYTES + 1),
        "---\nx\n".repeat(MAX_DOCUMENTS + 1),
        "\u{0}\u{1}".to_owned(),
        "a: \"\\q\"".to_owned(),
    ] {
        assert!(parse_bundle(&text).is_err(), "{}", text.chars().take(60).collect::<String>());
    }
}

#[test]
fn copies_are_counted_over_the_whole_bundle() {
    let document = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(1_000), "*a,".repeat(30));
    assert!(problems(&document).iter().all(|text| !text.contains("copy more than")));
    let found = problems(&format!("{document}---\n").repeat(50));
    assert!(found.iter().any(|text| text.contains("copy more than")), "{:?}", found.last());
}

/// How a source's endpoints are spoken to, named as in Prometheus.
#[test]
fn a_source_says_how_to_speak_and_is_told_where_it_does_so_badly() {
    let source = |scrape: &str| {
        format!(
            "apiVersion: medic/v1\nkind: Source\nmetadata: {{name: it}}\nspec:\n  type: scrape\n  scrape:\n    targets: ['h:1']\n    {scrape}\n"
        )
    };
    let good = source(
        "{scheme: https, params: {module: [http_2xx]}, honorTimestamps: false, \
         tls: {caFile: ca.pem, certFile: c.pem, keyFile: k.pem, serverName: web.internal}, \
         basicAuth: {username: medic, passwordFile: password}}",
    )
    .replace("targets: ['h:1']\n    {", "{targets: ['h:1'], ");
    let manifests = parse_bundle(&good).unwrap();
    let written = to_yaml(&manifests[0]).unwrap();
    assert_eq!(parse_bundle(&written).unwrap(), manifests, "{written}");
    for (scrape, says) in [
        (
            "tls: {caFile: ca.pem}",
            "spec.scrape.tls: nothing is asked over TLS: add `scheme: https`",
        ),
        ("tls: {cafile: ca.pem}", "spec.scrape.tls.cafile"),
        ("scheme: ftp", "spec.scrape.scheme"),
        ("authorization: {credentials: secret}", "spec.scrape.authorization.credentials"),
        ("basicAuth: {username: u, passwordFile: ../p}", "spec.scrape.basicAuth.passwordFile"),
    ] {
        let found = problems(&source(scrape));
        assert!(found.iter().any(|problem| problem.contains(says)), "{scrape}: {found:?}");
    }
    let schema = schema().to_string();
    for key in ["insecureSkipVerify", "credentialsFile", "passwordFile", "honorTimestamps"] {
        assert!(schema.contains(key), "{key}");
    }
}

#[test]
fn placeholders_are_those_that_are_filled_and_an_objective_is_about_what_is_there() {
    let host = SERVICE.replace("127.0.0.1", "${host}");
    assert!(parse_bundle(&host).is_ok(), "{:?}", problems(&host));
    let unknown = spoilt(SERVICE, "tcp: \"127.0.0.1:${port}\"", "tcp: \"${ip}:${port}\"");
    assert!(unknown.contains("`${ip}` stands for nothing: there are ${instance}"), "{unknown}");
    let unknown = spoilt(SERVICE, "http://127.0.0.1:${port}/metrics", "http://${name}/metrics");
    assert!(unknown.contains("`${name}` stands for nothing"), "{unknown}");
    let typo =
        spoilt(SERVICE, "{availability: 99.9%}", "{availability: 99.9%, indicator: eror_rate}");
    assert!(typo.contains("spec.slo.indicator"), "{typo}");
    assert!(typo.contains("`eror_rate` is no indicator of this service"), "{typo}");
}
