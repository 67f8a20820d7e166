//! Lists that are sets or maps: no item twice, and which old item a new one was.

use pintle_types::field::{ErrorList, FieldError, Path};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Duplicates in all lists of an object. Where the old object had some already, none are complained of.
pub(super) fn check(schema: &Value, object: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let mut found = ErrorList::new();
    root(schema, object, &mut found);
    if found.is_empty() {
        return;
    }
    let mut before = ErrorList::new();
    if let Some(old) = old {
        root(schema, old, &mut before);
    }
    if before.is_empty() {
        errors.extend(found);
    }
}

fn root(schema: &Value, object: &Value, errors: &mut ErrorList) {
    for (name, value) in object.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata") {
        visit(&schema["properties"][name], value, &Path::new(name), errors);
    }
}

fn visit(schema: &Value, value: &Value, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Array(items) => {
            duplicates(schema, items, path, errors);
            let inner = &schema["items"];
            items.iter().enumerate().for_each(|(i, item)| visit(inner, item, &path.index(i), errors));
        }
        Value::Object(map) => {
            for (name, value) in map {
                let property = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                if property.is_object() {
                    visit(property, value, &path.child(name), errors);
                }
            }
        }
        _ => {}
    }
}

fn duplicates(schema: &Value, items: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let Some(identity) = identity(schema, item) else { return };
        if !seen.insert(identity.to_string()) {
            errors.push(FieldError::duplicate(&path.index(index), identity));
        }
    }
}

/// What tells an item from the others; nothing in atomic lists. Keys that are absent count with their defaults.
fn identity(schema: &Value, item: &Value) -> Option<Value> {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.clone()),
        Some("map") => {
            let mut keys = Map::new();
            for key in schema["x-kubernetes-list-map-keys"].as_array()?.iter().filter_map(Value::as_str) {
                let default = &schema["items"]["properties"][key]["default"];
                match item.get(key) {
                    Some(value) => drop(keys.insert(key.to_owned(), value.clone())),
                    None if !default.is_null() => drop(keys.insert(key.to_owned(), default.clone())),
                    None => {}
                }
            }
            Some(Value::Object(keys))
        }
        _ => None,
    }
}

/// The old item with the same keys. Only items of maps can be told.
pub(super) fn same_item<'a>(schema: &Value, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    if schema["x-kubernetes-list-type"] != "map" {
        return None;
    }
    let wanted = identity(schema, item)?;
    old?.as_array()?.iter().find(|old| identity(schema, old).as_ref() == Some(&wanted))
}
