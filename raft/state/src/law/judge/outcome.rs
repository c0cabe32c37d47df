//! What outcomes say of detection by themselves, in smaller words than people do.
//!
//! ```text
//!   verified ──┬─ the detectors that called it ──────────────────────────────► "genuine"
//!              └─ opened on facts, a limit crossed, its detectors silent ────► "missed", of that indicator
//!
//!   ended by itself ─ detectors alone, nobody hurt, nobody acted ─ has stayed away ► "false alarm"
//! ```
//!
//! Each is said only where nothing speaks against it. That an alarm was false:
//! * no fact spoke at any time (see [`crate::voice`]), and nobody who depends on it felt it;
//! * no step was begun, of its own or meanwhile next to it; no human left a line on its timeline;
//! * it was not held back, silenced or inhibited: then it did not take its own course;
//! * nobody was hurt: failures of a quarter of all requests were none, however they ended;
//! * people who were told of it cannot have mended it without a word here: it was too short for that;
//! * it was not back within the refractory time: what flaps is real.
//!
//! That something was missed: the limit's own signals say that the indicator's detectors had learnt enough
//! and found the value usual. A vote of theirs that the limit's hides is no silence.
//!
//! Invariant: an incident has one opinion of the law at most, and a human's replaces it exactly. One that a
//! human reopens was no false alarm: that is taken back, and its next outcome may say better.
//! Deliberately absent: what a failed or inconclusive verdict would say. It is about the treatment.

use std::collections::BTreeSet;

use super::{Caller, Cause, Word, callers, in_words, shift, take_back};
use crate::{
    command::{OUTCOMES_SINCE, WEIGHTS_SINCE},
    ids::{IncidentId, Millis, Timestamp},
    incident::{Incident, MAX_SYMPTOMS, MAX_TIMELINE, Resolution, SymptomState},
    law::{
        context::{Context, LAW, is_node},
        incidents::{obscure, tell},
    },
    saga::Saga,
    state::State,
    symptom::Severity,
    voice::Voice,
    weight::{
        Detector, Judged, LEAST_BY_OUTCOME, MOST_BY_OUTCOME, Move, Opinion, STEP_BY_OUTCOME,
        STEP_VERIFIED,
    },
};

/// Somebody who was told may have mended by hand what lasted longer: to be woken, look and act takes
/// minutes.
const MENDED_AFTER: Millis = Millis::from_secs(600);

const CONFIRMS: Word = Word { opinion: Opinion::Genuine, step: STEP_VERIFIED, limit: 0 };
const MISSED: Word =
    Word { opinion: Opinion::Missed, step: STEP_BY_OUTCOME, limit: MOST_BY_OUTCOME };
const FALSE_ALARM: Word =
    Word { opinion: Opinion::FalseAlarm, step: -STEP_BY_OUTCOME, limit: LEAST_BY_OUTCOME };

/// A remediation was verified: something was wrong. Those who said so get some belief back, and those who
/// should have are looked at more closely.
pub(in crate::law) fn verified(state: &mut State, context: &Context<'_>, id: IncidentId) {
    // Older builds do not know of weights: they would come to another state.
    if state.cluster_version < WEIGHTS_SINCE {
        return;
    }
    let knows = state.cluster_version >= OUTCOMES_SINCE;
    let Some(incident) = state.incidents.get(&id).filter(|found| found.judged.is_none()) else {
        return;
    };
    let (called, silent) = (callers(incident), if knows { silent(incident) } else { Vec::new() });
    let should_have = silent
        .iter()
        .flat_map(|family| [(family.clone(), Detector::Level), (family.clone(), Detector::Cusum)]);
    let should_have = should_have.collect();
    let by = if knows { LAW.to_owned() } else { context.actor() };
    let cause = Cause::of(state, id, by);
    let confirmed = shift(state, context, &cause, CONFIRMS, called);
    let missed = shift(state, context, &cause, MISSED, should_have);
    if !confirmed.is_empty() {
        let text = in_words(Opinion::Genuine, &confirmed);
        let families = Vec::new();
        note(state, context, id, (Opinion::Genuine, families), &text, confirmed.clone());
    }
    if !missed.is_empty() {
        let why = "its limit was crossed, and they found the value usual";
        let text = format!("{}: {why}", in_words(Opinion::Missed, &missed));
        let moves = [confirmed, missed].concat();
        note(state, context, id, (Opinion::Missed, silent), &text, moves);
    }
}

/// Holds an opinion of the law.
fn note(
    state: &mut State,
    context: &Context<'_>,
    id: IncidentId,
    (opinion, families): (Opinion, Vec<String>),
    text: &str,
    moves: Vec<Move>,
) {
    if let Ok(incident) = state.incident_mut(id) {
        tell(incident, context, text);
        let (by, at) = (LAW.to_owned(), context.now);
        incident.judged = Some(Judged { opinion, by, at, families, moves });
    }
}

/// The indicators whose limit was crossed while their detectors, being able to judge, were silent.
fn silent(incident: &Incident) -> Vec<String> {
    let own: Vec<&SymptomState> =
        incident.symptoms.values().filter(|known| !known.grouped).collect();
    let at_first = |known: &&&SymptomState| known.first_at == incident.opened_at;
    let on_facts = own.iter().filter(at_first).any(|known| known.voices.iter().any(Voice::is_fact));
    let voices: BTreeSet<&Voice> = own.iter().flat_map(|known| &known.voices).collect();
    let all_heard = incident.symptoms.len() < MAX_SYMPTOMS
        && own.iter().all(|known| !known.voices.is_empty())
        && !voices.contains(&Voice::Obscured);
    if !(on_facts && all_heard) {
        return Vec::new();
    }
    let spoke = |family: &String| {
        voices.iter().any(|voice| match voice {
            Voice::Detector(of, _) | Voice::Limit(of, false) => of == family,
            Voice::Limit(_, true) | Voice::Fact | Voice::Obscured => false,
        })
    };
    let crossed = voices.iter().filter_map(|voice| match voice {
        Voice::Limit(family, true) => Some(family),
        Voice::Limit(_, false) | Voice::Detector(..) | Voice::Fact | Voice::Obscured => None,
    });
    crossed.filter(|family| !spoke(family)).cloned().collect()
}

/// An incident is about to be closed because its symptoms went away: whether it did so undisturbed.
pub(in crate::law) fn ends_by_itself(state: &mut State, id: IncidentId) {
    let Some(incident) = state.incidents.get(&id).filter(|one| from_detectors(one).is_some())
    else {
        return;
    };
    if state.hold(incident).is_some() || state.hushed(incident).is_some() {
        obscure(state, id);
    }
}

/// What ended by itself has stayed away: where nothing ever came of it, it was a false alarm.
pub(in crate::law) fn stayed_away(state: &mut State, context: &mut Context<'_>) -> bool {
    // Older builds would come to another state.
    if state.cluster_version < OUTCOMES_SINCE {
        return false;
    }
    let due: Vec<(IncidentId, BTreeSet<Caller>)> = state
        .incidents
        .values()
        .filter(|one| state.may_recur_until(one).is_none())
        .filter_map(|one| Some((one.id, state.cried_wolf(one)?)))
        .collect();
    let changed = !due.is_empty();
    for (id, called) in due {
        let cause = Cause::of(state, id, LAW.to_owned());
        let moves = shift(state, context, &cause, FALSE_ALARM, called);
        let why = "detectors alone spoke, nobody acted, and it has stayed away";
        let text = format!("{}: {why}", in_words(Opinion::FalseAlarm, &moves));
        note(state, context, id, (Opinion::FalseAlarm, Vec::new()), &text, moves);
        state.archive(context, id);
        context.touched.insert(id);
    }
    changed
}

/// A human opens it again: it was no false alarm.
pub(in crate::law) fn withdraw(state: &mut State, context: &Context<'_>, id: IncidentId) {
    let of_law = |incident: &&Incident| {
        let judged = incident.judged.as_ref();
        judged.is_some_and(|said| said.by == LAW && said.opinion == Opinion::FalseAlarm)
    };
    if state.incidents.get(&id).filter(of_law).is_none() {
        return;
    }
    let cause = Cause::of(state, id, context.actor());
    take_back(state, context, &cause, Opinion::Genuine);
    if let Ok(incident) = state.incident_mut(id) {
        incident.judged = None;
        tell(incident, context, "no false alarm: what that had moved is taken back");
    }
}

/// Those who called an incident that rests on nothing but them, from beginning to end.
fn from_detectors(incident: &Incident) -> Option<BTreeSet<Caller>> {
    let mut callers = BTreeSet::new();
    for known in incident.symptoms.values() {
        // Those who depend on it felt it, or nobody kept who spoke.
        if known.grouped || known.voices.is_empty() {
            return None;
        }
        for voice in &known.voices {
            match voice {
                Voice::Detector(family, detector) => callers.insert((family.clone(), *detector)),
                Voice::Limit(..) | Voice::Fact | Voice::Obscured => return None,
            };
        }
    }
    (incident.symptoms.len() < MAX_SYMPTOMS && !callers.is_empty()).then_some(callers)
}

/// Whether no human has had a hand in it, as far as can be told.
fn untouched(incident: &Incident) -> bool {
    let cleared = incident.symptoms.values().filter_map(|known| known.cleared_at).max();
    let lasted = cleared.map(|at| at.since(incident.opened_at)).unwrap_or_default();
    let told = incident.notices.values().any(|notice| notice.heard);
    incident.acknowledged_by.is_none()
        && incident.judged.is_none()
        && incident.timeline.len() < MAX_TIMELINE
        && incident.timeline.iter().all(|line| is_node(&line.actor))
        && !(told && lasted > MENDED_AFTER)
}

impl State {
    /// Those who called an incident that was over before anybody did anything, if nothing speaks for it
    /// having been more than that.
    fn cried_wolf(&self, incident: &Incident) -> Option<BTreeSet<Caller>> {
        let alone = incident.resolution == Some(Resolution::SelfCleared)
            && incident.severity < Severity::Critical
            && incident.recurs.is_none()
            && incident.followed_by.is_none();
        if !(alone && untouched(incident)) {
            return None;
        }
        let callers = from_detectors(incident)?;
        let acted = self.sagas.values().any(|saga| self.may_have_mended(saga, incident));
        (!acted && !self.went_on(incident)).then_some(callers)
    }

    /// Whether its service was in trouble again soon, of whatever kind: a limit that was foreseen is crossed, what was
    /// slow is down.
    fn went_on(&self, incident: &Incident) -> bool {
        let until = self.may_recur_until(incident);
        let soon =
            |at: Timestamp| at >= incident.opened_at && until.is_none_or(|until| at <= until);
        self.incidents.values().any(|other| {
            other.id != incident.id
                && other.tenant == incident.tenant
                && other.target.service == incident.target.service
                && soon(other.opened_at)
        })
    }

    /// Whether a plan has acted on an incident, or meanwhile on its service, on one that it depends on, or
    /// on one that depends on it.
    fn may_have_mended(&self, saga: &Saga, incident: &Incident) -> bool {
        let Some(began) = saga.started_at.filter(|_| saga.tenant == incident.tenant) else {
            return false;
        };
        let service = &incident.target.service;
        let near = |other: &String| {
            let depends = |on: &String, who: &String| {
                self.dependencies(&incident.tenant, who).iter().any(|name| name == on)
            };
            other == service || depends(other, service) || depends(service, other)
        };
        let meanwhile = incident.resolved_at.is_none_or(|end| began <= end)
            && saga.ended_at.is_none_or(|end| incident.opened_at <= end);
        let own = saga.incident == incident.id;
        own || (meanwhile && saga.plan.steps.iter().any(|step| near(&step.target.service)))
    }

    /// When the next such incident has stayed away for long enough.
    pub(in crate::law) fn outcome_due(&self) -> Option<Timestamp> {
        if self.cluster_version < OUTCOMES_SINCE {
            return None;
        }
        let ended = self.incidents.values().filter(|one| self.cried_wolf(one).is_some());
        ended.map(|one| self.may_recur_until(one).unwrap_or(self.now)).min()
    }
}

#[cfg(test)]
mod tests;
