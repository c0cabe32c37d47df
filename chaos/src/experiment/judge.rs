//! What rounds of probes say: steady or not, abort or go on.
//!
//! No data is never steady; and an abort condition that cannot be told ends the experiment, unless it
//! says otherwise: who cannot see what he does stops.

use std::time::{Duration, Instant};

use medic_node::expr::{Condition, ExprError, Truth};

use super::{
    manifest::{ExperimentSpec, NoData},
    probe::Round,
};

/// Whether a condition holds, and if not, why.
fn told(condition: &Condition, round: &Round) -> Result<(), String> {
    match condition.evaluate(&round.facts()) {
        Ok(Truth::True) => Ok(()),
        Ok(Truth::False) => Err("it does not hold".to_owned()),
        Ok(Truth::NoData(what)) => Err(what),
        Err(error) => Err(error.to_string()),
    }
}

struct Abort {
    text: String,
    condition: Condition,
    lasts: Duration,
    no_data: NoData,
    since: Option<Instant>,
}

/// The conditions of an experiment, and since when they hold.
pub(super) struct Judge {
    expect: Condition,
    during: Option<Condition>,
    aborts: Vec<Abort>,
}

impl Judge {
    /// Reads the conditions.
    pub(super) fn new(spec: &ExperimentSpec) -> Result<Self, ExprError> {
        let during = spec.steady_state.during.as_deref().map(Condition::parse).transpose()?;
        let aborts = spec
            .abort
            .iter()
            .map(|abort| {
                Ok(Abort {
                    text: abort.when.clone(),
                    condition: Condition::parse(&abort.when)?,
                    lasts: abort.lasts.as_duration(),
                    no_data: abort.no_data,
                    since: None,
                })
            })
            .collect::<Result<_, ExprError>>()?;
        Ok(Self { expect: Condition::parse(&spec.steady_state.expect)?, during, aborts })
    }

    /// Whether the system is steady.
    pub(super) fn steady(&self, round: &Round) -> Result<(), String> {
        told(&self.expect, round)
    }

    /// Whether what must hold under faults does.
    pub(super) fn during(&self, round: &Round) -> Result<(), String> {
        self.during.as_ref().map_or(Ok(()), |condition| told(condition, round))
    }

    /// Why to stop now, if so.
    pub(super) fn abort(&mut self, round: &Round) -> Option<String> {
        self.aborts.iter_mut().find_map(|abort| {
            let why = match abort.condition.evaluate(&round.facts()) {
                Ok(Truth::True) => format!("abort condition `{}`", abort.text),
                Ok(Truth::NoData(what)) if abort.no_data == NoData::Abort => {
                    format!("abort condition `{}` cannot be told: {what}", abort.text)
                }
                Ok(Truth::False | Truth::NoData(_)) => {
                    abort.since = None;
                    return None;
                }
                Err(error) => format!("abort condition: {error}"),
            };
            let since = *abort.since.get_or_insert(round.at);
            (round.at.duration_since(since) >= abort.lasts).then_some(why)
        })
    }
}

/// Held without a break, so far.
#[derive(Debug, Default)]
pub(super) struct Streak(Option<Instant>);

impl Streak {
    /// How long it has held, this round included.
    pub(super) fn count(&mut self, round: &Round, good: bool) -> Option<Duration> {
        if !good {
            self.0 = None;
            return None;
        }
        Some(round.at.duration_since(*self.0.get_or_insert(round.at)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use medic_node::expr::Scalar;

    use super::*;
    use crate::experiment::{manifest, probe::Values};

    fn judge(abort: &str) -> Judge {
        let text = format!(
            "apiVersion: medic/v1\nkind: Experiment\nmetadata: {{name: t}}\nspec:\n  probes: [{{name: web, tcp: {{address: 'a:1'}}}}]\n  \
             steadyState: {{expect: 'web.up && web.latency_ms < 10.0'}}\n  abort: [{abort}]\n  \
             targets: [{{name: x, container: x}}]\n  faults: [{{target: x, inject: pause, for: 1s}}]\n"
        );
        Judge::new(&manifest::parse(&text).unwrap().spec).unwrap()
    }

    fn round(began: Instant, second: u64, values: &[(&'static str, Scalar)]) -> Round {
        let values: Values = values.iter().cloned().collect();
        let at = began + Duration::from_secs(second);
        Round { at, values: BTreeMap::from([("web".to_owned(), values)]) }
    }

    #[test]
    fn an_abort_must_last_and_blindness_is_one() {
        let began = Instant::now();
        let up = |up| [("up", Scalar::Flag(up))];
        let mut judge = judge("{when: '!web.up', for: 2s}");
        assert_eq!(judge.abort(&round(began, 0, &up(false))), None);
        assert_eq!(judge.abort(&round(began, 1, &up(true))), None, "the break counts");
        assert_eq!(judge.abort(&round(began, 2, &up(false))), None);
        assert_eq!(judge.abort(&round(began, 3, &[])), None);
        assert!(judge.abort(&round(began, 4, &[])).unwrap().contains("cannot be told"));
        let mut lax = self::judge("{when: '!web.up', noData: ignore}");
        assert_eq!(lax.abort(&round(began, 0, &[])), None);
        assert!(lax.abort(&round(began, 1, &up(false))).is_some());
    }

    #[test]
    fn no_data_is_not_steady() {
        let judge = judge("");
        let began = Instant::now();
        let fast = [("up", Scalar::Flag(true)), ("latency_ms", Scalar::Number(1.0))];
        assert_eq!(judge.steady(&round(began, 0, &fast)), Ok(()));
        let why = judge.steady(&round(began, 0, &fast[..1])).unwrap_err();
        assert!(why.contains("no data for latency_ms"), "{why}");
    }
}
