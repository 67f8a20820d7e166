//! Writes container output in the log format of CRI: a time, the stream, `F`ull or `P`artial, the text; or in that of
//! Docker's `json-file`.
//!
//! A line longer than 16 KiB is cut into partial ones. Source: kubernetes/design-proposals, "CRI: Log management".

use crate::log_file::LogFile;
use crate::log_ring::Ring;
use crate::protocol::{ContainerSpec, LogFormat};
use std::os::fd::BorrowedFd;

/// The longest piece of a line that is written at once, in bytes.
const LONGEST: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A piece of output: a line, or a part of one that is too long or never ended.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Nanoseconds since the epoch.
    pub time: i64,
    pub stream: Stream,
    /// Whether it ends where the line does.
    pub ended: bool,
    pub text: &'a [u8],
}

impl Line<'_> {
    /// Appends it as it stands in the file.
    pub fn append(&self, record: &mut Vec<u8>, format: LogFormat) {
        if format == LogFormat::Json {
            return append_json(record, self.stream, self.ended, self.text, self.time);
        }
        let name: &[u8] = match self.stream {
            Stream::Stdout => b" stdout ",
            Stream::Stderr => b" stderr ",
        };
        record.extend_from_slice(timestamp(self.time).as_bytes());
        record.extend_from_slice(name);
        record.extend_from_slice(&[if self.ended { b'F' } else { b'P' }, b' ']);
        record.extend_from_slice(self.text);
        record.push(b'\n');
    }
}

/// Where the lines of a log go.
#[derive(Debug, Default)]
enum Target {
    /// To those attached only.
    #[default]
    Nowhere,
    File(LogFile),
    Ring(Ring),
}

/// The log of a container.
#[derive(Debug, Default)]
pub struct Log {
    target: Target,
    format: LogFormat,
    /// Unfinished lines of stdout and stderr.
    rest: [Vec<u8>; 2],
}

impl Log {
    /// Opens the log that a container is to have.
    ///
    /// # Errors
    /// When its file cannot be opened, or nothing can be started that writes it.
    pub fn of(spec: &ContainerSpec) -> std::io::Result<Self> {
        let Some(path) = &spec.log_path else { return Ok(Self::default()) };
        let open = || LogFile::open(path.clone(), spec.log_max_bytes, spec.log_files);
        let target = match spec.log_ring {
            // SAFETY: the shim has one thread.
            #[allow(unsafe_code)]
            Some(max_bytes) => Target::Ring(unsafe { Ring::start(open, spec.log_format, max_bytes) }?),
            None => Target::File(open()?),
        };
        Ok(Self { target, format: spec.log_format, ..Self::default() })
    }

    /// Opens the file of that name again, which after a rotation is a new one.
    ///
    /// # Errors
    /// When it cannot be opened, or another process writes it.
    pub fn reopen(&mut self) -> std::io::Result<()> {
        match &mut self.target {
            Target::Nowhere => Ok(()),
            Target::File(file) => file.reopen(),
            Target::Ring(_) => Err(std::io::ErrorKind::Unsupported.into()),
        }
    }

    /// Takes output; `now` is nanoseconds since the epoch.
    pub fn write(&mut self, stream: Stream, output: &[u8], now: i64) {
        if matches!(self.target, Target::Nowhere) {
            return;
        }
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
                self.add(Line { time: now, stream, ended: false, text: &rest });
                rest.clear();
                text = tail;
            }
            rest.extend_from_slice(text);
            if ended {
                self.add(Line { time: now, stream, ended, text: &rest });
                rest.clear();
            }
        }
        if !rest.is_empty() {
            self.rest[stream as usize] = rest;
        }
        self.flush();
    }

    fn add(&mut self, line: Line<'_>) {
        match &mut self.target {
            Target::Nowhere => {}
            Target::File(file) => file.add(|record| line.append(record, self.format)),
            Target::Ring(ring) => ring.add(&line),
        }
    }

    /// Writes what waits, as far as that is possible at once where lines may wait.
    pub fn flush(&mut self) {
        match &mut self.target {
            Target::Nowhere => {}
            Target::File(file) => file.flush(),
            Target::Ring(ring) => ring.flush(),
        }
    }

    /// What lines wait for, where any do: then they are to be flushed again.
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        if let Target::Ring(ring) = &self.target { ring.waits_for() } else { None }
    }

    /// Writes unfinished lines as they are: nothing more will come.
    pub fn finish(&mut self, now: i64) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.rest[stream as usize]);
            if !rest.is_empty() {
                // A line that never ended is a part of one; who reads it adds no line's end.
                self.add(Line { time: now, stream, ended: false, text: &rest });
            }
        }
        self.flush();
        if let Target::Ring(ring) = &mut self.target {
            ring.finish();
        }
    }
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
    use crate::log_file::KEPT_FILES;
    use std::path::Path;

    fn open(path: &Path, max_bytes: u64) -> Log {
        open_as(path, max_bytes, LogFormat::Cri)
    }

    fn open_as(path: &Path, max_bytes: u64, format: LogFormat) -> Log {
        let target = Target::File(LogFile::open(path.to_owned(), max_bytes, 0).unwrap());
        Log { target, format, ..Log::default() }
    }

    fn logged(writes: &[(Stream, &[u8])]) -> String {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.log");
        let mut log = open(&path, 0);
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
        let mut log = open_as(&path, 0, LogFormat::Json);
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
        let mut log = open(&path, 0);
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
        let mut log = open(&path, 100);
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
