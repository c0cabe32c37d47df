//! Medic's own metrics: the totals of the law under the names the outside world relies on, and how
//! this node does.
//!
//! The totals are replicated state, so every node shows the same numbers, and a restart or an
//! election resets none.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use medic_raft::{ClusterAdmin, Ledger, LedgerExt as _};
use medic_state::{incident::IncidentStatus, saga::SagaStatus, state::Totals};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::security::ReloadableTls;

/// Names that dashboards and the customer's reports use; see DESIGN section 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Total {
    Incidents,
    Detected,
    Attempted,
    Successful,
    Manual,
    RolledBack,
    Unknown,
    RefusedSymptoms,
}

impl Total {
    const ALL: [Self; 8] = [
        Self::Incidents,
        Self::Detected,
        Self::Attempted,
        Self::Successful,
        Self::Manual,
        Self::RolledBack,
        Self::Unknown,
        Self::RefusedSymptoms,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Incidents => "incidents_total",
            Self::Detected => "incidents_detected_total",
            Self::Attempted => "remediations_attempted_total",
            Self::Successful => "remediations_successful_total",
            Self::Manual => "manual_interventions_total",
            Self::RolledBack => "medic_remediations_rolled_back_total",
            Self::Unknown => "medic_steps_unknown_total",
            Self::RefusedSymptoms => "medic_symptoms_refused_total",
        }
    }

    const fn help(self) -> &'static str {
        match self {
            Self::Incidents => "Incidents opened",
            Self::Detected => "Incidents opened by detection",
            Self::Attempted => "Remediations whose first step was started",
            Self::Successful => "Remediations that were verified",
            Self::Manual => "Incidents that a human took part in",
            Self::RolledBack => "Remediations that were rolled back",
            Self::Unknown => "Steps whose outcome nobody can tell",
            Self::RefusedSymptoms => "Symptoms refused at a tenant's quota",
        }
    }

    const fn of(self, totals: &Totals) -> u64 {
        match self {
            Self::Incidents => totals.incidents,
            Self::Detected => totals.detected,
            Self::Attempted => totals.attempted,
            Self::Successful => totals.successful,
            Self::Manual => totals.manual,
            Self::RolledBack => totals.rolled_back,
            Self::Unknown => totals.unknown,
            Self::RefusedSymptoms => totals.refused_symptoms,
        }
    }
}

/// Installs the recorder that everything in this process counts into.
///
/// # Errors
/// When one is installed already.
pub(super) fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .context("a metrics recorder is installed already in this process")?;
    for total in Total::ALL {
        metrics::describe_counter!(total.name(), total.help());
    }
    metrics::describe_gauge!("medic_open_incidents", "Incidents that are not resolved");
    metrics::describe_gauge!("medic_escalated_incidents", "Incidents that wait for a human");
    metrics::describe_gauge!("medic_remediations_in_flight", "Remediations that have not ended");
    metrics::describe_gauge!(
        "medic_approvals_waiting",
        "Remediations that wait for somebody to approve them"
    );
    metrics::describe_gauge!("medic_freezes", "Freezes in force, of whatever scope");
    metrics::describe_gauge!("medic_leader_known", "1 while this node knows a leader");
    metrics::describe_gauge!(
        "medic_certificate_expiry_timestamp_seconds",
        "When the certificate of this node ends, as Unix time"
    );
    metrics::describe_gauge!("medic_data_free_bytes", "Free bytes on the disk of the data folder");
    metrics::describe_gauge!("medic_leader", "1 on the node that leads");
    metrics::describe_gauge!("medic_applied_index", "Log index applied on this node");
    metrics::describe_gauge!("medic_log_index", "Last log index on this node");
    Ok(handle)
}

/// What a scrape looks at beside what was counted.
pub(super) struct Sources {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) admin: Arc<dyn ClusterAdmin>,
    pub(super) tls: Arc<ReloadableTls>,
    pub(super) data_dir: PathBuf,
}

impl Sources {
    /// Copies how things stand into the metrics; called at each scrape.
    pub(super) fn refresh(&self) {
        refresh_state(self.ledger.as_ref());
        let status = self.admin.status();
        let yes = |is: bool| if is { 1.0 } else { 0.0 };
        metrics::gauge!("medic_leader").set(yes(status.leadership.me));
        metrics::gauge!("medic_leader_known").set(yes(status.leadership.leader.is_some()));
        metrics::gauge!("medic_applied_index").set(index(status.applied));
        metrics::gauge!("medic_log_index").set(index(status.last_log));
        let ends = self.tls.current().identity.not_after;
        metrics::gauge!("medic_certificate_expiry_timestamp_seconds").set(index(ends.0 / 1_000));
        match nix::sys::statvfs::statvfs(&self.data_dir) {
            Ok(disk) => metrics::gauge!("medic_data_free_bytes")
                .set(index(disk.blocks_available() * disk.fragment_size())),
            Err(error) => {
                tracing::debug!(%error, "the disk of the data folder cannot be looked at")
            }
        }
    }
}

fn refresh_state(ledger: &dyn Ledger) {
    let (totals, open, escalated, flying, waiting, freezes) = ledger.read(|state| {
        let open = state.incidents.values().filter(|incident| !incident.closed()).count();
        let escalated =
            state.incidents.values().filter(|i| i.status == IncidentStatus::Escalated).count();
        let flying = state.sagas.values().filter(|saga| in_flight(saga.status)).count();
        let waiting =
            state.sagas.values().filter(|s| s.status == SagaStatus::AwaitingApproval).count();
        (state.totals, open, escalated, flying, waiting, state.freezes.len())
    });
    for total in Total::ALL {
        metrics::counter!(total.name()).absolute(total.of(&totals));
    }
    metrics::gauge!("medic_open_incidents").set(count(open));
    metrics::gauge!("medic_escalated_incidents").set(count(escalated));
    metrics::gauge!("medic_remediations_in_flight").set(count(flying));
    metrics::gauge!("medic_approvals_waiting").set(count(waiting));
    metrics::gauge!("medic_freezes").set(count(freezes));
}

const fn in_flight(status: SagaStatus) -> bool {
    !status.ended() && !matches!(status, SagaStatus::AwaitingApproval)
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Log indexes, times in seconds and sizes of disks stay far below 2^53, where a double stops counting by one.
#[allow(clippy::cast_precision_loss, reason = "see above")]
const fn index(number: u64) -> f64 {
    number as f64
}

/// Drops old histogram samples now and then, so that memory does not grow between scrapes.
pub(super) async fn upkeep(handle: PrometheusHandle) {
    let mut timer = tokio::time::interval(Duration::from_secs(5));
    loop {
        timer.tick().await;
        handle.run_upkeep();
    }
}
