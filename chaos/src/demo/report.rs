//! The table at the end: fault, detected, decided, healed, by whom.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use medic_proto::v1::{Incident, Remediation};
use serde::Serialize;

/// How one scenario went. Times are counted from the moment the fault was injected.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) fault: String,
    pub(super) incident: String,
    pub(super) class: String,
    pub(super) playbook: String,
    pub(super) detected_ms: Option<u64>,
    pub(super) decided_ms: Option<u64>,
    pub(super) healed_ms: Option<u64>,
    pub(super) by_human: bool,
    pub(super) ended: String,
    /// What was expected happened.
    pub(super) as_expected: bool,
    /// What was not, in words.
    pub(super) problems: Vec<String>,
}

impl Row {
    /// Reads the times off an incident; `began_ms` is the wall clock when the fault was injected.
    pub(super) fn read(
        fault: &str,
        began_ms: u64,
        incident: &Incident,
        remediations: &[Remediation],
    ) -> Self {
        let after = |at: &Option<prost_types::Timestamp>| {
            at.as_ref().map(|at| unix_ms(at).saturating_sub(began_ms))
        };
        let last = remediations.last();
        Self {
            fault: fault.to_owned(),
            incident: incident.id.clone(),
            class: incident.decision.as_ref().map(|d| d.class.clone()).unwrap_or_default(),
            playbook: last.map(|r| r.playbook.clone()).unwrap_or_default(),
            detected_ms: after(&incident.opened_at),
            decided_ms: after(&incident.decided_at),
            healed_ms: after(&incident.resolved_at),
            by_human: incident.manual,
            ended: ending(incident, last),
            as_expected: true,
            problems: Vec::new(),
        }
    }

    /// A scenario in which not even an incident was seen.
    pub(super) fn unseen(fault: &str, problem: String) -> Self {
        Self {
            fault: fault.to_owned(),
            incident: "-".to_owned(),
            class: String::new(),
            playbook: String::new(),
            detected_ms: None,
            decided_ms: None,
            healed_ms: None,
            by_human: false,
            ended: "not detected".to_owned(),
            as_expected: false,
            problems: vec![problem],
        }
    }

    pub(super) fn problem(&mut self, text: String) {
        self.as_expected = false;
        self.problems.push(text);
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms(at: &prost_types::Timestamp) -> u64 {
    let millis = at.seconds.saturating_mul(1000) + i64::from(at.nanos) / 1_000_000;
    u64::try_from(millis).unwrap_or(0)
}

fn ending(incident: &Incident, last: Option<&Remediation>) -> String {
    use medic_proto::v1::{IncidentStatus, RemediationStatus};
    let status = IncidentStatus::try_from(incident.status).unwrap_or_default();
    let plan = last.and_then(|r| RemediationStatus::try_from(r.status).ok());
    match (status, plan) {
        (IncidentStatus::Resolved, Some(RemediationStatus::Succeeded)) => "healed, verified",
        (IncidentStatus::Resolved, Some(RemediationStatus::RolledBack)) => {
            "rolled back, then by hand"
        }
        (IncidentStatus::Resolved, _) => "resolved",
        (IncidentStatus::Escalated, Some(RemediationStatus::RolledBack)) => {
            "rolled back, escalated"
        }
        (IncidentStatus::Escalated, _) => "escalated",
        _ => "not finished",
    }
    .to_owned()
}

/// The whole run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) served: u64,
    pub(super) failed: u64,
    pub(super) seconds: u64,
}

impl Report {
    pub(super) fn all_as_expected(&self) -> bool {
        self.rows.iter().all(|row| row.as_expected)
    }

    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "fault", "incident", "class", "playbook", "detected", "decided", "healed", "human",
            "ended",
        ]);
        for row in &self.rows {
            let time = |ms: Option<u64>| {
                let text =
                    ms.map_or_else(|| "-".to_owned(), |ms| seconds(Duration::from_millis(ms)));
                Cell::new(text).set_alignment(CellAlignment::Right)
            };
            table.add_row(vec![
                Cell::new(&row.fault),
                Cell::new(&row.incident),
                Cell::new(&row.class),
                Cell::new(&row.playbook),
                time(row.detected_ms),
                time(row.decided_ms),
                time(row.healed_ms),
                Cell::new(if row.by_human { "yes" } else { "no" }),
                Cell::new(&row.ended),
            ]);
        }
        table.to_string()
    }

    pub(super) fn traffic(&self) -> String {
        let total = self.served + self.failed;
        let tenths = (self.failed * 1000).checked_div(total).unwrap_or(0);
        format!(
            "traffic: {total} requests in {} s, {} served, {} failed ({}.{} %) while eight faults were healed",
            self.seconds,
            self.served,
            self.failed,
            tenths / 10,
            tenths % 10
        )
    }
}

fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
