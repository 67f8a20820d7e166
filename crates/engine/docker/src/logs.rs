//! Reads what containers have written, rotated files first, and follows it by inotify rather than by looking again and
//! again.

use crate::containers::{Condition, log_details, log_name};
use crate::daemon::Daemon;
use crate::error::{DockerError, Result};
use serde::Deserialize;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// Rotated files that are looked for.
const MAX_ROTATED: u32 = 100;
/// The longest line that is read, in bytes: what is longer is no line of ours.
const MAX_LINE: u64 = 1 << 20;
/// Lines that may wait for a slow client.
const WAITING: usize = 64;

/// Which lines.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    /// Nanoseconds since the epoch.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// The last so many only.
    pub tail: Option<usize>,
}

/// How the lines of a log are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// One JSON object a line, as Docker's driver `json-file` has it.
    Json,
    /// `TIME STREAM TAG TEXT`, as a kubelet wants it.
    Cri,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// 1 is stdout, 2 stderr.
    pub stream: u8,
    /// RFC 3339.
    pub time: String,
    /// With its line's end, where it had one.
    pub text: String,
}

#[derive(Deserialize)]
struct Stored {
    log: String,
    stream: String,
    time: String,
}

impl Daemon {
    /// What `--details` shows beside each line of a container's output.
    pub fn log_details(&self, wanted: &str) -> Result<String> {
        Ok(self.container(wanted)?.look(log_details))
    }

    /// The output of a container, as a channel that ends with it.
    ///
    /// # Errors
    /// 501 when the container's driver keeps nothing.
    pub fn container_logs(self: &Arc<Self>, wanted: &str, options: LogOptions) -> Result<mpsc::Receiver<LogLine>> {
        let container = self.container(wanted)?;
        let (driver, ever) = container.look(|r| (r.host.log_config.kind.clone(), r.state.started_at != 0));
        if driver == "none" {
            return Err(DockerError::new(501, "configured logging driver does not support reading"));
        }
        let path = self.containers.folder.of(&container.id).join(log_name(&container.id));
        let follow = options.follow && container.status().is_running() && ever;
        let waiting = self.wait_for(&container, Condition::NotRunning);
        let ended = async move { drop(waiting.done().await) };
        read_log(path, LogForm::Json, LogOptions { follow, ..options }, ended)
    }
}

/// The lines of a log, as a channel that ends with them; those of one that is followed when `ended` resolves.
///
/// # Errors
/// When the log's folder cannot be watched.
pub fn read_log(
    path: PathBuf,
    form: LogForm,
    options: LogOptions,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Result<mpsc::Receiver<LogLine>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let watch = if options.follow { Some(watch(&path)?) } else { None };
    tokio::spawn(async move {
        let mut reading = Reading { path, form, options, sender, position: None };
        if reading.all().await
            && let Some(watch) = watch
        {
            reading.follow(watch, ended).await;
        }
    });
    Ok(receiver)
}

/// Watches the folder of a log: a rotation makes a new file in it.
// Deprecated for types whose descriptor may change under its hands; an `OwnedFd` is not such a type.
#[allow(deprecated)]
fn watch(path: &Path) -> Result<AsyncFd<OwnedFd>> {
    use rustix::fs::inotify;
    let folder = path.parent().unwrap_or(path);
    let watching = || -> std::io::Result<_> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&fd, folder, flags)?;
        AsyncFd::new(fd)
    };
    watching().map_err(|e| DockerError::io(format_args!("watch {}", folder.display()), e))
}

fn drain(fd: &OwnedFd) {
    let mut buffer = [0_u8; 4096];
    // What has changed does not matter: the file is read to its end.
    while rustix::io::read(fd, &mut buffer[..]).is_ok_and(|count| count > 0) {}
}

struct Reading {
    path: PathBuf,
    form: LogForm,
    options: LogOptions,
    sender: mpsc::Sender<LogLine>,
    /// The open file, and the inode that it has.
    position: Option<BufReader<File>>,
}

impl Reading {
    /// What is there. False when nobody listens any more.
    async fn all(&mut self) -> bool {
        let mut kept: VecDeque<LogLine> = VecDeque::new();
        let tail = self.options.tail;
        let old = (1..=MAX_ROTATED).map(|n| PathBuf::from(format!("{}.{n}", self.path.display())));
        let mut files: Vec<PathBuf> = old.take_while(|p| p.exists()).collect();
        files.reverse();
        for path in files {
            let Ok(file) = File::open(&path) else { continue };
            let mut reader = BufReader::new(file);
            if !self.pass(&mut reader, tail.map(|t| (t, &mut kept))).await {
                return false;
            }
        }
        if let Ok(file) = File::open(&self.path) {
            let mut reader = BufReader::new(file);
            if !self.pass(&mut reader, tail.map(|t| (t, &mut kept))).await {
                return false;
            }
            self.position = Some(reader);
        }
        for line in kept {
            if self.sender.send(line).await.is_err() {
                return false;
            }
        }
        true
    }

    /// What comes until the end.
    async fn follow(&mut self, watch: AsyncFd<OwnedFd>, ended: impl Future<Output = ()>) {
        tokio::pin!(ended);
        let mut last = false;
        loop {
            tokio::select! {
                () = &mut ended, if !last => last = true,
                changed = watch.readable() => match changed {
                    Ok(mut ready) => {
                        drain(watch.get_ref());
                        ready.clear_ready();
                    }
                    Err(_) => return,
                },
                () = self.sender.closed() => return,
            }
            if !self.more().await || last {
                return;
            }
        }
    }

    /// What has come since, of a new file too when there is one.
    async fn more(&mut self) -> bool {
        if let Some(mut reader) = self.position.take() {
            if !self.pass(&mut reader, None).await {
                return false;
            }
            if !self.was_rotated(&reader) {
                self.position = Some(reader);
                return true;
            }
        }
        let Ok(file) = File::open(&self.path) else { return true };
        let mut reader = BufReader::new(file);
        let going = self.pass(&mut reader, None).await;
        self.position = Some(reader);
        going
    }

    fn was_rotated(&self, reader: &BufReader<File>) -> bool {
        use std::os::unix::fs::MetadataExt;
        let open = reader.get_ref().metadata().map(|m| m.ino());
        let named = std::fs::metadata(&self.path).map(|m| m.ino());
        matches!((open, named), (Ok(open), Ok(named)) if open != named)
    }

    /// Passes whole lines on, or keeps the last of them.
    async fn pass(&self, reader: &mut BufReader<File>, mut tail: Option<(usize, &mut VecDeque<LogLine>)>) -> bool {
        loop {
            let Some(line) = next_line(reader) else { return true };
            let Some(line) = parse(self.form, &line) else { continue };
            match self.select(line) {
                Selected::Line(line) => match &mut tail {
                    None => {
                        if self.sender.send(line).await.is_err() {
                            return false;
                        }
                    }
                    Some((most, kept)) => {
                        kept.push_back(line);
                        while kept.len() > *most {
                            kept.pop_front();
                        }
                    }
                },
                Selected::Passed => {}
                Selected::TooLate => return self.options.until.is_none() || !self.options.follow,
            }
        }
    }

    fn select(&self, line: LogLine) -> Selected {
        let nanos = || {
            let time = line.time.parse::<pintle_clock::Timestamp>();
            time.ok().and_then(|t| i64::try_from(t.as_nanosecond()).ok()).unwrap_or_default()
        };
        if self.options.until.is_some_and(|until| nanos() > until) {
            return Selected::TooLate;
        }
        let wanted = if line.stream == 1 { self.options.stdout } else { self.options.stderr };
        if !wanted || self.options.since.is_some_and(|since| nanos() < since) {
            return Selected::Passed;
        }
        Selected::Line(line)
    }
}

enum Selected {
    Line(LogLine),
    Passed,
    TooLate,
}

fn parse(form: LogForm, line: &str) -> Option<LogLine> {
    let number = |stream: &str| if stream == "stderr" { 2 } else { 1 };
    if form == LogForm::Json {
        let stored = serde_json::from_str::<Stored>(line).ok()?;
        return Some(LogLine { stream: number(&stored.stream), time: stored.time, text: stored.log });
    }
    let mut parts = line.splitn(4, ' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // A part of a line ends without the line break that the file has.
    let text = if tag.starts_with('P') { text.strip_suffix('\n').unwrap_or(text) } else { text };
    Some(LogLine { stream: number(stream), time: time.to_owned(), text: text.to_owned() })
}

/// The next whole line; of a line that is being written nothing is taken.
fn next_line(reader: &mut BufReader<File>) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let start = reader.stream_position().ok()?;
    let mut line = Vec::new();
    reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).ok()?;
    if line.last() != Some(&b'\n') {
        reader.seek(SeekFrom::Start(start)).ok()?;
        return None;
    }
    Some(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_both_forms() {
        let line = |stream, text: &str| {
            Some(LogLine { stream, time: "2026-01-01T00:00:01Z".to_owned(), text: text.to_owned() })
        };
        let json = "{\"log\":\"two\\n\",\"stream\":\"stderr\",\"time\":\"2026-01-01T00:00:01Z\"}\n";
        assert_eq!(parse(LogForm::Json, json), line(2, "two\n"));
        assert_eq!(parse(LogForm::Cri, "2026-01-01T00:00:01Z stderr F two words\n"), line(2, "two words\n"));
        assert_eq!(parse(LogForm::Cri, "2026-01-01T00:00:01Z stdout P thr\n"), line(1, "thr"));
        for (form, text) in [(LogForm::Json, "{\"log\":"), (LogForm::Cri, "2026-01-01T00:00:01Z stdout F\n")] {
            assert_eq!(parse(form, text), None);
        }
    }
}
