//! What is told, when, and what a certificate lives through.

#![allow(clippy::unwrap_used)]

use medic_proto::fleet::v1::{InstanceStatus, ProcessState};
use medic_state::{Epoch, ShardId, Timestamp, manifest::ServiceSpec};

use super::*;
use crate::{
    detection::{
        entity::{Circumstances, Entity},
        indicator::Values,
        predict::{
            forecast::When,
            record::{Outcome, Record, Scored},
        },
    },
    world::Seen,
};

const ALL: Opens = Opens { failure: true, performance: true, security_risk: true };

const LEAD: Millis = Millis::from_secs(600);

fn new(opens: Opens) -> Foretelling {
    Foretelling::new((opens, LEAD), 0)
}

fn at(seconds: u64) -> Now {
    Now { mono_ms: seconds * 1_000, ..Now::default() }
}

fn target() -> Target {
    let [tenant, service, instance] = ["default", "web", "web-1"].map(str::to_owned);
    Target { tenant, service, instance }
}

fn forecast(kind: ForecastKind, probability: f64, confidence: f64) -> Forecast {
    let when = When { seconds: 7_200.0, earliest: 3_600.0, latest: 9_000.0 };
    let factors = vec!["it failed 6 times in 1.0 h".to_owned()];
    Forecast::new((kind, "process"), probability, confidence, when, factors).unwrap()
}

/// What is said of one forecast; the law takes everything in.
fn hear(
    telling: &mut Foretelling,
    held: &mut BTreeSet<Topic>,
    forecasts: &[Forecast],
    now: Now,
) -> Option<Word> {
    let word = telling.next((&target(), "shard-1"), (forecasts, &[]), held, now);
    match &word {
        Some(Word::Foreseen(topic, _)) => {
            held.insert(*topic);
            telling.told(*topic, now);
        }
        Some(Word::Past(topic, _)) => {
            held.remove(topic);
            telling.cleared(*topic);
        }
        None => {}
    }
    word
}

#[test]
fn what_is_likely_and_well_founded_opens_is_repeated_and_cleared() {
    let (mut telling, mut held) = (new(ALL), BTreeSet::new());
    let failure = |p, c| [forecast(ForecastKind::Failure, p, c)];
    assert_eq!(hear(&mut telling, &mut held, &failure(0.7, 0.9), at(1)), None);
    assert_eq!(hear(&mut telling, &mut held, &failure(0.9, 0.3), at(2)), None);
    let first = hear(&mut telling, &mut held, &failure(0.9, 0.6), at(3));
    let Some(Word::Foreseen(Topic::Failure, symptom)) = first else { panic!("{first:?}") };
    assert!(symptom.predicted() && is_ours(&symptom.kind));
    assert_eq!(symptom.time_to_event, Some(Millis(7_200_000)));
    let expected = "it will fail again in 2.0 h (90 %): it failed 6 times in 1.0 h";
    assert_eq!(symptom.summary, expected);
    assert!(fingerprints(&target()).contains(&(Topic::Failure, symptom.fingerprint())));
    // What stands is kept at less, and repeated now and then.
    assert_eq!(hear(&mut telling, &mut held, &failure(0.6, 0.3), at(30)), None);
    assert!(hear(&mut telling, &mut held, &failure(0.6, 0.3), at(63)).is_some());
    // Then it is gone for long enough.
    assert_eq!(hear(&mut telling, &mut held, &failure(0.4, 0.9), at(1_262)), None);
    let past = Word::Past(Topic::Failure, symptom.fingerprint());
    assert_eq!(hear(&mut telling, &mut held, &[], at(1_263)), Some(past));
    assert_eq!(hear(&mut telling, &mut held, &[], at(9_999)), None);
}

#[test]
fn a_new_owner_leaves_what_is_held_alone_until_it_could_know_better() {
    let mut held = BTreeSet::from([Topic::Certificate]);
    let mut telling = Foretelling::new((ALL, LEAD), 50_000);
    assert_eq!(hear(&mut telling, &mut held, &[], at(51)), None);
    let still = [forecast(ForecastKind::SecurityRisk, 0.9, 1.0)];
    assert!(hear(&mut telling, &mut held, &still, at(60)).is_some());
    assert_eq!(hear(&mut telling, &mut held, &[], at(179)), None);
    assert!(matches!(
        hear(&mut telling, &mut held, &[], at(180)),
        Some(Word::Past(Topic::Certificate, _))
    ));
}

#[test]
fn only_what_is_configured_opens_and_limits_with_a_detector_never_do_here() {
    let mut telling = new(Opens::default());
    let likely = ForecastKind::ALL.map(|kind| forecast(kind, 0.95, 1.0));
    let likely: Vec<Forecast> = (likely.into_iter())
        .map(|one| match one.kind {
            ForecastKind::Capacity => one.opening(Opening::Elsewhere),
            _ => one,
        })
        .collect();
    let mut held = BTreeSet::new();
    while hear(&mut telling, &mut held, &likely, at(1)).is_some() {}
    assert_eq!(held, BTreeSet::from([Topic::Certificate]));
    let mut telling = new(ALL);
    while hear(&mut telling, &mut held, &likely, at(1)).is_some() {}
    assert_eq!(held, BTreeSet::from([Topic::Failure, Topic::Budget, Topic::Certificate]));
    let nothing = Opens { security_risk: false, ..Opens::default() };
    let mut quiet = new(nothing);
    while hear(&mut quiet, &mut held, &likely, at(1)).is_some() {}
    assert!(held.is_empty(), "what was opened by another configuration is cleared");
    assert!(telling.due(at(100)) && !telling.due(at(104)) && telling.due(at(105)));
}

#[test]
fn a_forecast_is_told_as_what_whoever_shows_it_takes_it_for() {
    use ForecastKind::{Capacity, Failure, Performance, SecurityRisk};
    use Opening::{Elsewhere, WithinHorizon, WithinLead};
    for (kind, opening, symptom) in [
        (Failure, WithinHorizon, "failure-predicted"),
        (Capacity, WithinLead, "capacity-predicted"),
        (Performance, WithinLead, "latency-predicted"),
        (Performance, WithinHorizon, "budget-predicted"),
        (SecurityRisk, WithinHorizon, "security-predicted"),
        (Capacity, Elsewhere, "saturation-predicted"),
    ] {
        assert_eq!(symptom_of(kind, opening), symptom);
        let one = forecast(kind, 0.95, 1.0).opening(opening);
        let near = Forecast { seconds: 300.0, ..one };
        let told = match hear(&mut new(ALL), &mut BTreeSet::new(), &[near], at(1)) {
            Some(Word::Foreseen(_, told)) => Some(told.kind),
            Some(Word::Past(..)) | None => None,
        };
        // The last is told by the entity, whose detectors follow the limit.
        assert_eq!(told.as_deref(), Some(symptom).filter(|_| opening != Elsewhere));
    }
}

#[test]
fn what_will_run_out_is_told_within_the_lead() {
    let far = forecast(ForecastKind::Capacity, 0.95, 1.0).opening(Opening::WithinLead);
    let (mut telling, mut held) = (new(Opens::default()), BTreeSet::new());
    assert_eq!(hear(&mut telling, &mut held, std::slice::from_ref(&far), at(1)), None);
    let near = Forecast { seconds: 300.0, ..far.clone() };
    let Some(Word::Foreseen(Topic::Capacity, symptom)) =
        hear(&mut telling, &mut held, &[near], at(2))
    else {
        panic!("not told")
    };
    assert_eq!(symptom.kind, "capacity-predicted");
    assert_eq!(symptom.labels["indicator"], "process");
    assert!(hear(&mut telling, &mut held, &[far], at(70)).is_some(), "what was told stands");
}

#[test]
fn predictions_of_limits_carry_what_the_record_makes_of_them() {
    let mut one = forecast(ForecastKind::Capacity, 0.99, 0.9);
    one.subject = "memory".to_owned();
    let mut symptom = of_forecast(&one, Topic::Capacity, (&target(), "shard-1"), at(1));
    one.probability = 0.7;
    relabel(&mut symptom, std::slice::from_ref(&one));
    assert_eq!(symptom.labels["probability"], "0.70");
    assert_eq!(doubted(std::slice::from_ref(&one)), BTreeSet::from(["memory".to_owned()]));
    one.probability = 0.9;
    assert_eq!(doubted(&[one]), BTreeSet::new());
}

/// A certificate that is looked at twice a day, by an entity whose outcomes go into a record.
struct Tls {
    entity: Entity,
    record: Record,
    telling: Foretelling,
    held: BTreeSet<Topic>,
    now: Now,
    said: Vec<String>,
}

const DAY_S: u64 = 86_400;
const EPOCH_S: u64 = 1_700_000_000;

impl Tls {
    fn new(gauge: &str) -> Self {
        let service = serde_json::json!({
            "indicators": [{"name": "cert_expiry", "source": {"gauge": gauge}}],
        });
        let service: ServiceSpec = serde_json::from_value(service).unwrap();
        let instance = serde_json::from_value(serde_json::json!({"name": "web-1"})).unwrap();
        let now = Now { mono_ms: 0, wall: Timestamp(EPOCH_S * 1_000) };
        let lead = Millis::from_secs(600);
        let entity = Entity::new(target(), "shard-1".to_owned(), &service, &instance, lead, now);
        let (record, telling, held) = (Record::default(), new(Opens::default()), BTreeSet::new());
        Self { entity, record, telling, held, now, said: Vec::new() }
    }

    /// Half a day goes by; then the gauge says this.
    fn half_a_day(&mut self, value: impl Fn(u64) -> f64) {
        self.now.mono_ms += DAY_S * 500;
        self.now.wall = self.now.wall.plus(Millis(DAY_S * 500));
        let value = value(self.now.wall.0 / 1_000);
        let values = BTreeMap::from([("cert_expiry".to_owned(), value)]);
        let values = Values { values, ..Values::default() };
        self.entity.on_scrape(Ok(&values), self.now);
        for scored in self.entity.take_scored(&Circumstances::default(), self.now) {
            self.record.note(scored);
        }
        let mut forecasts = self.entity.forecasts(self.now);
        for one in &mut forecasts {
            one.probability = self.record.calibrated(one.kind, one.probability);
        }
        let facts = self.entity.facts(self.now);
        let seen = (forecasts.as_slice(), facts.as_slice());
        while let Some(word) = self.telling.next((&target(), "s"), seen, &self.held, self.now) {
            let (topic, fresh) = match &word {
                Word::Foreseen(topic, _) => (*topic, self.held.insert(*topic)),
                Word::Past(topic, _) => (*topic, false),
            };
            match word {
                Word::Foreseen(..) => self.telling.told(topic, self.now),
                Word::Past(..) => {
                    self.held.remove(&topic);
                    self.telling.cleared(topic);
                    self.said.push(format!("past {}", topic.symptom()));
                }
            }
            if fresh {
                self.said.push(topic.symptom().to_owned());
            }
        }
    }

    /// Lives through a certificate of 90 days that is renewed so many days before its end.
    fn renewed(&mut self, days_before: u64, form: impl Fn(u64, u64) -> f64) {
        let end = self.now.wall.0 / 1_000 + 90 * DAY_S;
        (0..2 * (90 - days_before)).for_each(|_| self.half_a_day(|now| form(end, now)));
    }
}

#[test]
fn a_certificate_that_is_renewed_in_time_is_foretold_the_next_time_too_and_its_end_is_found() {
    /// What a gauge shows of an end at a time.
    type Form = fn(u64, u64) -> f64;
    let forms: [(&str, Form); 2] = [
        ("probe_ssl_earliest_cert_expiry", |end, _| end as f64),
        ("medic_certificate_seconds_left", |end, now| end as f64 - now as f64),
    ];
    for (gauge, form) in forms {
        let mut tls = Tls::new(gauge);
        let cycle = ["security-predicted", "past security-predicted"];
        for times in 1..=5 {
            tls.renewed(5, form);
            tls.half_a_day(|now| form(now + 90 * DAY_S, now));
            assert_eq!(tls.said.len(), 2 * times, "{gauge}: {:?}", tls.said);
            assert_eq!(tls.said[2 * times - 2..], cycle);
        }
        let score = tls.record.scores().remove(0);
        assert_eq!((score.count, score.inconclusive), (0, 5), "{gauge}");
        assert_eq!(tls.record.calibrated(ForecastKind::SecurityRisk, 0.9), 0.9);
        // The last one is forgotten. It came true, and is told until there is another.
        tls.said.clear();
        let end = tls.now.wall.0 / 1_000 + 90 * DAY_S;
        (0..182).for_each(|_| tls.half_a_day(|now| form(end, now)));
        let expected = ["security-predicted", "certificate-expired", "past security-predicted"];
        assert_eq!(tls.said, expected, "{gauge}");
        let score = tls.record.scores().remove(0);
        assert_eq!((score.count, score.came_true), (1, 1), "{gauge}");
        assert!(tls.record.calibrated(ForecastKind::SecurityRisk, 0.9) > 0.9);
        tls.half_a_day(|now| form(now + 90 * DAY_S, now));
        assert_eq!(tls.said.last().unwrap(), "past certificate-expired");
    }
}

#[test]
fn the_outcomes_of_one_tenant_do_not_silence_another() {
    let shared = crate::detection::runtime::tests::shared();
    let (kind, outcome) = (ForecastKind::Failure, Outcome::DidNot);
    let scored = Scored { kind, probability: 0.9, outcome, on_time: false };
    shared.note_scored((ShardId(1), Epoch(1)), "blue", vec![scored; 50]);
    let of = |tenant: &str| shared.corrected(tenant, vec![forecast(kind, 0.9, 1.0)])[0].probability;
    assert!(of("blue") < 0.2);
    assert_eq!(of("red"), 0.9);
}

#[test]
fn a_leak_known_from_former_lives_opens_before_the_limit() {
    let service = serde_json::json!({
        "indicators": [{"name": "memory", "source": {"gauge": "m"}, "limit": "128MiB"}],
    });
    let service: ServiceSpec = serde_json::from_value(service).unwrap();
    let instance = serde_json::json!({"name": "web-1", "agent": "a"});
    let instance = serde_json::from_value(instance).unwrap();
    let mut now = Now { mono_ms: 0, wall: Timestamp(EPOCH_S * 1_000) };
    let mut entity = Entity::new(target(), "shard-1".to_owned(), &service, &instance, LEAD, now);
    let (mut telling, held) = (new(Opens::default()), BTreeSet::new());
    let mut told = Vec::new();
    // Three lives of an hour, and a fourth that nobody ends; by its saw no trend of one life is told.
    for life in 0..4u64 {
        let status = InstanceStatus {
            state: ProcessState::Running.into(),
            started_unix_ms: life + 1,
            ..InstanceStatus::default()
        };
        let seen = Seen { status, age: std::time::Duration::ZERO };
        for step in 0..if life < 3 { 720 } else { 950 } {
            now.mono_ms += 5_000;
            now.wall = now.wall.plus(Millis(5_000));
            entity.on_process(Some(&seen), now);
            let saw = if step % 2 == 0 { 8.0 } else { -8.0 };
            let mib = 20.0 + f64::from(step) / 9.0 + saw;
            let values = BTreeMap::from([("memory".to_owned(), mib * 1_048_576.0)]);
            entity.on_scrape(Ok(&Values { values, ..Values::default() }), now);
            let forecasts = entity.forecasts(now);
            let word = telling.next((&target(), "s"), (&forecasts, &[]), &held, now);
            if let Some(Word::Foreseen(topic, symptom)) = word {
                telling.told(topic, now);
                told.push((life, mib, symptom));
            }
        }
    }
    let (life, mib, symptom) = told.first().unwrap();
    assert_eq!((*life, symptom.kind.as_str()), (3, "capacity-predicted"));
    assert!((100.0..128.0).contains(mib), "{mib}");
    assert!(symptom.predicted() && symptom.labels["indicator"] == "memory");
}
