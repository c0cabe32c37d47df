//! What is owed against what runs.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::future::BoxFuture;
use medic_state::{
    Command, Fence, IncidentId, PlanId, Revision, State, Timestamp, TraceId, applied::Effect,
    command::EscalateIncident, notice::Telling, plan::StepKey,
};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tracing::Instrument as _;

use super::{Context, WorkError, deciding, notifying, notifying::Told, verifying};
use crate::action::{driver::Driven, judge::panic_text, metrics::Metric};

/// Decisions prepared at once: each observes up to some dozens of targets.
const DECIDING_MAX: usize = 8;
/// Least and greatest wait before something held back is tried again.
const PARK_MIN: Duration = Duration::from_millis(250);
const PARK_MAX: Duration = Duration::from_secs(10);
/// Wait after a failure inside Medic.
const FAILED_PARK: Duration = Duration::from_secs(5);
/// Failures of one step's driver under one office before its outcome counts as unknown.
const FAILURES_MAX: u32 = 3;
/// One part in so many of the time goes into finding out what people are owed.
const TELLING_SHARE: u32 = 20;
/// Least time between two ticks.
const TICK_MIN: Duration = Duration::from_secs(1);

/// Something the leader owes: one task each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// A decision.
    Decide(IncidentId),
    /// A step, one way.
    Step(StepKey),
    /// A verdict.
    Verify(PlanId),
    /// A message to people.
    Notify(Telling),
    /// An incident handed to a human, because Medic failed.
    Escalate(IncidentId, String),
    /// Time.
    Tick,
}

/// How a piece of work ended, when it did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Done, or not owed any more.
    Done,
    /// People have been told; whether an entry says so is another matter.
    Told,
    /// Held back: try again later, each time a little later.
    HeldBack(String),
    /// Nothing to do before this time, unless the incident changes.
    Wait(Timestamp),
    /// What it was based on has changed: again, at once.
    Again,
}

/// Owed, and not to be started yet.
#[derive(Clone, Debug)]
struct Parked {
    since: Instant,
    until: Instant,
    /// A change of the incident ends the wait early.
    revision: Option<Revision>,
    /// So does a lock or a freeze that is gone, after [`Parked::early`].
    holds: Holds,
    /// How often in a row.
    times: u32,
    /// Whether it runs again by now (kept for `times`).
    released: bool,
}

impl Parked {
    /// The wait when a hold has changed. It grows too, since in a busy fleet holds change all the
    /// time, and each refusal is an entry in the log.
    fn early(&self) -> Duration {
        PARK_MIN.saturating_mul(1 << self.times.min(4))
    }
}

/// What can hold work back, counted: a change is worth another try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holds {
    freezes: usize,
    locks: usize,
    breakers: usize,
}

impl Holds {
    fn of(state: &State) -> Self {
        let open = state.breakers.values().filter(|breaker| breaker.open_until.is_some());
        Self { freezes: state.freezes.len(), locks: state.locks.len(), breakers: open.count() }
    }
}

/// A task and whom it treats.
struct Running {
    work: Work,
    incident: Option<IncidentId>,
    trace: TraceId,
}

/// All tasks of one office.
pub(super) struct Desk {
    context: Context,
    tasks: JoinSet<Result<End, WorkError>>,
    running: HashMap<Id, Running>,
    parked: HashMap<Work, Parked>,
    failures: HashMap<Work, u32>,
    /// As of the last look.
    holds: Holds,
    /// What people are owed is not looked at before this.
    tell_after: Instant,
}

/// One thing owed, with what it takes to start it.
struct Owed {
    work: Work,
    incident: Option<IncidentId>,
    trace: TraceId,
    revision: Option<Revision>,
    resume: Option<Fence>,
    not_before: Timestamp,
}

impl Desk {
    pub(super) fn new(context: Context) -> Self {
        Self {
            context,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            parked: HashMap::new(),
            failures: HashMap::new(),
            holds: Holds::default(),
            tell_after: Instant::now(),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Starts what is owed and neither running nor parked; gives the next time to look.
    pub(super) fn reconcile(&mut self, told: &mut Told) -> Option<Instant> {
        let now = self.context.office.clock().now();
        let fence = self.context.office.fence();
        let (mut owed, due, holds) =
            self.context.read(|state| (owed(state, fence), state.next_due(), Holds::of(state)));
        self.holds = holds;
        let telling_later = self.owed_to_people(&mut owed, told);
        if due.is_some_and(|due| due <= now) {
            owed.push(Owed::of(Work::Tick, TraceId::default()));
        }
        let not_looked = telling_later.is_some();
        // Thousands of incidents may be open: each thing is found by its hash.
        let wanted: HashSet<&Work> = owed.iter().map(|owed| &owed.work).collect();
        let is_owed =
            |work: &Work| wanted.contains(work) || (not_looked && matches!(work, Work::Notify(_)));
        self.parked.retain(|work, _| is_owed(work));
        self.failures.retain(|work, _| is_owed(work));
        drop(wanted);
        let mut busy: HashSet<Busy> = self.running.values().map(|one| busy(&one.work)).collect();
        let is_deciding = |work: &&Busy| matches!(work, Busy::With(Work::Decide(_)));
        let mut deciding = busy.iter().filter(is_deciding).count();
        let mut wake = due.filter(|due| *due > now).map(|due| after(due.since(now).as_duration()));
        wake = wake.into_iter().chain(telling_later).min();
        for owed in owed {
            if !busy.insert(self::busy(&owed.work)) {
                continue;
            }
            if let Some(later) = self.consider(owed, now, &mut deciding) {
                wake = Some(wake.map_or(later, |wake| wake.min(later)));
            }
        }
        wake
    }

    /// Adds what people are owed. To find that out costs more than the rest when many incidents wait
    /// for people, so it takes up a small part of the time at most: gives when to look again, if now
    /// was too early.
    fn owed_to_people(&mut self, owed: &mut Vec<Owed>, told: &mut Told) -> Option<Instant> {
        let began = Instant::now();
        if began < self.tell_after {
            return Some(self.tell_after);
        }
        self.context.read(|state| {
            told.keep(state);
            let tellings = state.tellings(&|id, channel, text| told.has(id, channel, text));
            told.warn_of(&tellings.nobody);
            owed.extend(tellings.next.into_iter().map(|telling| owed_telling(state, telling)));
        });
        self.tell_after = Instant::now() + began.elapsed() * TELLING_SHARE;
        None
    }

    /// Starts one thing owed that is not running, or says when to look at it again.
    fn consider(&mut self, owed: Owed, now: Timestamp, deciding: &mut usize) -> Option<Instant> {
        if owed.not_before > now {
            return Some(after(owed.not_before.since(now).as_duration()));
        }
        if let Some(parked) = self.parked.get_mut(&owed.work) {
            let changed = parked.revision.is_some() && parked.revision != owed.revision;
            let freed = parked.holds != self.holds;
            let until =
                if freed { parked.until.min(parked.since + parked.early()) } else { parked.until };
            if !parked.released && !changed && Instant::now() < until {
                return Some(until);
            }
            parked.released = true;
        }
        if matches!(owed.work, Work::Decide(_)) {
            if *deciding >= DECIDING_MAX {
                // The end of one of them is the next look.
                return None;
            }
            *deciding += 1;
        }
        self.start(owed);
        None
    }

    fn start(&mut self, owed: Owed) {
        let Owed { work, incident, trace, resume, .. } = owed;
        let context = self.context.clone();
        let given_up = self.failures.get(&work).is_some_and(|count| *count >= FAILURES_MAX);
        let treating: BoxFuture<'static, Result<End, WorkError>> = match work.clone() {
            Work::Decide(incident) => Box::pin(deciding::decide(context, incident)),
            Work::Verify(plan) => Box::pin(verifying::verify(context, plan)),
            Work::Notify(telling) => Box::pin(notifying::notify(context, telling, trace)),
            Work::Step(key) if given_up => Box::pin(async move {
                let why = format!("its driver failed {FAILURES_MAX} times");
                context.driver.give_up(key, trace, why).await?;
                Ok(End::Done)
            }),
            Work::Step(key) => Box::pin(async move {
                Ok(match context.driver.drive(key, resume, trace).await? {
                    Driven::Recorded => End::Done,
                    Driven::HeldBack(why) => End::HeldBack(why),
                    Driven::Obsolete(why) => End::HeldBack(why),
                })
            }),
            Work::Escalate(incident, reason) => {
                Box::pin(escalate(context, incident, trace, reason))
            }
            Work::Tick => Box::pin(async move {
                match context.office.ask(trace, Command::Tick).await? {
                    // What was due may stay due for a reason of the law's: less and less often.
                    Ok(_) => Ok(End::HeldBack("ticked".to_owned())),
                    Err(refusal) => Err(WorkError::Refused { command: "Tick", refusal }),
                }
            }),
        };
        // Every line that is logged on the way says which incident and trace it belongs to.
        let span = incident.map_or_else(
            tracing::Span::none,
            |incident| tracing::info_span!("treating", %incident, %trace),
        );
        let task = self.tasks.spawn(treating.instrument(span));
        self.running.insert(task.id(), Running { work, incident, trace });
    }

    /// Waits for one task to end and deals with it; for ever when none runs.
    pub(super) async fn one_ended(&mut self, told: &mut Told) {
        match self.tasks.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, Ok(end)))) => self.ended(id, end, told),
            Some(Ok((id, Err(error)))) => {
                let lost = error.office_lost();
                self.failed(id, error.to_string(), lost);
            }
            Some(Err(error)) => self.failed(error.id(), join_error_text(error), false),
        }
    }

    fn ended(&mut self, id: Id, end: End, told: &mut Told) {
        let Some(running) = self.running.remove(&id) else { return };
        let work = running.work;
        match end {
            End::Done => {
                self.parked.remove(&work);
                self.failures.remove(&work);
            }
            End::Told => {
                self.parked.remove(&work);
                self.failures.remove(&work);
                if let Work::Notify(telling) = &work {
                    told.remember(telling);
                }
            }
            End::Again => {
                self.parked.remove(&work);
            }
            End::HeldBack(why) => {
                tracing::debug!(?work, why, "held back");
                let least = if work == Work::Tick { TICK_MIN } else { PARK_MIN };
                let revision = self.revision_of(&work);
                self.park(work, least, revision);
            }
            End::Wait(until) => {
                let now = self.context.office.clock().now();
                let wait = until.since(now).as_duration().clamp(PARK_MIN, PARK_MAX);
                let revision = self.revision_of(&work);
                self.park_for(work, wait, revision, 0);
            }
        }
    }

    /// Parks for `least`, twice as long each time in a row.
    fn park(&mut self, work: Work, least: Duration, revision: Option<Revision>) {
        let times = self.parked.get(&work).map_or(0, |parked| parked.times.saturating_add(1));
        let wait = least.saturating_mul(1 << times.min(10)).min(PARK_MAX);
        self.park_for(work, wait, revision, times);
    }

    fn park_for(&mut self, work: Work, wait: Duration, revision: Option<Revision>, times: u32) {
        let since = Instant::now();
        let holds = self.context.read(Holds::of);
        let until = since + wait;
        let parked = Parked { since, until, revision, holds, times, released: false };
        self.parked.insert(work, parked);
    }

    /// The revision of the incident that a decision is about.
    fn revision_of(&self, work: &Work) -> Option<Revision> {
        let Work::Decide(id) = work else { return None };
        self.context.read(|state| state.incidents.get(id).map(|incident| incident.revision))
    }

    /// A failure inside Medic: the incident goes to a human, with the error.
    fn failed(&mut self, id: Id, error: String, office_lost: bool) {
        let Some(Running { work, incident, trace }) = self.running.remove(&id) else { return };
        if office_lost {
            tracing::debug!(?work, error, "left to the next leader");
            self.park_for(work, PARK_MIN, None, 0);
            return;
        }
        tracing::error!(?work, error, trace = %trace, "failed inside Medic");
        metrics::counter!(Metric::InternalFailures.name()).increment(1);
        let count = self.failures.entry(work.clone()).or_default();
        *count = count.saturating_add(1);
        self.park(work.clone(), FAILED_PARK, None);
        if let Some(incident) = incident
            && !matches!(work, Work::Escalate(..) | Work::Notify(_))
        {
            let reason = format!("Medic failed: {error}");
            let work = Work::Escalate(incident, reason);
            self.start(Owed { incident: Some(incident), ..Owed::of(work, trace) });
        }
    }
}

impl Owed {
    fn of(work: Work, trace: TraceId) -> Self {
        Self {
            work,
            incident: None,
            trace,
            revision: None,
            resume: None,
            not_before: Timestamp::default(),
        }
    }
}

/// What the state says is owed, and intents of this office that no task drives.
fn owed(state: &State, fence: Fence) -> Vec<Owed> {
    let mut owed: Vec<Owed> =
        state.pending_acts().into_iter().map(|effect| owed_by(state, effect)).collect();
    for saga in state.sagas.values().filter(|saga| !saga.status.ended()) {
        for (step, position) in saga.steps.iter().zip(0..) {
            let Some(intent) = step.intent.as_ref().filter(|intent| intent.fence == fence) else {
                continue;
            };
            let key = StepKey { plan: saga.id, step: position, direction: intent.direction };
            if !owed.iter().any(|owed| owed.work == Work::Step(key)) {
                owed.push(owed_step(state, key, Timestamp::default()));
            }
        }
    }
    owed
}

fn owed_by(state: &State, effect: Effect) -> Owed {
    let of_incident = |id: IncidentId, work: Work| {
        let incident = state.incidents.get(&id);
        let trace = incident.map(|incident| incident.trace).unwrap_or_default();
        Owed {
            incident: Some(id),
            revision: incident.map(|incident| incident.revision),
            ..Owed::of(work, trace)
        }
    };
    match effect {
        Effect::Decide(id) => of_incident(id, Work::Decide(id)),
        Effect::Notify(telling) => owed_telling(state, telling),
        Effect::Verify(plan) => match state.sagas.get(&plan) {
            Some(saga) => of_incident(saga.incident, Work::Verify(plan)),
            None => Owed::of(Work::Verify(plan), TraceId::default()),
        },
        Effect::RunStep { plan, step, direction, resume: _, not_before } => {
            owed_step(state, StepKey { plan, step, direction }, not_before)
        }
    }
}

/// A message; its trace is that of the first incident it is about.
fn owed_telling(state: &State, telling: Telling) -> Owed {
    let incident = telling.notices.first().map(|notice| notice.incident);
    let trace = incident.and_then(|id| state.incidents.get(&id)).map(|found| found.trace);
    let not_before = telling.not_before;
    Owed { incident, not_before, ..Owed::of(Work::Notify(telling), trace.unwrap_or_default()) }
}

/// What is done once at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Busy {
    /// This piece of work.
    With(Work),
    /// A message to this channel of this tenant, whatever it says.
    Telling(String, String),
}

fn busy(work: &Work) -> Busy {
    match work {
        Work::Notify(telling) => Busy::Telling(telling.tenant.clone(), telling.channel.clone()),
        Work::Decide(_) | Work::Step(_) | Work::Verify(_) | Work::Escalate(..) | Work::Tick => {
            Busy::With(work.clone())
        }
    }
}

/// A step; whether it is resumed is read from its intent.
fn owed_step(state: &State, key: StepKey, not_before: Timestamp) -> Owed {
    let saga = state.sagas.get(&key.plan);
    let incident = saga.map(|saga| saga.incident);
    let trace = incident.and_then(|id| state.incidents.get(&id)).map(|found| found.trace);
    let resume = saga
        .and_then(|saga| saga.steps.get(usize::try_from(key.step).ok()?)?.intent.as_ref())
        .filter(|intent| intent.direction == key.direction)
        .map(|intent| intent.fence);
    Owed { incident, resume, not_before, ..Owed::of(Work::Step(key), trace.unwrap_or_default()) }
}

async fn escalate(
    context: Context,
    incident: IncidentId,
    trace: TraceId,
    reason: String,
) -> Result<End, WorkError> {
    let command = Command::EscalateIncident(EscalateIncident { incident, reason });
    match context.office.ask(trace, command).await? {
        Ok(_) => Ok(End::Done),
        Err(refusal) => {
            // Nothing is left to do by itself; the log line and the counter are what remains.
            tracing::error!(%incident, %refusal, "cannot escalate");
            Ok(End::Done)
        }
    }
}

fn join_error_text(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => format!("a task panicked: {}", panic_text(panic.as_ref())),
        Err(error) => error.to_string(),
    }
}

fn after(wait: Duration) -> Instant {
    // The law compares whole milliseconds: a moment later is surely due.
    Instant::now() + wait + Duration::from_millis(1)
}
