//! Protocol buffers on the wire: tags, varints, fixed numbers, and length-delimited bytes.
//!
//! [`Writer`] and [`read`] serve those who write or read a few fields of a message themselves; whole messages come from
//! the tables of [`crate::messages!`]. Source: <https://protobuf.dev/programming-guides/encoding/>; groups are refused.

use bytes::Bytes;

pub const VARINT: u64 = 0;
pub const FIXED_64: u64 = 1;
pub const DELIMITED: u64 = 2;
pub const FIXED_32: u64 = 5;

/// Bytes that are no message, in the words of Go's decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("unexpected EOF")]
    Truncated,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal tag {0}")]
    Tag(u64),
    #[error("proto: illegal wireType {0}")]
    Form(u64),
}

/// A field's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Payload<'a> {
    /// The number of the wire type.
    pub fn form(self) -> u64 {
        match self {
            Self::Varint(_) => VARINT,
            Self::Fixed64(_) => FIXED_64,
            Self::Bytes(_) => DELIMITED,
            Self::Fixed32(_) => FIXED_32,
        }
    }

    /// The number; 0 when it is none.
    pub fn int(self) -> u64 {
        if let Self::Varint(number) = self { number } else { 0 }
    }

    /// The bytes; empty when it has none.
    pub fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// The text; what is no UTF-8 is replaced.
    pub fn text(self) -> String {
        text(self.bytes())
    }
}

/// Appends fields to a message. Zero and empty are the defaults and are left out.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn int(&mut self, field: u32, number: u64) {
        if number != 0 {
            put_varint(&mut self.0, field, number);
        }
    }

    pub fn flag(&mut self, field: u32, set: bool) {
        self.int(field, u64::from(set));
    }

    pub fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            put_bytes(&mut self.0, field, bytes);
        }
    }

    /// A message within; it is there even when all of its fields have their defaults.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        put_nested(&mut self.0, field, |out| {
            let mut inner = Self(std::mem::take(out));
            write(&mut inner);
            *out = inner.0;
        });
    }

    pub fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// Calls `each` with every field of a message.
///
/// # Errors
/// [`WireError`], also when `each` says so.
pub fn read<'a>(
    message: &'a [u8],
    mut each: impl FnMut(u32, Payload<'a>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut rest = message;
    while let Some((number, payload)) = next(&mut rest)? {
        each(number, payload)?;
    }
    Ok(())
}

/// The next field's number and content; nothing at the end.
///
/// # Errors
/// [`WireError`].
pub fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u32, Payload<'a>)>, WireError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| *number != 0).ok_or(WireError::Tag(tag >> 3))?;
    Ok(Some((number, untagged(tag & 7, rest)?)))
}

/// The next content of a form, without its tag.
///
/// # Errors
/// [`WireError`].
pub fn untagged<'a>(form: u64, rest: &mut &'a [u8]) -> Result<Payload<'a>, WireError> {
    Ok(match form {
        VARINT => Payload::Varint(varint(rest)?),
        DELIMITED => {
            let length = usize::try_from(varint(rest)?).map_err(|_| WireError::Truncated)?;
            let (bytes, after) = rest.split_at_checked(length).ok_or(WireError::Truncated)?;
            *rest = after;
            Payload::Bytes(bytes)
        }
        FIXED_64 => Payload::Fixed64(u64::from_le_bytes(array(rest)?)),
        FIXED_32 => Payload::Fixed32(u32::from_le_bytes(array(rest)?)),
        other => return Err(WireError::Form(other)),
    })
}

/// A number of seven bits a byte, the lowest first.
///
/// # Errors
/// [`WireError`] when it does not end, or is longer than ten bytes.
pub fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = array(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(WireError::Overflow)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (head, after) = rest.split_first_chunk().ok_or(WireError::Truncated)?;
    *rest = after;
    Ok(*head)
}

/// Text as Go prints it in JSON: what is no UTF-8 is replaced.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Appends a number without a tag.
pub fn put_untagged(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub fn put_tag(out: &mut Vec<u8>, field: u32, form: u64) {
    put_untagged(out, u64::from(field) << 3 | form);
}

pub fn put_varint(out: &mut Vec<u8>, field: u32, number: u64) {
    put_tag(out, field, VARINT);
    put_untagged(out, number);
}

pub fn put_double(out: &mut Vec<u8>, field: u32, number: f64) {
    put_tag(out, field, FIXED_64);
    out.extend_from_slice(&number.to_le_bytes());
}

/// What stands before `length` bytes that are appended next.
pub fn put_length(out: &mut Vec<u8>, field: u32, length: usize) {
    put_tag(out, field, DELIMITED);
    put_untagged(out, length as u64);
}

pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_length(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a message or bytes whose length is known when they are written: it is put before them then.
pub fn put_nested(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    put_tag(out, field, DELIMITED);
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
    for place in &mut out[start - 1..start + extra] {
        *place = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[start - 1 + extra] &= 0x7f;
}

/// The bytes that a number takes.
pub fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_went() {
        let long = vec![7; 300];
        let mut writer = Writer::default();
        writer.int(1, u64::MAX);
        writer.int(2, 0);
        writer.bytes(3, b"abc");
        writer.message(64, |inner| inner.flag(1, true));
        writer.message(5, |inner| inner.bytes(1, &long));
        let message = writer.finish();
        let mut seen = Vec::new();
        read(&message, |number, field| {
            seen.push((number, field));
            Ok(())
        })
        .unwrap();
        let nested: Vec<u8> = [&[0x0a, 0xac, 0x02][..], &long].concat();
        let expected = [
            (1, Payload::Varint(u64::MAX)),
            (3, Payload::Bytes(b"abc")),
            (64, Payload::Bytes(&[8, 1])),
            (5, Payload::Bytes(&nested)),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn broken_messages_are_refused() {
        for (bad, error) in [
            (&[0x80_u8][..], WireError::Truncated),
            (&[0x0a, 5, 1], WireError::Truncated),
            (&[0x0b], WireError::Form(3)),
            (&[0xff; 12], WireError::Overflow),
            (&[0x09, 1, 2], WireError::Truncated),
            (&[0x00, 1], WireError::Tag(0)),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f], WireError::Truncated),
        ] {
            assert_eq!(read(bad, |_, _| Ok(())), Err(error), "{bad:?}");
        }
    }
}
