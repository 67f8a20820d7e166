//! Unknown fields and wrong types, with the messages that clients see.

use super::*;
use serde_json::json;

fn ty(group: &str, kind: &str) -> TypeRef<'static> {
    Schema::builtin().kind(group, "v1", kind).unwrap()
}

/// The message for a value at `spec` of a kind; "" when all is well.
fn message(group: &str, kind: &str, spec: Value) -> String {
    types(ty(group, kind), &json!({"kind": kind, "spec": spec})).err().unwrap_or_default()
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let into = "json: cannot unmarshal";
    for (group, kind, spec, expected) in [
        (
            "apps",
            "Deployment",
            json!({"replicas": "1"}),
            format!("{into} string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ),
        (
            "apps",
            "Deployment",
            json!({"replicas": 1.5}),
            format!("{into} number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ),
        (
            "apps",
            "Deployment",
            json!({"replicas": 99999999999u64}),
            format!("{into} number 99999999999 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ),
        (
            "apps",
            "Deployment",
            json!([]),
            format!("{into} array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        ),
        (
            "",
            "Pod",
            json!({"containers": {}}),
            format!("{into} object into Go struct field PodSpec.spec.containers of type []v1.Container"),
        ),
        (
            "",
            "Pod",
            json!({"containers": [7]}),
            format!("{into} number into Go struct field PodSpec.spec.containers of type v1.Container"),
        ),
        (
            "",
            "Pod",
            json!({"restartPolicy": 7}),
            format!("{into} number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy"),
        ),
        (
            "",
            "Pod",
            json!({"nodeSelector": {"a": 7}}),
            format!("{into} number into Go struct field PodSpec.spec.nodeSelector of type string"),
        ),
        (
            "",
            "Pod",
            json!({"containers": [{"livenessProbe": {"httpGet": {"path": 7}}}]}),
            format!(
                "{into} number into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.path of type string"
            ),
        ),
        (
            "",
            "Pod",
            json!({"containers": [{"livenessProbe": {"httpGet": {"port": 1.5}}}]}),
            format!(
                "{into} number 1.5 into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32"
            ),
        ),
        (
            "",
            "Pod",
            json!({"containers": [{"resources": {"limits": {"cpu": "1MM"}}}]}),
            "unable to parse quantity's suffix".into(),
        ),
        (
            "",
            "Pod",
            json!({"overhead": {"cpu": "much"}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".into(),
        ),
        ("", "Pod", json!({"containers": null, "overhead": {"cpu": 1}, "activeDeadlineSeconds": 5}), String::new()),
    ] {
        assert_eq!(message(group, kind, spec.clone()), expected, "{spec}");
    }
}

#[test]
fn bytes_are_base64() {
    let secret = |text: &str| types(ty("", "Secret"), &json!({"data": {"a": text}})).err();
    for (text, at) in [
        ("YQ==", None),
        ("YWI=", None),
        ("YWJj", None),
        ("", None),
        ("Y Q=", Some(1)),
        ("YQ=x", Some(3)),
        ("!", Some(0)),
        ("YWJjZ", Some(4)),
    ] {
        assert_eq!(secret(text), at.map(|at| format!("illegal base64 data at input byte {at}")), "{text:?}");
    }
}

#[test]
fn unknown_fields_are_named_and_dropped() {
    let mut value =
        json!({"spec": {"a": 1, "containers": [{"name": "c", "b": {}}], "nodeSelector": {"any": "x"}}, "c": 1});
    let found = unknown_fields(ty("", "Pod"), &mut value);
    let expected = ["unknown field \"c\"", "unknown field \"spec.a\"", "unknown field \"spec.containers[0].b\""];
    assert_eq!(found, expected);
    assert_eq!(value, json!({"spec": {"containers": [{"name": "c"}], "nodeSelector": {"any": "x"}}}));
}

/// A value of every kind of JSON at every field of a pod is told or taken, and nothing panics.
#[test]
fn any_value_anywhere_is_answered() {
    let odd = [json!(null), json!(true), json!(-1), json!(1e300), json!("é"), json!([[]]), json!({"a": {"b": []}})];
    let pod = ty("", "Pod");
    for field in pod.field("spec").unwrap().ty().fields() {
        for value in &odd {
            let mut object = json!({"spec": {field.name(): value}});
            let fits = types(pod, &object).is_ok();
            unknown_fields(pod, &mut object);
            crate::normalize::object(pod, &mut object);
            assert!(!fits || types(pod, &object).is_ok(), "{object}");
        }
    }
}

#[test]
fn schemas_below_items_lose_their_unknown_fields_silently() {
    let schema = json!({"type": "array", "items": {"type": "string", "odd": 1, "properties": {"a": {"odd": 2}}}});
    let mut value = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}});
    assert!(unknown_fields(ty("apiextensions.k8s.io", "CustomResourceDefinition"), &mut value).is_empty());
    let items = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["items"];
    assert_eq!(*items, json!({"type": "string", "properties": {"a": {}}}));
}
