//! A plan that is done and verified between two scrapes is not begun anew because of the figures before it.

use super::*;

/// Seconds without a scrape, in which all else is well.
fn pass(bench: &mut Bench, seconds: u64) {
    for _ in 0..seconds {
        bench.tick();
        bench.process(ProcessState::Running);
        bench.probe(&Outcome::Good);
        assert_eq!(bench.evaluate(), None);
    }
}

/// Errors are told, treated within an interval, and closed with that.
fn treated() -> Bench {
    let mut bench = Bench::settled();
    for _ in 0..3 {
        pass(&mut bench, 4);
        bench.tick();
        bench.scrape(0.42, 0.05, 20.0);
        if bench.evaluate().is_some() {
            break;
        }
    }
    assert_eq!(bench.entity.active_count(), 1);
    bench.circumstances.treated = true;
    pass(&mut bench, 2);
    assert_eq!(bench.entity.look_again(), Some(Millis(2_000)), "what it left is looked at soon");
    bench.circumstances.treated = false;
    bench.circumstances.unheld.insert(Kind::Errors);
    bench
}

#[test]
fn what_a_verified_plan_has_ended_is_not_reopened_by_figures_from_before_it() {
    let mut bench = treated();
    pass(&mut bench, 4);
    for good in 1..=3 {
        bench.tick();
        bench.scrape(0.0, 0.05, 20.0);
        let change = bench.evaluate();
        assert_eq!(matches!(change, Some(Change::Clear(Kind::Errors, _))), good == 3, "{change:?}");
        let again = bench.entity.look_again();
        assert_eq!(again.is_some(), good < 3, "that it is over is seen soon");
    }
}

#[test]
fn what_is_still_wrong_after_a_treatment_is_told_once_figures_are_of_after_it_alone() {
    let mut bench = treated();
    pass(&mut bench, 2);
    bench.tick();
    // A share of failures that reaches back into the treatment.
    bench.scrape(0.42, 0.05, 20.0);
    assert_eq!(bench.evaluate(), None);
    pass(&mut bench, 1);
    bench.tick();
    bench.scrape(0.42, 0.05, 20.0);
    assert_eq!(reported(bench.evaluate()).kind, "errors");
}

#[test]
fn who_gives_no_figures_after_a_treatment_is_not_asked_soon_for_ever() {
    let mut bench = treated();
    let soon = (0..100).take_while(|_| {
        bench.tick();
        bench.entity.on_scrape(Err("scrape timed out".to_owned()), bench.now);
        bench.entity.look_again().is_some()
    });
    assert!((4..16).contains(&soon.count()));
}

/// While it is treated nothing is asked of it, which is no sign that nobody asks.
#[test]
fn what_falls_while_it_is_treated_is_no_new_level() {
    let expected_after = |during: f64| {
        let mut bench = Bench::settled();
        bench.circumstances.treated = true;
        bench.evaluate();
        for _ in 0..60 {
            bench.tick();
            bench.process(ProcessState::Running);
            bench.scrape(0.0, during, 20.0);
            bench.evaluate();
        }
        bench.entity.series["latency_p99"].last.as_ref().map(|reading| reading.judged.expected)
    };
    assert_eq!(expected_after(0.0), expected_after(0.05));
}

/// What a treatment does teaches nothing: errors after it are as odd as where the treatment did none.
#[test]
fn errors_of_a_treatment_are_no_examples_of_the_usual() {
    let reported_after = |errors_during: f64| {
        let mut bench = Bench::settled();
        bench.circumstances.treated = true;
        for _ in 0..60 {
            bench.tick();
            bench.process(ProcessState::Running);
            bench.probe(&Outcome::Good);
            bench.scrape(errors_during, 0.05, 20.0);
            assert_eq!(bench.evaluate(), None);
        }
        bench.circumstances.treated = false;
        for _ in 0..10 {
            assert_eq!(bench.well(), None);
        }
        (1..=10).find_map(|seconds| {
            bench.tick();
            // Below the limit, so that levels alone speak of it.
            bench.scrape(0.04, 0.05, 20.0);
            bench.evaluate().map(|change| (seconds, reported(Some(change)).p_value))
        })
    };
    let (quiet, loud) = (reported_after(0.0), reported_after(0.04));
    assert!(quiet.is_some());
    assert_eq!(loud, quiet);
}
