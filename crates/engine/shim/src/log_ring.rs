//! Lines on their way to a log whose writer may be slow: Docker's `mode=non-blocking`.
//!
//! A file cannot be written without the chance to wait for the disk, and the shim has one thread: so a process of its own
//! writes the file, and takes the lines from a pipe. What the pipe does not take waits here, so many bytes of it at most.
//! What does not fit is dropped: the new line, and those that wait stay, as with Docker (moby, `daemon/logger/ring.go`).

use crate::cri_log::{Line, Stream};
use crate::log_file::LogFile;
use crate::protocol::LogFormat;
use pintle_linux::process::{self, Forked};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long the end of a container waits for its log to be written, as with Docker.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Bytes before each line's text: time, stream, whether it ended, length of the text.
const HEAD: usize = 8 + 1 + 1 + 4;
/// Bytes that are taken from the pipe at once: all that it holds.
const AT_ONCE: usize = 64 << 10;

/// Lines that wait, and the way to the process that writes them.
#[derive(Debug)]
pub struct Ring {
    lines: VecDeque<Vec<u8>>,
    /// Bytes that wait, and how many may.
    bytes: u64,
    max_bytes: u64,
    /// Bytes of the first line that the pipe has already.
    sent: usize,
    /// None once the writer is gone.
    pipe: Option<OwnedFd>,
    writer: Option<OwnedFd>,
}

impl Ring {
    /// Starts the process that writes the file which `open` opens.
    ///
    /// # Safety
    /// As for [`process::fork`]: the calling process has one thread.
    #[allow(unsafe_code)]
    pub unsafe fn start(open: impl Fn() -> io::Result<LogFile>, format: LogFormat, max_bytes: u64) -> io::Result<Self> {
        // What is wrong with the file is told here; the writer can tell nobody.
        drop(open()?);
        let (source, pipe) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // SAFETY: the caller's promise.
        match unsafe { process::fork(0, None) }? {
            Forked::Parent { pidfd, .. } => Self::to(pipe, Some(pidfd), max_bytes),
            Forked::Child => {
                let opened = as_writer(&source).and_then(|source| Ok((source, open()?)));
                let code = opened.map_or(1, |(source, file)| {
                    write_all(source, file, format);
                    0
                });
                process::exit_now(code)
            }
        }
    }

    fn to(pipe: OwnedFd, writer: Option<OwnedFd>, max_bytes: u64) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { lines: VecDeque::new(), bytes: 0, max_bytes, sent: 0, pipe: Some(pipe), writer })
    }

    /// Takes a line, unless there is no room: one that is larger than all the room is taken when nothing waits.
    pub fn add(&mut self, line: &Line<'_>) {
        let bytes = (HEAD + line.text.len()) as u64;
        if self.pipe.is_none() || (self.bytes + bytes > self.max_bytes && !self.lines.is_empty()) {
            return;
        }
        self.bytes += bytes;
        self.lines.push_back(packed(line));
    }

    /// Hands on what the pipe takes now.
    pub fn flush(&mut self) {
        while let (Some(pipe), Some(line)) = (&self.pipe, self.lines.front()) {
            match rustix::io::write(pipe, &line[self.sent..]) {
                Ok(count) if self.sent + count == line.len() => {
                    self.bytes -= line.len() as u64;
                    self.sent = 0;
                    self.lines.pop_front();
                }
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    crate::server::complain(&format!("the log is not written any more: {error}"));
                    self.drop_all();
                }
            }
        }
        if self.lines.is_empty() {
            // A burst is over: its room goes back.
            self.lines.shrink_to_fit();
        }
    }

    fn drop_all(&mut self) {
        (self.lines, self.bytes, self.sent, self.pipe) = (VecDeque::new(), 0, 0, None);
    }

    /// What to wait for, while lines wait, until it can be written to.
    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().filter(|_| !self.lines.is_empty()).map(AsFd::as_fd)
    }

    /// Hands on all that waits and sees the writer end, for a limited time: what is not handed on by then is lost.
    pub fn finish(&mut self) {
        let end = Instant::now() + END_LIMIT;
        self.flush();
        while self.waits_for().is_some_and(|pipe| wait(pipe, PollFlags::OUT, end)) {
            self.flush();
        }
        self.drop_all();
        if self.writer.take().is_some_and(|writer| !wait(writer.as_fd(), PollFlags::IN, end)) {
            crate::server::complain("the log was not written in time: it may lack its end");
        }
    }
}

/// Whether a descriptor becomes ready before `end`.
fn wait(fd: BorrowedFd<'_>, flags: PollFlags, end: Instant) -> bool {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            other => return other.is_ok_and(|ready| ready > 0),
        }
    }
}

fn packed(line: &Line<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + line.text.len());
    bytes.extend_from_slice(&line.time.to_ne_bytes());
    bytes.extend_from_slice(&[line.stream as u8, line.ended.into()]);
    bytes.extend_from_slice(&(line.text.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(line.text);
    bytes
}

/// In the writer: keeps the end of the pipe only, so that nothing of a container stays open through it.
fn as_writer(source: &OwnedFd) -> io::Result<File> {
    let _ = rustix::thread::set_name(c"pintle-log");
    process::place_stdio(source.as_fd(), 0).map_err(io::Error::other)?;
    // SAFETY: this child uses none of the descriptors that it inherited but stdio, and nobody else reads from 0.
    #[allow(unsafe_code)]
    unsafe {
        process::close_from(3).map_err(io::Error::other)?;
        process::inherited(0).map(File::from)
    }
}

/// Writes lines as they come, until there are no more.
fn write_all(source: impl Read, mut file: LogFile, format: LogFormat) {
    let mut source = BufReader::with_capacity(AT_ONCE, source);
    let (mut head, mut text) = ([0; HEAD], Vec::new());
    while source.read_exact(&mut head).is_ok() {
        let [t0, t1, t2, t3, t4, t5, t6, t7, stream, ended, l0, l1, l2, l3] = head;
        text.resize(u32::from_ne_bytes([l0, l1, l2, l3]) as usize, 0);
        if source.read_exact(&mut text).is_err() {
            return;
        }
        let stream = if stream == Stream::Stdout as u8 { Stream::Stdout } else { Stream::Stderr };
        let time = i64::from_ne_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        file.add(|record| Line { time, stream, ended: ended != 0, text: &text }.append(record, format));
        if source.buffer().is_empty() {
            file.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &[u8]) -> Line<'_> {
        Line { time: 0, stream: Stream::Stdout, ended: true, text }
    }

    /// What a writer makes of all that is in a pipe, once its other end is closed.
    fn written(source: impl Read) -> String {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.log");
        write_all(source, LogFile::open(path.clone(), 0, 0).unwrap(), LogFormat::Cri);
        std::fs::read_to_string(path).unwrap().replace("1970-01-01T00:00:00.000000000Z stdout F ", "")
    }

    #[test]
    fn while_the_writer_stalls_old_lines_stay_and_new_ones_are_dropped() {
        let (source, pipe) = rustix::pipe::pipe().unwrap();
        let max = 100 * (HEAD as u64 + 6);
        let mut ring = Ring::to(pipe, None, max).unwrap();
        // Nobody reads: more than the pipe and the ring hold.
        for number in 0..100_000 {
            ring.add(&line(format!("{number:06}").as_bytes()));
            ring.flush();
            assert!(ring.bytes <= max);
        }
        assert_eq!((ring.lines.len(), ring.bytes), (100, max));
        let reader = std::thread::spawn(move || written(File::from(source)));
        ring.finish();
        let text = reader.join().unwrap();
        let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.len() > 100 && numbers.iter().copied().eq(0..numbers.len() as u32), "{text}");
    }

    #[test]
    fn a_line_larger_than_all_room_is_taken_when_nothing_waits() {
        let (source, pipe) = rustix::pipe::pipe().unwrap();
        let mut ring = Ring::to(pipe, None, 0).unwrap();
        ring.add(&line(b"first"));
        ring.add(&line(b"dropped"));
        ring.flush();
        ring.add(&line(b"last"));
        ring.finish();
        assert_eq!(written(File::from(source)), "first\nlast\n");
    }

    #[test]
    fn without_its_writer_nothing_waits() {
        let (source, pipe) = rustix::pipe::pipe().unwrap();
        let mut ring = Ring::to(pipe, None, 1000).unwrap();
        drop(source);
        ring.add(&line(b"lost"));
        ring.flush();
        assert!(ring.waits_for().is_none() && ring.bytes == 0);
        ring.finish();
    }
}
