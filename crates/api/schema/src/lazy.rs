//! Schemas of custom resources that are kept packed until somebody uses them.

use crate::crd;
use crate::model::Schema;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::sync::OnceLock;

/// Packing is done once and reading rarely: the fastest level saves nearly as much as the best.
const LEVEL: i32 = 3;
/// What was packed here was smaller than a request's body.
const MAX_BYTES: usize = 64 << 20;

/// One version's schema.
#[derive(Debug)]
pub struct Lazy {
    group: Box<str>,
    version: Box<str>,
    kind: Box<str>,
    name: Box<str>,
    packed: Box<[u8]>,
    digest: [u8; 32],
    source: OnceLock<Value>,
    pub(crate) built: OnceLock<Schema>,
}

impl Lazy {
    pub(crate) fn new(group: &str, version: &str, kind: &str, source: &Value) -> Self {
        let text = source.to_string();
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            name: crd::definition_name(group, version, kind).into(),
            digest: Sha256::digest(&text).into(),
            packed: zstd::bulk::compress(text.as_bytes(), LEVEL).unwrap_or_default().into(),
            source: OnceLock::new(),
            built: OnceLock::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn unpacked(&self) -> Value {
        let text = zstd::bulk::decompress(&self.packed, MAX_BYTES).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_else(|_| anything())
    }

    pub(crate) fn source(&self) -> &Value {
        self.source.get_or_init(|| self.unpacked())
    }

    pub(crate) fn source_once(&self) -> Cow<'_, Value> {
        self.source.get().map_or_else(|| Cow::Owned(self.unpacked()), Cow::Borrowed)
    }

    pub(crate) fn schema(&self) -> &Schema {
        self.built.get_or_init(|| {
            let built = crd::build(&self.group, &self.version, &self.kind, self.source());
            built.or_else(|_| crd::build(&self.group, &self.version, &self.kind, &anything())).unwrap_or_default()
        })
    }
}

/// What stands for a schema that can't be used.
fn anything() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_unpacked_when_they_are_used() {
        let source = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
        let lazy = Lazy::new("a.io", "v1", "Thing", &source);
        assert_eq!(lazy.name(), "io.a.v1.Thing");
        assert_eq!(*lazy.source_once(), source);
        assert!(lazy.source.get().is_none());
        assert!(lazy.schema().definition("io.a.v1.Thing").unwrap().field("spec").is_some());
        assert_eq!(lazy.source.get(), Some(&source));
        let odd = Lazy::new("a.io", "v1", "Thing", &json!({"type": "object", "properties": {"a": {"type": "x"}}}));
        assert!(odd.schema().definition("io.a.v1.Thing").is_some());
    }
}
