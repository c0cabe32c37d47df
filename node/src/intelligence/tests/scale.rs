//! Whatever is reported, judgement concludes, and its scores keep to their scale.

use std::collections::BTreeMap;

use medic_state::{
    Ppm, Timestamp,
    decision::ThresholdOverrides,
    symptom::{Severity, Symptom, Target},
};
use proptest::prelude::*;

use super::super::{Conclusion, DecisionInput, decide, targets_to_observe};
use crate::{
    fixture::{fleet, look, open, symptom},
    world::Observation,
};

fn any_symptom() -> impl Strategy<Value = Symptom> {
    let instance = prop::sample::select(vec![
        "gateway-1",
        "orders-1",
        "orders-9",
        "users-2",
        "datastore-1",
        "ledger-1",
        "nobody-1",
    ]);
    let kind = prop::sample::select(vec![
        "down",
        "unresponsive",
        "errors",
        "latency",
        "saturation",
        "saturation-predicted",
        "anomaly",
        "alert",
        "agent-lost",
        "\u{0}\u{7f}ü",
    ]);
    let name = prop::sample::select(vec![
        "process",
        "config_changed_ms",
        "previous_config",
        "indicator",
        "class",
        "alertname",
        "x y",
    ]);
    let value = prop_oneof![
        Just("dead".to_owned()),
        Just("paused".to_owned()),
        Just("memory".to_owned()),
        Just("18446744073709551615".to_owned()),
        Just("0".to_owned()),
        ".{0,12}",
    ];
    let labels = prop::collection::btree_map(name.prop_map(str::to_owned), value, 0..5);
    (instance, kind, labels, any::<u64>(), 0..=2_000_000_u32).prop_map(
        |(instance, kind, labels, since, p)| {
            let mut found = symptom(instance, kind, &[]);
            found.labels = labels;
            found.since = Timestamp(since);
            found.p_value = Ppm(p);
            found.severity = if since % 2 == 0 { Severity::Info } else { Severity::Critical };
            found
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever detection (or an alert from outside) says, judgement concludes, and every score
    /// stays within its scale.
    #[test]
    fn any_symptoms_lead_to_a_conclusion_within_scale(
        symptoms in prop::collection::vec(any_symptom(), 1..5),
        rate in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -2.0..2.0_f64],
        good in any::<bool>(),
        now in any::<u64>(),
    ) {
        let mut state = fleet();
        let id = open(&mut state, 7, symptoms);
        let observations: BTreeMap<Target, Observation> = targets_to_observe(&state, id)
            .into_iter()
            .map(|target| (target, look(Timestamp(now), good, &[("error_rate", rate)])))
            .collect();
        let overrides = ThresholdOverrides::default();
        let input = DecisionInput {
            state: &state,
            incident: id,
            observations: &observations,
            overrides,
            now: Timestamp(now),
        };
        if let Conclusion::Propose(found) = decide(&input).unwrap() {
            let scores = [found.class_confidence, found.risk, found.confidence];
            let all = scores.into_iter()
                .chain(found.risks.iter().map(|r| r.score))
                .chain(found.recommendations.iter().map(|r| r.score));
            for score in all {
                prop_assert!(score <= Ppm::ONE);
            }
            prop_assert_eq!(found.risks.len(), if found.plan.is_some() { 5 } else { 0 });
        }
    }
}
