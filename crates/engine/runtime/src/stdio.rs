//! Streams of processes that a client holds: pipes, terminals, and who waits for the exit.

use parking_lot::Mutex;
use pintle_cri::{ByteReader, ByteWriter, CriResult};
use pintle_linux::pty;
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// Processes of a shim that someone waits for, by their ids.
#[derive(Debug)]
pub struct Exits(Mutex<Option<HashMap<String, oneshot::Sender<i32>>>>);

impl Default for Exits {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Exits {
    /// To be called before the process is asked for. The channel ends without a code when the shim goes.
    pub fn expect(&self, exec: &str) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        if let Some(waiting) = self.0.lock().as_mut() {
            waiting.insert(exec.to_owned(), sender);
        }
        receiver
    }

    pub fn ended(&self, exec: &str, code: i32) {
        let sender = self.0.lock().as_mut().and_then(|waiting| waiting.remove(exec));
        if let Some(sender) = sender {
            // Nobody waits any more.
            let _ = sender.send(code);
        }
    }

    /// It was not started after all.
    pub fn forget(&self, exec: &str) {
        if let Some(waiting) = self.0.lock().as_mut() {
            waiting.remove(exec);
        }
    }

    pub fn close(&self) {
        *self.0.lock() = None;
    }
}

/// Pipes for a client and the ends that go to the process, in the order stdin, stdout, stderr.
#[derive(Default)]
pub struct Pipes {
    pub stdin: Option<ByteWriter>,
    pub stdout: Option<ByteReader>,
    pub stderr: Option<ByteReader>,
    pub for_process: Vec<OwnedFd>,
}

impl Pipes {
    pub fn new(stdin: bool, stdout: bool, stderr: bool) -> CriResult<Self> {
        Self::try_new(stdin, stdout, stderr).map_err(|e| crate::error::internal("make pipes", e))
    }

    fn try_new(stdin: bool, stdout: bool, stderr: bool) -> io::Result<Self> {
        let mut pipes = Self::default();
        if stdin {
            let (reader, writer) = io::pipe()?;
            pipes.for_process.push(reader.into());
            pipes.stdin = Some(Box::new(pipe::Sender::from_owned_fd(writer.into())?));
        }
        let mut output = |wanted: bool| -> io::Result<Option<ByteReader>> {
            if !wanted {
                return Ok(None);
            }
            let (reader, writer) = io::pipe()?;
            pipes.for_process.push(writer.into());
            Ok(Some(Box::new(pipe::Receiver::from_owned_fd(reader.into())?)))
        };
        pipes.stdout = output(stdout)?;
        pipes.stderr = output(stderr)?;
        Ok(pipes)
    }
}

/// The controlling end of a terminal. Cheap to clone.
#[derive(Clone)]
pub struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    // Deprecated for types whose descriptor may change under its hands; an `OwnedFd` is not such a type.
    #[allow(deprecated)]
    pub fn new(controller: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&controller, true)?;
        Ok(Self(Arc::new(AsyncFd::new(controller)?)))
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        // A terminal whose process has ended has no size any more.
        let _ = pty::resize(self.0.get_ref(), columns, rows);
    }
}

impl AsRawFd for Terminal {
    fn as_raw_fd(&self) -> RawFd {
        self.0.get_ref().as_raw_fd()
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let mut read = |fd: &AsyncFd<OwnedFd>| match rustix::io::read(fd.get_ref(), buf.initialize_unfilled()) {
                // All user ends are closed: that is how a terminal ends.
                Err(Errno::IO) => Ok(0),
                other => other.map_err(io::Error::from),
            };
            match guard.try_io(&mut read) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(e)) => return Poll::Ready(Err(e)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            let written = guard.try_io(|fd| rustix::io::write(fd.get_ref(), bytes).map_err(io::Error::from));
            if let Ok(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
