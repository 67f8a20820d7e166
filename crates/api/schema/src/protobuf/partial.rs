//! `PartialObjectMetadata` and its list, which no schema describes: the metadata of any object, custom ones too.

use super::encode;
use crate::Schema;
use pintle_protobuf::wire;
use serde_json::Value;

const KIND: &str = "PartialObjectMetadata";
const LIST: &str = "PartialObjectMetadataList";

/// Which of the two versions; none for other groups and kinds.
fn version<'a>(api_version: &'a str, kind: &str, wanted: &str) -> Option<&'a str> {
    let version = api_version.strip_prefix("meta.k8s.io/").filter(|_| kind == wanted)?;
    matches!(version, "v1" | "v1beta1").then_some(version)
}

/// The message of one, or of a list of them.
pub(super) fn message(api_version: &str, kind: &str, object: &Value) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    if version(api_version, kind, KIND).is_some() {
        one(object, &mut out)?;
        return Some(out);
    }
    let (metadata, items) = list_order(api_version, kind)?;
    let ty = Schema::builtin().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")?;
    let head = |out: &mut Vec<u8>| {
        if let Some(fields) = object["metadata"].as_object() {
            wire::put_nested(out, metadata, |out| encode::object(ty, fields, out));
        }
    };
    if metadata < items {
        head(&mut out);
    }
    for item in object["items"].as_array().into_iter().flatten() {
        wire::put_nested(&mut out, items, |out| {
            // Only a broken schema has no metadata.
            let _ = one(item, out);
        });
    }
    if metadata > items {
        head(&mut out);
    }
    Some(out)
}

fn one(object: &Value, out: &mut Vec<u8>) -> Option<()> {
    let ty = Schema::builtin().definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")?;
    let metadata = object["metadata"].as_object()?;
    wire::put_nested(out, 1, |out| encode::object(ty, metadata, out));
    Some(())
}

/// The numbers of `metadata` and `items` in a list; the older version has them the other way round.
pub(super) fn list_order(api_version: &str, kind: &str) -> Option<(u32, u32)> {
    version(api_version, kind, LIST).map(|version| if version == "v1" { (1, 2) } else { (2, 1) })
}
