//! CBOR, the binary form of JSON (RFC 8949) as KEP-4222 profiles it, to and from the trees that JSON gives.
//!
//! Upstream's texts travel as byte strings, because Go's texts may be no UTF-8; both forms are read. What is written is
//! deterministic: the shortest form of every number and length, keys in the order of their encoded bytes. Documents
//! begin with the tag that says what they are, which readers may leave out.

use crate::decode::Limits;
use serde_json::Value;

mod decode;
mod encode;

/// What every document starts with: the tag 55799.
pub const MAGIC: [u8; 3] = [0xd9, 0xd9, 0xf7];

const SELF_DESCRIBED: u64 = 55_799;
/// Upstream's bound of nested lists and maps.
const MAX_DEPTH: usize = 64;

/// Bytes that are no document, with the place of what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    #[error("unexpected EOF")]
    Truncated,
    #[error("cbor: {0} bytes of extraneous data starting at index {1}")]
    Trailing(usize, usize),
    #[error("cbor: exceeded max nested level {MAX_DEPTH}")]
    Depth,
    #[error("the document has {bytes} bytes, {limit} are allowed")]
    Size { bytes: usize, limit: usize },
    #[error("cbor: invalid additional information {0} at index {1}")]
    Information(u8, usize),
    #[error("cbor: invalid UTF-8 string at index {0}")]
    Utf8(usize),
    #[error("cbor: found duplicate map key {key:?} at index {at}")]
    Duplicate { key: String, at: usize },
    #[error("cbor: a map key at index {0} is no text")]
    Key(usize),
    #[error("cbor: tag {tag} at index {at} is not supported")]
    Tag { tag: u64, at: usize },
    #[error("cbor: the integer at index {0} does not fit in 64 bits")]
    Integer(usize),
    #[error("cbor: the number at index {0} is not finite")]
    Float(usize),
    #[error("cbor: simple value {value} at index {at} is not recognized")]
    Simple { value: u8, at: usize },
    #[error("cbor: unexpected \"break\" code at index {0}")]
    Break(usize),
    #[error("cbor: a chunk at index {0} is of another type than its string")]
    Chunk(usize),
}

/// Decodes one document. Duplicate keys are refused, and tags but those that say how bytes become text.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Value, CborError> {
    if bytes.len() > limits.max_bytes {
        return Err(CborError::Size { bytes: bytes.len(), limit: limits.max_bytes });
    }
    decode::Reader::new(bytes, limits.max_depth.min(MAX_DEPTH)).document()
}

/// Encodes a document, the tag before it included.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend(MAGIC);
    encode::value(value, &mut out);
    out
}

#[cfg(test)]
mod tests;
