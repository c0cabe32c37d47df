//! What detectors have missed, and everything that says that they have not.

use super::*;

#[test]
fn those_who_were_silent_when_a_limit_was_crossed_have_missed_it() {
    let mut lab = lab();
    let id = treat(&mut lab, &[crossed(true), crossed(true)]);
    assert_eq!(weights(&lab), missed_by(STEP_BY_OUTCOME));
    let judged = lab.incident(id).judged.clone().unwrap();
    assert_eq!((judged.opinion, judged.by.as_str()), (Opinion::Missed, LAW));
    assert_eq!(judged.families, ["latency"]);
    let said = |line: &&crate::incident::TimelineItem| line.text.contains("have been missed");
    let line = lab.incident(id).timeline.iter().find(said).unwrap();
    assert!(line.text.contains("cusum of latency +50"), "{}", line.text);
    assert!(lab.state.weights.all.values().all(|one| (one.by.as_str(), one.version) == (LAW, 1)));
    // What a human says of it replaces both.
    lab.root(judge(id, Opinion::Genuine)).unwrap();
    assert_eq!(weights(&lab), missed_by(0));
    // Reopened and treated again, it teaches nothing more.
    lab.root(Command::ReopenIncident(Lab::note(id))).unwrap();
    let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
    verify(&mut lab, plan, VerdictValue::Passed);
    assert_eq!(weights(&lab), missed_by(0));
}

#[test]
fn whoever_spoke_or_may_have_spoken_has_missed_nothing() {
    let load = || about("latency", vec![limit(true), odd("load", "level")]);
    let of_another = || about("errors", vec![odd("errors", "cusum"), odd("latency", "trend")]);
    let calm = || about("errors", vec![odd("errors", "cusum")]);
    let probed = || about("errors", vec![odd("http", "probe")]);
    for (reports, missed, why) in [
        (vec![load()], true, "one of another indicator spoke"),
        (vec![probed(), crossed(true)], true, "it opened on another fact"),
        (vec![crossed(false)], false, "the limit's vote may hide another"),
        (vec![crossed(true), crossed(false)], false, "it may have spoken later"),
        (vec![level(), crossed(true)], false, "it spoke before the limit was crossed"),
        (vec![crossed(true), level()], false, "it spoke after"),
        (vec![crossed(true), of_another()], false, "it spoke for another symptom"),
        (vec![calm(), crossed(true)], false, "it opened on a detector's word"),
        (vec![probed()], false, "no limit was crossed"),
        (vec![about("latency", vec![odd("latency", LIMIT); 16])], false, "more may have spoken"),
    ] {
        let mut lab = lab();
        treat(&mut lab, &reports);
        assert_eq!(weights(&lab) == missed_by(STEP_BY_OUTCOME), missed, "{why}");
        assert!(missed || weights(&lab).is_empty(), "{why}");
    }
    let mut lab = self::lab();
    let id = lab.report_with(crossed(true));
    let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
    verify(&mut lab, plan, VerdictValue::Failed);
    assert_eq!(weights(&lab), [], "nothing was verified");
    let mut lab = self::lab();
    let id = lab.report_with(crossed(true));
    lab.root(judge(id, Opinion::Genuine)).unwrap();
    let plan = lab.adopt(id, vec![step(&target("api", "a"))]);
    verify(&mut lab, plan, VerdictValue::Passed);
    assert_eq!(weights(&lab), [], "a human has spoken");
}

#[test]
fn who_called_it_is_confirmed_beside_who_missed_it_and_both_can_be_taken_back() {
    let mut lab = lab();
    let id = lab.report_with(about("latency", vec![odd("load", "level")]));
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    lab.root(Command::ResolveIncident(Lab::note(id))).unwrap();
    let both = about("latency", vec![limit(true), odd("load", "level")]);
    // It called it first, and says nothing any more.
    let id = treat(&mut lab, &[both, crossed(true)]);
    let [level, cusum] = missed_by(STEP_BY_OUTCOME);
    let load = |millinats| weight("load", Detector::Level, millinats);
    assert_eq!(weights(&lab), [level, cusum, load(STEP_VERIFIED - STEP)]);
    assert_eq!(lab.state.weights.version, 2, "one command, one version");
    lab.root(judge(id, Opinion::FalseAlarm)).unwrap();
    let [level, cusum] = missed_by(0);
    assert_eq!(weights(&lab), [level, cusum, load(-2 * STEP)]);
}
