//! What happened in a run, for the checkers: everything they know, they know from here.
//!
//! Deliberately absent: the law's own opinion of itself. A checker that asks the state whether a
//! budget holds would agree with a law that has forgotten to count.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use medic_state::{
    Answer, Digest, Entry, Fence, NodeId, PlanId, Record,
    plan::StepKey,
    saga::{Outcome, SagaStatus},
    symptom::Target,
};

use crate::{
    clock::Time,
    coverage::{Coverage, Sometimes},
    trace::Trace,
};

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Simulated milliseconds since the run began.
    pub ms: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// An entry was committed; this is what one more replica of the law, which never failed, made of it.
    Committed(Arc<Commit>),
    /// A node applied an entry.
    Applied {
        /// The node.
        node: NodeId,
        /// The entry.
        index: u64,
        /// Digest of what it emitted.
        records: Digest,
        /// Hash of the state after it, now and then.
        state: Option<Digest>,
    },
    /// A node took its state from a snapshot.
    Installed {
        /// The node.
        node: NodeId,
        /// The last entry in it.
        index: u64,
        /// Hash of the state that came out.
        state: Digest,
    },
    /// A node came up with nothing in memory.
    Restarted(NodeId),
    /// A node ended without notice.
    Crashed(NodeId),
    /// A node was elected.
    Elected {
        /// The node.
        node: NodeId,
        /// Its term.
        term: u64,
    },
    /// The hands of a node sent an order.
    Sent(Box<Sent>),
    /// A target was given an order.
    Reached(Box<Reached>),
    /// An answer reached a client.
    Acknowledged {
        /// At which index.
        index: u64,
        /// Which request.
        request: String,
        /// What it was told.
        answer: Answer,
    },
    /// Something broke that stays broken until it is treated.
    Broke {
        /// What.
        target: Target,
        /// Within this time somebody must have reported it.
        report_within_ms: u64,
    },
    /// All faults are over.
    Healed,
    /// Something has been broken for as long as anybody may take to report it.
    Lasted {
        /// What.
        target: Target,
    },
    /// The state of a node at the end.
    Final {
        /// The node.
        node: NodeId,
        /// Applied.
        index: u64,
        /// Hash.
        state: Digest,
        /// Whether it believes that it leads.
        leads: bool,
        /// Whether it gave a linearizable read and took a write in time.
        serves: bool,
    },
}

/// See [`What::Committed`].
#[derive(Clone, Debug)]
pub struct Commit {
    /// Log index.
    pub index: u64,
    /// The node that committed it.
    pub by: NodeId,
    /// The entry.
    pub entry: Arc<Entry>,
    /// What the law answered.
    pub answer: Answer,
    /// What it emitted.
    pub records: Vec<Record>,
    /// Plans whose status is another now.
    pub moved: Vec<(PlanId, SagaStatus)>,
    /// Whether the same request was committed before: it is answered again, and applied once.
    pub repeated: bool,
    /// Hash of the state after it, now and then.
    pub state: Option<Digest>,
}

/// See [`What::Sent`].
#[derive(Clone, Debug)]
pub struct Sent {
    /// Who sent it.
    pub node: NodeId,
    /// Its key.
    pub key: StepKey,
    /// Its fence.
    pub fence: Fence,
    /// Which attempt.
    pub attempt: u32,
    /// Name of the action.
    pub action: String,
    /// To whom.
    pub target: Target,
    /// What the sender had applied.
    pub applied: u64,
    /// The newest fence committed anywhere.
    pub newest_fence: Fence,
    /// How long ago the sender had last heard a quorum, in milliseconds.
    pub quorum_age_ms: u64,
}

/// See [`What::Reached`].
#[derive(Clone, Debug)]
pub struct Reached {
    /// The agent, or the name of the service behind a webhook.
    pub agent: String,
    /// Whether it keeps fences.
    pub fenced: bool,
    /// Key.
    pub key: StepKey,
    /// Fence.
    pub fence: Fence,
    /// Attempt.
    pub attempt: u32,
    /// What it did about it.
    pub did: Did,
}

/// What a target did about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    /// Refused its fence.
    Refused,
    /// Accepted its fence, as an order or a question.
    Accepted,
    /// Knew the key, and answered from memory.
    Knew,
    /// Began it.
    Began,
    /// It took effect.
    Effect,
    /// It ended like this.
    Ended(Outcome),
}

/// Takes down what happens; shared by everything in a run.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<Book>>);

/// What was taken down.
#[derive(Debug)]
pub struct Book {
    /// The trace.
    pub trace: Trace,
    /// The history.
    pub events: Vec<Event>,
    /// States that were reached.
    pub coverage: Coverage,
}

impl Recorder {
    /// Begins now.
    #[must_use]
    pub fn new(keep_trace: bool, time: Time) -> Self {
        let trace = Trace::new(keep_trace, time);
        Self(Arc::new(Mutex::new(Book {
            trace,
            events: Vec::new(),
            coverage: Coverage::default(),
        })))
    }

    /// The book itself. Never keep it across an await.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub fn happened(&self, what: What) {
        let mut book = self.book();
        let ms = book.trace.now_ms();
        book.events.push(Event { ms, what });
    }

    /// A line of the trace.
    pub fn trace(&self, text: std::fmt::Arguments<'_>) {
        self.book().trace.line(text);
    }

    /// A state was reached.
    pub fn reached(&self, state: Sometimes) {
        self.book().coverage.reached(state);
    }

    /// Simulated milliseconds since the run began.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.book().trace.now_ms()
    }
}

/// Locks; a poisoned lock is taken over, since every holder leaves the value whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
