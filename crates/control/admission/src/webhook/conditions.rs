//! matchConditions: expressions that a write must fulfil before a hook is asked about it.

use super::World;
use super::exchange::{Call, as_seen};
use crate::policy::access::evaluated;
use crate::policy::activation;
use pintle_cel::admission::{CONDITIONS_BUDGET, Compiler, Declarations, Wanted, request_type};
use pintle_cel::cost::PER_CALL_LIMIT;
use pintle_cel::library::{AuthorizerValue, Query};
use pintle_cel::{Budget, EvalError, Program, Type, Value as CelValue, Variables};
use pintle_registry::Attributes;
use pintle_types::Status;
use serde_json::Value;
use std::sync::{LazyLock, OnceLock};

/// One condition; compiled when it is first needed.
pub(super) struct Condition {
    expression: String,
    program: OnceLock<Result<Program, String>>,
}

impl Condition {
    pub fn new(condition: &Value) -> Self {
        let expression = condition["expression"].as_str().unwrap_or_default().to_owned();
        Self { expression, program: OnceLock::new() }
    }

    fn program(&self) -> Result<&Program, String> {
        let declared = Declarations { authorizer: true, ..Declarations::default() };
        let compile = || Compiler::plain().compile(&self.expression, Wanted::Bool, declared);
        self.program.get_or_init(compile).as_ref().map_err(|why| format!("compilation error: {why}"))
    }

    fn value(&self, variables: &Variables<'_>, budget: &mut Budget) -> Result<bool, String> {
        let value = self.program()?.eval(variables, budget).map_err(|error| match error {
            EvalError::OutOfBudget => OUT_OF_BUDGET.to_owned(),
            error => format!("expression '{}' resulted in error: {error}", self.expression),
        })?;
        Ok(value.as_bool() != Some(false))
    }
}

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What conditions read.
struct Scope<'a> {
    object: Option<&'a Value>,
    old: Option<&'a Value>,
    request: &'a Value,
    authorizer: &'a AuthorizerValue,
    check: &'a Query,
}

impl<'a> Scope<'a> {
    fn variables(&self) -> Variables<'a> {
        static REQUEST: LazyLock<Type> = LazyLock::new(request_type);
        let of = |value: Option<&'a Value>| value.map_or(CelValue::Null, |value| CelValue::of_json(value, &Type::Dyn));
        Variables::new()
            .with("object", of(self.object))
            .with("oldObject", of(self.old))
            .with("request", CelValue::of_json(self.request, &REQUEST))
            .with("authorizer", CelValue::opaque(self.authorizer.clone()))
            .with("authorizer.requestResource", CelValue::opaque(self.authorizer.resource_check(self.check.clone())))
    }
}

/// Whether all conditions hold. A condition that is false outweighs others that fail; the inner error names those.
pub(super) async fn hold(
    world: &World<'_>,
    call: &Call,
    attributes: &Attributes<'_>,
) -> Result<Result<bool, String>, Status> {
    let object = as_seen(call, attributes, attributes.object.as_ref()).await?;
    let old = as_seen(call, attributes, attributes.old_object.as_deref()).await?;
    let request = activation::request(attributes, call.seen.as_deref().unwrap_or(attributes.def));
    let check = activation::request_check(attributes);
    let (decisions, authorizer) = activation::authorizer();
    let scope = Scope {
        object: object.as_deref(),
        old: old.as_deref(),
        request: &request,
        authorizer: &authorizer,
        check: &check,
    };
    Ok(evaluated(&decisions, world.access, attributes.user, || all(&call.hook.conditions, &scope)).await)
}

fn all(conditions: &[Condition], scope: &Scope<'_>) -> Result<bool, String> {
    let variables = scope.variables();
    let mut budget = Budget::new(PER_CALL_LIMIT, CONDITIONS_BUDGET);
    let mut errors: Vec<String> = Vec::new();
    for condition in conditions {
        match condition.value(&variables, &mut budget) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(why) if why == OUT_OF_BUDGET => return Err(why),
            Err(why) if !errors.contains(&why) => errors.push(why),
            Err(_) => {}
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}
