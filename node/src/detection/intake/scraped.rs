//! What an endpoint of a Source shows, as a remote-write message. Pure.
//!
//! Whose labels win is as in Prometheus: those that the Source and its list of endpoints give, and
//! `instance`; a series' own label of such a name becomes `exported_…`. So nobody who is scraped speaks
//! for others, unless the Source says `honorLabels`.

use std::collections::BTreeMap;

use medic_state::manifest::DiscoverySpec;

use super::{
    discovery::Endpoint,
    mapper::Mapper,
    sample::{NAME, Sample},
    write,
};
use crate::detection::exposition::{self, Exposition, ExpositionError};

const INSTANCE: &str = "instance";
const EXPORTED: &str = "exported_";

/// A body, as a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scraped {
    /// A version 1 message, with what indicators want alone.
    pub message: Vec<u8>,
    /// Lines that are no samples.
    pub malformed: usize,
    /// Samples of a time that is no news.
    pub untimely: usize,
    /// The first of those.
    pub untimely_first: Option<String>,
}

/// How a Source wants what is scraped to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// The series' own labels win.
    pub honor_labels: bool,
    /// A sample is one of the time that it names.
    pub honor_timestamps: bool,
}

impl From<&DiscoverySpec> for Manner {
    fn from(spec: &DiscoverySpec) -> Self {
        Self {
            honor_labels: spec.honor_labels.unwrap_or(false),
            honor_timestamps: spec.honor_timestamps.unwrap_or(true),
        }
    }
}

/// The labels that all series of an endpoint are given: its own win over its source's, and an
/// `instance` that either names over its address.
#[must_use]
pub fn given_labels(
    source: &BTreeMap<String, String>,
    endpoint: &Endpoint,
) -> BTreeMap<String, String> {
    let mut given = source.clone();
    given.extend(endpoint.labels.clone());
    given.entry(INSTANCE.to_owned()).or_insert_with(|| endpoint.address.clone());
    given
}

/// Reads a body.
///
/// # Errors
/// When it is no exposition, or too much of it is wanted.
pub fn read(
    body: &str,
    mapper: &Mapper,
    given: &BTreeMap<String, String>,
    manner: Manner,
    now_ms: i64,
) -> Result<Scraped, ExpositionError> {
    let heeded = manner.honor_timestamps.then_some(now_ms);
    let (read, told) = exposition::parse_told(body, |name| mapper.wants(name), heeded)?;
    let mut message = Vec::new();
    for (sample, told) in read.samples.iter().zip(told) {
        let mut labels = labelled(&sample.labels, given, manner.honor_labels);
        labels.insert(NAME.to_owned(), sample.name.clone());
        let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        write::put_typed_series(
            &mut message,
            labels,
            &[Sample { at_ms: told.at_ms.unwrap_or(now_ms), value: sample.value }],
            told.kind,
        );
    }
    let Exposition { malformed, untimely, untimely_first, .. } = read;
    Ok(Scraped { message, malformed, untimely, untimely_first })
}

fn labelled(
    own: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
    honor_labels: bool,
) -> BTreeMap<String, String> {
    let mut labels = given.clone();
    if honor_labels {
        labels.extend(own.clone());
        return labels;
    }
    let clash = |name: &str| given.get(name).is_some_and(|given| !given.is_empty());
    for (name, value) in own.iter().filter(|(name, _)| !clash(name)) {
        labels.insert(name.clone(), value.clone());
    }
    for (name, value) in own.iter().filter(|(name, _)| clash(name)) {
        let mut exported = format!("{EXPORTED}{name}");
        while labels.contains_key(&exported) {
            exported.insert_str(0, EXPORTED);
        }
        labels.insert(exported, value.clone());
    }
    labels
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::detection::intake::{
        mapper::tests::state,
        sample::{Kind, SeriesView},
    };

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn endpoint(labels: &[(&str, &str)]) -> Endpoint {
        Endpoint { labels: map(labels), ..Endpoint::plain("h:9100".to_owned()) }
    }

    #[test]
    fn nobody_who_is_scraped_speaks_for_others() {
        let given = given_labels(&map(&[("job", "liar"), ("env", "")]), &endpoint(&[]));
        let own = map(&[("job", "victim"), ("instance", "victim-1"), ("env", "prod"), ("a", "b")]);
        let expected = map(&[
            ("job", "liar"),
            ("instance", "h:9100"),
            ("exported_job", "victim"),
            ("exported_instance", "victim-1"),
            ("env", "prod"),
            ("a", "b"),
        ]);
        assert_eq!(labelled(&own, &given, false), expected);
        // A federated Prometheus speaks for those that it has scraped itself.
        let honoured = labelled(&own, &given, true);
        assert_eq!(
            (honoured["job"].as_str(), honoured["instance"].as_str()),
            ("victim", "victim-1")
        );
    }

    #[test]
    fn labels_that_were_exported_before_keep_their_names() {
        let given = map(&[("job", "liar"), ("instance", "h:9100")]);
        let own = map(&[("job", "x"), ("exported_job", "y"), ("exported_exported_job", "z")]);
        let labels = labelled(&own, &given, false);
        assert_eq!(labels["exported_job"], "y");
        assert_eq!(labels["exported_exported_job"], "z");
        assert_eq!(labels["exported_exported_exported_job"], "x");
    }

    #[test]
    fn the_nearest_list_names_the_instance() {
        let source = map(&[("job", "web"), ("instance", "far")]);
        assert_eq!(given_labels(&map(&[]), &endpoint(&[]))["instance"], "h:9100");
        assert_eq!(given_labels(&source, &endpoint(&[]))["instance"], "far");
        let near = given_labels(&source, &endpoint(&[("instance", "near"), ("job", "db")]));
        assert_eq!((near["instance"].as_str(), near["job"].as_str()), ("near", "db"));
    }

    #[test]
    fn samples_are_of_the_time_that_they_name_unless_the_source_says_otherwise() {
        let mapper = Mapper::of(&state(), "default");
        let given = map(&[("job", "solo"), ("instance", "h:9100")]);
        let now = 1_700_000_000_000;
        let times = |body: &str, honor_timestamps| {
            let manner = Manner { honor_labels: false, honor_timestamps };
            let scraped = read(body, &mapper, &given, manner, now).unwrap();
            let mut times = Vec::new();
            write::read(write::Version::V1, &scraped.message, |view: &mut SeriesView<'_>, _| {
                times.extend(view.samples.iter().map(|sample| sample.at_ms));
            })
            .unwrap();
            (times, scraped.untimely)
        };
        assert_eq!(times("load 1 1699999990000\n", true), (vec![now - 10_000], 0));
        assert_eq!(times("load 1 1699999990000\n", false), (vec![now], 0));
        // It has stood still for long.
        assert_eq!(times("load 1 1699999000000\n", true), (vec![], 1));
        assert_eq!(times("load 1 1699999000000\n", false), (vec![now], 0));
    }

    #[test]
    fn what_is_wanted_is_written_with_its_type_and_what_is_malformed_is_counted() {
        let mapper = Mapper::of(&state(), "default");
        let body = "# TYPE load gauge\nload 0.5\nnonsense\nup 1\n";
        let given = map(&[("job", "solo"), ("instance", "h:9100")]);
        let manner = Manner { honor_labels: false, honor_timestamps: true };
        let scraped = read(body, &mapper, &given, manner, 7).unwrap();
        assert_eq!(scraped.malformed, 1);
        let mut seen = Vec::new();
        write::read(write::Version::V1, &scraped.message, |view: &mut SeriesView<'_>, _| {
            view.check().unwrap();
            seen.push((view.name().to_owned(), view.kind, view.samples.clone()));
        })
        .unwrap();
        let sample = Sample { at_ms: 7, value: 0.5 };
        assert_eq!(seen, [("load".to_owned(), Kind::Gauge, vec![sample])]);
        assert!(read("<html>", &mapper, &given, manner, 7).is_err());
    }
}
