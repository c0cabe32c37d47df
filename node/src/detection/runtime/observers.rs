//! A probe's check as the watch takes it: here, and by others when it fails here.

use std::{collections::BTreeMap, time::Duration};

use medic_state::{
    manifest::{ObserversSpec, ProbeKind},
    symptom::{Symptom, Target},
};

use super::plan::Wanted;
use crate::detection::{
    fill::fill,
    observe::{
        CHECK_TIME_MAX, fill_kind,
        others::{self, Check},
        quorum::{Judged, Verdict},
    },
    probe::Outcome,
    senses::Senses,
};

/// One check, ready to be taken.
pub(super) struct Look {
    check: Check,
    kind: ProbeKind,
    limit: Duration,
    rule: Option<ObserversSpec>,
}

/// The check of an instance's probe at a place, if there is one.
pub(super) fn look(target: &Target, wanted: &Wanted, i: usize) -> Option<Look> {
    let (service, instance) = wanted.declared()?;
    let probe = service.probes.get(i)?;
    let kind = fill_kind(&probe.kind, |text| fill(text, &target.service, service, instance));
    let check = Check { target: target.clone(), probe: probe.name.clone(), index: wanted.index };
    let limit = probe.timeout.as_duration().min(CHECK_TIME_MAX);
    Some(Look { check, kind, limit, rule: probe.observers })
}

impl Look {
    /// Takes it.
    pub(super) async fn taken(self, senses: &dyn Senses) -> Judged {
        let Self { check, kind, limit, rule } = self;
        match (senses.probe(&check.target, &kind, limit).await, rule) {
            (Outcome::Bad(failure), Some(rule)) => {
                others::put(senses, failure, rule, (&check, limit)).await
            }
            (outcome, _) => Judged::alone(outcome),
        }
    }
}

/// What became of the last failure of each probe that was put to others.
#[derive(Debug, Default)]
pub(super) struct Put(BTreeMap<String, (Verdict, String)>);

impl Put {
    /// Takes note of a check.
    pub(super) fn note(&mut self, target: &Target, probe: &str, put: Option<(Verdict, String)>) {
        let known = self.0.get(probe).map(|(verdict, _)| *verdict);
        let Some((verdict, text)) = put else {
            self.0.remove(probe);
            return;
        };
        if known != Some(verdict) {
            match verdict {
                Verdict::Agreed => tracing::info!(%target, probe, text, "others see it fail too"),
                Verdict::Alone => {
                    tracing::warn!(%target, probe, text, "it fails, by this node alone")
                }
                Verdict::Overruled => {
                    tracing::warn!(%target, probe, text, "it fails from here alone: is this node cut off from it?");
                }
                Verdict::Undecided => {
                    tracing::warn!(%target, probe, text, "it may or may not fail")
                }
            }
        }
        self.0.insert(probe.to_owned(), (verdict, text));
    }

    /// Says beside a finding how many saw what it rests on.
    pub(super) fn tell(&self, symptom: &mut Symptom) {
        for (probe, (_, text)) in &self.0 {
            let name = format!("probe.{probe}");
            if symptom.signals.iter().any(|signal| signal.name == name) {
                symptom.summary.push_str(&format!("; probe {probe}: {text}"));
            }
        }
    }
}
