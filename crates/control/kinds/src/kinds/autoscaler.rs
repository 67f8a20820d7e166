//! Horizontal pod autoscalers, in the forms of both versions.

use super::workload;
use crate::{
    check::{Errors, number, resource},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::{Value, json};

pub struct HorizontalPodAutoscaler;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Reference",
        "string",
        "",
        0,
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should \
         be collected, as well as to actually change the replica count.",
    ),
    Column::new(
        "Targets",
        "string",
        "",
        0,
        "metrics contains the specifications for which to use to calculate the desired replica count (the \
         maximum replica count across all metrics will be used).  The desired replica count is calculated \
         multiplying the ratio between the target value and the current value by the current number of pods.  \
         Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual \
         metric source types for more information about how each type of metric must respond. If not set, the \
         default metric will be set to 80% average CPU utilization.",
    ),
    Column::new(
        "MinPods",
        "string",
        "",
        0,
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It \
         defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled \
         and at least one Object or External metric is configured.  Scaling is active as long as at least one \
         metric value is available.",
    ),
    Column::new(
        "MaxPods",
        "string",
        "",
        0,
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It \
         cannot be less that minReplicas.",
    ),
    Column::new(
        "Replicas",
        "string",
        "",
        0,
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the \
         autoscaler.",
    ),
    column::AGE,
];

const OLD: &str = "autoscaling/v1";
/// Where the first version keeps what it has no fields for.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_to(spec, "minReplicas", 1);
        if api_version == OLD {
            return;
        }
        if tree::list(spec, "metrics").is_empty() {
            tree::set(spec, "metrics", json!([cpu_metric(80)]));
        }
        if let Some(behavior) = tree::existing(spec, "behavior") {
            default_behavior(behavior);
        }
    }

    /// An emptied list of policies is an error, not a wish for the usual ones.
    fn defaults_once(&self) -> bool {
        true
    }

    fn to_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == OLD {
            from_first_version(object);
        }
    }

    fn from_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == OLD {
            to_first_version(object);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        const COUNTS: &[&str] = &["currentReplicas", "desiredReplicas"];
        Errors::of(|errors| number::fields_not_negative(errors, &Path::new("status"), &new["status"], COUNTS))
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let target = &spec["scaleTargetRef"];
        let min = spec.get("minReplicas").and_then(Value::as_i64).map_or("<unset>".to_owned(), |min| min.to_string());
        vec![
            workload::name(object),
            format!("{}/{}", tree::text(target, "kind"), tree::text(target, "name")).into(),
            metrics_text(spec, status).into(),
            min.into(),
            tree::int(spec, "maxReplicas").into(),
            tree::int(status, "currentReplicas").into(),
            column::age(object, now),
        ]
    }
}

fn cpu_metric(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn is_cpu_metric(metric: &Value) -> bool {
    tree::text(metric, "type") == "Resource"
        && tree::text(&metric["resource"], "name") == "cpu"
        && tree::has(&metric["resource"]["target"], "averageUtilization")
}

fn default_behavior(behavior: &mut Value) {
    let policy = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    if let Some(up) = tree::child(behavior, "scaleUp") {
        tree::default_to(up, "stabilizationWindowSeconds", 0);
        tree::default_to(up, "selectPolicy", "Max");
        tree::default_to(up, "policies", json!([policy("Pods", 4), policy("Percent", 100)]));
    }
    if let Some(down) = tree::child(behavior, "scaleDown") {
        tree::default_to(down, "selectPolicy", "Max");
        tree::default_to(down, "policies", json!([policy("Percent", 100)]));
    }
}

fn annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?;
    let text = tree::remove(annotations, key)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    if let Some(metadata) = tree::child(object, "metadata")
        && let Some(annotations) = tree::child(metadata, "annotations")
    {
        tree::set(annotations, key, value.to_string());
    }
}

fn from_first_version(object: &mut Value) {
    let mut metrics = match annotation(object, METRICS) {
        Some(Value::Array(metrics)) => metrics,
        _ => Vec::new(),
    };
    let behavior = annotation(object, BEHAVIOR);
    let conditions = annotation(object, CONDITIONS);
    if let Some(spec) = tree::existing(object, "spec") {
        if let Some(percent) = tree::remove(spec, "targetCPUUtilizationPercentage").and_then(|percent| percent.as_i64())
        {
            metrics.insert(0, cpu_metric(percent));
        }
        if !metrics.is_empty() {
            tree::set(spec, "metrics", metrics);
        }
        if let Some(behavior) = behavior {
            tree::set(spec, "behavior", behavior);
        }
    }
    if let Some(status) = tree::existing(object, "status") {
        if let Some(percent) =
            tree::remove(status, "currentCPUUtilizationPercentage").and_then(|percent| percent.as_i64())
        {
            let current =
                json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}});
            tree::set(status, "currentMetrics", json!([current]));
        }
        if let Some(conditions) = conditions {
            tree::set(status, "conditions", conditions);
        }
    }
}

fn to_first_version(object: &mut Value) {
    let (mut others, mut behavior) = (Vec::new(), None);
    if let Some(spec) = tree::existing(object, "spec") {
        let metrics = tree::remove(spec, "metrics");
        for metric in metrics.as_ref().and_then(Value::as_array).into_iter().flatten() {
            match is_cpu_metric(metric) && !tree::has(spec, "targetCPUUtilizationPercentage") {
                true => {
                    let percent = metric["resource"]["target"]["averageUtilization"].clone();
                    tree::set(spec, "targetCPUUtilizationPercentage", percent);
                }
                false => others.push(metric.clone()),
            }
        }
        behavior = tree::remove(spec, "behavior");
    }
    let mut conditions = None;
    if let Some(status) = tree::existing(object, "status") {
        let current = tree::remove(status, "currentMetrics");
        for metric in current.as_ref().and_then(Value::as_array).into_iter().flatten() {
            let percent = metric["resource"]["current"]["averageUtilization"].clone();
            if tree::text(&metric["resource"], "name") == "cpu" && !percent.is_null() {
                tree::set(status, "currentCPUUtilizationPercentage", percent);
            }
        }
        tree::default_to(status, "currentReplicas", 0);
        conditions = tree::remove(status, "conditions");
    }
    if !others.is_empty() {
        annotate(object, METRICS, &others.into());
    }
    for (key, value) in [(BEHAVIOR, behavior), (CONDITIONS, conditions)] {
        if let Some(value) = value.filter(|value| !tree::is_empty(value)) {
            annotate(object, key, &value);
        }
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value) {
    let min = spec.get("minReplicas").and_then(Value::as_i64);
    let max = tree::int(spec, "maxReplicas");
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.invalid(&path.child("minReplicas"), min, "must be greater than or equal to 1");
    }
    let at = path.child("maxReplicas");
    match max {
        0 => errors.required(&at, "must be set and greater than 0"),
        i64::MIN..0 => errors.invalid(&at, max, "must be greater than or equal to 1"),
        _ => {}
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(&at, max, "must be greater than or equal to `minReplicas`");
    }
    reference(errors, &path.child("scaleTargetRef"), &spec["scaleTargetRef"], true);
    for (i, metric) in tree::list(spec, "metrics").iter().enumerate() {
        validate_metric(errors, &path.child("metrics").index(i), metric);
    }
    for side in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][side];
        if !rules.is_null() {
            scaling_rules(errors, &path.child("behavior").child(side), rules);
        }
    }
}

fn reference(errors: &mut Errors, path: &Path, reference: &Value, grouped: bool) {
    let text = |key| tree::text(reference, key);
    for field in ["kind", "name"] {
        if errors.needs(&path.child(field), text(field), "") {
            errors.invalid_for(
                &path.child(field),
                text(field),
                pintle_types::names::path_segment_errors(text(field), false),
            );
        }
    }
    let known =
        text("apiVersion").split_once('/').is_some_and(|(group, version)| !group.is_empty() && !version.is_empty());
    if grouped && !known {
        errors.invalid(&path.child("apiVersion"), text("apiVersion"), "apiVersion must specify API group");
    }
}

const SOURCES: &[(&str, &str)] = &[
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

fn validate_metric(errors: &mut Errors, at: &Path, metric: &Value) {
    let kind = tree::text(metric, "type");
    errors.needs(&at.child("type"), kind, "must specify a metric source type");
    let Some((_, field)) = SOURCES.iter().find(|(known, _)| *known == kind) else {
        let known: Vec<&str> = SOURCES.iter().map(|(known, _)| *known).collect();
        // Upstream says so twice: of the type, and of the source that it would name.
        errors.unsupported(&at.child("type"), kind, &known);
        return errors.unsupported(&at.child("type"), kind, &known);
    };
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != field && tree::has(metric, other)) {
        let words = "must populate the given metric source only";
        errors.forbidden(&at.child(other), words);
    }
    let at = at.child(field);
    let source = &metric[*field];
    if source.is_null() {
        return errors.required(&at, "must populate information for the given metric source");
    }
    match kind {
        "Resource" | "ContainerResource" => {
            errors.needs(&at.child("name"), tree::text(source, "name"), "must specify a resource name");
            if kind == "ContainerResource" {
                errors.needs(&at.child("container"), tree::text(source, "container"), "must specify a container");
            }
        }
        _ => {
            let name = tree::text(&source["metric"], "name");
            let path = at.child("metric").child("name");
            if errors.needs(&path, name, "must specify a metric name") {
                errors.invalid_for(&path, name, pintle_types::names::path_segment_errors(name, false));
            }
        }
    }
    if kind == "Object" {
        reference(errors, &at.child("describedObject"), &source["describedObject"], false);
    }
    validate_target(errors, &at.child("target"), &source["target"], kind);
}

fn validate_target(errors: &mut Errors, at: &Path, target: &Value, kind: &str) {
    let word = tree::text(target, "type");
    errors.needs(&at.child("type"), word, "must specify a metric target type");
    if !["Utilization", "Value", "AverageValue"].contains(&word) {
        errors.invalid(&at.child("type"), word, "must be either Utilization, Value, or AverageValue");
    }
    let percent = target.get("averageUtilization").and_then(Value::as_i64);
    if let Some(percent) = percent.filter(|percent| *percent < 1) {
        errors.invalid(&at.child("averageUtilization"), percent, "must be greater than 0");
    }
    let positive = |key: &str| resource::quantity(&target[key]).is_some_and(|it| !it.is_negative() && !it.is_zero());
    let (value, average) = (tree::has(target, "value"), tree::has(target, "averageValue"));
    for field in ["value", "averageValue"] {
        if tree::has(target, field) && !positive(field) {
            errors.invalid(&at.child(field), resource::shown(&target[field]), "must be positive");
        }
    }
    match kind {
        "Resource" | "ContainerResource" => match (percent.is_some(), average) {
            (false, false) => {
                let words = "must set either a target raw value or a target utilization";
                errors.required(&at.child("averageUtilization"), words);
            }
            (true, true) => {
                errors.forbidden(
                    &at.child("averageValue"),
                    "may not set both a target raw value and a target utilization",
                );
            }
            _ => {}
        },
        "Pods" if !positive("averageValue") => {
            errors.required(&at.child("averageValue"), "must specify a positive target averageValue");
        }
        "External" if !value && !average => {
            let words = "must set either a target value for metric or a per-pod target";
            errors.required(&at.child("averageValue"), words);
        }
        "External" if value && average => {
            errors.forbidden(&at.child("value"), "may not set both a target value for metric and a per-pod target");
        }
        "Object" if !value && !average => {
            errors.required(&at.child("averageValue"), "must set either a target value or averageValue");
        }
        _ => {}
    }
}

fn scaling_rules(errors: &mut Errors, path: &Path, rules: &Value) {
    if let Some(seconds) = rules.get("stabilizationWindowSeconds").and_then(Value::as_i64) {
        let at = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.invalid(&at, seconds, "must be greater than or equal to zero");
        }
        if seconds > 3600 {
            errors.invalid(&at, seconds, "must be less than or equal to 3600");
        }
    }
    if let Some(policy) = rules.get("selectPolicy").and_then(Value::as_str) {
        errors.one_of(&path.child("selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let policies = tree::list(rules, "policies");
    if policies.is_empty() {
        errors.required(&path.child("policies"), "must specify at least one Policy");
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = path.child("policies").index(i);
        errors.one_of(&at.child("type"), tree::text(policy, "type"), &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let number = tree::int(policy, field);
            if number <= 0 {
                errors.invalid(&at.child(field), number, "must be greater than zero");
            }
            if field == "periodSeconds" && number > 1800 {
                errors.invalid(&at.child(field), number, "must be less than or equal to 1800");
            }
        }
    }
    if tree::has(rules, "tolerance") {
        resource::not_negative(errors, &path.child("tolerance"), &rules["tolerance"]);
    }
}

/// What is wanted of each metric and what is seen.
fn metrics_text(spec: &Value, status: &Value) -> String {
    const SHOWN: usize = 2;
    let metrics = tree::list(spec, "metrics");
    let mut texts: Vec<String> = metrics
        .iter()
        .enumerate()
        .map(|(i, metric)| {
            let Some((_, field)) = SOURCES.iter().find(|(kind, _)| *kind == tree::text(metric, "type")) else {
                return "<unknown type>".into();
            };
            let (target, current) = (
                &metric[*field]["target"],
                &tree::list(status, "currentMetrics").get(i).unwrap_or(&Value::Null)[*field]["current"],
            );
            let prefix = match *field {
                "resource" | "containerResource" => format!("{}: ", tree::text(&metric[*field], "name")),
                _ => String::new(),
            };
            format!("{prefix}{}", wanted_and_seen(target, current))
        })
        .collect();
    if texts.is_empty() {
        return "<none>".into();
    }
    let more = texts.len().saturating_sub(SHOWN);
    texts.truncate(SHOWN);
    let shown = texts.join(", ");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

fn wanted_and_seen(target: &Value, current: &Value) -> String {
    let unknown = || "<unknown>".to_owned();
    if let Some(percent) = target.get("averageUtilization").and_then(Value::as_i64) {
        let seen =
            current.get("averageUtilization").and_then(Value::as_i64).map_or_else(unknown, |it| format!("{it}%"));
        return format!("{seen}/{percent}%");
    }
    let (field, suffix) = if tree::has(target, "averageValue") { ("averageValue", " (avg)") } else { ("value", "") };
    let seen = current.get(field).filter(|it| !it.is_null()).map_or_else(unknown, resource::shown);
    let suffix = if tree::text(target, "type") == "AverageValue" && tree::has(target, "value") { suffix } else { "" };
    format!("{seen}/{}{suffix}", resource::shown(&target[field]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_convert() {
        let old = json!({"spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}, "metadata": {}});
        let mut object = old.clone();
        HorizontalPodAutoscaler.to_storage(OLD, &mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "metrics": [cpu_metric(50)]}));
        HorizontalPodAutoscaler.from_storage(OLD, &mut object);
        assert_eq!(object, old);
    }

    #[test]
    fn what_the_first_version_lacks_is_kept_aside() {
        let metric = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "1"}}});
        let stored = json!({"metadata": {"annotations": {}}, "spec": {"maxReplicas": 3, "metrics": [metric]}});
        let mut object = stored.clone();
        HorizontalPodAutoscaler.from_storage(OLD, &mut object);
        assert!(object["metadata"]["annotations"].get(METRICS).is_some());
        HorizontalPodAutoscaler.to_storage(OLD, &mut object);
        assert_eq!(object, stored);
    }

    #[test]
    fn bounds() {
        let object = json!({"spec": {
            "minReplicas": 5, "maxReplicas": 2, "metrics": [cpu_metric(0)],
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        }});
        let found: Vec<_> = HorizontalPodAutoscaler.validate(&object).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`",
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0",
            ]
        );
    }

    #[test]
    fn emptied_policies_are_an_error() {
        let rules = json!({"selectPolicy": "Min"});
        let mut object = json!({"spec": {
            "maxReplicas": 2, "behavior": {"scaleUp": rules, "scaleDown": rules},
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        }});
        object["spec"]["behavior"]["scaleDown"]["policies"] = json!([]);
        HorizontalPodAutoscaler.default("autoscaling/v2", &mut object);
        assert_eq!(object["spec"]["behavior"]["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
        let found: Vec<_> = HorizontalPodAutoscaler.validate(&object).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["spec.behavior.scaleDown.policies: Required value: must specify at least one Policy"]);
        assert!(HorizontalPodAutoscaler.defaults_once());
    }
}
