//! Policies and bindings as they are used: what they match, and their expressions, compiled when first needed.

use super::Flavor;
use super::matching::Constraints;
use pintle_cel::Program;
use pintle_cel::admission::{Compiler, Declarations, Wanted};
use pintle_types::names::{GroupVersion, GroupVersionKind};
use serde_json::Value;
use std::sync::OnceLock;

/// A policy.
pub(super) struct Policy {
    pub name: String,
    pub spec: Value,
    flavor: Flavor,
    /// `failurePolicy: Fail`.
    pub fail: bool,
    /// The kind of parameters, or what is wrong with it.
    pub params: Option<Result<GroupVersionKind, String>>,
    pub constraints: Constraints,
    /// `reinvocationPolicy: IfNeeded`.
    pub reinvoke: bool,
    expressions: OnceLock<Expressions>,
}

/// Puts a policy into force.
pub(super) struct Binding {
    pub name: String,
    pub policy: String,
    /// `paramRef`, or null.
    pub params: Value,
    /// Nothing: as far as the policy matches.
    pub constraints: Option<Constraints>,
    /// `validationActions`.
    pub actions: Vec<String>,
}

/// All expressions of a policy.
pub(super) struct Expressions {
    pub variables: Vec<(Box<str>, Result<Program, String>)>,
    pub conditions: Vec<Expression>,
    pub validations: Vec<Validation>,
    /// By the keys of annotations.
    pub annotations: Vec<(String, Expression)>,
    pub mutations: Vec<Mutation>,
}

pub(super) struct Expression {
    pub source: String,
    pub program: Result<Program, String>,
}

pub(super) struct Validation {
    pub rule: Expression,
    pub message_expression: Option<Expression>,
    pub message: String,
    /// Empty for the default.
    pub reason: String,
}

pub(super) enum Mutation {
    Configuration(Expression),
    Patches(Expression),
}

pub(super) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

impl Policy {
    pub fn new(flavor: Flavor, policy: &Value) -> Self {
        let spec = policy["spec"].clone();
        Self {
            name: text(&policy["metadata"], "name"),
            flavor,
            fail: spec["failurePolicy"] != "Ignore",
            params: spec["paramKind"].is_object().then(|| param_kind(&spec["paramKind"])),
            constraints: Constraints::new(&spec["matchConstraints"]),
            reinvoke: spec["reinvocationPolicy"] == "IfNeeded",
            spec,
            expressions: OnceLock::new(),
        }
    }

    /// Compiled at the first call.
    pub fn expressions(&self) -> &Expressions {
        self.expressions.get_or_init(|| Expressions::compile(self))
    }
}

fn param_kind(kind: &Value) -> Result<GroupVersionKind, String> {
    let version = text(kind, "apiVersion");
    let parsed = GroupVersion::parse(&version)
        .ok_or_else(|| format!("failed to parse paramKind APIVersion: unexpected GroupVersion string: {version}"))?;
    Ok(GroupVersionKind::new(parsed.group, parsed.version, text(kind, "kind")))
}

impl Expressions {
    fn compile(policy: &Policy) -> Self {
        let spec = &policy.spec;
        let params = policy.params.is_some();
        let declared = Declarations { params, authorizer: true, mutation: false };
        let mut compiler = Compiler::composed();
        let variables = items(spec, "variables")
            .iter()
            .map(|variable| {
                let name = text(variable, "name");
                let program = compiler.variable(&name, &text(variable, "expression"), declared);
                (name.into_boxed_str(), program)
            })
            .collect();
        let expression = |source: String, wanted, declared| {
            let program = compiler.compile(&source, wanted, declared);
            Expression { source, program }
        };
        let condition = |condition: &Value| expression(text(condition, "expression"), Wanted::Bool, declared);
        let conditions = items(spec, "matchConditions").iter().map(condition).collect();
        let validation = |validation: &Value| {
            let unauthorized = Declarations { authorizer: false, ..declared };
            let message = Some(text(validation, "messageExpression")).filter(|source| !source.is_empty());
            Validation {
                rule: expression(text(validation, "expression"), Wanted::Bool, declared),
                message_expression: message.map(|source| expression(source, Wanted::Text, unauthorized)),
                message: text(validation, "message"),
                reason: text(validation, "reason"),
            }
        };
        let annotation = |annotation: &Value| {
            let value = text(annotation, "valueExpression");
            (text(annotation, "key"), expression(value, Wanted::TextOrNull, declared))
        };
        let mutating = Declarations { mutation: true, ..declared };
        let mutation = |mutation: &Value| match mutation["patchType"].as_str() {
            Some("JSONPatch") => {
                let source = text(&mutation["jsonPatch"], "expression");
                Mutation::Patches(expression(source, Wanted::Patches, mutating))
            }
            _ => {
                let source = text(&mutation["applyConfiguration"], "expression");
                Mutation::Configuration(expression(source, Wanted::Configuration, mutating))
            }
        };
        let validating = policy.flavor == Flavor::Validating;
        let of = |field: &str, wanted: bool| if wanted { items(spec, field) } else { &[] };
        Self {
            validations: of("validations", validating).iter().map(validation).collect(),
            annotations: of("auditAnnotations", validating).iter().map(annotation).collect(),
            mutations: of("mutations", !validating).iter().map(mutation).collect(),
            variables,
            conditions,
        }
    }
}

impl Binding {
    pub fn new(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let actions = items(spec, "validationActions").iter().filter_map(Value::as_str);
        Self {
            name: text(&binding["metadata"], "name"),
            policy: text(spec, "policyName"),
            params: spec["paramRef"].clone(),
            constraints: spec["matchResources"].is_object().then(|| Constraints::new(&spec["matchResources"])),
            actions: actions.map(str::to_owned).collect(),
        }
    }
}
