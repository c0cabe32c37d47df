//! What was missed once is seen the next time.

use medic_state::{
    symptom::{ALTHOUGH_USUAL, LIMIT},
    weight::{
        Detector::{Cusum, Level},
        MOST, STEP,
    },
};

use super::*;

/// Kind of what is reported within a minute of such scrapes.
fn kind_of(weights: &[(&str, medic_state::weight::Detector, i32)], errors: f64) -> Option<String> {
    let mut bench = Bench::settled();
    bench.circumstances.trust = trust::tests::trust(weights);
    reported_within(&mut bench, |bench| bench.scrape(errors, 0.05, 20.0))
}

fn reported_within(bench: &mut Bench, scrape: impl Fn(&mut Bench)) -> Option<String> {
    (0..60).find_map(|_| {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&Outcome::Good);
        scrape(bench);
        bench.evaluate().map(|change| reported(Some(change)).kind)
    })
}

#[test]
fn failures_too_few_to_matter_do_matter_once_they_were_missed() {
    // 3.6 deviations, and below two per cent.
    let failing = 0.018;
    assert_eq!(kind_of(&[], failing), None);
    assert_eq!(kind_of(&[("latency_p99", Level, MOST)], failing), None, "of another indicator");
    let lesson = [("error_rate", Level, 2 * STEP), ("error_rate", Cusum, 2 * STEP)];
    assert_eq!(kind_of(&lesson, failing).as_deref(), Some("errors"));
    assert_eq!(kind_of(&[("error_rate", Level, MOST)], 0.004), None, "what is usual is no failure");
}

#[test]
fn traffic_that_vanishes_opens_an_incident_once_that_was_missed() {
    let traffic = |value: f64| {
        move |bench: &mut Bench| {
            let values = BTreeMap::from([("traffic".to_owned(), value), ("queue".to_owned(), 3.0)]);
            bench.entity.on_scrape(Ok(&Values { values, ..Values::default() }), bench.now);
        }
    };
    let vanishes = |weights: &[(&str, medic_state::weight::Detector, i32)]| {
        let service = r#"{"probes":[{"name":"http","http":"http://x/"},{"name":"tcp","tcp":"x:1"}],
            "indicators":[{"name":"traffic","source":{"gauge":"t"},"upwardOnly":false},
                          {"name":"queue","source":{"gauge":"q"}}]}"#;
        let mut bench = Bench::with_spec(service, r#"{"name":"web-1","agent":"a"}"#);
        assert_eq!(reported_within(&mut bench, traffic(100.0)), None);
        bench.circumstances.trust = trust::tests::trust(weights);
        reported_within(&mut bench, traffic(0.0))
    };
    assert_eq!(vanishes(&[]), None, "nobody can tell what it is good for");
    assert_eq!(vanishes(&[("traffic", Level, STEP)]).as_deref(), Some("anomaly"));
}

#[test]
fn a_limit_tells_whether_its_detectors_were_silent_or_are_hidden_behind_it() {
    let expected = |before: Option<f64>, crossed: f64| {
        let mut bench = Bench::new();
        if let Some(usual) = before {
            assert_eq!(reported_over(&mut bench, 60, usual), None);
        }
        let symptom = reported_over(&mut bench, 5, crossed).unwrap();
        let signal = symptom.signals.into_iter().find(|signal| signal.detector == LIMIT).unwrap();
        assert_eq!(signal.name, "metric.memory");
        signal.expected
    };
    let limit = (128 * 1_048_576).to_string();
    let usual = format!("<= {limit}{ALTHOUGH_USUAL}");
    assert_eq!(expected(Some(127.0), 129.0), usual, "it is hardly more than ever");
    assert_eq!(expected(Some(20.0), 200.0), format!("<= {limit}"), "they find it odd as well");
    assert_eq!(expected(None, 200.0), format!("<= {limit}"), "they know nothing yet");
}

/// What is reported within so many seconds of that much memory, in MiB.
fn reported_over(bench: &mut Bench, seconds: u64, memory: f64) -> Option<Symptom> {
    (0..seconds).find_map(|_| {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&Outcome::Good);
        bench.scrape(0.0, 0.05, memory);
        bench.evaluate().map(|change| reported(Some(change)))
    })
}
