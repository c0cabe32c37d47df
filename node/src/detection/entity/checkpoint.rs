//! What is learnt of an instance, as it travels to whoever watches it next.

use std::collections::BTreeMap;

use medic_state::symptom::Target;
use minicbor::{Decode, Encode};

use super::{Entity, Foreknown, Now};
use crate::detection::{
    detector::{Panel, SeriesState},
    health::Burn,
    lord::Stream,
    predict::{budget::Budget, restarts::Restarts},
};

/// Detector state of one instance, as it travels.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct EntityCheckpoint {
    /// Instance.
    #[n(0)]
    pub target: Target,
    /// Monotonic time on the clock of its origin.
    #[n(1)]
    pub at_ms: u64,
    /// By indicator.
    #[n(2)]
    pub series: BTreeMap<String, SeriesState>,
    /// All indicators together. Index 3 held an earlier form, which is passed over.
    #[n(4)]
    pub panel: Option<Panel>,
    /// How fast its error budget burns.
    #[n(6)]
    pub burn: Option<Burn>,
    /// When it failed, by the wall's clock.
    #[n(7)]
    pub restarts: Option<Restarts>,
    /// What of its error budget is spent.
    #[n(8)]
    pub budget: Option<Budget>,
    /// What the tests of its shard have spent and earned; beside the first of a shard's instances.
    #[n(9)]
    pub stream: Option<Stream>,
    /// What is known of its certificates, and of what falls to a floor.
    #[n(10)]
    pub foreknown: Option<Foreknown>,
}

impl Entity {
    /// Detector state, to be shipped.
    #[must_use]
    pub fn checkpoint(&self, now: Now) -> EntityCheckpoint {
        let (restarts, budget) = self.prognosis.learnt();
        EntityCheckpoint {
            target: self.target.clone(),
            at_ms: now.mono_ms,
            series: self.series.iter().map(|(n, s)| (n.clone(), s.state.clone())).collect(),
            panel: Some(self.together.panel.clone()),
            burn: self.budget.as_ref().map(|budget| budget.burn.clone()),
            restarts: Some(restarts),
            budget,
            stream: None,
            foreknown: Some(self.prognosis.foreknown()),
        }
    }

    /// Starts warm from a checkpoint; indicators it does not know start cold.
    pub fn restore(&mut self, checkpoint: EntityCheckpoint, now: Now) {
        if let Some(panel) = checkpoint.panel.filter(|panel| panel.fits(self.series.len())) {
            self.together.panel = panel;
        }
        self.prognosis.learn(checkpoint.restarts.as_ref(), checkpoint.budget.as_ref());
        if let Some(known) = checkpoint.foreknown {
            self.prognosis.foreknow(known, checkpoint.at_ms, now);
        }
        if let (Some(budget), Some(burn)) = (&mut self.budget, checkpoint.burn) {
            budget.burn = burn;
        }
        for (name, mut state) in checkpoint.series {
            if let Some(series) = self.series.get_mut(&name) {
                state.rebase(checkpoint.at_ms, now.mono_ms);
                series.state = state;
            }
        }
    }
}
