//! What can be wrong with a `Source`.

use super::{Found, MAX_LIST, MAX_SPAN};
use crate::{
    ids::Millis,
    manifest::{DiscoverySpec, QuerySpec, Scheme, SourceKind, SourceSpec, Speech, TlsSpec},
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
        check_speech(found, "spec.query", source.speech());
    } else if let Some(scrape) = &source.scrape {
        check_discovery(found, scrape);
        check_speech(found, "spec.scrape", source.speech());
    }
}

/// The files are read on the nodes, in the folder of the source's tenant: a plain name leads to no other.
fn check_speech(found: &mut Found, at: &str, speech: Speech<'_>) {
    if let Some(tls) = speech.tls {
        check_tls(found, &format!("{at}.tls"), tls);
    }
    if let Some(authorization) = speech.authorization {
        let path = format!("{at}.authorization");
        found.name(&format!("{path}.credentialsFile"), &authorization.credentials_file);
        let kind = authorization.kind.as_deref().unwrap_or("Bearer");
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if kind.is_empty() || !kind.bytes().all(legal) {
            found.add(&format!("{path}.type"), "it is no word such as `Bearer`");
        } else if kind.eq_ignore_ascii_case("basic") {
            found.add(&format!("{path}.type"), "use `basicAuth` for a user name and a password");
        }
    }
    if let Some(basic) = speech.basic_auth {
        let path = format!("{at}.basicAuth");
        found.name(&format!("{path}.passwordFile"), &basic.password_file);
        let bad = |c: char| c.is_control() || c == ':';
        if basic.username.is_empty() || basic.username.contains(bad) {
            let text = "a user name has no `:` and no control characters, and is not empty";
            found.add(&format!("{path}.username"), text);
        }
        if speech.authorization.is_some() {
            found.add(&path, "`authorization` is given too: leave one of the two out");
        }
    }
}

fn check_tls(found: &mut Found, path: &str, tls: &TlsSpec) {
    let files =
        [("caFile", &tls.ca_file), ("certFile", &tls.cert_file), ("keyFile", &tls.key_file)];
    for (key, file) in files {
        if let Some(file) = file {
            found.name(&format!("{path}.{key}"), file);
        }
    }
    match (&tls.cert_file, &tls.key_file) {
        (Some(_), None) => found.add(&format!("{path}.keyFile"), "a `certFile` needs a `keyFile`"),
        (None, Some(_)) => found.add(&format!("{path}.certFile"), "a `keyFile` needs a `certFile`"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    if let Some(name) = &tls.server_name {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        // What ends in a number is an address to whoever reads URLs.
        let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let address = last.starts_with(|c: char| c.is_ascii_digit());
        if name.is_empty() || name.len() > 253 || address || !name.bytes().all(legal) {
            found.add(&format!("{path}.serverName"), "it is no host name such as web.example.com");
        }
    }
    if tls.insecure_skip_verify == Some(true) && tls.ca_file.is_some() {
        let text = "any certificate is taken, so `caFile` says nothing: leave one of the two out";
        found.add(&format!("{path}.insecureSkipVerify"), text);
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
    if query.tls.is_some() && !query.url.starts_with("https://") {
        found.add("spec.query.tls", "the URL is none of `https`: nothing is asked over TLS");
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
    // A file may say so of its targets, one by one.
    if scrape.tls.is_some() && scrape.scheme != Some(Scheme::Https) && scrape.file.is_none() {
        found.add("spec.scrape.tls", "nothing is asked over TLS: add `scheme: https`");
    }
    let params = scrape.params.iter().flatten();
    let values = params.clone().map(|(_, values)| values.len()).sum();
    found.at_most("spec.scrape.params", values, MAX_LIST);
    for (name, values) in params {
        found.not_empty("spec.scrape.params", name);
        if values.is_empty() {
            found.add(&format!("spec.scrape.params.{name}"), "it has no value");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        law::tests::lab::manifest,
        manifest::{AuthorizationSpec, BasicAuthSpec, NamedQuery, Spec, validate},
    };

    fn paths(source: SourceSpec) -> Vec<String> {
        let manifest = manifest("it", "team", Spec::Source(source));
        validate(&manifest).into_iter().map(|problem| problem.path).collect()
    }

    fn source(query: Option<QuerySpec>, scrape: Option<DiscoverySpec>) -> SourceSpec {
        SourceSpec {
            kind: if query.is_some() { SourceKind::Prometheus } else { SourceKind::Scrape },
            service_label: "service".into(),
            instance_label: "instance".into(),
            matchers: None,
            token_sha256: None,
            query,
            scrape,
        }
    }

    fn query(
        url: &str,
        tls: Option<Box<TlsSpec>>,
        basic_auth: Option<Box<BasicAuthSpec>>,
    ) -> SourceSpec {
        let queries = vec![NamedQuery { name: "up".into(), query: "up".into() }];
        let interval = Millis::from_secs(15);
        let authorization = None;
        let query =
            QuerySpec { url: url.into(), interval, queries, tls, authorization, basic_auth };
        source(Some(query), None)
    }

    fn scrape(spoil: fn(&mut DiscoverySpec)) -> SourceSpec {
        let mut scrape = DiscoverySpec {
            targets: vec!["h:1".into()],
            file: None,
            dns: None,
            path: "/metrics".into(),
            interval: Millis::from_secs(15),
            labels: [].into(),
            honor_labels: None,
            scheme: Some(Scheme::Https),
            params: Some([("module".into(), vec!["http_2xx".into()])].into()),
            tls: Some(tls(|_| ())),
            authorization: Some(authorization("token", None)),
            basic_auth: None,
            honor_timestamps: Some(true),
        };
        spoil(&mut scrape);
        source(None, Some(scrape))
    }

    fn tls(spoil: fn(&mut TlsSpec)) -> Box<TlsSpec> {
        let mut tls = TlsSpec {
            ca_file: Some("ca.pem".into()),
            cert_file: Some("cert.pem".into()),
            key_file: Some("key.pem".into()),
            server_name: Some("web.internal".into()),
            insecure_skip_verify: Some(false),
        };
        spoil(&mut tls);
        Box::new(tls)
    }

    fn authorization(file: &str, kind: Option<&str>) -> Box<AuthorizationSpec> {
        Box::new(AuthorizationSpec { kind: kind.map(Into::into), credentials_file: file.into() })
    }

    fn basic(username: &str) -> Box<BasicAuthSpec> {
        Box::new(BasicAuthSpec { username: username.into(), password_file: "password".into() })
    }

    #[test]
    fn sound_ways_to_speak_have_no_problems() {
        let none: [&str; 0] = [];
        assert_eq!(paths(scrape(|_| ())), none);
        assert_eq!(paths(query("https://p", Some(Box::default()), Some(basic("medic")))), none);
        assert_eq!(paths(query("http://p", None, Some(basic("medic")))), none);
        // Its targets may be of either scheme.
        let filed = scrape(|scrape| {
            (scrape.scheme, scrape.file) = (None, Some("hosts.json".into()));
        });
        assert_eq!(paths(filed), none);
    }

    #[test]
    fn each_spoilt_way_to_speak_is_told_where() {
        let tls = |spoil| Some(tls(spoil));
        for (source, path) in [
            (query("http://p", tls(|_| ()), None), "spec.query.tls"),
            (query("https://p", None, Some(basic("a:b"))), "spec.query.basicAuth.username"),
            (scrape(|scrape| scrape.scheme = None), "spec.scrape.tls"),
            (scrape(|scrape| scrape.basic_auth = Some(basic("medic"))), "spec.scrape.basicAuth"),
            (
                scrape(|scrape| scrape.authorization = Some(authorization("../pd", None))),
                "spec.scrape.authorization.credentialsFile",
            ),
            (
                scrape(|scrape| scrape.authorization = Some(authorization("pd", Some("Basic")))),
                "spec.scrape.authorization.type",
            ),
            (
                scrape(|scrape| scrape.authorization = Some(authorization("pd", Some("a b")))),
                "spec.scrape.authorization.type",
            ),
            (
                query("https://p", tls(|tls| tls.ca_file = Some("/etc/shadow".into())), None),
                "spec.query.tls.caFile",
            ),
            (query("https://p", tls(|tls| tls.key_file = None), None), "spec.query.tls.keyFile"),
            (query("https://p", tls(|tls| tls.cert_file = None), None), "spec.query.tls.certFile"),
            (
                query("https://p", tls(|tls| tls.server_name = Some("127.0.0.1".into())), None),
                "spec.query.tls.serverName",
            ),
            (
                query("https://p", tls(|tls| tls.server_name = Some("web.127.1".into())), None),
                "spec.query.tls.serverName",
            ),
            (
                query("https://p", tls(|tls| tls.insecure_skip_verify = Some(true)), None),
                "spec.query.tls.insecureSkipVerify",
            ),
            (
                scrape(|scrape| scrape.params = Some([("a".into(), vec![])].into())),
                "spec.scrape.params.a",
            ),
        ] {
            assert_eq!(paths(source.clone()), [path], "{source:?}");
        }
    }
}
