//! What counts as good, what as short or unchecked, and what a reader finds in each of the files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::check::Violation;

/// All fourteen, each with something checked.
fn whole() -> Report {
    let mut report = Report::new(7, 3, 1_790_000_000_000);
    report.minutes = 1.0;
    report.can = Capabilities::everything();
    report.verdicts = (1..=14).map(|n| Verdict::new(n, 5, "things", Vec::new())).collect();
    report
}

/// The same for as long as must reach everything.
fn full() -> Report {
    let mut report = whole();
    (report.minutes, report.full) = (60.0, true);
    let hits = Hits { passed: HITS_LEAST, armed: 1, deaths: 1 };
    report.hits = BTreeMap::from([("driver_after_act".to_owned(), hits)]);
    let deposed = |at| Deposed { at, fence: 1, open: vec!["PLAN-5/0/do".to_owned()] };
    report.deposed = (0..DEPOSED_LEAST).map(deposed).collect();
    let felt = Tally { drawn: 1, begun: 1, felt: 1 };
    report.nemeses = Fault::ALL.into_iter().map(|fault| (fault, felt)).collect();
    report
}

fn nothing_of(report: &mut Report, invariant: u8) {
    let found = report.verdicts.iter_mut().find(|verdict| verdict.invariant == invariant);
    found.unwrap().checked = 0;
}

#[test]
fn a_campaign_without_violations_is_good() {
    assert!(whole().good() && full().good());
    assert_eq!(whole().headline(), "every invariant holds");
    let unknown = Report { verdicts: Vec::new(), ..whole() };
    assert!(!unknown.good(), "nothing is known of anything");
    assert_eq!(unknown.headline(), "nothing was checked");
}

#[test]
fn what_a_full_campaign_must_reach_is_counted() {
    let mut report = full();
    report.hits.get_mut("driver_after_act").unwrap().passed = 19;
    assert_eq!(report.short(), ["driver_after_act was hit 19 times of 20"]);
    assert_eq!((report.good(), report.exit()), (false, 1));
    let mut report = full();
    report.deposed.truncate(199);
    assert_eq!(report.short(), ["199 of 200 leader kills in mid-remediation"]);
    assert_eq!((report.good(), report.exit()), (false, 1));
    report.full = false;
    assert!(report.good(), "a short one need not");
    let mut report = full();
    let unfelt = Tally { drawn: 3, begun: 2, felt: 0 };
    report.nemeses.insert(Fault::Split, unfelt);
    assert_eq!(report.short(), ["split was never felt (drawn 3 times, begun 2)"]);
    report.nemeses.remove(&Fault::Split);
    assert_eq!(report.short(), ["split was never felt (drawn 0 times, begun 0)"]);
    // What cannot be had here need not be.
    report.nemeses.remove(&Fault::FailingSync);
    assert_eq!(report.short().len(), if report.can.strace { 2 } else { 1 });
}

#[test]
fn what_was_not_checked_is_no_pass_and_fails_where_it_could_have_been() {
    for invariant in [11, 13] {
        let mut report = whole();
        nothing_of(&mut report, invariant);
        assert!(report.good(), "a short one may not come to {invariant}");
        let told =
            format!("every invariant that was checked holds (nothing checked of: {invariant})");
        assert_eq!(report.headline(), told);
        let mut report = full();
        nothing_of(&mut report, invariant);
        assert!(!report.good(), "a full one comes to {invariant}");
    }
    let mut report = full();
    nothing_of(&mut report, 13);
    report.can.clocks = false;
    assert!(report.good(), "nobody can set clocks here");
    let mut report = whole();
    nothing_of(&mut report, 4);
    assert_eq!((report.good(), report.exit()), (false, 1));
    assert_eq!(report.shortcomings(), ["nothing was checked of invariant 4: things"]);
}

#[test]
fn a_part_of_an_invariant_that_was_not_checked_is_not_hidden_by_another() {
    for mut report in [whole(), full()] {
        report.verdicts.push(Verdict::new(3, 0, "acts", Vec::new()));
        assert_eq!(report.shortcomings(), ["nothing was checked of invariant 3: acts"]);
        assert!(!report.good(), "other parts of 3 were checked");
        assert!(report.terminal().contains("   3 nothing checked       0 acts"));
        assert_eq!(
            report.headline(),
            "no violation, and NOT all was checked that must be (nothing checked of: 3)"
        );
    }
}

#[test]
fn a_short_campaign_may_kill_no_instance_and_a_full_one_does() {
    for (mut report, good) in [(whole(), true), (full(), false)] {
        report.verdicts.push(Verdict::new(10, 0, "killed instances", Vec::new()));
        assert_eq!(report.good(), good);
        assert!(report.headline().ends_with("(nothing checked of: 10)"));
    }
}

#[test]
fn how_it_ended_shows_in_the_exit_code_and_a_violation_comes_first() {
    let mut report = whole();
    assert_eq!(report.exit(), 0);
    report.ended = Ended::Interrupted { by: "SIGINT".to_owned(), after_ms: 90_000 };
    assert_eq!((report.good(), report.exit()), (false, 3));
    assert_eq!(report.headline(), "INTERRUPTED by SIGINT after 1.5 min: every invariant holds");
    report.ended = Ended::Broken { why: "no room".to_owned(), after_ms: 30_000 };
    assert_eq!((report.good(), report.exit()), (false, 4));
    report.verdicts[3].violations.push(Violation::new("twice"));
    assert_eq!(report.exit(), 1);
}

#[test]
fn a_long_campaign_without_failpoints_says_that_it_is_not_a_full_one() {
    let mut report = full();
    (report.can.failpoints, report.full) = (false, false);
    report.hits.get_mut("driver_after_act").unwrap().passed = 0;
    report.deposed.clear();
    assert!(report.good());
    assert!(report.not_full().is_some_and(|why| why.starts_with("not a full campaign")));
    assert!(report.terminal().contains("not a full campaign"));
    assert_eq!(full().not_full(), None);
}

fn violated() -> Report {
    let mut report = whole();
    report.network_choice = Some(NetworkChoice::Loopback);
    report.samples = vec![Sample {
        at_ms: 2_000,
        node: 2,
        leader: 2,
        term: 3,
        applied: 80,
        hash: String::new(),
        fence: 60,
    }];
    report.clock = LogClock::new(&report.samples, &[]);
    report.faults = vec![(Fault::KillLeader, 1_000, 3_000)];
    let tally = Tally { drawn: 41, begun: 37, felt: 29 };
    report.nemeses = BTreeMap::from([(Fault::KillLeader, tally)]);
    let violation = Violation::new("PLAN-57 was seen & is <lost>")
        .with(["seen as RUNNING".to_owned()])
        .see("/x/logs");
    report.verdicts[5].violations.push(violation);
    report.incidents = vec![Incident {
        id: "INC-55".to_owned(),
        service: "orders".to_owned(),
        instance: "orders-1".to_owned(),
        class: "application/crash".to_owned(),
        summary: "Trouble7 on orders-1".to_owned(),
        decided: "restart (PLAN-57) running".to_owned(),
        escalation: "no playbook is left".to_owned(),
        opened_ms: 1_500,
        closed_ms: None,
        end: End::Open,
    }];
    report
}

#[test]
fn a_violation_stands_first_in_every_file_with_what_was_around_it() {
    let dir = tempfile::tempdir().unwrap();
    let report = violated();
    let html = report.write(dir.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(html, dir.path().join("report.html"));
    let (html, markdown) = (read("report.html"), read("report.md"));
    let around = "around 2.0 s (index 57): node-2 led; kill-leader (1.0 to 3.0 s)";
    for text in [&html, &markdown] {
        assert!(text.contains("NOT every invariant holds: 6 violated"), "{text}");
        assert!(text.contains(around), "{text}");
        let wrong = text.find("What went wrong").unwrap();
        assert!(wrong < text.find("Figures").unwrap(), "it stands before the figures");
        assert!(text.contains("Trouble7 on orders-1") && text.contains("no playbook is left"));
        assert!(text.contains("--minutes 1 --seed 7 --nodes 3 --network loopback"), "{text}");
    }
    assert!(html.contains("PLAN-57 was seen &amp; is &lt;lost&gt;"), "{html}");
    assert!(markdown.contains("look at /x/logs"));
    let json: serde_json::Value = serde_json::from_str(&read("report.json")).unwrap();
    assert_eq!((json["good"].as_bool(), json["exit"].as_u64()), (Some(false), Some(1)));
    assert_eq!(json["verdicts"][5]["verdict"], "1 violation");
    assert_eq!(json["verdicts"][5]["violations"][0]["around"][0], around);
    assert_eq!(json["incidents"][0]["end"], "open");
    assert_eq!(json["faults"][0]["fault"], "kill-leader");
    assert_eq!(json["nemeses"]["kill-leader"]["felt"], 29);
    assert!(markdown.contains("| kill-leader | 41 | 37 | 29 |"), "{markdown}");
    assert!(
        html.contains("<td>kill-leader<td class=n>41<td class=n>37<td class='n n'>29"),
        "{html}"
    );
}

#[test]
fn what_is_good_has_no_section_of_wrongs() {
    let dir = tempfile::tempdir().unwrap();
    whole().write(dir.path()).unwrap();
    for name in ["report.html", "report.md"] {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(
            !text.contains("What went wrong") && text.contains("every invariant holds"),
            "{text}"
        );
    }
}

#[test]
fn verdicts_are_told_apart_on_the_page() {
    let mut report = violated();
    nothing_of(&mut report, 13);
    let html = html::render(&report);
    let row =
        |class: &str, word: &str| html.matches(&format!("<td class={class}>{word}</td>")).count();
    assert_eq!(
        (row("good", "holds"), row("none", "nothing checked"), row("bad", "1 violation")),
        (12, 1, 1)
    );
    assert!(html.contains("<svg") && html.contains("orders (1)"), "incidents have a lane");
}
