//! `JudgeIncident`: what turned out about the detection of an incident moves how far detectors are
//! believed, see [`crate::weight`]. Outcomes say the same by themselves, in smaller words: [`outcome`].
//!
//! An opinion of a human replaces an earlier one: what that moved is taken back first. An outcome
//! replaces nothing.

pub(super) mod outcome;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    applied::{Answer, Refusal, Reply},
    command::{ALERTS_SINCE, JudgeIncident},
    ids::IncidentId,
    incident::Incident,
    law::{
        context::{Context, LAW, MAX_NAME_BYTES},
        incidents::tell,
    },
    state::State,
    voice::Voice,
    weight::{
        Detector, Judged, LEAST, MAX_WEIGHTS, MOST, Move, Opinion, STEP, TOGETHER, Weight,
        WeightKey, Weights,
    },
};

/// Indicators that one opinion may name: as many as a large service has.
const MAX_FAMILIES: usize = 64;
/// Moves written on a timeline by name.
const MOVES_TOLD: usize = 8;

/// A detector about a family.
type Caller = (String, Detector);

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &JudgeIncident,
) -> Answer {
    let id = command.incident;
    let incident = state.incidents.get(&id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
    if let Some(cause) = incident.merged_into {
        return Err(Refusal::IllegalState(format!("{id} was merged into {cause}: judge that one")));
    }
    let wanted = wanted(state, incident, command)?;
    let same = |judged: &&Judged| {
        let said = (judged.opinion, &judged.families);
        judged.by != LAW && said == (command.opinion, &command.families)
    };
    if let Some(judged) = incident.judged.as_ref().filter(same) {
        let text = format!("{id} is judged {} already, by {}", judged.opinion, judged.by);
        return Ok(Reply::Noted(text));
    }
    let (step, limit) = match command.opinion {
        Opinion::FalseAlarm => (-STEP, LEAST),
        Opinion::Missed => (STEP, MOST),
        // To have been right once is no reason to be believed more than others.
        Opinion::Genuine => (STEP, 0),
    };
    let before = state.weights.version;
    let word = Word { opinion: command.opinion, step, limit };
    let cause = Cause::of(state, id, context.actor());
    take_back(state, context, &cause, word.opinion);
    let moves = shift(state, context, &cause, word, wanted);
    let nothing = state.weights.version == before;
    let mut text = in_words(command.opinion, &moves);
    if !command.note.is_empty() {
        text = format!("{text}: {}", command.note);
    }
    let incident = state.incident_mut(id)?;
    tell(incident, context, text);
    let (opinion, families) = (command.opinion, command.families.clone());
    incident.judged =
        Some(Judged { opinion, by: context.actor(), at: context.now, families, moves });
    state.archive(context, id);
    context.touched.insert(id);
    if nothing {
        let why = "it is noted, and no weight moves: no detector is to be believed more or less";
        return Ok(Reply::Noted(why.to_owned()));
    }
    Ok(Reply::Incident(id))
}

/// The detectors that called it, at any time, those of grouped dependents aside.
fn callers(incident: &Incident) -> BTreeSet<Caller> {
    let mut callers = BTreeSet::new();
    for known in incident.symptoms.values().filter(|known| !known.grouped) {
        let last = known.symptom.signals.iter().map(Voice::of);
        for voice in known.voices.iter().cloned().chain(last) {
            if let Voice::Detector(family, detector) = voice {
                callers.insert((family, detector));
            }
        }
    }
    callers
}

/// Whom an opinion is about.
fn wanted(
    state: &State,
    incident: &Incident,
    command: &JudgeIncident,
) -> Result<BTreeSet<Caller>, Refusal> {
    let called = callers(incident);
    match command.opinion {
        Opinion::FalseAlarm | Opinion::Genuine if command.families.is_empty() => Ok(called),
        Opinion::FalseAlarm | Opinion::Genuine => {
            let text = "only what was missed names indicators: who called it is known";
            Err(Refusal::Invalid(text.to_owned()))
        }
        Opinion::Missed => missed(state, incident, &command.families, &called),
    }
}

/// Who should have called it: of each indicator named (or left), those who look at it alone.
fn missed(
    state: &State,
    incident: &Incident,
    families: &[String],
    called: &BTreeSet<Caller>,
) -> Result<BTreeSet<Caller>, Refusal> {
    if families.len() > MAX_FAMILIES || families.iter().any(|name| name.len() > MAX_NAME_BYTES) {
        let text = format!("at most {MAX_FAMILIES} indicators of {MAX_NAME_BYTES} bytes are taken");
        return Err(Refusal::Limit(text));
    }
    let (tenant, service) = (&incident.tenant, &incident.target.service);
    let declared: BTreeSet<&str> = state
        .service(tenant, service)
        .map(|spec| spec.indicators.iter().map(|one| one.name.as_str()).collect())
        .unwrap_or_default();
    let spoken_of = |family: &str| called.iter().any(|(known, _)| known == family);
    for family in families {
        if !declared.contains(family.as_str()) {
            let text = format!("service {service} declares no indicator `{family}`");
            return Err(Refusal::Invalid(text));
        }
        if spoken_of(family) {
            let text = format!("a detector did speak of `{family}`: it was not missed");
            return Err(Refusal::Invalid(text));
        }
    }
    let mut wanted = BTreeSet::new();
    let named = |family: &str| families.is_empty() || families.iter().any(|one| one == family);
    for family in declared.into_iter().filter(|family| named(family) && !spoken_of(family)) {
        wanted.insert((family.to_owned(), Detector::Level));
        wanted.insert((family.to_owned(), Detector::Cusum));
    }
    if wanted.is_empty() {
        let text = format!("service {service} declares no indicator that was not spoken of");
        return Err(Refusal::IllegalState(text));
    }
    if families.is_empty() && !spoken_of(TOGETHER) {
        wanted.insert((TOGETHER.to_owned(), Detector::Panel));
    }
    Ok(wanted)
}

/// Why weights change: one command, one version.
struct Cause {
    incident: IncidentId,
    tenant: String,
    by: String,
    version: u64,
}

impl Cause {
    fn of(state: &State, incident: IncidentId, by: String) -> Self {
        let tenant = state.incidents.get(&incident).map(|found| found.tenant.clone());
        let version = state.weights.version.saturating_add(1);
        Self { incident, tenant: tenant.unwrap_or_default(), by, version }
    }

    fn key(&self, (family, detector): Caller) -> WeightKey {
        WeightKey { tenant: self.tenant.clone(), family, detector }
    }
}

/// What is said, and how far it moves a weight: by a step, not beyond a limit.
#[derive(Clone, Copy)]
struct Word {
    opinion: Opinion,
    step: i32,
    limit: i32,
}

impl Word {
    /// How far it moves a weight that is `now`; one beyond the limit stays where it is.
    fn moves(self, now: i32) -> i32 {
        let room = self.limit.saturating_sub(now);
        if self.step < 0 { self.step.max(room).min(0) } else { self.step.min(room).max(0) }
    }
}

/// Takes back what an earlier opinion moved.
fn take_back(state: &mut State, context: &Context<'_>, cause: &Cause, opinion: Opinion) {
    let judged = state.incidents.get(&cause.incident).and_then(|one| one.judged.as_ref());
    let earlier = judged.map(|judged| judged.moves.clone()).unwrap_or_default();
    for one in earlier {
        let key = cause.key((one.family, one.detector));
        // One that had to make room is not brought back to be taken from.
        if state.weights.all.contains_key(&key) {
            change(state, context, cause, opinion, key, one.millinats.saturating_neg());
        }
    }
}

/// Moves the weights of these; gives what moved.
fn shift(
    state: &mut State,
    context: &Context<'_>,
    cause: &Cause,
    word: Word,
    callers: BTreeSet<Caller>,
) -> Vec<Move> {
    let mut moves = Vec::new();
    for (family, detector) in callers {
        let key = cause.key((family.clone(), detector));
        let now = state.weights.all.get(&key).map_or(0, |weight| weight.millinats);
        let millinats = change(state, context, cause, word.opinion, key, word.moves(now));
        if millinats != 0 {
            moves.push(Move { family, detector, millinats });
        }
    }
    moves
}

/// Moves one weight as far as the bounds allow; gives how far that was.
fn change(
    state: &mut State,
    context: &Context<'_>,
    cause: &Cause,
    opinion: Opinion,
    key: WeightKey,
    step: i32,
) -> i32 {
    let before = state.weights.all.get(&key).map_or(0, |weight| weight.millinats);
    let millinats = before.saturating_add(step).clamp(LEAST, MOST);
    if millinats == before {
        return 0;
    }
    // Before, the least of all tenants' made room.
    let by_tenant = state.cluster_version >= ALERTS_SINCE;
    let weights = &mut state.weights;
    if !weights.all.contains_key(&key) && weights.all.len() >= MAX_WEIGHTS {
        make_room(weights, by_tenant.then_some(key.tenant.as_str()));
    }
    weights.version = cause.version;
    let weight = Weight {
        millinats,
        version: cause.version,
        index: context.index,
        at: context.now,
        by: cause.by.clone(),
        incident: cause.incident,
        opinion,
    };
    weights.all.insert(key, weight);
    millinats.saturating_sub(before)
}

/// Drops the weight that says least, the oldest first: of the tenant that holds most, the one that
/// wants another first. So a tenant with no more than its share loses nothing to others.
fn make_room(weights: &mut Weights, wanted_by: Option<&str>) {
    let of = wanted_by.and_then(|wanted_by| {
        let mut held: BTreeMap<&str, usize> = BTreeMap::new();
        for key in weights.all.keys() {
            let count = held.entry(&key.tenant).or_default();
            *count = count.saturating_add(1);
        }
        let most = held.into_iter().max_by_key(|(tenant, count)| (*count, *tenant == wanted_by));
        most.map(|(tenant, _)| tenant.to_owned())
    });
    let candidates =
        weights.all.iter().filter(|(key, _)| of.as_ref().is_none_or(|of| key.tenant == *of));
    let least = candidates.min_by_key(|(_, one)| (one.millinats.abs(), one.version));
    if let Some(least) = least.map(|(key, _)| key.clone()) {
        weights.all.remove(&least);
    }
}

/// `judged a false alarm (level of error_rate -700)`.
fn in_words(opinion: Opinion, moves: &[Move]) -> String {
    let what = match opinion {
        Opinion::FalseAlarm => "judged a false alarm",
        Opinion::Missed => "judged to have been missed by detection",
        Opinion::Genuine => "judged genuine",
    };
    if moves.is_empty() {
        return what.to_owned();
    }
    let told: Vec<String> = moves
        .iter()
        .take(MOVES_TOLD)
        .map(|one| format!("{} of {} {:+}", one.detector, one.family, one.millinats))
        .collect();
    let more = moves.len().saturating_sub(MOVES_TOLD);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!("{what} (weights moved: {}{more})", told.join(", "))
}

#[cfg(test)]
pub(super) mod tests;
