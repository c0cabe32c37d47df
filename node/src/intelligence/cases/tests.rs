//! Past cases teach classes and causes.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::learn::Chance;

/// Cases of three services with two replicas: class 0 shows memory at the cause, class 1 latency at the
/// cause and at its caller; both show noise elsewhere.
fn past(count: usize) -> (Vec<Case>, Vec<Label>) {
    let mut chance = Chance::new(9);
    let entity = |place: usize| Entity {
        name: format!("s{}-{}", place / 2, place % 2),
        service: format!("s{}", place / 2),
    };
    let sign = |entity: usize, what: &str| Sign {
        entity: Some(entity),
        what: what.to_owned(),
        strength: 1.0,
    };
    let mut made = (Vec::new(), Vec::new());
    for number in 0..count {
        let (class, cause) = (number % 2, chance.below(6));
        let mut signs = vec![sign(chance.below(6), "cpu up"), sign(chance.below(6), "net down")];
        signs.push(sign(cause, "restarts up"));
        if class == 0 {
            signs.push(sign(cause, "memory up"));
            signs.push(sign(chance.below(6), "latency up"));
        } else {
            signs.extend([sign(cause, "latency up"), sign((cause + 2) % 6, "latency up")]);
        }
        let calls = (0..6).map(|place| ((place + 2) % 6, place)).collect();
        made.0.push(Case { entities: (0..6).map(entity).collect(), calls, signs });
        made.1.push(Label { class, cause: Some(cause) });
    }
    made
}

#[test]
fn it_names_class_and_cause_of_cases_it_has_not_seen() {
    let (cases, labels) = past(60);
    let verdicts = cross_validated(&cases, &labels, 2, (4, 0.95), |_| ());
    let right = verdicts.iter().zip(&labels).filter(|(v, l)| v.class == l.class).count();
    let causes = verdicts.iter().zip(&labels).filter(|(v, l)| v.cause == l.cause).count();
    assert!(right >= 57 && causes >= 54, "{right} classes and {causes} causes of 60");
    assert!(verdicts.iter().all(|v| (v.shares.iter().sum::<f32>() - 1.0).abs() < 1e-3));
}

#[test]
fn it_abstains_where_the_past_gives_no_ground() {
    let (cases, mut labels) = past(60);
    let mut chance = Chance::new(2);
    labels.iter_mut().for_each(|label| label.class = chance.below(2));
    let verdicts = cross_validated(&cases, &labels, 2, (4, 0.95), |_| ());
    let answered = verdicts.iter().filter(|verdict| !verdict.abstain).count();
    assert!(answered <= 15, "{answered} answers to labels that were drawn by lot");
}

#[test]
fn a_case_without_signs_or_entities_is_no_trouble() {
    let (cases, labels) = past(40);
    let rows: Vec<usize> = (0..40).collect();
    let classifier = Classifier::fit((&cases, &labels), &rows, 2, 0.95);
    let verdict = classifier.classify(&Case::default());
    assert_eq!(verdict.cause, None);
    assert!(verdict.shares.iter().all(|share| share.is_finite()));
}
