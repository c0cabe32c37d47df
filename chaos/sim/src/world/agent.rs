//! One simulated agent: the real book of fences and keys, over a disk that keeps what was written
//! before an act began, and processes that take their time.
//!
//! ```text
//!   order ─► fence older? refused ─► known? answered ─► under way? joined
//!         ─► begun and cut short? settled ─► Begin noted ─► stop … start ─► Outcome noted
//! ```
//!
//! The order of checks is the real agent's (`medic_node::action::agent::orders`); the book is its
//! code. An agent that dies loses what is under way and keeps its book.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use medic_node::{
    action::agent::book::{Begin, Book, Outcome as Noted},
    world::{ActResult, Order, QueryResult},
};
use medic_state::{Fence, saga::Outcome};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    act,
    fleet::{Fleet, Inner},
    instance::Life,
};
use crate::{
    coverage::Sometimes,
    history::{Did, Reached, What, lock},
};

/// How long a question waits for an act under way.
const QUERY_PATIENCE: Duration = Duration::from_secs(4);

/// An agent.
#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) book: Book,
    pub(super) down_since: Option<u64>,
    /// It is started again then.
    back_at: u64,
    /// Counts its processes.
    life: u64,
    flights: BTreeMap<String, watch::Sender<Option<Noted>>>,
}

/// What is to be done about an order.
enum Admitted {
    Answer(ActResult),
    Join(watch::Receiver<Option<Noted>>),
    Act(u64),
}

impl Fleet {
    /// An agent ends; it is started again after so long, with what it had written down.
    pub fn agent_down(&self, name: &str, for_ms: u64) {
        let now = self.now_ms();
        let mut inner = lock(&self.inner);
        if let Some(agent) = inner.agents.get_mut(name) {
            agent.down_since.get_or_insert(now);
            agent.back_at = agent.back_at.max(now + for_ms);
            agent.life += 1;
            agent.flights.clear();
        }
        drop(inner);
        self.recorder.trace(format_args!("agent {name} ends for {for_ms} ms"));
    }

    /// Starts the agents whose time has come, or all of them.
    pub fn start_agents(&self, all: bool) {
        let now = self.now_ms();
        let mut inner = lock(&self.inner);
        for (name, agent) in &mut inner.agents {
            if agent.down_since.is_some() && (all || agent.back_at <= now) {
                agent.down_since = None;
                agent.back_at = 0;
                self.recorder.trace(format_args!("agent {name} starts"));
            }
        }
    }

    fn note(&self, order: &Order, did: Did) {
        let Order { key, fence, attempt, .. } = *order;
        self.recorder
            .trace(format_args!("agent {}: {key} {fence} #{attempt} {did:?}", order.agent));
        let agent = order.agent.clone();
        let reached = Reached { agent, fenced: true, key, fence, attempt, did };
        self.recorder.happened(What::Reached(Box::new(reached)));
    }

    /// An order arrives at its agent. `None`: nobody will ever answer.
    pub(crate) async fn carry_out(self: Arc<Self>, order: Order) -> Option<ActResult> {
        let until = Instant::now() + order.timeout.as_duration();
        let life = match self.admit(&order)? {
            Admitted::Answer(result) => return Some(result),
            Admitted::Join(mut flight) => {
                let landed = tokio::time::timeout_at(until, flight.wait_for(Option::is_some)).await;
                let reason = "it is under way since an earlier order".to_owned();
                return Some(match landed {
                    Ok(Ok(noted)) => noted.clone().map_or_else(
                        || ActResult::Outcome(Outcome::Unknown { reason }),
                        |noted| ActResult::Outcome(known(noted)),
                    ),
                    _ => ActResult::Outcome(Outcome::Unknown { reason }),
                });
            }
            Admitted::Act(life) => life,
        };
        let noted = self.act(&order, life).await?;
        let noted = match noted {
            Ok(noted) => noted,
            Err(highest) => {
                self.land(&order, life, None);
                return Some(ActResult::RefusedFence(Fence(highest)));
            }
        };
        self.land(&order, life, Some(&noted));
        let lost = {
            let mut inner = lock(&self.inner);
            let part = inner.mood.answers_lost;
            inner.rng.chance(part, 100)
        };
        if lost {
            if matches!(noted, Noted::Done { .. }) {
                self.recorder.reached(Sometimes::AnswerLost);
            }
            return None;
        }
        Some(ActResult::Outcome(known(noted)))
    }

    fn admit(&self, order: &Order) -> Option<Admitted> {
        let key = order.key.to_string();
        let mut inner = lock(&self.inner);
        let agent =
            inner.agents.get_mut(&order.agent).filter(|agent| agent.down_since.is_none())?;
        if agent.book.refuses(order.fence.0) {
            let highest = Fence(agent.book.highest());
            drop(inner);
            self.recorder.reached(Sometimes::OldFenceRefused);
            self.note(order, Did::Refused);
            return Some(Admitted::Answer(ActResult::RefusedFence(highest)));
        }
        agent.book.raise(order.fence.0);
        let life = agent.life;
        let admitted = if let Some(flight) = agent.flights.get(&key) {
            Admitted::Join(flight.subscribe())
        } else if let Some(noted) = agent.book.answer(&key, order.attempt) {
            Admitted::Answer(ActResult::Outcome(known(noted.clone())))
        } else {
            agent.flights.insert(key, watch::Sender::new(None));
            Admitted::Act(life)
        };
        drop(inner);
        self.note(order, Did::Accepted);
        if matches!(admitted, Admitted::Answer(_)) {
            self.recorder.reached(Sometimes::OrderRepeated);
            self.note(order, Did::Knew);
        }
        Some(admitted)
    }

    /// Carries it out. `None`: the agent died; `Err`: a higher fence came before it began.
    async fn act(&self, order: &Order, life: u64) -> Option<Result<Noted, u64>> {
        let key = order.key.to_string();
        let name = order.target.instance.clone();
        while !lock(&self.inner).busy.insert(name.clone()) {
            sleep(Duration::from_millis(20)).await;
        }
        let _busy = Busy { fleet: self, name };
        self.act_alone(order, &key, life).await
    }

    async fn act_alone(&self, order: &Order, key: &str, life: u64) -> Option<Result<Noted, u64>> {
        if let Some(settled) = self.settle(order, key, life)? {
            return Some(Ok(settled));
        }
        let (fails, dies) = {
            let mut inner = lock(&self.inner);
            let mood = inner.mood;
            (inner.rng.chance(mood.failed, 100), inner.rng.chance(mood.halved, 100))
        };
        {
            let now = self.now_ms();
            let mut inner = lock(&self.inner);
            let config = inner.instances.get(&order.target.instance).map(|one| one.config.clone());
            let wanted = inner.wanted_config(order, key);
            let one = inner.instances.get(&order.target.instance);
            let running = one.is_some_and(|one| one.life == Life::Running);
            let agent = inner.living(&order.agent, life)?;
            if agent.book.refuses(order.fence.0) {
                return Some(Err(agent.book.highest()));
            }
            agent.book.begin(Begin {
                key: key.to_owned(),
                attempt: order.attempt,
                fence: order.fence.0,
                at_ms: now,
                action: order.action.name.clone(),
                target: order.target.instance.clone(),
                config_before: config.unwrap_or_default(),
                config_wanted: wanted.unwrap_or_default(),
                running,
            });
        }
        self.note(order, Did::Began);
        if fails {
            sleep(Duration::from_millis(200)).await;
            let reason = "the host said no".to_owned();
            return self.finish(order, key, life, Noted::Failed { reason, retryable: true });
        }
        let drain_ms = {
            let mut inner = lock(&self.inner);
            inner.living(&order.agent, life)?;
            let drain_ms = inner.rng.between(100, 2_000);
            act::first_half(&mut inner, order);
            drain_ms
        };
        sleep(Duration::from_millis(drain_ms)).await;
        if dies {
            self.recorder.reached(Sometimes::AgentDiedActing);
            self.agent_down(&order.agent, 3_000);
            return None;
        }
        let now = self.now_ms();
        let done = {
            let mut inner = lock(&self.inner);
            inner.living(&order.agent, life)?;
            act::second_half(&mut inner, order, key, now)
        };
        if let Noted::Done { .. } = done {
            self.note(order, Did::Effect);
        }
        sleep(Duration::from_millis(20)).await;
        self.finish(order, key, life, done)
    }

    /// An act begun and cut short: was it done?
    fn settle(&self, order: &Order, key: &str, life: u64) -> Option<Option<Noted>> {
        let settled = {
            let mut inner = lock(&self.inner);
            let agent = inner.living(&order.agent, life)?;
            let begun = agent.book.known(key).filter(|known| known.outcome.is_none()).cloned();
            begun.and_then(|known| act::settled(&inner, &known))
        };
        match settled {
            None => Some(None),
            Some(noted) => self.finish(order, key, life, noted).map(Result::ok),
        }
    }

    fn finish(
        &self,
        order: &Order,
        key: &str,
        life: u64,
        noted: Noted,
    ) -> Option<Result<Noted, u64>> {
        lock(&self.inner).living(&order.agent, life)?.book.finish(key, noted.clone());
        self.note(order, Did::Ended(known(noted.clone())));
        Some(Ok(noted))
    }

    /// Whoever else waits for the key hears of it.
    fn land(&self, order: &Order, life: u64, noted: Option<&Noted>) {
        let mut inner = lock(&self.inner);
        let Some(agent) = inner.living(&order.agent, life) else { return };
        if let (Some(flight), Some(noted)) = (agent.flights.remove(&order.key.to_string()), noted) {
            flight.send_replace(Some(noted.clone()));
        }
    }

    /// Asks an agent what became of a key; no older fence follows.
    pub(crate) async fn asked(self: Arc<Self>, order: Order) -> QueryResult {
        let key = order.key.to_string();
        let away = || QueryResult::CannotTell("the agent is away".to_owned());
        let flight = {
            let mut inner = lock(&self.inner);
            let Some(agent) = inner.agents.get_mut(&order.agent) else { return away() };
            if agent.down_since.is_some() {
                return away();
            }
            if agent.book.refuses(order.fence.0) {
                let highest = Fence(agent.book.highest());
                return QueryResult::CannotTell(format!("the agent has accepted {highest}"));
            }
            agent.book.raise(order.fence.0);
            agent.flights.get(&key).map(watch::Sender::subscribe)
        };
        self.note(&order, Did::Accepted);
        if let Some(mut flight) = flight {
            let landed = timeout(QUERY_PATIENCE, flight.wait_for(Option::is_some)).await;
            if let Ok(Ok(noted)) = landed
                && let Some(noted) = noted.clone()
            {
                return QueryResult::Finished(known(noted));
            }
            return QueryResult::Finished(Outcome::Unknown {
                reason: "it is under way".to_owned(),
            });
        }
        self.answer_from_book(&order, &key)
    }

    fn answer_from_book(&self, order: &Order, key: &str) -> QueryResult {
        let mut inner = lock(&self.inner);
        let Some(found) = inner.agents.get(&order.agent).and_then(|agent| agent.book.known(key))
        else {
            return QueryResult::NeverBegun;
        };
        if let Some(noted) = &found.outcome {
            return QueryResult::Finished(known(noted.clone()));
        }
        let found = found.clone();
        let noted = act::settled(&inner, &found).unwrap_or_else(|| Noted::Failed {
            reason: "it was begun and cut short before it was done".to_owned(),
            retryable: true,
        });
        if let Some(agent) = inner.agents.get_mut(&order.agent) {
            agent.book.finish(key, noted.clone());
        }
        drop(inner);
        self.note(order, Did::Ended(known(noted.clone())));
        QueryResult::Finished(known(noted))
    }
}

/// An act is under way on an instance; also one that ends with the process that carries it out.
struct Busy<'a> {
    fleet: &'a Fleet,
    name: String,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(&self.fleet.inner).busy.remove(&self.name);
    }
}

impl Inner {
    /// The agent, if the process that took the order still lives.
    fn living(&mut self, name: &str, life: u64) -> Option<&mut Agent> {
        let agent = self.agents.get_mut(name)?;
        (agent.life == life && agent.down_since.is_none() && !self.closed).then_some(agent)
    }

    /// The configuration that an order asks for: fixed when it is first begun.
    fn wanted_config(&self, order: &Order, key: &str) -> Option<String> {
        let earlier = self.agents.get(&order.agent).and_then(|agent| agent.book.known(key));
        earlier
            .map(|known| known.first.config_wanted.clone())
            .or_else(|| act::wanted_config(self, order))
    }
}

/// A noted outcome in the law's terms.
fn known(noted: Noted) -> Outcome {
    match noted {
        Noted::Done { mut evidence } => {
            if let Some(previous) = evidence.get("previous_hash").cloned() {
                evidence.insert("undo.hash".to_owned(), previous);
            }
            Outcome::Done(evidence)
        }
        Noted::Failed { reason, retryable } => Outcome::Failed { reason, retryable },
    }
}
