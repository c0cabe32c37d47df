//! Which playbooks of a tenant would act on what is foreseen.

use std::collections::BTreeMap;

use medic_state::{
    State,
    manifest::{Mode, Spec},
    matcher::{self, Matcher},
    symptom::Symptom,
};

use super::rules_of_class::class_foretold;
use crate::topology;

/// A playbook that may act before anything broke.
type Playbook = (String, Mode, Vec<Matcher>);

/// The preventive playbooks of tenants; matchers are read once a tenant.
#[derive(Debug)]
pub struct Preventive<'s> {
    state: &'s State,
    by_tenant: BTreeMap<String, Vec<Playbook>>,
}

impl<'s> Preventive<'s> {
    /// Of a state.
    #[must_use]
    pub const fn of(state: &'s State) -> Self {
        Self { state, by_tenant: BTreeMap::new() }
    }

    /// Those of its tenant that match a predicted symptom as the only one of an incident, by name, with
    /// their mode; those in shadow act on nothing and are left out. Whether a playbook's `when` holds is
    /// known only once there is an incident.
    pub fn matching(&mut self, symptom: &Symptom) -> Vec<(String, Mode)> {
        let (state, tenant) = (self.state, &symptom.target.tenant);
        let all = self.by_tenant.entry(tenant.clone()).or_insert_with(|| playbooks(state, tenant));
        let indicator = symptom.labels.get("indicator").map_or("", String::as_str);
        let class = class_foretold(&symptom.kind, indicator).map_or("unknown", |(class, _)| class);
        let mut labels = state.labels_of(symptom);
        labels.insert("class".to_owned(), class.to_owned());
        labels.insert("predicted".to_owned(), true.to_string());
        all.iter()
            .filter(|(.., matchers)| matchers.iter().all(|one| one.matches(&labels)))
            .map(|(name, mode, _)| (name.clone(), *mode))
            .collect()
    }
}

fn playbooks(state: &State, tenant: &str) -> Vec<Playbook> {
    let able = topology::playbooks(state, tenant).filter_map(|(name, stored)| {
        let Spec::Playbook(spec) = &stored.manifest.spec else { return None };
        if !spec.preventive || spec.mode == Mode::Shadow {
            return None;
        }
        Some((name.to_owned(), spec.mode, matcher::parse_all(&spec.matchers).ok()?))
    });
    able.collect()
}

#[cfg(test)]
mod tests {
    use medic_state::Millis;

    use super::*;
    use crate::fixture::{fleet, symptom};

    #[test]
    fn preventive_playbooks_that_match_are_named() {
        let state = fleet();
        let of = |kind: &str, indicator: &str| {
            let labels = [("indicator", indicator)];
            let told =
                Symptom { time_to_event: Some(Millis(1)), ..symptom("users-1", kind, &labels) };
            Preventive::of(&state).matching(&told)
        };
        for (kind, indicator, named) in [
            ("saturation-predicted", "memory", Some(("recycle-leaking-instances", Mode::Auto))),
            ("capacity-predicted", "open_fds", Some(("recycle-leaking-instances", Mode::Auto))),
            ("saturation-predicted", "disk_used", Some(("relieve-filling-disk", Mode::Auto))),
            ("capacity-predicted", "disk_free", Some(("relieve-filling-disk", Mode::Auto))),
            ("security-predicted", "cert_expiry", Some(("renew-ending-certificate", Mode::Auto))),
            ("failure-predicted", "process", Some(("restart-before-failure", Mode::Approve))),
            ("latency-predicted", "latency_p99", Some(("restart-slowing-instance", Mode::Approve))),
            // What no built-in expectation could tell of is left to people.
            ("capacity-predicted", "disk_available", None),
            ("security-predicted", "tls", None),
            ("latency-predicted", "checkout_seconds", None),
            ("saturation-predicted", "cpu", None),
            ("budget-predicted", "error_rate", None),
        ] {
            let named: Vec<(String, Mode)> =
                named.into_iter().map(|(name, mode)| (name.to_owned(), mode)).collect();
            assert_eq!(of(kind, indicator), named, "{kind} of {indicator}");
        }
    }
}
