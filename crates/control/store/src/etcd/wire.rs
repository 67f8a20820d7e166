//! Protocol buffers, as much of them as etcd's messages need: varints and length-delimited fields.

use bytes::{BufMut, Bytes, BytesMut};

const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const DELIMITED: u64 = 2;
const FIXED_32: u64 = 5;

/// Appends fields to a message. Zero and empty are the defaults and are left out.
#[derive(Debug, Default)]
pub(super) struct Writer(BytesMut);

impl Writer {
    pub(super) fn int(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.varint(u64::from(field) << 3 | VARINT);
            self.varint(number);
        }
    }

    pub(super) fn flag(&mut self, field: u32, set: bool) {
        self.int(field, u64::from(set));
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.delimited(field, bytes);
        }
    }

    /// A message within; it is there even when all of its fields have their defaults.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.delimited(field, &inner.0);
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.put_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.put_u8(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.put_u8(number as u8);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("etcd sent a message that ends in the middle of a field or has one of an unknown form")]
pub(super) struct BadMessage;

/// A field's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// Of a form that none of etcd's fields that are read here has.
    Other,
}

impl<'a> Field<'a> {
    pub(super) fn int(self) -> u64 {
        if let Self::Int(number) = self { number } else { 0 }
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// Calls `each` with every field of a message.
pub(super) fn read<'a>(
    message: &'a [u8],
    mut each: impl FnMut(u32, Field<'a>) -> Result<(), BadMessage>,
) -> Result<(), BadMessage> {
    let mut rest = message;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let field = match tag & 7 {
            VARINT => Field::Int(varint(&mut rest)?),
            DELIMITED => {
                let length = usize::try_from(varint(&mut rest)?).map_err(|_| BadMessage)?;
                Field::Bytes(take(&mut rest, length)?)
            }
            FIXED_64 => take(&mut rest, 8).map(|_| Field::Other)?,
            FIXED_32 => take(&mut rest, 4).map(|_| Field::Other)?,
            _ => return Err(BadMessage),
        };
        each(u32::try_from(tag >> 3).map_err(|_| BadMessage)?, field)?;
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], BadMessage> {
    let (taken, after) = rest.split_at_checked(length).ok_or(BadMessage)?;
    *rest = after;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, BadMessage> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(BadMessage)?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(BadMessage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_went() {
        let mut writer = Writer::default();
        writer.int(1, u64::MAX);
        writer.int(2, 0);
        writer.bytes(3, b"abc");
        writer.message(64, |inner| inner.flag(1, true));
        let message = writer.finish();
        let mut seen = Vec::new();
        read(&message, |number, field| {
            seen.push((number, field));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(1, Field::Int(u64::MAX)), (3, Field::Bytes(b"abc")), (64, Field::Bytes(&[8, 1]))]);
    }

    #[test]
    fn broken_messages_are_refused() {
        for bad in
            [&[0x80_u8][..], &[0x0a, 5, 1], &[0x0b], &[0xff; 12], &[0x09, 1, 2], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f]]
        {
            assert_eq!(read(bad, |_, _| Ok(())), Err(BadMessage), "{bad:?}");
        }
    }
}
