//! Values for people.

use crate::{
    detection::detector::{Role, Series},
    figures::{counts_bytes, digits, in_bytes},
};

/// `42 %`, `350 ms`, `64.0 MiB`, `12.3`, `4.7/s`.
pub(super) fn shown(series: &Series, value: f64) -> String {
    match series.role {
        _ if series.per_second && bytes(series) => format!("{}/s", in_bytes(value)),
        _ if series.per_second => format!("{}/s", digits(value)),
        Role::Errors if value.abs() <= 1.0 => format!("{} %", digits(value * 100.0)),
        Role::Latency if value.abs() < 1.0 => format!("{} ms", digits(value * 1e3)),
        Role::Latency => format!("{} s", digits(value)),
        Role::Resource | Role::Other | Role::Errors if bytes(series) => in_bytes(value),
        Role::Resource | Role::Other | Role::Errors => digits(value),
    }
}

fn bytes(series: &Series) -> bool {
    counts_bytes(series.name.as_str()) && series.limit.is_none_or(|limit| limit > 1024.0)
}
