//! `Reject`: somebody refuses a plan: it is dropped and a human has the incident.

use crate::{
    applied::{Answer, Reply},
    command::Reject,
    law::{context::Context, saga},
    state::State,
};

pub(super) fn apply(state: &mut State, context: &mut Context<'_>, command: &Reject) -> Answer {
    let id = command.incident;
    let plan = state.awaiting(id, command.plan_digest)?.id;
    let reason = format!("{plan} was rejected by {}: {}", context.actor(), command.reason);
    saga::drop_plan(state, context, plan, &reason);
    state.note_attempt(context, plan, &reason);
    state.escalate(context, id, &reason);
    Ok(Reply::Done)
}
