//! Quantities as people write them: numbers with an optional unit.

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number such as 0.05, 5%, 64MiB, 1.5GB or 250ms")]
pub struct BadQuantity(String);

/// Units and the factor that turns them into a number's own unit: bytes, seconds, shares.
const UNITS: [(&str, f64); 14] = [
    ("", 1.0),
    ("%", 0.01),
    ("B", 1.0),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("kB", 1e3),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("ms", 0.001),
    ("s", 1.0),
];

/// Reads a number with an optional unit: bytes (`64MiB`, `1.5GB`), seconds (`250ms`, `2s`),
/// a share (`5%`), or none (`0.05`).
///
/// # Errors
/// When the text is no finite number with one of these units.
pub fn parse_quantity(text: &str) -> Result<f64, BadQuantity> {
    let bad = || BadQuantity(text.to_owned());
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+')))
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit = unit.trim_start();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let value = number.parse::<f64>().map_err(|_| bad())? * factor.ok_or_else(bad)?;
    if value.is_finite() { Ok(value) } else { Err(bad()) }
}

/// Reads the `limit` of an indicator: a quantity, with `<=` (which it means without, too) or, for a
/// floor, `>=` before it.
///
/// # Errors
/// As [`parse_quantity`].
pub fn check_bound(text: &str) -> Result<(), BadQuantity> {
    let text = text.trim();
    let quantity = text.strip_prefix("<=").or_else(|| text.strip_prefix(">=")).unwrap_or(text);
    parse_quantity(quantity).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp, reason = "these products are exact")]
    fn units_scale_and_nonsense_is_refused() {
        for (text, value) in [
            ("64MiB", 67_108_864.0),
            ("64 MiB", 67_108_864.0),
            ("1.5GB", 1.5e9),
            ("0.05", 0.05),
            ("50%", 0.5),
            ("2s", 2.0),
            ("-3", -3.0),
        ] {
            assert_eq!(parse_quantity(text), Ok(value), "{text}");
        }
        assert!((parse_quantity("250ms").unwrap_or_default() - 0.25).abs() < 1e-12);
        for text in ["", "MiB", "64Mib", "1e400", "NaN", "inf", "1.2.3", "5 apples"] {
            assert!(parse_quantity(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_may_say_which_side_is_meant() {
        for text in ["64MiB", "<= 64MiB", ">=5GiB", " >= 10%"] {
            assert_eq!(check_bound(text), Ok(()), "{text}");
        }
        for text in [">=", "> 5", "=> 5", ">= 5 apples"] {
            assert!(check_bound(text).is_err(), "{text}");
        }
    }
}
