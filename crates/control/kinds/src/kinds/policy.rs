//! Admission policies and their bindings.

use super::{webhook, workload};
use crate::{
    check::{Errors, Seen, name},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

/// Policies that validate, and those that mutate.
pub struct AdmissionPolicy {
    pub mutating: bool,
}

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Validations",
        "integer",
        "",
        0,
        "Validations indicates the number of validation rules defined in this configuration",
    ),
    Column::new(
        "ParamKind",
        "string",
        "",
        0,
        "ParamKind specifies the kind of resources used to parameterize this policy",
    ),
    column::AGE,
];

static MUTATING_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "Mutations",
        "integer",
        "",
        0,
        "Mutation indicates the number of mutations rules defined in this configuration",
    ),
    Column::new(
        "ParamKind",
        "string",
        "",
        0,
        "ParamKind specifies the kind of resources used to parameterize this policy",
    ),
    column::AGE,
];

impl Strategy for AdmissionPolicy {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::existing(object, "spec") else { return };
        tree::default_to(spec, "failurePolicy", "Fail");
        if let Some(constraints) = tree::existing(spec, "matchConstraints") {
            webhook::default_match(constraints, "resourceRules");
            tree::items_mut(constraints, "excludeResourceRules").for_each(|rule| tree::default_to(rule, "scope", "*"));
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let name = tree::text(&object["metadata"], "name");
            validate_spec(errors, &Path::new("spec"), &object["spec"], self.mutating, name);
        })
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        if self.mutating { MUTATING_COLUMNS } else { COLUMNS }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let kind = &spec["paramKind"];
        let kind_text = match kind.is_null() {
            true => "<unset>".to_owned(),
            false => format!("{}/{}", tree::text(kind, "apiVersion"), tree::text(kind, "kind")),
        };
        let count = tree::list(spec, if self.mutating { "mutations" } else { "validations" }).len();
        vec![workload::name(object), count.into(), kind_text.into(), column::age(object, now)]
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value, mutating: bool, policy: &str) {
    webhook::optional(errors, path, spec, "failurePolicy", &["Fail", "Ignore"]);
    if tree::has(spec, "paramKind") {
        param_kind(errors, &path.child("paramKind"), &spec["paramKind"]);
    }
    match_constraints(errors, &path.child("matchConstraints"), &spec["matchConstraints"]);
    webhook::match_conditions(errors, &path.child("matchConditions"), tree::list(spec, "matchConditions"));
    variables(errors, &path.child("variables"), tree::list(spec, "variables"));
    if mutating {
        if tree::list(spec, "mutations").is_empty() {
            errors.required(&path.child("mutations"), "mutations must contain at least one item");
        }
        return;
    }
    let (validations, annotations) = (tree::list(spec, "validations"), tree::list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let words = "validations or auditAnnotations must contain at least one item";
        errors.required(&path.child("validations"), words);
        errors.required(&path.child("auditAnnotations"), words);
        return;
    }
    for (i, validation) in validations.iter().enumerate() {
        let at = path.child("validations").index(i);
        errors.needs(
            &at.child("expression"),
            tree::text(validation, "expression").trim(),
            "expression is not specified",
        );
        webhook::optional(errors, &at, validation, "reason", &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
    }
    audit_annotations(errors, &path.child("auditAnnotations"), annotations, policy);
}

fn param_kind(errors: &mut Errors, at: &Path, kind: &Value) {
    let (api_version, own) = (tree::text(kind, "apiVersion"), tree::text(kind, "kind"));
    let path = at.child("apiVersion");
    if errors.needs(&path, api_version, "") {
        let parts: Vec<&str> = api_version.split('/').collect();
        match parts.as_slice() {
            [version] => errors.invalid_for(&path, version, names::dns1035_label_errors(version)),
            [group, version] => {
                errors.invalid_for(&path, group, names::dns1123_subdomain_errors(group));
                errors.invalid_for(&path, version, names::dns1035_label_errors(version));
            }
            _ => errors.invalid(&path, api_version, &format!("unexpected GroupVersion string: {api_version}")),
        }
    }
    if errors.needs(&at.child("kind"), own, "") {
        mixed_case(errors, &at.child("kind"), own);
    }
}

/// A kind's name: a label but for its case.
pub(super) fn mixed_case(errors: &mut Errors, at: &Path, text: &str) {
    let wrong = names::dns1035_label_errors(&text.to_lowercase());
    if !wrong.is_empty() {
        let words = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.invalid(at, text, &words);
    }
}

fn match_constraints(errors: &mut Errors, at: &Path, constraints: &Value) {
    if constraints.is_null() {
        return errors.required(at, "");
    }
    match_resources(errors, at, constraints);
    if tree::list(constraints, "resourceRules").is_empty() {
        errors.required(&at.child("resourceRules"), "");
    }
}

fn match_resources(errors: &mut Errors, at: &Path, resources: &Value) {
    webhook::selectors(errors, at, resources);
    for field in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in tree::list(resources, field).iter().enumerate() {
            webhook::validate_rule(errors, &at.child(field).index(i), rule);
        }
    }
    webhook::optional(errors, at, resources, "matchPolicy", &["Equivalent", "Exact"]);
}

fn variables(errors: &mut Errors, path: &Path, variables: &[Value]) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        let own = tree::text(variable, "name");
        if own.is_empty() {
            errors.required(&at.child("name"), "name is not specified");
        } else if !name::c_identifier(own).is_empty() {
            errors.invalid(&at.child("name"), own, "must be a valid CEL identifier");
        }
        errors.needs(&at.child("expression"), tree::text(variable, "expression").trim(), "expression is not specified");
    }
}

/// The key of an annotation is qualified by the name of the policy.
fn audit_annotations(errors: &mut Errors, path: &Path, annotations: &[Value], policy: &str) {
    const MAX: usize = 20;
    if annotations.len() > MAX {
        errors.invalid_shown(
            path,
            &annotations.len().to_string(),
            &format!("must not have more than {MAX} auditAnnotations"),
        );
    }
    let mut seen = Seen::default();
    for (i, annotation) in annotations.iter().enumerate() {
        let at = path.index(i);
        let key = tree::text(annotation, "key");
        if policy.is_empty() {
            errors.invalid(&at.child("key"), key, "requires metadata.name be non-empty");
        } else {
            let full = format!("{policy}/{key}");
            errors.invalid_for(&at.child("key"), &full, name::qualified(&full));
        }
        let expression = tree::text(annotation, "valueExpression").trim();
        errors.needs(&at.child("valueExpression"), expression, "valueExpression is not specified");
        if !seen.first(key) {
            errors.duplicate(&at.child("key"), key);
        }
    }
}

/// Bindings of policies that validate, and of those that mutate.
pub struct AdmissionPolicyBinding {
    pub mutating: bool,
}

static BINDING_COLUMNS: &[Column] = &[
    column::NAME,
    Column::new(
        "PolicyName",
        "string",
        "",
        0,
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    Column::new("ParamRef", "string", "", 0, "ParamRef indicates the param resource which sets the configration param"),
    column::AGE,
];

impl Strategy for AdmissionPolicyBinding {
    fn default(&self, _api_version: &str, object: &mut Value) {
        if let Some(spec) = tree::existing(object, "spec")
            && let Some(resources) = tree::existing(spec, "matchResources")
        {
            webhook::default_match(resources, "resourceRules");
            tree::items_mut(resources, "excludeResourceRules").for_each(|rule| tree::default_to(rule, "scope", "*"));
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, spec) = (Path::new("spec"), &object["spec"]);
            let policy = tree::text(spec, "policyName");
            if errors.needs(&path.child("policyName"), policy, "") {
                errors.invalid_for(&path.child("policyName"), policy, names::dns1123_subdomain_errors(policy));
            }
            if tree::has(spec, "paramRef") {
                param_ref(errors, &path.child("paramRef"), &spec["paramRef"]);
            }
            match_resources(errors, &path.child("matchResources"), &spec["matchResources"]);
            if !self.mutating {
                actions(errors, &path.child("validationActions"), tree::list(spec, "validationActions"));
            }
        })
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        BINDING_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let reference = &spec["paramRef"];
        let (namespace, name) = (tree::text(reference, "namespace"), tree::text(reference, "name"));
        let text = match (reference.is_null(), name.is_empty(), namespace.is_empty()) {
            (true, _, _) => "<unset>".to_owned(),
            (_, true, _) => workload::selector_text(&reference["selector"]),
            (_, _, true) => name.to_owned(),
            _ => format!("{namespace}/{name}"),
        };
        vec![workload::name(object), tree::text(spec, "policyName").into(), text.into(), column::age(object, now)]
    }
}

fn param_ref(errors: &mut Errors, at: &Path, reference: &Value) {
    let name = tree::text(reference, "name");
    match (name.is_empty(), tree::has(reference, "selector")) {
        (true, false) => errors.required(at, "one of name or selector must be specified"),
        (false, true) => errors.forbidden(&at.child("name"), "name and selector are mutually exclusive"),
        (false, false) => errors.invalid_for(&at.child("name"), name, names::path_segment_errors(name, false)),
        (true, true) => crate::check::selector::labels(errors, &at.child("selector"), &reference["selector"]),
    }
    let path = at.child("parameterNotFoundAction");
    match reference.get("parameterNotFoundAction").and_then(Value::as_str) {
        None | Some("") => errors.required(&path, ""),
        Some(action) => errors.one_of(&path, action, &["Deny", "Allow"]),
    }
}

fn actions(errors: &mut Errors, path: &Path, actions: &[Value]) {
    if actions.is_empty() {
        return errors.required(path, "at least one validation action is required");
    }
    let mut seen = Seen::default();
    for (i, action) in actions.iter().enumerate() {
        let action = action.as_str().unwrap_or("");
        if !["Audit", "Deny", "Warn"].contains(&action) {
            errors.unsupported(&path.index(i), action, &["Audit", "Deny", "Warn"]);
        } else if !seen.first(action) {
            errors.duplicate(&path.index(i), action);
        }
    }
    let has = |action: &str| actions.iter().any(|one| one == action);
    if has("Deny") && has("Warn") {
        let words = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                     response and headers serves no purpose)";
        errors.invalid(path, actions.to_vec(), words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies() {
        let mut object = json!({"metadata": {"name": "p"}, "spec": {
            "validations": [{"expression": "true"}],
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]},
            ]},
        }});
        let policy = AdmissionPolicy { mutating: false };
        policy.default("admissionregistration.k8s.io/v1", &mut object);
        assert_eq!(object["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
        assert!(policy.validate(&object).is_empty(), "{:?}", policy.validate(&object));
        object["spec"]["validations"] = json!([]);
        assert_eq!(policy.validate(&object).len(), 2);
    }

    #[test]
    fn actions_exclude_each_other() {
        for (given, errors) in
            [(json!(["Deny"]), 0), (json!([]), 1), (json!(["Deny", "Warn"]), 1), (json!(["Shout"]), 1)]
        {
            let object = json!({"spec": {"policyName": "p", "validationActions": given}});
            let found = AdmissionPolicyBinding { mutating: false }.validate(&object);
            assert_eq!(found.len(), errors, "{given}");
        }
    }
}
