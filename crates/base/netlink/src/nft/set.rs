//! Sets and maps: what their keys are made of, and the bytes of keys and data.

use super::rule::Verdict;
use crate::wire::Writer;
use std::net::IpAddr;

/// A part of a key or of data. A key may be several, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Ipv4,
    Ipv6,
    /// The number of a transport protocol.
    Protocol,
    Port,
    Mark,
    /// 32 bits in the machine's byte order.
    Number,
}

impl Field {
    fn length(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Port => 2,
            Self::Ipv4 | Self::Mark | Self::Number => 4,
            Self::Ipv6 => 16,
        }
    }

    /// The number by which `nft list` knows how to print it (the kernel does not care).
    fn datatype(self) -> u32 {
        match self {
            Self::Number => 4,
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
        }
    }
}

/// What a set holds for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Only the key: a plain set.
    Nothing,
    Verdict,
    Fields(&'a [Field]),
}

/// A set or map to make.
#[derive(Clone, Copy, Debug)]
pub struct Set<'a> {
    pub key: &'a [Field],
    pub data: Data<'a>,
    /// Rules may add elements, which vanish after this many milliseconds without an update.
    pub timeout_ms: Option<u64>,
}

/// Which set a rule or an element means.
#[derive(Clone, Copy, Debug)]
pub enum SetName<'a> {
    Named(&'a str),
    /// Made in the same batch for one rule; lives and dies with it.
    Anonymous(u32),
}

impl SetName<'_> {
    pub(super) fn write(self, writer: &mut Writer, name_attribute: u16, id_attribute: u16) {
        match self {
            Self::Named(name) => writer.string(name_attribute, name),
            Self::Anonymous(id) => {
                writer.string(name_attribute, "__map%d");
                writer.u32_be(id_attribute, id);
            }
        }
    }
}

/// The bytes of a key or of data, each field filled up to 4 bytes as in the kernel's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    bytes: [u8; 32],
    length: u8,
}

impl Key {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn address(self, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => self.push(&v4.octets()),
            IpAddr::V6(v6) => self.push(&v6.octets()),
        }
    }

    #[must_use]
    pub fn protocol(self, number: u8) -> Self {
        self.push(&[number])
    }

    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.push(&port.to_be_bytes())
    }

    #[must_use]
    pub fn number(self, number: u32) -> Self {
        self.push(&number.to_ne_bytes())
    }

    /// The bytes as they travel.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Two IPv6 addresses fit; more fields than that are a programming error.
    fn push(mut self, field: &[u8]) -> Self {
        // The last field of a concatenation is filled up too, but a key of one short field is not.
        let start = usize::from(self.length).next_multiple_of(4);
        let end = start + field.len();
        self.bytes[start..end].copy_from_slice(field);
        let padded = if start > 0 { end.next_multiple_of(4) } else { end };
        self.length = padded as u8;
        self
    }
}

/// The length of a register area that holds these fields.
pub(super) fn length(fields: &[Field]) -> u32 {
    match fields {
        [only] => only.length(),
        several => several.iter().map(|field| field.length().next_multiple_of(4)).sum(),
    }
}

/// The type as `nft list` understands it: six bits for each field.
pub(super) fn datatype(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |datatype, field| datatype << 6 | field.datatype())
}

/// `NFTA_DATA_*`.
pub(super) fn write_value(writer: &mut Writer, attribute: u16, value: &[u8]) {
    writer.nest(attribute, |w| w.attribute(1, value));
}

/// `NFTA_DATA_VERDICT` within `attribute`.
pub(super) fn write_verdict(writer: &mut Writer, attribute: u16, verdict: &Verdict) {
    writer.nest(attribute, |w| {
        w.nest(2, |w| {
            w.u32_be(1, verdict.code() as u32);
            if let Some(chain) = verdict.chain() {
                w.string(2, chain);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_filled_up_to_registers() {
        let key = Key::new().address([10, 0, 0, 1].into()).protocol(6).port(80);
        assert_eq!(key.as_slice(), [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(key.as_slice().len() as u32, length(&[Field::Ipv4, Field::Protocol, Field::Port]));
        assert_eq!(Key::new().protocol(17).port(53).as_slice(), [17, 0, 0, 0, 0, 53, 0, 0]);
        assert_eq!(Key::new().port(53).as_slice(), [0, 53]);
    }

    #[test]
    fn the_type_of_a_concatenation_has_six_bits_for_each_field() {
        assert_eq!(datatype(&[Field::Ipv4, Field::Protocol, Field::Port]), 7 << 12 | 12 << 6 | 13);
    }
}
