//! Checking the expressions of a policy against the kinds that it matches: warnings for its status.
//!
//! Source: `pkg/admission/plugin/policy/validating/typechecking.go` of Kubernetes' apiserver.

use super::definition::text;
use super::params::shown;
use pintle_cel::Type;
use pintle_cel::admission::{Compiler, Declarations};
use pintle_cel::schema::{Decl, of_built_in};
use pintle_kinds::{ResourceDef, Table};
use pintle_schema::Schema;
use pintle_types::names::{GroupVersion, GroupVersionKind};
use serde_json::Value;
use std::collections::BTreeSet;

/// Of more kinds no policy is checked.
const MAX_KINDS: usize = 10;

/// What is wrong with an expression for some of the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// `spec.validations[0].expression`
    pub field: String,
    pub warning: String,
}

/// All warnings about the validations of a ValidatingAdmissionPolicy.
pub fn check_types(table: &Table, policy: &Value) -> Vec<Warning> {
    let spec = &policy["spec"];
    let kinds: Vec<(GroupVersionKind, Type)> = kinds(table, &spec["matchConstraints"])
        .into_iter()
        .filter_map(|kind| Some((kind.clone(), type_of(table, &kind)?)))
        .collect();
    let params = spec["paramKind"].is_object();
    let param_type = param_kind(&spec["paramKind"]).and_then(|kind| type_of(table, &kind)).unwrap_or(Type::Dyn);
    let declared = Declarations { params, authorizer: true, mutation: false };
    let compilers: Vec<(String, Compiler)> = kinds
        .into_iter()
        .map(|(kind, object)| {
            let mut compiler = Compiler::composed().with_types(object, param_type.clone());
            for variable in spec["variables"].as_array().into_iter().flatten() {
                // One that does not compile is anything to the others.
                let _ = compiler.variable(&text(variable, "name"), &text(variable, "expression"), declared);
            }
            (shown(&kind), compiler)
        })
        .collect();
    let mut warnings = Vec::new();
    for (i, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let source = text(validation, field);
            if source.is_empty() {
                continue;
            }
            let issues = compilers.iter().filter_map(|(kind, compiler)| {
                compiler.issues(&source, declared).map(|issues| format!("{kind}: {issues}\n"))
            });
            let issues: Vec<String> = issues.collect();
            if !issues.is_empty() {
                let field = format!("spec.validations[{i}].{field}");
                warnings.push(Warning { field, warning: issues.join("\n") });
            }
        }
    }
    warnings
}

fn param_kind(kind: &Value) -> Option<GroupVersionKind> {
    let version = GroupVersion::parse(kind["apiVersion"].as_str()?)?;
    Some(GroupVersionKind::new(version.group, version.version, text(kind, "kind")))
}

/// The kinds that rules name in full, in order.
fn kinds(table: &Table, constraints: &Value) -> BTreeSet<GroupVersionKind> {
    let mut found = BTreeSet::new();
    for rule in constraints["resourceRules"].as_array().into_iter().flatten() {
        let texts = |field: &str| -> BTreeSet<&str> {
            rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let resources = texts("resources");
        let resources = || resources.iter().filter(|name| !name.contains(['*', '/']));
        for (group, version) in groups.iter().flat_map(|group| versions.iter().map(move |version| (group, version))) {
            for def in resources().filter_map(|resource| table.get(group, version, resource)) {
                found.insert(def.gvk());
                if found.len() == MAX_KINDS {
                    return found;
                }
            }
        }
    }
    found
}

fn type_of(table: &Table, kind: &GroupVersionKind) -> Option<Type> {
    let def = table.by_kind(&kind.group, &kind.version, &kind.kind)?;
    match custom_schema(def) {
        Some(schema) => Decl::of_schema(schema, true, &kind.kind).map(|decl| decl.value.clone()),
        None => Schema::builtin().kind(&kind.group, &kind.version, &kind.kind).map(of_built_in),
    }
}

fn custom_schema(def: &ResourceDef) -> Option<&Value> {
    def.schema.as_ref().and_then(|schema| schema.source())
}
