//! Label selectors and node selectors.

use super::{Errors, name};
use crate::tree;
use pintle_types::{field::Path, names};
use serde_json::Value;

const OPERATOR: &str = "not a valid selector operator";

/// A label selector; nothing is wrong with an absent one.
pub(crate) fn labels(errors: &mut Errors, path: &Path, selector: &Value) {
    name::labels(errors, &path.child("matchLabels"), selector, "matchLabels");
    for (i, requirement) in tree::list(selector, "matchExpressions").iter().enumerate() {
        label_requirement(errors, &path.child("matchExpressions").index(i), requirement);
    }
}

fn label_requirement(errors: &mut Errors, path: &Path, requirement: &Value) {
    let operator = tree::text(requirement, "operator");
    let values = tree::list(requirement, "values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors
                .forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.invalid(&path.child("operator"), operator, OPERATOR),
    }
    let key = tree::text(requirement, "key");
    errors.invalid_for(&path.child("key"), key, name::qualified(key));
    for (i, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or("");
        errors.invalid_for(&path.child("values").index(i), value, name::label_value(value));
    }
}

/// A selector as messages show it.
pub(crate) fn shown(selector: &Value) -> String {
    if selector.is_null() {
        return "null".to_owned();
    }
    let mut parts = Vec::new();
    if !tree::is_empty(&selector["matchLabels"]) {
        parts.push(format!("\"matchLabels\":{}", selector["matchLabels"]));
    }
    let requirements = tree::list(selector, "matchExpressions");
    if !requirements.is_empty() {
        let list: Vec<_> = requirements.iter().map(requirement_shown).collect();
        parts.push(format!("\"matchExpressions\":[{}]", list.join(",")));
    }
    format!("{{{}}}", parts.join(","))
}

fn requirement_shown(requirement: &Value) -> String {
    let text = |key| Value::from(tree::text(requirement, key));
    let values = match tree::list(requirement, "values") {
        [] => String::new(),
        values => format!(",\"values\":{}", Value::from(values.to_vec())),
    };
    format!("{{\"key\":{},\"operator\":{}{values}}}", text("key"), text("operator"))
}

/// Whether a selector has no requirement.
pub(crate) fn is_empty(selector: &Value) -> bool {
    tree::is_empty(&selector["matchLabels"]) && tree::list(selector, "matchExpressions").is_empty()
}

/// Whether upstream could turn the selector into a matcher.
pub(crate) fn is_usable(selector: &Value) -> bool {
    Errors::of(|errors| labels(errors, &Path::default(), selector)).is_empty()
}

/// Whether labels fulfil a usable selector.
pub(crate) fn matches(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let exact = tree::entries(selector, "matchLabels").into_iter().all(|(key, value)| label(key) == value.as_str());
    exact
        && tree::list(selector, "matchExpressions").iter().all(|requirement| {
            let own = label(tree::text(requirement, "key"));
            let listed =
                own.is_some_and(|own| tree::list(requirement, "values").iter().any(|v| v.as_str() == Some(own)));
            match tree::text(requirement, "operator") {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => own.is_some(),
                _ => own.is_none(),
            }
        })
}

/// A node selector: at least one term.
pub(crate) fn nodes(errors: &mut Errors, path: &Path, selector: &Value) {
    let terms = tree::list(selector, "nodeSelectorTerms");
    let path = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errors, &path.index(i), term);
    }
}

/// A term that is only preferred; its values may be anything.
pub(crate) fn node_preference(errors: &mut Errors, path: &Path, term: &Value) {
    check_term(errors, path, term, false);
}

fn node_term(errors: &mut Errors, path: &Path, term: &Value) {
    check_term(errors, path, term, true);
}

fn check_term(errors: &mut Errors, path: &Path, term: &Value, strict: bool) {
    for (i, requirement) in tree::list(term, "matchExpressions").iter().enumerate() {
        node_requirement(errors, &path.child("matchExpressions").index(i), requirement, strict);
    }
    for (i, requirement) in tree::list(term, "matchFields").iter().enumerate() {
        field_requirement(errors, &path.child("matchFields").index(i), requirement);
    }
}

fn node_requirement(errors: &mut Errors, path: &Path, requirement: &Value, strict: bool) {
    let operator = tree::text(requirement, "operator");
    let values = tree::list(requirement, "values");
    let at = path.child("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => errors.invalid(&path.child("operator"), operator, OPERATOR),
    }
    let key = tree::text(requirement, "key");
    errors.invalid_for(&path.child("key"), key, name::qualified(key));
    for (i, value) in values.iter().enumerate().filter(|_| strict) {
        let value = value.as_str().unwrap_or("");
        errors.invalid_for(&at.index(i), value, name::label_value(value));
    }
}

fn field_requirement(errors: &mut Errors, path: &Path, requirement: &Value) {
    let operator = tree::text(requirement, "operator");
    let values = tree::list(requirement, "values");
    match operator {
        "In" | "NotIn" if values.len() != 1 => {
            errors.required(
                &path.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        "In" | "NotIn" => {}
        _ => errors.invalid(&path.child("operator"), operator, OPERATOR),
    }
    let key = tree::text(requirement, "key");
    if key != "metadata.name" {
        return errors.invalid(&path.child("key"), key, "not a valid field selector key");
    }
    for (i, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or("");
        errors.invalid_for(&path.child("values").index(i), value, names::dns1123_subdomain_errors(value));
    }
}
