//! Times and lengths of time in the words of Docker.

use pintle_clock::Timestamp;

/// RFC 3339 with up to nine digits of a second; of 0 the zero of Go's times.
pub fn rfc3339(nanos: i64) -> String {
    let known = if nanos == 0 { None } else { Timestamp::from_nanosecond(i128::from(nanos)).ok() };
    known.map_or_else(|| "0001-01-01T00:00:00Z".into(), |time| time.to_string())
}

/// A length of time in seconds, roughly.
pub fn human(seconds: i64) -> String {
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..2_760 => format!("{} minutes", seconds / 60),
        2_760..5_400 => "About an hour".into(),
        5_400..172_800 => format!("{} hours", (seconds + 1_800) / 3600),
        172_800..1_209_600 => format!("{} days", seconds / 86_400),
        1_209_600..5_184_000 => format!("{} weeks", seconds / 604_800),
        5_184_000..63_072_000 => format!("{} months", seconds / 2_592_000),
        _ => format!("{} years", seconds / 31_536_000),
    }
}

/// How long ago a time is, both in nanoseconds since the epoch.
pub fn ago(time: i64, now: i64) -> String {
    human((now - time) / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (2_700, "45 minutes"),
            (3_600, "About an hour"),
            (7_200, "2 hours"),
            (200_000, "2 days"),
            (1_500_000, "2 weeks"),
            (99_999_999, "3 years"),
        ] {
            assert_eq!(human(seconds), text);
        }
        assert_eq!(rfc3339(0), "0001-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_500_000_000), "1970-01-01T00:00:01.5Z");
    }
}
