//! How long a request may take: the `timeout` of its query, read as Go reads durations.

use crate::query::Query;
use pintle_types::Status;
use std::time::Duration;

/// Requests other than watches and streams are given up after this time, as upstream does.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What the request asks for, as far as this server gives it.
pub(crate) fn requested(query: &Query) -> Result<Duration, Box<Status>> {
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else { return Ok(REQUEST_TIMEOUT) };
    let asked = parse(text).ok_or_else(|| {
        let why = format!("time: invalid duration {text:?}");
        Box::new(Status::bad_request(format!("invalid timeout specified in the request URL - {why}")))
    })?;
    Ok(if asked.is_zero() { REQUEST_TIMEOUT } else { asked.min(REQUEST_TIMEOUT) })
}

/// `1m30s`, `500ms`, `0`: numbers with units, added up.
fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|end| *end > 0)?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number * unit(&rest[..end])?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
}

fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_upstream_reads_them() {
        let asked = |text: &str| requested(&Query::parse(text));
        assert_eq!(asked("").unwrap(), REQUEST_TIMEOUT);
        assert_eq!(asked("timeout=0s").unwrap(), REQUEST_TIMEOUT);
        assert_eq!(asked("timeout=1m30s").unwrap(), REQUEST_TIMEOUT);
        assert_eq!(asked("timeout=500ms").unwrap(), Duration::from_millis(500));
        for wrong in ["soon", "10", "s", "1x", "-1s", "1s2"] {
            let refusal = asked(&format!("timeout={wrong}")).unwrap_err();
            let words = format!("invalid timeout specified in the request URL - time: invalid duration {wrong:?}");
            assert_eq!((refusal.code, refusal.message), (400, words));
        }
    }
}
