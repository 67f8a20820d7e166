//! Writes netlink messages and attributes into one buffer, and reads them back with every length checked.

/// Bytes of a netlink message header.
pub(crate) const HEADER: usize = 16;
/// The bit that says that an attribute holds attributes.
const NESTED: u16 = 1 << 15;
/// The bits of an attribute's type that are the type.
const TYPE_MASK: u16 = 0x3fff;

/// A growing buffer of messages.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    /// An attribute outgrew its 16-bit length; the buffer must not be sent.
    pub(crate) too_large: bool,
}

impl Writer {
    /// Appends a message: `header` is the fixed part of its protocol, `fill` writes the attributes.
    pub(crate) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        sequence: u32,
        header: &[u8],
        fill: impl FnOnce(&mut Self),
    ) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(header);
        self.pad();
        fill(self);
        match u32::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_large = true,
        }
    }

    /// Appends an attribute with these bytes.
    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        let Ok(length) = u16::try_from(payload.len() + 4) else {
            self.too_large = true;
            return;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    /// Appends an attribute of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        self.nest_with(kind, &[], fill);
    }

    /// Appends an attribute that begins with a fixed part, which attributes follow.
    pub(crate) fn nest_with(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        self.pad();
        fill(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.too_large = true,
        }
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.attribute(kind, &[value]);
    }

    /// In the machine's byte order, as rtnetlink has it.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// In network byte order, as nf_tables has it.
    pub(crate) fn u32_be(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// In network byte order, as nf_tables has it.
    pub(crate) fn u64_be(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// With a zero byte at its end.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let start = self.bytes.len();
        let Ok(length) = u16::try_from(value.len() + 5) else {
            self.too_large = true;
            return;
        };
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        debug_assert_eq!(self.bytes.len() - start, usize::from(length));
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message as it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// What follows the netlink header.
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram; ends at the first one whose length is wrong.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        if length < HEADER || length > bytes.len() {
            return None;
        }
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            payload: &bytes[HEADER..length],
        };
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some(message)
    })
}

/// The attributes in `bytes` with their types; ends at the first one whose length is wrong.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        if length < 4 || length > bytes.len() {
            return None;
        }
        let payload = &bytes[4..length];
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        Some((kind, payload))
    })
}

/// The attribute of this type, if there is one.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, payload)| payload)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Text up to its first zero byte; what is not UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.message(7, 3, 42, &[1, 2], |w| {
            w.string(1, "ab");
            w.nest(2, |w| w.u32_be(5, 9));
        });
        let message = messages(&writer.bytes).next().expect("one message");
        assert_eq!((message.kind, message.flags, message.sequence), (7, 3, 42));
        let body = &message.payload[4..];
        assert_eq!(text(attribute(body, 1).expect("string")), "ab");
        let inner = attribute(attribute(body, 2).expect("nest"), 5).expect("number");
        assert_eq!(inner, 9_u32.to_be_bytes());
        assert_eq!(messages(&writer.bytes).count(), 1);
    }

    #[test]
    fn wrong_lengths_end_the_reading() {
        for bytes in [&[][..], &[3, 0, 1, 0], &[200, 0, 1, 0, 1, 2, 3, 4], &[4, 0, 1]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(attributes(&[5, 0, 1, 0, 9]).collect::<Vec<_>>(), [(1, &[9][..])]);
    }

    #[test]
    fn an_attribute_above_64_kib_is_noticed() {
        let mut writer = Writer::default();
        writer.nest(1, |w| {
            for _ in 0..2 {
                w.attribute(2, &[0; 40_000]);
            }
        });
        assert!(writer.too_large);
    }
}
