//! OpenAPI v2 and v3 documents, built on demand from the schema and a table of resources.
//!
//! Nothing of them is kept: the descriptions are packed in the binary and unpacked for one document.

use crate::TypeHandle;
use descriptions::Descriptions;
use json::Json;
use sha2::{Digest, Sha512};

mod definitions;
mod descriptions;
mod gnostic;
mod json;
mod merge;
mod paths;
mod swagger;

/// One resource of a group and version, as discovery shows it.
#[derive(Clone, Debug)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
    /// `create`, `delete`, `deletecollection`, `get`, `list`, `patch`, `update`, `watch`
    pub verbs: Vec<String>,
    pub subresources: Vec<Subresource>,
    pub ty: TypeHandle,
}

/// A path below a resource's object.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// `status`
    pub name: String,
    /// The kind of its bodies, which is of another group for `scale`, `eviction`, `token`.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

/// The two forms of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

const VERSION: &str = "v1.36.0";

/// The v3 document of one group and version, as JSON. `resources` are those of that group and version.
pub fn v3(group: &str, version: &str, resources: &[Resource]) -> Vec<u8> {
    let text = descriptions::unpack();
    let descriptions = Descriptions::of(&text);
    let mut json = Json::default();
    json.object(|json| {
        json.key("components").object(|json| {
            json.key("schemas").object(|json| definitions::write(json, Dialect::V3, resources, &descriptions));
            json.key("securitySchemes").object(security);
        });
        json.key("info").object(info);
        json.key("openapi").string("3.0.0");
        json.key("paths").object(|json| {
            paths::write_root(json, Dialect::V3, group, version);
            resources.iter().for_each(|resource| paths::write(json, Dialect::V3, resource));
        });
    });
    json.into_bytes()
}

/// The whole v2 (swagger) document, as JSON.
pub fn v2(resources: &[Resource]) -> Vec<u8> {
    let text = descriptions::unpack();
    let descriptions = Descriptions::of(&text);
    let mut json = Json::default();
    json.object(|json| {
        json.key("swagger").string("2.0");
        json.key("info").object(info);
        json.key("paths").object(|json| {
            let mut seen = Vec::new();
            for Resource { group, version, .. } in resources {
                if !seen.contains(&(group, version)) {
                    seen.push((group, version));
                    paths::write_root(json, Dialect::V2, group, version);
                }
            }
            resources.iter().for_each(|resource| paths::write(json, Dialect::V2, resource));
        });
        json.key("definitions").object(|json| definitions::write(json, Dialect::V2, resources, &descriptions));
        json.key("securityDefinitions").object(security);
        json.key("security").array(|json| json.object(|json| json.key("BearerToken").array(|_| {})));
    });
    json.into_bytes()
}

pub use merge::merge_v2;

/// The `Content-Type` of [`v2_protobuf`].
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What older clients write into `Accept` for it, which is no valid media type.
pub const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The v2 document in protobuf, from the JSON that [`v2`] made: clients before v1.28 ask for nothing else.
pub fn v2_protobuf(document: &[u8]) -> Vec<u8> {
    gnostic::encode(document)
}

fn info(json: &mut Json) {
    json.key("title").string("Kubernetes");
    json.key("version").string(VERSION);
}

fn security(json: &mut Json) {
    json.key("BearerToken").object(|json| {
        json.key("description").string("Bearer Token authentication");
        json.key("in").string("header");
        json.key("name").string("authorization");
        json.key("type").string("apiKey");
    });
}

/// The hash of a document for `?hash=`: uppercase hex of its SHA-512.
pub fn hash(document: &[u8]) -> String {
    Sha512::digest(document).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A hash of what a document will hold, without making it: for the index, which names the hashes of all.
pub fn hash_of(resources: &[Resource]) -> String {
    let mut hasher = Sha512::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    for resource in resources {
        let Resource { group, version, plural, kind, namespaced, verbs, subresources, ty } = resource;
        hasher.update(format!("{group}/{version}/{plural}/{kind}/{namespaced}/{verbs:?}/{subresources:?}"));
        if let Some(digest) = ty.digest() {
            hasher.update(digest);
        }
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `/openapi/v3`: `entries` are `("apis/apps/v1", "/openapi/v3/apis/apps/v1?hash=…")`.
pub fn v3_index(entries: &[(String, String)]) -> Vec<u8> {
    let mut json = Json::default();
    json.object(|json| {
        json.key("paths").object(|json| {
            for (path, url) in entries {
                json.key(path).object(|json| {
                    json.key("serverRelativeURL").string(url);
                });
            }
        });
    });
    json.into_bytes()
}

#[cfg(test)]
mod tests;
