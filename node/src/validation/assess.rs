//! The verdict: six checks, one score, three values.
//!
//! ```text
//!  expectation held ──► all checks pass ────────────────────────────► passed
//!        │              some do not: wait a little, they lag ─► score > 0.8 ? passed : failed
//!  false or unknown ──► wait until the time is up ─► false: failed   (longer while a callee is ill)
//!                                                    unknown: inconclusive (or failed, by noData)
//! ```
//!
//! score = Σ weight·score / Σ weight over the checks that could be told; functional weighs 0.4.

use medic_state::{
    Millis, Ppm, Timestamp,
    manifest::NoData,
    planted::{Planted, planted},
    saga::{Check, Verdict, VerdictValue},
};

use super::{
    AssessError, AssessInput, Assessment,
    checks::{self, Checked, latest},
    expectations::{Expectation, Held, LAG, expectation, hold},
};

/// The expectation weighs as much as the other checks together, nearly.
const FUNCTIONAL: f64 = 0.40;
/// Within it, what the expectation says; the rest is the share of good probes.
const EXPECTED: f64 = 0.7;
/// Agents dial again within three seconds, and probes take up to five.
const RECONNECT: Millis = Millis(10_000);
/// While a service that the target calls is ill, what is expected of the target cannot show: so much
/// longer is waited, which is less than what the leader allows beyond the plan's bound.
const EXCUSED: Millis = Millis(40_000);
/// A score must be above this to pass. Compared as the law compares it, rounded.
const PASS: Ppm = Ppm(800_000);

/// See [`super::assess`].
pub(super) fn assess(input: &AssessInput<'_>) -> Result<Assessment, AssessError> {
    let verify = &input.saga.plan.verify;
    let since = input.saga.verifying_since.ok_or(AssessError::NotVerifying(input.saga.id))?;
    // A new leader starts with an empty history, and the law's time may run ahead of this clock.
    let first = input.history.first().map_or(input.now, |sample| sample.observation.at);
    let looked = input.now.since(first);
    let elapsed = input.now.since(since).max(looked);
    let held = hold(input.saga, input.history)?;
    let enough = seen_enough(input, &held, looked);
    let patience = if checks::callee_ill(input) {
        Millis(verify.timeout.0.saturating_add(EXCUSED.0))
    } else {
        verify.timeout
    };
    let time_is_up = elapsed >= patience && enough;
    let stated = expectation(&held, verify.hold);
    match &stated {
        Expectation::Held => {}
        // On its way: let it finish, if it can within one more hold time.
        Expectation::Holding if elapsed.0 < patience.0.saturating_add(verify.hold.0) || !enough => {
            return Ok(Assessment::Wait);
        }
        _ if !time_is_up => return Ok(Assessment::Wait),
        _ => {}
    }
    let mut checks = vec![functional(input, &stated)];
    checks.extend(checks::all(input));
    let held_for = held.iter().map(|h| h.for_).min().unwrap_or_default();
    let settled = time_is_up || held_for.0 >= verify.hold.0.saturating_add(LAG.0);
    let complaint = checks.iter().any(|check| check.value == VerdictValue::Failed);
    if stated == Expectation::Held && complaint && !settled {
        return Ok(Assessment::Wait);
    }
    Ok(Assessment::Verdict(verdict(input, &checks)))
}

/// Whether the samples are a fair chance to see the expectation held: as long as it takes, counted
/// from when every target could be told about. A leader that has just taken over may have to wait for
/// agents to dial it; it does so for [`RECONNECT`] beyond that, and no longer.
fn seen_enough(input: &AssessInput<'_>, held: &[Held], looked: Millis) -> bool {
    let verify = &input.saga.plan.verify;
    let fair = Millis(verify.hold.0.saturating_add(5_000)).min(verify.timeout);
    let told_since = held.iter().map(|held| held.first_told).try_fold(None, |latest, told| {
        told.map(|told| latest.map_or(Some(told), |latest: Timestamp| Some(latest.max(told))))
    });
    match told_since.flatten() {
        Some(told_since) => input.now.since(told_since) >= fair,
        None => looked.0 >= fair.0.saturating_add(RECONNECT.0),
    }
}

fn functional(input: &AssessInput<'_>, stated: &Expectation) -> Checked {
    let targets = &input.saga.plan.verify_targets;
    let verify = &input.saga.plan.verify;
    let probes: Vec<bool> = targets
        .iter()
        .filter_map(|target| latest(input, target))
        .flat_map(|sample| sample.observation.probes.values().copied())
        .collect();
    let good = probes.iter().filter(|good| **good).count();
    #[allow(clippy::cast_precision_loss, reason = "a few probes per target")]
    let share = if probes.is_empty() { 1.0 } else { good as f64 / probes.len() as f64 };
    let probes = format!("{good} of {} probes good", probes.len());
    let expect = verify.expect.split_whitespace().collect::<Vec<_>>().join(" ");
    let (value, expected, said) = match stated {
        Expectation::Held => {
            let said = format!("held for {} at {} target(s)", verify.hold, targets.len());
            (VerdictValue::Passed, 1.0, said)
        }
        Expectation::Holding => {
            (VerdictValue::Failed, 0.0, format!("did not hold for {} in time", verify.hold))
        }
        Expectation::False(why) => (VerdictValue::Failed, 0.0, why.clone()),
        Expectation::NoData(why) if verify.no_data == NoData::Failed => {
            (VerdictValue::Failed, 0.0, format!("no data counts as failed: {why}"))
        }
        Expectation::NoData(why) => (VerdictValue::Inconclusive, 0.0, why.clone()),
    };
    Checked {
        kind: "functional",
        value,
        score: EXPECTED * expected + (1.0 - EXPECTED) * share,
        weight: FUNCTIONAL,
        detail: format!("{said}; {probes}; expected {expect}"),
    }
}

fn verdict(input: &AssessInput<'_>, checks: &[Checked]) -> Verdict {
    let told = || checks.iter().filter(|check| check.value != VerdictValue::Inconclusive);
    let weights: f64 = told().map(|check| check.weight).sum();
    let sum: f64 = told().map(|check| check.weight * check.score).sum();
    let score = ppm(if weights > 0.0 { sum / weights } else { 0.0 });
    let value = match checks.first().map(|check| check.value) {
        Some(VerdictValue::Passed) if score > PASS => VerdictValue::Passed,
        Some(VerdictValue::Passed | VerdictValue::Failed) => VerdictValue::Failed,
        Some(VerdictValue::Inconclusive) if planted(Planted::NoDataPasses) => VerdictValue::Passed,
        Some(VerdictValue::Inconclusive) | None => VerdictValue::Inconclusive,
    };
    Verdict {
        value,
        score,
        checks: checks
            .iter()
            .map(|check| Check {
                kind: check.kind.to_owned(),
                value: check.value,
                score: ppm(check.score),
                detail: format!("{} (weight {:.2})", check.detail, check.weight),
            })
            .collect(),
        at: input.now,
    }
}

fn ppm(fraction: f64) -> Ppm {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    Ppm((fraction.clamp(0.0, 1.0) * 1e6).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_rounds_to_the_bound_does_not_pass() {
        let saga = super::super::tests::saga(medic_state::plan::Plan {
            playbook: "restart".to_owned(),
            playbook_digest: medic_state::Digest::default(),
            steps: Vec::new(),
            verify: medic_state::manifest::VerifySpec {
                expect: "true".to_owned(),
                hold: Millis(0),
                timeout: Millis(1_000),
                no_data: NoData::Inconclusive,
            },
            baseline: std::collections::BTreeMap::new(),
            approval: medic_state::manifest::ApprovalSpec::default(),
            scope: medic_state::manifest::PlaybookScope::default(),
            verify_targets: Vec::new(),
        });
        let state = medic_state::State::new();
        let input = AssessInput { state: &state, saga: &saga, history: &[], now: Timestamp(1) };
        let of = |rest: f64| {
            let check = |kind, weight, score| Checked {
                kind,
                value: VerdictValue::Passed,
                score,
                weight,
                detail: String::new(),
            };
            verdict(&input, &[check("functional", 0.5, 1.0), check("slo", 0.5, rest)])
        };
        // The law refuses a verdict that passed with no more than this.
        let found = of(0.600_000_4);
        assert_eq!((found.value, found.score), (VerdictValue::Failed, PASS));
        assert_eq!(of(0.600_004).value, VerdictValue::Passed);
    }
}
