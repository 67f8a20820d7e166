//! Flow schemas and priority levels.

mod fixed;

use super::workload;
use crate::{
    check::{Errors, Seen},
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

pub struct FlowSchema;

static SCHEMA_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "PriorityLevel",
        "string",
        "",
        0,
        "`name` is the name of the priority level configuration being referenced Required.",
    ),
    Column::new(
        "MatchingPrecedence",
        "string",
        "",
        0,
        "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen \
         FlowSchema is among those with the numerically lowest (which we take to be logically highest) \
         MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the \
         precedence is not specified, it will be set to 1000 as default.",
    ),
    Column::new(
        "DistinguisherMethod",
        "string",
        "",
        0,
        "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this \
         schema. `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
    ),
    column::AGE,
    Column::new("MissingPL", "string", "", 0, "references a broken or non-existent PriorityLevelConfiguration"),
];

impl Strategy for FlowSchema {
    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(spec) = tree::child(object, "spec") {
            tree::default_empty(spec, "matchingPrecedence", 1000);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, name) = (Path::new("spec"), tree::text(&object["metadata"], "name"));
            validate_schema(errors, &path, name, &object["spec"]);
            fixed::schema(errors, &path, name, &object["spec"]);
        })
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| conditions(errors, tree::list(&new["status"], "conditions")))
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        SCHEMA_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let method = match spec["distinguisherMethod"].is_null() {
            true => "<none>",
            false => tree::text(&spec["distinguisherMethod"], "type"),
        };
        let dangling =
            tree::list(&object["status"], "conditions").iter().find(|it| tree::text(it, "type") == "Dangling");
        vec![
            workload::name(object),
            tree::text(&spec["priorityLevelConfiguration"], "name").into(),
            tree::int(spec, "matchingPrecedence").into(),
            method.into(),
            column::age(object, now),
            dangling.map_or("?", |it| tree::text(it, "status")).into(),
        ]
    }
}

fn validate_schema(errors: &mut Errors, path: &Path, name: &str, spec: &Value) {
    let precedence = tree::int(spec, "matchingPrecedence");
    if precedence <= 0 {
        errors.invalid(&path.child("matchingPrecedence"), precedence, "must be a positive value");
    }
    if precedence > 10_000 {
        errors.invalid(&path.child("matchingPrecedence"), precedence, "must not be greater than 10000");
    }
    if precedence == 1 && name != EXEMPT {
        let words = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.invalid(&path.child("matchingPrecedence"), precedence, words);
    }
    if tree::has(spec, "distinguisherMethod") {
        let kind = tree::text(&spec["distinguisherMethod"], "type");
        if !["ByNamespace", "ByUser"].contains(&kind) {
            let shown = format!("{{\"Type\":{}}}", Value::from(kind));
            errors.unsupported_shown(
                &path.child("distinguisherMethod").child("type"),
                &shown,
                &["ByNamespace", "ByUser"],
            );
        }
    }
    let level = tree::text(&spec["priorityLevelConfiguration"], "name");
    let at = path.child("priorityLevelConfiguration").child("name");
    if errors.needs(&at, level, "must reference a priority level") {
        errors.invalid_for(&at, level, names::dns1123_subdomain_errors(level));
    }
    for (i, rule) in tree::list(spec, "rules").iter().enumerate() {
        validate_rule(errors, &path.child("rules").index(i), rule);
    }
}

fn validate_rule(errors: &mut Errors, at: &Path, rule: &Value) {
    let subjects = tree::list(rule, "subjects");
    if subjects.is_empty() {
        errors.required(&at.child("subjects"), "subjects must contain at least one value");
    }
    for (i, subject) in subjects.iter().enumerate() {
        validate_subject(errors, &at.child("subjects").index(i), subject);
    }
    let (resources, others) = (tree::list(rule, "resourceRules"), tree::list(rule, "nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        errors.required(at, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (i, rule) in resources.iter().enumerate() {
        resource_rule(errors, &at.child("resourceRules").index(i), rule);
    }
    for (i, rule) in others.iter().enumerate() {
        let at = at.child("nonResourceRules").index(i);
        let known = ["connect", "delete", "get", "head", "options", "patch", "post", "put"];
        verbs(errors, &at.child("verbs"), tree::list(rule, "verbs"), &known);
        urls(errors, &at.child("nonResourceURLs"), tree::list(rule, "nonResourceURLs"));
    }
}

fn urls(errors: &mut Errors, at: &Path, urls: &[Value]) {
    if urls.is_empty() {
        return errors.required(at, "nonResourceURLs must contain at least one value");
    }
    if urls.iter().any(|url| url == "*") {
        if urls.len() > 1 {
            errors.invalid(at, urls.to_vec(), "if '*' is present, must not specify other non-resource URLs");
        }
        return;
    }
    for (i, url) in urls.iter().enumerate() {
        let url = url.as_str().unwrap_or("");
        let stars = url.matches('*').count();
        let wrong = match url {
            "" => "must not be empty",
            _ if !url.starts_with('/') => "must start with slash",
            _ if url.contains(' ') => "must not contain white-space",
            _ if url.contains("//") => "must not contain double slash",
            _ if stars > 1 || stars == 1 && !url.ends_with("/*") => "wildcard can only do suffix matching",
            _ => continue,
        };
        errors.invalid(&at.index(i), url, wrong);
    }
}

fn validate_subject(errors: &mut Errors, at: &Path, subject: &Value) {
    let kind = tree::text(subject, "kind");
    let field = match kind {
        "ServiceAccount" => "serviceAccount",
        "User" => "user",
        "Group" => "group",
        _ => return errors.unsupported(&at.child("kind"), kind, &["Group", "ServiceAccount", "User"]),
    };
    let path = at.child(field);
    let own = &subject[field];
    if own.is_null() {
        return errors.required(&path, &format!("{field} is required when subject kind is '{kind}'"));
    }
    let name = tree::text(own, "name");
    if !errors.needs(&path.child("name"), name, "") || kind != "ServiceAccount" {
        return;
    }
    if name != "*" {
        errors.invalid_for(&path.child("name"), name, names::dns1123_subdomain_errors(name));
    }
    let namespace = tree::text(own, "namespace");
    if errors.needs(&path.child("namespace"), namespace, "must specify namespace for service account") {
        errors.invalid_for(&path.child("namespace"), namespace, names::dns1123_label_errors(namespace));
    }
}

fn verbs(errors: &mut Errors, at: &Path, verbs: &[Value], known: &[&str]) {
    if verbs.is_empty() {
        return errors.required(at, "verbs must contain at least one value");
    }
    let all = verbs.iter().any(|verb| verb == "*");
    if all && verbs.len() > 1 {
        errors.invalid(at, verbs.to_vec(), "if '*' is present, must not specify other verbs");
    }
    if !all && verbs.iter().any(|verb| !known.contains(&verb.as_str().unwrap_or(""))) {
        errors.unsupported_shown(at, &Value::from(verbs.to_vec()).to_string(), known);
    }
}

fn resource_rule(errors: &mut Errors, at: &Path, rule: &Value) {
    const VERBS: &[&str] =
        &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
    verbs(errors, &at.child("verbs"), tree::list(rule, "verbs"), VERBS);
    for (field, words, what) in [
        ("apiGroups", "resource rules must supply at least one api group", "api groups"),
        ("resources", "resource rules must supply at least one resource", "resources"),
    ] {
        let items = tree::list(rule, field);
        if items.is_empty() {
            errors.required(&at.child(field), words);
        }
        if items.len() > 1 && items.iter().any(|item| item == "*") {
            let words = format!("if '*' is present, must not specify other {what}");
            errors.invalid(&at.child(field), items.to_vec(), &words);
        }
    }
    let (namespaces, path) = (tree::list(rule, "namespaces"), at.child("namespaces"));
    if namespaces.is_empty() && !tree::flag(rule, "clusterScope") {
        let words = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.required(&path, words);
    }
    for (i, namespace) in namespaces.iter().enumerate().filter(|(_, namespace)| *namespace != "*") {
        let namespace = namespace.as_str().unwrap_or("");
        for why in names::dns1123_label_errors(namespace) {
            let words = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
            errors.invalid(&path.index(i), namespace, &words);
        }
    }
}

pub struct PriorityLevelConfiguration;

static LEVEL_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Type",
        "string",
        "",
        0,
        "`type` indicates whether this priority level is subject to limitation on request execution.  A value of \
         `\"Exempt\"` means that requests of this priority level are not subject to a limit (and thus are never \
         queued) and do not detract from the capacity made available to other priority levels.  A value of \
         `\"Limited\"` means that (a) requests of this priority level _are_ subject to limits and (b) some of \
         the server's limited capacity is made available exclusively to this priority level. Required.",
    ),
    Column::new(
        "NominalConcurrencyShares",
        "string",
        "",
        0,
        "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit \
         (NominalCL) of this level. This is the number of execution seats available at this priority level. This \
         is used both for requests dispatched from this priority level as well as requests dispatched from other \
         priority levels borrowing seats from this level. The server's concurrency limit (ServerCL) is divided \
         among the Limited priority levels in proportion to their NCS values:\n\nNominalCL(i)  = ceil( ServerCL \
         * NCS(i) / sum_ncs ) sum_ncs = sum[priority level k] NCS(k)\n\nBigger numbers mean a larger nominal \
         concurrency limit, at the expense of every other priority level.\n\nIf not specified, this field \
         defaults to a value of 30.\n\nSetting this field to zero supports the construction of a \"jail\" for \
         this priority level that is used to hold some request(s)",
    ),
    Column::new(
        "Queues",
        "string",
        "",
        0,
        "`queues` is the number of queues for this priority level. The queues exist independently at each \
         apiserver. The value must be positive.  Setting it to 1 effectively precludes shufflesharding and thus \
         makes the distinguisher method of associated flow schemas irrelevant.  This field has a default value \
         of 64.",
    ),
    Column::new(
        "HandSize",
        "string",
        "",
        0,
        "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.  \
         When enqueuing a request at this priority level the request's flow identifier (a string pair) is hashed \
         and the hash value is used to shuffle the list of queues and deal a hand of the size specified here.  \
         The request is put into one of the shortest queues in that hand. `handSize` must be no larger than \
         `queues`, and should be significantly smaller (so that a few heavy flows do not saturate most of the \
         queues).  See the user-facing documentation for more extensive guidance on setting this field.  This \
         field has a default value of 8.",
    ),
    Column::new(
        "QueueLengthLimit",
        "string",
        "",
        0,
        "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this \
         priority level at a time; excess requests are rejected.  This value must be positive.  If not \
         specified, it will be defaulted to 50.",
    ),
    column::AGE,
];

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::existing(object, "spec") else { return };
        if let Some(exempt) = tree::existing(spec, "exempt") {
            tree::default_to(exempt, "nominalConcurrencyShares", 0);
            tree::default_to(exempt, "lendablePercent", 0);
        }
        let Some(limited) = tree::existing(spec, "limited") else { return };
        tree::default_to(limited, "nominalConcurrencyShares", 30);
        tree::default_to(limited, "lendablePercent", 0);
        if let Some(response) = tree::existing(limited, "limitResponse")
            && let Some(queuing) = tree::existing(response, "queuing")
        {
            for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                tree::default_empty(queuing, field, value);
            }
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            let name = tree::text(&object["metadata"], "name");
            if (name == EXEMPT) != (tree::text(spec, "type") == "Exempt") {
                let words = "type must be 'Exempt' if and only if name is 'exempt'";
                errors.invalid(&path.child("type"), tree::text(spec, "type"), words);
            }
            validate_level(errors, &path, spec);
            fixed::level(errors, &path, name, spec);
        })
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| conditions(errors, tree::list(&new["status"], "conditions")))
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        LEVEL_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let limited = &spec["limited"];
        let queuing = &limited["limitResponse"]["queuing"];
        let number = |owner: &Value, key: &str| owner.get(key).cloned().unwrap_or_else(|| json!("<none>"));
        vec![
            workload::name(object),
            tree::text(spec, "type").into(),
            number(limited, "nominalConcurrencyShares"),
            number(queuing, "queues"),
            number(queuing, "handSize"),
            number(queuing, "queueLengthLimit"),
            column::age(object, now),
        ]
    }
}

/// The one schema and the one level whose requests never wait.
const EXEMPT: &str = "exempt";

fn conditions(errors: &mut Errors, conditions: &[Value]) {
    let (path, mut seen) = (Path::new("status.conditions"), Seen::default());
    for (i, condition) in conditions.iter().enumerate() {
        let (at, kind) = (path.index(i).child("type"), tree::text(condition, "type"));
        if !seen.first(kind) {
            errors.duplicate(&at, kind);
        }
        errors.needs(&at, kind, "must not be empty");
    }
}

fn shares_and_loans(errors: &mut Errors, path: &Path, level: &Value) {
    let shares = tree::int(level, "nominalConcurrencyShares");
    if shares < 0 {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    if let Some(percent) = level.get("lendablePercent").and_then(Value::as_i64)
        && !(0..=100).contains(&percent)
    {
        errors.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn validate_level(errors: &mut Errors, path: &Path, spec: &Value) {
    let (limited, exempt) = (&spec["limited"], &spec["exempt"]);
    match tree::text(spec, "type") {
        "Exempt" => {
            if !limited.is_null() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
            shares_and_loans(errors, &path.child("exempt"), exempt);
        }
        "Limited" => {
            if !exempt.is_null() {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            match limited.is_null() {
                true => errors.required(&path.child("limited"), "must not be empty when type is Limited"),
                false => validate_limited(errors, &path.child("limited"), limited),
            }
        }
        other => errors.unsupported(&path.child("type"), other, &["Exempt", "Limited"]),
    }
}

fn validate_limited(errors: &mut Errors, path: &Path, limited: &Value) {
    let shares = tree::int(limited, "nominalConcurrencyShares");
    if shares < 0 {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    let response = &limited["limitResponse"];
    let (at, queuing) = (path.child("limitResponse"), &response["queuing"]);
    match tree::text(response, "type") {
        "Reject" if !queuing.is_null() => {
            errors.forbidden(&at.child("queuing"), "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if queuing.is_null() => {
            let words = "must not be empty if limited.limitResponse.type is Limited";
            errors.required(&at.child("queuing"), words);
        }
        "Queue" => validate_queuing(errors, &at.child("queuing"), queuing),
        other => errors.unsupported(&at.child("type"), other, &["Queue", "Reject"]),
    }
    if let Some(percent) = limited.get("lendablePercent").and_then(Value::as_i64)
        && !(0..=100).contains(&percent)
    {
        errors.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
    if let Some(percent) = limited.get("borrowingLimitPercent").and_then(Value::as_i64).filter(|percent| *percent < 0) {
        let words = "if specified, must be a non-negative integer";
        errors.invalid(&path.child("borrowingLimitPercent"), percent, words);
    }
}

fn validate_queuing(errors: &mut Errors, path: &Path, queuing: &Value) {
    let number = |key: &str| tree::int(queuing, key);
    for field in ["queueLengthLimit", "queues"] {
        if number(field) <= 0 {
            errors.invalid(&path.child(field), number(field), "must be positive");
        }
    }
    let (hand, queues) = (number("handSize"), number("queues"));
    if queues > 10_000_000 {
        errors.invalid(&path.child("queues"), queues, "must not be greater than 10000000");
    }
    let at = path.child("handSize");
    if hand <= 0 {
        errors.invalid(&at, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&at, hand, &format!("should not be greater than queues ({queues})"));
    } else if (hand as f64) * (queues as f64).log2() > 60.0 {
        let bits = ((hand as f64) * (queues as f64).log2()).ceil() as i64;
        let words = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than 60, but was {bits}"
        );
        errors.invalid(&at, hand, &words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        let queue = |queuing: Value| {
            let mut object = json!({"spec": {"type": "Limited", "limited": {
                "limitResponse": {"type": "Queue", "queuing": queuing},
            }}});
            PriorityLevelConfiguration.default("flowcontrol.apiserver.k8s.io/v1", &mut object);
            PriorityLevelConfiguration.validate(&object).len()
        };
        assert_eq!(queue(json!({})), 0);
        assert_eq!(queue(json!({"queues": 2, "handSize": 3})), 1);
        assert_eq!(queue(json!({"queues": -1})), 2);
    }

    #[test]
    fn schemas() {
        let rule = json!({
            "subjects": [{"kind": "Group", "group": {"name": "g"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
        });
        let object = json!({"spec": {
            "matchingPrecedence": 5, "priorityLevelConfiguration": {"name": "l"}, "rules": [rule],
        }});
        assert!(FlowSchema.validate(&object).is_empty(), "{:?}", FlowSchema.validate(&object));
    }
}
