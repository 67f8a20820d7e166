//! The first version of autoscalers: what it has no fields for travels in annotations, in that version's own forms.

use crate::{check::selector, tree};
use serde_json::{Map, Value, json};
use std::fmt::Write;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// How a field of a metric is written in the first version.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// A text, empty when it is absent.
    Text,
    /// A quantity, zero when it is absent.
    Amount,
    /// As it is, or not at all.
    Optional,
    Selector,
    /// The object that a metric describes.
    Reference,
}

/// A field's name in the first version, its place in the second, and its form.
type Field = (&'static str, &'static str, Form);

/// The source of a metric, with its fields when it is wished for and when it is seen.
struct Source {
    kind: &'static str,
    field: &'static str,
    wished: &'static [Field],
    seen: &'static [Field],
}

/// In the order in which they are written.
const SOURCES: &[Source] = &[
    Source {
        kind: "Object",
        field: "object",
        wished: &[
            ("target", "describedObject", Form::Reference),
            ("metricName", "metric.name", Form::Text),
            ("targetValue", "target.value", Form::Amount),
            ("selector", "metric.selector", Form::Selector),
            ("averageValue", "target.averageValue", Form::Optional),
        ],
        seen: &[
            ("target", "describedObject", Form::Reference),
            ("metricName", "metric.name", Form::Text),
            ("currentValue", "current.value", Form::Amount),
            ("selector", "metric.selector", Form::Selector),
            ("averageValue", "current.averageValue", Form::Optional),
        ],
    },
    Source {
        kind: "Pods",
        field: "pods",
        wished: &[
            ("metricName", "metric.name", Form::Text),
            ("targetAverageValue", "target.averageValue", Form::Amount),
            ("selector", "metric.selector", Form::Selector),
        ],
        seen: &[
            ("metricName", "metric.name", Form::Text),
            ("currentAverageValue", "current.averageValue", Form::Amount),
            ("selector", "metric.selector", Form::Selector),
        ],
    },
    Source {
        kind: "Resource",
        field: "resource",
        wished: &[
            ("name", "name", Form::Text),
            ("targetAverageUtilization", "target.averageUtilization", Form::Optional),
            ("targetAverageValue", "target.averageValue", Form::Optional),
        ],
        seen: &[
            ("name", "name", Form::Text),
            ("currentAverageUtilization", "current.averageUtilization", Form::Optional),
            ("currentAverageValue", "current.averageValue", Form::Amount),
        ],
    },
    Source {
        kind: "ContainerResource",
        field: "containerResource",
        wished: &[
            ("name", "name", Form::Text),
            ("targetAverageUtilization", "target.averageUtilization", Form::Optional),
            ("targetAverageValue", "target.averageValue", Form::Optional),
            ("container", "container", Form::Text),
        ],
        seen: &[
            ("name", "name", Form::Text),
            ("currentAverageUtilization", "current.averageUtilization", Form::Optional),
            ("currentAverageValue", "current.averageValue", Form::Amount),
            ("container", "container", Form::Text),
        ],
    },
    Source {
        kind: "External",
        field: "external",
        wished: &[
            ("metricName", "metric.name", Form::Text),
            ("metricSelector", "metric.selector", Form::Selector),
            ("targetValue", "target.value", Form::Optional),
            ("targetAverageValue", "target.averageValue", Form::Optional),
        ],
        seen: &[
            ("metricName", "metric.name", Form::Text),
            ("metricSelector", "metric.selector", Form::Selector),
            ("currentValue", "current.value", Form::Amount),
            ("currentAverageValue", "current.averageValue", Form::Optional),
        ],
    },
];

pub(super) fn cpu_metric(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn is_cpu(metric: &Value) -> bool {
    tree::text(metric, "type") == "Resource" && tree::text(&metric["resource"], "name") == "cpu"
}

fn is_cpu_share(metric: &Value) -> bool {
    is_cpu(metric) && tree::has(&metric["resource"]["target"], "averageUtilization")
}

/// Turns an object of the first version into the second's form. Annotations that can't be read count as absent.
pub(super) fn to_second(object: &mut Value) {
    let mut metrics = taken(object, METRICS).and_then(|all| from_first_form(&all, true)).unwrap_or_default();
    let current = taken(object, CURRENT_METRICS).and_then(|all| from_first_form(&all, false));
    let behavior = taken(object, BEHAVIOR).map(|own| lower_names(&own)).filter(|own| !tree::is_empty(own));
    let behavior = behavior.and_then(|own| fitting(json!({"spec": {"behavior": own}}), "spec", "behavior"));
    let conditions = taken(object, CONDITIONS);
    let conditions = conditions.and_then(|own| fitting(json!({"status": {"conditions": own}}), "status", "conditions"));
    drop_empty_annotations(object);
    let Some(spec) = tree::child(object, "spec") else { return };
    let percent = tree::remove(spec, "targetCPUUtilizationPercentage").and_then(|percent| percent.as_i64());
    metrics.extend(percent.map(cpu_metric));
    if metrics.is_empty() {
        metrics.push(cpu_metric(super::USUAL_CPU_PERCENT));
    }
    tree::set(spec, "metrics", metrics);
    if let Some(behavior) = behavior {
        tree::set(spec, "behavior", behavior);
    }
    if current.is_none() && conditions.is_none() && !tree::has(object, "status") {
        return;
    }
    let Some(status) = tree::child(object, "status") else { return };
    let percent = tree::remove(status, "currentCPUUtilizationPercentage").and_then(|percent| percent.as_i64());
    let only_percent = percent.map(|percent| {
        vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}})]
    });
    if let Some(current) = current.or(only_percent) {
        tree::set(status, "currentMetrics", current);
    }
    if let Some(conditions) = conditions {
        tree::set(status, "conditions", conditions);
    }
}

/// Turns an object of the second version's form into the first's.
pub(super) fn from_second(object: &mut Value) {
    for key in [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS] {
        taken(object, key);
    }
    let mut kept = Vec::new();
    if let Some(spec) = tree::existing(object, "spec") {
        let metrics = tree::remove(spec, "metrics").unwrap_or_default();
        let metrics = metrics.as_array().map_or(&[][..], Vec::as_slice);
        if let Some(first) = metrics.iter().find(|metric| is_cpu(metric)).filter(|metric| is_cpu_share(metric)) {
            let percent = first["resource"]["target"]["averageUtilization"].clone();
            tree::set(spec, "targetCPUUtilizationPercentage", percent);
        }
        let others: Vec<&Value> = metrics.iter().filter(|metric| !is_cpu_share(metric)).collect();
        if !others.is_empty() {
            kept.push((METRICS, first_form(&others, true)));
        }
        if let Some(behavior) = tree::remove(spec, "behavior").filter(|behavior| !behavior.is_null()) {
            kept.push((BEHAVIOR, behavior_text(&behavior)));
        }
    }
    if let Some(status) = tree::existing(object, "status") {
        let current = tree::remove(status, "currentMetrics").unwrap_or_default();
        let current: Vec<&Value> = current.as_array().into_iter().flatten().collect();
        for metric in current.iter().filter(|metric| is_cpu(metric)) {
            let percent = &metric["resource"]["current"]["averageUtilization"];
            if !percent.is_null() {
                tree::set(status, "currentCPUUtilizationPercentage", percent.clone());
            }
        }
        tree::default_to(status, "currentReplicas", 0);
        if !current.is_empty() {
            kept.push((CURRENT_METRICS, first_form(&current, false)));
        }
        let conditions = tree::remove(status, "conditions").unwrap_or_default();
        if !tree::is_empty(&conditions) {
            kept.push((CONDITIONS, conditions_text(&conditions)));
        }
    }
    drop_empty_annotations(object);
    kept.into_iter().for_each(|(key, text)| annotate(object, key, &text));
}

/// What an annotation says, which is taken away.
fn taken(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?;
    let text = tree::remove(annotations, key)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn drop_empty_annotations(object: &mut Value) {
    if let Some(metadata) = tree::existing(object, "metadata")
        && metadata.get("annotations").is_some_and(tree::is_empty)
    {
        tree::remove(metadata, "annotations");
    }
}

/// The characters that Go's encoder escapes are escaped here, too.
fn annotate(object: &mut Value, key: &str, text: &str) {
    let text = text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e");
    if let Some(metadata) = tree::child(object, "metadata")
        && let Some(annotations) = tree::child(metadata, "annotations")
    {
        tree::set(annotations, key, text);
    }
}

/// Metrics in the first version's form, as text with its fields in their order.
fn first_form(metrics: &[&Value], wished: bool) -> String {
    let texts: Vec<String> = metrics.iter().map(|metric| metric_text(metric, wished)).collect();
    format!("[{}]", texts.join(","))
}

fn metric_text(metric: &Value, wished: bool) -> String {
    let mut text = format!("{{\"type\":{}", Value::from(tree::text(metric, "type")));
    for source in SOURCES.iter().filter(|source| tree::has(metric, source.field)) {
        let fields = if wished { source.wished } else { source.seen };
        let own = &metric[source.field];
        let parts: Vec<String> = fields.iter().filter_map(|field| field_text(own, field)).collect();
        // Writing to a text does not fail.
        let _ = write!(text, ",\"{}\":{{{}}}", source.field, parts.join(","));
    }
    text + "}"
}

fn field_text(source: &Value, (name, place, form): &Field) -> Option<String> {
    let value = tree::at(source, place);
    let shown = match form {
        Form::Text => Value::from(value.as_str().unwrap_or("")).to_string(),
        Form::Amount if value.is_null() => "\"0\"".to_owned(),
        Form::Reference => reference_text(value),
        Form::Optional | Form::Selector if value.is_null() => return None,
        Form::Selector => selector::shown(value),
        Form::Amount | Form::Optional => value.to_string(),
    };
    Some(format!("\"{name}\":{shown}"))
}

fn reference_text(reference: &Value) -> String {
    let text = |key: &str| Value::from(tree::text(reference, key));
    let version = match tree::text(reference, "apiVersion") {
        "" => String::new(),
        _ => format!(",\"apiVersion\":{}", text("apiVersion")),
    };
    format!("{{\"kind\":{},\"name\":{}{version}}}", text("kind"), text("name"))
}

fn conditions_text(conditions: &Value) -> String {
    const FIELDS: [&str; 6] = ["type", "status", "lastTransitionTime", "reason", "message", "observedGeneration"];
    let texts = conditions.as_array().into_iter().flatten().map(|condition| {
        let field = |name: &&str| match condition.get(*name) {
            Some(value) => Some(format!("\"{name}\":{value}")),
            None if *name == "lastTransitionTime" => Some(format!("\"{name}\":null")),
            None => None,
        };
        format!("{{{}}}", FIELDS.iter().filter_map(field).collect::<Vec<_>>().join(","))
    });
    format!("[{}]", texts.collect::<Vec<_>>().join(","))
}

/// Upstream writes the names of its Go fields here.
fn behavior_text(behavior: &Value) -> String {
    let shown = |value: &Value, key: &str| value.get(key).unwrap_or(&Value::Null).to_string();
    let rules = |side: &str| {
        let rules = &behavior[side];
        if rules.is_null() {
            return "null".to_owned();
        }
        let policy = |policy: &Value| {
            let (kind, value) = (Value::from(tree::text(policy, "type")), tree::int(policy, "value"));
            let period = tree::int(policy, "periodSeconds");
            format!("{{\"Type\":{kind},\"Value\":{value},\"PeriodSeconds\":{period}}}")
        };
        let policies = match rules.get("policies").and_then(Value::as_array) {
            None => "null".to_owned(),
            Some(all) => format!("[{}]", all.iter().map(policy).collect::<Vec<_>>().join(",")),
        };
        format!(
            "{{\"StabilizationWindowSeconds\":{},\"SelectPolicy\":{},\"Policies\":{policies},\"Tolerance\":{}}}",
            shown(rules, "stabilizationWindowSeconds"),
            shown(rules, "selectPolicy"),
            shown(rules, "tolerance")
        )
    };
    format!("{{\"ScaleUp\":{},\"ScaleDown\":{}}}", rules("scaleUp"), rules("scaleDown"))
}

/// Names of Go fields as those of JSON; what is null is left out.
fn lower_names(value: &Value) -> Value {
    let lower = |name: &str| {
        let mut chars = name.chars();
        chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect::<String>()
    };
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (lower(name), lower_names(value))).collect())
        }
        Value::Array(items) => items.iter().map(lower_names).collect(),
        other => other.clone(),
    }
}

/// Metrics of an annotation in the second version's form; nothing if they can't be that.
fn from_first_form(metrics: &Value, wished: bool) -> Option<Vec<Value>> {
    let (owner, field) = if wished { ("spec", "metrics") } else { ("status", "currentMetrics") };
    let read = metrics.as_array()?.iter().map(|metric| second_form(metric, wished));
    let all: Vec<Value> = read.collect::<Option<_>>()?;
    match fitting(json!({owner: {field: all}}), owner, field)? {
        Value::Array(all) => Some(all),
        _ => None,
    }
}

fn second_form(metric: &Value, wished: bool) -> Option<Value> {
    metric.as_object()?;
    let mut second = Map::new();
    second.insert("type".to_owned(), metric.get("type").cloned().unwrap_or_else(|| "".into()));
    for source in SOURCES.iter().filter(|source| tree::has(metric, source.field)) {
        let own = metric.get(source.field)?.as_object()?;
        let mut made = json!({});
        for (name, place, form) in if wished { source.wished } else { source.seen } {
            let value = match (own.get(*name).filter(|value| !value.is_null()), form) {
                (Some(value), _) => value.clone(),
                (None, Form::Amount) => "0".into(),
                (None, _) => continue,
            };
            put(&mut made, place, value)?;
        }
        if wished {
            complete_target(&mut made, source.kind)?;
        }
        second.insert(source.field.to_owned(), made);
    }
    Some(Value::Object(second))
}

fn put(object: &mut Value, place: &str, value: Value) -> Option<()> {
    let slot = match place.split_once('.') {
        Some((owner, field)) => (tree::child(object, owner)?, field),
        None => (object, place),
    };
    tree::set(slot.0, slot.1, value);
    Some(())
}

/// The type of a target follows from what it has. An object's metric has a value of zero where an average is meant.
fn complete_target(source: &mut Value, kind: &str) -> Option<()> {
    let target = tree::child(source, "target")?;
    let has = |field: &str| tree::has(target, field);
    let word = match kind {
        "Object" if has("averageValue") => "AverageValue",
        "Object" => "Value",
        "External" if has("value") => "Value",
        "Resource" | "ContainerResource" if has("averageUtilization") => "Utilization",
        _ => "AverageValue",
    };
    if kind == "Object" && word == "AverageValue" && target["value"] == "0" {
        tree::remove(target, "value");
    }
    tree::set(target, "type", word);
    Some(())
}

/// A part of an autoscaler, if it is of the right types; without fields that its kind lacks.
fn fitting(mut object: Value, owner: &str, field: &str) -> Option<Value> {
    let ty = pintle_schema::Schema::builtin().kind("autoscaling", "v2", "HorizontalPodAutoscaler")?;
    pintle_schema::check::types(ty, &object).ok()?;
    pintle_schema::check::unknown_fields(ty, &mut object);
    tree::remove(object.get_mut(owner)?, field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(stored: &Value) -> (Value, Value) {
        let mut first = stored.clone();
        from_second(&mut first);
        let mut second = first.clone();
        to_second(&mut second);
        (first, second)
    }

    #[test]
    fn the_share_of_cpu_has_a_field() {
        let stored = json!({"metadata": {}, "spec": {"maxReplicas": 3, "metrics": [cpu_metric(50)]}});
        let (first, second) = round(&stored);
        assert_eq!(first["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(second, stored);
    }

    #[test]
    fn without_metrics_the_usual_share_of_cpu_is_meant() {
        let mut object = json!({"spec": {"maxReplicas": 3}});
        to_second(&mut object);
        assert_eq!(object["spec"]["metrics"], json!([cpu_metric(80)]));
    }

    #[test]
    fn other_metrics_are_kept_in_the_old_form() {
        let stored = json!({"metadata": {}, "spec": {"maxReplicas": 3, "metrics": [
            {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                "target": {"type": "AverageValue", "averageValue": "1k"}}},
            {"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "i", "apiVersion": "networking.k8s.io/v1"},
                "metric": {"name": "r"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
            {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "30"}}},
            {"type": "ContainerResource", "containerResource": {"name": "memory", "container": "c",
                "target": {"type": "Utilization", "averageUtilization": 60}}},
        ]}});
        let (first, second) = round(&stored);
        assert_eq!(
            first["metadata"]["annotations"][METRICS],
            "[{\"type\":\"Pods\",\"pods\":{\"metricName\":\"m\",\"targetAverageValue\":\"1k\",\"selector\":{\"matchLabels\":{\"a\":\"b\"}}}},\
             {\"type\":\"Object\",\"object\":{\"target\":{\"kind\":\"Ingress\",\"name\":\"i\",\"apiVersion\":\"networking.k8s.io/v1\"},\
             \"metricName\":\"r\",\"targetValue\":\"0\",\"averageValue\":\"5\"}},\
             {\"type\":\"External\",\"external\":{\"metricName\":\"q\",\"targetValue\":\"30\"}},\
             {\"type\":\"ContainerResource\",\"containerResource\":{\"name\":\"memory\",\"targetAverageUtilization\":60,\"container\":\"c\"}}]"
        );
        assert_eq!(second, stored);
    }

    #[test]
    fn behavior_and_status_come_back() {
        let stored = json!({
            "metadata": {"annotations": {"a": "b"}},
            "spec": {"maxReplicas": 3, "metrics": [cpu_metric(50)], "behavior": {"scaleDown": {
                "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}],
            }}},
            "status": {"currentReplicas": 1, "desiredReplicas": 1,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 12, "averageValue": "3m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "message": "a <b>"}]},
        });
        let (first, second) = round(&stored);
        let annotations = &first["metadata"]["annotations"];
        assert_eq!(
            annotations[BEHAVIOR],
            "{\"ScaleUp\":null,\"ScaleDown\":{\"StabilizationWindowSeconds\":null,\"SelectPolicy\":\"Max\",\
             \"Policies\":[{\"Type\":\"Percent\",\"Value\":10,\"PeriodSeconds\":60}],\"Tolerance\":null}}"
        );
        assert_eq!(
            annotations[CURRENT_METRICS],
            "[{\"type\":\"Resource\",\"resource\":{\"name\":\"cpu\",\"currentAverageUtilization\":12,\"currentAverageValue\":\"3m\"}}]"
        );
        assert_eq!(
            annotations[CONDITIONS],
            "[{\"type\":\"AbleToScale\",\"status\":\"True\",\"lastTransitionTime\":\"2026-01-01T00:00:00Z\",\
             \"message\":\"a \\u003cb\\u003e\"}]"
        );
        assert_eq!(first["status"]["currentCPUUtilizationPercentage"], 12);
        assert_eq!(second, stored);
    }

    #[test]
    fn annotations_that_make_no_sense_count_as_absent() {
        for text in
            ["x", "{}", "[5]", "[{\"type\":\"Pods\",\"pods\":{\"metricName\":5}}]", "[{\"type\":\"Pods\",\"pods\":[]}]"]
        {
            let mut object =
                json!({"metadata": {"annotations": {METRICS: text, BEHAVIOR: text}}, "spec": {"maxReplicas": 1}});
            to_second(&mut object);
            assert_eq!(object["spec"], json!({"maxReplicas": 1, "metrics": [cpu_metric(80)]}), "{text}");
            assert!(object["metadata"].get("annotations").is_none(), "{text}");
        }
    }
}
