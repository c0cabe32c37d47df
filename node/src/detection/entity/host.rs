//! What the agent of an instance could not read of its host, and whom that concerns.
//!
//! An agent names each part that it cannot read, with the reason. An indicator that is made of such a part has no
//! series, which for a counter looks as if nothing had happened yet: it is silent, for that reason. What
//! is scraped or pushed under the same name has the word all the same.

use std::collections::BTreeMap;

use medic_proto::fleet::v1::HostStatus;
use medic_state::manifest::{IndicatorSource, IndicatorSpec, ServiceSpec};

use super::{Entity, Now};

/// Failed logins since anybody counts, as agents name them.
const AUTH_FAILURES: &str = "medic_host_auth_failures_total";
/// The part that they are read from.
const AUTH: &str = "auth_failures";
/// Parts of a host as agents name them, and how the series begin that each gives.
const PARTS: [(&str, &[&str]); 12] = [
    ("cpu", &["node_cpu", "node_boot_time_seconds"]),
    ("memory", &["node_memory_", "medic_host_memory_", "medic_host_swap_"]),
    ("load", &["node_load"]),
    ("oom", &["node_vmstat_oom_kill"]),
    ("pressure.cpu", &["node_pressure_cpu_"]),
    ("pressure.memory", &["node_pressure_memory_"]),
    ("pressure.io", &["node_pressure_io_"]),
    ("files", &["node_filefd_", "medic_host_filefd_"]),
    ("network", &["node_network_"]),
    ("disks", &["node_disk_"]),
    ("filesystems", &["node_filesystem_", "medic_host_filesystem_"]),
    (AUTH, &[AUTH_FAILURES]),
];
/// Characters of a reason that are told on; it comes from another host.
const REASON_MAX: usize = 200;

/// What is not known of the host.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Parts that each indicator is made of.
    needs: Vec<(String, &'static str)>,
    /// Why an indicator has no value, by its name.
    why: BTreeMap<String, String>,
}

impl Unread {
    pub(super) fn new(service: &ServiceSpec) -> Self {
        Self { needs: service.indicators.iter().flat_map(needs).collect(), ..Self::default() }
    }

    /// Why an indicator has no value, where its host does not give it one.
    pub(super) fn why(&self, indicator: &str) -> Option<&String> {
        self.why.get(indicator)
    }

    fn note(&mut self, host: Option<&HostStatus>) {
        self.why.clear();
        for (name, part) in &self.needs {
            if let Some(why) = host.and_then(|host| host.missing.get(*part)) {
                self.why.insert(name.clone(), cannot_read(why));
            }
        }
    }
}

fn needs(indicator: &IndicatorSpec) -> Vec<(String, &'static str)> {
    let selectors = match &indicator.source {
        IndicatorSource::Gauge(one) | IndicatorSource::Rate(one) => vec![one],
        IndicatorSource::Ratio { of, to } => vec![of, to],
        IndicatorSource::Quantile { histogram, .. } => vec![histogram],
    };
    let of_part = |names: &[&str]| {
        let begins = |one: &&String| names.iter().any(|name| one.trim_start().starts_with(name));
        selectors.iter().any(begins)
    };
    let parts = PARTS.iter().filter(|(_, names)| of_part(names));
    parts.map(|(part, _)| (indicator.name.clone(), *part)).collect()
}

fn cannot_read(why: &str) -> String {
    let why: String = why.chars().take(REASON_MAX).collect();
    format!("its agent cannot read it: {why}")
}

impl Entity {
    /// What its agent says of the host; `None`: nothing of late.
    pub fn on_host(&mut self, host: Option<&HostStatus>, now: Now) {
        self.unread.note(host);
        if self.has_process {
            return;
        }
        let counted =
            host.and_then(|host| host.samples.iter().find(|one| one.name == AUTH_FAILURES));
        match (host, counted) {
            (_, Some(sample)) => self.guard.count(sample.value, now),
            (Some(host), None) => {
                let why = host.missing.get(AUTH).map(|why| cannot_read(why));
                self.guard.uncounted(why, "its agent no longer counts failed logins");
            }
            (None, None) => self.guard.uncounted(None, "its agent says nothing of its host"),
        }
        self.heed_guard(now);
    }
}
