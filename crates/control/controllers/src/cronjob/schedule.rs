//! Schedules in the form of cron: five fields, or one of the words that begin with `@`, in a time zone.
//!
//! Source: the `cron` library that upstream uses (standard parser: no seconds, day of month or of week suffices).
//! When clocks are put forward, times in the hour that is left out are left out; when they are put back, times in the
//! hour that comes twice come twice.

use super::zone;
use jiff::tz::TimeZone;
use pintle_clock::Timestamp;

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MINUTE: i64 = 60;
/// A schedule that names no time within these years never will.
const HORIZON_YEARS: i64 = 5;
/// What 64 bits of nanoseconds hold.
const LONGEST_SECONDS: i64 = 9_223_372_036;

/// When to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    zone: TimeZone,
    times: Times,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Times {
    /// `@every`: seconds between runs.
    Every(i64),
    Fields {
        minutes: u64,
        hours: u64,
        days: u64,
        months: u64,
        weekdays: u64,
        /// Both the day of the month and that of the week are restricted: either suffices.
        either_day: bool,
    },
}

/// A text that is no schedule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

impl Schedule {
    /// Reads a schedule in a zone, unless it names one itself (`TZ=…`, from before there was a field for it).
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self, ParseError> {
        let text = text.trim();
        let own = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
        let Some(own) = own else { return Ok(Self { zone: zone.clone(), times: Times::parse(text)? }) };
        let (name, rest) = own.split_once(' ').unwrap_or((own, ""));
        let zone = zone::load(name).map_err(|error| ParseError(format!("provided bad location {name}: {error}")))?;
        Ok(Self { zone, times: Times::parse(rest.trim())? })
    }

    /// The first time after another; nothing when there is none for years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let second = after.as_second();
        if let Times::Every(seconds) = self.times {
            return Timestamp::from_second(second.checked_add(seconds)?).ok();
        }
        let mut at = (second.div_euclid(MINUTE) + 1) * MINUTE;
        let horizon = at + HORIZON_YEARS * 366 * 86_400;
        while at < horizon {
            let offset = self.offset(at)?;
            match self.times.skip(at + offset) {
                0 => return Timestamp::from_second(at).ok(),
                // The clocks change meanwhile: minute by minute.
                seconds if self.offset(at + seconds)? != offset => at += MINUTE,
                seconds => at += seconds,
            }
        }
        None
    }

    /// Seconds by which the zone's clocks are ahead of UTC.
    fn offset(&self, second: i64) -> Option<i64> {
        Some(i64::from(self.zone.to_offset(Timestamp::from_second(second).ok()?).seconds()))
    }
}

impl Times {
    fn parse(text: &str) -> Result<Self, ParseError> {
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => match other.strip_prefix("@every ") {
                Some(duration) => return parse_every(duration),
                None if other.starts_with('@') => {
                    return Err(ParseError(format!("unrecognized descriptor: {other}")));
                }
                None => other,
            },
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(ParseError(format!("expected exactly 5 fields, found {}: {fields:?}", fields.len())));
        };
        let is_any = |field: &str| field.starts_with('*') || field.starts_with('?');
        Ok(Self::Fields {
            minutes: parse_field(minutes, 0, 59, &[])?,
            hours: parse_field(hours, 0, 23, &[])?,
            days: parse_field(days, 1, 31, &[])?,
            months: parse_field(months, 1, 12, &MONTHS)?,
            weekdays: {
                let bits = parse_field(weekdays, 0, 7, &DAYS)?;
                // Sunday is both 0 and 7.
                (bits | (bits >> 7)) & 0x7f
            },
            either_day: !is_any(days) && !is_any(weekdays),
        })
    }

    /// Zero when the minute at `at`, in seconds by the clocks of the zone, is one of the schedule's; else the seconds to
    /// the next that may be.
    fn skip(&self, at: i64) -> i64 {
        let Self::Fields { minutes, hours, days, months, weekdays, either_day } = self else { return 0 };
        let has = |bits: &u64, value: i64| bits >> value & 1 == 1;
        let day_number = at.div_euclid(86_400);
        let (month, day) = month_and_day(day_number);
        let to_midnight = 86_400 - at.rem_euclid(86_400);
        let (by_month, by_week) = (has(days, day), has(weekdays, (day_number + 4).rem_euclid(7)));
        let day_fits = if *either_day { by_month || by_week } else { by_month && by_week };
        if !has(months, month) || !day_fits {
            return to_midnight;
        }
        if !has(hours, at.rem_euclid(86_400) / 3600) {
            return 3600 - at.rem_euclid(3600);
        }
        if has(minutes, at.rem_euclid(3600) / 60) { 0 } else { MINUTE }
    }
}

/// The month and the day of it, of a day counted from 1970. Source: Hinnant, "chrono-compatible date algorithms".
fn month_and_day(day_number: i64) -> (i64, i64) {
    let z = day_number + 719_468;
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    (if shifted < 10 { shifted + 3 } else { shifted - 9 }, day)
}

/// Units of durations, in nanoseconds; the longer names first.
const UNITS: [(&str, i128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// A duration such as `1h30m` or `1.5h`, in whole seconds, one at least.
fn parse_every(text: &str) -> Result<Times, ParseError> {
    let bad = || ParseError(format!("failed to parse duration @every {text}: time: invalid duration \"{text}\""));
    let (mut rest, mut total) = (text, 0_i128);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(end);
        let (name, unit) = UNITS.iter().find(|(name, _)| tail.starts_with(name)).ok_or_else(bad)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.contains('.') {
            return Err(bad());
        }
        let digits = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<i128>().map_err(|_| bad()) };
        let fraction: String = fraction.chars().take(9).collect();
        let scale = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or_default());
        total += digits(whole)? * unit + digits(&fraction)? * unit / scale;
        rest = &tail[name.len()..];
    }
    let seconds = i64::try_from(total / 1_000_000_000).map_err(|_| bad())?;
    if total <= 0 || seconds > LONGEST_SECONDS { Err(bad()) } else { Ok(Times::Every(seconds.max(1))) }
}

/// A field as a set of bits.
fn parse_field(field: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, ParseError> {
    let mut bits = 0;
    for part in field.split(',') {
        bits |= parse_range(part, low, high, names)?;
    }
    Ok(bits)
}

fn parse_range(part: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, ParseError> {
    let bad = |why: &str| ParseError(format!("{why}: {part}"));
    let value = |text: &str| -> Result<u32, ParseError> {
        let name = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        match name {
            Some(at) => Ok(low + u32::try_from(at).unwrap_or_default()),
            None => text.parse().map_err(|_| bad("failed to parse int from")),
        }
    };
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(step.parse::<u32>().map_err(|_| bad("failed to parse int from"))?)),
        None => (part, None),
    };
    let (first, last) = match range.split_once('-') {
        _ if range == "*" || range == "?" => (low, high),
        Some((first, last)) => (value(first)?, value(last)?),
        None if step.is_some() => (value(range)?, high),
        None => (value(range)?, value(range)?),
    };
    let step = step.unwrap_or(1);
    if first < low {
        return Err(bad(&format!("beginning of range ({first}) below minimum ({low})")));
    }
    if last > high {
        return Err(bad(&format!("end of range ({last}) above maximum ({high})")));
    }
    if first > last {
        return Err(bad(&format!("beginning of range ({first}) beyond end of range ({last})")));
    }
    let step = usize::try_from(step)
        .ok()
        .filter(|step| *step > 0)
        .ok_or_else(|| bad("step of range should be a positive number"))?;
    Ok((first..=last).step_by(step).fold(0, |bits, value| bits | 1 << value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_in(zone: &str, schedule: &str, after: &str) -> String {
        let zone = zone::load(zone).unwrap();
        let next = Schedule::parse(schedule, &zone).unwrap().next(after.parse().unwrap());
        next.map(|next| next.to_string()).unwrap_or_default()
    }

    fn next(schedule: &str, after: &str) -> String {
        next_in("", schedule, after)
    }

    #[test]
    fn clocks_that_change_leave_times_out_or_repeat_them() {
        // The worked examples of the cron library: New York, 2012-03-11 forward at two, 2012-11-04 back at two.
        for (schedule, after, expected) in [
            ("0 * * * *", "2012-03-11T06:00:00Z", "2012-03-11T07:00:00Z"),
            ("0 2 * * *", "2012-03-11T05:00:00Z", "2012-03-12T06:00:00Z"),
            ("0 3 * * *", "2012-03-11T05:00:00Z", "2012-03-11T07:00:00Z"),
            ("0 14 * * *", "2012-03-11T05:00:00Z", "2012-03-11T18:00:00Z"),
            ("0 1 * * *", "2012-11-04T04:00:00Z", "2012-11-04T05:00:00Z"),
            ("0 1 * * *", "2012-11-04T05:00:00Z", "2012-11-04T06:00:00Z"),
            ("0 2 * * *", "2012-11-04T04:00:00Z", "2012-11-04T07:00:00Z"),
            ("0 3 * * *", "2012-11-04T04:00:00Z", "2012-11-04T08:00:00Z"),
        ] {
            assert_eq!(next_in("America/New_York", schedule, after), expected, "{schedule} after {after}");
        }
        assert_eq!(next_in("Asia/Kolkata", "0 0 * * *", "2024-01-01T00:00:00Z"), "2024-01-01T18:30:00Z");
        assert_eq!(next("TZ=Asia/Tokyo 0 9 * * *", "2024-01-01T00:00:00Z"), "2024-01-02T00:00:00Z");
    }

    #[test]
    fn the_next_time_is_found() {
        for (schedule, after, expected) in [
            ("* * * * *", "2024-01-01T00:00:30Z", "2024-01-01T00:01:00Z"),
            ("*/15 * * * *", "2024-01-01T00:15:00Z", "2024-01-01T00:30:00Z"),
            ("0 3 * * *", "2024-01-01T03:00:00Z", "2024-01-02T03:00:00Z"),
            ("30 4 29 feb *", "2024-03-01T00:00:00Z", "2028-02-29T04:30:00Z"),
            ("0 0 * * mon-fri", "2024-01-05T00:00:00Z", "2024-01-08T00:00:00Z"),
            ("0 0 13 * 5", "2024-01-01T00:00:00Z", "2024-01-05T00:00:00Z"),
            ("0 0 * * 7", "2024-01-01T00:00:00Z", "2024-01-07T00:00:00Z"),
            ("@monthly", "2024-01-31T12:00:00Z", "2024-02-01T00:00:00Z"),
            ("@every 1h30m", "2024-01-01T00:00:10Z", "2024-01-01T01:30:10Z"),
            ("@every 1.5m", "2024-01-01T00:00:10Z", "2024-01-01T00:01:40Z"),
            ("@every 10ms", "2024-01-01T00:00:10Z", "2024-01-01T00:00:11Z"),
            ("0 0 31 2 *", "2024-01-01T00:00:00Z", ""),
        ] {
            assert_eq!(next(schedule, after), expected, "{schedule}");
        }
    }

    #[test]
    fn bad_schedules_are_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "@every 1",
            "@every",
            "@ever",
            "@every 1.x",
            "@every -1s",
            "TZ=Nowhere * * * * *",
        ] {
            assert!(Schedule::parse(text, &TimeZone::UTC).is_err(), "{text}");
        }
    }

    #[test]
    fn broken_schedules_are_refused_or_have_an_end() {
        let start = Timestamp::from_second(1_700_000_000).unwrap();
        let samples = [
            "*/5 0-23/2 1,15 jan-dec mon",
            "@every 1h30m5s",
            "0 0 30 2 *",
            "@every 9223372036854775807s",
            "59 23 31 12 7",
        ];
        pintle_noise::feed_text(&samples, 300, |text| {
            if let Some(next) = Schedule::parse(text, &TimeZone::UTC).ok().and_then(|schedule| schedule.next(start)) {
                assert!(next > start, "{text:?}");
            }
        });
    }
}
