//! Clients that joined a container's stdio, each by pipes of its own.

use std::io;
use std::os::fd::OwnedFd;

/// A pipe to a client. What it does not take at once waits here, and the container's output with it: a client gets
/// all or is cut off, and a container never fills the shim's memory.
#[derive(Debug)]
pub struct Sink {
    pub fd: OwnedFd,
    pending: Vec<u8>,
}

impl Sink {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, pending: Vec::new() }
    }

    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// # Errors
    /// The client is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        self.flush()
    }

    /// Writes what waits, as far as the pipe takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = write_some(&self.fd, &self.pending)?;
        self.pending.drain(..written);
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        Ok(())
    }
}

/// A client.
#[derive(Debug, Default)]
pub struct Attachment {
    /// To read from; none once it ended.
    pub stdin: Option<OwnedFd>,
    /// Stdout and stderr.
    pub outputs: [Option<Sink>; 2],
}

impl Attachment {
    /// Nobody is on the other side any more.
    pub fn is_over(&self) -> bool {
        self.stdin.is_none() && self.outputs.iter().all(Option::is_none)
    }
}

/// Writes to a non-blocking descriptor until it takes no more; how many bytes it took.
pub fn write_some(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(fd, &bytes[written..]) {
            Ok(count) => written += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(written)
}

/// What a read from a non-blocking descriptor gave.
pub enum ReadOutcome {
    Bytes(usize),
    Nothing,
    End,
}

pub fn read_some(fd: &OwnedFd, buffer: &mut [u8]) -> ReadOutcome {
    loop {
        match rustix::io::read(fd, &mut *buffer) {
            Ok(0) => return ReadOutcome::End,
            Ok(count) => return ReadOutcome::Bytes(count),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return ReadOutcome::Nothing,
            // EIO: all user ends of a terminal are closed.
            Err(_) => return ReadOutcome::End,
        }
    }
}
