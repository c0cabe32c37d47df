//! An instance that is not scraped is judged by what stands beside it.

use medic_proto::fleet::v1::{HostSample, HostStatus};

use super::*;
use crate::detection::intake::kube::book::EventNews;

/// A host whose memory is full, and a log with news. Nothing else can be looked at.
struct Full;

#[async_trait]
impl Senses for Full {
    async fn probe(&self, _: &Target, _: &ProbeKind, _: Duration) -> Outcome {
        Outcome::NoData("not looked at".to_owned())
    }

    async fn scrape(&self, _: &str, timeout: Duration) -> Result<String, ScrapeError> {
        Err(ScrapeError::Timeout(timeout))
    }

    fn seen(&self, _: &Target) -> Option<Seen> {
        None
    }

    fn connected(&self, _: &str) -> bool {
        true
    }

    fn host(&self, agent: &str) -> Option<(Arc<HostStatus>, Duration)> {
        assert_eq!(agent, "host-1");
        let sample = HostSample {
            name: "medic_host_memory_used_ratio".to_owned(),
            value: 0.97,
            ..HostSample::default()
        };
        let host = HostStatus { samples: vec![sample], ..HostStatus::default() };
        Some((Arc::new(host), Duration::from_secs(1)))
    }

    fn log_news(&self, _: &Target) -> Option<String> {
        Some("`out of memory` (3 lines, first seen 5 s ago)".to_owned())
    }

    fn cluster_news(&self, _: &Target) -> EventNews {
        let warning = ("OOMKilling".to_owned(), "OOMKilling 9 s ago: it is killed".to_owned());
        EventNews { warning: Some(warning), change: Some("Killing 8 s ago".to_owned()) }
    }
}

#[tokio::test]
async fn a_full_host_is_reported_of_its_instance_with_what_is_new_in_its_log() {
    for scrape in [false, true] {
        let lab = Lab::new().await;
        let mut spec = serde_json::json!({
            "instances": [{"name": "web-1", "agent": "host-1"}],
            "indicators": [{"name": "memory", "source": {"gauge": "medic_host_memory_used_ratio"},
                "limit": "90%"}],
        });
        if scrape {
            // Scraped, and what stands beside it waits for the scrapes, which fail.
            spec["scrape"] = serde_json::json!({"url": "http://x/", "interval": "500ms"});
        }
        let name = serde_json::json!({"name": "web"});
        let spec = serde_json::json!({"kind": "Service", "spec": spec});
        lab.declare(Principal::user("root"), name, spec).await;
        let runtime = lab.watch(Arc::new(Full));
        let full = |incident: &Incident| {
            incident.symptoms.values().any(|held| {
                let symptom = &held.symptom;
                let news = "new error in its log: `out of memory` (3 lines";
                symptom.kind == "saturation"
                    && symptom.summary.contains(news)
                    && symptom.labels.contains_key("new_log_error")
                    && symptom
                        .summary
                        .ends_with("; Kubernetes warns: OOMKilling 9 s ago: it is killed")
                    && symptom.labels["kubernetes_warning"] == "OOMKilling"
                    && symptom.labels["kubernetes_change"] == "Killing 8 s ago"
            })
        };
        lab.until("its host is full", full).await;
        lab.stop.cancel();
        runtime.ended().await.unwrap();
    }
}
