//! `AssignShards`, and which shard watches what.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::AssignShards,
    ids::{Digest, Epoch, ShardId},
    law::context::Context,
    planted::{Planted, planted},
    rbac::Principal,
    state::{SHARDS, ShardState, State},
    symptom::Target,
};

impl State {
    /// The shard that watches a target: all instances of a service fall in one shard.
    #[must_use]
    pub fn shard_of(target: &Target) -> ShardId {
        let digest = Digest::of(&[target.tenant.as_bytes(), &[0], target.service.as_bytes()]);
        let mut first = [0; 4];
        first.copy_from_slice(&digest.0[..4]);
        ShardId(u32::from_be_bytes(first) % SHARDS)
    }

    /// Refuses an epoch that is not in force.
    pub(super) fn check_epoch(&self, shard: ShardId, given: Epoch) -> Result<ShardState, Refusal> {
        if shard.0 >= SHARDS {
            return Err(Refusal::Invalid(format!("there are {SHARDS} shards, and no {shard}")));
        }
        let held = self.shards.get(&shard).copied().unwrap_or_default();
        if given != held.epoch {
            return Err(Refusal::StaleEpoch { given, current: held.epoch });
        }
        Ok(held)
    }

    /// Refuses a relay of an alert that is not a registered node, or under an epoch not in force.
    /// Whoever received the webhook is no observer: the alert is, so the shard's owner need not
    /// be the one that passes it on.
    pub(super) fn check_relay(
        &self,
        context: &Context<'_>,
        shard: ShardId,
        given: Epoch,
    ) -> Result<(), Refusal> {
        self.check_epoch(shard, given)?;
        if self.nodes.keys().any(|node| Principal::node(*node) == *context.principal) {
            return Ok(());
        }
        Err(Refusal::NotFound(format!("{}: it has not registered", context.principal)))
    }

    /// Refuses a reporter that does not own the shard, under this epoch, now.
    pub(super) fn check_owner(
        &self,
        context: &Context<'_>,
        shard: ShardId,
        given: Epoch,
    ) -> Result<(), Refusal> {
        if planted(Planted::EpochIgnored) {
            return Ok(());
        }
        let held = self.check_epoch(shard, given)?;
        let owner = held.owner.map(Principal::node);
        if owner.as_ref() != Some(context.principal) {
            let owner = owner.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string());
            let text = format!("{shard} is watched by {owner}, not by {}", context.principal);
            return Err(Refusal::IllegalState(text));
        }
        Ok(())
    }
}

pub(super) fn apply(
    state: &mut State,
    context: &mut Context<'_>,
    command: &AssignShards,
) -> Answer {
    if let Some(shard) = command.moves.keys().find(|shard| shard.0 >= SHARDS) {
        return Err(Refusal::Invalid(format!("there are {SHARDS} shards, and no {shard}")));
    }
    if let Some(node) = command.moves.values().find(|node| !state.nodes.contains_key(node)) {
        return Err(Refusal::NotFound(format!("{node}: it has not registered")));
    }
    let mut moved = 0_u32;
    for (shard, node) in &command.moves {
        let held = state.shards.entry(*shard).or_default();
        if held.owner != Some(*node) {
            let kept = planted(Planted::EpochKept) && held.epoch != Epoch(0);
            let epoch = Epoch(held.epoch.0.saturating_add(u64::from(!kept)));
            *held = ShardState { owner: Some(*node), epoch, since: context.now };
            moved += 1;
        }
    }
    if moved == 0 { Ok(Reply::Noted("already so".to_owned())) } else { Ok(Reply::Done) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        command::{Command, ReportSymptom},
        ids::NodeId,
        law::tests::lab::*,
    };

    #[test]
    fn only_shards_that_move_get_a_new_epoch() {
        let mut lab = Lab::new();
        let moves = [(ShardId(1), NodeId(1)), (ShardId(2), NodeId(2))].into();
        lab.node(1, Command::AssignShards(AssignShards { moves })).unwrap();
        assert_eq!(lab.state.shards[&ShardId(1)].epoch, Epoch(2));
        assert_eq!(lab.state.shards[&ShardId(2)].epoch, Epoch(1));
    }

    #[test]
    fn a_shard_has_one_owner() {
        let mut lab = Lab::new();
        let symptom = symptom("api", "a", "down");
        let shard = State::shard_of(&symptom.target);
        let report = |epoch| {
            Command::ReportSymptom(ReportSymptom { shard, epoch, symptom: symptom.clone() })
        };
        let stale = Err(Refusal::StaleEpoch { given: Epoch(0), current: Epoch(1) });
        assert_eq!(lab.node(2, report(Epoch(0))), stale);
        assert!(matches!(lab.node(1, report(Epoch(1))), Err(Refusal::IllegalState(_))));
        let moves = [(shard, NodeId(1))].into();
        lab.node(1, Command::AssignShards(AssignShards { moves })).unwrap();
        assert!(lab.node(2, report(Epoch(1))).is_err());
        lab.node(1, report(Epoch(2))).unwrap();
    }

    #[test]
    fn no_shard_goes_to_a_stranger_or_beyond_the_last() {
        let mut lab = Lab::new();
        let moves = [(ShardId(1), NodeId(9))].into();
        let answer = lab.node(1, Command::AssignShards(AssignShards { moves }));
        assert!(matches!(answer, Err(Refusal::NotFound(_))));
        let moves = [(ShardId(SHARDS), NodeId(1))].into();
        let answer = lab.node(1, Command::AssignShards(AssignShards { moves }));
        assert!(matches!(answer, Err(Refusal::Invalid(_))));
    }

    #[test]
    fn instances_of_a_service_share_a_shard_for_ever() {
        assert_eq!(State::shard_of(&target("api", "a")), State::shard_of(&target("api", "b")));
        // Fixed: a change would move every cluster's shards under their owners.
        assert_eq!(State::shard_of(&target("api", "a")), ShardId(33));
    }
}
