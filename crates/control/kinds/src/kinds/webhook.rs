//! Admission webhooks and what policies share with them.

use super::workload;
use crate::{
    check::{Errors, Seen, name, net, number, selector},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_cel::admission::{Compiler, Declarations, Wanted};
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

/// Configurations of validating and of mutating webhooks.
pub struct WebhookConfiguration {
    pub mutating: bool,
}

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Webhooks",
        "integer",
        "",
        0,
        "Webhooks indicates the number of webhooks registered in this configuration",
    ),
    column::AGE,
];

impl Strategy for WebhookConfiguration {
    fn default(&self, _api_version: &str, object: &mut Value) {
        for webhook in tree::items_mut(object, "webhooks") {
            tree::default_to(webhook, "failurePolicy", "Fail");
            tree::default_to(webhook, "timeoutSeconds", 10);
            if self.mutating {
                tree::default_to(webhook, "reinvocationPolicy", "Never");
            }
            default_match(webhook, "rules");
            if let Some(config) = tree::existing(webhook, "clientConfig")
                && let Some(service) = tree::existing(config, "service")
            {
                tree::default_to(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let mut seen = Seen::default();
            for (i, webhook) in tree::list(object, "webhooks").iter().enumerate() {
                let at = Path::new("webhooks").index(i);
                validate_webhook(errors, &at, webhook, self.mutating);
                let own = tree::text(webhook, "name");
                if !own.is_empty() && !seen.first(own) {
                    errors.duplicate(&at.child("name"), own);
                }
            }
        })
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["webhooks"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![workload::name(object), tree::list(object, "webhooks").len().into(), column::age(object, now)]
    }
}

/// Defaults of what says which requests are meant.
pub(super) fn default_match(object: &mut Value, rules: &str) {
    tree::default_to(object, "matchPolicy", "Equivalent");
    tree::default_to(object, "namespaceSelector", json!({}));
    tree::default_to(object, "objectSelector", json!({}));
    tree::items_mut(object, rules).for_each(|rule| tree::default_to(rule, "scope", "*"));
}

fn validate_webhook(errors: &mut Errors, at: &Path, webhook: &Value, mutating: bool) {
    let own = tree::text(webhook, "name");
    if errors.needs(&at.child("name"), own, "") {
        let wrong = names::dns1123_subdomain_errors(own);
        if wrong.is_empty() && own.split('.').count() < 3 {
            errors.invalid(&at.child("name"), own, "should be a domain with at least three segments separated by dots");
        }
        errors.invalid_for(&at.child("name"), own, wrong);
    }
    for (i, rule) in tree::list(webhook, "rules").iter().enumerate() {
        validate_rule(errors, &at.child("rules").index(i), rule);
    }
    optional(errors, at, webhook, "failurePolicy", &["Fail", "Ignore"]);
    optional(errors, at, webhook, "matchPolicy", &["Equivalent", "Exact"]);
    match webhook.get("sideEffects").and_then(Value::as_str) {
        None => errors.required(&at.child("sideEffects"), "must specify one of None, NoneOnDryRun"),
        Some(effects) => errors.one_of(&at.child("sideEffects"), effects, &["None", "NoneOnDryRun"]),
    }
    if let Some(seconds) = webhook.get("timeoutSeconds").and_then(Value::as_i64)
        && !(1..=30).contains(&seconds)
    {
        errors.invalid(&at.child("timeoutSeconds"), seconds, "the timeout value must be between 1 and 30 seconds");
    }
    selectors(errors, at, webhook);
    if mutating {
        optional(errors, at, webhook, "reinvocationPolicy", &["IfNeeded", "Never"]);
    }
    client_config(errors, &at.child("clientConfig"), &webhook["clientConfig"]);
    match_conditions(errors, &at.child("matchConditions"), tree::list(webhook, "matchConditions"), false);
    review_versions(errors, &at.child("admissionReviewVersions"), tree::list(webhook, "admissionReviewVersions"));
}

pub(super) fn optional(errors: &mut Errors, at: &Path, object: &Value, field: &str, known: &[&str]) {
    if let Some(text) = object.get(field).and_then(Value::as_str) {
        errors.one_of(&at.child(field), text, known);
    }
}

pub(super) fn selectors(errors: &mut Errors, at: &Path, object: &Value) {
    for field in ["namespaceSelector", "objectSelector"] {
        selector::labels(errors, &at.child(field), &object[field]);
    }
}

fn client_config(errors: &mut Errors, at: &Path, config: &Value) {
    match (config.get("url").and_then(Value::as_str), tree::has(config, "service")) {
        (Some(url), false) => net::webhook_url(errors, &at.child("url"), url),
        (None, true) => {
            let own = &config["service"];
            // Upstream names the wrong field here, and clients see it.
            if tree::text(own, "name").is_empty() {
                let at = at.child("service").child("namespace");
                return errors.required(&at, "");
            }
            service(errors, &at.child("service"), own);
        }
        _ => errors.required(at, "exactly one of url or service is required"),
    }
}

/// The service of a webhook, also that of a conversion.
pub(super) fn service(errors: &mut Errors, at: &Path, service: &Value) {
    errors.needs(&at.child("name"), tree::text(service, "name"), "");
    errors.needs(&at.child("namespace"), tree::text(service, "namespace"), "");
    if let Some(port) = service.get("port").and_then(Value::as_i64)
        && !number::is_port(port)
    {
        errors.invalid(&at.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let Some(path) = service.get("path").and_then(Value::as_str).filter(|path| !path.is_empty()) else { return };
    let at = at.child("path");
    if !path.starts_with('/') {
        errors.invalid(&at, path, "must start with a '/'");
    }
    let inner = path.trim_start_matches('/').trim_end_matches('/');
    if inner.is_empty() {
        return;
    }
    for (i, segment) in inner.split('/').enumerate() {
        if segment.is_empty() {
            errors.invalid(&at, path, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for why in names::dns1123_subdomain_errors(segment) {
            errors.invalid(&at, path, &format!("segment[{i}]: {why}"));
        }
    }
}

/// The versions of reviews that a webhook understands.
pub(super) fn review_versions(errors: &mut Errors, at: &Path, versions: &[Value]) {
    if versions.is_empty() {
        return errors.required(at, "must specify one of v1, v1beta1");
    }
    let mut seen = Seen::default();
    for (i, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or("");
        if !seen.first(version) {
            errors.invalid(&at.index(i), version, "duplicate version");
            continue;
        }
        errors.invalid_for(&at.index(i), version, names::dns1035_label_errors(version));
    }
    if !versions.iter().any(|version| version == "v1" || version == "v1beta1") {
        errors.invalid(at, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
}

/// Names and expressions; the expressions themselves are compiled elsewhere.
pub(super) fn match_conditions(errors: &mut Errors, path: &Path, conditions: &[Value], params: bool) {
    const MAX: usize = 64;
    if conditions.len() > MAX {
        errors.too_many(path, conditions.len(), MAX);
    }
    let mut seen = Seen::default();
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        let own = tree::text(condition, "name");
        let (source, at_source) = (tree::text(condition, "expression").trim(), at.child("expression"));
        if errors.needs(&at_source, source, "") {
            let declared = Declarations { params, authorizer: true, mutation: false };
            if let Err(why) = Compiler::plain().compile(source, Wanted::Bool, declared) {
                errors.invalid(&at_source, source, &why);
            }
        }
        if errors.needs(&at.child("name"), own, "") {
            errors.invalid_for(&at.child("name"), own, name::qualified(own));
        }
        if !own.is_empty() && !seen.first(own) {
            errors.duplicate(&at.child("name"), own);
        }
    }
}

/// Which operations on which resources, and on which objects by their names.
pub(super) fn validate_named_rule(errors: &mut Errors, at: &Path, rule: &Value) {
    let mut seen = Seen::default();
    for (i, own) in tree::list(rule, "resourceNames").iter().enumerate() {
        let (own, at) = (own.as_str().unwrap_or(""), at.child("resourceNames").index(i));
        errors.invalid_for(&at, own, names::path_segment_errors(own, false));
        if !seen.first(own) {
            errors.duplicate(&at, own);
        }
    }
    validate_rule(errors, at, rule);
}

/// Which operations on which resources.
fn validate_rule(errors: &mut Errors, at: &Path, rule: &Value) {
    const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    let operations = tree::list(rule, "operations");
    let path = at.child("operations");
    if operations.is_empty() {
        errors.required(&path, "");
    }
    if operations.len() > 1 && operations.iter().any(|one| one == "*") {
        errors.invalid(&path, operations.to_vec(), "if '*' is present, must not specify other operations");
    }
    for (i, operation) in operations.iter().enumerate() {
        errors.one_of(&path.index(i), operation.as_str().unwrap_or(""), OPERATIONS);
    }
    alone(errors, &at.child("apiGroups"), tree::list(rule, "apiGroups"), "API groups");
    let versions = tree::list(rule, "apiVersions");
    alone(errors, &at.child("apiVersions"), versions, "API versions");
    for (i, _) in versions.iter().enumerate().filter(|(_, version)| *version == "") {
        errors.required(&at.child("apiVersions").index(i), "");
    }
    resources(errors, &at.child("resources"), tree::list(rule, "resources"));
    optional(errors, at, rule, "scope", &["*", "Cluster", "Namespaced"]);
}

fn alone(errors: &mut Errors, at: &Path, items: &[Value], what: &str) {
    if items.is_empty() {
        errors.required(at, "");
    }
    if items.len() > 1 && items.iter().any(|one| one == "*") {
        errors.invalid(at, items.to_vec(), &format!("if '*' is present, must not specify other {what}"));
    }
}

fn resources(errors: &mut Errors, at: &Path, items: &[Value]) {
    if items.is_empty() {
        return errors.required(at, "");
    }
    let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
    let (mut of_all, mut whole) = (Vec::new(), Vec::new());
    for (i, text) in texts.iter().enumerate() {
        if text.is_empty() {
            errors.required(&at.index(i), "");
        }
        let Some((resource, sub)) = text.split_once('/') else { continue };
        if whole.contains(&resource) {
            errors.invalid(&at.index(i), *text, &format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if of_all.contains(&sub) {
            errors.invalid(&at.index(i), *text, &format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            of_all.push(sub);
        }
    }
    if texts.len() > 1 && texts.contains(&"*/*") {
        errors.invalid(at, items.to_vec(), "if '*/*' is present, must not specify other resources");
    } else if texts.contains(&"*") && texts.iter().any(|text| *text != "*" && !text.contains('/')) {
        let words = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(at, items.to_vec(), words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks() {
        let mut object = json!({"webhooks": [{
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/x"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        }]});
        let strategy = WebhookConfiguration { mutating: true };
        strategy.default("admissionregistration.k8s.io/v1", &mut object);
        assert_eq!(object["webhooks"][0]["clientConfig"]["service"]["port"], 443);
        assert_eq!(object["webhooks"][0]["rules"][0]["scope"], "*");
        assert!(strategy.validate(&object).is_empty(), "{:?}", strategy.validate(&object));
        object["webhooks"][0]["clientConfig"]["url"] = json!("https://a");
        assert_eq!(
            strategy.validate(&object)[0].to_string(),
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required"
        );
    }

    #[test]
    fn wildcards_stand_alone() {
        let check = |items: &[&str]| {
            let items: Vec<Value> = items.iter().map(|item| (*item).into()).collect();
            Errors::of(|errors| resources(errors, &Path::new("r"), &items)).len()
        };
        for (items, errors) in
            [(&["pods"][..], 0), (&["*", "pods"], 1), (&["*/*", "pods"], 1), (&["pods/*", "pods/log"], 1), (&[""], 1)]
        {
            assert_eq!(check(items), errors, "{items:?}");
        }
    }
}
