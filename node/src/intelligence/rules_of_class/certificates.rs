//! Certificates that proved nothing to a probe: what is wrong with them says of which class that is.

use super::{Evidence, Scene, evidence};

/// As detection signs such votes.
const DETECTOR: &str = "certificate";

/// An end that has come is one thing; another's name, or an issuer whom nobody trusts, another: no restart
/// mends that, and it may be somebody in between.
pub(super) fn shown(scene: &Scene<'_>) -> Vec<Evidence> {
    let mut found = Vec::new();
    for s in scene.telling() {
        let signals = s.symptom.signals.iter().filter(|signal| signal.detector == DETECTOR);
        for signal in signals {
            let class = match signal.value.as_str() {
                "expired" | "not-yet-valid" => "security/certificate-expiry",
                _ => "security/certificate-invalid",
            };
            let (who, what) = (&s.symptom.target, &signal.value);
            let why = format!("the certificate that {who} showed to {} is {what}", signal.name);
            found.push(evidence(class, 0.95, why));
        }
    }
    found
}
