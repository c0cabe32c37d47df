//! Clients of the control API whose every call is recorded.
//!
//! Registers are silences (with compare-and-swap by digest) and freezes; lists are the notes of
//! incidents. Keys change every few seconds, so that the history of each stays short enough to be
//! decided. A call without a definite answer is sent again under the same request id, to another
//! node; when there is still none, it stays open in the history.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::watch;

use super::ask::{Answer, Key, Knowledge, ask};
use crate::{
    harness::{Client, Dialer},
    history::{Act, Call, Outcome, Recorder},
};

/// Keys are used this long.
const WINDOW_US: u64 = 8_000_000;
/// Registers of each kind at a time.
const KEYS: u64 = 2;
/// Requests per call.
const TRIES: u32 = 3;
/// Notes per incident: well below what its timeline keeps.
const NOTES_MAX: usize = 10;
/// Incidents that notes are written on at a time.
const NOTED: usize = 4;

/// What clients share.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) dialer: Dialer,
    pub(super) recorder: Recorder,
    pub(super) knowledge: Knowledge,
    /// Incidents to write notes on, newest last, and how many were written.
    incidents: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Desk {
    pub(super) fn new(dialer: Dialer, recorder: Recorder) -> Self {
        let knowledge = Knowledge::default();
        Self { dialer, recorder, knowledge, incidents: Arc::default() }
    }

    /// An incident that notes may be written on.
    pub(super) fn opened(&self, incident: &str) {
        let mut known = self.incidents.lock().unwrap_or_else(PoisonError::into_inner);
        if known.iter().all(|(id, _)| id != incident) {
            known.push((incident.to_owned(), 0));
        }
    }

    /// Incidents that notes were written on.
    pub(super) fn noted(&self) -> Vec<String> {
        let known = self.incidents.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|(_, notes)| *notes > 0).map(|(id, _)| id.clone()).collect()
    }

    fn pick_incident(&self, chance: &mut StdRng, writes: bool) -> Option<String> {
        let mut known = self.incidents.lock().unwrap_or_else(PoisonError::into_inner);
        let from = known.len().saturating_sub(NOTED);
        let at = from + chance.random_range(0..known.len().saturating_sub(from).max(1));
        let (incident, notes) = known.get_mut(at)?;
        if writes {
            *notes += 1;
        }
        (*notes <= NOTES_MAX).then(|| incident.clone())
    }
}

/// One client: a connection, a node it prefers, and a chance of its own.
#[derive(Debug)]
pub(super) struct Caller {
    desk: Desk,
    number: u32,
    chance: StdRng,
    node: u64,
    client: Option<Client>,
    requests: u64,
}

impl Caller {
    pub(super) fn new(desk: Desk, number: u32, seed: u64) -> Self {
        let nodes = desk.dialer.nodes();
        let mut chance = StdRng::seed_from_u64(seed ^ u64::from(number).rotate_left(32));
        let node = nodes.get(chance.random_range(0..nodes.len().max(1))).copied().unwrap_or(1);
        Self { desk, number, chance, node, client: None, requests: 0 }
    }

    /// Calls until told to stop.
    pub(super) async fn run(mut self, stop: watch::Receiver<bool>, think: Duration) {
        while !*stop.borrow() {
            if let Some((key, act)) = self.draw() {
                self.call(key, act).await;
            }
            let half = u64::try_from(think.as_millis() / 2).unwrap_or(1).max(1);
            let pause = self.chance.random_range(half..half * 3);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn draw(&mut self) -> Option<(Key, Act)> {
        let window = self.desk.recorder.now_us() / WINDOW_US;
        let name = format!("w{window}-{}", self.chance.random_range(0..KEYS));
        let value = self.desk.knowledge.fresh();
        let dice = self.chance.random_range(0..100);
        Some(match dice {
            0..10 => {
                let incident = self.desk.pick_incident(&mut self.chance, true)?;
                (Key::Notes(incident), Act::Append(value))
            }
            10..18 => {
                let incident = self.desk.pick_incident(&mut self.chance, false)?;
                (Key::Notes(incident), Act::Read)
            }
            18..40 => (Key::Silence(name), Act::Read),
            40..50 => (Key::Silence(name), Act::Write(value)),
            50..64 => {
                let expected = self.desk.knowledge.last_of(&name);
                (Key::Silence(name), Act::Swap(expected, value))
            }
            64..68 => (Key::Silence(name), Act::Delete),
            68..84 => (Key::Freeze(name), Act::Read),
            84..93 => (Key::Freeze(name), Act::Write(value)),
            _ => (Key::Freeze(name), Act::Delete),
        })
    }

    async fn connected(&mut self) -> Option<&mut Client> {
        if self.client.is_none() {
            self.client = self.desk.dialer.dial(self.node).await.ok();
        }
        self.client.as_mut()
    }

    /// Leaves a node that did not answer.
    fn move_on(&mut self) {
        self.client = None;
        let nodes = self.desk.dialer.nodes();
        let at = self.chance.random_range(0..nodes.len().max(1));
        self.node = nodes.get(at).copied().unwrap_or(1);
    }

    /// One call, recorded.
    pub(super) async fn call(&mut self, key: Key, act: Act) {
        self.requests += 1;
        let request = format!("chaos-{}-{}", self.number, self.requests);
        let knowledge = self.desk.knowledge.clone();
        let start_us = self.desk.recorder.now_us();
        let (mut tries, mut answer) = (0, Answer::Unknown);
        let mut sent = false;
        // A read that fails may as well be another read.
        let most = if act == Act::Read { 1 } else { TRIES };
        while tries < most {
            tries += 1;
            let Some(client) = self.connected().await else {
                self.move_on();
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            sent = true;
            answer = ask(client, &knowledge, &key, act, &request).await;
            if !matches!(answer, Answer::Unknown) {
                break;
            }
            self.move_on();
        }
        let now = self.desk.recorder.now_us();
        let (outcome, end_us, index, set_at) = match answer {
            // Nothing was sent: nothing happened.
            Answer::Unknown if !sent => return,
            Answer::Refused => return,
            Answer::Unknown => (Outcome::Open, None, None, None),
            Answer::Known { outcome, index, set_at } => (outcome, Some(now), index, set_at),
        };
        let (client, node, key) = (self.number, self.node, key.to_string());
        let call = Call { client, node, key, act, outcome, start_us, end_us, index, set_at, tries };
        self.desk.recorder.record(call);
    }
}
