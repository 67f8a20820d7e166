//! A small custom resource, from structure to validation.

use super::*;
use crate::{Schema, Shape, TypeHandle, apply, check, normalize};
use serde_json::json;

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "color": {"type": "string", "enum": ["blue", "red"], "default": "blue"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "parts": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string", "maxLength": 3}, "n": {"type": "integer", "default": 3},
                    }},
                },
                "code": {"type": "string", "pattern": "^[a-z]+$"},
                "when": {"type": "string", "format": "date-time"},
                "inner": {"type": "object", "x-kubernetes-embedded-resource": true},
                "port": {"x-kubernetes-int-or-string": true},
                "size": {"type": "integer", "minimum": 1, "maximum": 10},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "either": {"type": "object", "additionalProperties": {"type": "number", "nullable": true}, "oneOf": [
                    {"required": ["a"]}, {"required": ["b"]},
                ]},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }})
}

fn widget() -> TypeHandle {
    Schema::from_crd("example.com", "v1", "Widget", &schema()).unwrap()
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec})
}

fn update_errors(spec: Value, old: Option<Value>) -> Vec<String> {
    let (schema, patterns) = (schema(), Patterns::default());
    let old = old.map(object);
    let found = Validator::new(&schema, &patterns).validate(&object(spec), old.as_ref());
    found.iter().map(ToString::to_string).collect()
}

fn errors(spec: Value) -> Vec<String> {
    update_errors(spec, None)
}

#[test]
fn validates_in_upstreams_words() {
    for (spec, message) in [
        (json!({}), "spec.size: Required value"),
        (json!({"size": 99}), "spec.size: Invalid value: 99: spec.size in body should be less than or equal to 10"),
        (
            json!({"size": "x"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (
            json!({"size": null}),
            "spec.size: Invalid value: \"null\": spec.size in body must be of type integer: \"null\"",
        ),
        (json!({"size": 1, "tags": ["a", "a"]}), "spec.tags[1]: Duplicate value: \"a\""),
        (
            json!({"size": 1, "parts": [{"name": "p"}, {"name": "p"}]}),
            "spec.parts[1]: Duplicate value: {\"name\":\"p\"}",
        ),
        (
            json!({"size": 1, "color": "green"}),
            "spec.color: Unsupported value: \"green\": supported values: \"blue\", \"red\"",
        ),
        (json!({"size": 1, "parts": [{"name": "long"}]}), "spec.parts[0].name: Too long: may not be more than 3 bytes"),
        (
            json!({"size": 1, "either": {"a": 1, "b": null}}),
            "spec.either: Invalid value: \"\": \"spec.either\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
    ] {
        assert_eq!(errors(spec.clone()), [message], "{spec}");
    }
    assert_eq!(errors(json!({"size": 1, "port": "http", "free": {"x": [1]}, "either": {"b": 1.5}})), [""; 0]);
}

#[test]
fn sets_defaults_and_drops_forbidden_nulls() {
    let mut value = object(json!({"size": 1, "color": null, "parts": [{"name": "p"}], "tags": null}));
    set_defaults(&schema(), &mut value);
    assert_eq!(value["spec"], json!({"size": 1, "color": "blue", "parts": [{"name": "p", "n": 3}]}));
}

#[test]
fn unknown_fields_go_where_they_are_not_preserved() {
    let mut value = object(json!({"size": 1, "extra": 1, "free": {"x": {"y": 1}}, "parts": [{"name": "p", "q": 1}]}));
    let found = check::unknown_fields(widget().get(), &mut value);
    assert_eq!(found, ["unknown field \"spec.extra\"", "unknown field \"spec.parts[0].q\""]);
    assert_eq!(value["spec"], json!({"size": 1, "free": {"x": {"y": 1}}, "parts": [{"name": "p"}]}));
}

#[test]
fn metadata_is_that_of_every_object() {
    let mut value = object(json!({"size": "any"}));
    value["metadata"]["creationTimestamp"] = Value::Null;
    normalize::object(widget().get(), &mut value);
    assert_eq!(value["metadata"], json!({"name": "a"}));
    assert!(check::types(widget().get(), &value).is_ok());
    value["metadata"]["labels"] = json!({"a": 1});
    let error = check::types(widget().get(), &value).unwrap_err();
    assert_eq!(error, "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string");
}

#[test]
fn apply_finds_items_by_their_keys() {
    let by =
        |name| apply::Manager { name, api_version: "example.com/v1", time: "2026-01-01T00:00:00Z", subresource: "" };
    let handle = widget();
    let first = object(json!({"size": 1, "parts": [{"name": "p", "n": 1}]}));
    let live = apply::apply(handle.get(), None, first, by("a"), false, &["status"]).unwrap();
    let second = object(json!({"parts": [{"name": "q"}]}));
    let live = apply::apply(handle.get(), Some(&live), second, by("b"), false, &["status"]).unwrap();
    assert_eq!(live["spec"]["parts"].as_array().map(Vec::len), Some(2));
    let error = apply::apply(handle.get(), Some(&live), object(json!({"size": 2})), by("b"), false, &[]).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.size");
}

#[test]
fn schemas_that_cant_be_are_refused() {
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "object", "properties": {"a": deep}});
    }
    assert!(Schema::from_crd("example.com", "v1", "Widget", &deep).is_err());
    let odd = json!({"type": "object", "properties": {"a": {"type": "thing"}}});
    let error = Schema::from_crd("example.com", "v1", "Widget", &odd).unwrap_err();
    assert_eq!(error.to_string(), "properties[a]: the type \"thing\" is unknown");
}

#[test]
fn the_structure_is_that_of_the_schema() {
    let handle = widget();
    let spec = handle.get().field("spec").unwrap().ty();
    assert!(matches!(spec.field("port").unwrap().ty().shape(), Shape::IntOrString));
    assert!(matches!(spec.field("free").unwrap().ty().shape(), Shape::Any));
    assert!(spec.field("size").unwrap().required());
    assert_eq!(handle.get().name(), "com.example.v1.Widget");
}

#[test]
fn what_did_not_change_is_not_complained_of() {
    let old = json!({"size": 99, "color": "green", "parts": [{"name": "long"}, {"name": "p", "n": 1}], "code": "A1"});
    let mut new = old.clone();
    new["tags"] = json!(["a"]);
    new["parts"] = json!([{"name": "p", "n": 2}, {"name": "long"}]);
    assert_eq!(update_errors(new.clone(), Some(old.clone())), [""; 0]);
    new["size"] = json!(98);
    let words = "spec.size: Invalid value: 98: spec.size in body should be less than or equal to 10";
    assert_eq!(update_errors(new, Some(old.clone())), [words]);
    let mut twice = old.clone();
    twice["tags"] = json!(["a", "a"]);
    assert_eq!(update_errors(twice.clone(), Some(old)), ["spec.tags[1]: Duplicate value: \"a\""]);
    let mut more = twice.clone();
    more["tags"] = json!(["a", "a", "b"]);
    assert_eq!(update_errors(more, Some(twice)), [""; 0]);
}

#[test]
fn patterns_and_formats_count() {
    assert_eq!(
        errors(json!({"size": 1, "code": "A1"})),
        ["spec.code: Invalid value: \"A1\": spec.code in body should match '^[a-z]+$'"]
    );
    assert_eq!(
        errors(json!({"size": 1, "when": "x"})),
        ["spec.when: Invalid value: \"x\": spec.when in body must be of type date-time: \"x\""]
    );
    assert_eq!(
        errors(json!({"size": 1, "inner": {"kind": "A"}})),
        ["spec.inner.apiVersion: Required value: must not be empty"]
    );
}
