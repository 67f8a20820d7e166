//! Horizontal pod autoscalers, in the forms of both versions.

mod first;

use super::workload;
use crate::{
    check::{Errors, number, resource},
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
/// The share of the CPU that is asked for that pods shall use where nothing else is said.
const USUAL_CPU_PERCENT: i64 = 80;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_to(spec, "minReplicas", 1);
        if api_version == OLD {
            return;
        }
        if tree::list(spec, "metrics").is_empty() {
            tree::set(spec, "metrics", json!([first::cpu_metric(USUAL_CPU_PERCENT)]));
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
            first::to_second(object);
        }
    }

    fn from_storage(&self, api_version: &str, object: &mut Value) {
        if api_version == OLD {
            first::from_second(object);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &object["spec"], &Allowed::default()))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let allowed = Allowed::by(&old["spec"]);
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &new["spec"], &allowed))
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

/// What an update may keep because it was there before the rules against it.
#[derive(Default)]
struct Allowed {
    no_replicas: bool,
    any_version_of_target: bool,
    any_version_of_metrics: bool,
}

impl Allowed {
    fn by(old: &Value) -> Self {
        let described = tree::list(old, "metrics").iter().map(|metric| &metric["object"]["describedObject"]);
        Self {
            no_replicas: old["minReplicas"] == 0,
            any_version_of_target: wrong_version(&old["scaleTargetRef"], needs_group(&old["scaleTargetRef"])).is_some(),
            any_version_of_metrics: described.into_iter().any(|one| wrong_version(one, false).is_some()),
        }
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value, allowed: &Allowed) {
    let min = spec.get("minReplicas").and_then(Value::as_i64);
    let max = tree::int(spec, "maxReplicas");
    let least = i64::from(!allowed.no_replicas);
    if let Some(min) = min.filter(|min| *min < least) {
        errors.invalid(&path.child("minReplicas"), min, &format!("must be greater than or equal to {least}"));
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
    let target = &spec["scaleTargetRef"];
    let grouped = needs_group(target);
    reference(errors, &path.child("scaleTargetRef"), target, grouped, allowed.any_version_of_target);
    validate_metrics(errors, &path.child("metrics"), spec, allowed);
    for side in ["scaleUp", "scaleDown"] {
        let rules = &spec["behavior"][side];
        if !rules.is_null() {
            scaling_rules(errors, &path.child("behavior").child(side), rules);
        }
    }
}

fn validate_metrics(errors: &mut Errors, path: &Path, spec: &Value, allowed: &Allowed) {
    let metrics = tree::list(spec, "metrics");
    for (i, metric) in metrics.iter().enumerate() {
        validate_metric(errors, &path.index(i), metric, allowed.any_version_of_metrics);
    }
    let wakes = |metric: &Value| matches!(tree::text(metric, "type"), "Object" | "External");
    if spec["minReplicas"] == 0 && !metrics.iter().any(wakes) {
        let words = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(path, words);
    }
}

/// Of what is scaled only replication controllers are in the core group.
fn needs_group(target: &Value) -> bool {
    tree::text(target, "kind") != "ReplicationController"
}

/// What is wrong with the version in a reference.
fn wrong_version(reference: &Value, grouped: bool) -> Option<String> {
    let text = tree::text(reference, "apiVersion");
    match text.matches('/').count() {
        0 | 1 if !grouped => None,
        0 => Some("apiVersion must specify API group".to_owned()),
        1 => text.starts_with('/').then(|| "apiVersion must specify API group".to_owned()),
        _ => Some(format!("unexpected GroupVersion string: {text}")),
    }
}

fn reference(errors: &mut Errors, path: &Path, reference: &Value, grouped: bool, any_version: bool) {
    let text = |key| tree::text(reference, key);
    for field in ["kind", "name"] {
        if errors.needs(&path.child(field), text(field), "") {
            errors.invalid_for(&path.child(field), text(field), names::path_segment_errors(text(field), false));
        }
    }
    if let Some(why) = wrong_version(reference, grouped).filter(|_| !any_version) {
        errors.invalid(&path.child("apiVersion"), text("apiVersion"), &why);
    }
}

const SOURCES: &[(&str, &str)] = &[
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// Upstream looks at the first source that is there in this order, whichever the type is.
const LOOKED_AT: &[&str] = &["object", "external", "pods", "resource", "containerResource"];

fn validate_metric(errors: &mut Errors, at: &Path, metric: &Value, any_version: bool) {
    let kind = tree::text(metric, "type");
    errors.needs(&at.child("type"), kind, "must specify a metric source type");
    let known: Vec<&str> = SOURCES.iter().map(|(known, _)| *known).collect();
    errors.one_of(&at.child("type"), kind, &known);
    let present: Vec<&str> = LOOKED_AT.iter().copied().filter(|field| tree::has(metric, field)).collect();
    if let Some(first) = present.first() {
        validate_source(errors, &at.child(first), &metric[*first], first, any_version);
    }
    let own = SOURCES.iter().find(|(known, _)| *known == kind).map(|(_, field)| *field);
    match own {
        // Upstream says so twice: of the type, and of the source that it would name.
        None => errors.unsupported(&at.child("type"), kind, &known),
        Some(field) if !present.contains(&field) => {
            errors.required(&at.child(field), "must populate information for the given metric source");
        }
        Some(_) => {}
    }
    if present.len() > 1 {
        for other in present.iter().filter(|field| Some(**field) != own) {
            errors.forbidden(&at.child(other), "must populate the given metric source only");
        }
    }
}

fn validate_source(errors: &mut Errors, at: &Path, source: &Value, field: &str, any_version: bool) {
    if field == "object" {
        reference(errors, &at.child("describedObject"), &source["describedObject"], false, any_version);
    }
    if matches!(field, "resource" | "containerResource") {
        let name = tree::text(source, "name");
        if errors.needs(&at.child("name"), name, "must specify a resource name") && field == "containerResource" {
            resource::container_name(errors, &at.child("name"), name);
        }
    } else {
        let (name, path) = (tree::text(&source["metric"], "name"), at.child("metric").child("name"));
        if errors.needs(&path, name, "must specify a metric name") {
            errors.invalid_for(&path, name, names::path_segment_errors(name, false));
        }
    }
    if field == "containerResource" {
        let (container, path) = (tree::text(source, "container"), at.child("container"));
        if errors.needs(&path, container, "must specify a container") {
            errors.invalid_for(&path, container, names::dns1123_label_errors(container));
        }
    }
    validate_target(errors, &at.child("target"), &source["target"], field);
}

fn validate_target(errors: &mut Errors, at: &Path, target: &Value, field: &str) {
    let word = tree::text(target, "type");
    errors.needs(&at.child("type"), word, "must specify a metric target type");
    if !["Utilization", "Value", "AverageValue"].contains(&word) {
        errors.invalid(&at.child("type"), word, "must be either Utilization, Value, or AverageValue");
    }
    let positive = |key: &str| resource::quantity(&target[key]).is_some_and(|it| !it.is_negative() && !it.is_zero());
    let (value, average) = (tree::has(target, "value"), tree::has(target, "averageValue"));
    for field in ["value", "averageValue"] {
        if tree::has(target, field) && !positive(field) {
            errors.invalid(&at.child(field), resource::shown(&target[field]), "must be positive");
        }
    }
    let percent = target.get("averageUtilization").and_then(Value::as_i64);
    if let Some(percent) = percent.filter(|percent| *percent < 1) {
        errors.invalid(&at.child("averageUtilization"), percent, "must be greater than 0");
    }
    let either = "may not set both a target raw value and a target utilization";
    match (field, value, average, percent.is_some()) {
        ("resource" | "containerResource", _, false, false) => {
            let words = "must set either a target raw value or a target utilization";
            errors.required(&at.child("averageUtilization"), words);
        }
        ("resource" | "containerResource", _, true, true) => errors.forbidden(&at.child("averageValue"), either),
        ("pods", _, false, _) => {
            errors.required(&at.child("averageValue"), "must specify a positive target averageValue");
        }
        ("external", false, false, _) => {
            let words = "must set either a target value for metric or a per-pod target";
            errors.required(&at.child("averageValue"), words);
        }
        ("external", true, true, _) => {
            errors.forbidden(&at.child("value"), "may not set both a target value for metric and a per-pod target");
        }
        ("object", false, false, _) => {
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
    fn bounds() {
        let object = json!({"spec": {
            "minReplicas": 5, "maxReplicas": 2, "metrics": [first::cpu_metric(0)],
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
