//! Writes container output in the log format of CRI: a time, the stream, `F`ull or `P`artial, the text; or in that of
//! Docker's `json-file`.
//!
//! A line longer than 16 KiB is cut into partial ones. Source: kubernetes/design-proposals, "CRI: Log management".

use crate::protocol::LogFormat;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The longest piece of a line that is written at once, in bytes.
const LONGEST: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Files of a container's log that are kept, the one being written included: upstream's `containerLogMaxFiles`.
const KEPT_FILES: u32 = 5;

/// The log file of a container. Without one, output goes to those attached only.
#[derive(Debug, Default)]
pub struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Bytes in the file, and how many it may have; 0 is any number.
    size: u64,
    max_bytes: u64,
    format: LogFormat,
    /// Files that are kept.
    files: u32,
    /// Unfinished lines of stdout and stderr.
    rest: [Vec<u8>; 2],
}

impl Log {
    #[cfg(test)]
    fn open(path: Option<PathBuf>, max_bytes: u64) -> std::io::Result<Self> {
        Self::open_as(path, max_bytes, LogFormat::Cri, 0)
    }

    /// Opens the file for appending, making it when needed. One that reaches `max_bytes` is set aside; `files` is how
    /// many are kept, 0 the usual number.
    pub fn open_as(path: Option<PathBuf>, max_bytes: u64, format: LogFormat, files: u32) -> std::io::Result<Self> {
        let files = if files == 0 { KEPT_FILES } else { files };
        let mut log = Self { path, max_bytes, format, files, ..Self::default() };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file of that name again, which after a rotation is a new one.
    pub fn reopen(&mut self) -> std::io::Result<()> {
        if let Some(path) = &self.path {
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    /// Takes output; `now` is nanoseconds since the epoch. What cannot be written is lost: a full disk must not
    /// stop the container.
    pub fn write(&mut self, stream: Stream, output: &[u8], now: i64) {
        if self.file.is_none() {
            return;
        }
        let mut record = Vec::with_capacity(output.len() + 256);
        let format = self.format;
        let mut rest = std::mem::take(&mut self.rest[stream as usize]);
        for piece in output.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let mut text = text;
            while rest.len() + text.len() > LONGEST {
                let (head, tail) = text.split_at(LONGEST - rest.len());
                rest.extend_from_slice(head);
                append(&mut record, format, stream, b'P', &rest, now);
                rest.clear();
                text = tail;
            }
            rest.extend_from_slice(text);
            if ended {
                append(&mut record, format, stream, b'F', &rest, now);
                rest.clear();
            }
            // A file ends with the line that fills it, however much output comes at once.
            if self.max_bytes > 0 && self.size + record.len() as u64 >= self.max_bytes {
                self.put(&record);
                record.clear();
            }
        }
        if !rest.is_empty() {
            self.rest[stream as usize] = rest;
        }
        self.put(&record);
    }

    /// Writes unfinished lines as they are: nothing more will come.
    pub fn finish(&mut self, now: i64) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.rest[stream as usize]);
            if !rest.is_empty() {
                let mut record = Vec::new();
                // A line that never ended is a part of one; who reads it adds no line's end.
                append(&mut record, self.format, stream, b'P', &rest, now);
                self.put(&record);
            }
        }
    }

    fn put(&mut self, record: &[u8]) {
        if let Some(file) = &mut self.file {
            // Explained at `write`.
            let _ = file.write_all(record);
            self.size += record.len() as u64;
        }
        if self.max_bytes > 0 && self.size >= self.max_bytes {
            self.rotate();
        }
    }

    /// Sets the file aside as `<path>.1`, after the older ones made room. Whoever follows the log by the file sees the
    /// end of it and then the new one. Where that fails, the file grows on until it is tried again.
    fn rotate(&mut self) {
        let Some(path) = &self.path else { return };
        let aside = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
        if self.files == 1 {
            // Nothing is set aside: the one file begins anew.
            self.size = 0;
            if let Some(file) = &self.file {
                // Where that fails the file grows on until it is tried again.
                let _ = file.set_len(0);
            }
            return;
        }
        for number in (1..self.files - 1).rev() {
            // There are fewer of them at first.
            let _ = std::fs::rename(aside(number), aside(number + 1));
        }
        self.size = 0;
        if std::fs::rename(path, aside(1)).is_ok() {
            // Without a new file output goes on into the old one.
            let _ = self.reopen();
        }
    }
}

fn append(record: &mut Vec<u8>, format: LogFormat, stream: Stream, tag: u8, text: &[u8], now: i64) {
    if format == LogFormat::Json {
        return append_json(record, stream, tag == b'F', text, now);
    }
    let name: &[u8] = match stream {
        Stream::Stdout => b" stdout ",
        Stream::Stderr => b" stderr ",
    };
    record.extend_from_slice(timestamp(now).as_bytes());
    record.extend_from_slice(name);
    record.extend_from_slice(&[tag, b' ']);
    record.extend_from_slice(text);
    record.push(b'\n');
}

/// `ended` adds the line's end, by which readers know whole lines.
fn append_json(record: &mut Vec<u8>, stream: Stream, ended: bool, text: &[u8], now: i64) {
    let mut text = String::from_utf8_lossy(text).into_owned();
    if ended {
        text.push('\n');
    }
    let name = if stream == Stream::Stdout { "stdout" } else { "stderr" };
    record.extend_from_slice(b"{\"log\":");
    // Text becomes JSON without fail.
    let _ = serde_json::to_writer(&mut *record, &text);
    record.extend_from_slice(format!(",\"stream\":\"{name}\",\"time\":\"{}\"}}\n", timestamp(now)).as_bytes());
}

/// RFC 3339 in UTC with nine digits of a second. The calendar is Howard Hinnant's `civil_from_days`.
fn timestamp(nanos: i64) -> String {
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let (days, clock) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(writes: &[(Stream, &[u8])]) -> String {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.log");
        let mut log = Log::open(Some(path.clone()), 0).unwrap();
        for (stream, output) in writes {
            log.write(*stream, output, 1_700_000_000_000_000_001);
        }
        log.finish(1_700_000_000_000_000_001);
        std::fs::read_to_string(path).unwrap().replace("2023-11-14T22:13:20.000000001Z", "T")
    }

    #[test]
    fn lines_are_put_together_from_pieces_and_marked() {
        let text = logged(&[(Stream::Stdout, b"one\ntw"), (Stream::Stderr, b"err\n"), (Stream::Stdout, b"o\n\nend")]);
        assert_eq!(text, "T stdout F one\nT stderr F err\nT stdout F two\nT stdout F \nT stdout P end\n");
    }

    #[test]
    fn long_lines_become_partial_ones() {
        let mut long = vec![b'a'; LONGEST + 5];
        long.push(b'\n');
        let text = logged(&[(Stream::Stdout, &long)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), LONGEST + "T stdout P ".len());
        assert_eq!(lines[1], "T stdout F aaaaa");
    }

    #[test]
    fn json_lines_are_those_of_docker() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x-json.log");
        let mut log = Log::open_as(Some(path.clone()), 0, LogFormat::Json, 0).unwrap();
        log.write(Stream::Stderr, b"a \"b\"\nend", 0);
        log.finish(0);
        let time = "\"time\":\"1970-01-01T00:00:00.000000000Z\"}\n";
        let expected = format!(
            "{{\"log\":\"a \\\"b\\\"\\n\",\"stream\":\"stderr\",{time}{{\"log\":\"end\",\"stream\":\"stderr\",{time}"
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), expected);
    }

    #[test]
    fn times_are_written_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (1_798_761_599_123_456_789, "2026-12-31T23:59:59.123456789Z"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(timestamp(nanos), expected);
        }
    }

    #[test]
    fn after_a_rotation_lines_go_to_the_new_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.log");
        let mut log = Log::open(Some(path.clone()), 0).unwrap();
        log.write(Stream::Stdout, b"old\n", 0);
        std::fs::rename(&path, temp.path().join("1.log")).unwrap();
        log.reopen().unwrap();
        log.write(Stream::Stdout, b"new\n", 0);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.ends_with("stdout F new\n") && !text.contains("old"));
    }

    #[test]
    fn a_log_that_is_full_is_set_aside_and_the_oldest_goes() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.log");
        let mut log = Log::open(Some(path.clone()), 100).unwrap();
        for number in 0..21 {
            // Of 50 bytes, so that two fill a file.
            log.write(Stream::Stdout, format!("{number:09}\n").as_bytes(), 0);
        }
        let lines = |name: &str| -> Vec<u32> {
            let text = std::fs::read_to_string(temp.path().join(name)).unwrap();
            text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
        };
        assert_eq!(lines("0.log"), [20]);
        assert_eq!(lines("0.log.1"), [18, 19]);
        assert_eq!(lines("0.log.4"), [12, 13]);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), KEPT_FILES as usize);
    }
}
