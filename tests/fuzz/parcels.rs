//! More of the parsers that are fuzzed: what nodes gossip to each other. Whatever one takes, it goes on
//! answering by, within the bounds of what is shown.

use std::sync::{Arc, LazyLock};

use medic_api::control::{Foresight as _, HealthView as _};
use medic_node::detection::{
    Foresight, HealthBook,
    foresight::outcomes::Outcomes,
    health::{Monitor, Sign, Word, of_instance, of_services},
    predict::{
        forecast::{Forecast, ForecastKind, When},
        record::{Outcome, Scored},
    },
    runtime::{Foreseen, Health, Predictions},
    share::Tells,
};
use medic_raft::{Env, Ledger as _, LocalLedger};
use medic_state::{
    BootId, Epoch, NodeId, ShardId, State,
    state::{SHARDS, ShardState},
    symptom::{Severity, Target},
};

use super::Parser;

const OTHER: NodeId = NodeId(2);

/// A node by whose law another owns every shard.
fn node(me: NodeId) -> Arc<LocalLedger> {
    let ledger = LocalLedger::new(me, BootId(me.0), Env::system());
    let mut state = super::state();
    let owned = ShardState { owner: Some(OTHER), epoch: Epoch(3), ..ShardState::default() };
    state.shards.extend((0..SHARDS).map(|shard| (ShardId(shard), owned)));
    *ledger.state().write().unwrap() = state;
    ledger
}

static HERE: LazyLock<Arc<LocalLedger>> = LazyLock::new(|| node(NodeId(1)));

fn target(instance: &str) -> Target {
    let (tenant, service) = ("default".to_owned(), "web".to_owned());
    Target { tenant, service, instance: instance.to_owned() }
}

fn foreseen() -> Predictions {
    let when = When { seconds: 600.0, earliest: 500.0, latest: 800.0 };
    let predictions = ["web-1", "web-2"].map(|instance| {
        let Target { tenant, service, instance } = target(instance);
        let shard = State::shard_of(&target(&instance));
        let factors = vec!["it rises".to_owned()];
        let about = (ForecastKind::Capacity, "memory");
        let forecast = Forecast::new(about, 0.8, 0.7, when, factors).unwrap();
        Foreseen { tenant, service, instance, shard, forecast }
    });
    Predictions { predictions: predictions.into(), scores: Vec::new() }
}

fn foresight(ledger: &Arc<LocalLedger>) -> Foresight {
    let mut outcomes = Outcomes::default();
    for (probability, outcome) in [(0.8, Outcome::CameTrue), (0.3, Outcome::DidNot)] {
        let scored = Scored { kind: ForecastKind::Failure, probability, outcome, on_time: true };
        outcomes.note((ShardId(3), Epoch(1)), "default", scored);
    }
    Foresight::new(ledger.clone(), Arc::new(foreseen), Arc::new(outcomes.into()))
}

/// What another node foresees, and how its predictions turned out.
pub(crate) fn predictions() -> Parser {
    Parser {
        name: "predictions",
        seeds: || foresight(&node(OTHER)).to_tell(0),
        run: |bytes| {
            let foresight = foresight(&HERE);
            let before = foresight.scores(&|_| true);
            if let Err(refused) = foresight.take(OTHER, bytes) {
                assert!(!refused.reason.is_empty());
                assert_eq!(foresight.scores(&|_| true), before, "nothing of it is taken");
                return false;
            }
            for one in foresight.foreseen().predictions {
                let likely = 0.0..=1.0;
                assert!(likely.contains(&one.probability) && likely.contains(&one.confidence));
            }
            for score in foresight.scores(&|_| true) {
                let figures = [score.brier, score.calibration_error, score.coverage];
                assert!(figures.iter().all(|figure| figure.is_finite()), "{figures:?}");
            }
            // It goes on with what it was told.
            for body in foresight.to_tell(0) {
                foresight.take(NodeId(3), &body).expect("what is told can be heard");
            }
            true
        },
    }
}

fn healths() -> Health {
    let sign = |word| Sign { monitor: Monitor::Application, source: "probe.http".to_owned(), word };
    let bad = sign(Word::Bad(Severity::Critical, 2, "no answer".to_owned()));
    let all = [("web-1", sign(Word::Good)), ("web-2", bad)].map(|(instance, sign)| {
        let health = of_instance(instance, &[sign], false);
        ("default".to_owned(), "web".to_owned(), health)
    });
    Health { services: of_services(all.into()) }
}

fn book(ledger: &Arc<LocalLedger>) -> HealthBook {
    HealthBook::new(ledger.clone(), Arc::new(healths))
}

/// How instances do that another node watches.
pub(crate) fn healths_told() -> Parser {
    Parser {
        name: "healths_told",
        seeds: || book(&node(OTHER)).to_tell(0),
        run: |bytes| {
            let book = book(&HERE);
            if let Err(refused) = book.take(OTHER, bytes) {
                assert!(!refused.reason.is_empty());
                return false;
            }
            let healths = book.healths();
            // All that is declared is shown, and nothing else.
            assert_eq!((healths.instances.len(), healths.services.len()), (2, 1));
            for one in healths.instances {
                assert!(one.score.is_none_or(|score| score <= 100));
            }
            true
        },
    }
}
