//! One evaluation of a policy: what its variables are, and how its expressions fail.

use super::access::Decisions;
use super::definition::{Expression, Expressions};
use crate::webhook::review;
use pintle_cel::admission::{CONDITIONS_BUDGET, namespace_type, request_type};
use pintle_cel::cost::PER_CALL_LIMIT;
use pintle_cel::library::{AuthorizerValue, Query};
use pintle_cel::{Activation as Names, Budget, EvalError, Program, Type, Value as CelValue};
use pintle_kinds::ResourceDef;
use pintle_registry::Attributes;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What expressions of a policy read.
pub(super) struct Scope<'a> {
    pub object: Option<&'a Value>,
    pub old_object: Option<&'a Value>,
    pub request: &'a Value,
    /// Null for what is in no namespace.
    pub namespace: &'a Value,
    /// Null for none.
    pub params: &'a Value,
    pub authorizer: &'a AuthorizerValue,
    /// The check of what is written.
    pub check: &'a Query,
}

/// An evaluation of one policy's expressions. Variables are computed once in it.
pub(super) struct Activation<'a> {
    scope: Scope<'a>,
    expressions: &'a Expressions,
    computed: RefCell<HashMap<&'a str, Result<CelValue<'a>, EvalError>>>,
}

/// Why an expression has no value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing more may be evaluated.
    OutOfBudget,
    Error(String),
}

impl Failure {
    pub fn text(&self) -> &str {
        match self {
            Self::OutOfBudget => OUT_OF_BUDGET,
            Self::Error(text) => text,
        }
    }
}

impl<'a> Activation<'a> {
    pub fn new(scope: Scope<'a>, expressions: &'a Expressions) -> Self {
        Self { scope, expressions, computed: RefCell::default() }
    }

    /// The value of an expression.
    pub fn value(&self, expression: &Expression, budget: &mut Budget) -> Result<CelValue<'a>, Failure> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Err(Failure::Error(format!("compilation error: {why}"))),
        };
        program.eval(self, budget).map_err(|error| match error {
            EvalError::OutOfBudget => Failure::OutOfBudget,
            error => Failure::Error(format!("expression '{}' resulted in error: {error}", expression.source)),
        })
    }

    /// Whether all match conditions hold. One that is false outweighs others that fail.
    pub fn conditions_hold(&self, fail: bool) -> Result<bool, String> {
        let mut budget = Budget::new(PER_CALL_LIMIT, CONDITIONS_BUDGET);
        let mut errors: Vec<String> = Vec::new();
        for condition in &self.expressions.conditions {
            match self.value(condition, &mut budget) {
                Ok(CelValue::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(Failure::OutOfBudget) if fail => return Err(OUT_OF_BUDGET.into()),
                Err(Failure::OutOfBudget) => return Ok(false),
                Err(Failure::Error(text)) => errors.push(text),
            }
        }
        errors.dedup();
        match errors.as_slice() {
            [] => Ok(true),
            _ if !fail => Ok(false),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    fn compute(
        &self,
        name: &str,
        program: &Result<Program, String>,
        budget: &mut Budget,
    ) -> Result<CelValue<'a>, EvalError> {
        let program = program
            .as_ref()
            .map_err(|why| EvalError::other(format!("composited variable {name:?} fails to compile: {why}")))?;
        program.eval(self, budget).map_err(|error| match error {
            fatal if fatal.is_fatal() => fatal,
            error => EvalError::other(format!("composited variable {name:?} fails to evaluate: {error}")),
        })
    }
}

fn of_json<'a>(value: Option<&'a Value>, declared: &Type) -> CelValue<'a> {
    value.map_or(CelValue::Null, |value| CelValue::of_json(value, declared))
}

impl<'a> Names<'a> for Activation<'a> {
    fn variable(&self, name: &str) -> Option<CelValue<'a>> {
        static REQUEST: LazyLock<Type> = LazyLock::new(request_type);
        static NAMESPACE: LazyLock<Type> = LazyLock::new(namespace_type);
        let scope = &self.scope;
        Some(match name {
            "object" => of_json(scope.object, &Type::Dyn),
            "oldObject" => of_json(scope.old_object, &Type::Dyn),
            "request" => CelValue::of_json(scope.request, &REQUEST),
            "namespaceObject" => CelValue::of_json(scope.namespace, &NAMESPACE),
            "params" => CelValue::of_json(scope.params, &Type::Dyn),
            "authorizer" => CelValue::opaque(scope.authorizer.clone()),
            "authorizer.requestResource" => CelValue::opaque(scope.authorizer.resource_check(scope.check.clone())),
            _ => return None,
        })
    }

    fn member(&self, variable: &str, field: &str, budget: &mut Budget) -> Option<Result<CelValue<'a>, EvalError>> {
        let (name, program) =
            self.expressions.variables.iter().find(|(name, _)| variable == "variables" && **name == *field)?;
        if let Some(known) = self.computed.borrow().get(&**name) {
            return Some(known.clone());
        }
        let computed = self.compute(name, program, budget);
        // What is not decided yet is asked again.
        if !matches!(computed, Err(EvalError::Interrupted)) {
            self.computed.borrow_mut().insert(name, computed.clone());
        }
        Some(computed)
    }
}

/// The kind of what is written, in a version.
fn kind_of(def: &ResourceDef, attributes: &Attributes<'_>) -> Value {
    match def.subresource(attributes.subresource).and_then(|sub| sub.body.as_ref()) {
        Some(body) => json!({"group": body.group, "version": body.version, "kind": body.kind}),
        None => json!({"group": def.group, "version": def.version, "kind": def.kind}),
    }
}

/// The variable `request`. `seen` is the version that the policy matched.
pub(crate) fn request(attributes: &Attributes<'_>, seen: &ResourceDef) -> Value {
    let gvr = |def: &ResourceDef| json!({"group": def.group, "version": def.version, "resource": def.resource});
    let user = attributes.user;
    json!({
        "kind": kind_of(seen, attributes),
        "resource": gvr(seen),
        "subResource": attributes.subresource,
        "requestKind": kind_of(attributes.def, attributes),
        "requestResource": gvr(attributes.def),
        "requestSubResource": attributes.subresource,
        "name": attributes.name,
        "namespace": review::namespace(attributes),
        "operation": attributes.operation.as_str(),
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    })
}

/// The check that `authorizer.requestResource` begins with.
pub(crate) fn request_check(attributes: &Attributes<'_>) -> Query {
    Query {
        group: attributes.def.group.as_str().into(),
        resource: attributes.def.resource.as_str().into(),
        subresource: attributes.subresource.into(),
        namespace: review::namespace(attributes).into(),
        name: attributes.name.into(),
        ..Query::default()
    }
}

/// The variable `authorizer` of one request, which remembers what was decided.
pub(crate) fn authorizer() -> (Arc<Decisions>, AuthorizerValue) {
    let decisions = Arc::new(Decisions::default());
    (decisions.clone(), AuthorizerValue::new(decisions))
}

/// What expressions see of a namespace.
pub(crate) fn namespace_object(namespace: Option<Value>) -> Value {
    const FIELDS: [&str; 12] = [
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "finalizers",
    ];
    let Some(mut namespace) = namespace else { return Value::Null };
    if let Some(metadata) = namespace["metadata"].as_object_mut() {
        metadata.retain(|field, _| FIELDS.contains(&field.as_str()));
    }
    json!({"metadata": namespace["metadata"].take(), "spec": namespace["spec"].take(), "status": namespace["status"].take()})
}
