//! Checks a configuration against its type, in the words of upstream's structured merge.

use super::set::Step;
use super::typed::{Keys, item_step};
use crate::patch::{go_kind, shown};
use crate::{ListType, Shape, TypeRef};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Nothing, or all that is wrong with the configuration in one text.
pub(super) fn check(ty: TypeRef<'_>, config: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    any(Some(ty), config, &mut String::new(), &mut errors);
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn any(ty: Option<TypeRef<'_>>, value: &Value, path: &mut String, errors: &mut Vec<String>) {
    let Some(ty) = ty else { return };
    if value.is_null() {
        return;
    }
    let got = || format!("&{{{}}}", shown(value));
    let wrong = match (ty.shape(), value) {
        (Shape::Object { open, .. }, Value::Object(map)) => return keys(Keys::Struct(ty, open), map, path, errors),
        (Shape::Map { value, .. }, Value::Object(map)) => return keys(Keys::Map(value), map, path, errors),
        (Shape::List { item, list_type, keys }, Value::Array(list)) => {
            return items(item, list_type, keys, list, path, errors);
        }
        (Shape::Object { .. } | Shape::Map { .. }, _) => format!("expected map, got {}", got()),
        (Shape::List { .. }, _) => format!("expected list, got {}", got()),
        (Shape::Int32 | Shape::Int64 | Shape::Number, other) if !other.is_number() => {
            format!("expected numeric (int or float), got {}", go_kind(other))
        }
        (Shape::String | Shape::Time | Shape::MicroTime | Shape::Bytes, other) if !other.is_string() => {
            let shown = match other {
                Value::Array(_) | Value::Object(_) => format!("{}{}", go_kind(other), shown(other)),
                scalar => scalar.to_string(),
            };
            format!("expected string, got &value.valueUnstructured{{Value:{shown}}}")
        }
        (Shape::Bool, other) if !other.is_boolean() => format!("expected boolean, got {}", got()),
        (Shape::Quantity | Shape::IntOrString, Value::Array(_) | Value::Object(_)) => {
            format!("expected any scalar, got {}", got())
        }
        _ => return,
    };
    errors.push(message(path, &wrong));
}

fn message(path: &str, text: &str) -> String {
    if path.is_empty() { text.to_owned() } else { format!("{path}: {text}") }
}

fn below(path: &mut String, step: &Step, visit: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(&step.to_string());
    visit(path);
    path.truncate(length);
}

fn keys(keys: Keys<'_>, map: &Map<String, Value>, path: &mut String, errors: &mut Vec<String>) {
    for (key, value) in map {
        let declared = keys.of(key);
        below(path, &Step::Field(key.clone()), |path| match declared {
            Some((ty, _)) => any(ty, value, path, errors),
            None => errors.push(message(path, "field not declared in schema")),
        });
        if declared.is_none() {
            return;
        }
    }
}

fn items(
    item: TypeRef<'_>,
    list_type: ListType,
    keys: &[Box<str>],
    list: &[Value],
    path: &mut String,
    errors: &mut Vec<String>,
) {
    let mut seen = HashSet::new();
    for (index, value) in list.iter().enumerate() {
        let step = match list_type {
            ListType::Atomic => Step::Index(index),
            ListType::Set | ListType::Map => match item_step(item, keys, value) {
                Ok(step) => step,
                Err(error) => return errors.push(message(path, &format!("element {index}: {error}"))),
            },
        };
        if list_type != ListType::Atomic && !seen.insert(step.to_string()) {
            errors.push(message(path, &format!("duplicate entries for key {step}")));
        }
        below(path, &step, |path| any(Some(item), value, path, errors));
    }
}
