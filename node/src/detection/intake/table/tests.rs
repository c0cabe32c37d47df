//! Tests of a tenant's table.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::detection::intake::{
    mapper::tests::state,
    sample::{NAME, Sample},
};

const ALL: Allowed = Allowed(u64::MAX);
const WALL: i64 = 1_700_000_000_000;

fn at(second: u64) -> Moment {
    Moment { mono_ms: second * 1_000, wall_ms: WALL + second as i64 * 1_000 }
}

fn table() -> Table {
    Table::new(Arc::new(Mapper::of(&state(), "default")))
}

fn view<'b>(labels: &[(&'b str, &'b str)], second: u64, value: f64) -> SeriesView<'b> {
    let samples = vec![Sample { at_ms: WALL + second as i64 * 1_000, value }];
    let mut view = SeriesView { labels: labels.to_vec(), samples, ..SeriesView::default() };
    view.check().unwrap();
    view
}

fn load(which: &str) -> [(&str, &str); 3] {
    [(NAME, "load"), ("job", "solo"), ("which", which)]
}

#[test]
fn values_of_an_instance_come_out() {
    let mut table = table();
    for (which, value) in [("a", 1.0), ("b", 2.0), ("a", 1.0)] {
        let labels = load(which);
        let view = view(&labels, 1, value);
        let spot = table.find(ALL, &view, 10, at(1)).unwrap();
        table.offer(spot, &view, at(1), |_| {});
    }
    assert_eq!(table.len(), 2);
    assert_eq!(table.values("solo", "solo-1", 1_400), None);
    assert_eq!(table.values("solo", "solo-1", 1_500).unwrap().values["load"], 3.0);
    assert_eq!(table.values("web", "web-1", 1_500), None);
}

#[test]
fn a_series_is_known_by_its_bytes_to_those_who_may_speak_for_it() {
    let mut table = table();
    let mut key = Vec::new();
    let labels = load("a");
    let held = view(&labels, 1, 1.0);
    held.key(&mut key);
    assert_eq!(table.known(ALL, &key), None);
    let spot = table.find(ALL, &held, 10, at(1)).unwrap();
    assert_eq!(table.known(ALL, &key), Some(Ok(spot)));
    assert_eq!(table.known(Allowed(0), &key), None, "another sender is asked for its source");
    assert_eq!(table.known(ALL, &key[1..]), None);
    let unwanted = [(NAME, "nobody_asks"), ("job", "solo")];
    let dropped = view(&unwanted, 1, 1.0);
    dropped.key(&mut key);
    assert_eq!(table.known(ALL, &key), None);
    let why = table.find(ALL, &dropped, 10, at(1)).unwrap_err();
    assert_eq!(table.known(ALL, &key), Some(Err(why)));
    assert_eq!(table.known(Allowed(1 << 60), &key), None);
}

#[test]
fn churn_is_bounded_and_makes_room_when_it_ends() {
    let mut table = table();
    let mut refused = 0;
    for n in 0..1_000 {
        let which = n.to_string();
        match table.find(ALL, &view(&load(&which), 1, 1.0), 100, at(1)) {
            Ok(_) => {}
            Err(why) => {
                assert_eq!(why, Refused::Full);
                refused += 1;
            }
        }
    }
    assert_eq!((table.len(), refused), (100, 900));
    // What is known goes on, whatever else comes.
    assert!(table.find(ALL, &view(&load("7"), 2, 1.0), 100, at(2)).is_ok());
    // Five minutes later the old ones have ended.
    assert!(table.find(ALL, &view(&load("new"), 400, 1.0), 100, at(400)).is_ok());
    assert_eq!(table.len(), 1);
    let slots = table.tallies[0].1.series.len();
    assert_eq!(slots, 100, "places are used again");
}

#[test]
fn what_nobody_wants_is_remembered_within_bounds() {
    let mut table = table();
    for n in 0..(DROPPED_MAX + 10) {
        let name = format!("m{n}");
        let unwanted = view(&[(NAME, name.as_str()), ("job", "solo")], 1, 1.0);
        let refused = table.find(ALL, &unwanted, 10, at(1));
        assert_eq!(refused, Err(Refused::NotWatched(NotWatched::Unwanted)));
    }
    assert!(table.dropped.len() <= DROPPED_MAX && table.is_empty());
}

#[test]
fn a_known_series_opens_to_nobody_else() {
    let mut table = table();
    let labels = load("a");
    let view = view(&labels, 1, 1.0);
    let open = Allowed(1 << table.mapper().sources().position(|name| name == "prom").unwrap());
    let team = Allowed(1 << table.mapper().sources().position(|name| name == "team").unwrap());
    assert!(table.find(open, &view, 10, at(1)).is_ok());
    assert_eq!(table.find(team, &view, 10, at(1)), Err(Refused::NotWatched(NotWatched::Foreign)));
    assert!(table.find(open, &view, 10, at(1)).is_ok());
}
