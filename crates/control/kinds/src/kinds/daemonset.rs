//! Daemon sets: a pod on every node, and the count of their template's changes.

use super::{deployment::shown_count, pod, workload};
use crate::{
    check::{Errors, number, selector},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;

pub struct DaemonSet;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Desired",
        "integer",
        "",
        0,
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the \
         daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    Column::new(
        "Current",
        "integer",
        "",
        0,
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More \
         info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    Column::new(
        "Ready",
        "integer",
        "",
        0,
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the \
         daemon pod running with a Ready Condition.",
    ),
    Column::new("Up-to-date", "integer", "", 0, "The total number of nodes that are running updated daemon pod"),
    Column::new(
        "Available",
        "integer",
        "",
        0,
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod \
         running and available (ready for at least spec.minReadySeconds)",
    ),
    Column::new(
        "Node Selector",
        "string",
        "",
        0,
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a \
         node's labels for the pod to be scheduled on that node. More info: \
         https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
    ),
    column::AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    Column::new(
        "Selector",
        "string",
        "",
        1,
        "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It \
         must match the pod template's labels. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// Counts the changes of the template; a field of the spec until it was deprecated.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

impl Strategy for DaemonSet {
    fn default(&self, _api_version: &str, object: &mut Value) {
        default_template_generation(object);
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_to(spec, "revisionHistoryLimit", 10);
        if let Some(strategy) = tree::child(spec, "updateStrategy") {
            tree::default_empty(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = tree::child(strategy, "rollingUpdate")
            {
                tree::default_to(rolling, "maxUnavailable", 1);
                tree::default_to(rolling, "maxSurge", 0);
            }
        }
        if let Some(template) = tree::child(spec, "template") {
            pod::default_template(template);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        set_template_generation(object, 1);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let before = template_generation(old);
        let changed = new["spec"]["template"] != old["spec"]["template"];
        set_template_generation(new, before + i64::from(changed));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        found.extend(Errors::of(|errors| workload::selector_unchanged(errors, new, old)));
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        const COUNTS: &[&str] = &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        Errors::of(|errors| {
            number::fields_not_negative(errors, &Path::new("status"), &new["status"], COUNTS);
            workload::collisions_only_grow(errors, new, old);
        })
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        pod::template_warnings("spec.template", &new["spec"]["template"], new, old)
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let mut cells = vec![workload::name(object)];
        let counts = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ];
        cells.extend(counts.map(|count| Value::from(tree::int(status, count))));
        cells.push(pod::labels_text(&spec["template"]["spec"]["nodeSelector"]).into());
        cells.push(column::age(object, now));
        cells.extend(workload::wide_cells(&spec["template"], Some(workload::selector_text(&spec["selector"]))));
        cells
    }
}

/// The annotation is there before the count is known, so that its writer is its manager.
fn default_template_generation(object: &mut Value) {
    if let Some(metadata) = tree::child(object, "metadata")
        && let Some(annotations) = tree::child(metadata, "annotations")
    {
        tree::default_empty(annotations, TEMPLATE_GENERATION, "0");
    }
}

fn template_generation(object: &Value) -> i64 {
    let text = tree::text(&object["metadata"]["annotations"], TEMPLATE_GENERATION);
    text.parse().unwrap_or(1)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    if let Some(metadata) = tree::child(object, "metadata")
        && let Some(annotations) = tree::child(metadata, "annotations")
    {
        tree::set(annotations, TEMPLATE_GENERATION, generation.to_string());
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let selector = &spec["selector"];
    let at = path.child("template");
    selector::labels(errors, &path.child("selector"), selector);
    let matches = !selector.is_null() && selector::matches(selector, &spec["template"]["metadata"]["labels"]);
    if selector::is_usable(selector) && !matches {
        let labels = spec["template"]["metadata"]["labels"].clone();
        errors.invalid(&at.child("metadata").child("labels"), labels, "`selector` does not match template `labels`");
    }
    if !selector.is_null() && selector::is_empty(selector) {
        let words = "empty selector is invalid for daemonset";
        errors.invalid_shown(&path.child("selector"), &selector::shown(selector), words);
    }
    pod::validate_template(errors, &at, &spec["template"]);
    workload::runs_for_ever(errors, &at, &spec["template"], "DaemonSet");
    number::fields_not_negative(errors, path, spec, &["minReadySeconds"]);
    update_strategy(errors, &path.child("updateStrategy"), &spec["updateStrategy"]);
    number::fields_not_negative(errors, path, spec, &["revisionHistoryLimit"]);
}

fn update_strategy(errors: &mut Errors, path: &Path, strategy: &Value) {
    let rolling = &strategy["rollingUpdate"];
    match tree::text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_null() => errors.required(&path.child("rollingUpdate"), ""),
        "RollingUpdate" => rolling_update(errors, &path.child("rollingUpdate"), rolling),
        other => {
            let rolling = match rolling {
                Value::Null => "null".to_owned(),
                _ => format!(
                    "{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}",
                    shown_count(&rolling["maxUnavailable"]),
                    shown_count(&rolling["maxSurge"])
                ),
            };
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", Value::from(other));
            errors.unsupported_shown(path, &shown, &["RollingUpdate", "OnDelete"]);
        }
    }
}

fn rolling_update(errors: &mut Errors, path: &Path, rolling: &Value) {
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    number::count_or_percent(errors, &path.child("maxUnavailable"), unavailable);
    number::count_or_percent(errors, &path.child("maxSurge"), surge);
    match (number::is_zero(unavailable), number::is_zero(surge)) {
        (true, true) => errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
        (false, false) => {
            errors.invalid(&path.child("maxSurge"), surge.clone(), "may not be set when maxUnavailable is non-zero");
        }
        _ => {}
    }
    number::not_over_100(errors, &path.child("maxUnavailable"), unavailable);
    number::not_over_100(errors, &path.child("maxSurge"), surge);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_template_is_counted() {
        let mut old = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {}}}});
        DaemonSet.prepare_create(&mut old);
        assert_eq!(old["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["nodeName"] = json!("n");
        DaemonSet.prepare_update(&mut new, &old);
        assert_eq!(new["metadata"]["annotations"][TEMPLATE_GENERATION], "2");
    }
}
