//! Tells an error where the caller looks for it: on stderr, and in the file of `--log` in its format.

use std::io::Write;

/// Where and how errors are written.
#[derive(Debug, Default)]
pub struct Log {
    pub path: Option<String>,
    pub json: bool,
}

impl Log {
    /// Writes an error. Nobody could be told of a log that cannot be written.
    pub fn error(&self, message: &str) {
        let time = timestamp();
        let text = format!("time=\"{time}\" level=error msg={}\n", quoted(message));
        let _ = std::io::stderr().write_all(text.as_bytes());
        let Some(path) = &self.path else { return };
        let line = match self.json {
            true => format!("{}\n", serde_json::json!({ "level": "error", "msg": message, "time": time })),
            false => text,
        };
        if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path) {
            let _ = file.write_all(line.as_bytes());
        }
    }
}

fn quoted(message: &str) -> String {
    serde_json::Value::from(message).to_string()
}

/// The time now, as RFC 3339 in UTC to the second.
#[allow(clippy::disallowed_methods)]
pub fn timestamp() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format_time(since.as_secs())
}

/// Days are counted from 0000-03-01, so that a leap day is a year's last (Howard Hinnant, "chrono-compatible
/// low-level date algorithms").
fn format_time(seconds: u64) -> String {
    let (days, second) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
        ] {
            assert_eq!(super::format_time(seconds), text);
        }
    }
}
