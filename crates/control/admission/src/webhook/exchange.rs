//! One call of a hook: the review in the version that the hook sees, its answer, and what its patch does.

use super::World;
use super::config::{Flavor, Hook};
use super::review::{self, Verdict};
use crate::matching::Seen;
use pintle_kinds::ResourceDef;
use pintle_registry::{Attributes, Operation};
use pintle_types::Status;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is counted of hooks that can't be reached, or whose answers make no sense.
const UNAVAILABLE: u16 = 503;

/// Why a hook's call did not admit.
#[derive(Debug)]
pub(super) enum Refused {
    /// It answered no.
    Denied(Status),
    /// It could not be asked, or its answer makes no sense: the failure policy decides.
    Failed { why: String, code: u16 },
    /// Whatever the policy says, the request fails.
    Error(Status),
}

fn failed(why: String) -> Refused {
    Refused::Failed { why, code: UNAVAILABLE }
}

/// A call that is to be made.
pub(super) struct Call {
    pub hook: Arc<Hook>,
    pub seen: Seen,
}

/// What came of a call. Warnings and notes come with refusals too.
pub(super) struct Answer {
    pub warnings: Vec<String>,
    pub annotations: BTreeMap<String, String>,
    /// The operations of a JSON patch, if there are any.
    pub outcome: Result<Option<Vec<u8>>, Refused>,
}

/// Asks the hook's server.
pub(super) async fn ask(world: &World<'_>, flavor: Flavor, call: &Call, attributes: &Attributes<'_>) -> Answer {
    match judge(world, flavor, call, attributes).await {
        Err(refused) => Answer { warnings: Vec::new(), annotations: BTreeMap::new(), outcome: Err(refused) },
        Ok(Verdict { allowed, status, patch, annotations, warnings }) => {
            let denied = || Refused::Denied(review::refusal(&call.hook.name, status));
            Answer { warnings, annotations, outcome: if allowed { Ok(patch) } else { Err(denied()) } }
        }
    }
}

async fn judge(
    world: &World<'_>,
    flavor: Flavor,
    call: &Call,
    attributes: &Attributes<'_>,
) -> Result<Verdict, Refused> {
    let hook = &call.hook;
    if attributes.dry_run && !matches!(&*hook.side_effects, "None" | "NoneOnDryRun") {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Refused::Error(Status::bad_request(why)));
    }
    let Some(version) = hook.review else {
        return Err(failed(
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
                .into(),
        ));
    };
    let client = hook.client.as_ref().map_err(|why| failed(format!("could not get REST client: {why}")))?;
    let left = world.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    let uid = uuid::Uuid::new_v4().to_string();
    let seen = call.seen.as_deref().unwrap_or(attributes.def);
    let object = as_seen(call, attributes, attributes.object.as_ref()).await.map_err(Refused::Error)?;
    let old = as_seen(call, attributes, attributes.old_object.as_deref()).await.map_err(Refused::Error)?;
    let review = review::request(version, &uid, attributes, seen, object.as_deref(), old.as_deref());
    let posted = client.post(world, hook.timeout.min(left), review).await;
    let body = posted.map_err(|call| Refused::Failed { why: call.why, code: call.code })?;
    review::answer(version, &uid, flavor, &body)
        .map_err(|why| failed(format!("received invalid webhook response: {why}")))
}

/// An object in the version that the hook sees.
pub(super) async fn as_seen<'a>(
    call: &Call,
    attributes: &Attributes<'_>,
    object: Option<&'a Value>,
) -> Result<Option<Cow<'a, Value>>, Status> {
    let Some(object) = object else { return Ok(None) };
    Ok(Some(match &call.seen {
        Some(seen) if has_own_body(attributes.def, attributes.subresource) => {
            Cow::Owned(convert(attributes.def, seen, object.clone()).await?)
        }
        _ => Cow::Borrowed(object),
    }))
}

/// Whether what is written is the resource's own kind, not a Scale or a Binding.
fn has_own_body(def: &ResourceDef, sub: &str) -> bool {
    def.subresource(sub).is_none_or(|sub| sub.body.is_none())
}

async fn convert(from: &ResourceDef, to: &ResourceDef, mut object: Value) -> Result<Value, Status> {
    if let Some(converter) = from.strategy.converter() {
        let mut converted = converter.convert(vec![object], &to.api_version()).await?;
        return converted.pop().ok_or_else(|| Status::internal("the conversion answered no object"));
    }
    from.to_storage(&mut object);
    to.from_storage(&mut object);
    Ok(object)
}

/// Applies a hook's patch. Whether it changed the object.
pub(super) async fn apply(call: &Call, attributes: &mut Attributes<'_>, patch: &[u8]) -> Result<bool, Refused> {
    let operations: Value = serde_json::from_slice(patch)
        .map_err(|error| failed(format!("received undecodable patch in webhook response: {error}")))?;
    match operations.as_array() {
        None => return Err(failed("received undecodable patch in webhook response: it is no list".into())),
        Some(operations) if operations.is_empty() => return Ok(false),
        Some(_) => {}
    }
    if attributes.operation == Operation::Delete || attributes.object.is_none() {
        let name = &call.hook.name;
        let why = format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        );
        return Err(Refused::Error(Status::internal(why)));
    }
    let object = patched(call, attributes, &operations).await.map_err(Refused::Error)?;
    let changed = attributes.object.as_ref() != Some(&object);
    attributes.object = Some(object);
    Ok(changed)
}

/// The object with a patch, defaults filled in, in the version of the request.
async fn patched(call: &Call, attributes: &Attributes<'_>, operations: &Value) -> Result<Value, Status> {
    let seen = call.seen.as_deref().unwrap_or(attributes.def);
    let object = as_seen(call, attributes, attributes.object.as_ref()).await?;
    let mut object = object.map_or(Value::Null, Cow::into_owned);
    pintle_schema::patch::json(&mut object, operations).map_err(Status::internal)?;
    if !has_own_body(attributes.def, attributes.subresource) {
        return Ok(object);
    }
    if let Some(ty) = seen.type_ref() {
        // What the kind does not have is dropped without a word, as by any decoder that is not strict.
        pintle_schema::check::unknown_fields(ty, &mut object);
        pintle_schema::check::types(ty, &object).map_err(Status::internal)?;
    }
    if let Some(seen) = &call.seen {
        object = convert(seen, attributes.def, object).await?;
    }
    attributes.def.default_object(&mut object);
    if let Some(ty) = attributes.def.type_ref() {
        pintle_schema::normalize::object(ty, &mut object);
    }
    Ok(object)
}
