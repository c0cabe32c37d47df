//! Alerts that have come to their end: the leader takes them out of what stands.
//!
//! Who posts to `/api/v2/alerts` says until when an alert counts, and sends it again before that; a rule that
//! was removed, or a Prometheus that died, says nothing more. The ends stand in the symptoms, so that any
//! leader finds them.
//!
//! Ends are held against the leader's wall clock, as Alertmanager holds them against its own: they were
//! set by their sender's. Deliberately absent: a memory of what was seen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use medic_raft::{LedgerError, LedgerExt as _};
use medic_state::{State, Timestamp, symptom::Target};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Alerts, Done, Step, count, ended, standing};

/// Time between two looks: little beside the minutes that an alert lasts.
const EVERY: Duration = Duration::from_secs(5);
/// What the law took no notice of (a silence covers it) is proposed again after so long: each try is an
/// entry of the log.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Targets not to be tried before a moment.
pub(super) type Later = BTreeMap<Target, Instant>;

impl Alerts {
    /// Runs until `stop`; works only while this node leads.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut leadership = self.ledger.leadership();
        let mut later = Later::new();
        loop {
            let leads = leadership.borrow_and_update().me;
            if leads && let Err(error) = self.sweep(&mut later).await {
                tracing::debug!(%error, "alerts at their end are not taken out this time");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(EVERY), if leads => {}
            }
        }
    }

    /// One look.
    pub(super) async fn sweep(&self, later: &mut Later) -> Result<(), LedgerError> {
        // A leader that has just come to be one may not have applied what the last one was told.
        self.ledger.linearize().await?;
        let now = self.ledger.env().clock.now();
        later.retain(|_, until| *until > Instant::now());
        for target in self.ledger.read(|state| due(state, now)) {
            if later.contains_key(&target) {
                continue;
            }
            let look = |state: &State, now| {
                standing(state, &target).map_or(Step::Nothing, |symptom| ended(symptom, now))
            };
            match self.carry_out(&target, look).await? {
                Done::Reported | Done::Cleared => {
                    tracing::info!(%target, "an alert was not sent again before its end");
                    count("lapsed", 1);
                }
                Done::Noted | Done::Refused(_) => {
                    later.insert(target, Instant::now() + AGAIN_AFTER);
                }
                // It was sent again meanwhile.
                Done::Unchanged => {}
            }
        }
        Ok(())
    }
}

/// Targets with an alert that has come to its end.
fn due(state: &State, now: Timestamp) -> Vec<Target> {
    let active = state.fingerprints.iter().filter_map(|(fingerprint, id)| {
        let known = state.incidents.get(id)?.symptoms.get(fingerprint)?;
        (known.cleared_at.is_none() && known.symptom.relayed()).then_some(&known.symptom)
    });
    active
        .filter(|symptom| ended(symptom, now) != Step::Nothing)
        .map(|symptom| symptom.target.clone())
        .collect()
}
