//! Trouble in the fleet, so that remediations are always under way: alerts that want services
//! restarted, alerts whose remedy does not help and is undone, some that need approval, and
//! instances that are killed.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::watch;

use super::{people::People, stage::wall_ms};
use crate::fleet::SampleFleet;

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
    pub(super) people: People,
    pub(super) http: Doors,
    pub(super) wish: Wish,
    pub(super) count: Arc<AtomicU64>,
    pub(super) kills: Kills,
    chance: StdRng,
    number: u64,
    rested: BTreeMap<String, Instant>,
}

/// HTTP addresses of the nodes there are; clones share it.
pub(super) type Doors = Arc<Mutex<BTreeMap<u64, SocketAddr>>>;

/// Instances that were killed: when, by the wall clock, and which; clones share it.
pub(super) type Kills = Arc<Mutex<Vec<(u64, String)>>>;

/// What somebody wants to see next; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish(Arc<Mutex<Option<&'static str>>>);

impl Wish {
    /// The next trouble is of this kind.
    pub(super) fn make(&self, kind: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
    }

    fn take(&self) -> Option<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Trouble {
    pub(super) fn new(
        fleet: SampleFleet,
        people: People,
        http: Doors,
        wish: Wish,
        seed: u64,
    ) -> Self {
        Self {
            fleet,
            people,
            http,
            wish,
            count: Arc::default(),
            kills: Kills::default(),
            chance: StdRng::seed_from_u64(seed ^ 0x7472_6f75),
            number: 0,
            rested: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::time::sleep(LOOK).await;
            let Some(open) = self.people.look().await else { continue };
            self.people.tend(&open).await;
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

    async fn trouble(&mut self, service: &str) {
        let instances: Vec<_> = self.fleet.of(service).cloned().collect();
        let at = self.chance.random_range(0..instances.len().max(1));
        let Some(instance) = instances.get(at) else { return };
        let drawn = self.chance.random_range(0..10);
        let kind = match self.wish.take() {
            Some(kind) => kind,
            None => match drawn {
                0..4 => "Trouble",
                4..6 => "Regret",
                6..8 => "Question",
                _ => {
                    let wanted = instance.config.to_string_lossy().into_owned();
                    if let Some(pid) = crate::harness::processes_with(&wanted).into_iter().next()
                        && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
                    {
                        self.count.fetch_add(1, Ordering::Relaxed);
                        let killed = (wall_ms(), instance.name.clone());
                        self.kills.lock().unwrap_or_else(PoisonError::into_inner).push(killed);
                    }
                    return;
                }
            },
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
        let doors = self.http.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let first = self.chance.random_range(0..doors.len().max(1));
        for door in doors.values().cycle().skip(first).take(doors.len()) {
            let request = http
                .post(format!("http://{door}/api/v1/alertmanager/default"))
                .header("content-type", "application/json")
                .body(body.to_string());
            if matches!(request.send().await, Ok(response) if response.status().is_success()) {
                return true;
            }
        }
        false
    }
}
