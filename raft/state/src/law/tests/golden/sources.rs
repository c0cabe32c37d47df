//! Golden bytes of sources.

use super::{TENANT, compare, lab, manifest};
use crate::{
    codec,
    ids::Millis,
    manifest::{DiscoverySpec, DnsSpec, SourceKind, SourceSpec, Spec},
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
