//! The state of the world, and how it is observed and broken.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use medic_node::{
    detection::{
        probe::{Failure, Outcome},
        scrape::ScrapeError,
    },
    world::Seen,
};
use medic_proto::fleet::v1::{self as wire, ProcessState};
use medic_state::{
    NodeId,
    manifest::{DEFAULT_TENANT, Manifest, ProbeKind, Spec},
    symptom::Target,
};

use super::{
    agent::Agent,
    instance::{Cure, Ill, Illness, Instance, Life, hash},
};
use crate::{
    drill::Broken,
    history::{Recorder, What, lock},
    rng::Rng,
};

/// Where the hosts' wall clocks begin: they are right.
const EPOCH_MS: u64 = 1_700_000_000_000;
/// An instance that is dead or hangs is reported within this time, when nothing else is wrong:
/// two intervals of a probe, and the time to tell.
pub(crate) const REPORT_WITHIN_MS: u64 = 10_000;

/// How acts go at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mood {
    /// Of 100 acts, so many take effect and their answer is lost.
    pub answers_lost: u32,
    /// Of 100 acts, so many end with the agent dying in the middle.
    pub halved: u32,
    /// Of 100 acts, so many provably fail.
    pub failed: u32,
    /// Of 100 orders, so many take seconds to arrive.
    pub delayed: u32,
    /// Remedies help nothing.
    pub stubborn: bool,
}

/// See [`Fleet::throw`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throw {
    pub(crate) takes_ms: u64,
    pub(crate) lost: bool,
    pub(crate) fails: bool,
    pub(crate) delay_ms: u64,
}

/// The world.
#[derive(Debug)]
pub struct Fleet {
    pub(super) inner: Mutex<Inner>,
    pub(crate) recorder: Recorder,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) rng: Rng,
    noise: u64,
    pub(super) instances: BTreeMap<String, Instance>,
    depends_on: BTreeMap<String, Vec<String>>,
    pub(super) agents: BTreeMap<String, Agent>,
    pub(super) mood: Mood,
    /// Nodes that cannot observe anything at present.
    blind: BTreeSet<NodeId>,
    /// Services whose telemetry is gone at present.
    dark: BTreeSet<String>,
    /// When a node was cut off from an agent.
    pub(super) cut: BTreeMap<(NodeId, String), u64>,
    /// Instances on which an act is under way.
    pub(super) busy: BTreeSet<String>,
    pub(super) closed: bool,
}

impl Fleet {
    /// The fleet as declared.
    #[must_use]
    pub fn new(manifests: &[Manifest], recorder: Recorder, seed: u64) -> Arc<Self> {
        let (mut instances, mut agents) = (BTreeMap::new(), BTreeMap::new());
        let mut depends_on = BTreeMap::new();
        for manifest in manifests {
            let Spec::Service(service) = &manifest.spec else { continue };
            let name = &manifest.metadata.name;
            depends_on.insert(name.clone(), service.depends_on.clone());
            for one in &service.instances {
                let agent = one.agent.clone().unwrap_or_default();
                instances.insert(one.name.clone(), Instance::new(name, &agent, one.standby));
                agents.entry(agent).or_insert_with(Agent::default);
            }
        }
        let mut rng = Rng::new(seed, "world");
        let inner = Inner {
            noise: rng.next_u64(),
            rng,
            instances,
            depends_on,
            agents,
            mood: Mood::default(),
            blind: BTreeSet::new(),
            dark: BTreeSet::new(),
            cut: BTreeMap::new(),
            busy: BTreeSet::new(),
            closed: false,
        };
        Arc::new(Self { inner: Mutex::new(inner), recorder })
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.recorder.now_ms()
    }

    /// Names of all instances that are meant to run.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let inner = lock(&self.inner);
        inner
            .instances
            .iter()
            .filter(|(_, one)| !one.standby)
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Names of all agents.
    #[must_use]
    pub fn agents(&self) -> Vec<String> {
        lock(&self.inner).agents.keys().cloned().collect()
    }

    /// Names of all services.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        lock(&self.inner).depends_on.keys().cloned().collect()
    }

    /// Which agents a node hears.
    #[must_use]
    pub fn agents_seen_by(&self, node: NodeId) -> BTreeMap<String, bool> {
        let inner = lock(&self.inner);
        inner.agents.keys().map(|agent| (agent.clone(), inner.connected(node, agent))).collect()
    }

    /// Whether an agent is connected to a node.
    #[must_use]
    pub fn connected(&self, node: NodeId, agent: &str) -> bool {
        lock(&self.inner).connected(node, agent)
    }

    /// The last report of an instance's agent, as a node has it.
    #[must_use]
    pub fn seen(&self, node: NodeId, target: &Target) -> Option<Seen> {
        let now = self.now_ms();
        let inner = lock(&self.inner);
        let instance = inner.instances.get(&target.instance)?;
        let silent_since = inner
            .agents
            .get(&instance.agent)
            .and_then(|agent| agent.down_since)
            .into_iter()
            .chain(inner.cut.get(&(node, instance.agent.clone())).copied())
            .min();
        let age_ms = silent_since.map_or(now % 1_000, |since| now.saturating_sub(since));
        let mut status = instance.status(EPOCH_MS);
        if silent_since.is_some() && age_ms > 2_000 {
            // What it was before is not kept here; an old report says nothing in any case.
            status.state = ProcessState::Unspecified.into();
        }
        Some(Seen { status, age: Duration::from_millis(age_ms) })
    }

    /// What a check by a node would find, and how long it takes.
    pub(crate) fn check(
        &self,
        node: NodeId,
        target: &Target,
        kind: &ProbeKind,
        timeout: Duration,
    ) -> (Duration, Outcome) {
        let quick = Duration::from_millis(2);
        let inner = lock(&self.inner);
        if inner.blind.contains(&node) || inner.dark.contains(&target.service) {
            return (quick, Outcome::NoData("the way to it is out of order".to_owned()));
        }
        let Some(instance) = inner.instances.get(&target.instance) else {
            return (quick, Outcome::NoData("there is no such instance".to_owned()));
        };
        if let ProbeKind::Process(_) = kind {
            drop(inner);
            return (Duration::ZERO, self.process(node, target));
        }
        match instance.life {
            _ if !instance.host_up => (timeout, Outcome::Bad(Failure::Timeout)),
            Life::Running => (quick, Outcome::Good),
            Life::Paused => (timeout, Outcome::Bad(Failure::Timeout)),
            Life::Dead | Life::Stopped => (quick, Outcome::Bad(Failure::Refused)),
        }
    }

    /// As the product's own check of a process.
    fn process(&self, node: NodeId, target: &Target) -> Outcome {
        use medic_node::detection::probe::{Liveness, liveness};
        match liveness(self.seen(node, target).as_ref()) {
            Liveness::Running => Outcome::Good,
            Liveness::Unknown => Outcome::NoData("no agent has reported it lately".to_owned()),
            other @ (Liveness::Paused | Liveness::Dead | Liveness::Stopped) => {
                Outcome::Bad(Failure::Process(other))
            }
        }
    }

    /// What a scrape by a node would fetch, and how long it takes.
    pub(crate) fn expose(
        &self,
        node: NodeId,
        name: &str,
        timeout: Duration,
    ) -> (Duration, Result<String, ScrapeError>) {
        let quick = Duration::from_millis(3);
        let now = self.now_ms();
        let inner = lock(&self.inner);
        let Some(instance) = inner.instances.get(name) else {
            return (quick, Err(ScrapeError::Local(format!("there is no {name}"))));
        };
        if inner.blind.contains(&node) || inner.dark.contains(&instance.service) {
            return (quick, Err(ScrapeError::Local("the way to it is out of order".to_owned())));
        }
        match instance.life {
            Life::Running if instance.host_up => {}
            Life::Dead | Life::Stopped if instance.host_up => {
                return (quick, Err(ScrapeError::Connection(Failure::Refused)));
            }
            Life::Running | Life::Paused | Life::Dead | Life::Stopped => {
                return (timeout, Err(ScrapeError::Timeout(timeout)));
            }
        }
        let starved = inner.starved(&instance.service, now);
        let noise =
            medic_state::Digest::of(&[name.as_bytes(), &(now / 1_000 + inner.noise).to_be_bytes()]);
        let noise =
            u64::from_be_bytes([0, 0, noise.0[0], noise.0[1], noise.0[2], noise.0[3], 0, 0]);
        (quick, Ok(instance.exposition(now, starved, noise >> 16)))
    }

    /// The instance as a target.
    #[must_use]
    pub fn target(&self, name: &str) -> Target {
        let inner = lock(&self.inner);
        let service = inner.instances.get(name).map(|one| one.service.clone()).unwrap_or_default();
        Target { tenant: DEFAULT_TENANT.to_owned(), service, instance: name.to_owned() }
    }

    /// What an agent reports.
    #[must_use]
    pub(crate) fn report(&self, agent: &str) -> wire::Report {
        let at_unix_ms = EPOCH_MS + self.now_ms();
        let inner = lock(&self.inner);
        let own = inner.instances.iter().filter(|(_, one)| one.agent == agent);
        let instances = own.map(|(name, one)| wire::InstanceStatus {
            key: Some(wire::InstanceKey {
                tenant: DEFAULT_TENANT.to_owned(),
                service: one.service.clone(),
                instance: name.clone(),
            }),
            ..one.status(EPOCH_MS)
        });
        wire::Report { at_unix_ms, instances: instances.collect(), host: None }
    }

    /// The highest fence an agent has accepted.
    #[must_use]
    pub(crate) fn highest_fence(&self, agent: &str) -> u64 {
        lock(&self.inner).agents.get(agent).map_or(0, |agent| agent.book.highest())
    }

    /// Agents whose processes run.
    #[must_use]
    pub(crate) fn agents_up(&self) -> BTreeMap<String, bool> {
        let inner = lock(&self.inner);
        inner
            .agents
            .iter()
            .map(|(name, agent)| (name.clone(), agent.down_since.is_none()))
            .collect()
    }

    /// Whether a node and an agent are cut off from each other.
    #[must_use]
    pub(crate) fn cut_off(&self) -> BTreeSet<(NodeId, String)> {
        lock(&self.inner).cut.keys().cloned().collect()
    }

    /// A throw of the world's dice: how long something takes, and whether it goes wrong.
    pub(crate) fn throw(&self, low_ms: u64, high_ms: u64) -> Throw {
        let mut inner = lock(&self.inner);
        let mood = inner.mood;
        let takes_ms = inner.rng.between(low_ms, high_ms);
        let lost = inner.rng.chance(mood.answers_lost, 100);
        let fails = inner.rng.chance(mood.failed, 100);
        let delay_ms =
            if inner.rng.chance(mood.delayed, 100) { inner.rng.between(1_000, 8_000) } else { 0 };
        Throw { takes_ms, lost, fails, delay_ms }
    }

    /// Whether nothing is wrong with an instance.
    #[must_use]
    pub fn well(&self, name: &str) -> bool {
        let now = self.now_ms();
        lock(&self.inner).instances.get(name).is_some_and(|one| one.well(now))
    }

    /// Instances that are meant to run and have ended or hang.
    pub(crate) fn broken(&self) -> Broken {
        let inner = lock(&self.inner);
        let meant = inner.instances.iter().filter(|(_, one)| !one.standby);
        let ended = meant.filter(|(_, one)| matches!(one.life, Life::Dead | Life::Paused));
        ended.map(|(name, one)| (name.clone(), (one.pid, one.life))).collect()
    }

    /// Its process ends (`Dead`) or hangs (`Paused`); false: it did not run.
    pub fn end(&self, name: &str, how: Life) -> bool {
        let ended = {
            let mut inner = lock(&self.inner);
            let found = inner.instances.get_mut(name).filter(|one| one.life == Life::Running);
            found.map(|one| one.life = how).is_some()
        };
        if ended {
            self.recorder.trace(format_args!("{name} is {how:?}"));
            let report_within_ms = REPORT_WITHIN_MS;
            self.recorder.happened(What::Broke { target: self.target(name), report_within_ms });
        }
        ended
    }

    /// It falls ill for so long.
    pub fn infect(&self, name: &str, ill: Ill, cure: Cure, for_ms: u64) {
        let now = self.now_ms();
        let ill = if let Ill::Leaks(_) = ill { Ill::Leaks(now) } else { ill };
        if let Some(one) = lock(&self.inner).instances.get_mut(name) {
            one.illness = Some(Illness { ill, cure, until_ms: now + for_ms });
        }
        self.recorder.trace(format_args!("{name} falls ill: {ill:?}, helped by {cure:?}"));
    }

    /// Somebody rolls a bad configuration out to a whole service.
    pub fn misconfigure(&self, service: &str, for_ms: u64) {
        let now = self.now_ms();
        let mut inner = lock(&self.inner);
        for one in inner.instances.values_mut().filter(|one| one.service == service) {
            one.configure(&hash("bad"), now);
            let (ill, cure) = (Ill::Errors, Cure::Config);
            one.illness = Some(Illness { ill, cure, until_ms: now + for_ms });
        }
        drop(inner);
        self.recorder.trace(format_args!("{service} gets a bad configuration"));
    }

    /// A person repairs an instance by hand.
    pub fn repair(&self, name: &str) {
        let now = self.now_ms();
        let mut inner = lock(&self.inner);
        let Some(one) = inner.instances.get_mut(name) else { return };
        one.illness = None;
        one.configure(&hash("good"), now);
        if !one.standby && one.life != Life::Running {
            one.begin(now);
        }
        drop(inner);
        self.recorder.trace(format_args!("{name} is repaired by hand"));
    }

    /// How acts go from here on.
    pub fn mood(&self, change: impl FnOnce(&mut Mood)) {
        change(&mut lock(&self.inner).mood);
    }

    /// A node can observe nothing, or can again.
    pub fn blind(&self, node: NodeId, blind: bool) {
        let mut inner = lock(&self.inner);
        if blind {
            inner.blind.insert(node);
        } else {
            inner.blind.remove(&node);
        }
    }

    /// A service's telemetry goes, or comes back.
    pub fn dark(&self, service: &str, dark: bool) {
        let mut inner = lock(&self.inner);
        if dark {
            inner.dark.insert(service.to_owned());
        } else {
            inner.dark.remove(service);
        }
    }

    /// A node and an agent are cut off from each other, or meet again.
    pub fn cut(&self, node: NodeId, agent: &str, cut: bool) {
        let now = self.now_ms();
        let mut inner = lock(&self.inner);
        let key = (node, agent.to_owned());
        if cut {
            inner.cut.entry(key).or_insert(now);
        } else {
            inner.cut.remove(&key);
        }
    }

    /// A host goes with everything on it, or comes back; its processes do not.
    pub fn host(&self, agent: &str, up: bool, for_ms: u64) {
        if !up {
            self.agent_down(agent, for_ms);
        }
        let mut inner = lock(&self.inner);
        for one in inner.instances.values_mut().filter(|one| one.agent == agent) {
            one.host_up = up;
            if !up && one.life != Life::Stopped {
                one.life = Life::Dead;
            }
        }
    }

    /// Nothing hinders acting or observing any more; what is broken stays broken.
    pub fn heal(&self) {
        {
            let mut inner = lock(&self.inner);
            inner.mood = Mood::default();
            inner.blind.clear();
            inner.dark.clear();
            inner.cut.clear();
            inner.instances.values_mut().for_each(|one| one.host_up = true);
        }
        self.start_agents(true);
    }

    /// Ends everything under way.
    pub fn close(&self) {
        lock(&self.inner).closed = true;
    }
}

impl Inner {
    pub(super) fn connected(&self, node: NodeId, agent: &str) -> bool {
        let up = self.agents.get(agent).is_some_and(|agent| agent.down_since.is_none());
        up && !self.cut.contains_key(&(node, agent.to_owned()))
    }

    /// Whether something that a service depends on serves nobody.
    fn starved(&self, service: &str, now: u64) -> bool {
        let serves = |name: &String| {
            self.instances.values().any(|one| one.service == *name && one.serves(now))
        };
        self.depends_on.get(service).is_some_and(|all| !all.iter().all(serves))
    }
}
