//! matchConditions: expressions that a write must fulfil before a hook is asked about it.

use super::review;
use pintle_cel::library::{authorizer_type, kubernetes};
use pintle_cel::{Budget, Env, Program, Type, Value as CelValue, Variables, cost};
use pintle_registry::Attributes;
use serde_json::{Value, json};
use std::sync::{LazyLock, OnceLock};

/// What all conditions of a hook may cost together.
const BUDGET: u64 = cost::PER_CALL_LIMIT * 5 / 2;

static ENVIRONMENT: LazyLock<Env> = LazyLock::new(|| {
    let mut builder = Env::builder();
    for library in kubernetes() {
        builder = builder.library(library);
    }
    for name in ["object", "oldObject", "request"] {
        builder = builder.variable(name, Type::Dyn);
    }
    builder.variable("authorizer", authorizer_type()).build()
});

/// One condition; compiled when it is first needed.
pub(super) struct Condition {
    name: String,
    expression: String,
    program: OnceLock<Result<Program, String>>,
}

impl Condition {
    pub fn new(condition: &Value) -> Self {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        Self { name: text("name"), expression: text("expression"), program: OnceLock::new() }
    }

    fn program(&self) -> Result<&Program, String> {
        let compile = || ENVIRONMENT.compile(&self.expression).map_err(|issues| issues.to_string());
        self.program.get_or_init(compile).as_ref().map_err(|why| format!("compilation failed: {why}"))
    }
}

/// Whether all conditions hold. A condition that is false outweighs others that fail; the error names those.
pub(super) fn hold(conditions: &[Condition], attributes: &Attributes<'_>) -> Result<bool, String> {
    if conditions.is_empty() {
        return Ok(true);
    }
    let request = request(attributes);
    let variables = Variables::new()
        .with("object", value_of(attributes.object.as_ref()))
        .with("oldObject", value_of(attributes.old_object.as_deref()))
        .with("request", CelValue::of_json(&request, &Type::Dyn));
    let mut budget = Budget::new(cost::PER_CALL_LIMIT, BUDGET);
    let mut errors = Vec::new();
    for condition in conditions {
        let outcome = condition
            .program()
            .and_then(|program| program.eval(&variables, &mut budget).map_err(|error| error.to_string()));
        match outcome {
            Ok(value) if value.as_bool() == Some(false) => return Ok(false),
            Ok(_) => {}
            Err(why) => errors.push(format!("error evaluating match condition {:?}: {why}", condition.name)),
        }
    }
    match errors.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn value_of(value: Option<&Value>) -> CelValue<'_> {
    value.map_or(CelValue::Null, |value| CelValue::of_json(value, &Type::Dyn))
}

/// The variable `request`.
fn request(attributes: &Attributes<'_>) -> Value {
    let def = attributes.def;
    let kind = json!({"group": def.group, "version": def.version, "kind": def.kind});
    let resource = json!({"group": def.group, "version": def.version, "resource": def.resource});
    let user = attributes.user;
    json!({
        "kind": kind, "resource": resource, "subResource": attributes.subresource,
        "requestKind": kind, "requestResource": resource, "requestSubResource": attributes.subresource,
        "name": attributes.name, "namespace": review::namespace(attributes),
        "operation": attributes.operation.as_str(), "dryRun": attributes.dry_run, "options": attributes.options,
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
    })
}
