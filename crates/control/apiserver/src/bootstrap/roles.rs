//! The roles and bindings of a new cluster, read from their table.

use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("../../data/rbac.txt");
const GROUP: &str = "rbac.authorization.k8s.io";

/// All roles and bindings, those first that others refer to.
pub(super) fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in TABLE.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        match (line.strip_prefix("  "), objects.last_mut()) {
            (Some(detail), Some(object)) => add(object, detail),
            _ => objects.push(start(line)),
        }
    }
    objects
}

fn start(line: &str) -> Value {
    let (kind, name) = line.split_once(' ').unwrap_or((line, ""));
    let mut metadata = json!({
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    });
    match name.split_once('/') {
        Some((namespace, name)) => {
            metadata["namespace"] = namespace.into();
            metadata["name"] = name.into();
        }
        None => metadata["name"] = name.into(),
    }
    let mut object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata});
    if kind.ends_with("Role") {
        object["rules"] = Value::Null;
    }
    object
}

fn add(object: &mut Value, detail: &str) {
    let words: Vec<&str> = detail.split(' ').collect();
    match words.as_slice() {
        ["label", pair] => {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            object["metadata"]["labels"][key] = value.into();
        }
        ["aggregates", pair] => {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let mut labels = Map::new();
            labels.insert(key.to_owned(), value.into());
            push(&mut object["aggregationRule"], "clusterRoleSelectors", json!({"matchLabels": labels}));
        }
        ["rule", verbs, groups, resources, names @ ..] => {
            let mut rule = json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)});
            if let [names] = names {
                rule["resourceNames"] = list(names);
            }
            push(object, "rules", rule);
        }
        ["path", verbs, paths] => push(object, "rules", json!({"verbs": list(verbs), "nonResourceURLs": list(paths)})),
        ["to", kind, name] => object["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": name}),
        ["subject", kind, name] => push(object, "subjects", subject(kind, name)),
        _ => {}
    }
}

fn list(text: &str) -> Value {
    text.split(',').map(|word| if word == "core" { "" } else { word }).map(Value::from).collect()
}

fn push(object: &mut Value, field: &str, item: Value) {
    match object[field].as_array_mut() {
        Some(items) => items.push(item),
        None => object[field] = json!([item]),
    }
}

fn subject(kind: &str, name: &str) -> Value {
    match name.split_once('/') {
        Some((namespace, name)) if kind == "ServiceAccount" => {
            json!({"kind": kind, "name": name, "namespace": namespace})
        }
        _ => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let objects = objects();
        assert!(objects.len() > 130);
        for object in &objects {
            let kind = object["kind"].as_str().unwrap();
            assert!(["ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"].contains(&kind), "{object}");
            assert!(!object["metadata"]["name"].as_str().unwrap().is_empty(), "{object}");
            assert_eq!(kind.ends_with("Binding"), object["roleRef"].is_object(), "{object}");
        }
        let admin = objects.iter().find(|o| o["metadata"]["name"] == "cluster-admin").unwrap();
        assert_eq!(admin["rules"][0], json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        let details = TABLE.lines().filter(|l| l.starts_with("  "));
        let known = ["label", "aggregates", "rule", "path", "to", "subject"];
        for line in details {
            assert!(known.contains(&line.trim().split(' ').next().unwrap()), "{line}");
        }
    }
}
