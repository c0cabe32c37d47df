//! Golden bytes of what is kept for opinions of the law.

use std::collections::BTreeSet;

use super::*;
use crate::{
    symptom::{ALTHOUGH_USUAL, LIMIT},
    voice::{self, Voice},
    weight::Detector,
};

#[test]
fn golden_bytes_of_voices_and_none_of_what_was_kept_without_them() {
    let voices = BTreeSet::from([
        Voice::Fact,
        Voice::Obscured,
        Voice::Detector("load".into(), Detector::Cusum),
        Voice::Limit("load".into(), false),
        Voice::Limit("latency_p99".into(), true),
    ]);
    compare("v5/voices", &codec::encode(&voices));
    assert_eq!(codec::decode::<BTreeSet<Voice>>(&read("v5/voices")).unwrap(), voices);
    let mut lab = Lab::new();
    let id = lab.report("api", "a", "down");
    let known = lab.incident(id).symptoms.values().next().unwrap().clone();
    let without = crate::incident::SymptomState { voices: BTreeSet::new(), ..known.clone() };
    let (six, seven) = (codec::encode(&without), codec::encode(&known));
    assert_eq!((six[0], seven[0]), (0x86, 0x87), "an older build's bytes, and ours");
    assert_eq!(codec::decode::<crate::incident::SymptomState>(&six).unwrap(), without);
}

/// Detection writes it, and the law reads it.
#[test]
fn the_marking_of_a_limit_is_as_it_was() {
    let usual = Signal { expected: "<= 0.5 although usual".into(), ..odd("load", "limit") };
    assert_eq!((LIMIT, ALTHOUGH_USUAL), ("limit", " although usual"));
    assert_eq!(Voice::of(&usual), Voice::Limit("load".into(), true));
    let voices = voice::first(&Symptom { signals: vec![usual], ..symptom("api", "a", "errors") });
    assert_eq!(voices.len(), 1);
}
