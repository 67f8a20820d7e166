//! Classes of priority and of runtimes.

use super::{pod, workload};
use crate::{
    check::{Errors, IMMUTABLE, Seen, name, resource, schedule},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

pub struct PriorityClass;

static PRIORITY_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Value",
        "integer",
        "",
        0,
        "value represents the integer value of this priority class. This is the actual priority that pods \
         receive when they have the name of this class in their pod spec.",
    ),
    Column::new(
        "Global-Default",
        "boolean",
        "",
        0,
        "globalDefault specifies whether this PriorityClass should be considered as the default priority for \
         pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. \
         However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the \
         smallest value of such global default PriorityClasses will be used as the default priority.",
    ),
    column::AGE,
    Column::new(
        "PreemptionPolicy",
        "string",
        "",
        0,
        "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, \
         PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
    ),
];

/// Users' classes stay below this; the two of the system are above.
const HIGHEST: i64 = 1_000_000_000;
const SYSTEM: &[(&str, i64)] =
    &[("system-cluster-critical", 2 * HIGHEST), ("system-node-critical", 2 * HIGHEST + 1000)];

impl Strategy for PriorityClass {
    fn default(&self, _api_version: &str, object: &mut Value) {
        tree::default_to(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    /// Changes are not counted.
    fn prepare_create(&self, object: &mut Value) {
        if let Some(metadata) = tree::child(object, "metadata") {
            tree::set(metadata, "generation", 1);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (name, value) = (tree::text(&object["metadata"], "name"), tree::int(object, "value"));
            let known = SYSTEM.iter().any(|(known, its)| *known == name && *its == value);
            if name.starts_with("system-") && !known {
                let words = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a \
                     known system priority class"
                );
                errors.forbidden(&Path::new("metadata.name"), &words);
            } else if value > HIGHEST && !known {
                let words = format!("maximum allowed value of a user defined priority is {HIGHEST}");
                errors.forbidden(&Path::new("value"), &words);
            }
            if let Some(policy) = object.get("preemptionPolicy").and_then(Value::as_str) {
                errors.needs_one_of(&Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| {
            if tree::int(new, "value") != tree::int(old, "value") {
                errors.forbidden(&Path::new("value"), "may not be changed in an update.");
            }
            if new["preemptionPolicy"] != old["preemptionPolicy"] {
                errors.invalid(&Path::new("preemptionPolicy"), new["preemptionPolicy"].clone(), IMMUTABLE);
            }
        })
    }

    fn columns(&self) -> &[Column] {
        PRIORITY_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            workload::name(object),
            tree::int(object, "value").into(),
            tree::flag(object, "globalDefault").into(),
            column::age(object, now),
            tree::text(object, "preemptionPolicy").into(),
        ]
    }
}

pub struct RuntimeClass;

static RUNTIME_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Handler",
        "string",
        "",
        0,
        "handler specifies the underlying runtime and configuration that the CRI implementation will use to handle pods of \
         this class. The possible values are specific to the node & CRI configuration.  It is assumed that all handlers are \
         available on every node, and handlers of the same name are equivalent on every node. For example, a handler called \
         \"runc\" might specify that the runc OCI runtime (using native Linux containers) will be used to run the containers \
         in a pod. The Handler must be lowercase, conform to the DNS Label (RFC 1123) requirements, and is immutable.",
    ),
    column::AGE,
];

impl Strategy for RuntimeClass {
    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let labels = tree::entries(&new["scheduling"], "nodeSelector");
        let told = labels.iter().filter_map(|(key, _)| pod::old_label(key));
        told.map(|words| format!("scheduling.nodeSelector: {words}")).collect()
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, handler) = (Path::new("handler"), tree::text(object, "handler"));
            if errors.needs(&path, handler, "") {
                errors.invalid_for(&path, handler, names::dns1123_label_errors(handler));
            }
            if tree::has(&object["overhead"], "podFixed") {
                // Upstream looks at an overhead as at the limits of a container, and names them so.
                let limits = json!({"limits": object["overhead"]["podFixed"]});
                resource::requirements(errors, &Path::new("overhead"), &limits, &[]);
            }
            let (path, scheduling) = (Path::new("scheduling"), &object["scheduling"]);
            name::labels(errors, &path.child("nodeSelector"), scheduling, "nodeSelector");
            let tolerations = tree::list(scheduling, "tolerations");
            schedule::tolerations(errors, &path.child("tolerations"), tolerations);
            let mut seen = Seen::default();
            for (i, toleration) in tolerations.iter().enumerate().filter(|(_, it)| !seen.first(it.to_string())) {
                errors.duplicate_shown(&path.child("tolerations").index(i), &toleration_shown(toleration));
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| errors.immutable(&Path::new("handler"), &new["handler"], &old["handler"]))
    }

    fn columns(&self) -> &[Column] {
        RUNTIME_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![workload::name(object), tree::text(object, "handler").into(), column::age(object, now)]
    }
}

/// A toleration as upstream prints its struct.
fn toleration_shown(toleration: &Value) -> String {
    let text = |key: &str| Value::from(tree::text(toleration, key));
    format!(
        "{{\"Key\":{},\"Operator\":{},\"Value\":{},\"Effect\":{},\"TolerationSeconds\":{}}}",
        text("key"),
        text("operator"),
        text("value"),
        text("effect"),
        toleration.get("tolerationSeconds").unwrap_or(&Value::Null)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn high_priorities_are_the_systems() {
        for (name, value, errors) in [
            ("a", HIGHEST, 0),
            ("a", HIGHEST + 1, 1),
            ("system-mine", 5, 1),
            ("system-node-critical", 2 * HIGHEST + 1000, 0),
            ("system-node-critical", 5, 1),
        ] {
            let object = json!({"metadata": {"name": name}, "value": value});
            assert_eq!(PriorityClass.validate(&object).len(), errors, "{name} {value}");
        }
    }
}
