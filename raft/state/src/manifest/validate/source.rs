//! What can be wrong with a `Source`.

use super::{Found, MAX_LIST, MAX_SPAN};
use crate::{
    ids::Millis,
    manifest::{DiscoverySpec, QuerySpec, SourceKind, SourceSpec},
};

/// A source is asked at most this often: it is somebody's production Prometheus.
const MIN_INTERVAL: Millis = Millis::from_secs(1);

pub(super) fn check(found: &mut Found, source: &SourceSpec) {
    found.not_empty("spec.serviceLabel", &source.service_label);
    found.not_empty("spec.instanceLabel", &source.instance_label);
    if let Some(matchers) = &source.matchers {
        found.matchers("spec.match", matchers);
    }
    if let Some(hash) = &source.token_sha256
        && (hash.len() != 64 || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    {
        found.add("spec.tokenSha256", "it is not 64 hexadecimal digits in lower case");
    }
    for (path, kind, given) in [
        ("spec.query", SourceKind::Prometheus, source.query.is_some()),
        ("spec.scrape", SourceKind::Scrape, source.scrape.is_some()),
    ] {
        match (source.kind == kind, given) {
            (true, false) => found.add(path, "a source of this type needs it"),
            (false, true) => found.add(path, "a source of this type has none"),
            (true, true) | (false, false) => {}
        }
    }
    if let Some(query) = &source.query {
        check_query(found, query);
    }
    if let Some(scrape) = &source.scrape {
        check_discovery(found, scrape);
    }
}

fn check_interval(found: &mut Found, path: &str, interval: Millis) {
    if interval < MIN_INTERVAL || interval > MAX_SPAN {
        found.add(path, &format!("{MIN_INTERVAL} to {MAX_SPAN}"));
    }
}

fn check_query(found: &mut Found, query: &QuerySpec) {
    if !(query.url.starts_with("http://") || query.url.starts_with("https://")) {
        found.add("spec.query.url", "it is no http or https URL");
    }
    check_interval(found, "spec.query.interval", query.interval);
    if query.queries.is_empty() {
        found.add("spec.query.queries", "nothing is asked");
    }
    found.at_most("spec.query.queries", query.queries.len(), MAX_LIST);
    found.unique("spec.query.queries", query.queries.iter().map(|one| one.name.as_str()));
    for (at, one) in query.queries.iter().enumerate() {
        let path = format!("spec.query.queries[{at}]");
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
        let digit_first = one.name.bytes().next().is_none_or(|b| b.is_ascii_digit());
        if digit_first || !one.name.bytes().all(legal) {
            found.add(&format!("{path}.name"), "it is no metric name such as `job:errors:rate5m`");
        }
        found.not_empty(&format!("{path}.query"), &one.query);
    }
}

fn check_discovery(found: &mut Found, scrape: &DiscoverySpec) {
    if scrape.targets.is_empty() && scrape.file.is_none() && scrape.dns.is_none() {
        found.add("spec.scrape", "it names no targets: give `targets`, `file` or `dns`");
    }
    found.at_most("spec.scrape.targets", scrape.targets.len(), MAX_LIST);
    found.at_most("spec.scrape.labels", scrape.labels.len(), MAX_LIST);
    check_interval(found, "spec.scrape.interval", scrape.interval);
    for (at, target) in scrape.targets.iter().enumerate() {
        let good = target
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !good || target.contains(['/', '@', '?', '#']) {
            found.add(&format!("spec.scrape.targets[{at}]"), "it is not host:port");
        }
    }
    // The file is read on the nodes: a manifest must not choose it among all of a machine's files.
    if let Some(file) = &scrape.file {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if file.is_empty() || file.starts_with('.') || !file.bytes().all(legal) {
            let text = "a plain file name (no folders): it lies in the nodes' discovery folder";
            found.add("spec.scrape.file", text);
        }
    }
    if let Some(dns) = &scrape.dns {
        found.not_empty("spec.scrape.dns.name", &dns.name);
    }
    if !scrape.path.starts_with('/') {
        found.add("spec.scrape.path", "it does not begin with `/`");
    }
}
