//! Times as clients write them: seconds since 1970, RFC 3339, or how long ago.

use crate::answer::Result;
use pintle_clock::Timestamp;
use pintle_docker::DockerError;

const SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970 of `1700000000.5`, `2026-01-02T03:04:05Z`, `2026-01-02`, or `10m`, `1h30m` before now.
pub(crate) fn parse(text: &str, now: i64) -> Result<i64> {
    let bad = || DockerError::invalid(format!("invalid time: {text:?}"));
    if let Some(nanos) = seconds(text) {
        return Ok(nanos);
    }
    if let Some(ago) = duration(text) {
        return Ok(now.saturating_sub(ago));
    }
    let candidates = [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")];
    let time = candidates.iter().find_map(|t| t.parse::<Timestamp>().ok()).ok_or_else(bad)?;
    i64::try_from(time.as_nanosecond()).map_err(|_| bad())
}

/// `SECONDS[.NANOSECONDS]`
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    whole.checked_mul(SECOND)?.checked_add(digits.parse().ok()?)
}

/// A length of time in Go's form: `1h30m`, `500ms`.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total = total.checked_add((number.parse::<f64>().ok()? * unit) as i64)?;
        rest = next;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_in_three_forms() {
        let now = 10_000 * SECOND;
        for (text, expected) in [
            ("5", 5 * SECOND),
            ("5.25", 5 * SECOND + 250_000_000),
            ("1970-01-01T00:00:07Z", 7 * SECOND),
            ("1970-01-02", 86_400 * SECOND),
            ("10m", 9_400 * SECOND),
            ("1h1s", 6_399 * SECOND),
        ] {
            assert_eq!(parse(text, now).unwrap(), expected, "{text}");
        }
        for bad in ["", "x", "5q", "m"] {
            assert!(parse(bad, now).is_err(), "{bad:?}");
        }
    }
}
