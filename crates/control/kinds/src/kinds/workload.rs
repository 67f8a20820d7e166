//! What the kinds that run pods from a template have in common.

use crate::{
    check::{Errors, selector},
    column::{self, Column},
    kinds::pod,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::Path;
use serde_json::Value;

/// The containers of the template, and their images; only with `-o wide`.
pub(super) const CONTAINERS: Column =
    Column::new("Containers", "string", "", 1, "Names of each container in the template.");
pub(super) const IMAGES: Column =
    Column::new("Images", "string", "", 1, "Images referenced by each container in the template.");

/// A selector of labels that the kind needs. Answers whether pods can be matched with it.
pub(super) fn selector(errors: &mut Errors, path: &Path, value: &Value, empty: &str, unusable: &str) -> bool {
    if value.is_null() {
        // An absent selector matches nothing; the template is checked all the same.
        errors.required(path, "");
        return true;
    }
    selector::labels(errors, path, value);
    if selector::is_empty(value) {
        errors.invalid_shown(path, &selector::shown(value), empty);
    }
    let usable = selector::is_usable(value);
    if !usable {
        errors.invalid_shown(path, &selector::shown(value), unusable);
    }
    usable
}

/// The labels of the template have to fulfil the selector, if it has any requirement.
pub(super) fn labels_match(errors: &mut Errors, path: &Path, template: &Value, selector: &Value) {
    let labels = &template["metadata"]["labels"];
    if selector.is_null() || (!selector::is_empty(selector) && !selector::matches(selector, labels)) {
        let words = "`selector` does not match template `labels`";
        errors.invalid(&path.child("metadata").child("labels"), labels.clone(), words);
    }
}

/// What is told of a new name that pods can bear but hosts can't.
pub(super) fn name_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let wrong = pintle_types::names::dns1123_label_errors(tree::text(&object["metadata"], "name"));
    let words = "this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
                 recommended";
    let warning = (!wrong.is_empty()).then(|| format!("metadata.name: {words}: [{}]", wrong.join(" ")));
    warning.into_iter().collect()
}

/// What is told of a name and of a template.
pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = name_warnings(new, old);
    warnings.extend(pod::template_warnings("spec.template", &new["spec"]["template"], new, old));
    warnings
}

/// No count of these exceeds that of all replicas, and those that are available are ready; `ready` is what the message
/// calls these.
pub(super) fn counts_within(errors: &mut Errors, path: &Path, status: &Value, counts: &[&str], ready: &str) {
    let replicas = tree::int(status, "replicas");
    for field in counts {
        let count = tree::int(status, field);
        if count > replicas {
            errors.invalid(&path.child(field), count, "cannot be greater than status.replicas");
        }
    }
    let available = tree::int(status, "availableReplicas");
    if available > tree::int(status, "readyReplicas") {
        errors.invalid(&path.child("availableReplicas"), available, &format!("cannot be greater than {ready}"));
    }
}

/// Pods of controllers restart for ever and have no deadline.
pub(super) fn runs_for_ever(errors: &mut Errors, path: &Path, template: &Value, kind: &str) {
    let spec = &template["spec"];
    let policy = tree::text(spec, "restartPolicy");
    if policy != "Always" {
        errors.unsupported(&path.child("spec").child("restartPolicy"), policy, &["Always"]);
    }
    if tree::has(spec, "activeDeadlineSeconds") {
        let words = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("spec").child("activeDeadlineSeconds"), &words);
    }
}

/// Names that collided are counted up, never down: an older count would make the same names again.
pub(super) fn collisions_only_grow(errors: &mut Errors, new: &Value, old: &Value) {
    let count = |object: &Value| object["status"].get("collisionCount").and_then(Value::as_i64);
    let (now, before) = (count(new), count(old));
    if before.is_some_and(|before| now.is_none_or(|now| now < before)) {
        errors.invalid(&Path::new("status.collisionCount"), now.unwrap_or(0), "cannot be decremented");
    }
}

/// A selector in a message about its change.
pub(super) fn selector_unchanged(errors: &mut Errors, new: &Value, old: &Value) {
    let (new, old) = (&new["spec"]["selector"], &old["spec"]["selector"]);
    if new != old {
        errors.invalid_shown(&Path::new("spec.selector"), &selector::shown(new), crate::check::IMMUTABLE);
    }
}

/// A label selector as tables show it: `a=b,c in (d),!e`.
pub(super) fn selector_text(value: &Value) -> String {
    let mut parts: Vec<String> = tree::entries(value, "matchLabels")
        .into_iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    for requirement in tree::list(value, "matchExpressions") {
        let key = tree::text(requirement, "key");
        let mut values: Vec<&str> = tree::list(requirement, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match tree::text(requirement, "operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.sort_by(|a, b| a.trim_start_matches('!').cmp(b.trim_start_matches('!')));
    match (value.is_null(), parts.is_empty()) {
        (false, false) => parts.join(","),
        _ => "<none>".into(),
    }
}

/// The cells that end the rows of workloads: containers and images, and the selector if the kind shows it.
pub(super) fn wide_cells(template: &Value, selector: Option<String>) -> Vec<Value> {
    let (names, images) = pod::containers_and_images(template);
    let mut cells = vec![names.into(), images.into()];
    cells.extend(selector.map(Value::from));
    cells
}

/// The first cell of each row.
pub(super) fn name(object: &Value) -> Value {
    tree::text(&object["metadata"], "name").into()
}

/// Name, desired, current and ready counts, age: replica sets and replication controllers.
pub(super) fn replica_cells(object: &Value, now: Timestamp, selector: String) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut cells = vec![
        name(object),
        tree::int(spec, "replicas").into(),
        tree::int(status, "replicas").into(),
        tree::int(status, "readyReplicas").into(),
        column::age(object, now),
    ];
    cells.extend(wide_cells(&spec["template"], Some(selector)));
    cells
}
