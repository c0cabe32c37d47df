//! Probes: each looks once and gives values by name. A round is all of them at the same time.
//!
//! No value is ever made up: what was not seen is absent, and a condition that asks for it cannot be
//! told. That nobody answered is seen, though: `up` is false then, and `status` 0.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use medic_api::client::Client;
use medic_node::{
    detection::{exposition, probe::client as http_client},
    expr::{Facts, Scalar},
};
use medic_proto::v1 as pb;
use medic_state::matcher::Selector;
use tokio::task::JoinSet;

use super::manifest::{
    CommandProbe, ExperimentSpec, HttpProbe, MedicProbe, MetricProbe, ProbeSpec, TcpProbe,
};
use crate::harness::Dialer;

/// Values of one probe, by field.
pub type Values = BTreeMap<&'static str, Scalar>;

/// What one round saw.
#[derive(Clone, Debug)]
pub struct Round {
    /// When it was complete.
    pub at: Instant,
    /// Values by probe.
    pub values: BTreeMap<String, Values>,
}

impl Round {
    /// As conditions read it.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for (name, values) in &self.values {
            facts.declare(name.clone());
            for (field, value) in values {
                facts.set(name.clone(), field, value.clone());
            }
        }
        facts
    }
}

/// How a cluster is asked.
#[derive(Clone, Debug)]
enum Way {
    User(Client),
    Own(Dialer),
}

#[derive(Clone, Debug)]
enum Look {
    Http(HttpProbe),
    Tcp(TcpProbe),
    Command(CommandProbe),
    Metric(MetricProbe, Selector),
    Medic(Way, Duration),
}

/// All probes of an experiment.
#[derive(Clone, Debug)]
pub struct Probes {
    client: reqwest::Client,
    looks: Vec<(String, Look)>,
}

impl Probes {
    /// Makes them ready; asks nobody yet. `own`: what asks the experiment's own cluster.
    ///
    /// # Errors
    /// When a Medic context is not there, or TLS cannot be set up.
    pub fn new(spec: &ExperimentSpec, own: Option<&Dialer>) -> anyhow::Result<Self> {
        let client = http_client().context("setting up HTTP probes")?;
        let looks = spec
            .probes
            .iter()
            .map(|probe| Ok((probe.name.clone(), look(probe, own)?)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { client, looks })
    }

    /// Looks once with all of them.
    pub async fn round(&self) -> Round {
        let mut looks = JoinSet::new();
        for (name, look) in self.looks.clone() {
            let client = self.client.clone();
            looks.spawn(async move { (name, once(&client, &look).await) });
        }
        let values = looks.join_all().await.into_iter().collect();
        Round { at: Instant::now(), values }
    }
}

fn look(probe: &ProbeSpec, own: Option<&Dialer>) -> anyhow::Result<Look> {
    let ProbeSpec { name, http, tcp, command, metric, medic } = probe;
    if let Some(http) = http {
        return Ok(Look::Http(http.clone()));
    }
    if let Some(tcp) = tcp {
        return Ok(Look::Tcp(tcp.clone()));
    }
    if let Some(command) = command {
        return Ok(Look::Command(command.clone()));
    }
    if let Some(metric) = metric {
        return Ok(Look::Metric(metric.clone(), metric.select.parse()?));
    }
    let medic = medic.as_ref().with_context(|| format!("probe `{name}` looks at nothing"))?;
    let way = match own {
        Some(dialer) => Way::Own(dialer.clone()),
        None => Way::User(user(medic).with_context(|| format!("probe `{name}`"))?),
    };
    Ok(Look::Medic(way, medic.timeout.as_duration()))
}

/// A client with the context that the probe names, or that `medic` would use.
fn user(medic: &MedicProbe) -> anyhow::Result<Client> {
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
    let config = medic.config.clone().or_else(|| named("MEDIC_CONFIG").map(Into::into));
    let context = medic.context.clone();
    let context =
        context.or_else(|| named("MEDIC_CONTEXT").map(|name| name.to_string_lossy().into_owned()));
    Ok(medic_node::cli::client(config.as_deref(), context.as_deref(), medic.timeout)?)
}

async fn once(client: &reqwest::Client, look: &Look) -> Values {
    match look {
        Look::Http(probe) => http(client, probe).await,
        Look::Tcp(probe) => tcp(probe).await,
        Look::Command(probe) => command(probe).await,
        Look::Metric(probe, selector) => metric(client, probe, selector).await.unwrap_or_default(),
        Look::Medic(way, timeout) => medic(way, *timeout).await,
    }
}

fn took(began: Instant) -> Scalar {
    Scalar::Number(began.elapsed().as_secs_f64() * 1_000.0)
}

async fn http(client: &reqwest::Client, probe: &HttpProbe) -> Values {
    let began = Instant::now();
    let asked = client.get(&probe.url).timeout(probe.timeout.as_duration()).send().await;
    match asked {
        Ok(answer) => Values::from([
            ("up", Scalar::Flag(true)),
            ("status", Scalar::Count(u64::from(answer.status().as_u16()))),
            ("latency_ms", took(began)),
        ]),
        Err(_) => Values::from([("up", Scalar::Flag(false)), ("status", Scalar::Count(0))]),
    }
}

async fn tcp(probe: &TcpProbe) -> Values {
    let began = Instant::now();
    let connect = tokio::net::TcpStream::connect(&probe.address);
    match tokio::time::timeout(probe.timeout.as_duration(), connect).await {
        Ok(Ok(_)) => Values::from([("up", Scalar::Flag(true)), ("latency_ms", took(began))]),
        Ok(Err(_)) | Err(_) => Values::from([("up", Scalar::Flag(false))]),
    }
}

async fn command(probe: &CommandProbe) -> Values {
    let failed = Values::from([("ok", Scalar::Flag(false))]);
    let Some((program, args)) = probe.argv.split_first() else { return failed };
    let began = Instant::now();
    let run = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    match tokio::time::timeout(probe.timeout.as_duration(), run).await {
        Ok(Ok(status)) => {
            let mut values =
                Values::from([("ok", Scalar::Flag(status.success())), ("latency_ms", took(began))]);
            if let Some(code) = status.code() {
                values.insert("exit", Scalar::Number(f64::from(code)));
            }
            values
        }
        Ok(Err(_)) | Err(_) => failed,
    }
}

async fn metric(
    client: &reqwest::Client,
    probe: &MetricProbe,
    selector: &Selector,
) -> Option<Values> {
    let asked = client.get(&probe.url).timeout(probe.timeout.as_duration()).send().await.ok()?;
    let mut answer = asked.error_for_status().ok()?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > exposition::BODY_BYTES_MAX {
            return None;
        }
    }
    let text = String::from_utf8(body).ok()?;
    let wanted = |name: &str| selector.metric.is_empty() || selector.metric == name;
    let read = exposition::parse(&text, wanted).ok()?;
    let selected = read.samples.iter().filter(|s| selector.selects(&s.name, &s.labels));
    let found: Vec<f64> = selected.map(|sample| sample.value).collect();
    let mut values = Values::from([("count", Scalar::Count(found.len() as u64))]);
    if !found.is_empty() {
        values.insert("value", Scalar::Number(found.iter().sum()));
        values.insert("max", Scalar::Number(found.iter().copied().fold(f64::MIN, f64::max)));
        values.insert("min", Scalar::Number(found.iter().copied().fold(f64::MAX, f64::min)));
    }
    Some(values)
}

async fn status(way: &Way) -> Option<pb::StatusResponse> {
    match way {
        Way::User(client) => {
            let asked =
                client.call(|api| async move { api.cluster().status(pb::StatusRequest {}).await });
            Some(asked.await.ok()?.into_inner())
        }
        Way::Own(dialer) => {
            // A node that is paused keeps nobody from asking the next.
            let mut asked = JoinSet::new();
            for node in dialer.nodes() {
                let dialer = dialer.clone();
                asked.spawn(async move {
                    let mut client = dialer.dial(node).await.ok()?;
                    Some(client.cluster().status(pb::StatusRequest {}).await.ok()?.into_inner())
                });
            }
            while let Some(answer) = asked.join_next().await {
                if let Ok(Some(status)) = answer
                    && status.leader != 0
                {
                    return Some(status);
                }
            }
            None
        }
    }
}

async fn medic(way: &Way, timeout: Duration) -> Values {
    let began = Instant::now();
    let Ok(Some(status)) = tokio::time::timeout(timeout, status(way)).await else {
        return Values::from([("up", Scalar::Flag(false)), ("leader", Scalar::Count(0))]);
    };
    let members = || status.nodes.iter().filter(|node| !node.former);
    let count = |n: usize| Scalar::Count(n as u64);
    let totals = status.totals.unwrap_or_default();
    Values::from([
        ("up", Scalar::Flag(true)),
        ("leader", Scalar::Count(status.leader)),
        ("term", Scalar::Count(status.term)),
        ("nodes", count(members().count())),
        ("live", count(members().filter(|node| node.live).count())),
        ("applied", Scalar::Count(status.applied)),
        ("open_incidents", Scalar::Count(u64::from(status.open_incidents))),
        ("freezes", Scalar::Count(u64::from(status.freezes))),
        ("incidents", Scalar::Count(totals.incidents)),
        ("attempted", Scalar::Count(totals.attempted)),
        ("successful", Scalar::Count(totals.successful)),
        ("manual", Scalar::Count(totals.manual)),
        ("unknown", Scalar::Count(totals.unknown)),
        ("latency_ms", took(began)),
    ])
}
