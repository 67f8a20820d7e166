//! Judging a write by the policies that concern it.
//!
//! Source: `pkg/admission/plugin/policy/validating` of Kubernetes' apiserver.

use super::access::{Decisions, evaluated};
use super::activation::{self, Activation, Failure, Scope};
use super::definition::{Binding, Policy, Validation};
use super::{Hook, Policies, World, params};
use crate::matching::{Seen, namespace};
use pintle_cel::admission::POLICY_BUDGET;
use pintle_cel::cost::PER_CALL_LIMIT;
use pintle_cel::library::{AuthorizerValue, Query};
use pintle_cel::{Budget, Value as CelValue};
use pintle_kinds::ResourceDef;
use pintle_registry::{Attributes, Operation};
use pintle_types::status::{Cause, Reason, Status};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

const MAX_MESSAGE_BYTES: usize = 5 * 1024;
const MAX_ANNOTATION_BYTES: usize = 10 * 1024;
/// How many failures the audit log is told of.
const MAX_FAILURES: usize = 50;
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";

/// What evaluating a policy for one parameter came to.
#[derive(Default)]
struct Verdict {
    /// By the validation's place; nothing for those that hold.
    denials: Vec<(usize, Denial)>,
    annotations: Vec<(String, String)>,
    /// Annotations that could not be computed; they deny whatever the binding's actions.
    annotation_errors: Vec<String>,
}

#[derive(Clone)]
struct Denial {
    message: String,
    /// Empty for the default.
    reason: String,
}

/// What a request's policies have found.
#[derive(Default)]
struct Findings {
    /// The first one that refuses.
    refusal: Option<(String, String)>,
    /// For the audit log.
    failures: Vec<Value>,
}

/// What is the same for all policies of a request.
pub(super) struct Ground {
    pub decisions: Arc<Decisions>,
    pub authorizer: AuthorizerValue,
    pub check: Query,
    pub namespace: Value,
}

impl Ground {
    pub async fn new(world: &World<'_>, attributes: &Attributes<'_>) -> Result<Self, Status> {
        let (decisions, authorizer) = activation::authorizer();
        let namespace = activation::namespace_object(namespace(world.registry, attributes).await?);
        Ok(Self { decisions, authorizer, check: activation::request_check(attributes), namespace })
    }
}

/// The version of an object that a policy matched.
pub(super) async fn converted<'v>(
    seen: &Seen,
    attributes: &Attributes<'_>,
    object: Option<&'v Value>,
) -> Result<Option<Cow<'v, Value>>, String> {
    let own_body = attributes.def.subresource(attributes.subresource).is_none_or(|sub| sub.body.is_none());
    let Some(object) = object else { return Ok(None) };
    Ok(Some(match seen {
        Some(seen) if own_body => Cow::Owned(convert(attributes.def, seen, object.clone()).await?),
        _ => Cow::Borrowed(object),
    }))
}

pub(super) async fn convert(from: &ResourceDef, to: &ResourceDef, mut object: Value) -> Result<Value, String> {
    let failed = |why: &str| format!("failed to convert object version: {why}");
    if let Some(converter) = from.strategy.converter() {
        let converted = converter.convert(vec![object], &to.api_version()).await;
        let last = converted.map_err(|status| failed(&status.message))?.pop();
        return last.ok_or_else(|| failed("the conversion answered no object"));
    }
    from.to_storage(&mut object);
    to.from_storage(&mut object);
    Ok(object)
}

/// The name that refusals call the object by.
pub(super) fn shown_name<'v>(attributes: &'v Attributes<'_>) -> &'v str {
    if !attributes.name.is_empty() {
        return attributes.name;
    }
    let metadata = attributes.object.as_ref().map(|object| &object["metadata"]).unwrap_or(&Value::Null);
    let given = |field: &str| metadata[field].as_str().filter(|name| !name.is_empty());
    given("name").or_else(|| given("generateName")).unwrap_or("Unknown")
}

impl Policies {
    /// Refuses what a policy denies; warns and notes what policies only warn of or audit.
    pub async fn validate(&self, world: &World<'_>, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let hooks = self.validating.hooks(attributes);
        if hooks.is_empty() {
            return Ok(());
        }
        let mut findings = Findings::default();
        let mut ground = None;
        for hook in &hooks {
            judge(world, attributes, hook, &mut ground, &mut findings).await?;
        }
        if !findings.failures.is_empty() {
            findings.failures.truncate(MAX_FAILURES);
            attributes.annotate(FAILURE_KEY, Value::Array(findings.failures).to_string());
        }
        match findings.refusal {
            Some((message, reason)) => Err(refusal(attributes, message, &reason)),
            None => Ok(()),
        }
    }
}

async fn judge(
    world: &World<'_>,
    attributes: &mut Attributes<'_>,
    hook: &Hook,
    ground: &mut Option<Ground>,
    findings: &mut Findings,
) -> Result<(), Status> {
    let policy = &hook.policy;
    let seen = match policy.constraints.concern(world, attributes).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return Ok(()),
        Err(status) => {
            findings.misconfigured(policy, None, &status.message);
            return Ok(());
        }
    };
    let param_def = match params::resource(world, policy) {
        Ok(def) => def,
        Err(why) => {
            findings.misconfigured(policy, None, &why);
            return Ok(());
        }
    };
    let mut noted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in hook.bindings.iter() {
        match binding_concerns(world, attributes, binding).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(status) => {
                findings.misconfigured(policy, Some(binding), &status.message);
                continue;
            }
        }
        let params = match params::collect(world, param_def.as_ref(), binding, attributes.namespace).await {
            Ok(params) => params,
            Err(why) => {
                findings.misconfigured(policy, Some(binding), &why);
                continue;
            }
        };
        for param in &params {
            if ground.is_none() {
                *ground = Some(Ground::new(world, attributes).await?);
            }
            let Some(ground) = ground else { continue };
            let verdict = evaluate(world, attributes, policy, &seen, ground, param).await;
            findings.take(attributes, policy, binding, verdict, &mut noted);
        }
    }
    for (key, values) in noted {
        attributes.annotate(&format!("{}/{key}", policy.name), values.join(", "));
    }
    Ok(())
}

pub(super) async fn binding_concerns(
    world: &World<'_>,
    attributes: &Attributes<'_>,
    binding: &Binding,
) -> Result<bool, Status> {
    match &binding.constraints {
        None => Ok(true),
        Some(constraints) => Ok(constraints.concern(world, attributes).await?.is_some()),
    }
}

async fn evaluate(
    world: &World<'_>,
    attributes: &Attributes<'_>,
    policy: &Policy,
    seen: &Seen,
    ground: &Ground,
    param: &Value,
) -> Verdict {
    let (object, old) = match both(seen, attributes).await {
        Ok(both) => both,
        Err(why) => return Verdict::failed(policy, &format!("failed to configure binding: {why}")),
    };
    let request = activation::request(attributes, seen.as_deref().unwrap_or(attributes.def));
    evaluated(&ground.decisions, world.access, attributes.user, || {
        let scope = Scope {
            object: object.as_deref().filter(|_| attributes.operation != Operation::Delete),
            old_object: old.as_deref(),
            request: &request,
            namespace: &ground.namespace,
            params: param,
            authorizer: &ground.authorizer,
            check: &ground.check,
        };
        verdict(policy, &Activation::new(scope, policy.expressions()))
    })
    .await
}

type Both<'v> = (Option<Cow<'v, Value>>, Option<Cow<'v, Value>>);

/// The new and the old object in the version that a policy matched.
pub(super) async fn both<'v>(seen: &Seen, attributes: &'v Attributes<'_>) -> Result<Both<'v>, String> {
    let object = converted(seen, attributes, attributes.object.as_ref()).await?;
    Ok((object, converted(seen, attributes, attributes.old_object.as_deref()).await?))
}

impl Verdict {
    /// What can't be evaluated denies, unless the policy ignores failures.
    fn failed(policy: &Policy, why: &str) -> Self {
        let denials = if policy.fail { vec![(0, Denial::error(why))] } else { Vec::new() };
        Self { denials, ..Self::default() }
    }
}

impl Denial {
    fn error(why: &str) -> Self {
        Self { message: why.to_owned(), reason: String::new() }
    }
}

fn verdict(policy: &Policy, activation: &Activation<'_>) -> Verdict {
    match activation.conditions_hold(policy.fail) {
        Ok(true) => {}
        Ok(false) => return Verdict::default(),
        Err(why) => return Verdict::failed(policy, &why),
    }
    let expressions = policy.expressions();
    let mut budget = Budget::new(PER_CALL_LIMIT, POLICY_BUDGET);
    let mut results = Vec::with_capacity(expressions.validations.len());
    for validation in &expressions.validations {
        match activation.value(&validation.rule, &mut budget) {
            Err(Failure::OutOfBudget) => return Verdict::failed(policy, Failure::OutOfBudget.text()),
            result => results.push(result),
        }
    }
    let mut made = Verdict::default();
    for (i, (validation, result)) in expressions.validations.iter().zip(results).enumerate() {
        let denial = match result {
            Ok(CelValue::Bool(true)) => continue,
            Ok(_) => match message(validation, activation, &mut budget) {
                Ok(message) => Denial { message, reason: validation.reason.clone() },
                Err(why) if policy.fail => Denial::error(&why),
                Err(_) => continue,
            },
            Err(failure) if policy.fail => Denial::error(failure.text()),
            Err(_) => continue,
        };
        made.denials.push((i, denial));
    }
    annotations(policy, activation, made)
}

/// What a failed validation says.
fn message(validation: &Validation, activation: &Activation<'_>, budget: &mut Budget) -> Result<String, String> {
    let computed = match validation.message_expression.as_ref().map(|source| activation.value(source, budget)) {
        Some(Err(Failure::OutOfBudget)) => {
            return Err(format!("failed messageExpression: {}", Failure::OutOfBudget.text()));
        }
        Some(Ok(value)) => value.as_str().map(|text| text.trim().to_owned()),
        _ => None,
    };
    let fine = |text: &String| !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n');
    if let Some(text) = computed.filter(fine) {
        return Ok(text);
    }
    Ok(match validation.message.trim() {
        "" => format!("failed expression: {}", validation.rule.source.trim()),
        text => text.to_owned(),
    })
}

fn annotations(policy: &Policy, activation: &Activation<'_>, mut made: Verdict) -> Verdict {
    let mut budget = Budget::new(PER_CALL_LIMIT, POLICY_BUDGET);
    for (key, expression) in &policy.expressions().annotations {
        match activation.value(expression, &mut budget) {
            Err(Failure::OutOfBudget) => return Verdict::failed(policy, Failure::OutOfBudget.text()),
            Err(Failure::Error(why)) if policy.fail => made.annotation_errors.push(why),
            Err(Failure::Error(_)) => {}
            Ok(value) => {
                let text = value.as_str().unwrap_or("").trim();
                if !text.is_empty() {
                    made.annotations.push((key.clone(), text.to_owned()));
                }
            }
        }
    }
    made
}

impl Findings {
    fn refuse(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str, reason: &str) {
        if self.refusal.is_some() {
            return;
        }
        let name = &policy.name;
        let message = match binding {
            Some(binding) => {
                format!("ValidatingAdmissionPolicy '{name}' with binding '{}' denied request: {why}", binding.name)
            }
            None => format!("ValidatingAdmissionPolicy '{name}' denied request: {why}"),
        };
        self.refusal = Some((message, reason.to_owned()));
    }

    fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if policy.fail {
            let what = if binding.is_some() { "binding" } else { "policy" };
            self.refuse(policy, binding, &format!("failed to configure {what}: {why}"), "");
        }
    }

    /// Does what the binding says with what was found.
    fn take(
        &mut self,
        attributes: &mut Attributes<'_>,
        policy: &Policy,
        binding: &Binding,
        verdict: Verdict,
        noted: &mut BTreeMap<String, Vec<String>>,
    ) {
        for (i, denial) in verdict.denials {
            for action in &binding.actions {
                match &**action {
                    "Deny" => self.refuse(policy, Some(binding), &denial.message, &denial.reason),
                    "Audit" => self.failures.push(json!({
                        "message": denial.message,
                        "policy": binding.policy,
                        "binding": binding.name,
                        "expressionIndex": i,
                        "validationActions": binding.actions,
                    })),
                    _ => attributes.warnings.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, denial.message
                    )),
                }
            }
        }
        for why in verdict.annotation_errors {
            self.refuse(policy, Some(binding), &why, "");
        }
        for (key, mut value) in verdict.annotations {
            if value.len() > MAX_ANNOTATION_BYTES {
                let end = (0..=MAX_ANNOTATION_BYTES).rev().find(|at| value.is_char_boundary(*at));
                value.truncate(end.unwrap_or(0));
            }
            let values = noted.entry(key).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
}

fn refusal(attributes: &Attributes<'_>, message: String, reason: &str) -> Status {
    let def = attributes.def;
    let mut status = Status::forbidden(&def.group, &def.resource, shown_name(attributes), &message);
    (status.code, status.reason) = match reason {
        "Forbidden" => (403, Reason::Forbidden),
        "Unauthorized" => (401, Reason::Unauthorized),
        "RequestEntityTooLarge" => (413, Reason::RequestEntityTooLarge),
        _ => (422, Reason::Invalid),
    };
    if let Some(details) = &mut status.details {
        details.causes.push(Cause { message, ..Cause::default() });
    }
    status
}
