//! The leader's loop: owes nothing by memory, finds everything it owes in the state.
//!
//! ```text
//!  leadership ──► Fence ──► reconcile ──► one task per thing owed ──► reconcile …
//!                              ▲              decide, step, verify, notify
//!                              │
//!             applied index moved │ a task ended │ something falls due
//! ```
//!
//! On every wake `State::pending_effects` is held against the tasks that run; what is owed and not
//! running is started, unless it is parked (held back, or waiting). So what is triggered is also
//! periodic, and taking over from a dead leader is the same path as every other wake.
//!
//! Invariant: at most one task per thing owed, and none once the office is lost: all are aborted,
//! and the next office begins with none.
//! Any failure inside Medic while it treats an incident (a panic, an error, a refusal that should
//! not happen) escalates that incident with the error, and leaves every other one alone.

mod deciding;
mod desk;
mod notifying;
mod verifying;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use medic_raft::{Ledger, LedgerExt as _};
use medic_state::{decision::ThresholdOverrides, state::State};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    desk::Desk,
    notifying::{TELLING_MAX, Told},
};
use super::{
    driver::{Driver, DriverConfig},
    judge::{Judge, OwnJudge},
    metrics::Metric,
    office::{Office, OfficeError},
};
use crate::world::World;

/// The longest sleep between two looks at the state when nothing changes.
const IDLE_WAKE: Duration = Duration::from_secs(1);
/// Wait before a Fence that failed is tried again.
const OFFICE_RETRY: Duration = Duration::from_millis(100);

/// Bounds and overrides of the loop.
#[derive(Clone, Copy, Debug)]
pub struct LeaderConfig {
    /// `CONFIDENCE_THRESHOLD` and `RISK_THRESHOLD`.
    pub overrides: ThresholdOverrides,
    /// Time the observation of one target before a decision may take: a decision is urgent.
    pub observe_timeout: Duration,
    /// The same while a remediation is verified: longer than any check takes (five seconds), so that
    /// what hangs is seen to hang.
    pub sample_timeout: Duration,
    /// Time between two rounds of verification.
    pub verify_interval: Duration,
    /// The driver's.
    pub driver: DriverConfig,
}

impl Default for LeaderConfig {
    fn default() -> Self {
        Self {
            overrides: ThresholdOverrides::default(),
            observe_timeout: Duration::from_secs(2),
            sample_timeout: Duration::from_secs(6),
            verify_interval: Duration::from_secs(1),
            driver: DriverConfig::default(),
        }
    }
}

/// Does the leader's work whenever this node leads.
pub struct Leader {
    ledger: Arc<dyn Ledger>,
    world: Arc<dyn World>,
    judge: Arc<dyn Judge>,
    config: LeaderConfig,
}

/// What every task is given.
#[derive(Clone)]
pub(super) struct Context {
    office: Office,
    world: Arc<dyn World>,
    judge: Arc<dyn Judge>,
    config: LeaderConfig,
    driver: Driver,
    /// Bounds the messages under way.
    telling: Arc<Semaphore>,
}

impl Context {
    /// Looks at the applied state.
    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.office.ledger().read(look)
    }
}

impl Leader {
    /// With Medic's own judgement.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, world: Arc<dyn World>, config: LeaderConfig) -> Self {
        Self::with_judge(ledger, world, Arc::new(OwnJudge), config)
    }

    /// With another judgement.
    #[must_use]
    pub fn with_judge(
        ledger: Arc<dyn Ledger>,
        world: Arc<dyn World>,
        judge: Arc<dyn Judge>,
        config: LeaderConfig,
    ) -> Self {
        Self { ledger, world, judge, config }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut told = Told::default();
        let mut leadership = self.ledger.leadership();
        loop {
            while !leadership.borrow_and_update().me {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = leadership.changed() => if changed.is_err() { return },
                }
            }
            let served = async {
                let office = Office::take(self.ledger.clone()).await?;
                tracing::info!(fence = %office.fence(), node = %self.ledger.node(), "took office");
                metrics::counter!(Metric::OfficesTaken.name()).increment(1);
                self.serve(office, &mut told).await;
                Ok::<(), OfficeError>(())
            };
            tokio::select! {
                () = stop.cancelled() => return,
                served = served => match served {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(%error, "did not take office");
                        tokio::time::sleep(OFFICE_RETRY).await;
                    }
                },
            }
        }
    }

    /// Does what is owed until the office is lost.
    async fn serve(&self, office: Office, told: &mut Told) {
        let driver = Driver::new(office.clone(), self.world.clone(), self.config.driver);
        let context = Context {
            office: office.clone(),
            world: self.world.clone(),
            judge: self.judge.clone(),
            config: self.config,
            driver,
            telling: Arc::new(Semaphore::new(TELLING_MAX)),
        };
        let mut desk = Desk::new(context);
        let mut applied = self.ledger.applied();
        let mut leadership = self.ledger.leadership();
        loop {
            applied.borrow_and_update();
            leadership.borrow_and_update();
            if !office.held() {
                break;
            }
            let next = desk.reconcile(told);
            let wake = next.unwrap_or_else(|| Instant::now() + IDLE_WAKE);
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { break },
                changed = leadership.changed() => if changed.is_err() { break },
                () = desk.one_ended(told) => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        // Dropping the desk aborts every task: nothing of this office is sent from here on.
        tracing::info!(fence = %office.fence(), tasks = desk.running(), "left office");
    }
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why a piece of work failed inside Medic.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Drive(#[from] super::driver::DriveError),
    #[error(transparent)]
    Office(#[from] OfficeError),
    #[error("{0}")]
    Judgement(String),
    #[error("the law refused {command}: {refusal}")]
    Refused { command: &'static str, refusal: medic_state::Refusal },
}

impl WorkError {
    /// Whether another leader goes on with it.
    const fn office_lost(&self) -> bool {
        matches!(
            self,
            Self::Office(OfficeError::Lost(..))
                | Self::Drive(super::driver::DriveError::Office(OfficeError::Lost(..)))
        )
    }
}
