//! What the actions of the catalogue do to an instance, in two halves: an agent can die between.

use std::collections::BTreeMap;

use medic_node::{
    action::agent::book::{Known, Outcome as Noted},
    world::Order,
};

use super::{
    fleet::Inner,
    instance::{Life, hash},
};

/// The start of a process is put down to one attempt of one key.
fn cause(key: &str, attempt: u32) -> String {
    format!("{key}#{attempt}")
}

/// The configuration an order asks for, if it is about configuration.
pub(super) fn wanted_config(inner: &Inner, order: &Order) -> Option<String> {
    match order.action.name.as_str() {
        "config.replace" => {
            let content = order.action.params.get("content").map_or("", String::as_str);
            Some(hash(content))
        }
        "config.restore" => order.action.params.get("hash").cloned().or_else(|| {
            let instance = inner.instances.get(&order.target.instance)?;
            (!instance.previous.is_empty()).then(|| instance.previous.clone())
        }),
        _ => None,
    }
}

/// What happens at once.
pub(super) fn first_half(inner: &mut Inner, order: &Order) {
    let Some(one) = inner.instances.get_mut(&order.target.instance) else { return };
    match order.action.name.as_str() {
        "process.restart" | "process.stop" | "scale.in" if one.life != Life::Stopped => {
            one.life = Life::Dead;
        }
        "process.restore" if one.life == Life::Paused => one.life = Life::Running,
        _ => {}
    }
}

/// What happens in the end, and what is written down about it.
pub(super) fn second_half(inner: &mut Inner, order: &Order, key: &str, now_ms: u64) -> Noted {
    let agent = inner.agents.get(&order.agent);
    let wanted = agent
        .and_then(|agent| agent.book.known(key))
        .map(|known| known.first.config_wanted.clone())
        .filter(|wanted| !wanted.is_empty());
    let stubborn = inner.mood.stubborn;
    let gone =
        || Noted::Failed { reason: "there is no such instance".to_owned(), retryable: false };
    let Some(one) = inner.instances.get_mut(&order.target.instance) else { return gone() };
    let illness = one.illness;
    let cause = cause(key, order.attempt);
    let mut evidence = BTreeMap::new();
    match order.action.name.as_str() {
        "process.restart" => one.start(&cause, now_ms),
        "process.start" | "scale.out" => {
            if !one.alive() {
                one.start(&cause, now_ms);
            }
        }
        "process.stop" | "scale.in" => one.life = Life::Stopped,
        "process.restore" if one.standby => one.life = Life::Stopped,
        "process.restore" => {
            if one.life != Life::Running {
                one.start(&cause, now_ms);
            }
        }
        "config.replace" | "config.restore" => {
            let Some(wanted) = wanted else {
                let reason = "no earlier version of the configuration file is kept".to_owned();
                return Noted::Failed { reason, retryable: false };
            };
            evidence.insert("previous_hash".to_owned(), one.config.clone());
            one.configure(&wanted, now_ms);
            one.start(&cause, now_ms);
        }
        other => {
            let reason = format!("this agent knows no action `{other}`");
            return Noted::Failed { reason, retryable: false };
        }
    }
    if stubborn {
        one.illness = illness;
    }
    Noted::Done { evidence }
}

/// Whether an act that was begun and never finished was done, by what is there and by the agent's
/// durable note of which attempt started its last process; as the real agent tells it
/// (`medic_node::action::agent::acts::settle`).
pub(super) fn settled(inner: &Inner, known: &Known) -> Option<Noted> {
    let begun = &known.last;
    let one = inner.instances.get(&begun.target)?;
    let started_by_it = one.cause == cause(&begun.key, begun.attempt);
    let done = match begun.action.as_str() {
        "process.restart" => started_by_it,
        "config.replace" | "config.restore" => one.config == begun.config_wanted && started_by_it,
        "process.start" | "scale.out" => started_by_it || one.alive(),
        "process.stop" | "scale.in" => one.life == Life::Stopped,
        "process.restore" if one.standby => !one.alive(),
        "process.restore" => started_by_it || begun.running || one.life == Life::Running,
        _ => false,
    };
    let mut evidence = BTreeMap::new();
    if begun.action.starts_with("config.") {
        evidence.insert("previous_hash".to_owned(), known.first.config_before.clone());
    }
    done.then_some(Noted::Done { evidence })
}
