//! The catalogue: what each action does to an instance, and how to tell whether it was done.
//!
//! ```text
//!   prepare ──► Begin noted ──► perform ──► Outcome noted
//!                     └── agent killed ──► settle: was it done? ──no──► ordered: prepare, perform again
//!                                                                  └──► asked: take back, "not done"
//! ```
//!
//! Invariant: `perform` converges. Carried out again after being cut short anywhere, it ends where
//! it would have ended at once, and starts no second process for one attempt.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use medic_proto::fleet::v1 as wire;
use medic_state::Millis;
use nix::sys::signal::Signal;

use super::{
    config_file::{self, SIZE_MAX},
    instance::{ActError, Instance, Wanted},
    journal::{Begin, Known},
    process::Life,
};

/// What undo needs and people want to see.
type Evidence = BTreeMap<String, String>;

/// What is fixed before an act begins, and noted with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) config_before: String,
    pub(super) config_wanted: String,
}

/// The start of a process is put down to one attempt of one key.
fn cause(key: &str, attempt: u32) -> String {
    format!("{key}#{attempt}")
}

/// Checks that it can be done at all. Changes nothing.
pub(super) fn prepare(
    instance: &Instance,
    order: &wire::Order,
    earlier: Option<&Known>,
) -> Result<Prepared, ActError> {
    let wanted = match order.action.as_str() {
        "process.start" | "process.stop" | "process.restart" | "process.restore" | "scale.out"
        | "scale.in" => return Ok(Prepared::default()),
        "config.replace" => {
            let content = order.params.get("content").ok_or_else(|| {
                ActError::permanent("config.replace needs the parameter `content`")
            })?;
            if content.len() as u64 > SIZE_MAX {
                return Err(ActError::permanent(format!("content is above {SIZE_MAX} bytes")));
            }
            config_file::hash(content.as_bytes())
        }
        "config.restore" => {
            let (_, previous) = instance.config()?;
            let wanted = earlier
                .map(|known| known.first.config_wanted.clone())
                .or_else(|| order.params.get("hash").cloned())
                .or(previous)
                .ok_or_else(|| {
                    ActError::permanent("no earlier version of the configuration file is kept")
                })?;
            if !is_hash(&wanted) {
                return Err(ActError::permanent(format!("`{wanted}` is not a SHA-256")));
            }
            instance.config_version(&wanted)?;
            wanted
        }
        other => {
            return Err(ActError::permanent(format!(
                "this agent knows no action `{other}`: upgrade it"
            )));
        }
    };
    let (current, _) = instance.config()?;
    let begun = earlier.filter(|known| known.first.config_wanted == wanted && current == wanted);
    let before = begun.map_or(current, |known| known.first.config_before.clone());
    Ok(Prepared { config_before: before, config_wanted: wanted })
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Does it. Only under the instance's act lock.
pub(super) fn perform(
    instance: &Instance,
    order: &wire::Order,
    prepared: &Prepared,
    deadline: Instant,
) -> Result<Evidence, ActError> {
    let cause = cause(&order.key, order.attempt);
    match order.action.as_str() {
        "process.start" | "scale.out" => {
            instance.want(Wanted::Running)?;
            start_unless_alive(instance, &cause)
        }
        "process.stop" | "scale.in" => stop(instance, deadline),
        "process.restart" => {
            let watch = watch(order)?;
            instance.want(Wanted::Running)?;
            let evidence = restart(instance, &cause, deadline)?;
            instance.outlives(watch, deadline)?;
            Ok(evidence)
        }
        "process.restore" if instance.standby() => stop(instance, deadline),
        "process.restore" => {
            instance.want(Wanted::Running)?;
            if instance.life() == Some(Life::Paused) {
                instance.signal(Signal::SIGCONT)?;
            }
            start_unless_alive(instance, &cause)
        }
        "config.replace" | "config.restore" => change_config(instance, order, prepared, deadline),
        other => Err(ActError::permanent(format!("this agent knows no action `{other}`"))),
    }
}

/// How long a process is to live before its start counts.
fn watch(order: &wire::Order) -> Result<Duration, ActError> {
    let Some(text) = order.params.get("watch") else { return Ok(Duration::ZERO) };
    let watch = text
        .parse::<Millis>()
        .map_err(|error| ActError::permanent(format!("the parameter `watch`: {error}")))?;
    Ok(watch.as_duration())
}

fn start_unless_alive(instance: &Instance, cause: &str) -> Result<Evidence, ActError> {
    if instance.life().is_none() {
        instance.start(cause)?;
    }
    Ok(running(instance))
}

fn stop(instance: &Instance, deadline: Instant) -> Result<Evidence, ActError> {
    let wanted = instance.wanted();
    instance.want(Wanted::Stopped)?;
    if let Err(error) = instance.stop(deadline) {
        // It runs on: what ends it later is a fault, and must look like one.
        instance.want(wanted)?;
        return Err(error);
    }
    Ok(Evidence::from([("state".to_owned(), "stopped".to_owned())]))
}

fn restart(instance: &Instance, cause: &str, deadline: Instant) -> Result<Evidence, ActError> {
    let before = instance.process();
    let started = before.as_ref().is_some_and(|process| !process.ended && process.cause == cause);
    if !started {
        instance.stop(deadline)?;
        instance.start(cause)?;
    }
    let mut evidence = running(instance);
    if let Some(before) = before.filter(|_| !started) {
        evidence.insert("previous_pid".to_owned(), before.id.pid.to_string());
    }
    Ok(evidence)
}

fn change_config(
    instance: &Instance,
    order: &wire::Order,
    prepared: &Prepared,
    deadline: Instant,
) -> Result<Evidence, ActError> {
    let (current, _) = instance.config()?;
    if current != prepared.config_wanted {
        match order.params.get("content").filter(|_| order.action == "config.replace") {
            Some(content) => instance.put_config(content.as_bytes())?,
            None => {
                instance.put_config(&instance.config_version(&prepared.config_wanted)?)?;
            }
        }
    }
    let mut evidence = config_evidence(&prepared.config_before, &prepared.config_wanted);
    let alive = instance.life();
    if instance.wanted() == Wanted::Stopped && alive.is_none() {
        return Ok(evidence);
    }
    match (instance.reload_signal(), alive) {
        (Some(signal), Some(Life::Running)) => {
            instance.signal(signal)?;
            evidence.insert("reloaded".to_owned(), signal.to_string());
            evidence.extend(running(instance));
        }
        // What is paused or dead hears no signal.
        _ => evidence.extend(restart(instance, &cause(&order.key, order.attempt), deadline)?),
    }
    Ok(evidence)
}

fn config_evidence(before: &str, wanted: &str) -> Evidence {
    let mut evidence = Evidence::from([("config_hash".to_owned(), wanted.to_owned())]);
    if !before.is_empty() {
        evidence.insert("previous_hash".to_owned(), before.to_owned());
    }
    evidence
}

/// The process there is, which may have ended since an act that was cut short.
fn running(instance: &Instance) -> Evidence {
    let process = instance.process();
    let ended = process.as_ref().is_none_or(|process| process.ended);
    let pid = process.map_or(0, |process| process.id.pid);
    Evidence::from([
        ("pid".to_owned(), pid.to_string()),
        ("state".to_owned(), if ended { "ended" } else { "running" }.to_owned()),
    ])
}

/// Whether an act that was begun and never finished was done: its evidence, or `None`. Only under
/// the instance's act lock, so that nothing is under way.
pub(super) fn settle(instance: &Instance, known: &Known) -> Option<Evidence> {
    let begun: &Begin = &known.last;
    let alive = instance.life();
    let started_by_it =
        instance.process().is_some_and(|process| process.cause == cause(&begun.key, begun.attempt));
    let stopped = || Evidence::from([("state".to_owned(), "stopped".to_owned())]);
    match begun.action.as_str() {
        "process.start" | "scale.out" => {
            (started_by_it || alive.is_some()).then(|| running(instance))
        }
        "process.restart" => started_by_it.then(|| running(instance)),
        "process.stop" | "scale.in" => {
            (alive.is_none() && instance.wanted() == Wanted::Stopped).then(stopped)
        }
        "process.restore" if instance.standby() => alive.is_none().then(stopped),
        "process.restore" => {
            // What ran when it was begun, and has ended since, was not its to start.
            let ran = begun.running || alive == Some(Life::Running);
            (started_by_it || ran).then(|| running(instance))
        }
        "config.replace" | "config.restore" => {
            let (current, _) = instance.config().ok()?;
            let idle = alive.is_none() && instance.wanted() == Wanted::Stopped;
            // Whether a reload signal was sent cannot be seen; sending it again does no harm.
            (current == begun.config_wanted && (started_by_it || idle))
                .then(|| config_evidence(&known.first.config_before, &begun.config_wanted))
        }
        _ => None,
    }
}

/// An act that was begun and cut short counts as not done from now on: what is left of it is taken
/// back. Only under the instance's act lock.
pub(super) fn take_back(instance: &Instance, known: &Known) -> Result<(), ActError> {
    let begun: &Begin = &known.last;
    match begun.action.as_str() {
        // It was told to stop and lives: its end would be a fault again.
        "process.stop" | "scale.in" | "process.restore" if instance.life().is_some() => {
            Ok(instance.want(Wanted::Running)?)
        }
        "config.replace" | "config.restore" => {
            let before = &known.first.config_before;
            let (current, _) = instance.config()?;
            if current != begun.config_wanted || before.is_empty() || *before == current {
                return Ok(());
            }
            instance.put_config(&instance.config_version(before)?)?;
            match (instance.reload_signal(), instance.life()) {
                (Some(signal), Some(Life::Running)) => instance.signal(signal),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}
