//! Trees into messages, byte for byte as upstream writes them: fields in the order of their numbers, and those that are
//! no pointers even when they are empty.

use super::table::{self, Entry, Form, MAX_LEVELS};
use crate::{Print, Shape, TypeRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pintle_protobuf::wire::{put_bytes, put_double, put_nested, put_varint};
use serde_json::{Map, Value};
use std::io::Write;

/// Appends the message of an object; nothing when its type has none.
pub(super) fn object(ty: TypeRef<'_>, map: &Map<String, Value>, out: &mut Vec<u8>) {
    if let Some(layout) = table::layout(ty) {
        fields(&layout.entries, 0, map, out);
    }
}

/// Writes entries that share the numbers of the first levels. All but the last level are embedded structs.
fn fields(entries: &[Entry], level: usize, map: &Map<String, Value>, out: &mut Vec<u8>) {
    for group in entries.chunk_by(|a, b| a.path[level] == b.path[level]) {
        let number = group[0].path[level].into();
        if level + 1 < MAX_LEVELS && group[0].path[level + 1] != 0 {
            put_nested(out, number, |out| fields(group, level + 1, map, out));
        } else {
            group.iter().for_each(|entry| field(entry, number, map, out));
        }
    }
}

fn field(entry: &Entry, number: u32, map: &Map<String, Value>, out: &mut Vec<u8>) {
    let ty = entry.field.ty();
    let value = map.get(entry.field.name()).filter(|value| !value.is_null());
    match (ty.shape(), value) {
        (Shape::List { item, .. }, Some(Value::Array(items))) if entry.form != Form::Wrapped => {
            items.iter().for_each(|value| put(item, entry.form, number, value, out));
        }
        (Shape::Map { value: ty, .. }, Some(Value::Object(pairs))) => {
            for (key, value) in pairs {
                put_nested(out, number, |pair| {
                    put_bytes(pair, 1, key.as_bytes());
                    put(ty, entry.form, 2, value, pair);
                });
            }
        }
        (Shape::List { .. } | Shape::Map { .. }, None) => {}
        (_, Some(value)) => put(ty, entry.form, number, value, out),
        (_, None) if is_written_empty(entry) => put(ty, entry.form, number, &Value::Null, out),
        (_, None) => {}
    }
}

/// Fields that are pointers in Go, and bytes, can be missing; the others are always written.
fn is_written_empty(entry: &Entry) -> bool {
    let scalar = match entry.field.ty().shape() {
        Shape::Bytes => return false,
        Shape::String | Shape::Int32 | Shape::Int64 | Shape::Number | Shape::Bool => true,
        _ => false,
    };
    match entry.field.print() {
        Print::Given | Print::Null => false,
        Print::NotEmpty => scalar,
        Print::Always | Print::NotZero => entry.form == Form::Plain,
    }
}

/// Writes one value. A null is the zero value of its type.
fn put(ty: TypeRef<'_>, form: Form, number: u32, value: &Value, out: &mut Vec<u8>) {
    match (ty.shape(), value) {
        _ if form == Form::Wrapped => put_nested(out, number, |out| wrapped(value, out)),
        _ if form != Form::Plain => put_nested(out, number, |out| either(form, value, out)),
        (Shape::Object { .. }, Value::Object(map)) => put_nested(out, number, |out| object(ty, map, out)),
        (Shape::Object { .. }, _) => put_nested(out, number, |out| object(ty, &Map::new(), out)),
        (Shape::Int32 | Shape::Int64, _) => put_varint(out, number, integer(value) as u64),
        (Shape::Bool, _) => put_varint(out, number, value.as_bool().unwrap_or_default().into()),
        (Shape::Number, _) => put_double(out, number, value.as_f64().unwrap_or_default()),
        (Shape::String, _) => put_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        (Shape::Bytes, _) => put_bytes(out, number, &bytes(value.as_str().unwrap_or_default())),
        (Shape::Quantity, _) => put_nested(out, number, |out| quantity(value, out)),
        (Shape::IntOrString, _) => put_nested(out, number, |out| int_or_string(value, out)),
        (Shape::Time, _) => put_nested(out, number, |out| time(value, false, out)),
        (Shape::MicroTime, _) => put_nested(out, number, |out| time(value, true, out)),
        (Shape::Any, Value::Null) => put_bytes(out, number, b""),
        (Shape::Any, _) => put_nested(out, number, |out| {
            // Writing a tree into memory cannot fail.
            put_nested(out, 1, |out| drop(write!(out, "{value}")));
        }),
        // No message has lists in lists or in maps, other than wrapped ones.
        (Shape::List { .. } | Shape::Map { .. }, _) => {}
    }
}

fn integer(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_f64().map(|float| float as i64)).unwrap_or_default()
}

/// The bytes of base64 text, which may be broken into lines.
fn bytes(text: &str) -> Vec<u8> {
    if text.contains(['\r', '\n']) {
        return bytes(&text.replace(['\r', '\n'], ""));
    }
    STANDARD.decode(text).unwrap_or_default()
}

fn wrapped(value: &Value, out: &mut Vec<u8>) {
    for item in value.as_array().into_iter().flatten() {
        put_bytes(out, 1, item.as_str().unwrap_or_default().as_bytes());
    }
}

fn either(form: Form, value: &Value, out: &mut Vec<u8>) {
    let schema = |out: &mut Vec<u8>, number: u32, value: &Value| {
        put_nested(out, number, |out| {
            if let (Some(ty), Value::Object(map)) = (table::schema_type(), value) {
                object(ty, map, out);
            }
        });
    };
    match (form, value) {
        (Form::SchemaOrBool, Value::Object(_)) => {
            put_varint(out, 1, 1);
            schema(out, 2, value);
        }
        (Form::SchemaOrBool, _) => put_varint(out, 1, value.as_bool().unwrap_or_default().into()),
        (_, Value::Object(_)) => schema(out, 1, value),
        (Form::SchemaOrNames, Value::Array(names)) => {
            names.iter().for_each(|name| put_bytes(out, 2, name.as_str().unwrap_or_default().as_bytes()));
        }
        (_, Value::Array(schemas)) => schemas.iter().for_each(|value| schema(out, 2, value)),
        _ => {}
    }
}

fn quantity(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => put_bytes(out, 1, text.as_bytes()),
        Value::Number(number) => put_bytes(out, 1, number.to_string().as_bytes()),
        _ => put_bytes(out, 1, b"0"),
    }
}

fn int_or_string(value: &Value, out: &mut Vec<u8>) {
    put_varint(out, 1, value.is_string().into());
    put_varint(out, 2, integer(value) as u64);
    put_bytes(out, 3, value.as_str().unwrap_or_default().as_bytes());
}

/// No time is no bytes.
fn time(value: &Value, micro: bool, out: &mut Vec<u8>) {
    if let Some((seconds, nanos)) = value.as_str().and_then(crate::time::unix) {
        put_varint(out, 1, seconds as u64);
        put_varint(out, 2, if micro { u64::from(nanos / 1000 * 1000) } else { 0 });
    }
}
