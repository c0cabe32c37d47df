//! What is known of an instance's process beyond how it does: whether it still is what was started.

use std::path::PathBuf;

use medic_proto::fleet::v1 as wire;

use super::{Core, Instance};
use crate::action::agent::{
    guard::{self, Baseline, Round, Subject, Watch},
    process::ProcessId,
};

impl Instance {
    /// Looks whether its process still is what was started. Reports go on meanwhile.
    pub(in crate::action::agent) fn guard(&self, round: &mut Round<'_>) {
        let Some((subject, mut watch, before)) = self.guarded() else { return };
        let mut baseline = before.clone();
        let guard = guard::look(&subject, &mut watch, &mut baseline, round);
        self.note_guard(&subject.id, guard, watch, (baseline != before).then_some(baseline));
    }

    fn guarded(&self) -> Option<(Subject, Watch, Baseline)> {
        let mut core = self.core();
        self.refresh(&mut core)?;
        let process = core.record.process.as_ref()?;
        let subject = Subject {
            id: process.id.clone(),
            age_ms: self.now_ms().saturating_sub(process.started_ms),
            command: PathBuf::from(&core.spec.command),
            ports: guard::declared_ports(&core.spec),
        };
        Some((subject, core.watch.clone(), core.record.baseline.clone()))
    }

    fn note_guard(
        &self,
        id: &ProcessId,
        guard: Option<wire::ProcessGuard>,
        watch: Watch,
        baseline: Option<Baseline>,
    ) {
        let mut core = self.core();
        // Another process was started meanwhile: nothing is known of that one.
        if core.record.process.as_ref().is_none_or(|process| process.id != *id) {
            return;
        }
        core.watch = watch;
        core.guard = guard.map(|guard| (id.clone(), guard));
        if let Some(baseline) = baseline {
            core.record.baseline = baseline;
            if let Err(error) = self.save(&core) {
                tracing::warn!(instance = %self.key, %error, "what its process was is not noted on disk");
            }
        }
    }
}

impl Core {
    /// What was last seen of this process, for a report.
    pub(super) fn guard_of(&self, id: &ProcessId) -> Option<wire::ProcessGuard> {
        let (of, guard) = self.guard.as_ref()?;
        let config = self.config_changed_by_others();
        (of == id).then(|| wire::ProcessGuard { config, ..guard.clone() })
    }

    /// What became of the configuration file since Medic wrote it, or the process started with it; empty:
    /// nothing.
    fn config_changed_by_others(&self) -> String {
        let (now, path) = (&self.record.config.current, &self.spec.config_path);
        match &self.record.config_known {
            Some(known) if known != now && now.is_empty() => {
                format!("{path} was deleted without an order")
            }
            Some(known) if known != now => format!("{path} was changed without an order"),
            _ => String::new(),
        }
    }

    /// The configuration in force is Medic's own, or what the process starts with.
    pub(super) fn know_config(&mut self) {
        self.record.config_known = Some(self.record.config.current.clone());
    }
}
