//! Generic netlink: protocols that the kernel numbers as they are loaded, found by their names.

use crate::socket::Socket;
use crate::wire::{self, Message, Writer};
use crate::{Error, Result};

/// The protocol that knows all others (linux/genetlink.h), its only request of ours, and attributes.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Bytes of `struct genlmsghdr`.
pub(crate) const HEADER: usize = 4;

/// A socket for one such protocol.
#[derive(Debug)]
pub(crate) struct Generic {
    socket: Socket,
    family: u16,
}

/// `struct genlmsghdr`.
pub(crate) const fn header(command: u8, version: u8) -> [u8; HEADER] {
    [command, version, 0, 0]
}

impl Generic {
    /// Finds the protocol of this name; the kernel loads its module if there is one.
    ///
    /// # Errors
    /// That nothing is found ([`Error::is_not_found`]) where the kernel has no such protocol.
    pub(crate) fn open(mut socket: Socket, name: &str) -> Result<Self> {
        let doing = format!("look up the generic netlink family {name}");
        let fill = |w: &mut Writer| w.string(FAMILY_NAME, name);
        let family = socket.get(CONTROL, &header(GET_FAMILY, 1), &doing, fill, |message| number(&message))?;
        Ok(Self { socket, family })
    }

    /// Sends a request that the kernel answers with yes or no.
    pub(crate) fn request(
        &mut self,
        header: [u8; HEADER],
        doing: impl Fn() -> String,
        fill: impl FnOnce(&mut Writer),
    ) -> Result<()> {
        self.socket.request(self.family, 0, &header, doing, fill)
    }

    /// Sends a request that the kernel answers with any number of messages; `each` gets their attributes.
    pub(crate) fn dump(
        &mut self,
        header: [u8; HEADER],
        doing: &str,
        fill: impl FnOnce(&mut Writer),
        mut each: impl FnMut(&[u8]),
    ) -> Result<()> {
        let mut short = false;
        self.socket.dump_of(self.family, &header, doing, fill, |message| match message.payload.get(HEADER..) {
            Some(attributes) => each(attributes),
            None => short = true,
        })?;
        if short { Err(Error::Malformed { doing: doing.into(), what: "is too short" }) } else { Ok(()) }
    }
}

fn number(message: &Message<'_>) -> Option<u16> {
    wire::u16_at(wire::attribute(message.payload.get(HEADER..)?, FAMILY_ID)?, 0)
}
