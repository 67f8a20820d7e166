//! Admission policies and their bindings.

use super::{webhook, workload};
use crate::{
    check::{Errors, Seen, condition, name},
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

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, _old: &Value) -> ErrorList {
        Errors::of(|errors| {
            let (path, status) = (Path::new("status"), &new["status"]);
            let at = path.child("typeChecking").child("expressionWarnings");
            for (i, warning) in tree::list(&status["typeChecking"], "expressionWarnings").iter().enumerate() {
                for field in ["warning", "fieldRef"] {
                    errors.needs(&at.index(i).child(field), tree::text(warning, field), "");
                }
            }
            condition::all(errors, &path.child("conditions"), tree::list(status, "conditions"));
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
    match_constraints(errors, &path.child("matchConstraints"), &spec["matchConstraints"], mutating);
    let params = tree::has(spec, "paramKind");
    let conditions = tree::list(spec, "matchConditions");
    webhook::match_conditions(errors, &path.child("matchConditions"), conditions, params);
    let composed = mutating || !tree::list(spec, "variables").is_empty();
    let mut expressions = PolicyExpressions {
        compiler: if composed { Compiler::composed() } else { Compiler::plain() },
        declared: Declarations { params, authorizer: true, mutation: false },
    };
    variables(errors, &path.child("variables"), tree::list(spec, "variables"), &mut expressions);
    if mutating {
        mutations(errors, &path.child("mutations"), tree::list(spec, "mutations"), &expressions);
        let policy = tree::text(spec, "reinvocationPolicy");
        return errors.needs_one_of(&path.child("reinvocationPolicy"), policy, &["IfNeeded", "Never"]);
    }
    let (validations, annotations) = (tree::list(spec, "validations"), tree::list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let words = "validations or auditAnnotations must contain at least one item";
        errors.required(&path.child("validations"), words);
        errors.required(&path.child("auditAnnotations"), words);
        return;
    }
    for (i, one) in validations.iter().enumerate() {
        validation(errors, &path.child("validations").index(i), one, &expressions);
    }
    audit_annotations(errors, &path.child("auditAnnotations"), annotations, policy, &expressions);
}

/// What the expressions of one policy may name.
struct PolicyExpressions {
    compiler: Compiler,
    declared: Declarations,
}

impl PolicyExpressions {
    /// Refuses an expression that does not compile.
    fn check(&self, errors: &mut Errors, at: &Path, source: &str, wanted: Wanted, declared: Declarations) {
        if let Err(why) = self.compiler.compile(source, wanted, declared) {
            errors.invalid(at, source, &why);
        }
    }
}

fn validation(errors: &mut Errors, at: &Path, validation: &Value, expressions: &PolicyExpressions) {
    let (source, path) = (tree::text(validation, "expression"), at.child("expression"));
    if errors.needs(&path, source.trim(), "expression is not specified") {
        expressions.check(errors, &path, source, Wanted::Bool, expressions.declared);
    }
    let (source, path) = (tree::text(validation, "messageExpression"), at.child("messageExpression"));
    if !source.is_empty() && source.trim().is_empty() {
        errors.invalid(&path, source, "must be non-empty if specified");
    } else if !source.is_empty() {
        let declared = Declarations { authorizer: false, ..expressions.declared };
        expressions.check(errors, &path, source, Wanted::Text, declared);
    }
    let (message, path) = (tree::text(validation, "message"), at.child("message"));
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path, message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&path, message, "message must not contain line breaks");
    }
    webhook::optional(errors, at, validation, "reason", &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
}

/// The changes of a policy: each is of one of two forms and says only what that form takes.
fn mutations(errors: &mut Errors, path: &Path, mutations: &[Value], expressions: &PolicyExpressions) {
    if mutations.is_empty() {
        return errors.required(path, "mutations must contain at least one item");
    }
    let declared = Declarations { mutation: true, ..expressions.declared };
    for (i, mutation) in mutations.iter().enumerate() {
        let at = path.index(i);
        let (own, other, wanted) = match tree::text(mutation, "patchType") {
            "" => {
                errors.required(&at.child("patchType"), "");
                continue;
            }
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Wanted::Configuration),
            "JSONPatch" => ("jsonPatch", "applyConfiguration", Wanted::Patches),
            unknown => {
                errors.unsupported(&at.child("patchType"), unknown, &["ApplyConfiguration", "JSONPatch"]);
                continue;
            }
        };
        let kind = tree::text(mutation, "patchType");
        let (source, path) = (tree::text(&mutation[own], "expression").trim(), at.child(own).child("expression"));
        if !tree::has(mutation, own) {
            errors.required(&at.child(own), &format!("must be specified when patchType is {kind}"));
        } else if errors.needs(&path, source, "") {
            expressions.check(errors, &path, source, wanted, declared);
        }
        if tree::has(mutation, other) {
            let words = format!("must not be specified when patchType is {kind}");
            errors.invalid(&at.child(other), format!("{{{other}}}"), &words);
        }
    }
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

fn match_constraints(errors: &mut Errors, at: &Path, constraints: &Value, mutating: bool) {
    if constraints.is_null() {
        return errors.required(at, "");
    }
    match_resources(errors, at, constraints);
    if tree::list(constraints, "resourceRules").is_empty() {
        errors.required(&at.child("resourceRules"), "");
    }
    if mutating {
        mutable_operations(errors, at, constraints);
    }
}

/// What is deleted can't be changed. Upstream names the place without the numbers of rule and operation.
fn mutable_operations(errors: &mut Errors, at: &Path, resources: &Value) {
    const MUTABLE: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
    let path = at.child("resourceRules").child("operations");
    let rules = tree::list(resources, "resourceRules").iter();
    for operation in rules.flat_map(|rule| tree::list(rule, "operations")) {
        errors.one_of(&path, operation.as_str().unwrap_or(""), MUTABLE);
    }
}

fn match_resources(errors: &mut Errors, at: &Path, resources: &Value) {
    webhook::optional(errors, at, resources, "matchPolicy", &["Equivalent", "Exact"]);
    webhook::selectors(errors, at, resources);
    for field in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in tree::list(resources, field).iter().enumerate() {
            webhook::validate_named_rule(errors, &at.child(field).index(i), rule);
        }
    }
}

/// Words that CEL keeps for itself.
const RESERVED: &str = "as break const continue else false for function if import in let loop namespace null package \
                        return true var void while";

fn variables(errors: &mut Errors, path: &Path, variables: &[Value], expressions: &mut PolicyExpressions) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        let own = tree::text(variable, "name");
        if own.trim().is_empty() {
            errors.required(&at.child("name"), "name is not specified");
        } else if !name::c_identifier(own).is_empty() || RESERVED.split(' ').any(|word| word == own) {
            errors.invalid(&at.child("name"), own, "must be a valid CEL identifier");
        }
        let (source, path) = (tree::text(variable, "expression"), at.child("expression"));
        if errors.needs(&path, source.trim(), "expression is not specified")
            && let Err(why) = expressions.compiler.variable(own, source, expressions.declared)
        {
            errors.invalid(&path, source, &why);
        }
    }
}

/// The key of an annotation is qualified by the name of the policy.
fn audit_annotations(
    errors: &mut Errors,
    path: &Path,
    annotations: &[Value],
    policy: &str,
    expressions: &PolicyExpressions,
) {
    const MAX: usize = 20;
    const MAX_EXPRESSION_BYTES: usize = 5 * 1024;
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
        let (source, value_at) = (tree::text(annotation, "valueExpression"), at.child("valueExpression"));
        if source.trim().len() > MAX_EXPRESSION_BYTES {
            errors.required(&value_at, &format!("must not exceed {MAX_EXPRESSION_BYTES} bytes in length"));
        } else if errors.needs(&value_at, source.trim(), "valueExpression is not specified") {
            let compiled = expressions.compiler.compile(source.trim(), Wanted::TextOrNull, expressions.declared);
            if let Err(why) = compiled {
                errors.invalid(&value_at, source, &why);
            }
        }
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
            if self.mutating {
                mutable_operations(errors, &path.child("matchResources"), &spec["matchResources"]);
            } else {
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
    const EITHER: &str = "name and selector are mutually exclusive";
    let (name, selects) = (tree::text(reference, "name"), tree::has(reference, "selector"));
    if !name.is_empty() {
        errors.invalid_for(&at.child("name"), name, names::path_segment_errors(name, false));
    }
    if !name.is_empty() && selects {
        errors.forbidden(&at.child("name"), EITHER);
    }
    if selects {
        crate::check::selector::labels(errors, &at.child("selector"), &reference["selector"]);
    }
    if !name.is_empty() && selects {
        errors.forbidden(&at.child("selector"), EITHER);
    }
    if name.is_empty() && !selects {
        errors.required(at, "one of name or selector must be specified");
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
        errors.one_of(&path.index(i), action, &["Audit", "Deny", "Warn"]);
        if !seen.first(action) {
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
