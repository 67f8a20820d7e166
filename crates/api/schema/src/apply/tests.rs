//! Worked examples of ownership and apply.

use super::*;
use crate::Schema;
use serde_json::json;

const NOW: &str = "2026-01-01T00:00:00Z";

fn ty() -> TypeRef<'static> {
    Schema::builtin().kind("apps", "v1", "Deployment").unwrap()
}

fn by(name: &str) -> Manager<'_> {
    Manager { name, api_version: "apps/v1", time: NOW, subresource: "" }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec})
}

fn containers(list: Value) -> Value {
    json!({"template": {"spec": {"containers": list}}})
}

/// Applies one configuration after the other; the last result.
fn applied(steps: &[(&str, bool, Value)]) -> Result<Value, ApplyError> {
    let mut live: Option<Value> = None;
    for (name, force, spec) in steps {
        let mut object = apply(ty(), live.as_ref(), config(spec.clone()), by(name), *force, &["status"])?;
        normalize::object(ty(), &mut object);
        live = Some(object);
    }
    Ok(live.unwrap_or_default())
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries.iter().find(|entry| entry["manager"] == manager).map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[test]
fn a_manager_owns_what_it_applies() {
    let object =
        applied(&[("m", false, containers(json!([{"name": "c", "ports": [{"containerPort": 80}]}])))]).unwrap();
    let expected = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
        ".": {}, "f:name": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
    }}}}}});
    assert_eq!(owned(&object, "m"), expected);
    assert_eq!(object["metadata"]["managedFields"][0]["time"], NOW);
}

#[test]
fn what_is_no_longer_applied_goes_unless_others_own_it() {
    let both = containers(json!([{"name": "c", "image": "i", "args": ["x"]}, {"name": "d"}]));
    let less = containers(json!([{"name": "c", "image": "i"}]));
    let alone = applied(&[("m", false, both.clone()), ("m", false, less.clone())]).unwrap();
    assert_eq!(alone["spec"]["template"]["spec"]["containers"], json!([{"name": "c", "image": "i", "resources": {}}]));
    let other = containers(json!([{"name": "d"}, {"name": "c", "args": ["x"]}]));
    let shared = applied(&[("m", false, both), ("n", false, other), ("m", false, less)]).unwrap();
    let list = &shared["spec"]["template"]["spec"]["containers"];
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    assert!(list.as_array().unwrap().iter().any(|item| item["args"] == json!(["x"])));
}

#[test]
fn an_emptied_map_stays_with_its_owner() {
    let labelled = |labels: Value| {
        let mut config = config(json!({}));
        config["metadata"]["labels"] = labels;
        config
    };
    let live = written(None, labelled(json!({"a": "1"})), "u");
    let mut live = apply(ty(), Some(&live), labelled(json!({"a": "2"})), by("m"), true, &[]).unwrap();
    live = apply(ty(), Some(&live), config(json!({})), by("m"), false, &[]).unwrap();
    assert!(live["metadata"].get("labels").is_none());
    assert_eq!(owned(&live, "u"), json!({"f:metadata": {"f:labels": {}}}));
}

#[test]
fn conflicts_are_told_and_forced() {
    let error = applied(&[("m", false, json!({"replicas": 1})), ("n", false, json!({"replicas": 2}))]).unwrap_err();
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"m\": .spec.replicas");
    let forced = applied(&[("m", false, json!({"replicas": 1})), ("n", true, json!({"replicas": 2}))]).unwrap();
    assert_eq!(owned(&forced, "m"), Value::Null);
    assert_eq!(owned(&forced, "n"), json!({"f:spec": {"f:replicas": {}}}));
    let image = |tag: &str| containers(json!([{"name": "c", "image": tag}]));
    let error = applied(&[("m", false, image("1")), ("n", false, image("1")), ("o", false, image("2"))]).unwrap_err();
    let path = ".spec.template.spec.containers[name=\"c\"].image";
    let message =
        format!("Apply failed with 2 conflicts: conflicts with \"m\":\n- {path}\nconflicts with \"n\":\n- {path}");
    assert_eq!(error.to_string(), message);
}

#[test]
fn bad_configurations_are_refused() {
    let of = "failed to create typed patch object (/x; apps/v1, Kind=Deployment): ";
    let port = json!([{"name": "c", "ports": [{"containerPort": 80}, {"containerPort": 80, "protocol": "TCP"}]}]);
    for (spec, message) in [
        (json!({"unknown": 1}), ".spec.unknown: field not declared in schema"),
        (json!({"replicas": "x"}), ".spec.replicas: expected numeric (int or float), got string"),
        (
            containers(port),
            ".spec.template.spec.containers[name=\"c\"].ports: duplicate entries for key [containerPort=80,protocol=\"TCP\"]",
        ),
    ] {
        let error = applied(&[("m", false, spec)]).unwrap_err();
        assert_eq!(error, ApplyError::Typed(format!("{of}{message}")));
    }
    let mut with_fields = config(json!({}));
    with_fields["metadata"]["managedFields"] = json!([{"manager": "q"}]);
    let error = apply(ty(), None, with_fields, by("m"), false, &[]).unwrap_err();
    assert_eq!(error, ApplyError::BadRequest("metadata.managedFields must be nil".into()));
}

/// A write of a normalized object over another.
fn written(old: Option<&Value>, mut new: Value, manager: &str) -> Value {
    normalize::object(ty(), &mut new);
    update_managers(ty(), old, &mut new, by(manager), &["status"]);
    new
}

#[test]
fn writes_take_fields_from_others() {
    let created = written(None, config(json!({"replicas": 1, "paused": true})), "a");
    assert_eq!(owned(&created, "a"), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}));
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = json!(2);
    scaled["status"] = json!({"replicas": 1});
    let scaled = written(Some(&created), scaled, "b");
    assert_eq!(owned(&scaled, "a"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(owned(&scaled, "b"), json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(written(Some(&scaled), scaled.clone(), "c"), scaled, "a write that changes nothing owns nothing");
}

#[test]
fn an_object_without_entries_is_tracked_at_the_first_apply() {
    let mut stored = config(json!({"replicas": 1}));
    normalize::object(ty(), &mut stored);
    assert!(written(Some(&stored), stored.clone(), "a")["metadata"]["managedFields"].is_null());
    let error = apply(ty(), Some(&stored), config(json!({"replicas": 2})), by("m"), false, &[]).unwrap_err();
    let message = "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas";
    assert_eq!(error.to_string(), message);
}

#[test]
fn old_updates_are_merged() {
    let mut object = written(None, config(json!({"replicas": 1})), "creator");
    for i in 0..15 {
        let mut next = object.clone();
        next["metadata"]["labels"][format!("l{i}")] = json!("x");
        object = written(Some(&object), next, &format!("manager-{i:02}"));
    }
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    assert!(!owned(&object, "ancient-changes").is_null());
}

#[test]
fn client_side_apply_is_no_conflict_for_kubectl() {
    let last = config(json!({"replicas": 1})).to_string();
    let mut stored = config(json!({"replicas": 1}));
    stored["metadata"]["annotations"] = json!({LAST_APPLIED: last});
    let stored = written(None, stored, "kubectl-client-side-apply");
    let object = apply(ty(), Some(&stored), config(json!({"replicas": 2})), by("kubectl"), false, &[]).unwrap();
    assert_eq!(object["spec"]["replicas"], 2);
    assert!(!last_applied(&object).unwrap().contains("annotations"), "what was not applied is not told");
    assert!(last_applied(&object).unwrap().contains("\"replicas\":2"));
    assert!(apply(ty(), Some(&stored), config(json!({"replicas": 2})), by("other"), false, &[]).is_err());
}

#[test]
fn applying_twice_changes_nothing() {
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {
        "containers": [{"name": "c", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 1}]}], "volumes": [{"name": "v", "emptyDir": {}}],
    }}});
    let once = applied(&[("m", false, spec.clone())]).unwrap();
    let later = Manager { time: "2027-01-01T00:00:00Z", ..by("m") };
    let mut twice = apply(ty(), Some(&once), config(spec), later, false, &["status"]).unwrap();
    normalize::object(ty(), &mut twice);
    assert_eq!(once, twice);
}

#[test]
fn fields_v1_survives_a_round_trip() {
    let fields =
        json!({"f:a": {".": {}, "k:{\"n\":\"x\\u0026y\",\"p\":1}": {"f:b": {}}, "v:\"s\"": {}, "i:3": {}}, "f:c": {}});
    assert_eq!(Set::from_fields_v1(&fields).unwrap().to_fields_v1(), fields);
    for bad in [json!({"x:a": {}}), json!({"k:{": {}}), json!({"f": {}}), json!([]), json!({"é": {}})] {
        assert!(Set::from_fields_v1(&bad).is_none(), "{bad}");
    }
}

/// Makes a write both ways, and says whether the entries could be kept.
fn both_ways(old: &Value, mut new: Value, by: Manager<'_>) -> (bool, Value) {
    let mut kept = new.clone();
    let could = kept::keep(ty(), old, &mut kept, by, &["status"]);
    if !could {
        write_managers(ty(), Some(old), &mut kept, by, &["status"]);
    }
    write_managers(ty(), Some(old), &mut new, by, &["status"]);
    assert_eq!(kept, new, "by {by:?}");
    (could, new)
}

/// An object that "a" made, of which "b" has the image of the container d, and "m" applied a label.
fn shared_object() -> Value {
    let list = json!([{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]);
    let mut spec = containers(list);
    spec["replicas"] = json!(1);
    let made = written(None, config(spec), "a");
    let mut next = made.clone();
    next["spec"]["template"]["spec"]["containers"][1]["image"] = json!("j");
    let mut label = config(json!({}));
    label["metadata"]["labels"] = json!({"l": "1"});
    let mut object = apply(ty(), Some(&written(Some(&made), next, "b")), label, by("m"), false, &["status"]).unwrap();
    normalize::object(ty(), &mut object);
    object["metadata"]["resourceVersion"] = json!("7");
    object
}

#[test]
fn a_write_of_own_fields_keeps_the_sets_as_they_are() {
    type Edit = fn(&mut Value);
    let replicas: Edit = |object| object["spec"]["replicas"] = json!(5);
    let image: Edit = |object| object["spec"]["template"]["spec"]["containers"][1]["image"] = json!("k");
    let untold: Edit = |object| managed::strip(object);
    let version: Edit = |object| object["metadata"]["resourceVersion"] = json!("8");
    let unversioned: Edit = |object| drop(object["metadata"].as_object_mut().unwrap().remove("resourceVersion"));
    let status: Edit = |object| object["status"] = json!({"replicas": 1});
    let label: Edit = |object| object["metadata"]["labels"]["l"] = json!("2");
    let added: Edit = |object| object["spec"]["paused"] = json!(true);
    let removed: Edit = |object| drop(object["spec"].as_object_mut().unwrap().remove("replicas"));
    let item: Edit = |object| {
        let list = &mut object["spec"]["template"]["spec"]["containers"];
        drop(list.as_array_mut().unwrap().pop());
    };
    let forget: Edit = |object| object["metadata"]["managedFields"] = json!([{}]);
    let stale: Edit = |object| drop(object["metadata"]["managedFields"].as_array_mut().unwrap().pop());
    let cases: [(&str, &[Edit], bool); 18] = [
        ("a", &[], true),
        ("a", &[replicas], true),
        ("a", &[replicas, untold], true),
        ("a", &[replicas, version, status], true),
        ("a", &[replicas, unversioned], true),
        ("c", &[version], true),
        ("b", &[image], true),
        ("m", &[unversioned], true),
        // Sets change …
        ("b", &[replicas], false),
        ("a", &[image], false),
        ("a", &[replicas, image], false),
        ("m", &[label], false),
        ("a", &[added], false),
        ("a", &[removed], false),
        ("a", &[item], false),
        ("c", &[replicas], false),
        // … or others are given.
        ("a", &[forget], false),
        ("a", &[replicas, stale], false),
    ];
    let old = shared_object();
    let later = "2027-01-01T00:00:00Z";
    for (i, (name, edits, expected)) in cases.into_iter().enumerate() {
        let mut new = old.clone();
        edits.iter().for_each(|edit| edit(&mut new));
        let (kept, _) = both_ways(&old, new, Manager { time: later, ..by(name) });
        assert_eq!(kept, expected, "case {i}");
    }
}

#[test]
fn a_kept_entry_has_the_time_of_the_write_and_moves_to_its_place() {
    let old = shared_object();
    let names = |object: &Value| -> Vec<Value> {
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        entries.iter().map(|entry| entry["manager"].clone()).collect()
    };
    assert_eq!(names(&old), ["m", "a", "b"]);
    let mut new = old.clone();
    new["spec"]["replicas"] = json!(5);
    let (kept, new) = both_ways(&old, new, Manager { time: "2027-01-01T00:00:00Z", ..by("a") });
    assert!(kept);
    assert_eq!(names(&new), ["m", "b", "a"]);
    assert_eq!(new["metadata"]["managedFields"][2]["time"], "2027-01-01T00:00:00Z");
    assert_eq!(owned(&new, "a"), owned(&old, "a"));
    let mut status = new.clone();
    status["spec"]["replicas"] = json!(6);
    status["metadata"]["managedFields"] = json!("a subresource does not look at it");
    let of_scale = Manager { subresource: "scale", ..by("a") };
    let (kept, scaled) = both_ways(&new, status, of_scale);
    assert!(!kept, "the entry of the subresource is another one");
    let mut again = scaled.clone();
    again["spec"]["replicas"] = json!(7);
    again["metadata"]["managedFields"] = json!([]);
    assert!(both_ways(&scaled, again, of_scale).0);
}
