//! Values for people.

use crate::detection::detector::{Role, Series};

/// `42 %`, `350 ms`, `64.0 MiB`, `12.3`.
pub(super) fn shown(series: &Series, value: f64) -> String {
    match series.role {
        Role::Errors if value.abs() <= 1.0 => format!("{} %", digits(value * 100.0)),
        Role::Latency if value.abs() < 1.0 => format!("{} ms", digits(value * 1e3)),
        Role::Latency => format!("{} s", digits(value)),
        Role::Resource | Role::Other | Role::Errors if bytes(series) => in_bytes(value),
        Role::Resource | Role::Other | Role::Errors => digits(value),
    }
}

fn bytes(series: &Series) -> bool {
    let name = series.name.as_str();
    ["memory", "bytes", "rss", "heap", "disk"].iter().any(|word| name.contains(word))
        && series.limit.is_none_or(|limit| limit > 1024.0)
}

fn in_bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{} {}", digits(scaled), UNITS[unit])
}

fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 1.0 => 1,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
