//! Timestamps and durations as texts: RFC 3339, and Go's `1h2m3.5s`.

use crate::value::Span;

/// An RFC 3339 text within the years 1 … 9999.
pub fn parse_timestamp(text: &str) -> Option<jiff::Timestamp> {
    // Go wants all parts, with a `T` between date and time; jiff is more lenient.
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && bytes[10] == b'T' && bytes[13] == b':';
    let zoned = text.ends_with('Z') || matches!(bytes.get(bytes.len().wrapping_sub(6)), Some(b'+' | b'-'));
    if !shaped || !zoned || bytes[16] != b':' {
        return None;
    }
    text.parse::<jiff::Timestamp>().ok().filter(in_range)
}

/// A day such as `2030-01-31` (the format `date` of schemas): its beginning.
pub fn parse_date(text: &str) -> Option<jiff::Timestamp> {
    let date: jiff::civil::Date = Some(text).filter(|text| text.len() == 10)?.parse().ok()?;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|day| day.timestamp())
}

/// Whether CEL knows such times: the years 1 … 9999.
pub fn in_range(time: &jiff::Timestamp) -> bool {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;
    (FIRST..=LAST).contains(&time.as_second())
}

/// Go's form of durations: signed decimal numbers with units, as `-1.5h30m` or `10ms`.
pub fn parse_duration(text: &str) -> Option<Span> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(Span(0));
    }
    let mut total: i128 = 0;
    while !rest.is_empty() || total == 0 && text.len() < 2 {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let unit = unit_nanoseconds(&after[..unit_end])?;
        total = total.checked_add(scaled(number, unit)?)?;
        rest = &after[unit_end..];
    }
    let signed = if negative { -total } else { total };
    i64::try_from(signed).ok().map(Span)
}

fn unit_nanoseconds(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `number`, with or without a fraction, times `unit`.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 19 {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanoseconds = whole.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        let digit = i128::from(char::from(digit).to_digit(10)?);
        nanoseconds += digit * scale / 10;
        scale /= 10;
    }
    Some(nanoseconds)
}

/// As `string(duration)` shows it: seconds, `-3.5s`.
pub fn format_duration(span: Span) -> String {
    let sign = if span.0 < 0 { "-" } else { "" };
    let nanoseconds = span.0.unsigned_abs();
    let (seconds, fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    if fraction == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{fraction:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// `time` so many nanoseconds later.
pub(crate) fn shift(time: jiff::Timestamp, nanoseconds: i128) -> Result<jiff::Timestamp, crate::EvalError> {
    jiff::Timestamp::from_nanosecond(time.as_nanosecond().saturating_add(nanoseconds))
        .ok()
        .filter(in_range)
        .ok_or_else(|| crate::EvalError::other("timestamp overflow"))
}

/// RFC 3339 in UTC, with as many digits of a fraction as there are.
pub fn format_timestamp(time: jiff::Timestamp) -> String {
    time.to_string()
}

/// `time` where clocks are ahead of UTC by what `zone` says: `UTC`, `Local`, `+05:30`, `-08:00`, `02:00`. Zones that
/// have rules of their own (`Europe/Berlin`) are not known.
pub(crate) fn in_zone(time: jiff::Timestamp, zone: &str) -> Result<jiff::civil::DateTime, crate::EvalError> {
    let offset = if matches!(zone, "" | "UTC" | "Local" | "Z") { Some(0) } else { offset_seconds(zone) };
    let offset = offset.and_then(|seconds| jiff::tz::Offset::from_seconds(seconds).ok());
    let offset = offset.ok_or_else(|| crate::EvalError::other(format!("unknown time zone {zone}")))?;
    Ok(offset.to_datetime(time))
}

fn offset_seconds(zone: &str) -> Option<i32> {
    let (sign, rest) = match zone.as_bytes().first()? {
        b'-' => (-1, &zone[1..]),
        b'+' => (1, &zone[1..]),
        _ => (1, zone),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let valid = (0..=24).contains(&hours) && (0..60).contains(&minutes);
    valid.then_some(sign * (hours * 3600 + minutes * 60))
}
