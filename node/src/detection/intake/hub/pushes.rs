//! What comes in at the doors for telemetry.

use async_trait::async_trait;
use medic_api::http::{
    Sender,
    push::{Push, PushForm, PushRefusal, PushSink, PushTaken},
};
use medic_raft::LedgerExt as _;
use medic_state::{NodeId, command::INCREASES_SINCE, manifest::SourceKind, symptom::Target};
use metrics::counter;

use super::{
    super::{
        counts::{Counts, Result as Became},
        log::{
            book::INSTANCES_MAX,
            records::{self, Batch},
        },
        mapper::{Allowed, Mapper, NoSource},
        otlp::{self, BadOtlp},
        otlp_json::{self, BadJson},
        tally::{AHEAD_MAX_MS, BEHIND_MAX_MS},
        write::{self, Version},
    },
    Away, Hub, LogLines, Shared, Walked, refusal, too_many_tenants,
};
use crate::detection::{metrics::Metric, runtime::lock};

/// A push, opened and surveyed.
struct Message {
    door: &'static str,
    version: Version,
    message: Vec<u8>,
    samples: usize,
    /// Points that the translation to this form has left out.
    unread: usize,
}

/// What an OTLP body can be refused for.
enum BadBody {
    Otlp(BadOtlp),
    Json(BadJson),
}

impl From<BadBody> for PushRefusal {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::Otlp(error @ BadOtlp::TooLarge) => Self::TooLarge(error.to_string()),
            BadBody::Otlp(error) => Self::Wrong(error.to_string()),
            BadBody::Json(error) => Self::Wrong(error.to_string()),
        }
    }
}

const OTLP: (SourceKind, &str) = (SourceKind::Otlp, "otlp");
const REMOTE_WRITE: (SourceKind, &str) = (SourceKind::RemoteWrite, "remote-write");

const fn kind_of(form: PushForm) -> (SourceKind, &'static str) {
    match form {
        PushForm::RemoteWriteV1 | PushForm::RemoteWriteV2 => REMOTE_WRITE,
        PushForm::OtlpMetrics | PushForm::OtlpLogs => OTLP,
    }
}

impl Hub {
    async fn write(&self, push: Push, version: Version) -> Result<PushTaken, PushRefusal> {
        let shared = self.source_of(push.form, &sender_of(&push))?;
        let Push { tenant, body, .. } = push;
        let opened = self.apart(move || {
            let message = write::open(&body)?;
            let survey = write::survey(version, &message)?;
            Ok((
                survey,
                Message {
                    door: "remote_write",
                    version,
                    message,
                    samples: survey.samples,
                    unread: 0,
                },
            ))
        });
        let (survey, message) = opened.await.map_err(refusal)?;
        counter!(Metric::IntakeFamilies.name()).increment(survey.families as u64);
        self.take(&tenant, shared, message).await
    }

    async fn otlp(&self, push: Push) -> Result<PushTaken, PushRefusal> {
        let shared = self.source_of(push.form, &sender_of(&push))?;
        let tenant = push.tenant.clone();
        // The owner of a series may run a build that would take an increase for a counter.
        let increases = self.ledger.read(|state| state.cluster_version >= INCREASES_SINCE);
        let translated = self.apart(move || {
            let body = opened(push, otlp_json::metrics)?;
            otlp::translate(&body, increases).map_err(BadBody::Otlp)
        });
        let otlp::Translated { message, unread, samples, .. } = translated.await?;
        let message = Message { door: "otlp", version: Version::V1, message, samples, unread };
        self.take(&tenant, shared, message).await
    }

    async fn logs(&self, push: Push) -> Result<PushTaken, PushRefusal> {
        let (shared, allowed) = self.source_of(push.form, &sender_of(&push))?;
        let tenant = push.tenant.clone();
        let read = self.apart(move || {
            let body = opened(push, otlp_json::logs)?;
            records::read(&body).map_err(BadBody::Otlp)
        });
        let batches = read.await?;
        let lines = batches.iter().map(|batch| batch.lines.len()).sum();
        self.pay(&tenant, &shared, lines)?;
        let mapper = lock(&shared).table.mapper().clone();
        let walked = self.sort(&tenant, &mapper, allowed, batches);
        let counts = self.bring(&tenant, mapper.names(allowed), walked).await?;
        counts.record("otlp_logs");
        counts.record_refused(&tenant, "otlp_logs", "");
        let full = (counts.of(Became::Limit) > 0).then(|| {
            let lines = counts.of(Became::Limit);
            format!("{lines} lines are of more instances than the {INSTANCES_MAX} whose logs a node holds")
        });
        let refused = full.or_else(|| counts.complaint(&tenant, 0)).or_else(|| counts.unread());
        Ok(PushTaken { samples: counts.known(), rejected: counts.rejected(), refused })
    }

    /// Keeps the lines of instances that are watched here; gives those of others.
    fn sort(&self, tenant: &str, mapper: &Mapper, allowed: Allowed, batches: Vec<Batch>) -> Walked {
        let mut walked = Walked::default();
        let me = self.ledger.node();
        let now = self.moment();
        for Batch { labels, mut lines, unread } in batches {
            let counts = &mut walked.counts;
            counts.add(Became::Histogram, unread);
            // An old line is no news, whatever it says. Zero: its sender does not say when.
            let told = lines.len();
            lines.retain(|line| line.at_ms == 0 || line.at_ms >= now.wall_ms - BEHIND_MAX_MS);
            counts.add(Became::TooOld, told - lines.len());
            let told = lines.len();
            lines.retain(|line| line.at_ms <= now.wall_ms + AHEAD_MAX_MS);
            counts.add(Became::TooNew, told - lines.len());
            let (service, instance) = match mapper.instance(allowed, &labels) {
                Ok(found) => found,
                Err(why) => {
                    let named = labels.get("service").map_or("", String::as_str);
                    counts.add_refused(super::Refused::NotWatched(why).into(), lines.len(), named);
                    continue;
                }
            };
            let target = crate::topology::target(tenant, service, instance);
            match self.owner(&target) {
                Some(owner) if owner == me => {
                    let became = self.log_taken(&target, &lines);
                    counts.add_refused(became, lines.len(), service);
                }
                Some(owner) => {
                    let (service, instance) = (service.to_owned(), instance.to_owned());
                    let away: &mut Away = walked.away.entry(owner).or_default();
                    away.logs.push(LogLines { service, instance, lines });
                }
                None => counts.add(Became::NoOwner, lines.len()),
            }
        }
        walked
    }

    fn owner(&self, target: &Target) -> Option<NodeId> {
        let shard = medic_state::State::shard_of(target);
        self.ledger.read(|state| state.shards.get(&shard).and_then(|shard| shard.owner))
    }

    fn log_taken(&self, target: &Target, lines: &[records::Line]) -> Became {
        let taken = lock(&self.logs).take(target, lines, self.moment().mono_ms);
        if taken { Became::Taken } else { Became::Limit }
    }

    /// Takes lines of instances that this node watches, from the node that they came in at.
    pub(super) fn take_logs(&self, tenant: &str, mapper: &Mapper, logs: Vec<LogLines>) -> Counts {
        let mut counts = Counts::default();
        let me = self.ledger.node();
        for LogLines { service, instance, lines } in logs {
            let target = crate::topology::target(tenant, &service, &instance);
            let declared = mapper.service(&service).is_some_and(|rule| rule.has(&instance));
            let became = match (declared, self.owner(&target) == Some(me)) {
                (false, _) => Became::Unmapped,
                (true, false) => Became::NoOwner,
                (true, true) => self.log_taken(&target, &lines),
            };
            counts.add_refused(became, lines.len(), &service);
        }
        counts
    }

    /// The tenant's table, and the sources that the push may speak for.
    fn source_of(&self, form: PushForm, sender: &Sender) -> Result<(Shared, Allowed), PushRefusal> {
        let tenant = &sender.tenant;
        // A tenant without such a source costs no table.
        let mapper = match lock(&self.tenants).get(tenant).cloned() {
            Some(_) => None,
            None => Some(self.ledger.read(|state| Mapper::of_sources(state, tenant))),
        };
        let allowed = |mapper: &Mapper| {
            let token = sender.token.as_deref();
            let allowed = mapper.allowed(tenant, kind_of(form), token, sender.vouched);
            allowed.map_err(|error| match error {
                NoSource::None(..) => PushRefusal::Wrong(error.to_string()),
                NoSource::Token(_) => PushRefusal::Denied(error.to_string()),
            })
        };
        if let Some(mapper) = mapper {
            allowed(&mapper)?;
        }
        let shared = self.tenant(tenant).ok_or_else(too_many_tenants)?;
        let allowed = allowed(lock(&shared).table.mapper())?;
        Ok((shared, allowed))
    }

    /// Takes so many samples or lines out of what the tenant may send; gives how many series it may have.
    pub(super) fn pay(
        &self,
        name: &str,
        shared: &Shared,
        samples: usize,
    ) -> Result<usize, PushRefusal> {
        let mut tenant = lock(shared);
        let rate = tenant.per_second();
        let paid = tenant.bucket.take(samples, rate, self.moment().mono_ms);
        paid.map_err(|seconds| too_fast(name, rate, seconds))?;
        Ok(tenant.series_max())
    }

    async fn take(
        &self,
        name: &str,
        (shared, allowed): (Shared, Allowed),
        message: Message,
    ) -> Result<PushTaken, PushRefusal> {
        let Message { door, version, message, samples, unread } = message;
        let series_max = self.pay(name, &shared, samples)?;
        let sources = lock(&shared).table.mapper().names(allowed);
        let walk = self.walk_of(allowed, false);
        let walked = self.walk(shared, version, message, walk).await.map_err(refusal)?;
        let mut counts = self.bring(name, sources, walked).await?;
        counts.add(Became::Histogram, unread);
        counts.record(door);
        counts.record_refused(name, door, "");
        let mut refused = counts.complaint(name, series_max);
        if door == "otlp" {
            // To remote write, histograms that are not read are no complaint: see `complaint`.
            refused = refused.or_else(|| counts.unread());
        }
        if let Some(why) = &refused {
            tracing::debug!(tenant = name, why, "a push was taken in part");
        }
        Ok(PushTaken { samples: counts.known(), rejected: counts.rejected(), refused })
    }
}

fn too_fast(tenant: &str, rate: u32, seconds: u64) -> PushRefusal {
    let text = format!("tenant `{tenant}` sends more than {rate} samples a second");
    PushRefusal::Slow(text, seconds)
}

fn sender_of(push: &Push) -> Sender {
    let (tenant, token) = (push.tenant.clone(), push.token.clone());
    Sender { tenant, token, vouched: push.vouched }
}

/// The body as protobuf, within bounds.
fn opened(
    push: Push,
    from_json: fn(&[u8]) -> Result<Vec<u8>, BadJson>,
) -> Result<Vec<u8>, BadBody> {
    let body =
        if push.encoding.gzip { otlp::open(&push.body).map_err(BadBody::Otlp)? } else { push.body };
    if push.encoding.json { from_json(&body).map_err(BadBody::Json) } else { Ok(body) }
}

#[async_trait]
impl PushSink for Hub {
    /// Whose it is, and whether the tenant's quota is spent: before anything is opened.
    fn admit(&self, form: PushForm, sender: &Sender) -> Result<(), PushRefusal> {
        let (shared, _) = self.source_of(form, sender)?;
        let mut tenant = lock(&shared);
        let rate = tenant.per_second();
        let ready = tenant.bucket.ready(rate, self.moment().mono_ms);
        ready.map_err(|seconds| too_fast(&sender.tenant, rate, seconds))
    }

    async fn push(&self, push: Push) -> Result<PushTaken, PushRefusal> {
        match push.form {
            PushForm::RemoteWriteV1 => self.write(push, Version::V1).await,
            PushForm::RemoteWriteV2 => self.write(push, Version::V2).await,
            PushForm::OtlpMetrics => self.otlp(push).await,
            PushForm::OtlpLogs => self.logs(push).await,
        }
    }
}
