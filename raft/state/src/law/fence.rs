//! `Fence`: a leader takes office. Its log index is the fence from here on.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::FenceCommand,
    ids::Fence,
    law::context::Context,
    planted::{Planted, planted},
    rbac::Principal,
    state::{FenceState, State},
};

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &FenceCommand,
) -> Answer {
    let fence = Fence(context.index);
    if planted(Planted::CooldownReset) {
        state.target_ends.clear();
    }
    state.fence = FenceState { fence, node: command.node, boot: command.boot, at: context.now };
    // Whatever has no outcome is to be resumed, and whatever is owed is owed by the new leader.
    let open = state.incidents.values().filter(|incident| !incident.closed());
    context.touched.extend(open.map(|incident| incident.id));
    Ok(Reply::Fenced(fence))
}

impl State {
    /// Refuses a fence that is not in force, and a node that does not hold it.
    pub(super) fn check_fence(&self, context: &Context<'_>, given: Fence) -> Result<(), Refusal> {
        if planted(Planted::FenceUnchecked) {
            return Ok(());
        }
        let current = self.fence.fence;
        if given != current || current == Fence::default() {
            return Err(Refusal::StaleFence { given, current });
        }
        if *context.principal != Principal::node(self.fence.node) {
            let text = format!("{given} is {}'s, not {}'s", self.fence.node, context.principal);
            return Err(Refusal::Invalid(text));
        }
        Ok(())
    }
}
