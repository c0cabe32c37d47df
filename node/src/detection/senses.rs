//! The network as detection sees it, behind a trait: real sockets here, a simulated fleet in
//! simulations and tests.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use medic_proto::fleet::v1::HostStatus;
use medic_state::{manifest::ProbeKind, symptom::Target};
use metrics::{counter, histogram};
use tokio::time::Instant;

use super::{
    exposition::Sample,
    indicator::Values,
    intake::{Hub, kube::book::EventNews, log::HandedLog},
    metrics::Metric,
    observe::{
        others::{Check, Others},
        quorum::Look,
    },
    probe::{self, Certificates, Outcome, Validity},
    scrape::{self, ScrapeError},
};
use crate::world::{FleetView, Seen};

/// Looks at the world. Every call ends within its timeout.
#[async_trait]
pub trait Senses: Send + Sync + 'static {
    /// Runs one check; placeholders are filled in already.
    async fn probe(&self, target: &Target, kind: &ProbeKind, timeout: Duration) -> Outcome;
    /// What at most so many other nodes see of a declared check, each within `limit`; nobody, where there
    /// is no way to them.
    async fn elsewhere(&self, check: &Check, others: usize, limit: Duration) -> Vec<Look> {
        let _ = (check, others, limit);
        Vec::new()
    }
    /// Fetches an exposition.
    async fn scrape(&self, url: &str, timeout: Duration) -> Result<String, ScrapeError>;
    /// The last report of an agent about an instance.
    fn seen(&self, target: &Target) -> Option<Seen>;
    /// Whether the agent is connected to this node.
    fn connected(&self, agent: &str) -> bool;
    /// What an agent last said of its host, and how long ago.
    fn host(&self, agent: &str) -> Option<(Arc<HostStatus>, Duration)> {
        let _ = agent;
        None
    }
    /// Samples of an instance's log.
    fn log(&self, target: &Target) -> Vec<Sample> {
        let _ = target;
        Vec::new()
    }
    /// What is new in an instance's log, in words.
    fn log_news(&self, target: &Target) -> Option<String> {
        let _ = target;
        None
    }
    /// What was learnt of an instance's log, for whoever watches it next.
    fn log_learnt(&self, target: &Target) -> Option<HandedLog> {
        let _ = target;
        None
    }
    /// What was learnt of an instance's log elsewhere.
    fn log_go_on(&self, target: &Target, handed: &HandedLog) {
        let _ = (target, handed);
    }
    /// What its cluster says of an instance, as samples.
    fn cluster(&self, target: &Target) -> Vec<Sample> {
        let _ = target;
        Vec::new()
    }
    /// What is new of an instance in its cluster.
    fn cluster_news(&self, target: &Target) -> EventNews {
        let _ = target;
        EventNews::default()
    }
    /// The certificate that was last shown at a URL.
    fn certificate(&self, url: &str) -> Option<Validity> {
        let _ = url;
        None
    }
    /// Indicators of an instance from what was pushed, when there is news of them.
    fn pushed(&self, target: &Target) -> Option<Values> {
        let _ = target;
        None
    }
}

/// Real sockets and agents.
pub struct NetSenses {
    fleet: Arc<dyn FleetView>,
    client: Result<reqwest::Client, String>,
    intake: Option<Arc<Hub>>,
    others: Option<Arc<Others>>,
    certificates: Certificates,
}

impl NetSenses {
    /// One per process: it holds the HTTP client's TLS roots.
    #[must_use]
    pub fn new(fleet: Arc<dyn FleetView>) -> Arc<Self> {
        Self::with(fleet, None, None)
    }

    /// With what is pushed to this node, and a way to ask other nodes.
    #[must_use]
    pub fn with(
        fleet: Arc<dyn FleetView>,
        intake: Option<Arc<Hub>>,
        others: Option<Arc<Others>>,
    ) -> Arc<Self> {
        let client = probe::client().map_err(|error| format!("HTTP client: {error}"));
        Arc::new(Self { fleet, client, intake, others, certificates: Certificates::default() })
    }
}

impl std::fmt::Debug for NetSenses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetSenses").finish_non_exhaustive()
    }
}

#[async_trait]
impl Senses for NetSenses {
    async fn probe(&self, target: &Target, kind: &ProbeKind, timeout: Duration) -> Outcome {
        let begun = Instant::now();
        let outcome = match (kind, &self.client) {
            (ProbeKind::Process(_), _) => probe::check_process(self.fleet.seen(target).as_ref()),
            (_, Ok(client)) => probe::run(client, kind, timeout, &self.certificates).await,
            (_, Err(error)) => Outcome::NoData(error.clone()),
        };
        let labels = [("kind", probe::kind_name(kind)), ("outcome", outcome.label())];
        histogram!(Metric::ProbeDuration.name(), &labels).record(begun.elapsed());
        outcome
    }

    async fn elsewhere(&self, check: &Check, others: usize, limit: Duration) -> Vec<Look> {
        match &self.others {
            Some(all) => all.look(check, others, limit).await,
            None => Vec::new(),
        }
    }

    async fn scrape(&self, url: &str, timeout: Duration) -> Result<String, ScrapeError> {
        let begun = Instant::now();
        let client = self.client.as_ref().map_err(|error| ScrapeError::Local(error.clone()))?;
        let result = scrape::fetch(client, url, timeout, &self.certificates).await;
        histogram!(Metric::ScrapeDuration.name()).record(begun.elapsed());
        if let Err(error) = &result {
            counter!(Metric::ScrapeErrors.name(), "reason" => error.reason()).increment(1);
        }
        result
    }

    fn seen(&self, target: &Target) -> Option<Seen> {
        self.fleet.seen(target)
    }

    fn connected(&self, agent: &str) -> bool {
        self.fleet.connected(agent)
    }

    fn host(&self, agent: &str) -> Option<(Arc<HostStatus>, Duration)> {
        self.fleet.host(agent)
    }

    fn log(&self, target: &Target) -> Vec<Sample> {
        self.intake.as_ref().map(|intake| intake.log_samples(target)).unwrap_or_default()
    }

    fn log_news(&self, target: &Target) -> Option<String> {
        self.intake.as_ref()?.log_news(target)
    }

    fn log_learnt(&self, target: &Target) -> Option<HandedLog> {
        self.intake.as_ref()?.log_learnt(target)
    }

    fn log_go_on(&self, target: &Target, handed: &HandedLog) {
        if let Some(intake) = &self.intake {
            intake.log_go_on(target, handed);
        }
    }

    fn cluster(&self, target: &Target) -> Vec<Sample> {
        self.intake.as_ref().map(|intake| intake.event_samples(target)).unwrap_or_default()
    }

    fn cluster_news(&self, target: &Target) -> EventNews {
        self.intake.as_ref().map(|intake| intake.event_news(target)).unwrap_or_default()
    }

    fn certificate(&self, url: &str) -> Option<Validity> {
        self.certificates.of(url)
    }

    fn pushed(&self, target: &Target) -> Option<Values> {
        self.intake.as_ref()?.values(target)
    }
}
