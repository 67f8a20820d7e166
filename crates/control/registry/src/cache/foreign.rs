//! Values that another API server wrote: protocol buffers, JSON in another order, other versions. They are brought into
//! our own form when they are read; a write stores our form.

use super::entry::EntryError;
use crate::codec;
use bytes::Bytes;
use pintle_kinds::ResourceDef;
use pintle_schema::decode::Limits;
use pintle_schema::protobuf::Envelope;
use pintle_store::KeyValue;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// Begins values in upstream's storage encoding.
const PROTOBUF: &[u8] = b"k8s\0";

/// The key with its value in our form: JSON that begins with `apiVersion`, `kind` and `metadata`.
pub(super) fn canonical<'a>(kv: &'a KeyValue, versions: &[Arc<ResourceDef>]) -> Result<Cow<'a, KeyValue>, EntryError> {
    if codec::begins_with_identity(&kv.value) {
        return Ok(Cow::Borrowed(kv));
    }
    let fail =
        |why: String| EntryError { key: String::from_utf8_lossy(&kv.key).into_owned(), revision: kv.mod_revision, why };
    let value = read(&kv.value, versions).map_err(fail)?;
    Ok(Cow::Owned(KeyValue { value, ..kv.clone() }))
}

fn read(bytes: &[u8], versions: &[Arc<ResourceDef>]) -> Result<Bytes, String> {
    let mut object: Value = if bytes.starts_with(PROTOBUF) {
        let limits = Limits { max_bytes: 64 << 20, ..Limits::default() };
        Envelope::open(bytes).and_then(|envelope| envelope.object(("", ""), limits)).map_err(|e| e.to_string())?
    } else {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())?
    };
    let version = object["apiVersion"].as_str().unwrap_or_default();
    if let Some(def) = versions.iter().find(|def| def.api_version() == version && version != def.storage.api_version())
    {
        def.to_storage(&mut object);
    }
    Ok(codec::to_stored(&object))
}
