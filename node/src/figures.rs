//! Measured numbers as people read them: three digits, and bytes in KiB, MiB, GiB.
//!
//! For texts alone: what programs read stays as it was measured.

/// Whether what goes by this name is counted in bytes.
#[must_use]
pub(crate) fn counts_bytes(name: &str) -> bool {
    ["memory", "bytes", "rss", "heap", "disk"].iter().any(|word| name.contains(word))
}

/// `64.0 MiB`.
#[must_use]
pub(crate) fn in_bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{} {}", digits(scaled), UNITS[unit])
}

/// `123`, `12.3`, `0.123`.
#[must_use]
pub(crate) fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 1.0 => 1,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// A value of this name: `64.0 MiB` of memory, `0.123` of anything else. Small numbers of what may
/// count bytes are taken for shares of it.
#[must_use]
pub(crate) fn value_of(name: &str, value: f64) -> String {
    if counts_bytes(name) && value.abs() >= 1024.0 { in_bytes(value) } else { digits(value) }
}

/// A text about a value of this name (`no trend towards 167772160`) with its numbers as people read
/// them. Whole numbers that count no bytes stay: they may be ports, codes, times.
#[must_use]
pub(crate) fn readable(name: &str, text: &str) -> String {
    let word = |word: &str| match word.parse::<f64>() {
        Ok(value) if value.is_finite() && (counts_bytes(name) || value.fract() != 0.0) => {
            // Three digits of what is small would say nothing: `0.0004`.
            if value != 0.0 && value.abs() < 0.001 {
                word.to_owned()
            } else {
                value_of(name, value)
            }
        }
        Ok(_) | Err(_) => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_texts_read_well() {
        for (name, text, wanted) in [
            ("memory", "44144640", "42.1 MiB"),
            ("memory", "no trend towards 167772160", "no trend towards 160 MiB"),
            ("heap_bytes", "<= 2048", "<= 2.0 KiB"),
            ("memory_share", "0.913742", "0.914"),
            ("error_rate", "0.499998", "0.500"),
            ("error_rate", "<= 0.2", "<= 0.200"),
            ("error_rate", "about 0.00012", "about 0.00012"),
            ("probe.tcp", "connection refused on port 8081", "connection refused on port 8081"),
            ("process", "exit 137", "exit 137"),
            ("latency_p99", "1.74963", "1.7"),
        ] {
            assert_eq!(readable(name, text), wanted);
        }
    }
}
