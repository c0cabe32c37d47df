//! Orders and queries: fences, keys, one application per key.
//!
//! ```text
//!   order ─► fence older? ─► refused
//!         ─► key known with an outcome? ─► that outcome, nothing is done
//!         ─► same key under way? ─► wait for it
//!         ─► act lock ─► begun before and cut short? ─► settle ─► Begin ─► perform ─► Outcome
//! ```
//!
//! Invariants: nothing is done that was not noted; nothing is done under a fence lower than one
//! ever answered; nothing is begun after its time is up. All of this blocks: call it off the
//! runtime's threads.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use medic_proto::fleet::v1::{self as wire, query_answer, result};
use medic_raft::Env;

use super::{
    acts,
    instance::{ActError, Instance},
    journal::{Begin, Journal, JournalError, Outcome},
    process::Life,
};
use crate::crash_point;

/// Acts carried out at a time, on different instances.
const ACTS_MAX: usize = 8;
/// How long a query waits for an act under way; the asker waits a second longer.
const QUERY_PATIENCE: Duration = Duration::from_secs(4);

/// The journal, and what is under way.
#[derive(Debug)]
pub(super) struct Desk {
    env: Env,
    book: Mutex<Book>,
    acting: Mutex<usize>,
    freed: Condvar,
}

#[derive(Debug)]
struct Book {
    journal: Journal,
    flights: BTreeMap<String, Arc<Flight>>,
}

/// An order under way, for whoever else asks for its key.
#[derive(Debug, Default)]
struct Flight {
    result: Mutex<Option<wire::Result>>,
    landed: Condvar,
}

impl Flight {
    fn land(&self, result: &wire::Result) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result.clone());
        self.landed.notify_all();
    }

    fn wait(&self, patience: Duration) -> Option<wire::Result> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, _) = self
            .landed
            .wait_timeout_while(result, patience, |result| result.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        result.clone()
    }
}

/// What is to be done about an order.
enum Admitted {
    Answer(wire::Result),
    Join(Arc<Flight>),
    Act(Arc<Flight>),
}

impl Desk {
    pub(super) fn new(journal: Journal, env: Env) -> Self {
        Self {
            env,
            book: Mutex::new(Book { journal, flights: BTreeMap::new() }),
            acting: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest fence accepted.
    pub(super) fn highest(&self) -> u64 {
        self.book().journal.highest()
    }

    /// Carries an order out, once, and says what came of it.
    pub(super) fn order(
        &self,
        order: &wire::Order,
        find: impl FnOnce() -> Option<Arc<Instance>>,
    ) -> wire::Result {
        let deadline = Instant::now() + Duration::from_millis(order.timeout_ms);
        let flight = loop {
            match self.admit(order) {
                Admitted::Answer(result) => return result,
                Admitted::Act(flight) => break flight,
                Admitted::Join(flight) => {
                    let patience = deadline.saturating_duration_since(Instant::now());
                    match flight.wait(patience) {
                        // Refused to its older fence, before it began: this one's turn.
                        Some(result) if is_refusal(&result) => {}
                        Some(result) => return already(result),
                        None => return unknown("it is under way since an earlier order"),
                    }
                }
            }
        };
        let landing = Landing { desk: self, key: &order.key, flight };
        let result = match find() {
            Some(instance) => self.act(&instance, order, deadline),
            None => failed(&ActError::permanent(
                "this instance is not declared on this agent (any more)",
            )),
        };
        landing.flight.land(&result);
        result
    }

    fn admit(&self, order: &wire::Order) -> Admitted {
        let mut book = self.book();
        if let Err(error) = book.journal.accept(order.fence) {
            return Admitted::Answer(refused(order, error));
        }
        if let Some(flight) = book.flights.get(&order.key) {
            return Admitted::Join(Arc::clone(flight));
        }
        if let Some(outcome) = book.journal.answer(&order.key, order.attempt) {
            return Admitted::Answer(already(to_wire(outcome.clone())));
        }
        let flight = Arc::new(Flight::default());
        book.flights.insert(order.key.clone(), Arc::clone(&flight));
        Admitted::Act(flight)
    }

    fn act(&self, instance: &Instance, order: &wire::Order, deadline: Instant) -> wire::Result {
        let _one_at_a_time = instance.begin_act();
        let _slot = self.slot();
        if Instant::now() >= deadline && order.timeout_ms > 0 {
            let late = "nothing was done: other acts took until its time was up";
            return failed(&ActError::retryable(late));
        }
        let earlier = self.book().journal.known(&order.key).cloned();
        if let Some(known) = earlier.as_ref().filter(|known| known.outcome.is_none())
            && let Some(evidence) = acts::settle(instance, known)
        {
            let outcome = Outcome::Done { evidence };
            self.finish(&order.key, order.fence, outcome.clone());
            return already(to_wire(outcome));
        }
        let prepared = match acts::prepare(instance, order, earlier.as_ref()) {
            Ok(prepared) => prepared,
            Err(error) => return failed(&error),
        };
        let begin = Begin {
            key: order.key.clone(),
            attempt: order.attempt,
            fence: order.fence,
            at_ms: self.env.clock.now().0,
            action: order.action.clone(),
            target: instance.key.to_string(),
            config_before: prepared.config_before.clone(),
            config_wanted: prepared.config_wanted.clone(),
            running: instance.life() == Some(Life::Running),
        };
        crash_point!("agent_before_begin");
        // A higher fence may have been accepted while this order waited.
        if let Err(error) = self.book().journal.begin(begin) {
            return refused(order, error);
        }
        crash_point!("agent_after_begin");
        tracing::info!(
            key = order.key, fence = order.fence, attempt = order.attempt, action = order.action,
            instance = %instance.key, trace = order.trace_id, "acting"
        );
        let outcome = match acts::perform(instance, order, &prepared, deadline) {
            Ok(evidence) => Outcome::Done { evidence },
            Err(ActError { reason, retryable }) => Outcome::Failed { reason, retryable },
        };
        crash_point!("agent_after_act");
        tracing::info!(key = order.key, ?outcome, "acted");
        self.finish(&order.key, order.fence, outcome.clone());
        crash_point!("agent_before_report");
        to_wire(outcome)
    }

    fn finish(&self, key: &str, fence: u64, outcome: Outcome) {
        let at_ms = self.env.clock.now().0;
        if let Err(error) = self.book().journal.finish(key, fence, at_ms, outcome) {
            tracing::error!(key, %error, "the outcome is not noted; it will be told from the world");
        }
    }

    fn slot(&self) -> Slot<'_> {
        let acting = self.acting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut acting = self
            .freed
            .wait_while(acting, |acting| *acting >= ACTS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *acting += 1;
        Slot(self)
    }

    /// Says what became of a key, and lets no older fence follow.
    pub(super) fn query(
        &self,
        query: &wire::Query,
        find: impl FnOnce(&str) -> Option<Arc<Instance>>,
    ) -> wire::QueryAnswer {
        let kind = match self.look_up(query, find) {
            Some(result) => query_answer::Kind::Result(result),
            None => query_answer::Kind::NeverBegun(true),
        };
        wire::QueryAnswer { key: query.key.clone(), fence: query.fence, kind: Some(kind) }
    }

    fn look_up(
        &self,
        query: &wire::Query,
        find: impl FnOnce(&str) -> Option<Arc<Instance>>,
    ) -> Option<wire::Result> {
        let flight = {
            let mut book = self.book();
            if let Err(error) = book.journal.accept(query.fence) {
                return Some(not_noted(error));
            }
            book.flights.get(&query.key).cloned()
        };
        if let Some(flight) = flight
            && flight.wait(QUERY_PATIENCE).is_none()
        {
            return Some(unknown("it is under way"));
        }
        let known = self.book().journal.known(&query.key).cloned()?;
        if let Some(outcome) = known.outcome {
            return Some(already(to_wire(outcome)));
        }
        let Some(instance) = find(&known.last.target) else {
            return Some(unknown("it was begun, and its instance is no longer declared here"));
        };
        let _one_at_a_time = instance.begin_act();
        // Another query or order may have settled it meanwhile.
        let known = self.book().journal.known(&query.key).cloned()?;
        if let Some(outcome) = known.outcome {
            return Some(already(to_wire(outcome)));
        }
        let outcome = match acts::settle(&instance, &known) {
            Some(evidence) => Outcome::Done { evidence },
            None => match acts::take_back(&instance, &known) {
                Ok(()) => Outcome::Failed {
                    reason: "it was begun and cut short before it was done".to_owned(),
                    retryable: true,
                },
                Err(ActError { reason, .. }) => {
                    let half = "it was begun and cut short, and what is left of it";
                    return Some(unknown(&format!("{half} cannot be taken back: {reason}")));
                }
            },
        };
        self.finish(&query.key, query.fence, outcome.clone());
        Some(already(to_wire(outcome)))
    }
}

/// Ends a flight, whatever becomes of it.
struct Landing<'a> {
    desk: &'a Desk,
    key: &'a str,
    flight: Arc<Flight>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.desk.book().flights.remove(self.key);
        if self.flight.wait(Duration::ZERO).is_none() {
            self.flight.land(&unknown("the agent failed while it acted; see its log"));
        }
    }
}

/// One of the acts carried out at a time.
struct Slot<'a>(&'a Desk);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.acting.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}

fn is_refusal(result: &wire::Result) -> bool {
    matches!(result.kind, Some(result::Kind::RefusedFence(_)))
}

fn to_wire(outcome: Outcome) -> wire::Result {
    let kind = match outcome {
        Outcome::Done { evidence } => result::Kind::Done(wire::Done { evidence, already: false }),
        Outcome::Failed { reason, retryable } => {
            result::Kind::Failed(wire::Failed { reason, retryable })
        }
    };
    wire::Result { kind: Some(kind) }
}

/// The same, as something that was done before.
fn already(mut result: wire::Result) -> wire::Result {
    if let Some(result::Kind::Done(done)) = &mut result.kind {
        done.already = true;
    }
    result
}

pub(super) fn failed(error: &ActError) -> wire::Result {
    let failed = wire::Failed { reason: error.reason.clone(), retryable: error.retryable };
    wire::Result { kind: Some(result::Kind::Failed(failed)) }
}

fn unknown(reason: &str) -> wire::Result {
    wire::Result { kind: Some(result::Kind::Unknown(wire::Unknown { reason: reason.to_owned() })) }
}

/// An order that is not carried out because it could not be noted; people should see which.
fn refused(order: &wire::Order, error: JournalError) -> wire::Result {
    tracing::warn!(
        key = order.key, fence = order.fence, node = order.node_id, %error, "refused an order"
    );
    not_noted(error)
}

fn not_noted(error: JournalError) -> wire::Result {
    match error {
        JournalError::Fenced { highest, .. } => {
            wire::Result { kind: Some(result::Kind::RefusedFence(wire::RefusedFence { highest })) }
        }
        JournalError::Store(_) | JournalError::Damaged { .. } | JournalError::Broken { .. } => {
            failed(&ActError::retryable(format!("nothing was done: {error}")))
        }
    }
}
