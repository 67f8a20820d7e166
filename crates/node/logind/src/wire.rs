//! D-Bus messages as bytes: any kind of header, and bodies of plain values.
//!
//! Source: "Message Protocol" of the D-Bus specification. What is read is bounded: a message by [`MAX_MESSAGE`], its
//! depth by [`MAX_DEPTH`]; nothing is made that is larger than what came in.

/// The longest message that is read, in bytes: those of logind have less than a hundred.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;
/// How deep variants may be within variants.
const MAX_DEPTH: usize = 4;
/// The part of a header that says how long the message is.
pub(crate) const PRELUDE: usize = 16;

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no message of D-Bus: {0}")]
pub struct BadMessage(pub &'static str);

/// What a message is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    Call,
    Reply,
    Error,
    Signal,
    /// One that is to be passed over.
    Other,
}

impl Kind {
    const ALL: [(u8, Self); 4] = [(1, Self::Call), (2, Self::Reply), (3, Self::Error), (4, Self::Signal)];

    fn of(byte: u8) -> Self {
        Self::ALL.iter().find(|(code, _)| *code == byte).map_or(Self::Other, |(_, kind)| *kind)
    }

    fn byte(self) -> u8 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(code, _)| *code)
    }
}

/// A plain value of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Flag(bool),
    Int(i32),
    Number(u64),
    /// The place of a descriptor among those that came with the message.
    File(u32),
    Variant(Box<Value>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Text(_) => "s",
            Self::Flag(_) => "b",
            Self::Int(_) => "i",
            Self::Number(_) => "t",
            Self::File(_) => "h",
            Self::Variant(_) => "v",
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A message, with the fields of its header that matter here; texts that are not there are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) serial: u32,
    pub(crate) path: String,
    pub(crate) interface: String,
    /// The method or signal.
    pub(crate) member: String,
    pub(crate) error: String,
    pub(crate) reply_to: u32,
    pub(crate) destination: String,
    /// Descriptors that come with it.
    pub(crate) files: u32,
    pub(crate) body: Vec<Value>,
}

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR: u8 = 4;
const REPLY_TO: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;
const FILES: u8 = 9;

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        let mut signature = String::new();
        for value in &self.body {
            signature.push_str(value.signature());
            body.value(value);
        }
        let mut out = Writer(vec![b'l', self.kind.byte(), 0, 1]);
        out.int(body.0.len() as u32);
        out.int(self.serial);
        let length_at = out.0.len();
        out.int(0);
        let texts = [
            (PATH, "o", &self.path),
            (INTERFACE, "s", &self.interface),
            (MEMBER, "s", &self.member),
            (ERROR, "s", &self.error),
            (DESTINATION, "s", &self.destination),
        ];
        for (code, kind, text) in texts.into_iter().filter(|(.., text)| !text.is_empty()) {
            out.field(code, kind);
            out.text(text);
        }
        if !signature.is_empty() {
            out.field(SIGNATURE, "g");
            out.signature(&signature);
        }
        for (code, number) in [(REPLY_TO, self.reply_to), (FILES, self.files)] {
            if number > 0 {
                out.field(code, "u");
                out.int(number);
            }
        }
        let fields = (out.0.len() - length_at - 4) as u32;
        out.0[length_at..length_at + 4].copy_from_slice(&fields.to_le_bytes());
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    /// The length of the message that begins so, in bytes.
    pub(crate) fn length(prelude: &[u8; PRELUDE]) -> Result<usize, BadMessage> {
        let mut reader = Reader::new(prelude, prelude[0])?;
        reader.at = 4;
        let body = reader.int()? as usize;
        reader.at = 12;
        let fields = reader.int()? as usize;
        if body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(BadMessage("it is too long"));
        }
        let length = PRELUDE + fields.next_multiple_of(8) + body;
        if length > MAX_MESSAGE { Err(BadMessage("it is too long")) } else { Ok(length) }
    }

    /// Reads one whole message. Bodies with other than plain values are left unread after the last plain one.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadMessage> {
        let prelude = bytes.first_chunk::<PRELUDE>().ok_or(BadMessage("it is cut off"))?;
        if Self::length(prelude)? != bytes.len() {
            return Err(BadMessage("it has another length than it says"));
        }
        let mut reader = Reader::new(bytes, bytes[0])?;
        let mut message = Self { kind: Kind::of(bytes[1]), ..Self::default() };
        reader.at = 8;
        message.serial = reader.int()?;
        let end = PRELUDE + reader.int()? as usize;
        let mut signature = String::new();
        while reader.at < end {
            reader.align(8)?;
            message.field(&mut reader, &mut signature)?;
        }
        reader.align(8)?;
        for kind in signature.bytes() {
            let Some(value) = reader.value(kind, MAX_DEPTH)? else { break };
            message.body.push(value);
        }
        Ok(message)
    }

    fn field(&mut self, reader: &mut Reader<'_>, signature: &mut String) -> Result<(), BadMessage> {
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind.as_str()) {
            (PATH, "o") => self.path = reader.text()?,
            (INTERFACE, "s") => self.interface = reader.text()?,
            (MEMBER, "s") => self.member = reader.text()?,
            (ERROR, "s") => self.error = reader.text()?,
            (DESTINATION, "s") => self.destination = reader.text()?,
            (SIGNATURE, "g") => *signature = reader.signature()?,
            (REPLY_TO, "u") => self.reply_to = reader.int()?,
            (FILES, "u") => self.files = reader.int()?,
            // Fields that are not known are to be passed over.
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.int()?),
            _ => return Err(BadMessage("a field of its header has a kind that is not known")),
        }
        Ok(())
    }
}

/// Always little endian, which every receiver reads.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn int(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.int(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn field(&mut self, code: u8, kind: &str) {
        self.align(8);
        self.0.push(code);
        self.signature(kind);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Text(text) => self.text(text),
            Value::Flag(flag) => self.int(u32::from(*flag)),
            Value::Int(number) => self.int(number.cast_unsigned()),
            Value::Number(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
            Value::File(place) => self.int(*place),
            Value::Variant(within) => {
                self.signature(within.signature());
                self.value(within);
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    is_big_endian: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], endian: u8) -> Result<Self, BadMessage> {
        match endian {
            b'l' | b'B' => Ok(Self { bytes, at: 0, is_big_endian: endian == b'B' }),
            _ => Err(BadMessage("its byte order is not known")),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BadMessage> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let taken = &self.bytes[self.at..end.ok_or(BadMessage("it is cut off"))?];
        self.at += count;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), BadMessage> {
        let padding = self.at.next_multiple_of(to) - self.at;
        self.take(padding).map(drop)
    }

    fn byte(&mut self) -> Result<u8, BadMessage> {
        Ok(self.take(1)?[0])
    }

    fn int(&mut self) -> Result<u32, BadMessage> {
        self.align(4)?;
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| BadMessage("it is cut off"))?;
        Ok(if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn long(&mut self) -> Result<u64, BadMessage> {
        self.align(8)?;
        let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| BadMessage("it is cut off"))?;
        Ok(if self.is_big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn text(&mut self) -> Result<String, BadMessage> {
        let length = self.int()? as usize;
        self.ended(length)
    }

    fn signature(&mut self) -> Result<String, BadMessage> {
        let length = usize::from(self.byte()?);
        self.ended(length)
    }

    /// A text, after which there is a zero.
    fn ended(&mut self, length: usize) -> Result<String, BadMessage> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| BadMessage("a text is no UTF-8"))?.to_owned();
        if self.byte()? == 0 { Ok(text) } else { Err(BadMessage("a text has no end")) }
    }

    /// A value of one kind; nothing for those that are not plain.
    fn value(&mut self, kind: u8, depth: usize) -> Result<Option<Value>, BadMessage> {
        Ok(Some(match kind {
            b's' | b'o' => Value::Text(self.text()?),
            b'b' => Value::Flag(self.int()? != 0),
            b'i' => Value::Int(self.int()?.cast_signed()),
            b'u' => Value::Number(self.int()?.into()),
            b't' => Value::Number(self.long()?),
            b'h' => Value::File(self.int()?),
            b'v' if depth > 0 => {
                let signature = self.signature()?;
                let [kind] = signature.as_bytes() else { return Ok(None) };
                match self.value(*kind, depth - 1)? {
                    Some(value) => Value::Variant(Box::new(value)),
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Message {
        Message {
            kind: Kind::Call,
            serial: 7,
            path: "/org/freedesktop/login1".into(),
            interface: "org.freedesktop.login1.Manager".into(),
            member: "Inhibit".into(),
            destination: "org.freedesktop.login1".into(),
            body: vec![
                "shutdown".into(),
                Value::Flag(true),
                Value::Int(-1),
                Value::Number(1 << 40),
                Value::Variant(Box::new(Value::Number(5_000_000))),
                Value::File(0),
            ],
            files: 1,
            ..Message::default()
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let message = sample();
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    /// `org.freedesktop.DBus.Hello` as dbus-send writes it, but for the serial.
    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let hello = Message {
            serial: 1,
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus".into(),
            member: "Hello".into(),
            destination: "org.freedesktop.DBus".into(),
            ..Message::default()
        };
        let mut expected = b"l\x01\0\x01\0\0\0\0\x01\0\0\0\x6d\0\0\0".to_vec();
        expected.extend(b"\x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0");
        expected.extend(b"\x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
        expected.extend(b"\x03\x01s\0\x05\0\0\0Hello\0\0\0");
        expected.extend(b"\x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0");
        assert_eq!(hello.encode(), expected);
    }

    #[test]
    fn other_byte_order_and_unknown_kinds_are_read() {
        // A signal of big endian with the body `as` after `b`.
        let mut bytes = b"B\x04\0\x01\0\0\0\x04\0\0\0\x02\0\0\0\x09".to_vec();
        bytes.extend(b"\x08\x01g\0\x03bas\0\0\0\0\0\0\0\0\0\0\x01");
        // The fields have nine bytes, after which there are seven to the next multiple of eight.
        bytes.truncate(16 + 16);
        bytes.extend([0, 0, 0, 1]);
        let read = Message::decode(&bytes).unwrap();
        assert_eq!((read.kind, read.serial, read.body), (Kind::Signal, 2, vec![Value::Flag(true)]));
    }

    #[test]
    fn broken_messages_are_refused() {
        let error = |bytes: &[u8]| Message::decode(bytes).unwrap_err().0;
        assert_eq!(error(b"l"), "it is cut off");
        assert_eq!(error(b"x\x01\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0"), "its byte order is not known");
        assert_eq!(error(b"l\x01\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0"), "it is too long");
        assert_eq!(error(b"l\x01\0\x01\x01\0\0\0\x01\0\0\0\0\0\0\0"), "it has another length than it says");
        let (call, hello) = (sample().encode(), Message { serial: 1, ..Message::default() }.encode());
        pintle_noise::feed(&[&call, &hello], 2000, |bytes| drop(Message::decode(bytes)));
    }
}
