//! Objects between trees and bytes: `apiVersion`, `kind` and `metadata` come first, so that the place of the
//! resourceVersion is known.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

const FIRST: [&str; 3] = ["apiVersion", "kind", "metadata"];
const METADATA: &[u8] = b"\"metadata\":{";

/// The bytes of an object as it is stored: without its resourceVersion.
pub(crate) fn to_stored(value: &Value) -> Bytes {
    to_stored_with(value, None)
}

/// The same with one field's text as it is given.
pub(crate) fn to_stored_with(value: &Value, verbatim: Option<(&str, &RawValue)>) -> Bytes {
    let mut out = BytesMut::with_capacity(2048);
    let (known, own) = match verbatim {
        Some((field, text)) => (without(value, field), Some((field, text))),
        None => (Cow::Borrowed(value), None),
    };
    write_object(&known, &mut out, &FIRST, false);
    if let Some((field, text)) = own {
        // Before the closing brace, after the metadata that every object has.
        out.truncate(out.len() - 1);
        out.put_u8(b',');
        write_json(field, &mut out);
        out.put_u8(b':');
        out.put_slice(text.get().as_bytes());
        out.put_u8(b'}');
    }
    // An allocation of just this size: it is kept as long as the object.
    Bytes::copy_from_slice(&out)
}

fn without<'a>(value: &Value, field: &str) -> Cow<'a, Value> {
    let mut value = value.clone();
    value.as_object_mut().and_then(|fields| fields.remove(field));
    Cow::Owned(value)
}

/// Whether a stored object's field is written with white space between its parts.
pub(crate) fn has_spaces(stored: &[u8], field: &str) -> bool {
    let fields: Result<BTreeMap<Cow<'_, str>, &RawValue>, _> = serde_json::from_slice(stored);
    fields.is_ok_and(|fields| fields.get(field).is_some_and(|text| is_spaced(text)))
}

/// Whether there is white space outside the strings of a JSON text.
pub(crate) fn is_spaced(text: &RawValue) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for byte in text.get().bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b' ' | b'\t' | b'\r' | b'\n' if !quoted => return true,
            _ => {}
        }
    }
    false
}

/// Appends an object, its resourceVersion included.
pub(crate) fn write_value(value: &Value, out: &mut BytesMut) {
    write_object(value, out, &FIRST, true);
}

/// The same without `apiVersion` and `kind`.
pub(crate) fn write_item(value: &Value, out: &mut BytesMut) {
    write_object(value, out, &FIRST[2..], true);
}

/// Writes the `first` fields, and then those that are none of [`FIRST`].
fn write_object(value: &Value, out: &mut BytesMut, first: &[&str], with_version: bool) {
    let Some(fields) = value.as_object() else { return write_json(value, out) };
    let mut separator = b'{';
    let first = first.iter().filter_map(|name| fields.get_key_value(*name));
    let rest = fields.iter().filter(|(name, _)| !FIRST.contains(&name.as_str()));
    for (name, field) in first.chain(rest) {
        out.put_u8(separator);
        separator = b',';
        write_json(name, out);
        out.put_u8(b':');
        match field.as_object() {
            Some(metadata) if name == "metadata" && !with_version => write_without_version(metadata, out),
            _ => write_json(field, out),
        }
    }
    if separator == b'{' {
        out.put_u8(b'{');
    }
    out.put_u8(b'}');
}

fn write_without_version(metadata: &serde_json::Map<String, Value>, out: &mut BytesMut) {
    out.put_u8(b'{');
    let kept = metadata.iter().filter(|(name, _)| *name != "resourceVersion");
    for (i, (name, field)) in kept.enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        write_json(name, out);
        out.put_u8(b':');
        write_json(field, out);
    }
    out.put_u8(b'}');
}

fn write_json<T: Serialize + ?Sized>(value: &T, out: &mut BytesMut) {
    // Trees have text keys and the buffer grows: writing one cannot fail.
    let _ = serde_json::to_writer(out.writer(), value);
}

/// Where in stored bytes the resourceVersion goes: right after the opening brace of `metadata`. Only the first
/// members of the object are looked at, which is where this module puts it.
pub(crate) fn splice_offset(stored: &[u8]) -> Option<usize> {
    let head = &stored[..stored.len().min(512)];
    head.windows(METADATA.len()).position(|window| window == METADATA).map(|at| at + METADATA.len())
}

/// Whether stored bytes are of the form that this module writes, `apiVersion` and `kind` in either order.
pub(crate) fn begins_with_identity(stored: &[u8]) -> bool {
    let Some(offset) = splice_offset(stored) else { return false };
    let head = &stored[..offset - METADATA.len()];
    let quotes = head.iter().filter(|byte| **byte == b'"').count();
    (head.starts_with(b"{\"apiVersion\":\"") || head.starts_with(b"{\"kind\":\"")) && quotes == 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn identity_comes_first_and_the_version_is_left_out() {
        let object = json!({"data": {"a": "b"}, "kind": "ConfigMap", "apiVersion": "v1",
                            "metadata": {"name": "x", "resourceVersion": "7", "uid": "u"}});
        let stored = to_stored(&object);
        let expected = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","uid":"u"},"data":{"a":"b"}}"#;
        assert_eq!(stored, expected.as_bytes());
        assert!(stored[splice_offset(&stored).unwrap()..].starts_with(br#""name":"x""#));
        assert!(begins_with_identity(&stored));
        for other in [r#"{"apiVersion":"v1","data":{"a":"b"},"kind":"X","metadata":{}}"#, r#"{"metadata":{}}"#, "k8s\0"]
        {
            assert!(!begins_with_identity(other.as_bytes()), "{other}");
        }
        let mut whole = BytesMut::new();
        write_value(&object, &mut whole);
        assert_eq!(serde_json::from_slice::<Value>(&whole).unwrap(), object);
        let text: &RawValue = serde_json::from_str(r#"{"a": "b c"}"#).unwrap();
        let spaced = to_stored_with(&object, Some(("data", text)));
        assert_eq!(spaced, expected.replace(r#"{"a":"b"}"#, r#"{"a": "b c"}"#).as_bytes());
        assert!(has_spaces(&spaced, "data") && !has_spaces(&stored, "data") && !has_spaces(&spaced, "metadata"));
        assert!(!is_spaced(serde_json::from_str(r#"{"a \" ":[1,"b c"]}"#).unwrap()));
        let mut empty = BytesMut::new();
        write_value(&json!({}), &mut empty);
        assert_eq!(&empty[..], b"{}");
    }
}
