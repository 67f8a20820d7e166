//! The old form of a version's discovery (`APIResourceList`), which every server has, in the aggregated form.

use serde_json::{Value, json};

/// The resources of an `APIResourceList` as aggregated discovery (`apidiscovery.k8s.io/v2`) shows them.
pub fn aggregated_resources(list: &Value) -> Vec<Value> {
    let group_version = list["groupVersion"].as_str().unwrap_or_default();
    let own = group_version.split_once('/').unwrap_or(("", group_version));
    let mut resources: Vec<Value> = Vec::new();
    for given in list["resources"].as_array().into_iter().flatten() {
        let name = given["name"].as_str().unwrap_or_default();
        match name.split_once('/') {
            None => resources.push(resource(given, name, own)),
            Some((parent, sub)) => add_subresource(&mut resources, given, parent, sub, own),
        }
    }
    resources
}

fn kind_of(given: &Value, own: (&str, &str)) -> Value {
    let or = |field: &str, other: &str| match given[field].as_str() {
        None | Some("") => other.to_owned(),
        Some(text) => text.to_owned(),
    };
    json!({"group": or("group", own.0), "version": or("version", own.1), "kind": given["kind"]})
}

fn scope(given: &Value) -> &'static str {
    if given["namespaced"] == true { "Namespaced" } else { "Cluster" }
}

fn verbs(given: &Value) -> Value {
    if given["verbs"].is_array() { given["verbs"].clone() } else { json!([]) }
}

fn resource(given: &Value, name: &str, own: (&str, &str)) -> Value {
    let mut out = json!({
        "resource": name,
        "responseKind": kind_of(given, own),
        "scope": scope(given),
        "singularResource": given["singularName"].as_str().unwrap_or_default(),
        "verbs": verbs(given),
    });
    for field in ["shortNames", "categories"] {
        if given[field].as_array().is_some_and(|list| !list.is_empty()) {
            out[field] = given[field].clone();
        }
    }
    out
}

fn add_subresource(resources: &mut Vec<Value>, given: &Value, parent: &str, sub: &str, own: (&str, &str)) {
    let at = resources.iter().position(|r| r["resource"] == parent).unwrap_or_else(|| {
        // A subresource may come without its resource.
        resources.push(json!({"resource": parent, "responseKind": null, "scope": scope(given),
                              "singularResource": "", "verbs": []}));
        resources.len() - 1
    });
    let value = json!({"subresource": sub, "responseKind": kind_of(given, own), "verbs": verbs(given)});
    match resources[at]["subresources"].as_array_mut() {
        Some(list) => list.push(value),
        None => resources[at]["subresources"] = json!([value]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subresources_go_below_their_resources() {
        let found = aggregated_resources(&json!({"groupVersion": "a.io/v1", "resources": [
            {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get"],
             "shortNames": ["th"]},
            {"name": "things/scale", "namespaced": true, "kind": "Scale", "group": "autoscaling", "version": "v1",
             "verbs": ["get"]},
        ]}));
        assert_eq!(
            found,
            [json!({
                "resource": "things", "responseKind": {"group": "a.io", "version": "v1", "kind": "Thing"},
                "scope": "Namespaced", "singularResource": "thing", "verbs": ["get"], "shortNames": ["th"],
                "subresources": [{"subresource": "scale", "verbs": ["get"],
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}],
            })]
        );
    }
}
