//! Hands a terminal's controlling end over a socket, and joins one with the caller's terminal.

use crate::{Error, Result, refuse};
use pintle_linux::{Context, pty};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::termios::{OptionalActions, Termios};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Sends a descriptor, with the name that receivers such as containerd's expect beside it.
pub fn send(socket: &UnixStream, controller: BorrowedFd<'_>) -> pintle_linux::Result<()> {
    let descriptors = [controller];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(socket, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL)
        .context(|| "send the terminal to the console socket")?;
    Ok(())
}

/// Receives what `send` sent.
pub fn receive(socket: &UnixStream) -> Result<OwnedFd> {
    let (mut name, mut space) = ([0; 64], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .context(|| "receive the terminal")?;
    for message in control.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(controller) = descriptors.next()
        {
            return Ok(controller);
        }
    }
    refuse("the container sent no terminal")
}

/// Connects to the socket of `--console-socket`.
pub fn connect(path: &str) -> Result<UnixStream> {
    UnixStream::connect(path).map_err(|e| Error::new(format!("connect to the console socket {path}: {e}")))
}

/// The caller's terminal in raw mode, joined with a container's. It is as before when this is dropped.
pub struct Relay {
    pub controller: OwnedFd,
    before: Option<Termios>,
    input_open: bool,
}

impl Relay {
    pub fn new(controller: OwnedFd) -> Self {
        let before = rustix::termios::tcgetattr(rustix::stdio::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // Then the terminal echoes twice; nothing worse.
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw);
        }
        let relay = Self { controller, before, input_open: true };
        relay.resize();
        relay
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
            // It may have ended.
            let _ = pty::resize(&self.controller, size.ws_col, size.ws_row);
        }
    }

    /// What to wait for beside other things.
    pub fn watched(&self) -> Vec<PollFd<'_>> {
        let input = if self.input_open { PollFlags::IN } else { PollFlags::empty() };
        vec![
            PollFd::from_borrowed_fd(self.controller.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(rustix::stdio::stdin(), input),
        ]
    }

    /// Copies what is there. False when the container's side has ended.
    pub fn copy(&mut self, output_ready: bool, input_ready: bool) -> bool {
        let mut buffer = [0; 8192];
        if input_ready && self.input_open {
            match rustix::io::read(rustix::stdio::stdin(), &mut buffer[..]) {
                Ok(count) if count > 0 => write_all(self.controller.as_fd(), &buffer[..count]),
                _ => self.input_open = false,
            }
        }
        if !output_ready {
            return true;
        }
        match rustix::io::read(&self.controller, &mut buffer[..]) {
            Ok(count) if count > 0 => {
                write_all(rustix::stdio::stdout(), &buffer[..count]);
                true
            }
            _ => false,
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // There is nothing else to try.
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}

/// What cannot be written has no reader.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
