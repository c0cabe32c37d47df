//! Invariant 10 after the faults: what they left broken must have been reported, and so must what
//! breaks right after the node that would have seen it has gone.
//!
//! During the faults nothing is asked for: nodes may be unable to see, to agree, or to run at all.

use std::collections::BTreeMap;

use medic_state::{NodeId, State};

use crate::{
    check::FAILOVER_MS,
    coverage::Sometimes,
    history::{Recorder, What},
    world::{Fleet, Life, REPORT_WITHIN_MS},
};

/// What is broken must have been reported within this: two intervals and one failover.
pub(crate) const BOUND_MS: u64 = REPORT_WITHIN_MS + FAILOVER_MS;
/// So long one waits for something whole enough to break.
pub(crate) const WAIT_MS: u64 = 20_000;

/// What was broken at one moment: instances, with the process that was, and how.
pub(crate) type Broken = BTreeMap<String, (u32, Life)>;

/// Takes down what has been broken ever since, by the same end of the same process.
pub(crate) fn note_lasting(before: &Broken, fleet: &Fleet, recorder: &Recorder) {
    let now = fleet.broken();
    for (instance, how) in before {
        if now.get(instance) == Some(how) {
            recorder.reached(Sometimes::BrokenForLong);
            recorder.happened(What::Lasted { target: fleet.target(instance) });
        }
    }
}

/// Running instances whose service nobody treats, with the follower that watches each.
pub(crate) fn candidates(
    state: &State,
    fleet: &Fleet,
    leader: Option<NodeId>,
) -> Vec<(NodeId, String)> {
    let running = fleet.running().into_iter();
    let watched = running.filter_map(|instance| {
        let target = fleet.target(&instance);
        let treated = state.locks.contains_key(&target)
            || state.incidents.values().any(|incident| {
                let mut symptoms = incident.symptoms.values();
                !incident.closed() && symptoms.any(|s| s.symptom.target.service == target.service)
            });
        let shard = State::shard_of(&target);
        let owner = state.shards.get(&shard)?.owner.filter(|owner| Some(*owner) != leader)?;
        (!treated && fleet.well(&instance)).then_some((owner, instance))
    });
    watched.collect()
}

/// Breaks it, now that its watcher has gone.
pub(crate) fn break_it(fleet: &Fleet, instance: &str) {
    if fleet.end(instance, Life::Dead) {
        fleet.recorder.reached(Sometimes::Drilled);
    }
}

/// There was no drill: that is told, in the trace and, by the count of drills, in the report.
pub(crate) fn missed(recorder: &Recorder) {
    recorder
        .trace(format_args!("no drill: nothing was whole, watched and untreated for {WAIT_MS} ms"));
}
