//! Reads the log files that the runtime writes: one record a line, `TIME stdout F text`.
//!
//! Source: the CRI logging format. Following waits for the kernel to say that a file changed (`inotify`) and for the
//! runtime to say that the container ended; nothing is polled.

mod follow;
mod read;

pub use read::{Options, stream};

/// One record of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// RFC 3339 with nanoseconds.
    pub time: &'a str,
    pub stderr: bool,
    /// The line goes on in the next record.
    pub partial: bool,
    pub text: &'a [u8],
}

/// A line that is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a log line that is not `TIME STREAM TAG TEXT`")]
pub struct BadRecord;

impl<'a> Record<'a> {
    /// Parses a line without its newline.
    pub fn parse(line: &'a [u8]) -> Result<Self, BadRecord> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let mut next = || parts.next().ok_or(BadRecord);
        let time = std::str::from_utf8(next()?).map_err(|_| BadRecord)?;
        let stderr = match next()? {
            b"stdout" => false,
            b"stderr" => true,
            _ => return Err(BadRecord),
        };
        // Tags are separated by colons; the first says whether the line is whole.
        let partial = match next()?.split(|b| *b == b':').next() {
            Some(b"P") => true,
            Some(b"F") => false,
            _ => return Err(BadRecord),
        };
        let text = parts.next().unwrap_or_default();
        if time.is_empty() {
            return Err(BadRecord);
        }
        Ok(Self { time, stderr, partial, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_parsed() {
        let parse = |line: &str| Record::parse(line.as_bytes()).map(|r| (r.stderr, r.partial, r.text.to_vec())).ok();
        assert_eq!(parse("2016-10-06T00:17:09Z stdout F a b "), Some((false, false, b"a b ".to_vec())));
        assert_eq!(parse("2016-10-06T00:17:09Z stderr P a"), Some((true, true, b"a".to_vec())));
        assert_eq!(parse("2016-10-06T00:17:09Z stdout F:x "), Some((false, false, vec![])));
        assert_eq!(parse("2016-10-06T00:17:09Z stdout F"), Some((false, false, vec![])));
        for bad in ["", "x", "2016-10-06T00:17:09Z stdin F a", "2016-10-06T00:17:09Z stdout X a", " stdout F a"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn broken_records_are_refused() {
        pintle_noise::feed(&[b"2016-10-06T00:17:09.669794202Z stderr P:x a line\n"], 1000, |line| {
            if let Ok(record) = Record::parse(line) {
                assert!(record.time.len() + record.text.len() <= line.len());
            }
        });
    }
}
