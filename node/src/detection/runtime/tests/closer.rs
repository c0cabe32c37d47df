//! What fills up at a long interval is told soon, through the whole watch. Time is the test's.

use super::*;
use crate::detection::lord::LEVEL;

/// Well for so long: detectors are warm, and the process is past its first seconds.
const WELL: Duration = Duration::from_secs(300);
const MIB: f64 = 1_048_576.0;

/// Memory that leaks from some time on, 4 MiB a second, beside metrics that stay as they are.
struct Leaking {
    begun: Instant,
    scrapes: AtomicU32,
}

impl Leaking {
    fn leaks_for(&self) -> Duration {
        self.begun.elapsed().saturating_sub(WELL)
    }
}

#[async_trait]
impl Senses for Leaking {
    async fn probe(&self, _: &Target, _: &ProbeKind, _: Duration) -> Outcome {
        Outcome::Good
    }

    async fn scrape(&self, _: &str, _: Duration) -> Result<String, ScrapeError> {
        self.scrapes.fetch_add(1, Ordering::Relaxed);
        let noise = (self.begun.elapsed().as_secs_f64() * 7.3).sin();
        let memory = 20.0 + 0.2 * noise + 4.0 * self.leaks_for().as_secs_f64();
        let mut body = format!("mem {}\n", memory * MIB);
        for gauge in 0..8 {
            body.push_str(&format!("gauge{gauge} {}\n", 10.0 + noise));
        }
        Ok(body)
    }

    fn seen(&self, _: &Target) -> Option<Seen> {
        None
    }

    fn connected(&self, _: &str) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_leak_is_told_within_fifteen_seconds_though_scrapes_are_five_apart() {
    let lab = Lab::new().await;
    let mut indicators: Vec<_> = (0..8)
        .map(|n| serde_json::json!({"name": format!("gauge{n}"), "source": {"gauge": format!("gauge{n}")}}))
        .collect();
    indicators
        .push(serde_json::json!({"name": "memory", "source": {"gauge": "mem"}, "limit": "160MiB"}));
    lab.declare(
        Principal::user("root"),
        serde_json::json!({"name": "web"}),
        serde_json::json!({"kind": "Service", "spec": {
            "instances": [{"name": "web-1"}],
            "probes": [{"name": "http", "http": "http://x/", "interval": "5s"}],
            "scrape": {"url": "http://x/", "interval": "5s"},
            "indicators": indicators,
        }}),
    )
    .await;
    let leaking = Arc::new(Leaking { begun: Instant::now(), scrapes: AtomicU32::new(0) });
    let runtime = lab.watch(leaking.clone());
    // Its shard has proposed things before that were none, so that more proof is asked of it.
    let shard = State::shard_of(&crate::topology::target("default", "web", "web-1"));
    let wall = lab.law.env().clock.now();
    for _ in 0..20 {
        lock(&runtime.shared.streams).entry(shard).or_default().begin(LEVEL, wall);
    }
    let mut applied = lab.law.applied();
    let told = loop {
        applied.changed().await.unwrap();
        let symptom = lab.law.read(|state| {
            let mut all = state.incidents.values().flat_map(|incident| incident.symptoms.values());
            all.next().map(|held| held.symptom.clone())
        });
        if let Some(symptom) = symptom {
            break symptom;
        }
    };
    let after = leaking.leaks_for();
    assert_eq!(told.kind, "saturation-predicted", "{told:?}");
    assert!(after > Duration::ZERO && after <= Duration::from_secs(15), "told after {after:?}");
    // It is looked at closely while it leaks, and only then.
    let scrapes = leaking.scrapes.load(Ordering::Relaxed);
    assert!((60 + 8..60 + 24).contains(&scrapes), "{scrapes} scrapes");
    lab.stop.cancel();
    runtime.ended().await.unwrap();
}
