//! Tests of whose a series is.
#![allow(clippy::unwrap_used)]

use medic_api::manifest::parse_bundle;

use super::*;
use crate::{detection::intake::sample::NAME, fixture};

pub(in crate::detection::intake) const BUNDLE: &str = r#"
apiVersion: medic/v1
kind: Service
metadata: {name: web}
spec:
  instances: [{name: web-1, port: 81}, {name: web-2, host: b, port: 82}]
  indicators:
    - {name: memory, source: {gauge: 'mem{kind="rss"}'}}
    - {name: error_rate, source: {ratio: {of: 'reqs{code=~"5.."}', to: reqs}}}
    - {name: latency, source: {quantile: {histogram: lat, q: 0.99}}}
---
apiVersion: medic/v1
kind: Service
metadata: {name: solo}
spec:
  instances: [{name: solo-1}]
  indicators: [{name: load, source: {gauge: load}}, {name: throughput, source: {rate: total}}]
---
apiVersion: medic/v1
kind: Source
metadata: {name: prom}
spec: {type: remote-write, serviceLabel: job}
---
apiVersion: medic/v1
kind: Source
metadata: {name: team}
spec:
  type: remote-write
  serviceLabel: app
  match: ['app="web"', 'team="blue"']
  tokenSha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b
---
apiVersion: medic/v1
kind: Source
metadata: {name: collector}
spec: {type: otlp}
"#;

pub(in crate::detection::intake) fn state() -> State {
    let mut state = State::new();
    for (index, manifest) in (1..).zip(parse_bundle(BUNDLE).unwrap()) {
        let stored = medic_state::manifest::Stored {
            digest: manifest.digest(),
            manifest: Arc::new(manifest),
            index,
            by: "user:test".to_owned(),
            at: fixture::T0,
        };
        state.manifests.insert(stored.manifest.key(), stored);
    }
    state
}

const REMOTE: (SourceKind, &str) = (SourceKind::RemoteWrite, "remote-write");

fn view<'b>(labels: &[(&'b str, &'b str)]) -> SeriesView<'b> {
    let mut view = SeriesView { labels: labels.to_vec(), ..SeriesView::default() };
    view.check().unwrap();
    view
}

#[test]
fn instances_are_found_by_name_by_address_or_alone() {
    let mapper = Mapper::of(&state(), "default");
    let allowed = mapper.allowed("default", REMOTE, None, true).unwrap();
    let place = |labels: &[(&str, &str)]| {
        mapper.place(allowed, &view(labels)).map(|place| (place.instance, place.parts.to_vec()))
    };
    let mem = [(NAME, "mem"), ("kind", "rss"), ("job", "web")];
    let with = |label| [mem.as_slice(), &[label]].concat();
    let gauge = vec![(0, Part::Gauge)];
    assert_eq!(place(&with(("instance", "web-2"))), Ok(("web-2".to_owned(), gauge.clone())));
    assert_eq!(place(&with(("instance", "b:82"))), Ok(("web-2".to_owned(), gauge.clone())));
    assert_eq!(place(&with(("instance", "127.0.0.1:81"))), Ok(("web-1".to_owned(), gauge)));
    assert_eq!(place(&with(("instance", "c:82"))), Err(NotWatched::Unmapped));
    assert_eq!(place(&mem), Err(NotWatched::Unmapped), "which of two?");
    assert_eq!(place(&[(NAME, "load"), ("job", "solo")]).unwrap().0, "solo-1");
    assert_eq!(place(&[(NAME, "load"), ("job", "moon")]), Err(NotWatched::Unmapped));
    assert_eq!(place(&[(NAME, "other"), ("job", "solo")]), Err(NotWatched::Unwanted));
    let of = |labels: &[(&str, &str)]| {
        place(&[labels, &[("job", "web"), ("instance", "web-1")]].concat())
    };
    assert_eq!(of(&[(NAME, "reqs"), ("code", "500")]).unwrap().1, [(1, Part::Of), (1, Part::To)]);
    assert_eq!(of(&[(NAME, "reqs"), ("code", "200")]).unwrap().1, [(1, Part::To)]);
    assert_eq!(
        of(&[(NAME, "lat_bucket"), ("le", "+Inf")]).unwrap().1,
        [(2, Part::Bucket(f64::INFINITY))]
    );
    assert_eq!(of(&[(NAME, "lat_bucket"), ("le", "soon")]), Err(NotWatched::Unwanted));
}

#[test]
fn a_sender_speaks_for_its_own_sources_alone() {
    let mapper = Mapper::of(&state(), "default");
    let token = Digest::of(&[b"secret"]).to_string();
    let open = mapper.allowed("default", REMOTE, None, true).unwrap();
    let team = mapper.allowed("default", REMOTE, Some(&token), false).unwrap();
    assert_ne!(open, team);
    let denied = mapper.allowed("default", REMOTE, Some("nonsense"), false);
    assert_eq!(denied, Err(NoSource::Token("default".to_owned())));
    let none = mapper.allowed("default", (SourceKind::Scrape, "scrape"), None, true);
    assert_eq!(none, Err(NoSource::None("default".to_owned(), "scrape")));
    let mem = [(NAME, "mem"), ("kind", "rss"), ("app", "web"), ("instance", "web-1")];
    let blue = view(&[mem.as_slice(), &[("team", "blue")]].concat());
    let red = view(&[mem.as_slice(), &[("team", "red")]].concat());
    assert!(mapper.place(team, &blue).is_ok());
    assert_eq!(mapper.place(team, &red), Err(NotWatched::Foreign));
    assert_eq!(mapper.place(open, &blue), Err(NotWatched::Unmapped), "it has no job");
}

#[test]
fn it_knows_when_the_manifests_have_changed() {
    let mut state = state();
    let mapper = Mapper::of(&state, "default");
    assert!(mapper.current(&state, "default"));
    state.manifests.pop_last();
    assert!(!mapper.current(&state, "default"));
}
