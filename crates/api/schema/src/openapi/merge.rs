//! Joins the v2 document of another server into ours: its paths of one group and version, and what they refer to.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

const REFERENCE: &str = "#/definitions/";
/// Deeper documents are cut: they come from outside.
const MAX_DEPTH: usize = 128;

/// `ours` with the paths below `prefix` (`/apis/GROUP/VERSION`) of another document. A definition that both have under
/// one name but with different words is kept under a new name.
pub fn merge_v2(ours: Vec<u8>, prefix: &str, other: &Value) -> Vec<u8> {
    let Ok(mut whole) = serde_json::from_slice::<Value>(&ours) else { return ours };
    let below = format!("{prefix}/");
    let paths = other["paths"].as_object().into_iter().flatten();
    let paths: Map<String, Value> = paths
        .filter(|(path, _)| path.starts_with(&below) || path.as_str() == prefix)
        .map(|(path, value)| (path.clone(), value.clone()))
        .collect();
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    let mut todo = Vec::new();
    paths.values().for_each(|value| references(value, &mut todo, 0));
    while let Some(name) = todo.pop() {
        let Some(definition) = other["definitions"].get(&name).filter(|_| !wanted.contains_key(&name)) else {
            continue;
        };
        references(definition, &mut todo, 0);
        wanted.insert(name, definition.clone());
    }
    let names = new_names(&whole, &wanted);
    for (name, mut definition) in wanted {
        rename(&mut definition, &names, 0);
        let name = names.get(&name).cloned().unwrap_or(name);
        whole["definitions"][name] = definition;
    }
    for (path, mut value) in paths {
        rename(&mut value, &names, 0);
        whole["paths"][path] = value;
    }
    whole.to_string().into_bytes()
}

/// New names for the definitions that differ from ours of the same name.
fn new_names(whole: &Value, wanted: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    let ours = &whole["definitions"];
    let differs = |name: &str, value: &Value| ours.get(name).is_some_and(|own| own != value);
    let clashing = wanted.iter().filter(|(name, value)| differs(name, value));
    clashing
        .filter_map(|(name, _)| {
            let mut candidates = (2..1000).map(|number| format!("{name}_v{number}"));
            let free = candidates.find(|new| ours.get(new).is_none() && !wanted.contains_key(new))?;
            Some((name.clone(), free))
        })
        .collect()
}

fn references(value: &Value, found: &mut Vec<String>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE)) {
                found.push(name.to_owned());
            }
            map.values().for_each(|inner| references(inner, found, depth + 1));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found, depth + 1)),
        _ => {}
    }
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>, depth: usize) {
    if depth > MAX_DEPTH || names.is_empty() {
        return;
    }
    match value {
        Value::Object(map) => {
            let new = map.get("$ref").and_then(Value::as_str).and_then(|r| names.get(r.strip_prefix(REFERENCE)?));
            if let Some(new) = new.map(|name| format!("{REFERENCE}{name}")) {
                map.insert("$ref".into(), new.into());
            }
            map.values_mut().for_each(|inner| rename(inner, names, depth + 1));
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| rename(inner, names, depth + 1)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn clashing_definitions_are_renamed() {
        let ours = json!({"paths": {"/api/v1": {}}, "definitions": {"A": {"type": "object"}, "B": {"type": "string"}}});
        let other = json!({
            "paths": {"/apis/x.io/v1/things": {"get": {"$ref": "#/definitions/A"}}, "/apis/y.io/v1/others": {}},
            "definitions": {"A": {"type": "object", "properties": {"b": {"$ref": "#/definitions/B"}}},
                            "B": {"type": "string"}, "C": {}},
        });
        let merged = merge_v2(ours.to_string().into_bytes(), "/apis/x.io/v1", &other);
        let merged: Value = serde_json::from_slice(&merged).unwrap();
        assert_eq!(merged["paths"]["/apis/x.io/v1/things"]["get"]["$ref"], "#/definitions/A_v2");
        assert!(merged["paths"].get("/apis/y.io/v1/others").is_none());
        assert_eq!(merged["definitions"]["A_v2"]["properties"]["b"]["$ref"], "#/definitions/B");
        assert_eq!(merged["definitions"]["A"], json!({"type": "object"}));
        assert!(merged["definitions"].get("C").is_none());
    }
}
