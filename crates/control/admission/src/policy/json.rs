//! Values of expressions as JSON: what mutations construct.

use base64::Engine;
use pintle_cel::library::OBJECT_TYPE;
use pintle_cel::{Struct, Value as CelValue, time, unescape};
use serde_json::{Map, Value};

/// A value as JSON, or why it has no such form.
pub(super) fn to_json(value: &CelValue<'_>) -> Result<Value, String> {
    Ok(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(value) => (*value).into(),
        CelValue::Int(value) => (*value).into(),
        CelValue::Uint(value) => (*value).into(),
        CelValue::Double(value) => number(*value),
        CelValue::String(text) => text.as_str().into(),
        CelValue::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        CelValue::Timestamp(time) => time.to_string().into(),
        CelValue::Duration(span) => time::format_duration(*span).into(),
        CelValue::List(list) => list.iter().map(|item| to_json(&item)).collect::<Result<Vec<_>, _>>()?.into(),
        CelValue::Map(map) => {
            let mut fields = Map::new();
            for (key, value) in map.iter() {
                let Some(name) = key.as_str() else {
                    let kind = key.runtime_type();
                    return Err(format!("map key {key:?} is of type {kind}, not string"));
                };
                fields.insert(name.to_owned(), to_json(&value)?);
            }
            Value::Object(fields)
        }
        CelValue::Struct(made) => object(made)?,
        CelValue::Optional(Some(value)) => to_json(value)?,
        other => return Err(format!("no JSON is known for a {}", other.runtime_type())),
    })
}

/// Whole numbers are written without a point, as Go does.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => (value as i64).into(),
        false => value.into(),
    }
}

fn object(made: &Struct<'_>) -> Result<Value, String> {
    let fields = made.fields.iter().map(|(name, value)| Ok((unescape(name).into_owned(), to_json(value)?)));
    fields.collect::<Result<Map<_, _>, String>>().map(Value::Object)
}

/// Whether every part of what was made is called by its path: `Object.spec.template`. What a patch adds may be any part
/// of an object, so its own name begins the path.
pub(super) fn check_type_names(value: &CelValue<'_>) -> Result<(), String> {
    let mut errors = Vec::new();
    let root = if let CelValue::Struct(made) = value { made.object.name() } else { OBJECT_TYPE };
    check(value, &mut vec![root.to_owned()], &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", errors.join("\n"))) }
}

fn check(value: &CelValue<'_>, path: &mut Vec<String>, errors: &mut Vec<String>) {
    match value {
        CelValue::Struct(made) => {
            let (name, expected) = (made.object.name(), path.join("."));
            if name != expected {
                errors.push(format!(
                    "unexpected type name {name:?}, expected {expected:?}, which matches field name path from root Object type"
                ));
            }
            for (field, value) in &made.fields {
                path.push(field.to_string());
                check(value, path, errors);
                path.pop();
            }
        }
        CelValue::List(list) => list.iter().for_each(|item| check(&item, path, errors)),
        CelValue::Map(map) => map.iter().for_each(|(_, value)| check(&value, path, errors)),
        _ => {}
    }
}
