//! Objects and lists in the form that was negotiated: whole, as a table, or metadata alone.

use super::Target;
use crate::media::{Format, View, Written};
use crate::query::Query;
use crate::response::{self, Answer};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use jiff::Timestamp;
use pintle_kinds::ResourceDef;
use pintle_registry::{EventKind, List, Object, WatchEvent};
use pintle_schema::{cbor, protobuf};
use pintle_types::{Reason, Status};
use serde_json::{Value, json};

/// How much of each object a table's rows carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    pub fn read(query: &Query) -> Self {
        match query.text("includeObject") {
            "None" => Self::Nothing,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// Answers with one object.
pub(crate) fn object(target: &Target<'_>, format: Format, code: StatusCode, object: &Object) -> Answer {
    match format.view {
        View::Whole if format.written == Written::Json => Ok(send(target, format, code, object.to_json())),
        View::Whole if format.written == Written::Protobuf && matches!(object, Object::Stored(_)) => {
            let body = binary_object(&target.def.api_version(), &target.def.kind, object)?;
            Ok(send(target, format, code, body))
        }
        View::Whole => send_value(target, format, code, &object.to_value()),
        View::Metadata(version) if format.written == Written::Json => {
            let mut out = BytesMut::new();
            write_partial(object, version, &mut out);
            Ok(send(target, format, code, out.freeze()))
        }
        View::Metadata(version) => send_value(target, format, code, &partial(&object.to_value(), version)),
        View::Table(version) => {
            let value = object.to_value();
            let now = target.call.server.clock.now();
            let include = Include::read(&target.call.query);
            let mut table = head(&target.def, version, true);
            table["metadata"] = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
            table["rows"] = json!([row(&target.def, version, include, value, now)]);
            send_value(target, format, code, &table)
        }
    }
}

/// Answers with a list.
pub(crate) fn list(target: &Target<'_>, format: Format, list: &List) -> Answer {
    let code = StatusCode::OK;
    match format.view {
        View::Whole if format.written == Written::Protobuf => {
            let messages: Option<Vec<Bytes>> = list.items.iter().map(Object::message).collect();
            let metadata = list_metadata(list);
            let (Some(messages), Some(metadata)) = (messages, metadata.as_object()) else {
                return Err(no_protobuf(&list.kind));
            };
            let body = protobuf::encode_list(&list.api_version, &list.kind, metadata, &messages);
            Ok(send(target, format, code, body.ok_or_else(|| no_protobuf(&list.kind))?.into()))
        }
        View::Whole => {
            let mut out = BytesMut::with_capacity(256 + list.items.len() * 1024);
            list.write_json(&mut out);
            let bytes = out.freeze();
            if format.written != Written::Json {
                let value = serde_json::from_slice(&bytes).map_err(|e| Box::new(Status::internal(e)))?;
                return send_value(target, format, code, &value);
            }
            Ok(send(target, format, code, bytes))
        }
        View::Metadata(version) if format.written == Written::Json => {
            let mut out = BytesMut::with_capacity(256 + list.items.len() * 512);
            let head = format!(
                r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/{version}","metadata":{},"items":["#,
                list_metadata(list)
            );
            out.extend_from_slice(head.as_bytes());
            for (at, item) in list.items.iter().enumerate() {
                out.extend_from_slice(if at > 0 { b"," } else { b"" });
                write_partial(item, version, &mut out);
            }
            out.extend_from_slice(b"]}");
            Ok(send(target, format, code, out.freeze()))
        }
        View::Metadata(version) => {
            let items: Vec<Value> = list.items.iter().map(|o| partial(&o.to_value(), version)).collect();
            let body = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": list_metadata(list), "items": items,
            });
            send_value(target, format, code, &body)
        }
        View::Table(version) => {
            let now = target.call.server.clock.now();
            let include = Include::read(&target.call.query);
            let rows = list.items.iter().map(|o| row(&target.def, version, include, o.to_value(), now));
            let mut table = head(&target.def, version, true);
            table["rows"] = rows.collect();
            table["metadata"] = list_metadata(list);
            send_value(target, format, code, &table)
        }
    }
}

fn list_metadata(list: &List) -> Value {
    let mut metadata = json!({"resourceVersion": list.revision.to_string()});
    if !list.continue_token.is_empty() {
        metadata["continue"] = list.continue_token.as_str().into();
    }
    if let Some(remaining) = list.remaining.filter(|n| *n > 0) {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// Appends what [`partial`] makes of an object, as JSON: for stored objects without their trees.
pub(super) fn write_partial(object: &Object, version: &str, out: &mut BytesMut) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/"#);
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    object.write_metadata_json(out);
    out.extend_from_slice(b"}");
}

/// An object's metadata alone.
pub(crate) fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object["metadata"],
    })
}

/// A table without rows; `columns` only where they were not told before.
fn head(def: &ResourceDef, version: &str, columns: bool) -> Value {
    let column = |c: &pintle_kinds::Column| {
        json!({
            "name": c.name, "type": c.column_type, "format": c.format,
            "description": c.description, "priority": c.priority,
        })
    };
    let columns = columns.then(|| def.strategy.columns().iter().map(column).collect::<Vec<_>>());
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": {}, "columnDefinitions": columns, "rows": [],
    })
}

fn row(def: &ResourceDef, version: &str, include: Include, object: Value, now: Timestamp) -> Value {
    // Cells are made from the stored form, which for kinds of one version is the object as it is.
    let cells = if def.storage.version == def.version && def.storage.group == def.group {
        def.strategy.cells(&object, now)
    } else {
        let mut stored = object.clone();
        def.to_storage(&mut stored);
        def.strategy.cells(&stored, now)
    };
    let shown = match include {
        Include::Nothing => Value::Null,
        Include::Metadata => partial(&object, version),
        Include::Object => object,
    };
    json!({"cells": cells, "object": shown})
}

/// The table of one event of a watch.
pub(crate) fn event_table(
    def: &ResourceDef,
    version: &str,
    include: Include,
    event: &WatchEvent,
    first: bool,
    now: Timestamp,
) -> Value {
    let object = event.object.to_value();
    let mut table = head(def, version, first);
    table["metadata"] = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
    if event.kind == EventKind::Bookmark {
        return table;
    }
    table["rows"] = json!([row(def, version, include, object, now)]);
    table
}

fn send(target: &Target<'_>, format: Format, code: StatusCode, body: Bytes) -> http::Response<pintle_client::Body> {
    response::compressed(code, format.written.content_type(), body, &target.call.headers)
}

fn send_value(target: &Target<'_>, format: Format, code: StatusCode, value: &Value) -> Answer {
    Ok(send(target, format, code, encode_value(value, format.written)?))
}

/// A tree as it is to be written; not every kind has a form in protobuf.
pub(crate) fn encode_value(value: &Value, written: Written) -> Result<Bytes, Box<Status>> {
    match written {
        Written::Json => Ok(value.to_string().into()),
        Written::Yaml => match serde_yaml_ng::to_string(value) {
            Ok(text) => Ok(text.into()),
            Err(e) => Err(Box::new(Status::internal(e))),
        },
        Written::Cbor => Ok(cbor::encode(value).into()),
        Written::Protobuf => {
            let encoded = protobuf::encode(value).map(Bytes::from);
            encoded.ok_or_else(|| no_protobuf(value["kind"].as_str().unwrap_or_default()))
        }
    }
}

fn no_protobuf(kind: &str) -> Box<Status> {
    let message = format!("objects of kind {kind:?} have no protobuf form: accept application/json");
    Box::new(Status::failure(406, Reason::NotAcceptable, message))
}

/// An object in its envelope, from the message that is kept with it.
pub(super) fn binary_object(api_version: &str, kind: &str, object: &Object) -> Result<Bytes, Box<Status>> {
    let message = object.message().ok_or_else(|| no_protobuf(kind))?;
    Ok(protobuf::envelope(api_version, kind, &message).into())
}
