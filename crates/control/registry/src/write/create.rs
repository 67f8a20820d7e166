//! Creating objects.

use super::{ATTEMPTS, Attempt, MODIFIED, Target, meta, metadata_mut, names};
use crate::admission::Operation;
use crate::object::Object;
use crate::read::PlainStatus;
use crate::registry::Registry;
use crate::request::Request;
use pintle_kinds::ResourceDef;
use pintle_types::Status;
use serde_json::Value;
use std::sync::Arc;

/// How many names are tried for an object that leaves its name to the server.
const NAMES: usize = 8;

impl Registry {
    /// Creates an object; `object` has passed the schema's checks.
    // flow: pod 2/16
    pub async fn create(&self, by: &Request<'_>, def: &ResourceDef, ns: &str, object: Value) -> Result<Object, Status> {
        let name = meta(&object, "name").to_owned();
        let target = Target { by, def, ns, name: &name, sub: "" };
        let mut object = object;
        check_namespace(&target, &mut object)?;
        target.complete(&mut object);
        wipe(&mut object);
        self.record_manager(&target, None, &mut object);
        let mut object = self.admit(&target, Operation::Create, object, None).await?;
        let generated = meta(&object, "name").is_empty() && !meta(&object, "generateName").is_empty();
        let asked = if generated { meta(&object, "generateName") } else { meta(&object, "name") }.to_owned();
        let mut attempts = if generated { NAMES } else { 1 };
        // Alone on its store, and with a name, a creation is tried once.
        let again = generated || self.store.is_shared();
        for _ in 0..ATTEMPTS {
            let given = if again { object.clone() } else { std::mem::take(&mut object) };
            match self.create_admitted(&target, given).await? {
                Attempt::Done(created) => return Ok(created),
                // It does not exist: another server took an address that this one meant to give it.
                Attempt::Stale(None) if again => {}
                Attempt::Stale(Some(_)) if attempts > 1 => attempts -= 1,
                Attempt::Stale(existing) => {
                    return Err(already_exists(def, &asked, existing.as_ref().map(|e| &*e.value)));
                }
            }
        }
        Err(target.conflict(MODIFIED))
    }

    /// Stores a new object that mutating admission has seen; answers it in the version of the request.
    pub(super) async fn create_admitted(&self, target: &Target<'_>, object: Value) -> Result<Attempt<Object>, Status> {
        let mut object = object;
        target.complete_again(&mut object);
        let given = meta(&object, "resourceVersion").to_owned();
        target.def.to_storage(&mut object);
        fill_new(&mut object, &self.now());
        target.def.prepare_create(&mut object);
        target.def.strategy.stamp("", &mut object, None, self.clock.now_seconds());
        let name = meta(&object, "name").to_owned();
        let target = target.named(&name);
        let addresses = self.allocate(&target, &mut object, None).await?;
        self.settle(&target, &mut object);
        target.invalid(&name, &target.def.validate_create(&object))?;
        target.def.strategy.warnings(&object, None).into_iter().for_each(|warning| target.by.warn(warning));
        let mut object = self.judge_stored(&target, Operation::Create, object, None).await?;
        self.read_back(&target, &mut object);
        if !matches!(&*given, "" | "0") {
            return Err(Status::plain_internal("resourceVersion should not be set on objects to be created".into()));
        }
        if target.by.dry_run {
            self.reach_newest().await?;
            return Ok(match self.current(target.def, target.ns, &name)? {
                Some(existing) => Attempt::Stale(Some(existing)),
                None => Attempt::Done(target.shown(&object).into()),
            });
        }
        match self.swap_with(&target, 0, &object, addresses).await? {
            Attempt::Stale(existing) => Ok(Attempt::Stale(existing)),
            Attempt::Done(put) => Ok(Attempt::Done(target.answered(object, &put))),
        }
    }
}

/// Gives an object the namespace of the request; it may have none, but no other.
pub(super) fn check_namespace(target: &Target<'_>, object: &mut Value) -> Result<(), Status> {
    contradicts_namespace(target, object)?;
    if target.ns.is_empty() {
        metadata_mut(object).remove("namespace");
    } else {
        metadata_mut(object).insert("namespace".into(), target.ns.into());
    }
    Ok(())
}

/// Refuses an object that names another namespace than the request.
pub(super) fn contradicts_namespace(target: &Target<'_>, object: &Value) -> Result<(), Status> {
    let own = meta(object, "namespace");
    if own.is_empty() || target.ns.is_empty() || own == target.ns {
        return Ok(());
    }
    let why = "the namespace of the provided object does not match the namespace sent on the request";
    Err(Status::bad_request(why))
}

/// Takes away what a client cannot say about a new object, so that it owns none of it.
fn wipe(object: &mut Value) {
    let metadata = metadata_mut(object);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "creationTimestamp", "uid"] {
        metadata.remove(field);
    }
}

/// What the server alone decides about a new object.
fn fill_new(object: &mut Value, now: &str) {
    wipe(object);
    let metadata = metadata_mut(object);
    metadata.remove("resourceVersion");
    metadata.remove("generation");
    metadata.insert("creationTimestamp".into(), now.into());
    metadata.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default();
    if text("name").is_empty() && !text("generateName").is_empty() {
        let name = names::generate(text("generateName"));
        metadata.insert("name".into(), name.into());
    }
}

pub(super) fn already_exists(def: &ResourceDef, name: &str, existing: Option<&Value>) -> Status {
    let mut status = Status::already_exists(&def.group, &def.resource, name);
    if existing.is_some_and(|object| !object["metadata"]["deletionTimestamp"].is_null()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}

/// An old object for admission.
pub(super) fn shared(target: &Target<'_>, stored: &Arc<Value>) -> Arc<Value> {
    let same = target.def.version == target.def.storage.version && target.def.group == target.def.storage.group;
    if same { stored.clone() } else { Arc::new(target.shown(stored)) }
}
