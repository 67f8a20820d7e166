//! What a schema may not say, and what the schemas under `allOf`, `anyOf`, `oneOf` and `not` may say: values only, of
//! fields that the structure around them has.
//!
//! Source: apiextensions-apiserver's `schema/validation.go` and `validation/validation.go`.

use crate::{check::Errors, tree};
use pintle_schema::custom::pattern_problem;
use pintle_types::field::Path;
use serde_json::Value;

/// Deeper ones can't be stored.
const MAX_DEPTH: usize = 128;
const GROUPS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Words of JSON schema that no definition may use.
pub(super) fn forbidden_words(errors: &mut Errors, path: &Path, schema: &Value, root: bool) {
    for word in ["$ref", "definitions", "dependencies", "id", "additionalItems", "patternProperties"] {
        let given = match &schema[word] {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        };
        if given {
            errors.forbidden(&path.child(word), &format!("{word} is not supported"));
        }
    }
    if tree::text(schema, "type") == "null" {
        errors.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if schema["items"].as_array().is_some_and(|items| !items.is_empty()) {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if tree::flag(schema, "uniqueItems") {
        let words = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), words);
    }
    if schema["additionalProperties"] == false {
        errors.forbidden(&path.child("additionalProperties"), "additionalProperties cannot be set to false");
    }
    if root && tree::flag(schema, "nullable") {
        errors.forbidden(&path.child("nullable"), "nullable cannot be true at the root");
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        let at = path.child("x-kubernetes-preserve-unknown-fields");
        errors.invalid(&at, false, "must be true or undefined");
    }
    let pattern = tree::text(schema, "pattern");
    if let Some(problem) = (!pattern.is_empty()).then(|| pattern_problem(pattern)).flatten() {
        let words = format!("must be a valid regular expression, but isn't: {problem}");
        errors.invalid(&path.child("pattern"), pattern, &words);
    }
    if tree::flag(schema, "x-kubernetes-embedded-resource") {
        embedded(errors, path, schema);
    }
}

fn embedded(errors: &mut Errors, path: &Path, schema: &Value) {
    if tree::text(schema, "type") != "object" && !tree::text(schema, "type").is_empty() {
        let words = "must be object if x-kubernetes-embedded-resource is true";
        errors.invalid(&path.child("type"), tree::text(schema, "type"), words);
    }
    let open = tree::flag(schema, "x-kubernetes-preserve-unknown-fields");
    let empty = tree::entries(schema, "properties").is_empty();
    if !open && empty {
        let words = "must not be empty if x-kubernetes-embedded-resource is true without \
                     x-kubernetes-preserve-unknown-fields";
        errors.required(&path.child("properties"), words);
    }
}

/// The value validations of a node against its structure.
pub(super) fn validations(errors: &mut Errors, path: &Path, structure: &Value) {
    let free = tree::flag(structure, "x-kubernetes-int-or-string");
    for group in GROUPS {
        for (index, inner) in tree::list(structure, group).iter().enumerate() {
            let at = path.child(group).index(index);
            if free && is_int_or_string(group, index, inner) {
                continue;
            }
            nested(errors, &at, inner, path, structure, 0);
        }
    }
    if structure["not"].is_object() {
        nested(errors, &path.child("not"), &structure["not"], path, structure, 0);
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, alone or as the first of `allOf`, says what the flag says.
fn is_int_or_string(group: &str, index: usize, inner: &Value) -> bool {
    match group {
        "anyOf" => matches!((index, tree::text(inner, "type")), (0, "integer") | (1, "string")),
        "allOf" => {
            let types: Vec<&str> = tree::list(inner, "anyOf").iter().map(|one| tree::text(one, "type")).collect();
            index == 0 && types == ["integer", "string"]
        }
        _ => false,
    }
}

/// One schema of values, and what it says of fields and items; `structure` (at `place`) must have them too.
fn nested(errors: &mut Errors, path: &Path, schema: &Value, place: &Path, structure: &Value, depth: usize) {
    if depth > MAX_DEPTH {
        return errors.forbidden(path, "schema is nested too deeply");
    }
    only_values(errors, path, schema);
    for (name, inner) in tree::entries(schema, "properties") {
        let at = path.child("properties").key(name);
        let own_place = place.child("properties").key(name);
        let own = &structure["properties"][name];
        if own.is_null() {
            errors.required(&own_place, &format!("because it is defined in {}", at.as_str()));
        } else {
            nested(errors, &at, inner, &own_place, own, depth + 1);
        }
    }
    if schema["items"].is_object() {
        let at = path.child("items");
        if structure["items"].is_object() {
            nested(errors, &at, &schema["items"], &place.child("items"), &structure["items"], depth + 1);
        } else {
            errors.required(&place.child("items"), &format!("because it is defined in {}", at.as_str()));
        }
    }
    for group in GROUPS {
        for (index, inner) in tree::list(schema, group).iter().enumerate() {
            nested(errors, &path.child(group).index(index), inner, place, structure, depth + 1);
        }
    }
    if schema["not"].is_object() {
        nested(errors, &path.child("not"), &schema["not"], place, structure, depth + 1);
    }
}

/// What makes a structure has no place among values.
fn only_values(errors: &mut Errors, path: &Path, schema: &Value) {
    for word in ["type", "title", "description"] {
        if !tree::text(schema, word).is_empty() {
            errors.forbidden(&path.child(word), "must be empty to be structural");
        }
    }
    for word in ["default", "additionalProperties", "x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if schema.get(word).is_some_and(|value| !value.is_null()) {
            errors.forbidden(&path.child(word), "must be undefined to be structural");
        }
    }
    for word in [
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        if tree::flag(schema, word) {
            errors.forbidden(&path.child(word), "must be false to be structural");
        }
    }
    for word in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
        if !tree::list(schema, word).is_empty() {
            errors.forbidden(&path.child(word), "must be empty to be structural");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(structure: Value) -> Vec<String> {
        let path = Path::new("schema");
        let found = Errors::of(|errors| {
            forbidden_words(errors, &path, &structure, true);
            validations(errors, &path, &structure);
        });
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_are_of_fields_that_there_are() {
        let fields = json!({"a": {"type": "string"}});
        let with = |word: &str, value: Value| {
            let mut schema = json!({"type": "object", "properties": fields});
            schema[word] = value;
            check(schema)
        };
        assert_eq!(with("oneOf", json!([{"required": ["a"]}, {"properties": {"a": {"enum": ["x"]}}}])), [""; 0]);
        assert_eq!(
            with("allOf", json!([{"properties": {"b": {"minLength": 1}}}])),
            ["schema.properties[b]: Required value: because it is defined in schema.allOf[0].properties[b]"]
        );
        assert_eq!(
            with("not", json!({"type": "object"})),
            ["schema.not.type: Forbidden: must be empty to be structural"]
        );
        assert_eq!(
            with("anyOf", json!([{"nullable": true}])),
            ["schema.anyOf[0].nullable: Forbidden: must be false to be structural"]
        );
        assert_eq!(with("nullable", json!(true)), ["schema.nullable: Forbidden: nullable cannot be true at the root"]);
        assert_eq!(with("$ref", json!("x")), ["schema.$ref: Forbidden: $ref is not supported"]);
    }

    #[test]
    fn numbers_or_texts_may_be_spelled_out() {
        let both = json!([{"type": "integer"}, {"type": "string"}]);
        assert_eq!(check(json!({"x-kubernetes-int-or-string": true, "anyOf": both})), [""; 0]);
        assert_eq!(
            check(json!({"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": both}, {"pattern": "x"}]})),
            [""; 0]
        );
        assert_eq!(check(json!({"type": "string", "anyOf": both})).len(), 2);
    }
}
