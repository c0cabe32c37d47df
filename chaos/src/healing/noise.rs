//! What happens to a fleet on a quiet day, and is no fault.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use serde::Serialize;

use super::{
    inject::{roll_out, signal},
    life::Ground,
    schedule::{Noise, Quiet},
};
use crate::fleet::{Break, SampleFleet, ServiceConfig};

/// Between two instances of one roll-out.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a hiccup or a blip lasts.
const MOMENT: Duration = Duration::from_millis(1_500);

/// A piece of noise that was made.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Noted {
    #[serde(flatten)]
    pub(super) quiet: Quiet,
    /// Why it could not be.
    pub(super) not_done: Option<String>,
}

impl Noise {
    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Restart => "restart",
            Self::Burst => "burst",
            Self::Hiccup => "hiccup",
            Self::Blip => "blip",
        }
    }
}

/// Makes it, at its time.
pub(super) async fn make(ground: Ground, fleet: Arc<SampleFleet>, quiet: Quiet) -> Noted {
    tokio::time::sleep_until((ground.began + Duration::from_millis(quiet.at_ms)).into()).await;
    let at = crate::campaign::seconds(quiet.at_ms);
    let who = quiet.instances.join(", ");
    crate::campaign::say(&format!("  {at:>7.1} s  {:<18} {who}", quiet.noise.name()));
    let made = perform(&ground, &fleet, &quiet).await;
    Noted { quiet, not_done: made.err().map(|error| format!("{error:#}")) }
}

async fn perform(ground: &Ground, fleet: &SampleFleet, quiet: &Quiet) -> anyhow::Result<()> {
    let instances = quiet.instances.iter().filter_map(|name| fleet.instances.get(name));
    for (n, instance) in instances.enumerate() {
        match quiet.noise {
            Noise::Deploy => {
                if n > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                let good = fleet.good_config(&instance.service);
                // Another value each time: a roll-out that changes nothing is none.
                let timeout_ms = good.timeout_ms + 1 + quiet.at_ms % 50;
                roll_out(instance, &ServiceConfig { timeout_ms, ..good })?;
                signal(instance, Signal::SIGHUP)?;
            }
            Noise::Restart => signal(instance, Signal::SIGUSR2)?,
            // The load has bursts of its own, too.
            Noise::Burst => ground.burst(),
            Noise::Hiccup => {
                let slow = |ms| Break { latency_ms: Some(ms), ..Break::default() };
                ground.hands.ask(instance, slow(60)).await?;
                tokio::time::sleep(MOMENT).await;
                ground.hands.ask(instance, slow(0)).await?;
            }
            Noise::Blip => {
                let failing = |percent| Break { error_percent: Some(percent), ..Break::default() };
                ground.hands.ask(instance, failing(8)).await?;
                tokio::time::sleep(MOMENT).await;
                ground.hands.ask(instance, failing(0)).await?;
            }
        }
    }
    Ok(())
}
