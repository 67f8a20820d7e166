//! Worked examples of the three patches.

use super::*;
use crate::Schema;
use serde_json::json;

fn deployment() -> TypeRef<'static> {
    Schema::builtin().kind("apps", "v1", "Deployment").unwrap()
}

/// The patched document, or the error's text.
fn patched(apply: impl Fn(&mut Value, &Value) -> Result<(), PatchError>, before: &Value, patch: &Value) -> Value {
    let mut target = before.clone();
    match apply(&mut target, patch) {
        Ok(()) => target,
        Err(error) => Value::String(error.to_string()),
    }
}

fn check(apply: impl Fn(&mut Value, &Value) -> Result<(), PatchError>, cases: &[(Value, Value, Value)]) {
    for (before, patch, after) in cases {
        assert_eq!(&patched(&apply, before, patch), after, "{before} patched with {patch}");
    }
}

#[test]
fn json_patch() {
    let doc = json!({"a": {"b": 1}, "l": [1, 2], "x/y": {"~": 0}});
    check(
        super::json,
        &[
            (
                doc.clone(),
                json!([{"op": "add", "path": "/a/c", "value": 2}]),
                json!({"a": {"b": 1, "c": 2}, "l": [1, 2], "x/y": {"~": 0}}),
            ),
            (json!({"l": [1, 2]}), json!([{"op": "add", "path": "/l/1", "value": 9}]), json!({"l": [1, 9, 2]})),
            (json!({"l": [1]}), json!([{"op": "add", "path": "/l/-", "value": 9}]), json!({"l": [1, 9]})),
            (json!({"l": [1, 2]}), json!([{"op": "remove", "path": "/l/-1"}]), json!({"l": [1]})),
            (
                doc.clone(),
                json!([{"op": "replace", "path": "/x~1y/~0", "value": 5}]),
                json!({"a": {"b": 1}, "l": [1, 2], "x/y": {"~": 5}}),
            ),
            (json!({"a": 1}), json!([{"op": "move", "from": "/a", "path": "/b"}]), json!({"b": 1})),
            (json!({"a": [1]}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": [1], "b": [1]})),
            (
                json!({"a": 1}),
                json!([{"op": "test", "path": "/a", "value": 1.0}, {"op": "remove", "path": "/a"}]),
                json!({}),
            ),
            (
                json!({"a": 1}),
                json!([{"op": "test", "path": "/a", "value": 2}]),
                json!("testing value /a failed: test failed"),
            ),
            (
                json!({}),
                json!([{"op": "remove", "path": "/a"}]),
                json!("Unable to remove nonexistent key: a: missing value"),
            ),
            (
                json!({"l": []}),
                json!([{"op": "add", "path": "/l/5", "value": 1}]),
                json!("Unable to access invalid index: 5: invalid index referenced"),
            ),
            (
                json!({"a": {}}),
                json!([{"op": "move", "from": "/a", "path": "/a/b"}]),
                json!("Unable to move \"/a\" into itself"),
            ),
            (json!({}), json!({}), json!("json: cannot unmarshal object into Go value of type jsonpatch.Patch")),
            (json!({}), json!([{"op": "x", "path": ""}]), json!("Unexpected kind: x")),
        ],
    );
}

#[test]
fn copies_of_copies_are_bounded() {
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": "x".repeat(1000)})];
    for i in 0..40 {
        operations.push(json!({"op": "copy", "from": "", "path": format!("/{i}")}));
    }
    let error = super::json(&mut json!({}), &Value::Array(operations)).unwrap_err();
    assert!(matches!(error, PatchError::Rejected(_)));
    let deeper: Vec<Value> = (0..600)
        .map(|_| json!({"op": "move", "from": "/a", "path": "/b"}))
        .flat_map(|op| {
            [op, json!({"op": "add", "path": "/a", "value": {}}), json!({"op": "move", "from": "/b", "path": "/a/c"})]
        })
        .collect();
    let error = super::json(&mut json!({"a": 1}), &Value::Array(deeper)).unwrap_err();
    assert_eq!(error, PatchError::Rejected("exceeded max depth".into()));
    let many = Value::Array(vec![json!({"op": "test", "path": "/a"}); MAX_OPERATIONS + 1]);
    assert!(matches!(super::json(&mut json!({}), &many), Err(PatchError::TooLarge { .. })));
}

#[test]
fn merge_patch() {
    check(
        merge,
        &[
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null, "d": 3}}), json!({"a": {"c": 2, "d": 3}})),
            (json!({"a": [1]}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
            (json!({"a": {"b": 1}}), json!({"a": [2]}), json!({"a": [2]})),
            (
                json!({}),
                json!([]),
                json!(
                    "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
                ),
            ),
        ],
    );
}

fn pods(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn strategic_merge_of_lists_with_keys() {
    let before = pods(json!([{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]));
    let apply = |target: &mut Value, patch: &Value| strategic(deployment(), target, patch);
    for (patch, after) in [
        (
            json!([{"name": "b", "image": "2"}]),
            json!([{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}]),
        ),
        (json!([{"name": "c"}]), json!([{"name": "c"}, {"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}])),
        (json!([{"name": "a", "args": ["y"], "image": null}]), json!([{"name": "a", "args": ["y"]}, {"name": "b"}])),
        (json!([{"$patch": "delete", "name": "a"}]), json!([{"name": "b"}])),
        (json!([{"$patch": "replace"}, {"name": "z"}]), json!([{"name": "z"}])),
    ] {
        assert_eq!(patched(apply, &before, &pods(patch.clone())), pods(after), "{patch}");
    }
    for (patch, message) in [
        (pods(json!([{"image": "noname"}])), "map: map[image:noname] does not contain declared merge key: name"),
        (json!({"spec": "x"}), "Invalid value: \"map[spec:x]\": cannot restore struct from: string"),
        (pods(json!([{"$patch": "x", "name": "a"}])), "unknown patch type: x in map: map[$patch:x name:a]"),
    ] {
        assert_eq!(patched(apply, &before, &patch), json!(message));
    }
}

#[test]
fn strategic_directives() {
    let apply = |target: &mut Value, patch: &Value| strategic(deployment(), target, patch);
    check(
        apply,
        &[
            (
                json!({"metadata": {"finalizers": ["a", "b"]}}),
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
                json!({"metadata": {"finalizers": ["c", "b"]}}),
            ),
            (
                json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                json!({"spec": {"strategy": {"type": "Recreate"}}}),
            ),
            (
                pods(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])),
                json!({"spec": {"template": {"spec": {
                    "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
                    "containers": [{"name": "a", "image": "i"}],
                }}}}),
                pods(json!([{"name": "b"}, {"name": "c"}, {"name": "a", "image": "i"}])),
            ),
            (json!({"spec": {"replicas": 1}}), json!({"spec": {"$patch": "delete"}}), json!({"spec": {}})),
            (
                json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
                json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
                json!({"metadata": {"labels": {"c": "3"}}}),
            ),
        ],
    );
}

/// Applying a patch a second time changes nothing.
#[test]
fn patches_are_idempotent() {
    let before = pods(json!([{"name": "a", "ports": [{"containerPort": 80}]}, {"name": "b"}]));
    for patch in [
        pods(json!([{"name": "b", "ports": [{"containerPort": 1}, {"containerPort": 80, "name": "p"}]}])),
        pods(json!([{"name": "c"}, {"name": "a", "env": [{"name": "X", "value": "y"}]}])),
        json!({"metadata": {"labels": {"x": null, "y": "z"}}, "spec": {"replicas": 3}}),
    ] {
        let mut once = before.clone();
        strategic(deployment(), &mut once, &patch).unwrap();
        let mut twice = once.clone();
        strategic(deployment(), &mut twice, &patch).unwrap();
        assert_eq!(once, twice, "{patch}");
    }
}
