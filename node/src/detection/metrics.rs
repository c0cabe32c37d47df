//! Names of the metrics this layer keeps.

/// A metric of the detection layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Histogram, seconds, by `kind` and `outcome` (good, bad, no_data).
    ProbeDuration,
    /// Histogram, seconds.
    ScrapeDuration,
    /// Counter by `reason`.
    ScrapeErrors,
    /// Counter: lines of exposition that are no samples.
    MalformedLines,
    /// Counter of scraped samples that are no measurements, by `reason` (not_finite, negative_counter, untimely).
    RefusedSamples,
    /// Gauge: indicator series watched by this node.
    Series,
    /// Gauge: instances watched by this node.
    Instances,
    /// Gauge: shards owned by this node.
    Shards,
    /// Gauge: findings active on this node.
    ActiveFindings,
    /// Counter of reports proposed, by `kind` and `result` (admitted, noted, refused, failed).
    Reports,
    /// Counter of clears proposed, by `result`.
    Clears,
    /// Counter: watching tasks that panicked and were started again.
    TaskPanics,
    /// Counter of samples that came in, by `door` and `result`.
    IntakeSamples,
    /// Counter of samples that were not taken and whose sender was told so, by `tenant`, `door`, `source`
    /// (of those that are asked) and `result`: tenants and sources are declared, so they are few.
    IntakeRefused,
    /// Counter: series that were pushed as another type than before.
    IntakeTypeChanges,
    /// Counter: families whose metadata remote write 1.0 has told, which is checked and not kept.
    IntakeFamilies,
    /// Gauge: pushed series held by this node.
    IntakeSeries,
    /// Counter of rounds of sources that are asked, by `result` (good, partly, failed).
    SourceRounds,
    /// Counter, by `tenant` and `source`: lines of a scrape that are no samples, and values of a query's
    /// answer that are no numbers.
    SourceUnread,
    /// Counter of alerts received, by `result` (unmapped, foreign), and of their targets (reported, cleared,
    /// noted, unchanged, refused; lapsed: an alert came to its end).
    Alerts,
    /// Counter of pieces of detector state, by `result` (sent, failed, taken, unreadable).
    Checkpoints,
    /// Counter of what of detector state was not gone on from, by `reason`: whole checkpoints (stale, unreadable),
    /// or parts of them that are of another build or of other indicators (series, panel).
    CheckpointsRefused,
    /// Counter: instances whose watch began with what another watch had learnt.
    WarmStarts,
    /// Counter of predictions with an outcome, by `kind` and `outcome` (came_true, did_not, inconclusive).
    Predictions,
    /// Counter of parcels between nodes about predictions, by `result` (sent, failed, taken, unreadable).
    PredictionParcels,
    /// Counter of parcels between nodes about health, by `result` (sent, failed, taken, unreadable).
    HealthParcels,
    /// Gauge by `kind`: mean square of what predictions were off by, as far as this node knows.
    PredictionBrier,
    /// Gauge by `kind`: expected calibration error of predictions, as far as this node knows.
    PredictionError,
    /// Counter of events of Kubernetes, by `result` (taken, unmapped, limit, rate, malformed, too_long).
    KubernetesEvents,
    /// Counter: lists or watches of events of Kubernetes that failed.
    KubernetesFailures,
    /// Counter of findings of detectors alone that were put to the test, by `result` (begun, proven).
    Proofs,
    /// Counter of failed probes that were put to other observers, by `result` (agreed, overruled, undecided,
    /// alone).
    ProbeQuorums,
    /// Counter of looks that this node took for others, by `result` (good, bad, no_data, refused).
    ProbeLooks,
    /// Gauge by `status`: instances watched by this node that do so.
    Health,
}

impl Metric {
    /// Its name as scraped.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ProbeDuration => "medic_probe_duration_seconds",
            Self::ScrapeDuration => "medic_scrape_duration_seconds",
            Self::ScrapeErrors => "medic_scrape_errors_total",
            Self::MalformedLines => "medic_scrape_malformed_lines_total",
            Self::RefusedSamples => "medic_scrape_refused_samples_total",
            Self::Series => "medic_series",
            Self::Instances => "medic_watched_instances",
            Self::Shards => "medic_owned_shards",
            Self::ActiveFindings => "medic_active_findings",
            Self::Reports => "medic_symptom_reports_total",
            Self::Clears => "medic_symptom_clears_total",
            Self::TaskPanics => "medic_detection_task_panics_total",
            Self::IntakeSamples => "medic_intake_samples_total",
            Self::IntakeRefused => "medic_intake_refused_samples_total",
            Self::IntakeTypeChanges => "medic_intake_type_changes_total",
            Self::IntakeFamilies => "medic_intake_families_total",
            Self::IntakeSeries => "medic_intake_series",
            Self::SourceRounds => "medic_source_rounds_total",
            Self::SourceUnread => "medic_source_unread_total",
            Self::Alerts => "medic_alerts_received_total",
            Self::Checkpoints => "medic_detector_checkpoints_total",
            Self::CheckpointsRefused => "medic_detector_checkpoints_refused_total",
            Self::WarmStarts => "medic_warm_starts_total",
            Self::Predictions => "medic_predictions_total",
            Self::PredictionParcels => "medic_prediction_parcels_total",
            Self::HealthParcels => "medic_health_parcels_total",
            Self::PredictionBrier => "medic_prediction_brier",
            Self::PredictionError => "medic_prediction_calibration_error",
            Self::KubernetesEvents => "medic_kubernetes_events_total",
            Self::KubernetesFailures => "medic_kubernetes_failures_total",
            Self::Proofs => "medic_detection_tests_total",
            Self::ProbeQuorums => "medic_probe_quorums_total",
            Self::ProbeLooks => "medic_probe_looks_total",
            Self::Health => "medic_instances",
        }
    }
}
