//! `/openapi/v2` and `/openapi/v3`: made on demand from the table, kept compressed until the table changes.

use crate::aggregation::{self, documents};
use crate::media::negotiate_type;
use crate::pipeline::Call;
use crate::response::{Answer, JSON, accepts_gzip, gzip, with_type};
use crate::server::Server;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use pintle_client::{Body, empty_body};
use pintle_kinds::{ResourceDef, Table};
use pintle_schema::Schema;
use pintle_schema::openapi::{self, Resource, Subresource};
use pintle_types::Status;
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Weak};

/// A document as it is kept: compressed, with the hash of what it was.
#[derive(Clone)]
struct Document {
    packed: Bytes,
    hash: String,
}

/// The documents that somebody asked for, of one table.
#[derive(Default)]
pub(crate) struct Documents {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// A weak reference keeps the place of a table that is gone, so that no other one is taken for it.
    table: Weak<Table>,
    documents: HashMap<String, Document>,
}

impl Kept {
    fn is_of(&self, table: &Arc<Table>) -> bool {
        std::ptr::eq(self.table.as_ptr(), Arc::as_ptr(table))
    }
}

impl Documents {
    /// The document of a path, made now if it was not asked for since the table changed.
    fn get(&self, table: &Arc<Table>, path: &str, make: impl FnOnce() -> Vec<u8>) -> Option<Document> {
        {
            let mut kept = self.kept.lock();
            if !kept.is_of(table) {
                *kept = Kept { table: Arc::downgrade(table), documents: HashMap::new() };
            }
            if let Some(document) = kept.documents.get(path) {
                return Some(document.clone());
            }
        }
        let bytes = make();
        let document = Document { hash: openapi::hash(&bytes), packed: gzip(&bytes)? };
        let mut kept = self.kept.lock();
        // The table may have changed meanwhile.
        if kept.is_of(table) {
            kept.documents.insert(path.to_owned(), document.clone());
        }
        Some(document)
    }
}

pub(crate) async fn answer(call: &Call, rest: &[&str]) -> Answer {
    match rest {
        ["v2"] => v2(call).await,
        ["v3"] => index(call).await,
        ["v3", "api", version] => group_version(call, "", version),
        ["v3", "apis", group, version] => match call.server.aggregation.others.find(group, version) {
            Some(other) => aggregation::proxy(call, &other).await,
            None => group_version(call, group, version),
        },
        _ => Ok(crate::response::page_not_found()),
    }
}

/// The old form: JSON, or protobuf where the client prefers it, which those before v1.28 insist on.
async fn v2(call: &Call) -> Answer {
    let forms = [JSON, openapi::V2_PROTOBUF_ASKED, openapi::V2_PROTOBUF];
    let Some(form) = negotiate_type(&call.headers, &forms) else {
        let mut response = Response::new(empty_body());
        *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        return Ok(response);
    };
    let binary = form > 0;
    let table = call.server.registry.table();
    let foreign = documents::v2_documents(&call.server).await;
    if !foreign.is_empty() {
        let mut whole = openapi::v2(&resources(&call.server, &table, None));
        for (prefix, document) in &foreign {
            whole = openapi::merge_v2(whole, prefix, document);
        }
        let (bytes, kind) = if binary { (openapi::v2_protobuf(&whole), openapi::V2_PROTOBUF) } else { (whole, JSON) };
        let mut response = with_type(StatusCode::OK, kind, bytes.clone());
        tagged(&mut response, &format!("\"{}\"", openapi::hash(&bytes)));
        return Ok(response);
    }
    let json = || openapi::v2(&resources(&call.server, &table, None));
    if !binary {
        return document(call, &table, "v2", json);
    }
    let mut response = document(call, &table, "v2.protobuf", || openapi::v2_protobuf(&json()))?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(openapi::V2_PROTOBUF));
    Ok(response)
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Where a document is, in the state that a hash stands for.
fn url_of(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

/// The list of documents, none of which is made for it.
async fn index(call: &Call) -> Answer {
    let table = call.server.registry.table();
    let mut entries: Vec<(String, String)> = Vec::new();
    for group in call.server.served_groups() {
        for version in &group.versions {
            let only = Some((group.group.as_str(), version.as_str()));
            let hash = openapi::hash_of(&resources(&call.server, &table, only));
            let path = path_of(&group.group, version);
            entries.push((path.clone(), url_of(&path, &hash)));
        }
    }
    for place in documents::v3_places(&call.server).await {
        entries.retain(|(path, _)| *path != place.path);
        entries.push((place.path, place.url));
    }
    entries.sort();
    let bytes = openapi::v3_index(&entries);
    let tag = format!("\"{}\"", openapi::hash(&bytes));
    if call.headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes()) {
        return Ok(with_type(StatusCode::NOT_MODIFIED, JSON, Bytes::new()));
    }
    let mut response = with_type(StatusCode::OK, JSON, bytes);
    tagged(&mut response, &tag);
    Ok(response)
}

fn v3(call: &Call, table: &Table, group: &str, version: &str) -> Vec<u8> {
    openapi::v3(group, version, &resources(&call.server, table, Some((group, version))))
}

fn group_version(call: &Call, group: &str, version: &str) -> Answer {
    let table = call.server.registry.table();
    if !table.of_version(group, version).any(|def| call.server.serves(def)) {
        return Ok(crate::response::page_not_found());
    }
    let path = path_of(group, version);
    let hash = openapi::hash_of(&resources(&call.server, &table, Some((group, version))));
    let asked = call.query.get("hash");
    // A client that read an older index is sent to what there is now.
    if asked.is_some_and(|asked| asked != hash) {
        let mut response = with_type(StatusCode::MOVED_PERMANENTLY, JSON, Bytes::new());
        if let Ok(value) = HeaderValue::from_str(&url_of(&path, &hash)) {
            response.headers_mut().insert(LOCATION, value);
        }
        return Ok(response);
    }
    let mut response = document(call, &table, &path, || v3(call, &table, group, version))?;
    if asked.is_some() {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let year_from_now = call.server.clock.now() + jiff::Span::new().hours(365 * 24);
        if let Ok(value) = HeaderValue::from_str(&year_from_now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
            headers.insert(EXPIRES, value);
        }
    }
    Ok(response)
}

fn document(call: &Call, table: &Arc<Table>, path: &str, make: impl FnOnce() -> Vec<u8>) -> Answer {
    let failed = || Box::new(Status::internal("the OpenAPI document cannot be compressed"));
    let document = call.server.documents.get(table, path, make).ok_or_else(failed)?;
    let tag = format!("\"{}\"", document.hash);
    if call.headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes()) {
        return Ok(with_type(StatusCode::NOT_MODIFIED, JSON, Bytes::new()));
    }
    let mut response = if accepts_gzip(&call.headers) {
        let mut response = with_type(StatusCode::OK, JSON, document.packed);
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        with_type(StatusCode::OK, JSON, unpacked(&document.packed).ok_or_else(failed)?)
    };
    tagged(&mut response, &tag);
    Ok(response)
}

fn tagged(response: &mut Response<Body>, tag: &str) {
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    if let Ok(value) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, value);
    }
}

fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut out).ok()?;
    Some(out)
}

fn resources(server: &Server, table: &Table, only: Option<(&str, &str)>) -> Vec<Resource> {
    let wanted = |def: &&Arc<ResourceDef>| {
        server.serves(def) && only.is_none_or(|(group, version)| def.group == group && def.version == version)
    };
    table.iter().filter(wanted).filter_map(|def| resource(def)).collect()
}

fn resource(def: &ResourceDef) -> Option<Resource> {
    let ty = match &def.schema {
        Some(handle) => handle.clone(),
        None => Schema::builtin().kind(&def.group, &def.version, &def.kind)?.into(),
    };
    let words = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    Some(Resource {
        group: def.group.clone(),
        version: def.version.clone(),
        plural: def.resource.clone(),
        kind: def.kind.clone(),
        namespaced: def.namespaced,
        verbs: words(&def.verbs),
        subresources: def
            .subresources
            .iter()
            .map(|sub| {
                let body = sub.body.clone().unwrap_or_else(|| def.gvk());
                Subresource {
                    name: sub.name.clone(),
                    group: body.group,
                    version: body.version,
                    kind: body.kind,
                    verbs: words(&sub.verbs),
                }
            })
            .collect(),
        ty,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(document: Option<Document>) -> String {
        document.map(|document| document.hash).unwrap_or_default()
    }

    #[test]
    fn a_document_that_was_being_made_when_the_table_changed_is_not_kept() {
        let (documents, old, new) = (Documents::default(), Table::builtin(), Table::builtin());
        let first = documents.get(&old, "v2", || {
            documents.get(&new, "v3", || b"newer".to_vec());
            b"old".to_vec()
        });
        assert_eq!(hash(first), openapi::hash(b"old"));
        let kept = documents.get(&new, "v2", || b"new".to_vec());
        assert_eq!(hash(kept), openapi::hash(b"new"));
        let again = documents.get(&new, "v2", || unreachable!("it is kept"));
        assert_eq!(hash(again), openapi::hash(b"new"));
    }

    #[test]
    fn another_table_in_the_same_place_is_another_table() {
        let documents = Documents::default();
        for number in 0..20_u8 {
            // Each takes the place that the one before has left.
            let table = Table::builtin();
            assert_eq!(hash(documents.get(&table, "v2", || vec![number])), openapi::hash(&[number]));
        }
    }
}
