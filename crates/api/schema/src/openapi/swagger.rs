//! Schemas of custom resources in the words of OpenAPI v2, which has fewer of them than v3.
//!
//! Source: apiextensions-apiserver's `ToStructuralOpenAPIV2`: what v2 can't say is left out, so that clients that check
//! by it let pass what the server accepts.

use serde_json::Value;

/// Deeper schemas can't be stored.
const MAX_DEPTH: usize = 160;

/// Takes out of a schema what v2 lacks.
pub(super) fn simplify(schema: &mut Value, depth: usize) {
    let Some(map) = schema.as_object_mut() else { return };
    if depth > MAX_DEPTH {
        return map.clear();
    }
    for word in ["allOf", "anyOf", "oneOf", "not", "default", "x-kubernetes-validations"] {
        map.remove(word);
    }
    let flag = |map: &serde_json::Map<String, Value>, name: &str| map.get(name) == Some(&Value::Bool(true));
    let nullable = map.remove("nullable") == Some(Value::Bool(true));
    if nullable || flag(map, "x-kubernetes-preserve-unknown-fields") {
        for word in ["type", "items", "properties", "additionalProperties", "required"] {
            // The root stays an object, or nothing would be known of the kind.
            if depth > 0 || matches!(word, "required" | "additionalProperties") {
                map.remove(word);
            }
        }
    }
    if flag(map, "x-kubernetes-int-or-string") {
        map.remove("type");
    }
    for word in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(word) {
            simplify(inner, depth + 1);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(|inner| simplify(inner, depth + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_v2_cant_say_is_left_out() {
        let mut schema = json!({"type": "object", "oneOf": [{"required": ["a"]}], "properties": {
            "a": {"type": "string", "nullable": true},
            "b": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"c": {"type": "string"}}},
            "d": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "e": {"type": "array", "items": {"type": "object", "default": {}, "additionalProperties": {"type": "string"}}},
        }});
        simplify(&mut schema, 0);
        assert_eq!(
            schema,
            json!({"type": "object", "properties": {
                "a": {}, "b": {"x-kubernetes-preserve-unknown-fields": true}, "d": {"x-kubernetes-int-or-string": true},
                "e": {"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}},
            }})
        );
    }
}
