//! Trees into messages, byte for byte as upstream writes them: fields in the order of their numbers, and those that are
//! no pointers even when they are empty.

use super::table::{self, Entry, Form, MAX_LEVELS};
use super::wire::{put_bytes, put_double, put_varint};
use crate::{Print, Shape, TypeRef};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The message of an object; none when its type has none.
pub(super) fn object(ty: TypeRef<'_>, map: &Map<String, Value>) -> Option<Vec<u8>> {
    let layout = table::layout(ty)?;
    let mut out = Vec::new();
    fields(&layout.entries, 0, map, &mut out);
    Some(out)
}

/// Writes entries that share the numbers of the first levels. All but the last level are embedded structs.
fn fields(entries: &[Entry], level: usize, map: &Map<String, Value>, out: &mut Vec<u8>) {
    for group in entries.chunk_by(|a, b| a.path[level] == b.path[level]) {
        let number = group[0].path[level];
        if level + 1 < MAX_LEVELS && group[0].path[level + 1] != 0 {
            let mut inner = Vec::new();
            fields(group, level + 1, map, &mut inner);
            put_bytes(out, number, &inner);
        } else {
            group.iter().for_each(|entry| field(entry, number, map, out));
        }
    }
}

fn field(entry: &Entry, number: u8, map: &Map<String, Value>, out: &mut Vec<u8>) {
    let ty = entry.field.ty();
    let value = map.get(entry.field.name()).filter(|value| !value.is_null());
    match (ty.shape(), value) {
        (Shape::List { item, .. }, Some(Value::Array(items))) if entry.form != Form::Wrapped => {
            items.iter().for_each(|value| put(item, entry.form, number, value, out));
        }
        (Shape::Map { value: ty, .. }, Some(Value::Object(pairs))) => {
            for (key, value) in pairs {
                let mut pair = Vec::new();
                put_bytes(&mut pair, 1, key.as_bytes());
                put(ty, entry.form, 2, value, &mut pair);
                put_bytes(out, number, &pair);
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
fn put(ty: TypeRef<'_>, form: Form, number: u8, value: &Value, out: &mut Vec<u8>) {
    let message = match (ty.shape(), value) {
        _ if form == Form::Wrapped => wrapped(value),
        _ if form != Form::Plain => either(form, value),
        (Shape::Object { .. }, Value::Object(map)) => object(ty, map).unwrap_or_default(),
        (Shape::Object { .. }, _) => object(ty, &Map::new()).unwrap_or_default(),
        (Shape::Int32 | Shape::Int64, _) => return put_varint(out, number, integer(value) as u64),
        (Shape::Bool, _) => return put_varint(out, number, value.as_bool().unwrap_or_default().into()),
        (Shape::Number, _) => return put_double(out, number, value.as_f64().unwrap_or_default()),
        (Shape::String, _) => value.as_str().unwrap_or_default().into(),
        (Shape::Bytes, _) => bytes(value.as_str().unwrap_or_default()),
        (Shape::Quantity, _) => quantity(value),
        (Shape::IntOrString, _) => int_or_string(value),
        (Shape::Time | Shape::MicroTime, _) => time(value, matches!(ty.shape(), Shape::MicroTime)),
        (Shape::Any, Value::Null) => Vec::new(),
        (Shape::Any, _) => single(value.to_string().as_bytes()),
        // No message has lists in lists or in maps, other than wrapped ones.
        (Shape::List { .. } | Shape::Map { .. }, _) => return,
    };
    put_bytes(out, number, &message);
}

/// A message of one field of bytes.
fn single(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 4);
    put_bytes(&mut out, 1, bytes);
    out
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

fn wrapped(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for item in value.as_array().into_iter().flatten() {
        put_bytes(&mut out, 1, item.as_str().unwrap_or_default().as_bytes());
    }
    out
}

fn either(form: Form, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let schema = |value: &Value| match (table::schema_type(), value) {
        (Some(ty), Value::Object(map)) => object(ty, map).unwrap_or_default(),
        _ => Vec::new(),
    };
    match (form, value) {
        (Form::SchemaOrBool, Value::Object(_)) => {
            put_varint(&mut out, 1, 1);
            put_bytes(&mut out, 2, &schema(value));
        }
        (Form::SchemaOrBool, _) => put_varint(&mut out, 1, value.as_bool().unwrap_or_default().into()),
        (_, Value::Object(_)) => put_bytes(&mut out, 1, &schema(value)),
        (Form::SchemaOrNames, Value::Array(names)) => {
            names.iter().for_each(|name| put_bytes(&mut out, 2, name.as_str().unwrap_or_default().as_bytes()));
        }
        (_, Value::Array(schemas)) => schemas.iter().for_each(|value| put_bytes(&mut out, 2, &schema(value))),
        _ => {}
    }
    out
}

fn quantity(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => single(text.as_bytes()),
        Value::Number(number) => single(number.to_string().as_bytes()),
        _ => single(b"0"),
    }
}

fn int_or_string(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, 1, value.is_string().into());
    put_varint(&mut out, 2, integer(value) as u64);
    put_bytes(&mut out, 3, value.as_str().unwrap_or_default().as_bytes());
    out
}

/// No time is no bytes.
fn time(value: &Value, micro: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some((seconds, nanos)) = value.as_str().and_then(crate::time::unix) {
        put_varint(&mut out, 1, seconds as u64);
        put_varint(&mut out, 2, if micro { u64::from(nanos / 1000 * 1000) } else { 0 });
    }
    out
}
