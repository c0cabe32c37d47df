//! `JudgeIncident`: what turned out about the detection of an incident moves how far detectors are
//! believed, see [`crate::weight`]. A verified remediation says the same by itself, in smaller words.
//!
//! An opinion of a human replaces an earlier one: what that moved is taken back first. A verdict
//! replaces nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    applied::{Answer, Refusal, Reply},
    command::{ALERTS_SINCE, JudgeIncident, WEIGHTS_SINCE},
    ids::IncidentId,
    incident::Incident,
    law::{
        context::{Context, LAW, MAX_NAME_BYTES},
        incidents::tell,
    },
    state::State,
    weight::{
        Detector, Judged, LEAST, MAX_WEIGHTS, MOST, Move, Opinion, STEP, STEP_VERIFIED, TOGETHER,
        Weight, WeightKey, Weights, family_of,
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
    let step = match command.opinion {
        Opinion::FalseAlarm => -STEP,
        Opinion::Missed | Opinion::Genuine => STEP,
    };
    let before = state.weights.version;
    let moves = shift(state, context, id, (command.opinion, step), wanted);
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

/// A remediation was verified: something was wrong, and those who said so get some belief back.
pub(super) fn confirm(state: &mut State, context: &Context<'_>, id: IncidentId) {
    // Older builds do not know of weights: they would come to another state.
    if state.cluster_version < WEIGHTS_SINCE {
        return;
    }
    let Some(incident) = state.incidents.get(&id).filter(|found| found.judged.is_none()) else {
        return;
    };
    let callers = callers(incident);
    let moves = shift(state, context, id, (Opinion::Genuine, STEP_VERIFIED), callers);
    if moves.is_empty() {
        return;
    }
    let text = in_words(Opinion::Genuine, &moves);
    if let Ok(incident) = state.incident_mut(id) {
        tell(incident, context, text);
        let (opinion, by, families) = (Opinion::Genuine, LAW.to_owned(), Vec::new());
        incident.judged = Some(Judged { opinion, by, at: context.now, families, moves });
    }
}

/// The detectors that called it, those of grouped dependents aside.
fn callers(incident: &Incident) -> BTreeSet<Caller> {
    let own = incident.symptoms.values().filter(|known| !known.grouped);
    own.flat_map(|known| &known.symptom.signals)
        .filter_map(|signal| {
            let detector = Detector::parse(&signal.detector)?;
            Some((family_of(&signal.name).to_owned(), detector))
        })
        .collect()
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

/// Takes back what an earlier opinion moved, then moves the callers' weights; gives what moved.
fn shift(
    state: &mut State,
    context: &Context<'_>,
    id: IncidentId,
    (opinion, step): (Opinion, i32),
    callers: BTreeSet<Caller>,
) -> Vec<Move> {
    let Some(incident) = state.incidents.get(&id) else { return Vec::new() };
    let tenant = incident.tenant.clone();
    let earlier = incident.judged.as_ref().map(|judged| judged.moves.clone()).unwrap_or_default();
    let cause = Cause { incident: id, opinion, version: state.weights.version.saturating_add(1) };
    let key = |(family, detector): Caller| WeightKey { tenant: tenant.clone(), family, detector };
    for one in earlier {
        let key = key((one.family, one.detector));
        // One that had to make room is not brought back to be taken from.
        if state.weights.all.contains_key(&key) {
            change(state, context, &cause, key, one.millinats.saturating_neg());
        }
    }
    let mut moves = Vec::new();
    for caller in callers {
        let key = key(caller);
        let now = state.weights.all.get(&key).map_or(0, |weight| weight.millinats);
        let step = match opinion {
            Opinion::FalseAlarm | Opinion::Missed => step,
            // To have been right once is no reason to be believed more than others.
            Opinion::Genuine => step.min(now.saturating_neg()).max(0),
        };
        let (family, detector) = (key.family.clone(), key.detector);
        let millinats = change(state, context, &cause, key, step);
        if millinats != 0 {
            moves.push(Move { family, detector, millinats });
        }
    }
    moves
}

/// Why weights change: one command, one version.
struct Cause {
    incident: IncidentId,
    opinion: Opinion,
    version: u64,
}

/// Moves one weight as far as the bounds allow; gives how far that was.
fn change(
    state: &mut State,
    context: &Context<'_>,
    cause: &Cause,
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
        by: context.actor(),
        incident: cause.incident,
        opinion: cause.opinion,
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
