//! Protobuf, the wire form that typed Go clients prefer, to and from the trees that JSON gives.
//!
//! Upstream's messages are made from the same Go structs as its JSON: [`Schema`] tells the types, `data/protobuf.txt`
//! the numbers of the fields. The numbers are loaded when the first client speaks protobuf, not before.
//!
//! An object travels in an envelope: the bytes `k8s\0`, then the message `runtime.Unknown` of apimachinery with
//! `apiVersion`, `kind`, and the object's own message in `raw`.

mod decode;
mod encode;
mod partial;
mod table;
#[cfg(test)]
mod tests;

use crate::decode::Limits;
use crate::{Schema, TypeRef};
use pintle_protobuf::wire::{self, Payload, WireError};
use serde_json::{Map, Value};

/// What every object in this form starts with.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Bytes that are no object, mostly in the words of Go's decoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}", MAGIC = GoBytes(&MAGIC))]
    Prefix,
    #[error("empty data")]
    Empty,
    #[error("empty body")]
    EmptyBody,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("proto: wrong wireType = {wire} for field {field}")]
    FieldType { wire: u64, field: String },
    #[error("exceeded max depth")]
    Depth,
    #[error("the message has {bytes} bytes, {limit} are allowed")]
    Size { bytes: usize, limit: usize },
    #[error("the message has too many values, send fewer")]
    Values,
    #[error("a time is out of range: {0} seconds since 1970")]
    Time(i64),
    #[error("embedded JSON: {0}")]
    Json(String),
}

/// Prints bytes as Go does.
struct GoBytes<'a>(&'a [u8]);

impl std::fmt::Debug for GoBytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<String> = self.0.iter().map(u8::to_string).collect();
        write!(f, "[{}]", texts.join(" "))
    }
}

/// An object before its own message is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Such as `apps/v1`; empty when the client left it out.
    pub api_version: String,
    pub kind: String,
    /// The object's message.
    pub raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Takes the envelope apart.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        if bytes.is_empty() {
            return Err(ProtobufError::Empty);
        }
        let body = bytes.strip_prefix(&MAGIC).ok_or(ProtobufError::Prefix)?;
        if body.is_empty() {
            return Err(ProtobufError::EmptyBody);
        }
        let mut envelope = Self { api_version: String::new(), kind: String::new(), raw: &[] };
        let mut rest = body;
        while let Some((number, payload)) = wire::next(&mut rest)? {
            match (number, payload) {
                (1, Payload::Bytes(bytes)) => envelope.read_type(bytes)?,
                (2, Payload::Bytes(bytes)) => envelope.raw = bytes,
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type(&mut self, bytes: &[u8]) -> Result<(), ProtobufError> {
        let mut rest = bytes;
        while let Some((number, payload)) = wire::next(&mut rest)? {
            match (number, payload) {
                (1, Payload::Bytes(text)) => self.api_version = wire::text(text),
                (2, Payload::Bytes(text)) => self.kind = wire::text(text),
                _ => {}
            }
        }
        Ok(())
    }

    /// The object as the tree that its JSON gives. Where the envelope names no kind, the object is taken for
    /// `(apiVersion, kind)` of `default`. Of kinds that have no message only `apiVersion` and `kind` are there.
    pub fn object(&self, default: (&str, &str), limits: Limits) -> Result<Value, ProtobufError> {
        let size = self.raw.len();
        if size > limits.max_bytes {
            return Err(ProtobufError::Size { bytes: size, limit: limits.max_bytes });
        }
        let named = |own: &'_ str, default: &str| if own.is_empty() { default.to_owned() } else { own.to_owned() };
        let (api_version, kind) = (named(&self.api_version, default.0), named(&self.kind, default.1));
        let mut map = Map::new();
        if let Some(ty) = message_of(&api_version, &kind) {
            decode::Decoder::new(limits).object(ty, self.raw, &mut map)?;
        }
        map.insert("apiVersion".into(), api_version.into());
        map.insert("kind".into(), kind.into());
        Ok(Value::Object(map))
    }
}

/// Encodes an object or a list, which must have `apiVersion` and `kind`, with its envelope. None for kinds that have no
/// message, such as custom resources and tables.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let (api_version, kind) = identity(object)?;
    Some(envelope(api_version, kind, &message(object)?))
}

/// The object's own message, as it is in an envelope or a list. None for kinds that have none.
pub fn message(object: &Value) -> Option<Vec<u8>> {
    let (api_version, kind) = identity(object)?;
    if let Some(message) = partial::message(api_version, kind, object) {
        return Some(message);
    }
    let mut out = Vec::new();
    encode::object(message_of(api_version, kind)?, object.as_object()?, &mut out);
    Some(out)
}

/// Puts an object's own message into its envelope.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 32);
    open_envelope(&mut out, api_version, kind);
    wire::put_bytes(&mut out, 2, raw);
    close_envelope(&mut out);
    out
}

/// A list of objects whose own messages are there already, in its envelope. `metadata` is the list's. None for kinds
/// of lists that have no message.
pub fn encode_list(
    api_version: &str,
    kind: &str,
    metadata: &Map<String, Value>,
    items: &[impl AsRef<[u8]>],
) -> Option<Vec<u8>> {
    let order = list_order(api_version, kind)?;
    let mut head = Vec::new();
    let ty = Schema::builtin().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")?;
    wire::put_nested(&mut head, order.metadata, |out| encode::object(ty, metadata, out));
    let framed = |length: usize| 1 + wire::varint_len(length as u64) + length;
    let length = head.len() + items.iter().map(|item| framed(item.as_ref().len())).sum::<usize>();
    let mut out = Vec::with_capacity(length + api_version.len() + kind.len() + 32);
    open_envelope(&mut out, api_version, kind);
    wire::put_length(&mut out, 2, length);
    if order.metadata < order.items {
        out.extend(&head);
    }
    items.iter().for_each(|item| wire::put_bytes(&mut out, order.items, item.as_ref()));
    if order.metadata > order.items {
        out.extend(&head);
    }
    close_envelope(&mut out);
    Some(out)
}

/// The numbers of a list's fields.
struct ListOrder {
    metadata: u32,
    items: u32,
}

fn list_order(api_version: &str, kind: &str) -> Option<ListOrder> {
    if let Some((metadata, items)) = partial::list_order(api_version, kind) {
        return Some(ListOrder { metadata, items });
    }
    let layout = table::layout(message_of(api_version, kind)?)?;
    let entry = |name: &str| layout.entries.iter().find(|entry| entry.field.name() == name);
    let number = |name: &str| entry(name).map(|entry| entry.path[0].into());
    Some(ListOrder { metadata: number("metadata")?, items: number("items")? })
}

fn identity(object: &Value) -> Option<(&str, &str)> {
    let map = object.as_object()?;
    let text = |field: &str| map.get(field).and_then(Value::as_str);
    Some((text("apiVersion")?, text("kind")?))
}

fn open_envelope(out: &mut Vec<u8>, api_version: &str, kind: &str) {
    out.extend(MAGIC);
    wire::put_nested(out, 1, |out| {
        wire::put_bytes(out, 1, api_version.as_bytes());
        wire::put_bytes(out, 2, kind.as_bytes());
    });
}

/// Upstream always writes the encoding and the content type, empty.
fn close_envelope(out: &mut Vec<u8>) {
    wire::put_bytes(out, 3, b"");
    wire::put_bytes(out, 4, b"");
}

/// Frames an event of a watch, whose object is in its envelope, for the wire: a length of four bytes, big-endian, and a
/// `WatchEvent`.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + event.len() + 24);
    out.extend([0; 4]);
    wire::put_bytes(&mut out, 1, event.as_bytes());
    let inner = 1 + wire::varint_len(object.len() as u64) + object.len();
    wire::put_length(&mut out, 2, inner);
    wire::put_bytes(&mut out, 1, object);
    // Objects are some megabytes at most.
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// Encodes an event of a watch as it is framed on the wire.
pub fn encode_watch_event(event: &str, object: &Value) -> Option<Vec<u8>> {
    Some(watch_frame(event, &encode(object)?))
}

fn message_of(api_version: &str, kind: &str) -> Option<TypeRef<'static>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let ty = Schema::builtin().kind(group, version, kind)?;
    table::layout(ty).is_some().then_some(ty)
}
