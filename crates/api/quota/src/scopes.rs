//! Scopes: which objects of a kind a quota is about.

use crate::{Resource, claims, items, pods, text};
use serde_json::Value;

/// Whether an object is in all scopes of a quota.
pub fn in_scope(resource: Resource<'_>, quota: &Value, object: &Value) -> bool {
    let spec = &quota["spec"];
    let exists = Value::Null;
    let plain = items(spec, "scopes").iter().filter_map(Value::as_str).map(|scope| (scope, &exists));
    let selected = items(&spec["scopeSelector"], "matchExpressions").iter();
    let mut all = plain.chain(selected.map(|expression| (text(expression, "scopeName"), expression)));
    all.all(|(scope, expression)| match resource.core() {
        Some("pods") => pod_in(scope, expression, object),
        Some("persistentvolumeclaims") if scope == "VolumeAttributesClass" => {
            selects(expression, &claims::attributes_classes(object).collect::<Vec<_>>())
        }
        _ => false,
    })
}

fn pod_in(scope: &str, expression: &Value, pod: &Value) -> bool {
    let ends = pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => pods::is_best_effort(pod),
        "NotBestEffort" => !pods::is_best_effort(pod),
        "CrossNamespacePodAffinity" => pods::crosses_namespaces(pod),
        "PriorityClass" => {
            let class = text(&pod["spec"], "priorityClassName");
            selects(expression, if class.is_empty() { &[] } else { std::slice::from_ref(&class) })
        }
        _ => false,
    }
}

/// Whether any of the names is one that the expression wants; none at all is what `DoesNotExist` and `NotIn` want.
fn selects(expression: &Value, names: &[&str]) -> bool {
    let listed = || names.iter().any(|name| items(expression, "values").iter().any(|value| value == name));
    match expression["operator"].as_str().unwrap_or("Exists") {
        "Exists" => !names.is_empty(),
        "DoesNotExist" => names.is_empty(),
        "In" => listed(),
        "NotIn" => !listed(),
        _ => false,
    }
}
