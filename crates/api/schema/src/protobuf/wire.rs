//! Protobuf's wire format: tags, varints, and length-delimited bytes.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>. Groups, which proto2 deprecated, are refused.

use super::ProtobufError;

/// The value of one field on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl Payload<'_> {
    /// The number of the wire type.
    pub fn wire_type(&self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32(_) => 5,
        }
    }
}

/// Reads the fields of one message in order.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next field's number and value; none at the end.
    pub fn next(&mut self) -> Result<Option<(u32, Payload<'a>)>, ProtobufError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|n| *n > 0).ok_or(ProtobufError::Tag(tag >> 3))?;
        let payload = match (tag & 7) as u8 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Truncated)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => Payload::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok(Some((number, payload)))
    }

    /// A number of seven bits a byte, the lowest first.
    pub fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Overflow)
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }
}

/// Text as Go prints it in JSON: bytes that are no UTF-8 are replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The bytes that a number takes as a varint.
pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Writes a message or bytes of a length that is known when they are written: the length is put before them then.
pub(super) fn put_nested(out: &mut Vec<u8>, number: u8, write: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, number, 2);
    let at = out.len();
    // Most messages are short: their length is one byte.
    out.push(0);
    let start = out.len();
    write(out);
    let length = out.len() - start;
    let extra = varint_len(length as u64) - 1;
    if extra > 0 {
        let end = out.len();
        out.resize(end + extra, 0);
        out.copy_within(start..end, start + extra);
    }
    let mut rest = length as u64;
    for place in &mut out[at..=at + extra] {
        *place = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[at + extra] &= 0x7f;
}

pub(super) fn put_length(out: &mut Vec<u8>, number: u8, length: usize) {
    put_tag(out, number, 2);
    put_raw_varint(out, length as u64);
}

fn put_raw_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_tag(out: &mut Vec<u8>, number: u8, wire_type: u8) {
    put_raw_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

pub(super) fn put_varint(out: &mut Vec<u8>, number: u8, value: u64) {
    put_tag(out, number, 0);
    put_raw_varint(out, value);
}

pub(super) fn put_double(out: &mut Vec<u8>, number: u8, value: f64) {
    put_tag(out, number, 1);
    out.extend(value.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    put_tag(out, number, 2);
    put_raw_varint(out, bytes.len() as u64);
    out.extend(bytes);
}
