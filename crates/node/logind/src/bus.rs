//! A connection to a D-Bus daemon: who we are, calls and their answers, signals in the order in which they came.

use crate::wire::{BadMessage, Kind, MAX_MESSAGE, Message, PRELUDE, Value};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an answer may take; as the reference library has it.
const PATIENCE: Duration = Duration::from_secs(25);
/// The longest line of the handshake, in bytes.
const MAX_LINE: usize = 4 << 10;
/// Signals that wait to be taken; more are passed over.
const MAX_SIGNALS: usize = 64;
/// Descriptors that one message brings, or that wait for theirs.
const MAX_FILES: usize = 4;

/// Why the bus is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    #[error("cannot connect to the system bus at {path:?}: {source}")]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the system bus does not let us in: {0:?}")]
    Refused(String),
    #[error("the connection to the system bus is broken: {0}")]
    Io(#[from] io::Error),
    #[error("the system bus says what can't be read: {0}")]
    Message(#[from] BadMessage),
    #[error("{method} has no answer after {}s", PATIENCE.as_secs())]
    Silent { method: String },
    #[error("{method}: {error}: {text}")]
    Said { method: String, error: String, text: String },
}

/// An answer: its values, and the descriptors that came with it.
pub(crate) type Answer = (Vec<Value>, Vec<OwnedFd>);

/// A connection. What was read and not taken is kept in it, so a call or a wait may be given up at any time.
pub(crate) struct Bus {
    stream: UnixStream,
    incoming: Vec<u8>,
    files: VecDeque<OwnedFd>,
    signals: VecDeque<Message>,
    serial: u32,
}

impl Bus {
    pub(crate) async fn connect(path: &Path) -> Result<Self, BusError> {
        let connect = UnixStream::connect(path).await;
        let stream = connect.map_err(|source| BusError::Connect { path: path.to_owned(), source })?;
        let (incoming, files, signals) = Default::default();
        let mut bus = Self { stream, incoming, files, signals, serial: 0 };
        let opened = timeout(PATIENCE, bus.open()).await;
        opened.map_err(|_| BusError::Silent { method: "the handshake".to_owned() })??;
        Ok(bus)
    }

    /// Says who we are by the credentials of the socket, and that descriptors are understood.
    async fn open(&mut self) -> Result<(), BusError> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).await?;
        self.expect("OK").await?;
        self.stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
        self.expect("AGREE_UNIX_FD").await?;
        self.stream.write_all(b"BEGIN\r\n").await?;
        let own = "org.freedesktop.DBus";
        self.call((own, "/org/freedesktop/DBus", own), "Hello", vec![]).await.map(drop)
    }

    async fn expect(&mut self, word: &str) -> Result<(), BusError> {
        let end = loop {
            if let Some(end) = self.incoming.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            if self.incoming.len() > MAX_LINE {
                return Err(BadMessage("a line of the handshake is too long").into());
            }
            self.fill().await?;
        };
        let line = String::from_utf8_lossy(&self.incoming[..end]).into_owned();
        self.incoming.drain(..end + 2);
        if line.split(' ').next() == Some(word) { Ok(()) } else { Err(BusError::Refused(line)) }
    }

    /// Calls a method of `(destination, path, interface)`; signals that come meanwhile are kept.
    pub(crate) async fn call(
        &mut self,
        (destination, path, interface): (&str, &str, &str),
        member: &str,
        body: Vec<Value>,
    ) -> Result<Answer, BusError> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let method = format!("{interface}.{member}");
        let call = Message {
            kind: Kind::Call,
            serial: self.serial,
            path: path.to_owned(),
            interface: interface.to_owned(),
            member: member.to_owned(),
            destination: destination.to_owned(),
            body,
            ..Message::default()
        };
        let exchange = async {
            self.stream.write_all(&call.encode()).await?;
            self.answer(call.serial).await
        };
        let answered = timeout(PATIENCE, exchange).await;
        let (answer, files) = answered.map_err(|_| BusError::Silent { method: method.clone() })??;
        if answer.kind == Kind::Error {
            let text = match answer.body.into_iter().next() {
                Some(Value::Text(text)) => text,
                _ => String::new(),
            };
            return Err(BusError::Said { method, error: answer.error, text });
        }
        Ok((answer.body, files))
    }

    async fn answer(&mut self, serial: u32) -> Result<(Message, Vec<OwnedFd>), BusError> {
        loop {
            let (message, files) = self.message().await?;
            match message.kind {
                Kind::Reply | Kind::Error if message.reply_to == serial => return Ok((message, files)),
                Kind::Signal if self.signals.len() < MAX_SIGNALS => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(crate) async fn signal(&mut self) -> Result<Message, BusError> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            let (message, _) = self.message().await?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }

    async fn message(&mut self) -> Result<(Message, Vec<OwnedFd>), BusError> {
        loop {
            if let Some(prelude) = self.incoming.first_chunk::<PRELUDE>() {
                let length = Message::length(prelude)?;
                if self.incoming.len() >= length {
                    let message = Message::decode(&self.incoming[..length])?;
                    self.incoming.drain(..length);
                    let count = (message.files as usize).min(self.files.len());
                    return Ok((message, self.files.drain(..count).collect()));
                }
            }
            self.fill().await?;
        }
    }

    /// Reads what is there, with the descriptors that come along.
    async fn fill(&mut self) -> Result<(), BusError> {
        let mut bytes = [0; 4 << 10];
        let stream = &self.stream;
        let read = stream.async_io(Interest::READABLE, || receive(stream, &mut bytes)).await;
        let (count, files) = read?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.incoming.extend_from_slice(&bytes[..count]);
        self.files.extend(files);
        // Those that no message claims are closed.
        self.files.truncate(MAX_FILES);
        debug_assert!(self.incoming.len() <= MAX_MESSAGE + bytes.len() + MAX_LINE);
        Ok(())
    }
}

fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = rustix::net::recvmsg(stream.as_fd(), &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors);
        }
    }
    Ok((received.bytes, files))
}
