//! Sends and receives messages with descriptors over a unix stream socket, without ever waiting.
//!
//! On the wire a message is its length (four bytes, big endian), the number of its descriptors (one byte) and its
//! bytes; the descriptors travel with the first byte (SCM_RIGHTS, unix(7)). Both halves keep what is incomplete, so
//! a poll loop and an asynchronous one use them alike.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A message is at most this long: an environment can be some megabytes.
pub const MAX_BYTES: usize = 16 << 20;
/// And carries at most so many descriptors.
pub const MAX_DESCRIPTORS: usize = 8;
const HEADER: usize = 5;

/// A message and the descriptors that came with it.
#[derive(Debug, Default)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// Puts messages together from what arrives.
#[derive(Debug, Default)]
pub struct Receiver {
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Receiver {
    /// Reads once from a non-blocking socket. False is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing now.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut bytes = [0; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = rustix::net::recvmsg(socket, &mut slices, &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.buffer.extend_from_slice(&bytes[..received.bytes]);
        Ok(received.bytes > 0)
    }

    /// The next whole message.
    ///
    /// # Errors
    /// The other side does not keep to the protocol; the connection is of no use any more.
    pub fn pop(&mut self) -> io::Result<Option<Frame>> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let count = header[4] as usize;
        if length > MAX_BYTES || count > MAX_DESCRIPTORS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message is too long or has too many descriptors",
            ));
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        if self.descriptors.len() < count {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message came without its descriptors"));
        }
        let bytes = self.buffer[HEADER..HEADER + length].to_vec();
        self.buffer.drain(..HEADER + length);
        if self.buffer.is_empty() {
            // A large message must not keep its memory for good.
            self.buffer = Vec::new();
        }
        Ok(Some(Frame { bytes, descriptors: self.descriptors.drain(..count).collect() }))
    }
}

/// Holds messages until the socket takes them.
#[derive(Debug, Default)]
pub struct Sender {
    queue: VecDeque<Outgoing>,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Sender {
    /// Queues a message; `flush` sends it.
    pub fn push(&mut self, frame: Frame) {
        debug_assert!(frame.bytes.len() <= MAX_BYTES && frame.descriptors.len() <= MAX_DESCRIPTORS);
        let mut bytes = Vec::with_capacity(HEADER + frame.bytes.len());
        bytes.extend_from_slice(&(frame.bytes.len() as u32).to_be_bytes());
        bytes.push(frame.descriptors.len() as u8);
        bytes.extend_from_slice(&frame.bytes);
        self.queue.push_back(Outgoing { bytes, sent: 0, descriptors: frame.descriptors });
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Sends what the socket takes now. What is left waits for the socket to become writable.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while let Some(first) = self.queue.front_mut() {
            match send_some(socket, first) {
                Ok(sent) => {
                    first.sent += sent;
                    first.descriptors.clear();
                    if first.sent == first.bytes.len() {
                        self.queue.pop_front();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn send_some(socket: BorrowedFd<'_>, outgoing: &Outgoing) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = outgoing.descriptors.iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    let slices = [IoSlice::new(&outgoing.bytes[outgoing.sent..])];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::net::sendmsg(socket, &slices, &mut control, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn messages_and_their_descriptors_arrive_in_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        let (mut reader, writer) = std::io::pipe().unwrap();
        sender.push(Frame { bytes: b"first".to_vec(), descriptors: vec![writer.into()] });
        sender.push(Frame { bytes: vec![7; 300_000], descriptors: vec![] });
        let mut got = Vec::new();
        while got.len() < 2 {
            sender.flush(left.as_fd()).unwrap();
            assert!(receiver.receive(right.as_fd()).unwrap());
            got.extend(receiver.pop().unwrap());
        }
        assert_eq!((got[0].bytes.as_slice(), got[1].bytes.len()), (&b"first"[..], 300_000));
        let mut writer = std::fs::File::from(got.remove(0).descriptors.remove(0));
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_message_that_says_it_is_huge_is_refused() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&[0xff; 5]).unwrap();
        let mut receiver = Receiver::default();
        receiver.receive(right.as_fd()).unwrap();
        assert!(receiver.pop().is_err());
    }
}
