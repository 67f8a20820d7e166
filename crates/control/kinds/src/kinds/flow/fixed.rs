//! The objects of flow control that every cluster has and nobody changes, and how messages show such specs.

use crate::{check::Errors, tree};
use pintle_types::field::Path;
use serde_json::{Value, json};

/// Refuses another spec for the flow schemas `exempt` and `catch-all`.
pub(super) fn schema(errors: &mut Errors, path: &Path, name: &str, spec: &Value) {
    let all = |groups: &[&str]| {
        let subjects: Vec<Value> =
            groups.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect();
        json!([{
            "subjects": subjects,
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    let fixed = match name {
        "exempt" => json!({
            "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1, "rules": all(&["system:masters"]),
        }),
        "catch-all" => json!({
            "priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 10_000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": all(&["system:unauthenticated", "system:authenticated"]),
        }),
        _ => return,
    };
    same(errors, path, name, SCHEMA, spec, &fixed);
}

/// Refuses another spec for the priority levels `exempt`, whose shares may differ, and `catch-all`.
pub(super) fn level(errors: &mut Errors, path: &Path, name: &str, spec: &Value) {
    let fixed = match name {
        "exempt" => {
            let exempt = spec.get("exempt").filter(|own| !own.is_null()).cloned();
            json!({"type": "Exempt", "exempt": exempt.unwrap_or_else(|| json!({}))})
        }
        "catch-all" => json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
        }}),
        _ => return,
    };
    same(errors, path, name, LEVEL, spec, &fixed);
}

fn same(errors: &mut Errors, path: &Path, name: &str, fields: &[Field], spec: &Value, fixed: &Value) {
    // Both are compared as they are shown: there, absent and empty are the same.
    let shown = structure(fields, spec);
    if shown != structure(fields, fixed) {
        errors.invalid_shown(path, &shown, &format!("spec of '{name}' must equal the fixed value"));
    }
}

/// A field of a Go struct: its name, that in JSON, and what it is.
type Field = (&'static str, &'static str, Form);

enum Form {
    Text,
    Number,
    Flag,
    /// What is null when it is absent.
    Optional,
    Texts,
    Struct(&'static [Field]),
    Pointer(&'static [Field]),
    List(&'static [Field]),
}

const NAME: &[Field] = &[("Name", "name", Form::Text)];

const SCHEMA: &[Field] = &[
    ("PriorityLevelConfiguration", "priorityLevelConfiguration", Form::Struct(NAME)),
    ("MatchingPrecedence", "matchingPrecedence", Form::Number),
    ("DistinguisherMethod", "distinguisherMethod", Form::Pointer(&[("Type", "type", Form::Text)])),
    ("Rules", "rules", Form::List(RULE)),
];

const RULE: &[Field] = &[
    ("Subjects", "subjects", Form::List(SUBJECT)),
    (
        "ResourceRules",
        "resourceRules",
        Form::List(&[
            ("Verbs", "verbs", Form::Texts),
            ("APIGroups", "apiGroups", Form::Texts),
            ("Resources", "resources", Form::Texts),
            ("ClusterScope", "clusterScope", Form::Flag),
            ("Namespaces", "namespaces", Form::Texts),
        ]),
    ),
    (
        "NonResourceRules",
        "nonResourceRules",
        Form::List(&[("Verbs", "verbs", Form::Texts), ("NonResourceURLs", "nonResourceURLs", Form::Texts)]),
    ),
];

const SUBJECT: &[Field] = &[
    ("Kind", "kind", Form::Text),
    ("User", "user", Form::Pointer(NAME)),
    ("Group", "group", Form::Pointer(NAME)),
    (
        "ServiceAccount",
        "serviceAccount",
        Form::Pointer(&[("Namespace", "namespace", Form::Text), ("Name", "name", Form::Text)]),
    ),
];

const LEVEL: &[Field] = &[
    ("Type", "type", Form::Text),
    (
        "Limited",
        "limited",
        Form::Pointer(&[
            ("NominalConcurrencyShares", "nominalConcurrencyShares", Form::Number),
            (
                "LimitResponse",
                "limitResponse",
                Form::Struct(&[
                    ("Type", "type", Form::Text),
                    (
                        "Queuing",
                        "queuing",
                        Form::Pointer(&[
                            ("Queues", "queues", Form::Number),
                            ("HandSize", "handSize", Form::Number),
                            ("QueueLengthLimit", "queueLengthLimit", Form::Number),
                        ]),
                    ),
                ]),
            ),
            ("LendablePercent", "lendablePercent", Form::Optional),
            ("BorrowingLimitPercent", "borrowingLimitPercent", Form::Optional),
        ]),
    ),
    (
        "Exempt",
        "exempt",
        Form::Pointer(&[
            ("NominalConcurrencyShares", "nominalConcurrencyShares", Form::Optional),
            ("LendablePercent", "lendablePercent", Form::Optional),
        ]),
    ),
];

/// An object as Go's encoder writes a struct without names for JSON.
fn structure(fields: &[Field], value: &Value) -> String {
    let parts: Vec<String> =
        fields.iter().map(|(go, json, form)| format!("\"{go}\":{}", field(form, value, json))).collect();
    format!("{{{}}}", parts.join(","))
}

fn field(form: &Form, owner: &Value, name: &str) -> String {
    let value = owner.get(name).unwrap_or(&Value::Null);
    match form {
        Form::Text => Value::from(tree::text(owner, name)).to_string(),
        Form::Number => tree::int(owner, name).to_string(),
        Form::Flag => tree::flag(owner, name).to_string(),
        Form::Optional => value.to_string(),
        Form::Texts | Form::List(_) if tree::is_empty(value) => "null".to_owned(),
        Form::Pointer(_) if value.is_null() => "null".to_owned(),
        Form::Texts => value.to_string(),
        Form::Struct(fields) | Form::Pointer(fields) => structure(fields, value),
        Form::List(fields) => {
            let items: Vec<String> = tree::list(owner, name).iter().map(|item| structure(fields, item)).collect();
            format!("[{}]", items.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structs_are_shown_as_go_shows_them() {
        let spec = json!({"priorityLevelConfiguration": {"name": "p"}, "matchingPrecedence": 5, "rules": [{
            "subjects": [{"kind": "ServiceAccount", "serviceAccount": {"name": "s", "namespace": "n"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/"]}],
        }]});
        assert_eq!(
            structure(SCHEMA, &spec),
            "{\"PriorityLevelConfiguration\":{\"Name\":\"p\"},\"MatchingPrecedence\":5,\"DistinguisherMethod\":null,\
             \"Rules\":[{\"Subjects\":[{\"Kind\":\"ServiceAccount\",\"User\":null,\"Group\":null,\
             \"ServiceAccount\":{\"Namespace\":\"n\",\"Name\":\"s\"}}],\"ResourceRules\":null,\
             \"NonResourceRules\":[{\"Verbs\":[\"get\"],\"NonResourceURLs\":[\"/\"]}]}]}"
        );
    }
}
