//! Patches, apply configurations and custom objects that are broken are refused, never more.

use pintle_noise::{Noise, feed};
use pintle_schema::apply::{Manager, apply, update_managers};
use pintle_schema::decode::{self, Limits};
use pintle_schema::{Schema, TypeRef, check, custom, normalize, patch};
use serde_json::{Value, json};

fn deployment() -> TypeRef<'static> {
    Schema::builtin().kind("apps", "v1", "Deployment").expect("it is built in")
}

fn object() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": {"a": "b"}, "managedFields": [
        {"manager": "m", "operation": "Apply", "apiVersion": "apps/v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
         "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
            ".": {}, "f:image": {}, "f:args": {}}}}}}, "f:metadata": {"f:finalizers": {"v:\"a\"": {}}}}}]},
     "spec": {"replicas": 1, "template": {"spec": {"containers": [
        {"name": "c", "image": "i", "args": ["x"], "ports": [{"containerPort": 80, "protocol": "TCP"}]}]}}}})
}

#[test]
fn documents() {
    let yaml = b"a: &x [1, .inf, 0x1F, ~, !!str 5]\nb: *x\n<<: {c: d}\n? e\n: |\n  f\n---\n{g: 'h', i: \"\\u0041\"}\n";
    feed(&[yaml, br#"{"a":[{"b":"c\u0041\\"},-1.5e+10,true,null],"d":{}}"#], 1500, |bytes| {
        let _ = decode::json(bytes, Limits::default()).is_ok();
        let _ = decode::yaml(bytes, Limits::default()).is_ok();
    });
}

#[test]
fn json_patches() {
    let sample = json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": 1},
        {"op": "move", "from": "/spec", "path": "/metadata/labels/a~1b"}, {"op": "copy", "from": "/a", "path": "/b"},
        {"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "remove", "path": "/metadata/labels/a"}]);
    let mut noise = Noise::new(1);
    for _ in 0..3000 {
        let (mut target, operations) = (noise.broken_value(&object()), noise.broken_value(&sample));
        let _ = patch::json(&mut target, &operations).is_ok();
    }
}

#[test]
fn merge_and_strategic_patches() {
    let sample = json!({"metadata": {"labels": {"a": null}, "finalizers": ["f"], "$deleteFromPrimitiveList/finalizers": ["g"]},
        "spec": {"$retainKeys": ["strategy"], "strategy": {"type": "Recreate"}, "template": {"spec": {
            "$setElementOrder/containers": [{"name": "d"}, {"name": "c"}],
            "containers": [{"name": "d", "image": "j"}, {"name": "c", "$patch": "delete"}, {"$patch": "replace"}]}}}});
    let mut noise = Noise::new(2);
    for _ in 0..1500 {
        let (before, change) = (noise.broken_value(&object()), noise.broken_value(&sample));
        let _ = patch::merge(&mut before.clone(), &change).is_ok();
        let _ = patch::strategic(deployment(), &mut before.clone(), &change).is_ok();
    }
}

#[test]
fn apply_configurations_and_managers() {
    let by = Manager { name: "m", api_version: "apps/v1", time: "2026-01-01T00:00:00Z", subresource: "" };
    let mut noise = Noise::new(3);
    for round in 0..600 {
        let (live, config) = (noise.broken_value(&object()), noise.broken_value(&object()));
        let _ = apply(deployment(), Some(&live), config.clone(), by, round % 2 == 0, &["status"]).is_ok();
        let mut new = config;
        update_managers(deployment(), Some(&live), &mut new, by, &[]);
        let _ = check::types(deployment(), &new).is_ok();
        check::unknown_fields(deployment(), &mut new);
        normalize::object(deployment(), &mut new);
    }
}

/// Both the schema and the object may be anything: the schema was written by a client, too.
#[test]
fn custom_resources() {
    let schema = json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "minimum": 1, "default": 3},
        "b": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
              "items": {"type": "object", "properties": {"k": {"type": "string", "enum": ["x", "y"]}}}},
        "c": {"anyOf": [{"type": "string"}, {"not": {"type": "null"}}], "nullable": true, "multipleOf": 0.5},
        "d": {"type": "object", "additionalProperties": {"type": "string", "minLength": 2}}}});
    let object = json!({"a": 5, "b": [{"k": "x"}, {"k": "y"}], "c": null, "d": {"e": "fg"}});
    let mut noise = Noise::new(4);
    for _ in 0..3000 {
        let (schema, mut value) = (noise.broken_value(&schema), noise.broken_value(&object));
        custom::set_defaults(&schema, &mut value);
        let _ = custom::Validator::new(&schema, &custom::Patterns::default()).validate(&value, None).len();
    }
}

#[test]
fn cbor() {
    let written = pintle_schema::cbor::encode(&object());
    let others: &[u8] = b"\xbf\x61a\x9f\x01\xf9\x3c\x00\xff\x5f\x41b\x41c\xff\xd6\x42\x01\x02\xff";
    feed(&[&written, others], 1500, |bytes| {
        if let Ok(value) = pintle_schema::cbor::decode(bytes, Limits::default()) {
            let again = pintle_schema::cbor::encode(&value);
            assert_eq!(pintle_schema::cbor::decode(&again, Limits::default()).as_ref(), Ok(&value));
        }
    });
}
