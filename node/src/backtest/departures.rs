//! Signs from metrics: what stands out in the minutes of an incident against the half hour before.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    BacktestError,
    cases::{Truth, entity},
    csv::{content, reader},
};
use crate::intelligence::cases::{Case, Sign};

/// What an incident is compared with, seconds before it.
const BEFORE_S: f64 = 1_800.0;
/// How long an incident is looked at, seconds.
const DURING_S: f64 = 240.0;
/// Fewer values before say nothing of what is usual.
const BEFORE_MIN: usize = 5;
/// Departures below this many robust deviations are no sign.
const DEPARTS: f64 = 3.0;
/// Departures are told apart up to this many.
const DEPARTS_MAX: f64 = 100.0;

/// One metric of one entity.
type Series = Vec<(f64, f64)>;

/// Reads the times of the cases and all metrics beside them.
pub(super) fn read(
    times: &Path,
    paths: &[PathBuf],
    truths: &[Truth],
) -> Result<Vec<Case>, BacktestError> {
    let mut when: BTreeMap<String, f64> = BTreeMap::new();
    table(times, &mut |names, record| {
        let at = |name: &str| names.iter().position(|other| other == name);
        if let (Some(case), Some(time)) = (at("case"), at("time_unix"))
            && let Some(time) = record.get(time).and_then(|text| text.parse().ok())
        {
            when.insert(record.get(case).unwrap_or_default().to_owned(), time);
        }
    })?;
    let mut all: BTreeMap<String, BTreeMap<String, Series>> = BTreeMap::new();
    let mut calls: Vec<(String, String)> = Vec::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path != times && (name.ends_with(".csv") || name.ends_with(".csv.gz")) {
            table(path, &mut |names, record| gather(names, record, &mut all, &mut calls))?;
        }
    }
    let entities: Vec<_> = all.keys().map(|name| entity(name)).collect();
    let places = |service: &str| -> Vec<usize> {
        (0..entities.len()).filter(|&at| entities[at].service == service).collect()
    };
    let calls: Vec<(usize, usize)> = calls
        .iter()
        .flat_map(|(from, to)| {
            let to = places(to);
            places(from)
                .into_iter()
                .flat_map(move |from| to.clone().into_iter().map(move |to| (from, to)))
        })
        .collect();
    let case = |truth: &Truth| {
        let signs = when.get(&truth.case).map(|&at| signs(&all, at)).unwrap_or_default();
        Case { entities: entities.clone(), calls: calls.clone(), signs }
    };
    Ok(truths.iter().map(case).collect())
}

fn table(
    path: &Path,
    take: &mut dyn FnMut(&[String], &::csv::StringRecord),
) -> Result<(), BacktestError> {
    let mut reader = reader(path)?;
    let header = reader.headers().map_err(|error| content(path, &error))?.clone();
    let names: Vec<String> = header.iter().map(str::to_owned).collect();
    for record in reader.records() {
        take(&names, &record.map_err(|error| content(path, &error))?);
    }
    Ok(())
}

/// A row of metrics (a time, a name, numbers), or of calls (source, target).
fn gather(
    names: &[String],
    record: &::csv::StringRecord,
    all: &mut BTreeMap<String, BTreeMap<String, Series>>,
    calls: &mut Vec<(String, String)>,
) {
    let at = |name: &str| names.iter().position(|other| other == name);
    if let (Some(source), Some(target)) = (at("source"), at("target")) {
        let text = |at| record.get(at).unwrap_or_default().to_owned();
        calls.push((text(source), text(target)));
        return;
    }
    let named = names.iter().position(|name| name.to_ascii_lowercase().ends_with("name"));
    let time = at("time_unix").and_then(|at| Some((at, record.get(at)?.parse::<f64>().ok()?)));
    let (Some(named), Some((time, moment))) = (named, time) else { return };
    let series = all.entry(record.get(named).unwrap_or_default().to_owned()).or_default();
    for (column, name) in names.iter().enumerate() {
        let value = record.get(column).and_then(|text| text.parse::<f64>().ok());
        if let Some(value) =
            value.filter(|value| value.is_finite() && ![named, time].contains(&column))
        {
            series.entry(name.clone()).or_default().push((moment, value));
        }
    }
}

fn signs(all: &BTreeMap<String, BTreeMap<String, Series>>, at: f64) -> Vec<Sign> {
    let mut found = Vec::new();
    for (place, metrics) in all.values().enumerate() {
        for (name, series) in metrics {
            let Some(departure) = departure(series, at) else { continue };
            let way = if departure > 0.0 { "up" } else { "down" };
            if departure.abs() >= DEPARTS {
                let strength = (departure.abs().min(DEPARTS_MAX) / DEPARTS).ln() + 1.0;
                let what = format!("metric: {name} {way}");
                found.push(Sign { entity: Some(place), what, strength: strength as f32 });
            }
        }
    }
    found
}

/// By how many robust deviations the median of the incident departs from that before it.
fn departure(series: &Series, at: f64) -> Option<f64> {
    let within = |from: f64, to: f64| -> Vec<f64> {
        series
            .iter()
            .filter(|(time, _)| (from..to).contains(time))
            .map(|(_, value)| *value)
            .collect()
    };
    let (mut before, mut during) = (within(at - BEFORE_S, at), within(at, at + DURING_S));
    if before.len() < BEFORE_MIN || during.is_empty() {
        return None;
    }
    let usual = median(&mut before);
    let mut off: Vec<f64> = before.iter().map(|value| (value - usual).abs()).collect();
    // A metric that stood still has no scale of its own: a twentieth of its value is one.
    let scale = (1.4826 * median(&mut off)).max(0.05 * usual.abs()).max(1e-9);
    Some((median(&mut during) - usual) / scale)
}

/// The upper median; the caller knows that there is one.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
