//! Whether a patched tree still fits its type, in the words of upstream's converter of trees into structs.

use crate::{Shape, TypeRef};
use serde_json::Value;

pub(super) fn check(ty: TypeRef<'_>, value: &Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    match (ty.shape(), value) {
        (Shape::Object { .. }, Value::Object(map)) => {
            let known = map.iter().filter_map(|(key, value)| Some((ty.field(key)?.ty(), value)));
            known.into_iter().try_for_each(|(ty, value)| check(ty, value))
        }
        (Shape::Map { value: inner, .. }, Value::Object(map)) => map.values().try_for_each(|value| check(inner, value)),
        (Shape::List { item, .. }, Value::Array(items)) => items.iter().try_for_each(|value| check(item, value)),
        (Shape::Object { .. }, other) => Err(format!("cannot restore struct from: {}", kind(other))),
        (Shape::Map { .. }, other) => Err(format!("cannot restore map from {}", kind(other))),
        (Shape::List { .. }, other) => Err(format!("cannot restore slice from {}", kind(other))),
        (Shape::String, value) if !value.is_string() => Err(scalar(value, "string")),
        (Shape::Bool, value) if !value.is_boolean() => Err(scalar(value, "bool")),
        (Shape::Int32, value) if !value.is_number() => Err(scalar(value, "int32")),
        (Shape::Int64, value) if !value.is_number() => Err(scalar(value, "int64")),
        (Shape::Number, value) if !value.is_number() => Err(scalar(value, "float64")),
        _ => crate::check::types(ty, value),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

fn scalar(value: &Value, wanted: &str) -> String {
    let given = match value {
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        other => kind(other),
    };
    format!("cannot convert {given} to {wanted}")
}
