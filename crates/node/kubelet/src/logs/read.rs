//! Streams a log file: from a line or a time on, to its end or as it grows.

use super::Record;
use super::follow::Follower;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use pintle_cri::Runtime;
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

const BLOCK_BYTES: usize = 64 * 1024;
/// A line longer than this is cut into several.
const MAX_LINE_BYTES: usize = 1 << 20;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub timestamps: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    /// `Some(true)` is stderr only, `Some(false)` stdout only.
    pub stderr: Option<bool>,
}

/// Sends the log's text until it ends, or, when it is followed, until the container `id` has ended.
pub async fn stream(
    path: &Path,
    id: &str,
    options: Options,
    runtime: Arc<dyn Runtime>,
    out: mpsc::Sender<Result<Bytes, std::io::Error>>,
) {
    let sender = out.clone();
    let result = Streaming::begin(path, id, options, runtime, out).await;
    if let Err(error) = result {
        // The receiver may be gone: then nobody wants to know.
        let _ = sender.send(Err(error)).await;
    }
}

struct Streaming<'a> {
    path: &'a Path,
    file: File,
    options: Options,
    out: mpsc::Sender<Result<Bytes, std::io::Error>>,
    /// Bytes after the last whole line.
    rest: BytesMut,
    /// What may be sent still.
    left: u64,
    /// Whether the last record ended its line.
    at_line_start: bool,
}

/// There is nothing more to send: the limit is reached, or the client has gone.
struct Enough;

impl<'a> Streaming<'a> {
    async fn begin(
        path: &'a Path,
        id: &str,
        options: Options,
        runtime: Arc<dyn Runtime>,
        out: mpsc::Sender<Result<Bytes, std::io::Error>>,
    ) -> std::io::Result<()> {
        let mut follower = match options.follow {
            true => Follower::new(path, id, runtime).await?,
            false => None,
        };
        let mut file = File::open(path).await?;
        if let Some(lines) = options.tail_lines {
            let start = tail_start(&mut file, lines).await?;
            file.seek(SeekFrom::Start(start)).await?;
        }
        let left = options.limit_bytes.unwrap_or(u64::MAX);
        let mut this = Self { path, file, options, out, rest: BytesMut::new(), left, at_line_start: true };
        loop {
            if this.read_on().await?.is_err() {
                return Ok(());
            }
            let Some(waiting) = &mut follower else { return Ok(()) };
            let goes_on = tokio::select! {
                goes_on = waiting.changed() => goes_on?,
                () = this.out.closed() => return Ok(()),
            };
            if !goes_on {
                follower = None;
            }
            this.reopen_if_rotated().await?;
        }
    }

    /// Reads and sends what there is.
    async fn read_on(&mut self) -> std::io::Result<Result<(), Enough>> {
        loop {
            self.rest.reserve(BLOCK_BYTES);
            if self.file.read_buf(&mut self.rest).await? == 0 {
                return Ok(Ok(()));
            }
            let mut text = BytesMut::new();
            while let Some(end) = line_end(&self.rest) {
                let line = self.rest.split_to(end);
                self.write(line.strip_suffix(b"\n").unwrap_or(&line), &mut text);
            }
            if !text.is_empty() && self.out.send(Ok(text.freeze())).await.is_err() {
                return Ok(Err(Enough));
            }
            if self.left == 0 {
                return Ok(Err(Enough));
            }
        }
    }

    fn write(&mut self, line: &[u8], text: &mut BytesMut) {
        // A line that is no record is passed over, as a crash of the writer may leave one.
        let Ok(record) = Record::parse(line) else { return };
        if self.options.stderr.is_some_and(|wanted| wanted != record.stderr) {
            return;
        }
        let too_old = |since| record.time.parse::<Timestamp>().is_ok_and(|time| time < since);
        if self.options.since.is_some_and(too_old) {
            return;
        }
        let start = text.len();
        if self.options.timestamps && self.at_line_start {
            text.extend_from_slice(record.time.as_bytes());
            text.extend_from_slice(b" ");
        }
        text.extend_from_slice(record.text);
        self.at_line_start = !record.partial;
        if !record.partial {
            text.extend_from_slice(b"\n");
        }
        let written = (text.len() - start) as u64;
        if written > self.left {
            text.truncate(start + self.left as usize);
        }
        self.left -= written.min(self.left);
    }

    /// After a rotation the path names another file; the one that is open has been read to its end.
    async fn reopen_if_rotated(&mut self) -> std::io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let Ok(there) = tokio::fs::metadata(self.path).await else { return Ok(()) };
        let open = self.file.metadata().await?;
        if (there.dev(), there.ino()) != (open.dev(), open.ino()) {
            // What was written between the last read and the rotation comes first.
            if self.read_on().await?.is_ok() {
                self.file = File::open(self.path).await?;
                self.rest.clear();
            }
        }
        Ok(())
    }
}

/// Where the first whole line ends, its newline included.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().take(MAX_LINE_BYTES).position(|b| *b == b'\n').map(|at| at + 1);
    end.or((bytes.len() >= MAX_LINE_BYTES).then_some(MAX_LINE_BYTES))
}

/// Where the last `lines` lines begin, found from the end backwards.
async fn tail_start(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let mut end = file.metadata().await?.len();
    if lines == 0 {
        return Ok(end);
    }
    let whole = end;
    let mut found = 0;
    let mut block = vec![0; BLOCK_BYTES];
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES as u64);
        let size = (end - start) as usize;
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut block[..size]).await?;
        for at in (0..size).rev().filter(|at| block[*at] == b'\n') {
            let position = start + at as u64;
            // The newline that ends the file begins no line.
            if position + 1 == whole {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(position + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRuntime;

    const LOG: &str = "2024-01-01T00:00:00Z stdout F one\n2024-01-01T00:00:01Z stderr P tw\n\
                       2024-01-01T00:00:01Z stderr F o\nnonsense\n2024-01-01T00:00:02Z stdout F three\n";

    async fn read(options: Options) -> String {
        let dir = crate::fake::temporary_directory();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (sender, mut receiver) = mpsc::channel(4);
        let clock = pintle_clock::system();
        stream(&path, "c1", options, FakeRuntime::new(clock), sender).await;
        let mut text = Vec::new();
        while let Some(part) = receiver.recv().await {
            text.extend_from_slice(&part.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn options_choose_what_is_sent() {
        let all = Options::default;
        assert_eq!(read(all()).await, "one\ntwo\nthree\n");
        assert_eq!(read(Options { tail_lines: Some(1), ..all() }).await, "three\n");
        assert_eq!(read(Options { tail_lines: Some(0), ..all() }).await, "");
        assert_eq!(read(Options { tail_lines: Some(99), ..all() }).await, "one\ntwo\nthree\n");
        assert_eq!(read(Options { stderr: Some(true), ..all() }).await, "two\n");
        assert_eq!(read(Options { limit_bytes: Some(5), ..all() }).await, "one\nt");
        let since = Some("2024-01-01T00:00:02Z".parse().unwrap());
        assert_eq!(read(Options { since, ..all() }).await, "three\n");
        let stamped = "2024-01-01T00:00:00Z one\n2024-01-01T00:00:01Z two\n2024-01-01T00:00:02Z three\n";
        assert_eq!(read(Options { timestamps: true, ..all() }).await, stamped);
    }
}
