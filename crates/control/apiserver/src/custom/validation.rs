//! Whether an object is what its schema says, told in upstream's words.
//!
//! Rules in CEL (`x-kubernetes-validations`) are not evaluated.

use pintle_types::field::{ErrorKind, ErrorList, FieldError, Path};
use regex::Regex;
use serde_json::Value;

/// Checks an object; its metadata and kind are checked elsewhere.
pub(super) fn check(schema: &Value, object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names: Vec<_> = schema["properties"].as_object().into_iter().flatten().collect();
    names.retain(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
    required(schema, &Path::default(), object, &mut errors);
    for (name, property) in names {
        if let Some(value) = object.get(name) {
            value_errors(property, &Path::new(name), value, &mut errors);
        }
    }
    let mut lists = ErrorList::new();
    list_errors(schema, &Path::default(), object, &mut lists);
    errors.extend(lists);
    errors
}

fn required(schema: &Value, path: &Path, value: &Value, errors: &mut ErrorList) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            errors.push(FieldError::required(&path.child(name), ""));
        }
    }
}

/// The type of a value as messages name it.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return matches!(type_name(value), "integer" | "string");
    }
    match (schema["type"].as_str(), type_name(value)) {
        (None, _) => true,
        (Some("number"), "integer") => true,
        (Some(wanted), found) => wanted == found || (found == "null" && schema["nullable"] == true),
    }
}

fn value_errors(schema: &Value, path: &Path, value: &Value, errors: &mut ErrorList) {
    if !has_type(schema, value) {
        let (wanted, found) = (schema["type"].as_str().unwrap_or("integer or string"), type_name(value));
        let detail = format!("{path} in body must be of type {wanted}: {found:?}");
        errors.push(FieldError::type_invalid(path, found, &detail));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let shown: Vec<String> =
            allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(path, value.clone(), &shown));
    }
    match value {
        Value::Number(_) => number_errors(schema, path, value, errors),
        Value::String(text) => text_errors(schema, path, text, errors),
        Value::Array(items) => {
            count_errors(schema, path, items.len(), ("minItems", "maxItems", "items"), errors);
            for (index, item) in items.iter().enumerate() {
                value_errors(&schema["items"], &path.index(index), item, errors);
            }
        }
        Value::Object(_) => object_errors(schema, path, value, errors),
        _ => {}
    }
}

fn object_errors(schema: &Value, path: &Path, value: &Value, errors: &mut ErrorList) {
    required(schema, path, value, errors);
    let fields = value.as_object();
    let count = fields.map_or(0, serde_json::Map::len);
    count_errors(schema, path, count, ("minProperties", "maxProperties", "properties"), errors);
    for (name, inner) in fields.into_iter().flatten() {
        if let Some(property) = schema["properties"].get(name) {
            value_errors(property, &path.child(name), inner, errors);
        } else if schema["additionalProperties"].is_object() {
            value_errors(&schema["additionalProperties"], &path.child(name), inner, errors);
        }
    }
}

fn number_errors(schema: &Value, path: &Path, value: &Value, errors: &mut ErrorList) {
    let number = value.as_f64().unwrap_or_default();
    let mut wrong = |bound: &Value, words: &str| {
        errors.push(FieldError::invalid(path, value.clone(), &format!("{path} in body should be {words} {bound}")));
    };
    let (most, least) = (&schema["maximum"], &schema["minimum"]);
    if let Some(bound) = most.as_f64() {
        let exclusive = schema["exclusiveMaximum"] == true;
        if number > bound || (exclusive && number == bound) {
            wrong(most, if exclusive { "less than" } else { "less than or equal to" });
        }
    }
    if let Some(bound) = least.as_f64() {
        let exclusive = schema["exclusiveMinimum"] == true;
        if number < bound || (exclusive && number == bound) {
            wrong(least, if exclusive { "greater than" } else { "greater than or equal to" });
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64()
        && (number / step).fract() != 0.0
    {
        wrong(&schema["multipleOf"], "a multiple of");
    }
}

fn text_errors(schema: &Value, path: &Path, text: &str, errors: &mut ErrorList) {
    let length = text.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        let body = format!("Too long: may not be more than {most} bytes");
        errors.push(FieldError::new(ErrorKind::TooLong, path, body));
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|least| length < *least) {
        let detail = format!("{path} in body should be at least {least} chars long");
        errors.push(FieldError::invalid(path, text, &detail));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text))
    {
        let detail = format!("{path} in body should match '{pattern}'");
        errors.push(FieldError::invalid(path, text, &detail));
    }
}

fn count_errors(schema: &Value, path: &Path, count: usize, names: (&str, &str, &str), errors: &mut ErrorList) {
    let (least, most, noun) = names;
    if let Some(most) = schema[most].as_u64().and_then(|m| usize::try_from(m).ok()).filter(|m| count > *m) {
        errors.push(FieldError::too_many(path, count, most));
    }
    if let Some(least) = schema[least].as_u64().filter(|l| (count as u64) < *l) {
        let detail = format!("{path} in body should have at least {least} {noun}");
        errors.push(FieldError::invalid(path, count as u64, &detail));
    }
}

/// Items that come twice in lists that are sets or maps.
fn list_errors(schema: &Value, path: &Path, value: &Value, errors: &mut ErrorList) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let property = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                list_errors(property, &path.child(name), inner, errors);
            }
        }
        Value::Array(items) => {
            duplicates(schema, path, items, errors);
            for (index, item) in items.iter().enumerate() {
                list_errors(&schema["items"], &path.index(index), item, errors);
            }
        }
        _ => {}
    }
}

fn duplicates(schema: &Value, path: &Path, items: &[Value], errors: &mut ErrorList) {
    let keys: Option<Vec<&str>> = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => None,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            Some(keys.into_iter().flatten().filter_map(Value::as_str).collect())
        }
        _ => return,
    };
    let identity = |item: &Value| match &keys {
        None => item.clone(),
        Some(keys) => keys.iter().filter_map(|k| Some(((*k).to_owned(), item.get(k)?.clone()))).collect(),
    };
    let mut seen = std::collections::HashSet::new();
    for (index, item) in items.iter().enumerate() {
        let identity = identity(item);
        if !seen.insert(identity.to_string()) {
            errors.push(FieldError::duplicate(&path.index(index), identity));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_spec(spec: Value, expected: &[&str]) {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "enum": ["blue", "red"]},
            "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                      "items": {"type": "object"}},
            "code": {"type": "string", "pattern": "^[a-z]+$"},
        }}}});
        let errors = check(&schema, &json!({"spec": spec}));
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
    }

    #[test]
    fn values_are_checked_in_upstreams_words() {
        check_spec(json!({"size": 3}), &[]);
        check_spec(json!({}), &["spec.size: Required value"]);
        check_spec(
            json!({"size": 99}),
            &["spec.size: Invalid value: 99: spec.size in body should be less than or equal to 10"],
        );
        check_spec(
            json!({"size": "x"}),
            &["spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\""],
        );
        check_spec(
            json!({"size": 1, "color": "green"}),
            &["spec.color: Unsupported value: \"green\": supported values: \"blue\", \"red\""],
        );
        check_spec(json!({"size": 1, "tags": ["a", "a"]}), &["spec.tags[1]: Duplicate value: \"a\""]);
        check_spec(
            json!({"size": 1, "parts": [{"name": "p"}, {"name": "p", "n": 1}]}),
            &["spec.parts[1]: Duplicate value: {\"name\":\"p\"}"],
        );
        check_spec(
            json!({"size": 1, "code": "A1"}),
            &["spec.code: Invalid value: \"A1\": spec.code in body should match '^[a-z]+$'"],
        );
    }
}
