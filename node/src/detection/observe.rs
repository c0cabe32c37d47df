//! Looking at one instance, once: all its probes and one scrape, now.

pub mod others;
pub mod peers;
pub mod quorum;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use medic_raft::env::{Clock, Env};
use medic_state::{
    manifest::{InstanceSpec, ProbeKind, ServiceSpec},
    symptom::Target,
};
use tokio::time::Instant;

use super::{
    beside::Whose,
    exposition::{self, Exposition},
    fill::fill,
    indicator::{Counters, Indicators, Values},
    metrics::Metric,
    probe::Outcome,
    scrape::ScrapeError,
    senses::{NetSenses, Senses},
};
use crate::world::{FleetView, Observation};

/// Instances whose counters are remembered; beyond it the longest unseen is forgotten (its next
/// look gives no rates).
const REMEMBERED_MAX: usize = 4_096;
/// One check takes at most this, whatever the manifest says: an observation ends within seconds.
pub const CHECK_TIME_MAX: Duration = Duration::from_secs(5);
/// Time one scrape may take.
pub const SCRAPE_TIME_MAX: Duration = Duration::from_secs(3);

/// Where counters were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Scrape,
    Beside,
}

/// Observes instances on demand, and remembers their counters between looks.
pub struct Observer {
    senses: Arc<dyn Senses>,
    env: Env,
    begun: Instant,
    counters: Mutex<BTreeMap<(Target, Origin), Counters>>,
}

impl Observer {
    /// Over real sockets.
    #[must_use]
    pub fn new(fleet: Arc<dyn FleetView>, env: Env) -> Self {
        Self::with(NetSenses::new(fleet), env)
    }

    /// Over any senses.
    #[must_use]
    pub fn with(senses: Arc<dyn Senses>, env: Env) -> Self {
        Self { senses, env, begun: Instant::now(), counters: Mutex::default() }
    }

    /// All probes and one scrape of one instance, at the same time, and what stands beside it; ends within
    /// [`CHECK_TIME_MAX`].
    ///
    /// `probes` are by probe name and `metrics` by indicator name. `errors` are by
    /// `probe.<name>` (why it is bad, or has no data), `scrape`, and `metric.<name>`. Rates, ratios
    /// and quantiles are absent from the first look and cover the time since the previous one.
    pub async fn observe(
        &self,
        tenant: &str,
        service_name: &str,
        service: &ServiceSpec,
        instance: &InstanceSpec,
    ) -> Observation {
        let target = Target {
            tenant: tenant.to_owned(),
            service: service_name.to_owned(),
            instance: instance.name.clone(),
        };
        let filled = |text: &str| fill(text, service_name, service, instance);
        let checks = service.probes.iter().map(|probe| {
            let kind = fill_kind(&probe.kind, filled);
            let timeout = probe.timeout.as_duration().min(CHECK_TIME_MAX);
            let (senses, target) = (&self.senses, &target);
            async move { (probe.name.clone(), senses.probe(target, &kind, timeout).await) }
        });
        let (probes, values) =
            futures::join!(join_all(checks), self.scrape(&target, service, filled));
        let mut seen = Observation { at: self.env.clock.now(), ..Observation::default() };
        for (name, outcome) in probes {
            let (good, why) = match outcome {
                Outcome::Good => (Some(true), None),
                Outcome::Bad(failure) => (Some(false), Some(failure.to_string())),
                Outcome::NoData(why) => (None, Some(why)),
            };
            if let Some(why) = why {
                seen.errors.insert(format!("probe.{name}"), why);
            }
            if let Some(good) = good {
                seen.probes.insert(name, good);
            }
        }
        match values {
            Ok(values) => {
                seen.metrics = values.values;
                let missing = values.missing.into_iter();
                seen.errors.extend(missing.map(|(name, why)| (format!("metric.{name}"), why)));
            }
            Err(error) => {
                seen.errors.insert("scrape".to_owned(), error.to_string());
            }
        }
        for (name, value) in self.beside(&target, service, instance) {
            seen.errors.remove(&format!("metric.{name}"));
            seen.metrics.entry(name).or_insert(value);
        }
        seen
    }

    async fn scrape(
        &self,
        target: &Target,
        service: &ServiceSpec,
        filled: impl Fn(&str) -> String,
    ) -> Result<Values, ScrapeError> {
        let Some(spec) = &service.scrape else { return Ok(Values::default()) };
        let indicators = Indicators::of(service);
        let key = (target.clone(), Origin::Scrape);
        let mut before = self.remembered().remove(&key);
        let result = scrape_once(self, &filled(&spec.url), &indicators, &mut before).await;
        if let Some(counters) = before {
            self.remember(key, counters);
        }
        result
    }

    /// Indicators from what stands beside an instance.
    fn beside(
        &self,
        target: &Target,
        service: &ServiceSpec,
        instance: &InstanceSpec,
    ) -> BTreeMap<String, f64> {
        let indicators = Indicators::of(service);
        let whose = Whose { target, service, instance };
        let read = whose.samples(&*self.senses, &indicators, self.env.clock.now());
        if read.samples.is_empty() {
            return BTreeMap::new();
        }
        let key = (target.clone(), Origin::Beside);
        let mut before = self.remembered().remove(&key);
        let values = indicators.compute(&read, self.begun.elapsed(), &mut before).values;
        if let Some(counters) = before {
            self.remember(key, counters);
        }
        values
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, BTreeMap<(Target, Origin), Counters>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, target: (Target, Origin), counters: Counters) {
        let mut all = self.remembered();
        if all.len() >= REMEMBERED_MAX
            && let Some(oldest) =
                all.iter().min_by_key(|(_, counters)| counters.at()).map(|(t, _)| t.clone())
        {
            all.remove(&oldest);
        }
        all.insert(target, counters);
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// Fills placeholders in a check.
pub(super) fn fill_kind(kind: &ProbeKind, filled: impl Fn(&str) -> String) -> ProbeKind {
    match kind {
        ProbeKind::Http(text) => ProbeKind::Http(filled(text)),
        ProbeKind::Tcp(text) => ProbeKind::Tcp(filled(text)),
        ProbeKind::Grpc(text) => ProbeKind::Grpc(filled(text)),
        ProbeKind::Process(is) => ProbeKind::Process(*is),
    }
}

/// One scrape with its indicators; a failed one leaves the remembered counters as they were.
async fn scrape_once(
    observer: &Observer,
    url: &str,
    indicators: &Indicators,
    counters: &mut Option<Counters>,
) -> Result<Values, ScrapeError> {
    let Observer { senses, env, begun, .. } = observer;
    let (read, at) = read_once(&**senses, &*env.clock, url, indicators).await?;
    Ok(computed(indicators, &read, at.saturating_duration_since(*begun), counters).0)
}

/// One scrape, read, and when it came. What says that it is too old to be news is left out.
pub(super) async fn read_once(
    senses: &dyn Senses,
    clock: &dyn Clock,
    url: &str,
    indicators: &Indicators,
) -> Result<(Exposition, Instant), ScrapeError> {
    let body = senses.scrape(url, SCRAPE_TIME_MAX).await?;
    let at = Instant::now();
    let now_ms = i64::try_from(clock.now().0).unwrap_or(i64::MAX);
    let read = exposition::parse_at(&body, |name| indicators.wants(name), now_ms);
    let read = read.inspect_err(|_| {
        metrics::counter!(Metric::ScrapeErrors.name(), "reason" => "body").increment(1);
    })?;
    if read.malformed > 0 {
        let count = u64::try_from(read.malformed).unwrap_or(u64::MAX);
        metrics::counter!(Metric::MalformedLines.name()).increment(count);
    }
    Ok((read, at))
}

/// The indicators of what was scraped. What is no measurement is counted, and told in words.
pub(super) fn computed(
    indicators: &Indicators,
    read: &Exposition,
    at: Duration,
    counters: &mut Option<Counters>,
) -> (Values, Option<Complaint>) {
    let values = indicators.compute(read, at, counters);
    let refused = refused(read, counters.as_ref());
    for (reason, samples, _) in &refused {
        if let Some(reason) = reason.filter(|_| *samples > 0) {
            metrics::counter!(Metric::RefusedSamples.name(), "reason" => reason)
                .increment(*samples);
        }
    }
    (values, complaint(refused))
}

/// What of a scrape is no measurement, in words for whoever runs what is scraped; and the kinds of it, a bit each,
/// which tell whether that is news.
pub(super) type Complaint = (String, u8);

/// The label of its metric, how much there is of it, and the first of it.
type Refused = (Option<&'static str>, u64, Option<String>);

/// What of a scrape is no measurement. Malformed lines have a metric of their own.
fn refused(read: &Exposition, counters: Option<&Counters>) -> [Refused; 4] {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let mut not_finite = read.samples.iter().filter(|sample| !sample.value.is_finite()).peekable();
    let first = not_finite.peek().map(|sample| format!("{} {}", sample.name, sample.value));
    [
        (None, count(read.malformed), read.malformed_first.clone()),
        (Some("not_finite"), count(not_finite.count()), first),
        (Some("negative_counter"), counters.map_or(0, Counters::negative), None),
        (Some("untimely"), count(read.untimely), read.untimely_first.clone()),
    ]
}

fn complaint(refused: [Refused; 4]) -> Option<Complaint> {
    let says = [
        "lines that are no samples, or repeat one",
        "samples that are not finite",
        "counters below zero",
        "samples that say that they are more than five minutes old, or ten minutes ahead",
    ];
    let (mut words, mut kinds) = (Vec::new(), 0);
    for (at, ((_, count, first), what)) in refused.into_iter().zip(says).enumerate() {
        if count > 0 {
            kinds |= 1 << at;
            let first = first.map(|first| format!(" (the first: `{first}`)")).unwrap_or_default();
            words.push(format!("{count} {what}{first}"));
        }
    }
    (!words.is_empty()).then(|| (words.join(", "), kinds))
}

#[cfg(test)]
mod tests;
