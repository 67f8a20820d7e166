//! Talks to a sandbox's shim: starts it, connects, sends calls, passes on what it tells unasked.
//!
//! One task per connection owns the socket. It ends when the shim's side closes, which is how the engine learns that
//! a shim is gone, or when the client is dropped.

use crate::stdio::Exits;
use pintle_linux::frame::{Frame, Receiver, Sender};
use pintle_linux::{Context, Result};
use pintle_shim::protocol::{Answer, Call, Failure, FromShim, Request};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// What a shim tells without being asked.
#[derive(Debug)]
pub enum Told {
    Message(FromShim),
    /// The connection ended: the shim is gone, or going.
    Closed,
}

/// An answer and the descriptor that may come with it.
pub type Answered = std::result::Result<(Answer, Option<OwnedFd>), Failure>;

/// A connection to a shim.
#[derive(Debug)]
pub struct ShimClient {
    calls: mpsc::UnboundedSender<Outgoing>,
    /// Those who wait for processes that `Exec` started.
    pub exits: Arc<Exits>,
}

#[derive(Debug)]
struct Outgoing {
    request: Request,
    descriptors: Vec<OwnedFd>,
    answer: oneshot::Sender<Answered>,
}

/// Starts a shim that listens at `socket`, with its complaints going to `log`. The socket is bound here, with its
/// mode, before the shim runs: whoever connects next cannot come too early.
///
/// # Errors
/// The socket cannot be bound, or the program not be executed.
pub fn spawn(program: &File, socket: &Path, log: &Path) -> Result<()> {
    let listener = listen(socket)?;
    let log = File::options().append(true).create(true).open(log).context(|| format!("open {}", log.display()))?;
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let mut command = tokio::process::Command::new(path);
    // The argument is for who lists processes: it says whose shim this is.
    command.arg0("pintle-shim").arg(socket.parent().unwrap_or(socket)).env_clear().current_dir("/").kill_on_drop(false);
    command.stdin(listener).stdout(Stdio::null()).stderr(log);
    // Reaped by the runtime's orphan queue while this process lives, by init afterwards.
    command.spawn().map(drop).context(|| "start a shim")
}

fn listen(path: &Path) -> Result<OwnedFd> {
    let what = || format!("listen on {}", path.display());
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).context(what)?;
    // The file gets the mode of the socket, so at no moment is it open to others.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).context(what)?;
    let (_directory, address) = short_address(path).context(what)?;
    rustix::net::bind(&socket, &address).context(what)?;
    rustix::net::listen(&socket, 8).context(what)?;
    Ok(socket)
}

/// An address of a socket holds 107 bytes of path, and ids are long: the directory is named by a descriptor, which must
/// stay open while the address is used.
fn short_address(path: &Path) -> std::io::Result<(OwnedFd, SocketAddrUnix)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(parent, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((directory, SocketAddrUnix::new(&short)?))
}

/// Connects to a socket, however long its path.
fn connect(path: &Path) -> std::io::Result<std::os::unix::net::UnixStream> {
    let (_directory, address) = short_address(path)?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

impl ShimClient {
    /// Connects to a shim. What it tells goes to `told`, which is called by one task, in order.
    pub fn connect(socket: &Path, exits: Arc<Exits>, told: impl FnMut(Told) + Send + 'static) -> Result<Self> {
        let stream = connect(socket).context(|| format!("connect to {}", socket.display()))?;
        stream.set_nonblocking(true).context(|| "make a socket non-blocking")?;
        let stream = UnixStream::from_std(stream).context(|| "watch a socket")?;
        let (calls, queue) = mpsc::unbounded_channel();
        tokio::spawn(serve(stream, queue, told));
        Ok(Self { calls, exits })
    }

    /// Sends a request and waits for its answer.
    pub async fn call(&self, request: Request, descriptors: Vec<OwnedFd>) -> Answered {
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::other("the sandbox's shim is gone");
        self.calls.send(Outgoing { request, descriptors, answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// The same where only success matters.
    pub async fn ask(&self, request: Request) -> std::result::Result<(), Failure> {
        self.call(request, Vec::new()).await.map(drop)
    }
}

struct Connection<F> {
    receiver: Receiver,
    sender: Sender,
    waiting: HashMap<u64, oneshot::Sender<Answered>>,
    next: u64,
    told: F,
}

async fn serve(
    stream: UnixStream,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    told: impl FnMut(Told) + Send + 'static,
) {
    let (receiver, sender) = (Receiver::default(), Sender::default());
    let mut connection = Connection { receiver, sender, waiting: HashMap::new(), next: 0, told };
    loop {
        let alive = tokio::select! {
            outgoing = queue.recv() => match outgoing {
                Some(outgoing) => connection.send(outgoing, &stream),
                // The client was dropped: nobody wants to hear of this shim any more.
                None => return,
            },
            ready = stream.readable() => ready.is_ok() && connection.receive(&stream),
            ready = stream.writable(), if !connection.sender.is_empty() => ready.is_ok() && connection.flush(&stream),
        };
        if !alive {
            // Those who wait learn it by their channels' end.
            connection.waiting.clear();
            (connection.told)(Told::Closed);
            return;
        }
    }
}

impl<F: FnMut(Told)> Connection<F> {
    fn send(&mut self, outgoing: Outgoing, stream: &UnixStream) -> bool {
        self.next += 1;
        let call = Call { number: self.next, request: outgoing.request };
        match serde_json::to_vec(&call) {
            Ok(bytes) if bytes.len() <= pintle_linux::frame::MAX_BYTES => {
                self.waiting.insert(self.next, outgoing.answer);
                self.sender.push(Frame { bytes, descriptors: outgoing.descriptors });
                self.flush(stream)
            }
            _ => {
                // The caller may have gone.
                let _ = outgoing.answer.send(Err(Failure::other("the request is too large for the shim")));
                true
            }
        }
    }

    /// False when the connection is of no use any more, here and below.
    fn flush(&mut self, stream: &UnixStream) -> bool {
        let flushed = stream.try_io(Interest::WRITABLE, || {
            self.sender.flush(stream.as_fd())?;
            // Tells the runtime to wait until the socket takes more.
            if self.sender.is_empty() { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
        });
        flushed.is_ok() || flushed.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }

    fn receive(&mut self, stream: &UnixStream) -> bool {
        loop {
            match stream.try_io(Interest::READABLE, || self.receiver.receive(stream.as_fd())) {
                Ok(true) => {
                    if !self.hear() {
                        return false;
                    }
                }
                Ok(false) => return false,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn hear(&mut self) -> bool {
        loop {
            let frame = match self.receiver.pop() {
                Ok(Some(frame)) => frame,
                Ok(None) => return true,
                Err(_) => return false,
            };
            match serde_json::from_slice(&frame.bytes) {
                Ok(FromShim::Reply { number, result }) => {
                    let descriptor = frame.descriptors.into_iter().next();
                    if let Some(waiting) = self.waiting.remove(&number) {
                        // The caller may have gone.
                        let _ = waiting.send(result.map(|answer| (answer, descriptor)));
                    }
                }
                Ok(message) => (self.told)(Told::Message(message)),
                Err(error) => {
                    tracing::warn!(%error, "a shim sent what cannot be read");
                    return false;
                }
            }
        }
    }
}

/// The answer to a request that starts something.
pub fn started(answer: Answer) -> std::result::Result<pintle_shim::protocol::Started, Failure> {
    match answer {
        Answer::Started(started) => Ok(started),
        other => Err(Failure::other(format!("the shim answered {other:?}"))),
    }
}
