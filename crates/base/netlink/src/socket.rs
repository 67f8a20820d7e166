//! A netlink socket: sends requests and collects what the kernel answered.
#![allow(unsafe_code)]

use crate::wire::{self, HEADER, Message, Writer};
use crate::{Error, Result, namespace};
use rustix::buffer::spare_capacity;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Large enough for any datagram that the kernel makes for a dump.
const RECEIVE_BUFFER: usize = 64 << 10;
/// Room for the answers to one batch; each is at most a few hundred bytes.
const RECEIVE_QUEUE: usize = 1 << 20;
/// No batch of ours comes near; more would be a mistake.
const MAX_REQUEST: usize = 1 << 30;

/// A socket of one netlink protocol in one network namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What the kernel said to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) sequence: u32,
    /// 0 is yes.
    pub(crate) code: i32,
    pub(crate) detail: String,
}

impl Socket {
    /// Opens a socket for rtnetlink in the caller's network namespace.
    pub(crate) fn route() -> Result<Self> {
        // Its protocol is number 0, which is also what no protocol means.
        Self::open(None)
    }

    /// Opens a socket for nf_tables and conntrack in the caller's network namespace.
    pub(crate) fn netfilter() -> Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    /// Opens a socket for generic netlink in the caller's network namespace.
    pub(crate) fn generic() -> Result<Self> {
        Self::open(Some(netlink::GENERIC))
    }

    /// Opens a socket in another network namespace.
    pub(crate) fn inside(namespace: BorrowedFd<'_>, open: fn() -> Result<Self>) -> Result<Self> {
        namespace::enter(namespace, open)?
    }

    fn open(protocol: Option<net::Protocol>) -> Result<Self> {
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(|source| Error::Socket { doing: "open a socket", source: source.into() })?;
        set_option(&fd, libc::NETLINK_EXT_ACK)?;
        set_option(&fd, libc::NETLINK_CAP_ACK)?;
        Ok(Self { fd, sequence: 0, buffer: Vec::new() })
    }

    /// A number for the next request.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Sends a request that the kernel answers with yes or no.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        doing: impl Fn() -> String,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<()> {
        let sequence = self.next_sequence();
        let mut writer = Writer::default();
        writer.message(kind, flags | flag(libc::NLM_F_REQUEST | libc::NLM_F_ACK), sequence, header, fill);
        self.send(&writer, &doing)?;
        match self.answers()?.into_iter().find(|answer| answer.sequence == sequence) {
            Some(Answer { code: 0, .. }) => Ok(()),
            Some(Answer { code, detail, .. }) => {
                Err(Error::Refused { doing: doing(), source: io::Error::from_raw_os_error(code), detail })
            }
            None => Err(Error::Malformed { doing: doing(), what: "is missing" }),
        }
    }

    /// Sends a request that the kernel answers with one message, given to `read`, or with no.
    pub(crate) fn get<T>(
        &mut self,
        kind: u16,
        header: &[u8],
        doing: &str,
        fill: impl FnOnce(&mut Writer),
        read: impl FnOnce(Message<'_>) -> Option<T>,
    ) -> Result<T> {
        let sequence = self.next_sequence();
        let mut writer = Writer::default();
        writer.message(kind, flag(libc::NLM_F_REQUEST), sequence, header, fill);
        self.send(&writer, &|| doing.into())?;
        let malformed = |what| Error::Malformed { doing: doing.into(), what };
        loop {
            let datagram = self.receive()?.ok_or_else(|| malformed("is missing"))?;
            let Some(message) = wire::messages(datagram).find(|message| message.sequence == sequence) else { continue };
            if i32::from(message.kind) == libc::NLMSG_ERROR {
                return Err(refusal(&message, doing));
            }
            return read(message).ok_or_else(|| malformed("cannot be read"));
        }
    }

    /// Sends a request that the kernel answers with any number of messages, each given to `each`.
    pub(crate) fn dump(
        &mut self,
        kind: u16,
        header: &[u8],
        doing: &'static str,
        each: impl FnMut(Message<'_>),
    ) -> Result<()> {
        self.dump_of(kind, header, doing, |_| (), each)
    }

    /// The same with a request that has attributes.
    pub(crate) fn dump_of(
        &mut self,
        kind: u16,
        header: &[u8],
        doing: &str,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(Message<'_>),
    ) -> Result<()> {
        let sequence = self.next_sequence();
        let mut writer = Writer::default();
        writer.message(kind, flag(libc::NLM_F_REQUEST | libc::NLM_F_DUMP), sequence, header, fill);
        self.send(&writer, &|| doing.into())?;
        loop {
            let datagram =
                self.receive()?.ok_or_else(|| Error::Malformed { doing: doing.into(), what: "stops early" })?;
            for message in wire::messages(datagram).filter(|message| message.sequence == sequence) {
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return Err(refusal(&message, doing)),
                    _ => each(message),
                }
            }
        }
    }

    /// Sends everything in the buffer as one datagram, making the send queue larger when it has to be.
    pub(crate) fn send(&mut self, writer: &Writer, doing: &dyn Fn() -> String) -> Result<()> {
        if writer.too_large || writer.bytes.len() > MAX_REQUEST {
            return Err(Error::TooLarge { doing: doing() });
        }
        self.reserve(writer.bytes.len());
        net::send(&self.fd, &writer.bytes, SendFlags::empty()).map_err(|source| Error::Refused {
            doing: doing(),
            source: source.into(),
            detail: String::new(),
        })?;
        Ok(())
    }

    fn reserve(&self, length: usize) {
        if sockopt::socket_send_buffer_size(&self.fd).is_ok_and(|size| size / 2 > length) {
            return;
        }
        // Without the right to force it, the plain option gives what the system allows; `send` tells if that is too
        // little.
        if sockopt::set_socket_send_buffer_size_force(&self.fd, length + HEADER).is_err() {
            sockopt::set_socket_send_buffer_size(&self.fd, length + HEADER).ok();
        }
        sockopt::set_socket_recv_buffer_size_force(&self.fd, RECEIVE_QUEUE).ok();
    }

    /// All answers that wait in the queue: the kernel has put them there before `send` returned.
    pub(crate) fn answers(&mut self) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        while let Some(datagram) = self.receive()? {
            for message in wire::messages(datagram).filter(|m| i32::from(m.kind) == libc::NLMSG_ERROR) {
                let (code, detail) = verdict(&message);
                answers.push(Answer { sequence: message.sequence, code, detail });
            }
        }
        Ok(answers)
    }

    fn receive(&mut self) -> Result<Option<&[u8]>> {
        self.buffer.clear();
        // Not filled before: of a large buffer only the pages that are written to take memory.
        self.buffer.reserve_exact(RECEIVE_BUFFER);
        loop {
            match net::recv(&self.fd, spare_capacity(&mut self.buffer), RecvFlags::DONTWAIT) {
                Ok(_) => return Ok(Some(&self.buffer)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    // An idle socket keeps no buffer.
                    self.buffer = Vec::new();
                    return Ok(None);
                }
                Err(source) => return Err(Error::Socket { doing: "receive", source: source.into() }),
            }
        }
    }
}

/// The flags of a message are 16 bits wide; libc has them as `int`.
pub(crate) const fn flag(flags: i32) -> u16 {
    flags as u16
}

fn set_option(fd: &OwnedFd, option: i32) -> Result<()> {
    let on: i32 = 1;
    // SAFETY: the pointer and the length describe `on`, which lives until the call returns; the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Error::Socket { doing: "set a socket option", source: io::Error::last_os_error() })
    }
}

fn refusal(message: &Message<'_>, doing: &str) -> Error {
    let (code, detail) = verdict(message);
    Error::Refused { doing: doing.into(), source: io::Error::from_raw_os_error(code), detail }
}

/// The error number of an answer (0 is yes), and the kernel's explanation.
fn verdict(message: &Message<'_>) -> (i32, String) {
    const MESSAGE: u16 = 1;
    const CAPPED: u16 = 0x100;
    const EXPLAINED: u16 = 0x200;
    let code = wire::u32_at(message.payload, 0).map_or(libc::EPROTO, |code| (code as i32).saturating_neg());
    if message.flags & EXPLAINED == 0 {
        return (code, String::new());
    }
    // After the code comes the request's header, and without CAPPED the whole request.
    let request =
        if message.flags & CAPPED != 0 { HEADER } else { wire::u32_at(message.payload, 4).unwrap_or(0) as usize };
    let explanation = message.payload.get(4 + request.next_multiple_of(4)..).unwrap_or_default();
    (code, wire::attribute(explanation, MESSAGE).map(wire::text).unwrap_or_default())
}
