//! How well it can be undone: the worst step counts.

use medic_state::manifest::SafetyClass;

use super::{RiskError, RiskInput, Scored, info};

pub(super) fn score(input: &RiskInput<'_>) -> Result<Scored, RiskError> {
    let mut worst = 0.0;
    let mut reasons = Vec::new();
    for step in &input.plan.steps {
        let (mut score, mut why) = match step.safety {
            SafetyClass::Fenced => (0.05, "fenced: it happens once or provably not"),
            SafetyClass::Idempotent => (0.05, "idempotent: repeating it is harmless"),
            SafetyClass::Probeable => (0.1, "probeable: the world tells whether it happened"),
            SafetyClass::Opaque => (0.45, "opaque: a lost outcome stays unknown"),
        };
        // Bringing an instance to its declared state leaves nothing behind to undo.
        if step.undo.is_none() && step.action.name != "process.restore" {
            score += if info(step)?.interrupts { 0.3 } else { 0.15 };
            why = match step.safety {
                SafetyClass::Opaque => "opaque and without undo",
                _ => "it has no undo",
            };
        }
        if score > worst {
            worst = score;
            reasons.insert(0, format!("{} ({}): {why}", step.name, step.action.name));
        }
    }
    reasons.truncate(3);
    Ok(Scored { score: worst, reasons })
}
