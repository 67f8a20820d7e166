//! Objects within objects (`x-kubernetes-embedded-resource`): they have an `apiVersion`, a `kind`, and usable metadata.

use pintle_types::field::{ErrorList, FieldError, Path};
use pintle_types::names;
use serde_json::Value;

/// What is wrong with the embedded objects of an object. What did not change is not complained of.
pub(super) fn check(schema: &Value, object: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    for (name, value) in object.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata") {
        visit(&schema["properties"][name], value, old.and_then(|o| o.get(name)), &Path::new(name), errors);
    }
}

fn visit(schema: &Value, value: &Value, old: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(map) => {
            if schema["x-kubernetes-embedded-resource"] == true {
                identity(value, path, errors);
            }
            for (name, value) in map {
                let property = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                if property.is_object() {
                    visit(property, value, old.and_then(|o| o.get(name)), &path.child(name), errors);
                }
            }
        }
        Value::Array(items) => {
            let inner = &schema["items"];
            items.iter().enumerate().for_each(|(i, item)| visit(inner, item, None, &path.index(i), errors));
        }
        _ => {}
    }
}

fn identity(object: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["apiVersion", "kind"] {
        let text = object[field].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.push(FieldError::required(&path.child(field), "must not be empty"));
        } else if field == "kind" {
            for problem in names::dns1035_label_errors(&text.to_lowercase()) {
                errors.push(FieldError::invalid(&path.child(field), text, &problem));
            }
        } else if text.matches('/').count() > 1 {
            let detail = format!("unexpected GroupVersion string: {text}");
            errors.push(FieldError::invalid(&path.child(field), text, &detail));
        }
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if !name.is_empty() {
        for problem in names::path_segment_errors(name, false) {
            errors.push(FieldError::invalid(&path.child("metadata").child("name"), name, &problem));
        }
    }
}
