//! Which playbooks of a tenant would act on what is foreseen.

use medic_state::{
    State,
    manifest::{Mode, Spec},
    matcher,
    symptom::Symptom,
};

use super::rules_of_class::class_foretold;
use crate::topology;

/// The preventive playbooks of its tenant that match a predicted symptom as the only one of an incident, by
/// name, with their mode; those in shadow act on nothing and are left out. Whether a playbook's `when`
/// holds is known only once there is an incident.
#[must_use]
pub fn preventive(state: &State, symptom: &Symptom) -> Vec<(String, Mode)> {
    let indicator = symptom.labels.get("indicator").map_or("", String::as_str);
    let class = class_foretold(&symptom.kind, indicator).map_or("unknown", |(class, _)| class);
    let mut labels = state.labels_of(symptom);
    labels.insert("class".to_owned(), class.to_owned());
    labels.insert("predicted".to_owned(), true.to_string());
    let matching =
        topology::playbooks(state, &symptom.target.tenant).filter_map(|(name, stored)| {
            let Spec::Playbook(spec) = &stored.manifest.spec else { return None };
            let able = spec.preventive && spec.mode != Mode::Shadow;
            let all = matcher::parse_all(&spec.matchers).ok()?;
            (able && all.iter().all(|one| one.matches(&labels)))
                .then(|| (name.to_owned(), spec.mode))
        });
    matching.collect()
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
            preventive(&state, &told)
        };
        let recycle = [("recycle-leaking-instances".to_owned(), Mode::Auto)];
        assert_eq!(of("saturation-predicted", "memory"), recycle);
        assert_eq!(of("capacity-predicted", "open_fds"), recycle);
        assert_eq!(of("capacity-predicted", "disk_available"), []);
        assert_eq!(of("security-predicted", "cert_expiry"), []);
    }
}
