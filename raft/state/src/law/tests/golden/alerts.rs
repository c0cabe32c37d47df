//! Golden bytes of what command set 8 brought for alerts.

use super::*;
use crate::{
    incident::Recurrence,
    manifest::{InhibitSpec, PolicySpec},
};

#[test]
fn golden_bytes_of_inhibition_and_of_returns() {
    let rule = InhibitSpec {
        name: "store-down".into(),
        source: vec![r#"kind="down""#.into()],
        target: vec![r#"severity="warning""#.into()],
        equal: vec!["region".into()],
    };
    let policy = PolicySpec {
        inhibit: vec![rule],
        refractory: Some(Millis(60_000)),
        max_recurrences: Some(3),
        ..PolicySpec::default()
    };
    let (of, first) = (IncidentId(9), IncidentId(7));
    compare("v5/policy", &codec::encode(&policy));
    compare("v5/recurrence", &codec::encode(&Recurrence { of, first, times: 2 }));
    let apply = |policy: PolicySpec| lab::apply(manifest("default", TENANT, Spec::Policy(policy)));
    // What says nothing new is written as before, and an older build may read it.
    let plain = codec::encode(&PolicySpec::default());
    assert_eq!(plain.first(), Some(&0x88), "eight fields, as ever");
    assert_eq!(codec::decode::<PolicySpec>(&plain).unwrap(), PolicySpec::default());
    assert_eq!(codec::decode::<PolicySpec>(&codec::encode(&policy)).unwrap(), policy);
    let late = PolicySpec { inhibit: Vec::new(), ..policy.clone() };
    assert_eq!(codec::decode::<PolicySpec>(&codec::encode(&late)).unwrap(), late);
    assert_eq!([apply(PolicySpec::default()).since(), apply(policy).since()], [1, 8]);
}
