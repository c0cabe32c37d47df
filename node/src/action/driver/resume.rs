//! What to do about an act that was perhaps sent and has no outcome: by its safety class.
//!
//! | class | what is done |
//! |---|---|
//! | fenced, idempotent | send again with the same key; if that fails, ask whether the first was carried out |
//! | probeable | ask the target; if it cannot tell, look at the world; then record or send again |
//! | opaque | wait until no earlier act can still be under way, ask; if still unknown, say so |
//!
//! Acts that no agent stands behind (webhooks) are waited out in every class: an earlier one that is
//! still under way must not land behind a later one.

use std::{collections::BTreeMap, time::Duration};

use medic_state::{
    Fence,
    manifest::SafetyClass,
    planted::{Planted, planted},
    saga::Outcome,
    symptom::Target,
};
use tokio::time::Instant;

use super::{DriveError, Driver, Job};
use crate::{action::resources::by_node, world::QueryResult};

/// First and last wait between two questions about one act.
const ASK_FIRST: Duration = Duration::from_millis(50);
const ASK_LAST: Duration = Duration::from_secs(1);
/// Sends of one attempt under one office: a bound on what no rule above bounds.
const SENDS_MAX: u32 = 5;

impl Driver {
    /// Resolves an intent without outcome, taken over from `from`.
    pub(super) async fn resume(&self, job: &Job, from: Fence) -> Result<Outcome, DriveError> {
        tracing::info!(key = %job.order.key, class = ?job.safety, %from, "resuming");
        if by_node(&job.order) || job.safety == SafetyClass::Opaque {
            self.wait_out(job, from).await?;
        }
        match job.safety {
            SafetyClass::Opaque if planted(Planted::OpaqueSentAgain) => {
                self.send_and_settle(job, true).await
            }
            SafetyClass::Fenced | SafetyClass::Idempotent => self.send_and_settle(job, true).await,
            SafetyClass::Probeable => match self.ask(job).await? {
                QueryResult::Finished(outcome) => Ok(outcome),
                QueryResult::NeverBegun => self.send_and_settle(job, false).await,
                QueryResult::CannotTell(why) => self.look(job, why).await,
            },
            SafetyClass::Opaque => match self.ask(job).await? {
                QueryResult::Finished(outcome) => Ok(outcome),
                QueryResult::NeverBegun => self.send_and_settle(job, false).await,
                QueryResult::CannotTell(why) => Ok(unknown(from, &why)),
            },
        }
    }

    /// Sends, and when the answer is "unknown" finds out what became of it. `sent_before`: perhaps it
    /// was sent already, by this leader or an earlier one. Then a failure is one of this sending alone
    /// (the agent is away, the plan was cancelled), and says nothing about the act.
    pub(super) async fn send_and_settle(
        &self,
        job: &Job,
        sent_before: bool,
    ) -> Result<Outcome, DriveError> {
        let mut perhaps_sent = sent_before;
        for _ in 0..SENDS_MAX {
            let (reason, failed) = match self.send(job).await? {
                done @ Outcome::Done(_) => return Ok(done),
                failed @ Outcome::Failed { .. } if !perhaps_sent => return Ok(failed),
                Outcome::Failed { reason, retryable } => {
                    (reason.clone(), Some(Outcome::Failed { reason, retryable }))
                }
                Outcome::Unknown { reason } => (reason, None),
            };
            perhaps_sent = true;
            tracing::warn!(key = %job.order.key, reason, "perhaps sent, and no outcome");
            match (self.ask(job).await?, failed, job.safety) {
                (QueryResult::Finished(outcome), _, _) => return Ok(outcome),
                // Neither this time nor before.
                (QueryResult::NeverBegun, Some(failed), _) => return Ok(failed),
                // It may still be on its way. The key makes a second one harmless, if there is
                // somebody who remembers keys; nobody does for an opaque act of this node.
                (QueryResult::NeverBegun, None, _) if !by_node(&job.order) => {}
                // Repeating it is harmless, unless it is not wanted any more.
                (
                    _,
                    None | Some(Outcome::Failed { retryable: true, .. }),
                    SafetyClass::Idempotent,
                ) => {}
                (QueryResult::CannotTell(why), _, SafetyClass::Probeable) => {
                    return self.look(job, format!("{reason}; {why}")).await;
                }
                (QueryResult::NeverBegun, None, _) => return Ok(Outcome::Unknown { reason }),
                (QueryResult::CannotTell(why), _, _) => {
                    return Ok(Outcome::Unknown { reason: format!("{reason}; {why}") });
                }
            }
        }
        let reason = format!("no outcome after sending {SENDS_MAX} times");
        Ok(Outcome::Unknown { reason })
    }

    /// Asks until there is an answer, for as long as [`super::DriverConfig::settle`].
    async fn ask(&self, job: &Job) -> Result<QueryResult, DriveError> {
        let until = Instant::now() + self.config.settle;
        let mut wait = ASK_FIRST;
        loop {
            if !self.office.held() {
                let why = format!("while asking what became of {}", job.order.key);
                return Err(self.office.lost(why).into());
            }
            let asked =
                tokio::time::timeout_at(until + ASK_LAST, self.world.query(&job.order)).await;
            let why = match asked {
                Ok(QueryResult::CannotTell(why)) => why,
                Ok(known) => return Ok(known),
                Err(_) => "no answer to the question".to_owned(),
            };
            // Nobody but this node stands behind an act without an agent: asking again is no use.
            if Instant::now() >= until || by_node(&job.order) {
                return Ok(QueryResult::CannotTell(why));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(ASK_LAST);
        }
    }

    /// Looks whether the world is as the act would have left it.
    async fn look(&self, job: &Job, why: String) -> Result<Outcome, DriveError> {
        let seen = self.world.observe(&job.order.target).await;
        let good = seen.probes.values().filter(|good| **good).count();
        let all = seen.probes.len();
        let as_wanted = told_by_the_world(&job.order.action.name, (good, all), job.served_before);
        let what = format!("{good} of {all} probes of {} are good", job.order.target);
        match as_wanted {
            Some(true) => Ok(Outcome::Done([("observed".to_owned(), what)].into())),
            Some(false) => {
                tracing::info!(key = %job.order.key, what, "not done, by the looks of it");
                match self.send(job).await? {
                    Outcome::Unknown { reason } => {
                        Ok(Outcome::Unknown { reason: format!("{why}; {what}; {reason}") })
                    }
                    known @ (Outcome::Done(_) | Outcome::Failed { .. }) => Ok(known),
                }
            }
            None => Ok(Outcome::Unknown { reason: format!("{why}; {what}, which tells nothing") }),
        }
    }

    /// Waits until no act sent by an earlier leader can still be under way.
    async fn wait_out(&self, job: &Job, from: Fence) -> Result<(), DriveError> {
        let act = job.order.timeout.as_duration() + self.config.act_grace;
        let until = if from == self.office.fence() {
            Instant::now() + act
        } else {
            self.office.since() + self.config.lease_max + act
        };
        tokio::time::sleep_until(until).await;
        if self.office.held() {
            Ok(())
        } else {
            Err(self.office.lost(format!("while waiting out {}", job.order.key)).into())
        }
    }
}

fn unknown(from: Fence, why: &str) -> Outcome {
    let reason = format!("its leader ({from}) was lost between act and outcome; {why}");
    Outcome::Unknown { reason }
}

/// Whether all probes of the target were good when the plan was made.
pub(super) fn served_before(baseline: &BTreeMap<String, String>, target: &Target) -> Option<bool> {
    let suffix = format!("@{target}");
    let mut seen = baseline
        .iter()
        .filter(|(key, _)| key.starts_with("probe.") && key.ends_with(&suffix))
        .map(|(_, value)| value == "1")
        .peekable();
    seen.peek()?;
    Some(seen.all(|good| good))
}

/// Whether so many good probes of all say that the action was done, or that it was not; `None`: they
/// tell nothing. One that served before and serves now may have been restarted in between, or not.
fn told_by_the_world(
    action: &str,
    (good, all): (usize, usize),
    served_before: Option<bool>,
) -> Option<bool> {
    let wanted = leaves_serving(action).filter(|_| all > 0)?;
    let as_wanted = if wanted { good == all } else { good == 0 };
    let a_change = action != "process.restart" || served_before == Some(false);
    match as_wanted {
        true => a_change.then_some(true),
        false => Some(false),
    }
}

/// Whether an instance serves once the action is done; `None`: that depends, and looking at it does
/// not tell.
fn leaves_serving(action: &str) -> Option<bool> {
    match action {
        "process.start" | "process.restart" | "scale.out" => Some(true),
        "process.stop" | "scale.in" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn what_serves_as_before_says_nothing_about_a_restart() {
        let told = |action, good, before| told_by_the_world(action, (good, 2), before);
        assert_eq!(told("process.restart", 2, Some(false)), Some(true));
        assert_eq!(told("process.restart", 2, Some(true)), None);
        assert_eq!(told("process.restart", 2, None), None, "no data is no proof");
        assert_eq!(told("process.restart", 1, Some(true)), Some(false));
        assert_eq!(told("process.start", 2, Some(true)), Some(true), "a state, not a change");
        assert_eq!(told("process.stop", 0, Some(true)), Some(true));
        assert_eq!(told("process.stop", 1, None), Some(false));
        assert_eq!(told("config.restore", 2, Some(false)), None);
        assert_eq!(told_by_the_world("process.restart", (0, 0), Some(false)), None);
    }

    #[test]
    fn the_baseline_is_read_per_target() {
        let target = |instance: &str| Target {
            tenant: "default".to_owned(),
            service: "web".to_owned(),
            instance: instance.to_owned(),
        };
        let key = |name: &str, instance| format!("{name}@{}", target(instance));
        let baseline = BTreeMap::from([
            (key("probe.http_ok", "a"), "1".to_owned()),
            (key("probe.tcp_ok", "a"), "0".to_owned()),
            (key("probe.http_ok", "b"), "1".to_owned()),
            (key("metric.errors", "c"), "1".to_owned()),
        ]);
        assert_eq!(served_before(&baseline, &target("a")), Some(false));
        assert_eq!(served_before(&baseline, &target("b")), Some(true));
        assert_eq!(served_before(&baseline, &target("c")), None);
    }
}
