//! One stored object as the cache holds it: its bytes, and the few fields that selectors ask for.

use super::pick::Wanted;
use super::texts::Texts;
use super::watch::FieldPlace;
use crate::codec;
use bytes::{BufMut, Bytes, BytesMut};
use pintle_kinds::SelectableField;
use pintle_store::{KeyValue, Revision};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why a stored value is no object.
#[derive(Debug, thiserror::Error)]
#[error("{key} at revision {revision}: {why}")]
pub(crate) struct EntryError {
    pub key: String,
    pub revision: Revision,
    pub why: String,
}

/// What selectors and indexes need of an object, taken out of it once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Keys and values in turn.
    pub labels: Texts,
    /// The texts of the resource's selectable fields beyond name and namespace, in their order.
    pub selected: Texts,
}

impl Fields {
    /// Takes the fields out of stored bytes.
    pub(super) fn parse(kv: &KeyValue, selectable: &[SelectableField], wanted: &Wanted) -> Result<Self, EntryError> {
        let object = wanted.read(&kv.value).map_err(|e| EntryError {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            revision: kv.mod_revision,
            why: e.to_string(),
        })?;
        Ok(Self::of(&object, selectable))
    }

    pub(crate) fn of(object: &Value, selectable: &[SelectableField]) -> Self {
        let labels = object["metadata"]["labels"].as_object().into_iter().flatten();
        let labels = labels.flat_map(|(key, value)| [key.as_str(), value.as_str().unwrap_or_default()]);
        let selected: Vec<String> = selectable.iter().map(|field| field.text(object)).collect();
        Self { labels: labels.collect(), selected: selected.iter().map(String::as_str).collect() }
    }
}

/// An object of the cache. Its bytes are those that the store holds.
#[derive(Debug)]
pub struct Entry {
    /// `<prefix>/<namespace>/<name>` or `<prefix>/<name>`.
    key: Bytes,
    bytes: Bytes,
    revision: Revision,
    splice: u32,
    /// Where in the key the namespace and the name begin; equal without a namespace.
    namespace_at: u32,
    name_at: u32,
    pub(crate) fields: Fields,
    /// The object's message, made for the first reader of protobuf.
    binary: OnceLock<Box<Kept>>,
}

/// Messages that are kept take at most this many bytes together; beyond that they are made for each reader.
const MAX_KEPT: usize = 64 << 20;
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// A message, counted as long as it is kept.
#[derive(Debug)]
struct Kept(Bytes);

impl Kept {
    /// Nothing when too much is kept already.
    fn new(bytes: &Bytes) -> Option<Box<Self>> {
        let before = KEPT.fetch_add(bytes.len(), Ordering::Relaxed);
        let kept = Box::new(Self(bytes.clone()));
        (before + bytes.len() <= MAX_KEPT).then_some(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

impl Entry {
    /// `prefix_len` is the length of the key's prefix, without the slash after it.
    pub(crate) fn new(kv: &KeyValue, prefix_len: usize, fields: Fields) -> Result<Self, EntryError> {
        let fail = |why: &str| EntryError {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            revision: kv.mod_revision,
            why: why.to_owned(),
        };
        let rest = std::str::from_utf8(kv.key.get(prefix_len + 1..).unwrap_or_default());
        let rest = rest.map_err(|_| fail("the key is not UTF-8"))?;
        let name_in_rest = rest.rfind('/').map_or(0, |slash| slash + 1);
        let splice = codec::splice_offset(&kv.value).ok_or_else(|| fail("the value has no metadata"))?;
        Ok(Self {
            key: kv.key.clone(),
            bytes: kv.value.clone(),
            revision: kv.mod_revision,
            splice: splice as u32,
            namespace_at: (prefix_len + 1) as u32,
            name_at: (prefix_len + 1 + name_in_rest) as u32,
            fields,
            binary: OnceLock::new(),
        })
    }

    /// The object's own message in protobuf, its resourceVersion included; none for kinds that have none.
    pub fn message(&self) -> Option<Bytes> {
        if let Some(kept) = self.binary.get() {
            return Some(kept.0.clone());
        }
        // An allocation of just this size.
        let message = Bytes::from(pintle_schema::protobuf::message(&self.to_value())?.into_boxed_slice());
        if let Some(kept) = Kept::new(&message) {
            // Another reader may have been first: its message is the same.
            let _ = self.binary.set(kept);
        }
        Some(message)
    }

    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The bytes as the store has them.
    pub(crate) fn stored(&self) -> &[u8] {
        &self.bytes
    }

    /// The revision of the last change, which is the object's resourceVersion.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    fn key_text(&self, from: u32, to: usize) -> &str {
        std::str::from_utf8(&self.key[from as usize..to]).unwrap_or_default()
    }

    pub fn name(&self) -> &str {
        self.key_text(self.name_at, self.key.len())
    }

    /// Empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        if self.name_at == self.namespace_at { "" } else { self.key_text(self.namespace_at, self.name_at as usize - 1) }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        let mut labels = self.fields.labels.iter();
        while let (Some(found), Some(value)) = (labels.next(), labels.next()) {
            if found == key {
                return Some(value);
            }
        }
        None
    }

    /// The text of a selectable field.
    pub(crate) fn field(&self, place: FieldPlace) -> &str {
        match place {
            FieldPlace::Name => self.name(),
            FieldPlace::Namespace => self.namespace(),
            FieldPlace::Selected(at) => self.fields.selected.get(at).unwrap_or_default(),
        }
    }

    /// The same object under a later revision, as the event of its deletion shows it.
    pub(super) fn at_revision(&self, revision: Revision) -> Self {
        Self {
            key: self.key.clone(),
            bytes: self.bytes.clone(),
            revision,
            splice: self.splice,
            namespace_at: self.namespace_at,
            name_at: self.name_at,
            fields: self.fields.clone(),
            binary: OnceLock::new(),
        }
    }

    /// Whether the stored form is that of a version: it is the first that is written.
    pub(crate) fn is_of(&self, api_version: &str) -> bool {
        let rest = self.bytes.strip_prefix(b"{\"apiVersion\":\"").unwrap_or_default();
        rest.strip_prefix(api_version.as_bytes()).is_some_and(|rest| rest.starts_with(b"\""))
    }

    /// The stored `apiVersion` and `kind`, which are the first fields; none where they are written otherwise.
    pub fn identity(&self) -> Option<(&str, &str)> {
        let rest = self.bytes.strip_prefix(b"{\"apiVersion\":\"")?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let kind = rest[end..].strip_prefix(b"\",\"kind\":\"")?;
        let kind = &kind[..kind.iter().position(|byte| *byte == b'"')?];
        Some((std::str::from_utf8(&rest[..end]).ok()?, std::str::from_utf8(kind).ok()?))
    }

    /// Appends the object with its resourceVersion.
    pub fn write_to(&self, out: &mut BytesMut) {
        out.reserve(self.bytes.len() + 48);
        out.put_slice(&self.bytes[..self.splice as usize]);
        self.write_rest(out);
    }

    /// Appends the object with its resourceVersion but without `apiVersion` and `kind`, as items of lists are.
    pub fn write_item_to(&self, out: &mut BytesMut) {
        out.reserve(self.bytes.len() + 48);
        out.put_slice(b"{\"metadata\":{");
        self.write_rest(out);
    }

    /// Appends the object's metadata, its resourceVersion included. What the object has beside them is not looked at.
    pub fn write_metadata_to(&self, out: &mut BytesMut) {
        let from = &self.bytes[(self.splice as usize).saturating_sub(1)..];
        let mut values = serde_json::Deserializer::from_slice(from).into_iter::<&RawValue>();
        // The bytes were parsed when they were written or loaded.
        let metadata = values.next().and_then(Result::ok).map_or("{}", RawValue::get);
        out.reserve(metadata.len() + 48);
        out.put_u8(b'{');
        self.write_with_version(&metadata.as_bytes()[1..], out);
    }

    fn write_rest(&self, out: &mut BytesMut) {
        self.write_with_version(&self.bytes[self.splice as usize..], out);
    }

    /// Appends the resourceVersion as the first of the metadata, and then what follows.
    fn write_with_version(&self, tail: &[u8], out: &mut BytesMut) {
        // Writing to bytes in memory can't fail.
        let _ = write!(out, "\"resourceVersion\":\"{}\"", self.revision);
        if !tail.starts_with(b"}") {
            out.put_u8(b',');
        }
        out.put_slice(tail);
    }

    /// The object as a tree, its resourceVersion included.
    pub fn to_value(&self) -> Value {
        // The bytes were parsed when they were written or loaded.
        let mut value: Value = serde_json::from_slice(&self.bytes).unwrap_or_default();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".into(), self.revision.to_string().into());
        }
        value
    }

    /// What the entry costs beside the bytes that it shares, roughly.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len() + self.key.len() + 160
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(object: &Value) -> Entry {
        let key = Bytes::from_static(b"/registry/leases/ns/one");
        let value = codec::to_stored(object);
        let kv = KeyValue { key, value, create_revision: 1, mod_revision: 7, version: 1, lease: 0 };
        Entry::new(&kv, "/registry/leases".len(), Fields::default()).unwrap()
    }

    #[test]
    fn metadata_alone_are_those_of_the_tree() {
        for object in [
            serde_json::json!({"apiVersion": "v1", "kind": "K", "metadata": {}}),
            serde_json::json!({
                "apiVersion": "v1", "kind": "K", "spec": {"metadata": {"name": "}"}},
                "metadata": {"name": "a\"}{", "labels": {"a": "\u{1f600}"}, "managedFields": [{"fieldsV1": {"f:spec": {}}}]},
            }),
        ] {
            let (entry, mut out) = (entry(&object), BytesMut::new());
            entry.write_metadata_to(&mut out);
            let alone: Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(alone, entry.to_value()["metadata"]);
            assert_eq!(alone["resourceVersion"], "7");
        }
    }
}
