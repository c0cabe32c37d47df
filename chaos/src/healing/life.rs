//! The life of one injected fault, from its injection to the moment it is gone: the ground truth.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    cases::Desk, inject::Hands, kinds::Kind, load::Crowd, schedule::Planned, stage::Keeper,
};

/// Between looks whether it is over.
const LOOK: Duration = Duration::from_millis(300);
/// A lockdown is lifted so long after the logins were locked.
const LOCKED: Duration = Duration::from_secs(8);
/// After a person has mended it, it is given this long to be over.
const MENDED: Duration = Duration::from_secs(60);

/// What became of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Injected {
    /// What was planned.
    #[serde(flatten)]
    pub(super) planned: Planned,
    /// When it was done, Unix milliseconds.
    pub(super) wall_ms: u64,
    /// How long it was there, milliseconds; absent: to the end of the campaign.
    pub(super) gone_after_ms: Option<u64>,
    /// A person had to mend it.
    pub(super) by_hand: bool,
    /// Why it could not be done.
    pub(super) not_done: Option<String>,
}

/// What a fault's task needs.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) hands: Hands,
    pub(super) keeper: Keeper,
    pub(super) desk: Option<Arc<Desk>>,
    pub(super) crowd: Option<Crowd>,
    pub(super) began: Instant,
    /// A person comes after this time.
    pub(super) person_after: Duration,
}

impl Ground {
    /// More traffic for a while.
    pub(super) fn burst(&self) {
        if let Some(crowd) = &self.crowd {
            crowd.burst();
        }
    }
}

/// Waits for its time, does it, and sees it to its end.
pub(super) async fn live(ground: Ground, planned: Planned) -> Injected {
    tokio::time::sleep_until((ground.began + Duration::from_millis(planned.at_ms)).into()).await;
    let mut record = Injected {
        wall_ms: wall_ms(),
        planned,
        gone_after_ms: None,
        by_hand: false,
        not_done: None,
    };
    let began = Instant::now();
    let mut done = match ground.hands.inject(&record.planned).await {
        Ok(done) => done,
        Err(error) => {
            record.not_done = Some(format!("{error:#}"));
            return record;
        }
    };
    tell(&ground, &record, "is broken");
    while !ground.hands.over(&done).await {
        if !record.by_hand && began.elapsed() >= ground.person_after {
            record.by_hand = true;
            tell(&ground, &record, "is mended by hand");
            if let Err(error) = mend(&ground, &record.planned, &mut done).await {
                record.not_done = Some(format!("mending: {error:#}"));
                return record;
            }
        }
        if began.elapsed() >= ground.person_after + MENDED {
            return record;
        }
        tokio::time::sleep(LOOK).await;
    }
    record.gone_after_ms = u64::try_from(began.elapsed().as_millis()).ok();
    tell(&ground, &record, "is well again");
    if record.planned.kind == Kind::LoginStorm {
        tokio::time::sleep(LOCKED).await;
        if let Err(error) = ground.hands.lift_lockdown(&mut done) {
            tracing::warn!("lifting the lockdown: {error:#}");
        }
    }
    record
}

async fn mend(
    ground: &Ground,
    planned: &Planned,
    done: &mut super::inject::Done,
) -> anyhow::Result<()> {
    ground.hands.mend(done).await?;
    ground.keeper.start_again(&planned.instances).await?;
    if let Some(desk) = &ground.desk {
        desk.person_came(&planned.service).await;
    }
    Ok(())
}

fn tell(ground: &Ground, record: &Injected, what: &str) {
    let Planned { kind, instances, .. } = &record.planned;
    let at = crate::campaign::seconds(
        u64::try_from(ground.began.elapsed().as_millis()).unwrap_or(u64::MAX),
    );
    crate::campaign::say(&format!("  {at:>7.1} s  {kind:<18} {} {what}", instances.join(", ")));
}

/// Unix milliseconds.
pub(super) fn wall_ms() -> u64 {
    crate::harness::wall_clock().0
}
