//! Limit ranges and resource quotas.

use super::workload;
use crate::{
    check::{Errors, Seen, name, resource},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    quantity::Quantity,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub struct LimitRange;

const RATIO: &str = "maxLimitRequestRatio";
const SIDES: &[&str] = &["max", "min", "default", "defaultRequest", RATIO];

impl Strategy for LimitRange {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::existing(object, "spec") else { return };
        for item in tree::items_mut(spec, "limits").filter(|item| tree::text(item, "type") == "Container") {
            fill(item, "default", "max");
            fill(item, "defaultRequest", "default");
            fill(item, "defaultRequest", "min");
        }
    }

    /// A limit range without a name is named after its UID.
    fn prepare_create(&self, object: &mut Value) {
        let uid = object["metadata"]["uid"].clone();
        if uid.is_string()
            && let Some(metadata) = tree::child(object, "metadata")
        {
            tree::default_empty(metadata, "name", uid);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let mut seen = Seen::default();
            for (i, item) in tree::list(&object["spec"], "limits").iter().enumerate() {
                validate_item(errors, &Path::new("spec.limits").index(i), item, &mut seen);
            }
        })
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// Names that one side lacks are taken from another.
fn fill(item: &mut Value, side: &str, from: &str) {
    let Some(amounts) = item.get(from).and_then(Value::as_object).cloned().filter(|map| !map.is_empty()) else {
        return;
    };
    if let Some(own) = tree::child(item, side) {
        amounts.into_iter().for_each(|(name, amount)| tree::default_to(own, &name, amount));
    }
}

fn validate_item(errors: &mut Errors, at: &Path, item: &Value, seen: &mut Seen) {
    let kind = tree::text(item, "type");
    let wrong = name::qualified(kind);
    if !wrong.is_empty() {
        errors.invalid_for(&at.child("type"), kind, wrong);
    } else if !kind.contains('/') && !["Pod", "Container", "PersistentVolumeClaim"].contains(&kind) {
        errors.invalid(&at.child("type"), kind, "must be a standard limit type or fully qualified");
    }
    if !seen.first(kind) {
        errors.duplicate(&at.child("type"), kind);
    }
    // Pods have no defaults, so theirs are not compared either.
    let mut compared = Limits::default();
    for side in SIDES.iter().filter(|side| **side != RATIO) {
        if kind == "Pod" && side.starts_with("default") {
            if !tree::is_empty(&item[*side]) {
                errors.forbidden(&at.child(side), "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        resource_names(errors, &at.child(side), kind, item, side);
        compared.read(item, side);
    }
    if kind == "PersistentVolumeClaim" && item["min"].get("storage").is_none() && item["max"].get("storage").is_none() {
        let words = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&at.child("limits"), words);
    }
    resource_names(errors, &at.child(RATIO), kind, item, RATIO);
    compared.read(item, RATIO);
    compared.0.iter().for_each(|(resource, amounts)| compare(errors, at, resource, amounts));
}

/// Amounts by resource and by side.
#[derive(Default)]
struct Limits<'a>(BTreeMap<&'a str, BTreeMap<&'static str, Quantity>>);

impl<'a> Limits<'a> {
    fn read(&mut self, item: &'a Value, side: &'static str) {
        for (resource, amount) in tree::entries(item, side) {
            if let Some(amount) = resource::quantity(amount) {
                self.0.entry(resource).or_default().insert(side, amount);
            }
        }
    }
}

/// Pods and containers have what containers can have; other types may name anything that is a resource.
fn resource_names(errors: &mut Errors, at: &Path, kind: &str, item: &Value, side: &str) {
    for (resource, _) in tree::entries(item, side) {
        match kind {
            "Pod" | "Container" => resource::container_name(errors, &at.key(resource), resource),
            _ => resource::standard_name(errors, &at.key(resource), resource),
        }
    }
}

fn compare(errors: &mut Errors, at: &Path, resource: &str, amounts: &BTreeMap<&'static str, Quantity>) {
    let amount = |side: &str| amounts.get(side).copied();
    let (max, min) = (amount("max"), amount("min"));
    let (default, request, ratio) = (amount("default"), amount("defaultRequest"), amount(RATIO));
    let mut exceeds =
        |small: Option<Quantity>, big: Option<Quantity>, side: &str, shown: Option<Quantity>, words: [&str; 2]| {
            if let (Some(small), Some(big), Some(shown)) = (small, big, shown)
                && small > big
            {
                let words = format!("{} value {small} is greater than {} value {big}", words[0], words[1]);
                errors.invalid(&at.child(side).key(resource), shown.to_string(), &words);
            }
        };
    exceeds(min, max, "min", min, ["min", "max"]);
    exceeds(min, request, "defaultRequest", request, ["min", "default request"]);
    exceeds(request, max, "defaultRequest", request, ["default request", "max"]);
    exceeds(request, default, "defaultRequest", request, ["default request", "default limit"]);
    exceeds(min, default, "default", min, ["min", "default"]);
    exceeds(default, max, "default", max, ["default", "max"]);
    if let Some(ratio) = ratio {
        check_ratio(errors, &at.child(RATIO).key(resource), ratio, min, max);
    }
    // What can't be shared out beyond its amount is given as it is asked for.
    if !resource::is_overcommitted(resource)
        && let Some((default, request)) = default.zip(request).filter(|(default, request)| default != request)
    {
        let words = format!("default value {default} must equal to defaultRequest value {request} in {resource}");
        errors.invalid(&at.child("defaultRequest").key(resource), request.to_string(), &words);
    }
}

fn check_ratio(errors: &mut Errors, path: &Path, ratio: Quantity, min: Option<Quantity>, max: Option<Quantity>) {
    if ratio < Quantity::from_milli(1000) {
        errors.invalid(path, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (min.filter(|min| !min.is_zero()), max) {
        let limit = max.milli() as f64 / min.milli() as f64;
        if ratio.milli() as f64 / 1000.0 > limit {
            errors.invalid(path, ratio.to_string(), &format!("ratio {ratio} is greater than max/min = {limit:.6}"));
        }
    }
}

pub struct ResourceQuota;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Request",
        "string",
        "",
        0,
        "Request represents a minimum amount of cpu/memory that a container may consume.",
    ),
    Column::new(
        "Limit",
        "string",
        "",
        0,
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    column::AGE,
];

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

impl Strategy for ResourceQuota {
    fn prepare_create(&self, object: &mut Value) {
        tree::set(object, "status", json!({}));
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| validate_quota(errors, &Path::new("spec"), &object["spec"]))
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut found = self.validate(new);
        let scopes = |object: &Value| -> BTreeSet<String> {
            tree::list(&object["spec"], "scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        if scopes(new) != scopes(old) {
            let shown = new["spec"]["scopes"].clone();
            found
                .extend(Errors::of(|errors| errors.invalid(&Path::new("spec.scopes"), shown, crate::check::IMMUTABLE)));
        }
        found
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| {
            for side in ["hard", "used"] {
                let path = Path::new("status").child(side);
                for (resource, value) in tree::entries(&new["status"], side) {
                    quota_name(errors, &path.key(resource), resource);
                    resource::amount(errors, &path.key(resource), resource, value);
                }
            }
        })
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in tree::entries(status, "hard") {
            let used = status["used"].get(name).map_or("0".to_owned(), resource::shown);
            let text = format!("{name}: {used}/{}", resource::shown(hard));
            if name.starts_with("limits") { limits.push(text) } else { requests.push(text) }
        }
        vec![workload::name(object), requests.join(", ").into(), limits.join(", ").into(), column::age(object, now)]
    }
}

fn validate_quota(errors: &mut Errors, path: &Path, spec: &Value) {
    let hard = path.child("hard");
    for (resource, value) in tree::entries(spec, "hard") {
        quota_name(errors, &hard.key(resource), resource);
        resource::amount(errors, &hard.key(resource), resource, value);
    }
    let own = spec["scopes"].to_string();
    let at = path.child("scopes");
    let mut scopes = Vec::new();
    for scope in tree::list(spec, "scopes").iter().filter_map(Value::as_str) {
        if !SCOPES.contains(&scope) {
            errors.invalid_shown(&at, &own, "unsupported scope");
        }
        applies(errors, &at, spec, scope, &own);
        scopes.push(scope);
    }
    conflicting(errors, &at, &scopes, &own);
    if tree::has(spec, "scopeSelector") {
        scope_selector(errors, &path.child("scopeSelector").child("matchExpressions"), spec);
    }
}

/// Whether all that the quota counts is had by objects of a scope.
fn applies(errors: &mut Errors, at: &Path, spec: &Value, scope: &str, shown: &str) {
    let known = tree::entries(spec, "hard").into_iter().filter(|(name, _)| is_quota_name(name));
    for _ in known.filter(|(name, _)| !counts_in(scope, name)) {
        errors.invalid_shown(at, shown, "unsupported scope applied to resource");
    }
}

fn conflicting(errors: &mut Errors, at: &Path, scopes: &[&str], shown: &str) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|one| scopes.contains(one)) {
            errors.invalid_shown(at, shown, "conflicting scopes");
        }
    }
}

fn scope_selector(errors: &mut Errors, at: &Path, spec: &Value) {
    let requirements = tree::list(&spec["scopeSelector"], "matchExpressions");
    let shown: Vec<String> = requirements.iter().map(requirement_shown).collect();
    let shown = format!("{{\"MatchExpressions\":[{}]}}", shown.join(","));
    let mut scopes = Vec::new();
    for requirement in requirements {
        scope_requirement(errors, at, requirement, |errors, scope| applies(errors, at, spec, scope, &shown));
        scopes.push(tree::text(requirement, "scopeName"));
    }
    // Upstream shows the other way to name scopes here.
    conflicting(errors, at, &scopes, &spec["scopes"].to_string());
}

fn requirement_shown(requirement: &Value) -> String {
    let text = |key| Value::from(tree::text(requirement, key));
    let values = requirement.get("values").map_or("null".to_owned(), Value::to_string);
    format!("{{\"ScopeName\":{},\"Operator\":{},\"Values\":{values}}}", text("scopeName"), text("operator"))
}

/// Whether objects of the scope use the resource at all.
fn counts_in(scope: &str, resource: &str) -> bool {
    const COMPUTE: &[&str] = &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    match scope {
        "BestEffort" => resource == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || COMPUTE.contains(&resource)
        }
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&resource),
        _ => true,
    }
}

fn is_quota_name(resource: &str) -> bool {
    const KNOWN: &[&str] = &[
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    ];
    KNOWN.contains(&resource) || resource.starts_with("hugepages-") || resource.starts_with("requests.hugepages-")
}

fn quota_name(errors: &mut Errors, path: &Path, resource: &str) {
    resource::standard_name(errors, path, resource);
    if !resource.contains('/') && !is_quota_name(resource) {
        errors.invalid(path, resource, "must be a standard resource for quota");
    }
}

fn scope_requirement(errors: &mut Errors, at: &Path, requirement: &Value, applies: impl Fn(&mut Errors, &str)) {
    let (scope, operator) = (tree::text(requirement, "scopeName"), tree::text(requirement, "operator"));
    let values = tree::list(requirement, "values");
    if !SCOPES.contains(&scope) {
        errors.invalid(&at.child("scopeName"), scope, "unsupported scope");
    }
    applies(errors, scope);
    let only_exists = ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
    if only_exists.contains(&scope) && operator != "Exists" {
        let words = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                     ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                     ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.invalid(&at.child("operator"), operator, words);
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let words = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.required(&at.child("values"), words);
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let words = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.invalid(&at.child("values"), values.to_vec(), words);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.invalid(&at.child("operator"), operator, "not a valid selector operator"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_fit_together() {
        let object = json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}});
        assert_eq!(
            LimitRange.validate(&object)[0].to_string(),
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"
        );
    }

    #[test]
    fn containers_get_defaults_from_the_bounds() {
        let mut object =
            json!({"spec": {"limits": [{"type": "Container", "min": {"memory": "1Mi"}, "max": {"cpu": "1"}}]}});
        LimitRange.default("v1", &mut object);
        assert_eq!(object["spec"]["limits"][0]["default"], json!({"cpu": "1"}));
        assert_eq!(object["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "1", "memory": "1Mi"}));
    }

    #[test]
    fn quotas_count_whole_known_things() {
        for (hard, expected) in [
            (json!({"pods": "10", "requests.cpu": "500m", "count/jobs.batch": "2"}), vec![]),
            (json!({"pods": "1500m"}), vec!["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"]),
            (
                json!({"cats": "1"}),
                vec![
                    "spec.hard[cats]: Invalid value: \"cats\": must be a standard resource type or fully qualified",
                    "spec.hard[cats]: Invalid value: \"cats\": must be a standard resource for quota",
                ],
            ),
        ] {
            let found: Vec<_> =
                ResourceQuota.validate(&json!({"spec": {"hard": hard}})).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{hard}");
        }
    }
}
