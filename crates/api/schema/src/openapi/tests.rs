//! Documents are whole: valid JSON, every reference found, what clients look for in its place.

use super::*;
use crate::Schema;
use serde_json::{Value, json};

fn deployments() -> Resource {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let sub = |name: &str, group: &str, kind: &str| Subresource {
        name: name.into(),
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        verbs: ["get", "patch", "update"].map(String::from).to_vec(),
    };
    Resource {
        group: "apps".into(),
        version: "v1".into(),
        plural: "deployments".into(),
        kind: "Deployment".into(),
        namespaced: true,
        verbs: verbs.map(String::from).to_vec(),
        subresources: vec![sub("scale", "autoscaling", "Scale"), sub("status", "apps", "Deployment")],
        ty: Schema::builtin().kind("apps", "v1", "Deployment").unwrap().into(),
    }
}

fn widgets() -> Resource {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "description": "What it is."}}});
    Resource {
        group: "example.com".into(),
        plural: "widgets".into(),
        kind: "Widget".into(),
        subresources: Vec::new(),
        ty: Schema::from_crd("example.com", "v1", "Widget", &schema).unwrap(),
        ..deployments()
    }
}

/// All values of `$ref`.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn check(document: &[u8]) -> Value {
    let document: Value = serde_json::from_slice(document).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found.iter().filter(|reference| reference.starts_with('#')) {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    document
}

#[test]
fn v3_has_what_clients_look_for() {
    let document = check(&v3("apps", "v1", &[deployments()]));
    let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(spec["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(spec["x-kubernetes-patch-strategy"], "merge");
    assert!(spec["description"].as_str().is_some_and(|text| text.starts_with("List of containers")));
    let kind = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"];
    assert_eq!(*kind, json!([{"group": "apps", "kind": "Deployment", "version": "v1"}]));
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let parameters: Vec<&Value> = patch["parameters"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(parameters, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["operationId"], "readAppsV1NamespacedDeploymentScale");
    assert_eq!(scale["x-kubernetes-group-version-kind"]["group"], "autoscaling");
}

#[test]
fn custom_resources_are_in_it() {
    let document = check(&v3("example.com", "v1", &[widgets()]));
    let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["description"], "What it is.");
    assert!(widget["properties"]["metadata"]["allOf"].is_array());
    assert!(document["components"]["schemas"]["com.example.v1.WidgetList"].is_object());
}

#[test]
fn only_built_in_kinds_offer_strategic_patches_and_protobuf() {
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    let types_of = |document: &Value, path: &str| -> (Vec<String>, Vec<String>) {
        let keys = |content: &Value| content.as_object().unwrap().keys().cloned().collect();
        let patch = &document["paths"][path]["patch"];
        (keys(&patch["requestBody"]["content"]), keys(&patch["responses"]["200"]["content"]))
    };
    let document = check(&v3("apps", "v1", &[deployments()]));
    let (patches, answers) = types_of(&document, "/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
    assert!(patches.iter().any(|ty| ty == STRATEGIC));
    assert!(answers.iter().any(|ty| ty == "application/vnd.kubernetes.protobuf"));

    let document = check(&v3("example.com", "v1", &[widgets()]));
    let (patches, answers) = types_of(&document, "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}");
    assert_eq!(patches.len(), 3);
    assert!(patches.iter().all(|ty| ty != STRATEGIC), "kubectl apply would send it");
    assert_eq!(answers, ["application/json", "application/yaml"]);
    let document = check(&v2(&[widgets()]));
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert!(!patch["consumes"].as_array().unwrap().contains(&json!(STRATEGIC)));
}

#[test]
fn v2_is_one_document() {
    let document = check(&v2(&[deployments(), widgets()]));
    assert_eq!(document["swagger"], "2.0");
    let replicas = &document["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["replicas"];
    assert_eq!(replicas["format"], "int32");
    assert!(document["paths"]["/apis/example.com/v1/"].is_object());
    let packed = v2_protobuf(&v2(&[deployments()]));
    assert_eq!(&packed[..5], b"\x0a\x032.0", "field 1, three bytes");
    let name = b"io.k8s.api.apps.v1.DeploymentSpec";
    assert!(packed.windows(name.len()).any(|window| window == name));
}

#[test]
fn the_index_names_hashes() {
    let url = "/openapi/v3/apis/apps/v1?hash=AB";
    let index: Value = serde_json::from_slice(&v3_index(&[("apis/apps/v1".into(), url.into())])).unwrap();
    let expected = json!({"paths": {"apis/apps/v1": {"serverRelativeURL": url}}});
    assert_eq!(index, expected);
    assert_eq!(hash(b"").len(), 128);
    assert_ne!(hash_of(&[deployments()]), hash_of(&[widgets()]));
    assert_eq!(hash_of(&[widgets()]), hash_of(&[widgets()]));
}
