//! What holds remediation back from outside: freezes, maintenance windows, silences.

use crate::{
    ids::IncidentId,
    incident::{Incident, IncidentStatus},
    law::{
        context::Context,
        topology::{as_silence, as_window},
    },
    manifest::{Kind, Stored},
    matcher::parse_all,
    planted::{Planted, planted},
    state::{FreezeScope, State},
    symptom::{Symptom, Target},
};

impl State {
    /// The freeze in force that covers a target (and a playbook, once one is chosen), in words.
    #[must_use]
    pub fn frozen(&self, target: &Target, playbook: Option<&str>) -> Option<String> {
        if planted(Planted::FreezeIgnored) {
            return None;
        }
        let tenant = || target.tenant.clone();
        let mut scopes = vec![
            FreezeScope::Global,
            FreezeScope::Tenant(tenant()),
            FreezeScope::Service { tenant: tenant(), service: target.service.clone() },
            FreezeScope::Target(target.clone()),
        ];
        let playbook = playbook
            .map(|name| FreezeScope::Playbook { tenant: tenant(), playbook: name.to_owned() });
        scopes.extend(playbook);
        let region = self.instance(target).and_then(|instance| instance.region.clone());
        scopes.extend(region.map(FreezeScope::Region));
        scopes.iter().find_map(|scope| self.freeze_text(scope))
    }

    fn freeze_text(&self, scope: &FreezeScope) -> Option<String> {
        let freeze = self.freezes.get(scope)?;
        let in_force = freeze.until.is_none_or(|until| self.now < until);
        in_force.then(|| format!("{scope} is frozen by {}: {}", freeze.by, freeze.reason))
    }

    /// Why nothing is decided about an incident for the time being: a freeze of anything it is
    /// about, or a maintenance window. `None`: nothing holds it.
    #[must_use]
    pub fn hold(&self, incident: &Incident) -> Option<String> {
        let active = incident
            .own_symptoms()
            .filter(|symptom| symptom.cleared_at.is_none())
            .map(|symptom| &symptom.symptom.target);
        std::iter::once(&incident.target)
            .chain(active)
            .find_map(|target| self.frozen(target, None))
            .or_else(|| self.in_maintenance(incident))
    }

    /// The maintenance window that an incident falls in, in words.
    pub(super) fn in_maintenance(&self, incident: &Incident) -> Option<String> {
        let windows = self.stored_of(Kind::MaintenanceWindow, &incident.tenant).filter_map(
            |(name, stored)| {
                let window = as_window(&stored.manifest.spec)?;
                window.active(self.now).then_some((name, window))
            },
        );
        for (name, window) in windows {
            // A matcher that does not parse was refused at the door; matching nothing is safe.
            let Ok(matchers) = parse_all(&window.matchers) else { continue };
            let covered = incident.own_symptoms().any(|symptom| {
                let labels = self.labels_of(&symptom.symptom);
                matchers.iter().all(|matcher| matcher.matches(&labels))
            });
            if covered {
                return Some(format!("maintenance window {name}: {}", window.comment));
            }
        }
        None
    }

    /// The silence in force that covers a symptom, in words.
    pub(super) fn silenced(&self, symptom: &Symptom) -> Option<String> {
        let labels = self.labels_of(symptom);
        self.stored_of(Kind::Silence, &symptom.target.tenant).find_map(
            |(name, stored): (&str, &Stored)| {
                let silence = as_silence(&stored.manifest.spec)?;
                if !silence.active(self.now) {
                    return None;
                }
                let matchers = parse_all(&silence.matchers).ok()?;
                matchers
                    .iter()
                    .all(|matcher| matcher.matches(&labels))
                    .then(|| format!("silenced by {name}: {}", silence.comment))
            },
        )
    }
}

/// Brings `held_by` of every untreated incident up to date; gives whether any changed.
///
/// A reason that a refused decision left there (a budget, a lock) stays until the next decision,
/// unless a freeze or a window takes its place.
pub(super) fn refresh(state: &mut State, context: &mut Context<'_>) -> bool {
    let ids: Vec<IncidentId> = state
        .incidents
        .values()
        .filter(|incident| undecided(incident.status))
        .map(|incident| incident.id)
        .collect();
    let mut changed = false;
    for id in ids {
        changed |= refresh_one(state, context, id);
    }
    changed
}

/// [`refresh`] of one incident.
pub(super) fn refresh_one(state: &mut State, context: &mut Context<'_>, id: IncidentId) -> bool {
    let Some(hold) = state.incidents.get(&id).map(|incident| state.hold(incident)) else {
        return false;
    };
    let Some(incident) = state.incidents.get_mut(&id) else { return false };
    let before = incident.held_by.as_deref();
    let from_outside = before.is_some_and(|text| {
        text.contains(" is frozen by ") || text.starts_with("maintenance window ")
    });
    if before == hold.as_deref() || (hold.is_none() && !from_outside) {
        return false;
    }
    let held = hold.is_some();
    let text = match &hold {
        Some(why) => format!("held back: {why}"),
        None => "no longer held back".to_owned(),
    };
    incident.held_by = hold;
    super::incidents::tell(incident, context, text);
    if held {
        super::incidents::obscure(state, id);
    }
    context.touched.insert(id);
    true
}

/// Whether freezes and windows matter to an incident in this state.
const fn undecided(status: IncidentStatus) -> bool {
    matches!(
        status,
        IncidentStatus::Open | IncidentStatus::AwaitingApproval | IncidentStatus::Remediating
    )
}
