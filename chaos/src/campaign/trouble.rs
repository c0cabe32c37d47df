//! Trouble in the fleet, so that remediations are always under way: alerts that want services
//! restarted, alerts whose remedy does not help and is undone, some that need approval, and
//! instances that are killed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use medic_proto::v1 as pb;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::watch;

use super::clients::Desk;
use crate::{
    fleet::SampleFleet,
    harness::{Client, Dialer},
};

/// What the playbooks of a campaign are, and how much may happen at once.
pub(super) const MANIFESTS: &str = include_str!("manifests.yaml");
/// Plans in flight at most; also in the policy of [`MANIFESTS`].
pub(super) const IN_FLIGHT_MAX: usize = 4;
/// Between two looks at what is open, and what could be broken next.
const LOOK: Duration = Duration::from_millis(400);
/// A request that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(2);
/// A service that was troubled is left alone this long, answer or not.
const REST: Duration = Duration::from_secs(3);

/// Makes trouble until told to stop.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) fleet: SampleFleet,
    pub(super) desk: Desk,
    pub(super) oncall: Dialer,
    pub(super) http: Vec<u16>,
    pub(super) count: Arc<AtomicU64>,
    chance: StdRng,
    number: u64,
    rested: BTreeMap<String, Instant>,
    client: Option<Client>,
}

impl Trouble {
    pub(super) fn new(
        fleet: SampleFleet,
        desk: Desk,
        oncall: Dialer,
        http: Vec<u16>,
        seed: u64,
    ) -> Self {
        Self {
            fleet,
            desk,
            oncall,
            http,
            count: Arc::default(),
            chance: StdRng::seed_from_u64(seed ^ 0x7472_6f75),
            number: 0,
            rested: BTreeMap::new(),
            client: None,
        }
    }

    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::time::sleep(LOOK).await;
            let Some(open) = self.look().await else {
                self.client = None;
                continue;
            };
            self.tend(&open).await;
            let busy: Vec<String> =
                open.iter().filter_map(|i| Some(i.target.as_ref()?.service.clone())).collect();
            let mut idle: Vec<String> =
                self.fleet.instances.values().map(|i| i.service.clone()).collect();
            idle.dedup();
            idle.sort();
            idle.dedup();
            idle.retain(|name| !busy.contains(name) && self.is_rested(name));
            if idle.is_empty() {
                continue;
            }
            let at = self.chance.random_range(0..idle.len());
            if let Some(service) = idle.get(at).cloned() {
                self.rested.insert(service.clone(), Instant::now());
                self.trouble(&service).await;
            }
        }
    }

    fn is_rested(&self, service: &str) -> bool {
        self.rested.get(service).is_none_or(|since| since.elapsed() > REST)
    }

    /// Incidents that are not resolved.
    async fn look(&mut self) -> Option<Vec<pb::IncidentSummary>> {
        if self.client.is_none() {
            let nodes = self.desk.dialer.nodes();
            let at = self.chance.random_range(0..nodes.len().max(1));
            self.client = self.desk.dialer.dial(*nodes.get(at)?).await.ok();
        }
        let matchers = vec!["status!=\"resolved\"".to_owned()];
        let request = pb::ListIncidentsRequest { matchers, page_size: 500, ..Default::default() };
        let client = self.client.as_mut()?;
        let mut incidents = client.incidents();
        let listed = tokio::time::timeout(PATIENCE, incidents.list(request)).await;
        Some(listed.ok()?.ok()?.into_inner().incidents)
    }

    /// What people do: approve what waits, close what was handed to them, write notes.
    async fn tend(&mut self, open: &[pb::IncidentSummary]) {
        for incident in open {
            self.desk.opened(&incident.id);
            match incident.status() {
                pb::IncidentStatus::AwaitingApproval => self.approve(&incident.id).await,
                pb::IncidentStatus::Escalated => self.close(&incident.id).await,
                _ => {}
            }
        }
    }

    async fn approve(&mut self, id: &str) {
        let Some(client) = self.client.as_mut() else { return };
        let request = pb::ExplainIncidentRequest { id: id.to_owned() };
        let mut incidents = client.incidents();
        let explained = tokio::time::timeout(PATIENCE, incidents.explain(request)).await;
        let Ok(Ok(explained)) = explained else { return };
        let plan_digest = explained
            .into_inner()
            .remediations
            .last()
            .map(|p| p.digest.clone())
            .unwrap_or_default();
        let nodes = self.oncall.nodes();
        let at = self.chance.random_range(0..nodes.len().max(1));
        let Some(node) = nodes.get(at) else { return };
        let Ok(mut oncall) = self.oncall.dial(*node).await else { return };
        let request =
            pb::ApproveRequest { incident: id.to_owned(), plan_digest, ..Default::default() };
        if let Err(status) = oncall.approvals().approve(request).await {
            tracing::debug!(%status, id, "not approved this time");
        }
    }

    async fn close(&mut self, id: &str) {
        let Some(client) = self.client.as_mut() else { return };
        let note = "looked at by hand".to_owned();
        let request = pb::ResolveIncidentRequest { id: id.to_owned(), note, ..Default::default() };
        let mut incidents = client.incidents();
        let closed = tokio::time::timeout(PATIENCE, incidents.resolve(request)).await;
        if !matches!(closed, Ok(Ok(_))) {
            tracing::debug!(id, "not closed this time");
        }
    }

    async fn trouble(&mut self, service: &str) {
        let instances: Vec<_> = self.fleet.of(service).cloned().collect();
        let at = self.chance.random_range(0..instances.len().max(1));
        let Some(instance) = instances.get(at) else { return };
        let kind = match self.chance.random_range(0..10) {
            0..5 => "Trouble",
            5..7 => "Regret",
            7..8 => "Question",
            _ => {
                let wanted = instance.config.to_string_lossy().into_owned();
                if let Some(pid) = crate::harness::processes_with(&wanted).into_iter().next()
                    && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
                {
                    self.count.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
        };
        self.number += 1;
        let alert = format!("{kind}{}", self.number);
        if self.alert(&alert, service, &instance.name).await {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As Alertmanager would post it, to a node that takes it.
    async fn alert(&mut self, alert: &str, service: &str, instance: &str) -> bool {
        let body = serde_json::json!({
            "version": "4", "status": "firing", "receiver": "medic",
            "groupKey": alert, "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://alertmanager.invalid", "truncatedAlerts": 0,
            "alerts": [{
                "status": "firing",
                "labels": {"alertname": alert, "service": service, "instance": instance, "severity": "critical"},
                "annotations": {"summary": format!("{alert} on {instance}")},
                "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "", "fingerprint": "0"
            }]
        });
        let Ok(http) = reqwest::Client::builder().timeout(PATIENCE).build() else { return false };
        let first = self.chance.random_range(0..self.http.len().max(1));
        for port in self.http.iter().cycle().skip(first).take(self.http.len()) {
            let request = http
                .post(format!("http://127.0.0.1:{port}/api/v1/alertmanager/default"))
                .header("content-type", "application/json")
                .body(body.to_string());
            if matches!(request.send().await, Ok(response) if response.status().is_success()) {
                return true;
            }
        }
        false
    }
}
