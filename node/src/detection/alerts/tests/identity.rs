//! Who an alert is: none is ended by what becomes of another.

use super::*;

/// A full disk of the target.
fn disk(name: &str, firing: bool) -> IncomingAlert {
    let mut full = alert("DiskFull", firing, "critical");
    full.labels.insert("disk".to_owned(), name.to_owned());
    full.annotations = BTreeMap::from([("summary".to_owned(), format!("{name} is full"))]);
    full
}

/// The same, as Alertmanager's webhook tells it.
fn printed(name: &str, firing: bool) -> IncomingAlert {
    IncomingAlert { fingerprint: Some(format!("0f{name}")), ..disk(name, firing) }
}

/// As builds wrote it that knew alerts by their names.
fn old_form(name: &str) -> Symptom {
    let mut symptom = report(step(None, &[alert(name, true, "critical")]));
    symptom.signals[0].detector = "alertmanager/critical".to_owned();
    symptom
}

#[test]
fn two_alerts_of_one_name_are_two() {
    for alert in [disk, printed] {
        let both = report(step(None, &[alert("sda", true), alert("sdb", true)]));
        assert_eq!(both.summary, "alerts DiskFull (2) fire");
        assert!(both.signals.iter().all(|signal| signal.name == "alert.DiskFull"), "{both:?}");
        let one = report(step(Some(&both), &[alert("sda", false)]));
        assert_eq!(one.summary, "alert DiskFull fires: sdb is full");
        assert_eq!(step(Some(&one), &[alert("sda", false)]), Step::Nothing);
        assert_eq!(step(Some(&one), &[alert("sdb", false)]), Step::Clear(target()));
    }
}

#[test]
fn a_fingerprint_that_a_sender_gives_to_all_tells_names_apart_still() {
    let same = |name: &str, firing| IncomingAlert {
        fingerprint: Some("0".to_owned()),
        ..alert(name, firing, "critical")
    };
    let both = report(step(None, &[same("Slow", true), same("Burning", true)]));
    let one = report(step(Some(&both), &[same("Slow", false)]));
    assert_eq!(one.summary, "alert Burning fires: Burning is on");
    // Its labels may change meanwhile: with a fingerprint it is the same alert.
    let mut over = same("Burning", false);
    over.labels.remove("severity");
    assert_eq!(step(Some(&one), &[over]), Step::Clear(target()));
}

#[test]
fn a_label_without_a_value_is_none() {
    let stands = report(step(None, &[disk("sda", true)]));
    let mut over = disk("sda", false);
    over.labels.insert("rack".to_owned(), String::new());
    assert_eq!(step(Some(&stands), &[over]), Step::Clear(target()));
}

#[test]
fn what_an_earlier_build_wrote_is_ended_by_its_name() {
    let old = old_form("DiskFull");
    assert_eq!(step(Some(&old), &[disk("sda", false)]), Step::Clear(target()));
    let other = [alert("Slow", false, "critical")];
    assert_eq!(step(Some(&old), &other), Step::Nothing);
    // It stands beside what comes later, and under its severity.
    let both = report(step(Some(&old), &[alert("Slow", true, "info")]));
    assert_eq!(
        (both.summary.as_str(), both.severity),
        ("alerts DiskFull, Slow fire", Severity::Critical)
    );
    let one = report(step(Some(&both), &[disk("sda", false)]));
    assert_eq!(one.summary, "alert Slow fires: Slow is on");
    // Sent again, it is one alert and no second one.
    let again = report(step(Some(&old), &[disk("sda", true)]));
    assert_eq!(again.signals.len(), 1);
    assert_eq!(step(Some(&again), &[disk("sda", false)]), Step::Clear(target()));
}

#[test]
fn earlier_builds_find_the_name_and_the_severity_where_they_look() {
    let Signal { name, detector, .. } = report(step(None, &[disk("sda", true)])).signals.remove(0);
    assert_eq!(name, "alert.DiskFull");
    assert!(detector.starts_with("alertmanager/") && detector.ends_with("/critical"), "{detector}");
    assert_eq!(medic_state::weight::Detector::parse(&detector), None, "no test, and no weight");
}

#[test]
fn alerts_beyond_the_signals_count_as_well() {
    let name = |n: usize| format!("sd{n:03}");
    let many: Vec<IncomingAlert> = (0..200).map(|n| printed(&name(n), true)).collect();
    let all = report(step(None, &many));
    assert_eq!(all.signals.len(), MAX_SIGNALS);
    assert_eq!(all.summary, "alerts DiskFull (15) and 185 more fire");
    assert_eq!(step(Some(&all), &many), Step::Nothing, "a repeat is none the less one");
    // The law keeps all of it.
    assert!(all.labels.len() <= 64 && all.labels.values().all(|list| list.len() <= 2_048));
    let over: Vec<IncomingAlert> = (0..199).map(|n| printed(&name(n), false)).collect();
    let last = report(step(Some(&all), &over));
    assert_eq!((last.signals.len(), last.severity), (1, Severity::Critical));
    // There is room to show it when it is sent again.
    let again = report(step(Some(&last), &[printed(&name(199), true)]));
    assert_eq!(again.summary, "alert DiskFull fires: sd199 is full");
    for stands in [last, again] {
        assert_eq!(step(Some(&stands), &[printed(&name(199), false)]), Step::Clear(target()));
    }
}

#[test]
fn more_than_can_be_told_apart_end_no_symptom_early() {
    let batch = |from: usize, firing| -> Vec<IncomingAlert> {
        (from..from + 600).map(|n| printed(&format!("d{n}"), firing)).collect()
    };
    let first = report(step(None, &batch(0, true)));
    let all = report(step(Some(&first), &batch(600, true)));
    assert!(medic_state::codec::encode(&all).len() < 48 * 1024);
    assert!(all.labels.len() <= 64, "{}", all.labels.len());
    assert!(all.summary.ends_with("and at least 986 more fire"), "{}", all.summary);
    let some = report(step(Some(&all), &batch(0, false)));
    let none = report(step(Some(&some), &batch(600, false)));
    assert_eq!(none.signals[0].name, "alerts.more");
    // Who could not be told apart is over a day later, or soon after the end that they named.
    let day = Timestamp(1_000 + 24 * 3_600_000);
    assert_eq!(ended(&none, day), Step::Nothing);
    assert_eq!(ended(&none, day.plus(medic_state::Millis::from_secs(130))), Step::Clear(target()));
}
