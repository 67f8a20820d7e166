//! Asks the hooks that a write concerns: mutating ones one after the other, validating ones at once.
//!
//! Source: `pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go` of Kubernetes' apiserver.

use super::config::{Flavor, Hook};
use super::matching::{Seen, is_exempt};
use super::metrics::Ended;
use super::review::{self, Verdict};
use super::{Webhooks, World, conditions};
use pintle_kinds::ResourceDef;
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What must be remembered between the two passes of mutation: hooks that ask for it see what others changed after them.
#[derive(Default)]
pub struct Reinvocation {
    second: bool,
    /// Hooks with `IfNeeded` that were called already.
    called: HashSet<(String, String)>,
    /// Those of them after which the object was changed.
    again: HashSet<(String, String)>,
    last: Option<Value>,
    wanted: bool,
}

impl Reinvocation {
    /// Whether a hook changed something, so that the other plugins and these hooks go over the object once more.
    pub fn is_wanted(&self) -> bool {
        self.wanted && !self.second
    }

    /// The second pass begins.
    pub fn begin_second(&mut self) {
        self.second = true;
    }

    /// The object was changed by a hook or by somebody else in between.
    fn changed(&mut self) {
        self.again.extend(self.called.drain());
    }
}

/// Why a hook's call did not admit.
enum Refused {
    /// It answered no.
    Denied(Status),
    /// It could not be asked, or its answer makes no sense: the failure policy decides.
    Failed { why: String, code: u16 },
    /// Whatever the policy says, the request fails.
    Error(Status),
}

/// A call that is to be made.
struct Call {
    hook: Arc<Hook>,
    seen: Seen,
}

impl Webhooks {
    /// Calls the mutating hooks in order and applies their patches.
    pub async fn mutate(
        &self,
        world: &World<'_>,
        attributes: &mut Attributes<'_>,
        state: &mut Reinvocation,
    ) -> Result<(), Status> {
        let index = self.mutating.index.load_full();
        let hooks = index.hooks_of(&attributes.def.resource);
        if hooks.is_empty() || is_exempt(attributes) {
            return Ok(());
        }
        if state.second && state.last != attributes.object {
            state.changed();
        }
        let mut number = 0;
        for hook in hooks {
            let Some(call) = self.should_call(world, Flavor::Mutating, hook, attributes).await? else { continue };
            let key = (hook.configuration.clone(), hook.name.clone());
            if state.second && !state.again.contains(&key) {
                continue;
            }
            let slot = format!("round_{}_index_{number}", u8::from(state.second));
            number += 1;
            if self.mutate_once(world, &call, attributes, &slot).await? {
                state.changed();
                state.wanted = true;
            }
            if hook.reinvoke {
                state.called.insert(key);
            }
        }
        state.last = attributes.object.clone();
        Ok(())
    }

    async fn mutate_once(
        &self,
        world: &World<'_>,
        call: &Call,
        attributes: &mut Attributes<'_>,
        slot: &str,
    ) -> Result<bool, Status> {
        let hook = &call.hook;
        let outcome = match self.ask(world, Flavor::Mutating, call, attributes).await {
            Ok(mut verdict) => {
                attributes.warnings.append(&mut verdict.warnings);
                annotate(attributes, hook, &verdict);
                apply(call, attributes, verdict.patch.as_deref()).map_err(Refused::Error)
            }
            Err((refused, warnings)) => {
                attributes.warnings.extend(warnings);
                Err(refused)
            }
        };
        let mutated = matches!(outcome, Ok(true));
        let note = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated});
        attributes.annotate(&format!("mutation.webhook.admission.k8s.io/{slot}"), note.to_string());
        match outcome {
            Ok(changed) => Ok(changed),
            Err(refused) => self.settle(Flavor::Mutating, hook, attributes, refused, slot).map(|()| false),
        }
    }

    /// Calls the validating hooks at once; the first refusal in their order counts.
    pub async fn validate(&self, world: &World<'_>, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let index = self.validating.index.load_full();
        let hooks = index.hooks_of(&attributes.def.resource);
        if hooks.is_empty() || is_exempt(attributes) {
            return Ok(());
        }
        let mut calls = Vec::new();
        for hook in hooks {
            calls.extend(self.should_call(world, Flavor::Validating, hook, attributes).await?);
        }
        let asked: &Attributes<'_> = attributes;
        let asking = calls.iter().map(|call| self.ask(world, Flavor::Validating, call, asked));
        let answers = futures::future::join_all(asking).await;
        let mut first = Ok(());
        for (number, (call, answer)) in calls.iter().zip(answers).enumerate() {
            let slot = format!("round_0_index_{number}");
            let outcome = match answer {
                Ok(mut verdict) => {
                    attributes.warnings.append(&mut verdict.warnings);
                    annotate(attributes, &call.hook, &verdict);
                    Ok(())
                }
                Err((refused, warnings)) => {
                    attributes.warnings.extend(warnings);
                    self.settle(Flavor::Validating, &call.hook, attributes, refused, &slot)
                }
            };
            first = first.and(outcome);
        }
        first
    }

    /// Whether a hook is to be asked; conditions that can't be evaluated count as its failure.
    async fn should_call(
        &self,
        world: &World<'_>,
        flavor: Flavor,
        hook: &Arc<Hook>,
        attributes: &Attributes<'_>,
    ) -> Result<Option<Call>, Status> {
        let Some(seen) = hook.concerns(world, attributes).await? else { return Ok(None) };
        match conditions::hold(&hook.conditions, attributes) {
            Ok(true) => Ok(Some(Call { hook: hook.clone(), seen })),
            Ok(false) => Ok(None),
            Err(why) if hook.fail => {
                let (def, operation) = (attributes.def, attributes.operation.as_str());
                self.metrics.rejected(&hook.name, flavor, operation, "apiserver_internal_error", 403);
                Err(Status::forbidden(&def.group, &def.resource, attributes.name, &why))
            }
            Err(why) => {
                tracing::warn!(
                    webhook = hook.name,
                    why,
                    "match conditions could not be evaluated; the hook is left out"
                );
                Ok(None)
            }
        }
    }

    /// Applies the failure policy to what a call came to.
    fn settle(
        &self,
        flavor: Flavor,
        hook: &Hook,
        attributes: &Attributes<'_>,
        refused: Refused,
        slot: &str,
    ) -> Result<(), Status> {
        let operation = attributes.operation.as_str();
        match refused {
            Refused::Denied(status) => {
                self.metrics.rejected(&hook.name, flavor, operation, "no_error", status.code);
                Err(status)
            }
            Refused::Error(status) => {
                self.metrics.rejected(&hook.name, flavor, operation, "apiserver_internal_error", 0);
                Err(status)
            }
            Refused::Failed { why, code } => {
                let why = format!("failed calling webhook {:?}: {why}", hook.name);
                if hook.fail {
                    self.metrics.rejected(&hook.name, flavor, operation, "calling_webhook_error", code);
                    return Err(Status::internal(why));
                }
                tracing::warn!(webhook = hook.name, why, "a webhook failed; its policy is to go on");
                self.metrics.failed_open(&hook.name, flavor);
                let key = format!("failed-open.{}.webhook.admission.k8s.io/{slot}", flavor.audit_word());
                attributes.annotate(&key, hook.name.as_str());
                Ok(())
            }
        }
    }

    /// One call, counted. Warnings come with refusals too.
    async fn ask(
        &self,
        world: &World<'_>,
        flavor: Flavor,
        call: &Call,
        attributes: &Attributes<'_>,
    ) -> Result<Verdict, (Refused, Vec<String>)> {
        let began = Instant::now();
        let result = exchange(world, flavor, call, attributes).await;
        let (code, rejected) = match &result {
            Ok(verdict) => (200, !verdict.allowed),
            Err(Refused::Failed { code, .. }) => (*code, call.hook.fail),
            Err(_) => (0, true),
        };
        let operation = attributes.operation.as_str();
        let name = call.hook.name.as_str();
        self.metrics.ended(&Ended { name, flavor, operation, took: began.elapsed(), code, rejected });
        match result {
            Ok(verdict) if verdict.allowed => Ok(verdict),
            Ok(verdict) => {
                annotate(attributes, &call.hook, &verdict);
                Err((Refused::Denied(review::refusal(name, verdict.status)), verdict.warnings))
            }
            Err(refused) => Err((refused, Vec::new())),
        }
    }
}

/// Asks the hook's server.
async fn exchange(
    world: &World<'_>,
    flavor: Flavor,
    call: &Call,
    attributes: &Attributes<'_>,
) -> Result<Verdict, Refused> {
    let hook = &call.hook;
    let failed = |why: String| Refused::Failed { why, code: 0 };
    if attributes.dry_run && !matches!(&*hook.side_effects, "None" | "NoneOnDryRun") {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Refused::Error(Status::bad_request(why)));
    }
    let Some(version) = hook.review else {
        return Err(failed("webhook does not accept known AdmissionReview versions (v1, v1beta1)".into()));
    };
    let client = hook.client.as_ref().map_err(|why| failed(format!("failed to call webhook: {why}")))?;
    let left = world.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    let patience = hook.timeout.min(left);
    let uid = uuid::Uuid::new_v4().to_string();
    let seen = call.seen.as_deref().unwrap_or(attributes.def);
    let object = converted(call, attributes, attributes.object.as_ref());
    let old = converted(call, attributes, attributes.old_object.as_deref());
    let review = review::request(version, &uid, attributes, seen, object.as_deref(), old.as_deref());
    let posted = tokio::time::timeout(patience, client.post(world, hook.timeout, review)).await;
    let body = match posted {
        Ok(Ok(body)) => body,
        Ok(Err(call)) => return Err(Refused::Failed { why: call.why, code: call.code }),
        Err(_) => {
            let seconds = hook.timeout.as_secs();
            let post = format!("Post \"{}?timeout={seconds}s\"", client.url);
            return Err(failed(format!("failed to call webhook: {post}: context deadline exceeded")));
        }
    };
    review::answer(version, &uid, flavor, &body)
        .map_err(|why| failed(format!("received invalid webhook response: {why}")))
}

/// An object in the version that the hook sees.
fn converted<'a>(
    call: &Call,
    attributes: &Attributes<'_>,
    object: Option<&'a Value>,
) -> Option<std::borrow::Cow<'a, Value>> {
    let object = object?;
    Some(match &call.seen {
        Some(seen) if has_own_body(attributes.def, attributes.subresource) => {
            std::borrow::Cow::Owned(convert(attributes.def, seen, object.clone()))
        }
        _ => std::borrow::Cow::Borrowed(object),
    })
}

/// Whether what is written is the resource's own kind, not a Scale or a Binding.
fn has_own_body(def: &ResourceDef, sub: &str) -> bool {
    def.subresource(sub).is_none_or(|sub| sub.body.is_none())
}

fn convert(from: &ResourceDef, to: &ResourceDef, mut object: Value) -> Value {
    from.to_storage(&mut object);
    to.from_storage(&mut object);
    object
}

fn annotate(attributes: &Attributes<'_>, hook: &Hook, verdict: &Verdict) {
    for (key, value) in &verdict.annotations {
        attributes.annotate(&format!("{}/{key}", hook.name), value.as_str());
    }
}

/// Applies a hook's patch. Whether it changed the object.
fn apply(call: &Call, attributes: &mut Attributes<'_>, patch: Option<&[u8]>) -> Result<bool, Status> {
    let Some(patch) = patch else { return Ok(false) };
    let operations: Value = serde_json::from_slice(patch).map_err(Status::internal)?;
    if operations.as_array().is_some_and(Vec::is_empty) {
        return Ok(false);
    }
    let Some(before) = attributes.object.as_ref().filter(|_| attributes.operation != Operation::Delete) else {
        let name = &call.hook.name;
        let why = format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        );
        return Err(Status::internal(why));
    };
    let own = has_own_body(attributes.def, attributes.subresource);
    let mut object = converted(call, attributes, Some(before)).map_or(Value::Null, |object| object.into_owned());
    pintle_schema::patch::json(&mut object, &operations).map_err(Status::internal)?;
    let seen = call.seen.as_deref().unwrap_or(attributes.def);
    if let Some(ty) = seen.type_ref().filter(|_| own) {
        pintle_schema::check::types(ty, &object).map_err(Status::internal)?;
    }
    if let Some(seen) = call.seen.as_deref().filter(|_| own) {
        object = convert(seen, attributes.def, object);
    }
    if own {
        attributes.def.default_object(&mut object);
        if let Some(ty) = attributes.def.type_ref() {
            pintle_schema::normalize::object(ty, &mut object);
        }
    }
    let changed = attributes.object.as_ref() != Some(&object);
    attributes.object = Some(object);
    Ok(changed)
}
