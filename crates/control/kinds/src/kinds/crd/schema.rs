//! Rules for the schemas of custom resources: structural, with usable lists and defaults that fit.

use super::structural;
use crate::{
    check::{Errors, Seen},
    tree,
};
use pintle_schema::custom::type_name;
use pintle_types::field::{FieldError, Path};
use serde_json::Value;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];

/// Where a schema stands, which decides what is said about a missing type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

/// How deep schemas may nest here; deeper ones can't be stored anyway.
const MAX_DEPTH: usize = 128;

/// A whole schema.
pub(super) fn validate(errors: &mut Errors, path: &Path, schema: &Value) {
    node(errors, path, schema, Place::Root, 0);
}

fn node(errors: &mut Errors, path: &Path, schema: &Value, place: Place, depth: usize) {
    if depth > MAX_DEPTH {
        return errors.forbidden(path, "schema is nested too deeply");
    }
    check_default(errors, &path.child("default"), schema);
    check_type(errors, &path.child("type"), schema, place);
    check_rules(errors, &path.child("x-kubernetes-validations"), schema);
    structural::forbidden_words(errors, path, schema, place == Place::Root);
    structural::validations(errors, path, schema);
    let properties = path.child("properties");
    for (name, property) in tree::entries(schema, "properties") {
        // The root's metadata is what all objects have; only its name may be restricted.
        if place == Place::Root && name == "metadata" {
            continue;
        }
        node(errors, &properties.key(name), property, Place::Field, depth + 1);
    }
    if schema["additionalProperties"].is_object() {
        if tree::has(schema, "properties") {
            errors.forbidden(
                &path.child("additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            );
        }
        node(errors, &path.child("additionalProperties"), &schema["additionalProperties"], Place::Field, depth + 1);
    }
    if schema["items"].is_object() {
        node(errors, &path.child("items"), &schema["items"], Place::Item, depth + 1);
    }
    check_list(errors, path, schema);
}

fn check_type(errors: &mut Errors, at: &Path, schema: &Value, place: Place) {
    let kind = tree::text(schema, "type");
    let free = tree::flag(schema, "x-kubernetes-int-or-string")
        || (tree::flag(schema, "x-kubernetes-preserve-unknown-fields") && place != Place::Root);
    match (kind, place) {
        ("", _) if free => {}
        ("", Place::Root) => errors.required(at, "must not be empty at the root"),
        ("", Place::Field) => errors.required(at, "must not be empty for specified object fields"),
        ("", Place::Item) => errors.required(at, "must not be empty for specified array items"),
        (kind, Place::Root) if TYPES.contains(&kind) && kind != "object" => {
            errors.invalid(at, kind, "must be object at the root");
        }
        (kind, _) => errors.one_of(at, kind, TYPES),
    }
}

fn check_list(errors: &mut Errors, path: &Path, schema: &Value) {
    const LIST_TYPE: &str = "x-kubernetes-list-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let (kind, items) = (tree::text(schema, "type"), &schema["items"]);
    if kind == "array" && !items.is_object() {
        errors.required(&path.child("items"), "must be specified");
    }
    check_map_type(errors, path, schema);
    let list_type = schema.get(LIST_TYPE).and_then(Value::as_str);
    let keys = tree::list(schema, KEYS);
    if let Some(list_type) = list_type {
        let words = "must be array if x-kubernetes-list-type is specified";
        match kind {
            "array" if list_type == "set" => check_set(errors, &path.child("items"), items),
            "array" => {}
            "" => errors.required(&path.child("type"), words),
            other => errors.invalid(&path.child("type"), other, words),
        }
        errors.one_of(&path.child(LIST_TYPE), list_type, &["atomic", "set", "map"]);
    }
    if !keys.is_empty() && list_type != Some("map") {
        let words = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.required(&path.child(LIST_TYPE), words),
            Some(other) => errors.invalid(&path.child(LIST_TYPE), other, words),
        }
    }
    if list_type == Some("map") {
        check_map_list(errors, path, items, keys, &path.child(KEYS));
    }
    if let Some(kind @ ("map" | "set")) = list_type {
        not_nullable(errors, &path.child("items"), items, keys, kind);
    }
}

fn check_map_type(errors: &mut Errors, path: &Path, schema: &Value) {
    const MAP_TYPE: &str = "x-kubernetes-map-type";
    let Some(map_type) = schema.get(MAP_TYPE).and_then(Value::as_str) else { return };
    let words = "must be object if x-kubernetes-map-type is specified";
    match tree::text(schema, "type") {
        "object" => {}
        "" => errors.required(&path.child("type"), words),
        other => errors.invalid(&path.child("type"), other, words),
    }
    errors.one_of(&path.child(MAP_TYPE), map_type, &["atomic", "granular"]);
}

/// Items of a set are compared as a whole.
fn check_set(errors: &mut Errors, at: &Path, items: &Value) {
    const WORDS: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let own = |word: &str| items.get(word).and_then(Value::as_str);
    // Upstream shows the type of the list in both cases.
    let shown = items.get("x-kubernetes-list-type").cloned().unwrap_or(Value::Null);
    match tree::text(items, "type") {
        "array" if own("x-kubernetes-list-type").is_some_and(|it| it != "atomic") => {
            errors.invalid(&at.child("x-kubernetes-list-type"), shown, WORDS);
        }
        "object" if own("x-kubernetes-map-type") != Some("atomic") => {
            errors.invalid(&at.child("x-kubernetes-map-type"), shown, WORDS);
        }
        _ => {}
    }
}

/// Items that are told apart, and the fields by which they are, are there.
fn not_nullable(errors: &mut Errors, at: &Path, items: &Value, keys: &[Value], kind: &str) {
    if tree::flag(items, "nullable") {
        let words = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        errors.forbidden(&at.child("nullable"), &words);
    }
    for key in keys.iter().filter_map(Value::as_str).filter(|_| kind == "map") {
        if tree::flag(&items["properties"][key], "nullable") {
            let words = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&at.child("properties").key(key).child("nullable"), words);
        }
    }
}

fn check_map_list(errors: &mut Errors, path: &Path, items: &Value, keys: &[Value], at: &Path) {
    let at_items = path.child("items");
    if items.as_array().is_some_and(Vec::is_empty) {
        let words = "must only have a single schema if x-kubernetes-list-type is map";
        return errors.invalid_shown(&at_items, r#"{"Schema":null,"JSONSchemas":[]}"#, words);
    }
    if !items.is_object() {
        return errors.required(&at_items, "must have a schema if x-kubernetes-list-type is map");
    }
    let kind = tree::text(items, "type");
    if kind != "object" {
        let words = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(&path.child("items").child("type"), kind, words);
    }
    if keys.is_empty() {
        return errors.required(at, "must not be empty if x-kubernetes-list-type is map");
    }
    let (required, mut seen) = (tree::list(items, "required"), Seen::default());
    for key in keys {
        let name = key.as_str().unwrap_or("");
        // A property may be null: a schema that says nothing.
        let Some(property) = items["properties"].get(name) else {
            errors.invalid(at, keys.to_vec(), "entries must all be names of item properties");
            continue;
        };
        if matches!(tree::text(property, "type"), "array" | "object") {
            let words = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&at_items.child("properties").key(name).child("type"), kind, words);
        }
        if !seen.first(name) {
            errors.invalid(at, keys.to_vec(), "must not contain duplicate entries");
        }
        if !required.contains(key) && !tree::has(property, "default") {
            let words =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&path.child("items").child("properties").key(name).child("default"), words);
        }
    }
}

fn check_default(errors: &mut Errors, at: &Path, schema: &Value) {
    let Some(default) = schema.get("default").filter(|default| !default.is_null()) else { return };
    let kind = tree::text(schema, "type");
    let own = type_name(default);
    let fits = kind == own || (kind == "number" && own == "integer") || kind.is_empty();
    if !fits {
        errors.0.push(FieldError::type_invalid(at, own, &format!(" in body must be of type {kind}: {own:?}")));
    }
    let allowed = tree::list(schema, "enum");
    if !allowed.is_empty() && !allowed.contains(default) {
        let texts: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        errors.unsupported(at, default.clone(), &texts);
    }
}

fn check_rules(errors: &mut Errors, at: &Path, schema: &Value) {
    for (i, rule) in tree::list(schema, "x-kubernetes-validations").iter().enumerate() {
        let text = tree::text(rule, "rule").trim();
        errors.needs(&at.index(i).child("rule"), text, "rule is not specified");
    }
}
