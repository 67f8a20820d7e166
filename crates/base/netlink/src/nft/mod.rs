//! nf_tables: changes to one table, all of them or none, in one `sendmsg`.
//!
//! [`Batch`] collects the changes of a transaction, [`Nftables::commit`] makes them. Numbers travel in network byte
//! order; what a packet's mark or a random number is compared with is in the machine's.

mod batch;
mod rule;
mod set;

pub use batch::{Batch, ChainKind, Hook, Policy};
pub use rule::{Connection, Register, Reject, Rule, Verdict};
pub use set::{Data, Field, Key, Set, SetName};

use crate::socket::Socket;
use crate::{Error, Result};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// The packets that a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Ip,
    Ip6,
    /// Both.
    Inet,
}

impl Family {
    /// The one of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ip } else { Self::Ip6 }
    }

    /// Whether packets with this address are of the family.
    pub fn has(self, address: IpAddr) -> bool {
        self == Self::Inet || self == Self::of(address)
    }

    /// What an address is in keys and data.
    pub fn address(self) -> Field {
        if self == Self::Ip6 { Field::Ipv6 } else { Field::Ipv4 }
    }

    /// How many registers an address takes.
    pub const fn address_registers(self) -> u32 {
        match self {
            Self::Ip6 => 4,
            Self::Ip | Self::Inet => 1,
        }
    }

    /// A rule that looks at packets of the family.
    pub fn rule(self) -> Rule {
        if self == Self::Ip6 { Rule::v6() } else { Rule::v4() }
    }

    fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
}

/// Speaks nf_tables in the network namespace where it was opened.
#[derive(Debug)]
pub struct Nftables {
    socket: Socket,
}

impl Nftables {
    /// Opens a socket in the caller's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::netfilter()? })
    }

    /// Opens a socket in another network namespace.
    pub fn in_namespace(namespace: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { socket: Socket::inside(namespace, Socket::netfilter)? })
    }

    /// Makes all changes of the batch, or none and says which one the kernel refused.
    pub fn commit(&mut self, batch: Batch) -> Result<()> {
        let Some(finished) = batch.finish() else { return Ok(()) };
        self.socket.send(&finished.writer, &|| finished.title())?;
        let answers = self.socket.answers()?;
        if let Some(refused) = answers.iter().find(|answer| answer.code != 0) {
            return Err(Error::Refused {
                doing: finished.describe(refused.sequence),
                source: io::Error::from_raw_os_error(refused.code),
                detail: refused.detail.clone(),
            });
        }
        if answers.is_empty() {
            return Err(Error::Malformed { doing: finished.title(), what: "is missing" });
        }
        Ok(())
    }

    /// Deletes a table with everything in it; no such table is success.
    pub fn remove_table(&mut self, family: Family, table: &str) -> Result<()> {
        let mut batch = Batch::new(family, table);
        batch.replace_table();
        batch.delete_table();
        self.commit(batch)
    }
}
