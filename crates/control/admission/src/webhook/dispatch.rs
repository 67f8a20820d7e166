//! Asks the hooks that a write concerns: mutating ones one after the other, validating ones at once.
//!
//! Source: `pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go` of Kubernetes' apiserver.

use super::config::{Flavor, Hook};
use super::exchange::{Answer, Call, Refused, apply, ask};
use super::metrics::Ended;
use super::{Webhooks, World, conditions};
use crate::matching::is_exempt;
use pintle_registry::Attributes;
use pintle_types::{Reason, Status};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// What must be remembered between the two passes of mutation by hooks; a hook is its configuration and its name.
pub type Reinvocation = crate::Reinvocation<(String, String)>;

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
        state.begin(&attributes.object);
        for (place, hook) in hooks {
            let Some(call) = self.should_call(world, Flavor::Mutating, hook, attributes).await? else { continue };
            let key = (hook.configuration.clone(), hook.name.clone());
            if state.skips(&key) {
                continue;
            }
            let slot = format!("round_{}_index_{place}", state.round());
            if self.mutate_once(world, &call, attributes, &slot).await? {
                state.changed();
            }
            if hook.reinvoke {
                state.called(key);
            }
        }
        state.end(&attributes.object);
        Ok(())
    }

    async fn mutate_once(
        &self,
        world: &World<'_>,
        call: &Call,
        attributes: &mut Attributes<'_>,
        slot: &str,
    ) -> Result<bool, Status> {
        let (hook, began) = (&call.hook, Instant::now());
        let Answer { warnings, annotations, outcome } = ask(world, Flavor::Mutating, call, attributes).await;
        attributes.warnings.extend(warnings);
        annotate(attributes, hook, &annotations);
        let outcome = match outcome {
            Ok(Some(patch)) => apply(call, attributes, &patch).await,
            Ok(None) => Ok(false),
            Err(refused) => Err(refused),
        };
        self.count(Flavor::Mutating, hook, attributes, began, outcome.as_ref().err());
        let mutated = matches!(outcome, Ok(true));
        let note = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated});
        attributes.annotate(&format!("mutation.webhook.admission.k8s.io/{slot}"), note.to_string());
        match outcome {
            Ok(changed) => Ok(changed),
            Err(refused) => self.settle(world, Flavor::Mutating, hook, attributes, refused, slot).map(|()| false),
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
        for (_, hook) in hooks {
            calls.extend(self.should_call(world, Flavor::Validating, hook, attributes).await?);
        }
        let answers = self.ask_all(world, &calls, attributes).await;
        let mut first = Ok(());
        for (number, (call, answer)) in calls.iter().zip(answers).enumerate() {
            let slot = format!("round_0_index_{number}");
            attributes.warnings.extend(answer.warnings);
            annotate(attributes, &call.hook, &answer.annotations);
            if let Err(refused) = answer.outcome {
                let settled = self.settle(world, Flavor::Validating, &call.hook, attributes, refused, &slot);
                first = first.and(settled);
            }
        }
        first
    }

    /// Asks all at once; the answers come in the order of the calls.
    async fn ask_all(&self, world: &World<'_>, calls: &[Call], attributes: &Attributes<'_>) -> Vec<Answer> {
        let asking = calls.iter().map(|call| async move {
            let began = Instant::now();
            let answer = ask(world, Flavor::Validating, call, attributes).await;
            self.count(Flavor::Validating, &call.hook, attributes, began, answer.outcome.as_ref().err());
            answer
        });
        futures::future::join_all(asking).await
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
        let call = Call { hook: hook.clone(), seen };
        if hook.conditions.is_empty() {
            return Ok(Some(call));
        }
        match conditions::hold(world, &call, attributes).await? {
            Ok(true) => Ok(Some(call)),
            Ok(false) => {
                self.metrics.excluded(&hook.name, flavor, attributes.operation.as_str());
                Ok(None)
            }
            Err(why) => {
                self.metrics.condition_failed(&hook.name, flavor, attributes.operation.as_str());
                if !hook.fail {
                    tracing::warn!(
                        webhook = hook.name,
                        why,
                        "match conditions can't be evaluated; the hook is left out"
                    );
                    return Ok(None);
                }
                let def = attributes.def;
                Err(Status::forbidden(&def.group, &def.resource, attributes.name, &why))
            }
        }
    }

    /// Counts a call that ended.
    fn count(
        &self,
        flavor: Flavor,
        hook: &Hook,
        attributes: &Attributes<'_>,
        began: Instant,
        refused: Option<&Refused>,
    ) {
        let (code, rejected) = match refused {
            None => (200, false),
            Some(Refused::Denied(status)) => (status.code, true),
            Some(Refused::Failed { code, .. }) => (*code, hook.fail),
            Some(Refused::Error(_)) => (0, true),
        };
        let operation = attributes.operation.as_str();
        self.metrics.ended(&Ended { name: &hook.name, flavor, operation, took: began.elapsed(), code, rejected });
        let why = match refused {
            Some(Refused::Denied(_)) => "no_error",
            Some(Refused::Failed { .. }) => "calling_webhook_error",
            Some(Refused::Error(_)) => "apiserver_internal_error",
            None => return,
        };
        if rejected {
            self.metrics.rejected(&hook.name, flavor, operation, why, code);
        }
    }

    /// Applies the failure policy to what a call came to.
    fn settle(
        &self,
        world: &World<'_>,
        flavor: Flavor,
        hook: &Hook,
        attributes: &Attributes<'_>,
        refused: Refused,
        slot: &str,
    ) -> Result<(), Status> {
        let why = match refused {
            Refused::Denied(status) | Refused::Error(status) => return Err(status),
            Refused::Failed { why, .. } => format!("failed calling webhook {:?}: {why}", hook.name),
        };
        if hook.fail {
            return Err(Status::internal(why));
        }
        tracing::warn!(webhook = hook.name, why, "a webhook failed; its policy is to go on");
        self.metrics.failed_open(&hook.name, flavor);
        let key = format!("failed-open.{}.webhook.admission.k8s.io/{slot}", flavor.audit_word());
        attributes.annotate(&key, hook.name.as_str());
        if flavor == Flavor::Mutating && world.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let message = "Timeout: request did not complete within requested timeout";
            return Err(Status::failure(504, Reason::Timeout, message));
        }
        Ok(())
    }
}

fn annotate(attributes: &Attributes<'_>, hook: &Hook, annotations: &BTreeMap<String, String>) {
    for (key, value) in annotations {
        attributes.annotate(&format!("{}/{key}", hook.name), value.as_str());
    }
}
