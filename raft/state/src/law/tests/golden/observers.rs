//! Golden bytes of probes.

use super::*;
use crate::manifest::{ObserversSpec, ProbeKind, ProbeSpec};

#[test]
fn golden_bytes_of_probes_with_observers_and_without() {
    let probe = |observers| ProbeSpec {
        name: "up".into(),
        kind: ProbeKind::Tcp("${host}:${port}".into()),
        interval: Millis(2_000),
        timeout: Millis(1_000),
        observers,
    };
    let several = probe(Some(ObserversSpec { of: 3, agree: 2 }));
    compare("v4/observers", &codec::encode(&vec![probe(None), several.clone()]));
    for (probe, since) in [(probe(None), 1), (several, 8)] {
        let mut declared = service(&["a"], &[]);
        declared.probes = vec![probe];
        assert_eq!(lab::apply(manifest("api", TENANT, Spec::Service(declared))).since(), since);
    }
}
