//! Golden bytes of sources.

use super::{TENANT, compare, lab, manifest};
use crate::{
    codec,
    ids::Millis,
    manifest::{
        AuthorizationSpec, BasicAuthSpec, DiscoverySpec, DnsSpec, NamedQuery, QuerySpec, Scheme,
        SourceKind, SourceSpec, Spec, TlsSpec,
    },
};

/// Sources of every command set: those of the older ones keep their bytes, and so their digests.
#[test]
fn golden_bytes_of_sources() {
    let source = |kind: SourceKind| SourceSpec {
        kind,
        service_label: "service".into(),
        instance_label: "instance".into(),
        matchers: None,
        token_sha256: None,
        query: None,
        scrape: None,
    };
    let scrape = |honor_labels: Option<bool>| DiscoverySpec {
        targets: vec!["h1:9100".into()],
        file: Some("hosts.json".into()),
        dns: Some(DnsSpec { name: "hosts.internal".into(), port: 9_100 }),
        path: "/metrics".into(),
        interval: Millis(15_000),
        labels: [("service".into(), "hosts".into())].into(),
        honor_labels,
        scheme: None,
        params: None,
        tls: None,
        authorization: None,
        basic_auth: None,
        honor_timestamps: None,
    };
    let scraped = |honor: Option<bool>| SourceSpec {
        matchers: Some(vec![r#"a="b""#.into()]),
        scrape: Some(scrape(honor)),
        ..source(SourceKind::Scrape)
    };
    let specs =
        [(source(SourceKind::Alertmanager), 1), (scraped(None), 4), (scraped(Some(true)), 8)];
    let all: Vec<SourceSpec> = specs.iter().map(|(spec, _)| spec.clone()).collect();
    compare("v4/sources", &codec::encode(&all));
    assert_eq!(codec::decode::<Vec<SourceSpec>>(&codec::encode(&all)).unwrap(), all);
    for (spec, since) in specs {
        assert_eq!(lab::apply(manifest("it", TENANT, Spec::Source(spec))).since(), since);
    }
    let (old, new) = (codec::encode(&all[1]), codec::encode(&all[2]));
    assert!(new.len() > old.len(), "what is not said takes no byte");
}

/// Sources of command set 10: how endpoints are spoken to.
#[test]
fn golden_bytes_of_sources_that_say_how_to_speak() {
    let tls = Box::new(TlsSpec {
        ca_file: Some("ca.pem".into()),
        cert_file: Some("cert.pem".into()),
        key_file: Some("key.pem".into()),
        server_name: Some("web.internal".into()),
        insecure_skip_verify: Some(false),
    });
    let source = |kind, query, scrape| SourceSpec {
        kind,
        service_label: "service".into(),
        instance_label: "instance".into(),
        matchers: None,
        token_sha256: None,
        query,
        scrape,
    };
    let scrape = DiscoverySpec {
        targets: vec!["h1:9100".into()],
        file: None,
        dns: None,
        path: "/metrics".into(),
        interval: Millis(15_000),
        labels: [].into(),
        honor_labels: None,
        scheme: Some(Scheme::Https),
        params: Some([("module".into(), vec!["http_2xx".into()])].into()),
        tls: Some(tls.clone()),
        authorization: Some(Box::new(AuthorizationSpec {
            kind: Some("Token".into()),
            credentials_file: "token".into(),
        })),
        basic_auth: None,
        honor_timestamps: Some(false),
    };
    let query = QuerySpec {
        url: "https://prometheus:9090".into(),
        interval: Millis(15_000),
        queries: vec![NamedQuery { name: "up".into(), query: "up".into() }],
        tls: Some(tls),
        authorization: None,
        basic_auth: Some(Box::new(BasicAuthSpec {
            username: "medic".into(),
            password_file: "password".into(),
        })),
    };
    let all = vec![
        source(SourceKind::Scrape, None, Some(scrape)),
        source(SourceKind::Prometheus, Some(query), None),
    ];
    compare("v5/sources", &codec::encode(&all));
    assert_eq!(codec::decode::<Vec<SourceSpec>>(&codec::encode(&all)).unwrap(), all);
    for spec in all {
        let spec = Spec::Source(spec);
        assert_eq!(lab::apply(manifest("it", TENANT, spec)).since(), 10);
    }
}
