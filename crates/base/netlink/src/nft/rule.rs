//! Rules: a list of expressions that a packet runs through until one does not match.

use super::set::{SetName, write_value, write_verdict};
use crate::wire::Writer;
use ipnet::IpNet;
use std::net::IpAddr;

/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
/// The register of conditions that look at one thing and need it no more.
const SCRATCH: Register = Register::new(12);

/// One of the sixteen registers of 4 bytes; an IPv6 address takes four of them, and conditions overwrite 12 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    /// Register `slot`, of 0 to 15.
    pub const fn new(slot: u32) -> Self {
        assert!(slot < 16);
        Self(8 + slot)
    }

    const VERDICT: Self = Self(0);
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    /// To a chain, and back after it.
    Jump(String),
    /// To a chain, and not back.
    Goto(String),
}

impl Verdict {
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    pub(super) fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

/// How a packet is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Only for TCP: match the protocol first.
    TcpReset,
    PortUnreachable,
}

/// What connection tracking knows about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It is the first packet.
    New,
    /// It belongs to a connection that has been answered.
    Established,
    /// It begins a connection that another one asked for, or is an ICMP error about one.
    Related,
    /// Its destination was translated.
    Translated,
}

/// A rule being built. Conditions and actions happen in the order in which they are added.
#[derive(Debug)]
pub struct Rule {
    /// The expressions, written at once: a rule is built once and sent once.
    pub(super) expressions: Writer,
    v6: bool,
    pub(super) comment: Option<String>,
}

impl Rule {
    /// A rule that looks at IPv4 packets.
    pub fn v4() -> Self {
        Self { expressions: Writer::default(), v6: false, comment: None }
    }

    /// A rule that looks at IPv6 packets.
    pub fn v6() -> Self {
        Self { v6: true, ..Self::v4() }
    }

    /// A note that `nft list` shows; cut at 120 bytes.
    #[must_use]
    pub fn comment(mut self, text: &str) -> Self {
        let end = (0..=text.len().min(120)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        self.comment = Some(text[..end].to_owned());
        self
    }

    // What is loaded for lookups.

    #[must_use]
    pub fn load_source(self, target: Register) -> Self {
        let (offset, length) = if self.v6 { (8, 16) } else { (12, 4) };
        self.payload(1, offset, length, target)
    }

    #[must_use]
    pub fn load_destination(self, target: Register) -> Self {
        let (offset, length) = if self.v6 { (24, 16) } else { (16, 4) };
        self.payload(1, offset, length, target)
    }

    /// The number of the transport protocol.
    #[must_use]
    pub fn load_protocol(self, target: Register) -> Self {
        self.meta(16, target)
    }

    /// The destination port of TCP, UDP or SCTP.
    #[must_use]
    pub fn load_destination_port(self, target: Register) -> Self {
        self.payload(2, 2, 2, target)
    }

    /// A constant of at most 16 bytes.
    #[must_use]
    pub fn load(self, target: Register, value: &[u8]) -> Self {
        self.expression("immediate", |w| {
            w.u32_be(1, target.0);
            write_value(w, 2, value);
        })
    }

    /// A random number below `modulus`, in the machine's byte order.
    #[must_use]
    pub fn load_random(self, target: Register, modulus: u32) -> Self {
        self.expression("numgen", |w| {
            w.u32_be(1, target.0);
            w.u32_be(2, modulus);
            w.u32_be(3, 1);
            w.u32_be(4, 0);
        })
    }

    // Conditions.

    #[must_use]
    pub fn source_in(self, net: IpNet, inside: bool) -> Self {
        self.load_source(SCRATCH).compare_prefix(net, inside)
    }

    #[must_use]
    pub fn destination_in(self, net: IpNet, inside: bool) -> Self {
        self.load_destination(SCRATCH).compare_prefix(net, inside)
    }

    /// The transport protocol has this number.
    #[must_use]
    pub fn protocol_is(self, number: u8) -> Self {
        self.load_protocol(SCRATCH).compare(SCRATCH, EQUAL, &[number])
    }

    /// The destination port is one of `first` to `last`; match the protocol first.
    #[must_use]
    pub fn destination_port_in(self, first: u16, last: u16) -> Self {
        let loaded = self.load_destination_port(SCRATCH);
        if first == last {
            return loaded.compare(SCRATCH, EQUAL, &first.to_be_bytes());
        }
        let above = loaded.compare(SCRATCH, AT_LEAST, &first.to_be_bytes());
        above.compare(SCRATCH, AT_MOST, &last.to_be_bytes())
    }

    /// The packet is an ICMP message of this type; match the protocol first.
    #[must_use]
    pub fn icmp_type_is(self, number: u8) -> Self {
        self.payload(2, 0, 1, SCRATCH).compare(SCRATCH, EQUAL, &[number])
    }

    #[must_use]
    pub fn input_is(self, link: &str, expected: bool) -> Self {
        self.meta(6, SCRATCH).compare_name(link, expected)
    }

    #[must_use]
    pub fn output_is(self, link: &str, expected: bool) -> Self {
        self.meta(7, SCRATCH).compare_name(link, expected)
    }

    /// The source is an address of this host.
    #[must_use]
    pub fn source_is_local(self) -> Self {
        self.address_is_local(1)
    }

    /// The destination is an address of this host.
    #[must_use]
    pub fn destination_is_local(self) -> Self {
        self.address_is_local(2)
    }

    #[must_use]
    pub fn connection_is(self, what: Connection, expected: bool) -> Self {
        const STATE: u32 = 0;
        const STATUS: u32 = 2;
        let (key, bits) = match what {
            Connection::Established => (STATE, 2),
            Connection::Related => (STATE, 4),
            Connection::New => (STATE, 8),
            Connection::Translated => (STATUS, 32),
        };
        self.expression("ct", |w| {
            w.u32_be(1, SCRATCH.0);
            w.u32_be(2, key);
        })
        .has_bits(bits, expected)
    }

    /// The packet's mark has these bits.
    #[must_use]
    pub fn mark_has(self, bits: u32, expected: bool) -> Self {
        self.meta(3, SCRATCH).has_bits(bits, expected)
    }

    /// The key in `register` and those after it is in the set.
    #[must_use]
    pub fn lookup(self, set: SetName<'_>, register: Register, expected: bool) -> Self {
        self.look(set, register, None, !expected)
    }

    /// Loads the data of the key in `register`; does not match without such a key.
    #[must_use]
    pub fn lookup_into(self, map: SetName<'_>, register: Register, target: Register) -> Self {
        self.look(map, register, Some(target), false)
    }

    /// Follows the verdict of the key in `register`, if there is such a key.
    #[must_use]
    pub fn lookup_verdict(self, map: SetName<'_>, register: Register) -> Self {
        self.look(map, register, Some(Register::VERDICT), false)
    }

    // Actions.

    /// Adds the key in `register` to a set with a timeout, or starts its time anew.
    #[must_use]
    pub fn remember(self, set: SetName<'_>, register: Register, timeout_ms: u64) -> Self {
        self.expression("dynset", |w| {
            set.write(w, 1, 2);
            w.u32_be(3, 1);
            w.u32_be(4, register.0);
            w.u64_be(6, timeout_ms);
        })
    }

    #[must_use]
    pub fn set_mark_bits(self, bits: u32) -> Self {
        self.change_mark(!bits, bits)
    }

    #[must_use]
    pub fn clear_mark_bits(self, bits: u32) -> Self {
        self.change_mark(!bits, 0)
    }

    /// Sends the packet to the address, and the port, in these registers.
    #[must_use]
    pub fn translate_destination(self, address: Register, port: Option<Register>) -> Self {
        const DESTINATION: u32 = 1;
        let family = if self.v6 { 10 } else { 2 };
        self.expression("nat", |w| {
            w.u32_be(1, DESTINATION);
            w.u32_be(2, family);
            w.u32_be(3, address.0);
            if let Some(port) = port {
                w.u32_be(5, port.0);
            }
        })
    }

    /// Gives the packet the address of the link that it leaves by, and a random port.
    #[must_use]
    pub fn masquerade(self) -> Self {
        const RANDOM_FULLY: u32 = 1 << 4;
        self.expression("masq", |w| w.u32_be(1, RANDOM_FULLY))
    }

    #[must_use]
    pub fn reject(self, how: Reject) -> Self {
        let port_unreachable = if self.v6 { 4 } else { 3 };
        self.expression("reject", |w| match how {
            Reject::TcpReset => w.u32_be(1, 1),
            Reject::PortUnreachable => {
                w.u32_be(1, 0);
                w.u8(2, port_unreachable);
            }
        })
    }

    /// Counts packets and bytes.
    #[must_use]
    pub fn counter(self) -> Self {
        self.expression("counter", |_| ())
    }

    #[must_use]
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", |w| {
            w.u32_be(1, Register::VERDICT.0);
            write_verdict(w, 2, verdict);
        })
    }

    // The expressions that the others are made of; the numbers are those of linux/netfilter/nf_tables.h.

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Writer)) -> Self {
        self.expressions.nest(LIST_ELEMENT, |w| {
            w.string(1, name);
            w.nest(2, fill);
        });
        self
    }

    fn payload(self, base: u32, offset: u32, length: u32, target: Register) -> Self {
        self.expression("payload", |w| {
            w.u32_be(1, target.0);
            w.u32_be(2, base);
            w.u32_be(3, offset);
            w.u32_be(4, length);
        })
    }

    fn meta(self, key: u32, target: Register) -> Self {
        self.expression("meta", |w| {
            w.u32_be(1, target.0);
            w.u32_be(2, key);
        })
    }

    fn bitwise(self, register: Register, mask: &[u8], xor: &[u8]) -> Self {
        self.expression("bitwise", |w| {
            w.u32_be(1, register.0);
            w.u32_be(2, register.0);
            w.u32_be(3, mask.len() as u32);
            write_value(w, 4, mask);
            write_value(w, 5, xor);
        })
    }

    fn compare(self, register: Register, operation: u32, value: &[u8]) -> Self {
        self.expression("cmp", |w| {
            w.u32_be(1, register.0);
            w.u32_be(2, operation);
            write_value(w, 3, value);
        })
    }

    fn compare_prefix(self, net: IpNet, inside: bool) -> Self {
        let operation = if inside { EQUAL } else { NOT_EQUAL };
        match (net.netmask(), net.network()) {
            (IpAddr::V4(mask), IpAddr::V4(network)) => {
                self.bitwise(SCRATCH, &mask.octets(), &[0; 4]).compare(SCRATCH, operation, &network.octets())
            }
            (IpAddr::V6(mask), IpAddr::V6(network)) => {
                self.bitwise(SCRATCH, &mask.octets(), &[0; 16]).compare(SCRATCH, operation, &network.octets())
            }
            // A mask and its network are of one family.
            _ => self,
        }
    }

    fn compare_name(self, link: &str, expected: bool) -> Self {
        let mut padded = [0; libc::IFNAMSIZ];
        // A name that fills all sixteen bytes does not exist; the last one stays zero.
        let length = link.len().min(libc::IFNAMSIZ - 1);
        padded[..length].copy_from_slice(&link.as_bytes()[..length]);
        self.compare(SCRATCH, if expected { EQUAL } else { NOT_EQUAL }, &padded)
    }

    fn address_is_local(self, which: u32) -> Self {
        const ADDRESS_TYPE: u32 = 3;
        let local = u32::from(libc::RTN_LOCAL);
        self.expression("fib", |w| {
            w.u32_be(1, SCRATCH.0);
            w.u32_be(2, ADDRESS_TYPE);
            w.u32_be(3, which);
        })
        .compare(SCRATCH, EQUAL, &local.to_ne_bytes())
    }

    fn has_bits(self, bits: u32, expected: bool) -> Self {
        let operation = if expected { NOT_EQUAL } else { EQUAL };
        self.bitwise(SCRATCH, &bits.to_ne_bytes(), &[0; 4]).compare(SCRATCH, operation, &[0; 4])
    }

    fn change_mark(self, mask: u32, xor: u32) -> Self {
        self.meta(3, SCRATCH).bitwise(SCRATCH, &mask.to_ne_bytes(), &xor.to_ne_bytes()).expression("meta", |w| {
            w.u32_be(2, 3);
            w.u32_be(3, SCRATCH.0);
        })
    }

    fn look(self, set: SetName<'_>, register: Register, target: Option<Register>, inverted: bool) -> Self {
        self.expression("lookup", |w| {
            set.write(w, 1, 4);
            w.u32_be(2, register.0);
            if let Some(target) = target {
                w.u32_be(3, target.0);
            }
            if inverted {
                w.u32_be(5, 1);
            }
        })
    }
}
