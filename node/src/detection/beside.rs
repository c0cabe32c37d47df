//! What stands beside an instance: its host, its log, its certificates, events of its cluster. As samples, so that
//! indicators select them as they select what is scraped.
//!
//! ```text
//!   agent's report ─► node_…, medic_host_…           ┐
//!   its word on the process ─► medic_process_…       │
//!   lines of its log ─► medic_log_…                  │
//!   events of its cluster ─► medic_kube_…            ├─► samples ─► indicators ─► Entity
//!   https looked at ─► probe_ssl_…, medic_certificate_…┘
//! ```
//!
//! Pure but for what [`Senses`] remembers; nothing here waits. Invariant: what is old is no sample: an
//! indicator whose host is silent has no data, never an old value.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use medic_proto::fleet::v1::{HostStatus, InstanceStatus};
use medic_state::{
    Timestamp,
    manifest::{InstanceSpec, ProbeKind, ServiceSpec},
    symptom::Target,
};

use super::{
    exposition::{Exposition, Sample},
    fill::fill,
    indicator::Indicators,
    probe::{Liveness, Validity, liveness},
    senses::Senses,
};

/// Agents look at their hosts every five seconds; what is older than three looks says nothing.
const HOST_AGE_MAX: Duration = Duration::from_secs(15);

/// An instance with all that stands beside it.
#[derive(Debug)]
pub(super) struct Whose<'a> {
    pub(super) target: &'a Target,
    pub(super) service: &'a ServiceSpec,
    pub(super) instance: &'a InstanceSpec,
}

impl Whose<'_> {
    /// The samples that an indicator may want.
    pub(super) fn samples(
        &self,
        senses: &dyn Senses,
        indicators: &Indicators,
        now: Timestamp,
    ) -> Exposition {
        let mut samples = Vec::new();
        if let Some(host) = host(senses, self.instance) {
            samples.extend(of_host(&host, indicators));
        }
        if let Some(seen) = senses.seen(self.target)
            && liveness(Some(&seen)) == Liveness::Running
        {
            samples.extend(of_process(&seen.status));
        }
        samples.extend(senses.log(self.target));
        samples.extend(senses.cluster(self.target));
        let shown = self.encrypted().into_iter().filter_map(|url| senses.certificate(&url));
        samples.extend(of_certificates(shown, now));
        samples.retain(|sample| indicators.wants(&sample.name));
        Exposition { total: samples.len(), samples, ..Exposition::default() }
    }

    /// Where it is looked at through TLS.
    fn encrypted(&self) -> Vec<String> {
        let probed = self.service.probes.iter().filter_map(|probe| match &probe.kind {
            ProbeKind::Http(url) | ProbeKind::Grpc(url) => Some(url),
            ProbeKind::Tcp(_) | ProbeKind::Process(_) => None,
        });
        let all = probed.chain(self.service.scrape.as_ref().map(|scrape| &scrape.url));
        all.filter(|url| url.starts_with("https:"))
            .map(|url| fill(url, &self.target.service, self.service, self.instance))
            .collect()
    }
}

/// Whether a series of this name, or a selector that begins with it, is of a host and not of an instance on it.
pub(super) fn names_host(selector: &str) -> bool {
    let selector = selector.trim_start();
    selector.starts_with("node_") || selector.starts_with("medic_host_")
}

fn of_host<'h>(
    host: &'h HostStatus,
    indicators: &'h Indicators,
) -> impl Iterator<Item = Sample> + 'h {
    host.samples
        .iter()
        // An agent says how its host does, and nothing else.
        .filter(move |sample| names_host(&sample.name) && indicators.wants(&sample.name))
        .map(|sample| Sample {
            name: sample.name.clone(),
            labels: sample.labels.clone().into_iter().collect(),
            value: sample.value,
        })
}

/// What its agent says of a process that runs, with all that belong to it.
fn of_process(status: &InstanceStatus) -> Vec<Sample> {
    let flag = |said: &str| f64::from(u8::from(!said.is_empty()));
    let usage = [
        ("medic_process_resident_memory_bytes", status.rss_bytes as f64),
        ("medic_process_cpu_seconds_total", status.cpu_ms as f64 / 1e3),
        ("medic_process_open_fds", f64::from(status.open_files)),
    ];
    let guard = status.guard.iter().flat_map(|guard| {
        [
            ("medic_process_unexpected_listeners", f64::from(guard.unexpected_listeners)),
            ("medic_process_executable_modified", flag(&guard.executable)),
            ("medic_process_config_modified", flag(&guard.config)),
            ("medic_process_privilege_changes_total", guard.privilege_changes as f64),
        ]
    });
    let sample = |(name, value): (&str, f64)| Sample {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        value,
    };
    usage.into_iter().chain(guard).map(sample).collect()
}

/// What the agent of an instance says of its host, if it has of late.
pub(super) fn host(senses: &dyn Senses, instance: &InstanceSpec) -> Option<Arc<HostStatus>> {
    let (host, age) = senses.host(instance.agent.as_ref()?)?;
    (age <= HOST_AGE_MAX).then_some(host)
}

/// Of several certificates the one that ends first, and the one that has lived most of its time.
fn of_certificates(shown: impl Iterator<Item = Validity>, now: Timestamp) -> Vec<Sample> {
    let now_s = now.0 as f64 / 1e3;
    let (mut ends, mut used) = (f64::INFINITY, f64::NEG_INFINITY);
    for Validity { not_before_s, not_after_s } in shown {
        let (begins, end) = (not_before_s as f64, not_after_s as f64);
        ends = ends.min(end);
        used = used.max((now_s - begins) / (end - begins).max(1.0));
    }
    if ends.is_infinite() {
        return Vec::new();
    }
    [
        // As Prometheus' blackbox exporter has it.
        ("probe_ssl_earliest_cert_expiry", ends),
        ("medic_certificate_seconds_left", ends - now_s),
        ("medic_certificate_used_ratio", used),
    ]
    .map(|(name, value)| Sample { name: name.to_owned(), labels: BTreeMap::new(), value })
    .to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use async_trait::async_trait;
    use medic_proto::fleet::v1::{HostSample, ProcessGuard, ProcessState};

    use super::*;
    use crate::{
        detection::{probe::Outcome, scrape::ScrapeError},
        world::Seen,
    };

    /// Remembers, and looks at nothing.
    struct Remembers {
        host_age: Duration,
        ends: BTreeMap<String, Validity>,
    }

    #[async_trait]
    impl Senses for Remembers {
        async fn probe(&self, _: &Target, _: &ProbeKind, _: Duration) -> Outcome {
            Outcome::Good
        }
        async fn scrape(&self, _: &str, timeout: Duration) -> Result<String, ScrapeError> {
            Err(ScrapeError::Timeout(timeout))
        }
        fn seen(&self, _: &Target) -> Option<Seen> {
            let guard = ProcessGuard { unexpected_listeners: 2, ..ProcessGuard::default() };
            let status = InstanceStatus {
                state: ProcessState::Running.into(),
                rss_bytes: 4_096,
                guard: Some(guard),
                ..InstanceStatus::default()
            };
            Some(Seen { status, age: self.host_age })
        }
        fn connected(&self, _: &str) -> bool {
            false
        }
        fn host(&self, agent: &str) -> Option<(Arc<HostStatus>, Duration)> {
            let sample = |name: &str, value| HostSample {
                name: name.to_owned(),
                labels: BTreeMap::new(),
                value,
            };
            let samples = vec![sample("node_load1", 3.0), sample("up", 0.0)];
            let host = HostStatus { samples, ..HostStatus::default() };
            (agent == "agent-1").then(|| (Arc::new(host), self.host_age))
        }
        fn log(&self, _: &Target) -> Vec<Sample> {
            let name = "medic_log_lines_total".to_owned();
            vec![Sample { name, labels: BTreeMap::new(), value: 7.0 }]
        }
        fn certificate(&self, url: &str) -> Option<Validity> {
            self.ends.get(url).copied()
        }
    }

    fn service() -> ServiceSpec {
        serde_json::from_value(serde_json::json!({
            "instances": [{"name": "web-1", "agent": "agent-1", "port": 443}],
            "probes": [{"name": "a", "http": "https://a:${port}/"}, {"name": "b", "grpc": "https://b"},
                {"name": "c", "http": "http://c/"}],
            "indicators": [
                {"name": "load", "source": {"gauge": "node_load1"}},
                {"name": "lines", "source": {"rate": "medic_log_lines_total"}},
                {"name": "rss", "source": {"gauge": "medic_process_resident_memory_bytes"}},
                {"name": "ports", "source": {"gauge": "medic_process_unexpected_listeners"}},
                {"name": "up", "source": {"gauge": "up"}},
                {"name": "cert_expiry", "source": {"gauge": "probe_ssl_earliest_cert_expiry"}},
                {"name": "cert_used", "source": {"gauge": "medic_certificate_used_ratio"}},
            ],
        }))
        .unwrap()
    }

    fn told(senses: &Remembers, service: &ServiceSpec) -> BTreeMap<String, f64> {
        let target = crate::topology::target("default", "web", "web-1");
        let whose = Whose { target: &target, service, instance: &service.instances[0] };
        let now = Timestamp(5_000_000);
        let read = whose.samples(senses, &Indicators::of(service), now);
        read.samples.into_iter().map(|sample| (sample.name, sample.value)).collect()
    }

    #[test]
    fn what_indicators_want_is_gathered() {
        let ends = [
            ("https://a:443/", Validity { not_before_s: 0, not_after_s: 10_000 }),
            ("https://b", Validity { not_before_s: 4_000, not_after_s: 9_000 }),
            ("http://c/", Validity { not_before_s: 0, not_after_s: 1 }),
        ];
        let ends = ends.map(|(url, ends)| (url.to_owned(), ends)).into();
        let senses = Remembers { host_age: Duration::from_secs(1), ends };
        let told = told(&senses, &service());
        let expected: BTreeMap<String, f64> = [
            ("node_load1", 3.0),
            ("medic_process_resident_memory_bytes", 4_096.0),
            ("medic_process_unexpected_listeners", 2.0),
            ("medic_log_lines_total", 7.0),
            ("probe_ssl_earliest_cert_expiry", 9_000.0),
            ("medic_certificate_used_ratio", 0.5),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        assert_eq!(told, expected, "an agent that speaks of `up` speaks of what is not its own");
    }

    #[test]
    fn a_silent_host_says_nothing() {
        let senses = Remembers { host_age: Duration::from_secs(16), ends: BTreeMap::new() };
        assert_eq!(
            told(&senses, &service()).into_keys().collect::<Vec<_>>(),
            ["medic_log_lines_total"]
        );
    }
}
