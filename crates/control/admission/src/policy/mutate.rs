//! Changing a write by the policies that concern it, in the order of their names.
//!
//! Source: `pkg/admission/plugin/policy/{generic,mutating}` of Kubernetes' apiserver.

use super::access::evaluated;
use super::activation::{self, Activation, Scope};
use super::definition::{Binding, Mutation, Policy};
use super::json::{check_type_names, to_json};
use super::validate::{Ground, binding_concerns, both, convert, converted, shown_name};
use super::{Hook, Policies, World, params};
use crate::matching::Seen;
use pintle_cel::admission::POLICY_BUDGET;
use pintle_cel::cost::PER_CALL_LIMIT;
use pintle_cel::{Budget, Struct, Value as CelValue};
use pintle_registry::{Attributes, Operation};
use pintle_schema::patch::PatchError;
use pintle_types::status::{Cause, Reason, Status};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A policy, a binding and a parameter (its namespace and name).
type Key = (String, String, String, String);

/// What must be remembered between the two passes of mutation by policies.
pub type Reinvocation = crate::Reinvocation<Key>;

/// A policy that is to be evaluated.
struct Invocation {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    seen: Seen,
    param: Value,
}

impl Invocation {
    fn key(&self) -> Key {
        let text = |field: &str| self.param["metadata"][field].as_str().unwrap_or_default().to_owned();
        (self.policy.name.clone(), self.binding.name.clone(), text("namespace"), text("name"))
    }
}

/// A policy that could not be evaluated.
struct Failed {
    policy: String,
    binding: Option<String>,
    why: String,
    /// Whether an expression failed, rather than the policy's settings.
    invalid: bool,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.binding {
            Some(binding) => {
                write!(f, "policy '{}' with binding '{binding}' denied request: {}", self.policy, self.why)
            }
            None => write!(f, "policy {:?} denied request: {}", self.policy, self.why),
        }
    }
}

/// All failures of a request that count.
#[derive(Default)]
struct Failures(Vec<Failed>);

impl Failures {
    fn add(&mut self, policy: &Policy, binding: Option<&Binding>, why: String, invalid: bool) {
        if policy.fail {
            let binding = binding.map(|binding| binding.name.clone());
            self.0.push(Failed { policy: policy.name.clone(), binding, why, invalid });
        }
    }

    fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.add(policy, binding, format!("failed to configure {what}: {why}"), false);
    }

    fn into_result(self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let Some(first) = self.0.first() else { return Ok(()) };
        let def = attributes.def;
        let mut status = Status::forbidden(&def.group, &def.resource, shown_name(attributes), "");
        status.message = first.to_string();
        if first.invalid {
            status.reason = Reason::Invalid;
        }
        if let Some(details) = &mut status.details {
            let causes = self.0.iter().map(|failed| Cause { message: failed.to_string(), ..Cause::default() });
            details.causes.extend(causes);
        }
        Err(status)
    }
}

impl Policies {
    /// Changes the object as the policies say. A second pass, when one is wanted, only evaluates those that asked to
    /// see what was changed after them.
    pub async fn mutate(
        &self,
        world: &World<'_>,
        attributes: &mut Attributes<'_>,
        state: &mut Reinvocation,
    ) -> Result<(), Status> {
        let hooks = self.mutating.hooks(attributes);
        if hooks.is_empty() || attributes.operation == Operation::Delete {
            return Ok(());
        }
        let mut failures = Failures::default();
        let mut invocations = Vec::new();
        for hook in &hooks {
            collect(world, attributes, hook, &mut invocations, &mut failures).await;
        }
        if !invocations.is_empty() {
            run(world, attributes, state, &invocations, &mut failures).await?;
        }
        failures.into_result(attributes)
    }
}

async fn collect(
    world: &World<'_>,
    attributes: &Attributes<'_>,
    hook: &Hook,
    invocations: &mut Vec<Invocation>,
    failures: &mut Failures,
) {
    let policy = &hook.policy;
    let seen = match policy.constraints.concern(world, attributes).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return,
        Err(status) => return failures.misconfigured(policy, None, &status.message),
    };
    let param_def = match params::resource(world, policy) {
        Ok(def) => def,
        Err(why) => return failures.misconfigured(policy, None, &why),
    };
    for binding in hook.bindings.iter() {
        let params = match binding_concerns(world, attributes, binding).await {
            Ok(true) => params::collect(world, param_def.as_ref(), binding, attributes.namespace).await,
            Ok(false) => continue,
            Err(status) => Err(status.message),
        };
        match params {
            Ok(params) => invocations.extend(params.into_iter().map(|param| Invocation {
                policy: policy.clone(),
                binding: binding.clone(),
                seen: seen.clone(),
                param,
            })),
            Err(why) => failures.misconfigured(policy, Some(binding), &why),
        }
    }
}

async fn run(
    world: &World<'_>,
    attributes: &mut Attributes<'_>,
    state: &mut Reinvocation,
    invocations: &[Invocation],
    failures: &mut Failures,
) -> Result<(), Status> {
    state.begin(&attributes.object);
    let ground = Ground::new(world, attributes).await?;
    for invocation in invocations {
        let key = invocation.key();
        if state.skips(&key) {
            continue;
        }
        let before = attributes.object.clone();
        let called = invoke(world, attributes, &ground, invocation, failures).await;
        if attributes.object != before {
            state.changed();
        }
        if called && invocation.policy.reinvoke {
            state.called(key);
        }
    }
    state.end(&attributes.object);
    Ok(())
}

/// Applies all mutations of a policy, each to what the one before has made. Whether the policy's conditions hold.
async fn invoke(
    world: &World<'_>,
    attributes: &mut Attributes<'_>,
    ground: &Ground,
    invocation: &Invocation,
    failures: &mut Failures,
) -> bool {
    let policy = &invocation.policy;
    let mut fail = |why: String| failures.add(policy, Some(&invocation.binding), why, true);
    let holds = {
        let activate = |activation: &Activation<'_>| activation.conditions_hold(policy.fail);
        with_activation(world, attributes, ground, invocation, activate).await.and_then(|holds| holds)
    };
    match holds {
        Ok(true) => {}
        Ok(false) => return false,
        Err(why) => {
            fail(why);
            return false;
        }
    }
    for mutation in &policy.expressions().mutations {
        if attributes.object.is_none() {
            continue;
        }
        let change = |activation: &Activation<'_>| Change::evaluate(mutation, activation);
        let change = with_activation(world, attributes, ground, invocation, change).await.and_then(|change| change);
        let applied = match change {
            Ok(change) => change.apply(attributes, &invocation.seen).await,
            Err(why) => Err(why),
        };
        if let Err(why) = applied {
            fail(why);
        }
    }
    true
}

async fn with_activation<T>(
    world: &World<'_>,
    attributes: &Attributes<'_>,
    ground: &Ground,
    invocation: &Invocation,
    evaluate: impl Fn(&Activation<'_>) -> T,
) -> Result<T, String> {
    let seen = &invocation.seen;
    let (object, old) = both(seen, attributes).await?;
    let request = activation::request(attributes, seen.as_deref().unwrap_or(attributes.def));
    let value = evaluated(&ground.decisions, world.access, attributes.user, || {
        let scope = Scope {
            object: object.as_deref(),
            old_object: old.as_deref(),
            request: &request,
            namespace: &ground.namespace,
            params: &invocation.param,
            authorizer: &ground.authorizer,
            check: &ground.check,
        };
        evaluate(&Activation::new(scope, invocation.policy.expressions()))
    })
    .await;
    Ok(value)
}

/// What a mutation wants.
enum Change {
    Configuration(Value),
    Patches(Value),
}

impl Change {
    fn evaluate(mutation: &Mutation, activation: &Activation<'_>) -> Result<Self, String> {
        let mut budget = Budget::new(PER_CALL_LIMIT, POLICY_BUDGET);
        let (Mutation::Configuration(expression) | Mutation::Patches(expression)) = mutation;
        let compiled = expression.program.as_ref().err();
        if let Some(why) = compiled {
            return Err(why.clone());
        }
        let value = activation.value(expression, &mut budget).map_err(|failure| failure.text().to_owned())?;
        match mutation {
            Mutation::Configuration(_) => {
                check_type_names(&value)?;
                to_json(&value).map(Self::Configuration)
            }
            Mutation::Patches(_) => patches(&value).map(Self::Patches),
        }
    }

    async fn apply(self, attributes: &mut Attributes<'_>, seen: &Seen) -> Result<(), String> {
        let own = attributes.def.subresource(attributes.subresource).is_none_or(|sub| sub.body.is_none());
        let Some(before) = converted(seen, attributes, attributes.object.as_ref()).await? else { return Ok(()) };
        let before = before.into_owned();
        let def = seen.as_deref().unwrap_or(attributes.def);
        let ty = def.type_ref().filter(|_| own);
        let mut after = match self {
            Self::Configuration(mut configuration) => {
                configuration["apiVersion"] = before["apiVersion"].clone();
                configuration["kind"] = before["kind"].clone();
                let ty = ty.ok_or("error applying patch: type converter must not be nil")?;
                pintle_schema::apply::overlay(ty, &before, &configuration)
                    .map_err(|why| format!("error applying patch: {why}"))?
            }
            Self::Patches(operations) => match patched(before, &operations)? {
                Some(patched) => patched,
                // A test that does not hold leaves the object as it is.
                None => return Ok(()),
            },
        };
        if let Some(ty) = ty {
            if let Some(first) = pintle_schema::check::unknown_fields(ty, &mut after).first() {
                return Err(format!("strict decoding error: {first}"));
            }
            pintle_schema::check::types(ty, &after)?;
        }
        if let Some(seen) = seen.as_deref().filter(|_| own) {
            after = convert(seen, attributes.def, after).await?;
        }
        if own {
            attributes.def.default_object(&mut after);
            if let Some(ty) = attributes.def.type_ref() {
                pintle_schema::normalize::object(ty, &mut after);
            }
        }
        attributes.object = Some(after);
        Ok(())
    }
}

fn patched(mut object: Value, operations: &Value) -> Result<Option<Value>, String> {
    match pintle_schema::patch::json(&mut object, operations) {
        Ok(()) => Ok(Some(object)),
        Err(PatchError::Rejected(why)) if why.ends_with("test failed") => Ok(None),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}

/// The operations of a JSON patch.
fn patches(value: &CelValue<'_>) -> Result<Value, String> {
    let CelValue::List(list) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    list.iter().map(|item| operation(&item)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn operation(value: &CelValue<'_>) -> Result<Value, String> {
    let CelValue::Struct(made) = value else {
        let kind = value.runtime_type();
        return Err(format!(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {kind}"
        ));
    };
    let mut operation = Map::new();
    for field in ["op", "path"] {
        operation.insert(field.into(), text(made, field).into());
    }
    if !text(made, "from").is_empty() {
        operation.insert("from".into(), text(made, "from").into());
    }
    if let Some(value) = made.get("value") {
        if matches!(value, CelValue::Struct(_)) {
            check_type_names(value)?;
        }
        let value = to_json(value).map_err(|why| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {why}")
        })?;
        operation.insert("value".into(), value);
    }
    Ok(Value::Object(operation))
}

fn text(made: &Struct<'_>, field: &str) -> String {
    made.get(field).and_then(CelValue::as_str).unwrap_or_default().to_owned()
}
