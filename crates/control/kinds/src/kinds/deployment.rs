//! Deployments: their roll-out strategy and the template of their pods.

use super::{pod, workload};
use crate::{
    check::{Errors, number},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::{Value, json};

pub struct Deployment;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Ready", "string", "", 0, "Number of the pod with ready state"),
    Column::new(
        "Up-to-date",
        "string",
        "",
        0,
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    Column::new(
        "Available",
        "string",
        "",
        0,
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this \
         deployment.",
    ),
    column::AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    Column::new(
        "Selector",
        "string",
        "",
        1,
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected \
         by this deployment. It must match the pod template's labels.",
    ),
];

impl Strategy for Deployment {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_to(spec, "replicas", 1);
        tree::default_to(spec, "revisionHistoryLimit", 10);
        tree::default_to(spec, "progressDeadlineSeconds", 600);
        if let Some(strategy) = tree::child(spec, "strategy") {
            tree::default_empty(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = tree::child(strategy, "rollingUpdate")
            {
                tree::default_to(rolling, "maxUnavailable", "25%");
                tree::default_to(rolling, "maxSurge", "25%");
            }
        }
        if let Some(template) = tree::child(spec, "template") {
            pod::default_template(template);
        }
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
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ];
        Errors::of(|errors| {
            let (path, status) = (Path::new("status"), &new["status"]);
            number::fields_not_negative(errors, &path, status, COUNTS);
            let within = ["updatedReplicas", "readyReplicas", "availableReplicas"];
            workload::counts_within(errors, &path, status, &within, "readyReplicas");
            workload::collisions_only_grow(errors, new, old);
        })
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec", "metadata.annotations"]
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static str] {
        if subresource.is_empty() { &["status"] } else { &["spec", "metadata.labels"] }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let mut cells = vec![
            workload::name(object),
            format!("{}/{}", tree::int(status, "readyReplicas"), tree::int(spec, "replicas")).into(),
            tree::int(status, "updatedReplicas").into(),
            tree::int(status, "availableReplicas").into(),
            column::age(object, now),
        ];
        cells.extend(workload::wide_cells(&spec["template"], Some(workload::selector_text(&spec["selector"]))));
        cells
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    number::fields_not_negative(errors, path, spec, &["replicas"]);
    let selector = &spec["selector"];
    let empty = "empty selector is invalid for deployment";
    let at = path.child("template");
    if workload::selector(errors, &path.child("selector"), selector, empty, "invalid label selector") {
        workload::labels_match(errors, &at, &spec["template"], selector);
        pod::validate_template(errors, &at, &spec["template"]);
        workload::runs_for_ever(errors, &at, &spec["template"], "ReplicaSet");
    }
    strategy(errors, &path.child("strategy"), &spec["strategy"]);
    number::fields_not_negative(errors, path, spec, &["minReadySeconds", "revisionHistoryLimit"]);
    if let Some(seconds) = spec.get("progressDeadlineSeconds").and_then(Value::as_i64) {
        let at = path.child("progressDeadlineSeconds");
        number::not_negative(errors, &at, seconds);
        if seconds <= tree::int(spec, "minReadySeconds") {
            errors.invalid(&at, seconds, "must be greater than minReadySeconds");
        }
    }
}

fn strategy(errors: &mut Errors, path: &Path, strategy: &Value) {
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("rollingUpdate");
    match tree::text(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_null() => errors.required(&at, "this should be defaulted and never be nil"),
        "RollingUpdate" => rolling_update(errors, &at, rolling),
        other => {
            let rolling = match rolling {
                Value::Null => json!(null).to_string(),
                _ => format!(
                    "{{\"MaxUnavailable\":{},\"MaxSurge\":{}}}",
                    shown_count(&rolling["maxUnavailable"]),
                    shown_count(&rolling["maxSurge"])
                ),
            };
            let shown = format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", Value::from(other));
            errors.unsupported_shown(path, &shown, &["Recreate", "RollingUpdate"]);
        }
    }
}

/// Go prints an absent count as 0.
pub(super) fn shown_count(count: &Value) -> String {
    if count.is_null() { "0".into() } else { count.to_string() }
}

fn rolling_update(errors: &mut Errors, path: &Path, rolling: &Value) {
    let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
    let at = path.child("maxUnavailable");
    number::count_or_percent(errors, &at, unavailable);
    number::count_or_percent(errors, &path.child("maxSurge"), surge);
    if number::is_zero(unavailable) && number::is_zero(surge) {
        errors.invalid(&at, unavailable.clone(), "may not be 0 when `maxSurge` is 0");
    }
    number::not_over_100(errors, &at, unavailable);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }});
        for (key, value) in spec.as_object().cloned().unwrap_or_default() {
            object["spec"][key] = value;
        }
        Deployment.default("apps/v1", &mut object);
        object
    }

    #[test]
    fn defaults() {
        let spec = &deployment(json!({}))["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert!(spec["template"]["spec"].get("enableServiceLinks").is_none());
        assert!(
            deployment(json!({"strategy": {"type": "Recreate"}}))["spec"]["strategy"].get("rollingUpdate").is_none()
        );
    }

    #[test]
    fn what_is_wrong() {
        let cases = [
            (json!({}), vec![]),
            (json!({"replicas": -1}), vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
            (
                json!({"selector": {"matchLabels": {"a": "c"}}}),
                vec![
                    "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"selector": null}),
                vec![
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
                vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
            ),
            (
                json!({"strategy": {"type": "X"}}),
                vec![
                    "spec.strategy: Unsupported value: {\"Type\":\"X\",\"RollingUpdate\":null}: supported values: \
                     \"Recreate\", \"RollingUpdate\"",
                ],
            ),
        ];
        for (spec, expected) in cases {
            let found: Vec<_> =
                Deployment.validate(&deployment(spec.clone())).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{spec}");
        }
    }

    #[test]
    fn the_selector_stays() {
        let old = deployment(json!({}));
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"]["c"] = json!("d");
        new["spec"]["template"]["metadata"]["labels"]["c"] = json!("d");
        let found: Vec<_> = Deployment.validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable"]
        );
    }
}
