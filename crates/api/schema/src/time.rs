//! RFC 3339 times as Go reads and upstream prints them.

/// A time read from text.
struct Parsed {
    /// Of the Unix epoch.
    seconds: i64,
    nanoseconds: u32,
}

/// Reads a text as Go's `time.Parse` does with one of the two layouts; the error is Go's.
pub(crate) fn check(text: &str, layout: &str) -> Result<(), String> {
    parse(text, layout).map(drop)
}

/// The text as upstream prints it: in UTC, with seconds or microseconds. None when it is no time.
pub(crate) fn canonical(text: &str, micro: bool) -> Option<String> {
    // Nearly all times are canonical already.
    let bytes = text.as_bytes();
    if bytes.len() == if micro { 27 } else { 20 } && bytes.ends_with(b"Z") {
        return None;
    }
    let parsed = parse(text, "2006-01-02T15:04:05Z07:00").ok()?;
    Some(print(parsed.seconds, parsed.nanoseconds, micro))
}

/// A time of the Unix epoch as upstream prints it.
pub(crate) fn print(seconds: i64, nanoseconds: u32, micro: bool) -> String {
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = if micro { format!(".{:06}", nanoseconds / 1000) } else { String::new() };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Seconds of the Unix epoch and nanoseconds; none for what is no time.
pub(crate) fn unix(text: &str) -> Option<(i64, u32)> {
    let parsed = parse(text, "2006-01-02T15:04:05Z07:00").ok()?;
    Some((parsed.seconds, parsed.nanoseconds))
}

/// A time in seconds of the Unix epoch, for sorting; 0 for what is none.
pub(crate) fn unix_seconds(text: &str) -> i64 {
    parse(text, "2006-01-02T15:04:05Z07:00").map_or(0, |parsed| parsed.seconds)
}

struct Cursor<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'a str,
}

impl<'a> Cursor<'a> {
    fn bad(&self, element: &str) -> String {
        let Self { text, rest, layout } = self;
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}")
    }

    fn number(&mut self, element: &str, least: usize, most: usize) -> Result<i64, String> {
        let digits = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if digits < least {
            return Err(self.bad(element));
        }
        let (head, rest) = self.rest.split_at(digits);
        self.rest = rest;
        Ok(head.parse().unwrap_or_default())
    }

    fn literal(&mut self, literal: char) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.bad(&literal.to_string()))?;
        Ok(())
    }

    /// `.123`, as nanoseconds.
    fn fraction(&mut self) -> Result<u32, String> {
        let exact = self.layout.contains(".000000");
        let digits = match self.rest.strip_prefix(['.', ',']) {
            Some(rest) => rest.bytes().take_while(u8::is_ascii_digit).count(),
            None => 0,
        };
        if exact && digits < 6 {
            return Err(self.bad(".000000"));
        }
        if digits == 0 {
            return Ok(0);
        }
        let taken = if exact { 6 } else { digits };
        let text = &self.rest[1..=taken];
        self.rest = &self.rest[taken + 1..];
        let nanos: String = text.chars().chain("000000000".chars()).take(9).collect();
        Ok(nanos.parse().unwrap_or_default())
    }

    /// `Z` or `+01:00`, in seconds.
    fn zone(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let well_formed = bytes.len() >= 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|&i| bytes[i].is_ascii_digit());
        if !well_formed {
            return Err(self.bad("Z07:00"));
        }
        let two = |at: usize| i64::from(bytes[at] - b'0') * 10 + i64::from(bytes[at + 1] - b'0');
        let offset = two(1) * 3600 + two(4) * 60;
        let sign = if bytes[0] == b'-' { -1 } else { 1 };
        self.rest = &self.rest[6..];
        Ok(sign * offset)
    }
}

fn parse(text: &str, layout: &str) -> Result<Parsed, String> {
    let mut cursor = Cursor { text, rest: text, layout };
    let year = cursor.number("2006", 4, 4)?;
    cursor.literal('-')?;
    let month = cursor.number("01", 2, 2)?;
    check_range(text, "month", month, 1, 12)?;
    cursor.literal('-')?;
    let day = cursor.number("02", 2, 2)?;
    cursor.literal('T')?;
    let hour = cursor.number("15", 1, 2)?;
    check_range(text, "hour", hour, 0, 23)?;
    cursor.literal(':')?;
    let minute = cursor.number("04", 2, 2)?;
    check_range(text, "minute", minute, 0, 59)?;
    cursor.literal(':')?;
    let second = cursor.number("05", 2, 2)?;
    check_range(text, "second", second, 0, 59)?;
    let nanoseconds = cursor.fraction()?;
    let offset = cursor.zone()?;
    if !cursor.rest.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {:?}", cursor.rest));
    }
    check_range(text, "day", day, 1, days_in(year, month))?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Ok(Parsed { seconds, nanoseconds })
}

fn check_range(text: &str, what: &str, value: i64, least: i64, most: i64) -> Result<(), String> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(format!("parsing time {text:?}: {what} out of range")) }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from the Unix epoch to a date (the well-known algorithm over 400-year eras that start in March).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days`].
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_in_utc() {
        for (given, micro, printed) in [
            ("2026-02-28T23:30:00-01:00", false, "2026-03-01T00:30:00Z"),
            ("1969-12-31T23:59:59.999999999Z", false, "1969-12-31T23:59:59Z"),
            ("2024-02-29T12:00:00.1234567Z", true, "2024-02-29T12:00:00.123456Z"),
            ("2024-01-01T00:00:00+05:30", true, "2023-12-31T18:30:00.000000Z"),
        ] {
            assert_eq!(canonical(given, micro).as_deref(), Some(printed), "{given}");
        }
        assert_eq!(canonical("2024-01-01T00:00:00Z", false), None, "canonical texts are left alone");
    }

    #[test]
    fn says_what_go_says() {
        let layout = "2006-01-02T15:04:05Z07:00";
        for (text, message) in [
            ("", r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
            ("2024", r#"parsing time "2024" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "-""#),
            ("2024-13-01T00:00:00Z", r#"parsing time "2024-13-01T00:00:00Z": month out of range"#),
            ("2023-02-29T00:00:00Z", r#"parsing time "2023-02-29T00:00:00Z": day out of range"#),
            ("2023-02-20T00:00:00Zx", r#"parsing time "2023-02-20T00:00:00Zx": extra text: "x""#),
            (
                "2023-02-20T00:00:00é",
                r#"parsing time "2023-02-20T00:00:00é" as "2006-01-02T15:04:05Z07:00": cannot parse "é" as "Z07:00""#,
            ),
        ] {
            assert_eq!(check(text, layout).unwrap_err(), message);
        }
    }
}
