//! A probe that fails from here counts by what other nodes see of it.

use super::*;
use crate::detection::{
    observe::{others::Check, quorum::Look},
    probe::Failure,
};

/// From here everything is refused; others see what the test says, and are counted.
struct CutOff {
    sees: Mutex<Vec<Look>>,
    asked: mpsc::UnboundedSender<(Check, usize)>,
}

#[async_trait]
impl Senses for CutOff {
    async fn probe(&self, _: &Target, _: &ProbeKind, _: Duration) -> Outcome {
        Outcome::Bad(Failure::Refused)
    }

    async fn elsewhere(&self, check: &Check, others: usize, _: Duration) -> Vec<Look> {
        self.asked.send((check.clone(), others)).unwrap_or_default();
        lock(&self.sees).clone()
    }

    async fn scrape(&self, _: &str, timeout: Duration) -> Result<String, ScrapeError> {
        Err(ScrapeError::Timeout(timeout))
    }

    fn seen(&self, _: &Target) -> Option<Seen> {
        None
    }

    fn connected(&self, _: &str) -> bool {
        false
    }
}

struct Watched {
    lab: Lab,
    runtime: Runtime,
    senses: Arc<CutOff>,
    asked: mpsc::UnboundedReceiver<(Check, usize)>,
}

impl Watched {
    async fn with(sees: Vec<Look>) -> Self {
        let lab = Lab::new().await;
        let newest = Command::SetClusterVersion(medic_state::CLUSTER_VERSION);
        lab.must(lab.law.entry(TraceId::default(), newest)).await;
        let probe = serde_json::json!({"name": "http", "http": "http://${host}:1/",
            "interval": "100ms", "timeout": "100ms", "observers": {"of": 3, "agree": 2}});
        lab.declare(
            Principal::user("root"),
            serde_json::json!({"name": "web"}),
            serde_json::json!({"kind": "Service",
                "spec": {"instances": [{"name": "web-1"}], "probes": [probe]}}),
        )
        .await;
        let (asked_out, asked) = mpsc::unbounded_channel();
        let senses = Arc::new(CutOff { sees: Mutex::new(sees), asked: asked_out });
        let runtime = lab.watch(senses.clone());
        Self { lab, runtime, senses, asked }
    }

    /// Waits until others were asked so often.
    async fn asked(&mut self, times: usize) -> (Check, usize) {
        let mut last = None;
        for _ in 0..times {
            let asked = tokio::time::timeout(FIVE_SECONDS, self.asked.recv()).await;
            last = asked.unwrap();
        }
        last.unwrap()
    }

    async fn end(self) {
        self.lab.stop.cancel();
        self.runtime.ended().await.unwrap();
    }
}

fn bad() -> Look {
    Look::Bad("connection refused".to_owned())
}

#[tokio::test]
async fn what_this_node_alone_cannot_reach_is_no_finding_and_what_nobody_reaches_is_one() {
    let mut watched = Watched::with(vec![Look::Good, Look::Good]).await;
    let (check, others) = watched.asked(10).await;
    assert_eq!((check.probe.as_str(), others), ("http", 2));
    let index = watched.lab.law.read(|state| {
        let mut services = state.manifests.iter().filter(|(key, _)| key.name == "web");
        services.next().unwrap().1.index
    });
    assert_eq!((check.target.instance.as_str(), check.index), ("web-1", index));
    assert!(watched.lab.law.read(|state| state.incidents.is_empty()), "two others see it well");

    *lock(&watched.senses.sees) = vec![bad(), Look::Good];
    let incident = watched.lab.until("it is down", down_and(false)).await;
    let summary = &incident.symptoms.values().next().unwrap().symptom.summary;
    assert!(summary.contains("connection refused"), "{summary}");
    assert!(summary.contains("probe http: 2 of 3 observers saw it fail"), "{summary}");

    // Still cut off: others say that it is back.
    *lock(&watched.senses.sees) = vec![Look::Good, Look::Good];
    watched.lab.until("it is back", down_and(true)).await;
    watched.end().await;
}

#[tokio::test]
async fn where_nobody_else_can_look_this_nodes_word_counts() {
    let watched = Watched::with(Vec::new()).await;
    let incident = watched.lab.until("it is down", down_and(false)).await;
    let summary = &incident.symptoms.values().next().unwrap().symptom.summary;
    assert!(summary.contains("probe http: only 1 of 3 observers could look"), "{summary}");
    watched.end().await;
}

#[tokio::test]
async fn what_hangs_on_those_that_cannot_look_is_no_finding() {
    let nothing = Look::Nothing("no answer".to_owned());
    let mut watched = Watched::with(vec![Look::Good, nothing]).await;
    watched.asked(10).await;
    assert!(watched.lab.law.read(|state| state.incidents.is_empty()));
    let shared = watched.runtime.shared.clone();
    let entity = lock(&shared.entities).values().map(|one| one.entity.clone()).next().unwrap();
    let last = format!("{:?}", lock(&entity));
    assert!(last.contains("and 2 must agree"), "{last}");
    watched.end().await;
}
