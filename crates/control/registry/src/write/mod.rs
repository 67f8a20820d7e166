//! The writing verbs, and what they share: reading what is there, admission, comparing and swapping in the store.
//!
//! Every write is a loop: take the object as it is, make the new one of it, and store that if nothing came between.

mod binding;
mod body;
mod collection;
mod create;
mod delete;
mod eviction;
mod names;
mod plan;
mod scale;
mod update;

use crate::admission::{Attributes, Operation};
use crate::cache::{Entry, Fields};
use crate::codec;
use crate::count::StoreRequest;
use crate::object::Object;
use crate::read::store_status;
use crate::registry::Registry;
use crate::request::Request;
use crate::services::{Allocation, Claims, is_service};
use bytes::Bytes;
use pintle_kinds::ResourceDef;
use pintle_schema::apply::{Manager, update_managers};
use pintle_store::{Compare, KeyRange, KeyValue, LeaseId, Op, Revision, Txn};
use pintle_types::Status;
use pintle_types::names::GroupKind;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// How often a write starts over because others came between. Upstream goes on until the request's time is over; whoever
/// comes between has succeeded, so only a crowd at one object makes many.
const ATTEMPTS: usize = 1000;

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// One write: by whom, to what.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub by: &'a Request<'a>,
    pub def: &'a ResourceDef,
    pub ns: &'a str,
    pub name: &'a str,
    /// Empty for the object itself.
    pub sub: &'a str,
}

/// An object as it is stored, its resourceVersion included.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    pub value: Arc<Value>,
    pub revision: Revision,
}

/// What was put into the store.
#[derive(Debug)]
pub(crate) struct Put {
    pub revision: Revision,
    /// The object's bytes; none where they are in another version's form than the object that was given.
    bytes: Option<Bytes>,
}

/// What came of an attempt.
pub(crate) enum Attempt<T> {
    Done(T),
    /// Another write came between; this is what is there now.
    Stale(Option<Current>),
}

impl<'a> Target<'a> {
    fn key(&self) -> Bytes {
        self.def.storage.key(self.ns, self.name).into()
    }

    fn not_found(&self) -> Status {
        Status::not_found(&self.def.group, &self.def.resource, self.name)
    }

    fn conflict(&self, why: &str) -> Status {
        Status::conflict(&self.def.group, &self.def.resource, self.name, why)
    }

    /// As errors of validation name the kind: by its first group, also for events, which two groups serve.
    fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.def.storage.group.clone(), kind: self.def.kind.clone() }
    }

    fn invalid(&self, name: &str, errors: &pintle_types::field::ErrorList) -> Result<(), Status> {
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&self.group_kind(), name, errors)) }
    }

    fn named(self, name: &'a str) -> Self {
        Self { name, ..self }
    }

    /// Defaults and canonical form, in the version of the request.
    fn complete(&self, object: &mut Value) {
        self.def.default_object(object);
        self.normalize(object);
    }

    /// The same after admission, whose plugins may have added what has defaults.
    fn complete_again(&self, object: &mut Value) {
        if !self.def.strategy.defaults_once() {
            self.def.default_object(object);
        }
        self.normalize(object);
    }

    fn normalize(&self, object: &mut Value) {
        if let Some(ty) = self.def.type_ref() {
            pintle_schema::normalize::object(ty, object);
        }
    }

    /// Whether the request's version is the one that is stored.
    fn is_stored_version(&self) -> bool {
        self.def.version == self.def.storage.version && self.def.group == self.def.storage.group
    }

    /// The stored form in the version of the request.
    fn shown(&self, stored: &Value) -> Value {
        let mut value = stored.clone();
        if !self.is_stored_version() {
            self.def.from_storage(&mut value);
        }
        value
    }

    /// The answer to a write: the very bytes that were stored, where they are of the request's version.
    fn answered(&self, mut stored: Value, put: &Put) -> Object {
        let entry = put.bytes.clone().filter(|_| self.is_stored_version()).and_then(|value| {
            let (key, mod_revision) = (self.key(), put.revision);
            let kv = KeyValue { key, value, create_revision: 0, mod_revision, version: 0, lease: 0 };
            Entry::new(&kv, self.def.storage.key_prefix.len(), Fields::default()).ok()
        });
        if let Some(entry) = entry {
            return Object::Stored(Arc::new(entry));
        }
        set_revision(&mut stored, put.revision);
        if !self.is_stored_version() {
            self.def.from_storage(&mut stored);
        }
        stored.into()
    }
}

/// The metadata of an object for change; made when it is absent.
pub(crate) fn metadata_mut(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(metadata) => metadata,
        _ => unreachable!("it was just made an object"),
    }
}

/// A text of the metadata; empty when absent.
pub(crate) fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

pub(crate) fn set_revision(object: &mut Value, revision: Revision) {
    metadata_mut(object).insert("resourceVersion".into(), revision.to_string().into());
}

impl Registry {
    /// The object as the cache has it. Call [`Registry::reach_newest`] before, to see all earlier writes.
    pub(crate) fn current(&self, def: &ResourceDef, ns: &str, name: &str) -> Result<Option<Current>, Status> {
        let entry = self.entry(def, ns, name)?;
        Ok(entry.map(|entry| Current { value: Arc::new(entry.to_value()), revision: entry.revision() }))
    }

    /// Canonical form of an object in the stored version's form, after the server filled in what it owns.
    fn settle(&self, target: &Target<'_>, stored: &mut Value) {
        let table = self.table();
        let converted = target.def.strategy.converter().is_some();
        let def = table.storage_def(target.def).filter(|_| !converted).map_or(target.def, |def| def);
        if let Some(ty) = def.type_ref() {
            pintle_schema::normalize::object(ty, stored);
        }
    }

    /// The form of a checked object when it is read back from the store.
    fn read_back(&self, target: &Target<'_>, stored: &mut Value) {
        target.def.strategy.read_back(stored);
        let table = self.table();
        let def = table.storage_def(target.def).map_or(target.def, |def| def);
        // Definitions of resources and of API services are stored as JSON, which keeps what is empty.
        let as_json = matches!(&*def.group, "apiextensions.k8s.io" | "apiregistration.k8s.io");
        if let Some(ty) = def.type_ref().filter(|_| !as_json) {
            pintle_schema::normalize::stored(ty, stored);
        }
    }

    pub(crate) fn now(&self) -> String {
        self.clock.now_seconds().to_string()
    }

    /// Records who owns what changed between `old` and `new`, both in the version of the request.
    fn record_manager(&self, target: &Target<'_>, old: Option<&Value>, new: &mut Value) {
        self.record_manager_of_all_but(target, old, new, target.def.strategy.reset_fields(target.sub));
    }

    fn record_manager_of_all_but(&self, target: &Target<'_>, old: Option<&Value>, new: &mut Value, reset: &[&str]) {
        let Some(ty) = target.def.type_ref() else { return };
        let (api_version, time) = (target.def.api_version(), self.now());
        update_managers(ty, old, new, manager(target, &api_version, &time), reset);
    }

    /// Stores an object if the key's last change is `expected` (0: it is absent).
    async fn swap(
        &self,
        def: &ResourceDef,
        key: Bytes,
        expected: Revision,
        object: &Value,
    ) -> Result<Attempt<Revision>, Status> {
        Ok(match self.swap_claiming(def, key, expected, object, None, &Claims::default()).await? {
            Attempt::Done(put) => Attempt::Done(put.revision),
            Attempt::Stale(found) => Attempt::Stale(found),
        })
    }

    /// The same with what was allocated for the object: kept if it is stored, given back if not. Where another server
    /// had given it away already, the object is told to be stale though it has not changed.
    async fn swap_with(
        &self,
        target: &Target<'_>,
        expected: Revision,
        object: &Value,
        allocation: Allocation,
    ) -> Result<Attempt<Put>, Status> {
        let claims = allocation.claims(self.store.is_shared());
        let verbatim = verbatim(target, object);
        let attempt = self.swap_claiming(target.def, target.key(), expected, object, verbatim, &claims).await?;
        match &attempt {
            Attempt::Done(_) => allocation.keep(),
            Attempt::Stale(found) => {
                drop(allocation);
                if !claims.taken.is_empty() && found.as_ref().map_or(0, |found| found.revision) == expected {
                    self.refill_services().await?;
                }
            }
        }
        Ok(attempt)
    }

    async fn swap_claiming(
        &self,
        def: &ResourceDef,
        key: Bytes,
        expected: Revision,
        object: &Value,
        verbatim: Option<(&str, &RawValue)>,
        claims: &Claims,
    ) -> Result<Attempt<Put>, Status> {
        let converted = crate::convert::outward(def, object).await?;
        let object = converted.as_ref().unwrap_or(object);
        let value = codec::to_stored_with(object, verbatim);
        let resource = self.resource(def)?;
        // Only bytes that come back as the same ones are recognised.
        let parsed = self.store.keeps_values().then(|| {
            let fields = Fields::of(object, &resource.spec.selectable);
            self.cache.shared.expect(&value, fields)
        });
        let lease = self.lease_for(def).await?;
        let bytes = converted.is_none().then(|| value.clone());
        let put = Op::Put { key: key.clone(), value, lease };
        match self.compare_and(def, key, expected, put, claims).await? {
            Attempt::Done(revision) => {
                if let Some(parsed) = parsed {
                    parsed.written();
                }
                Ok(Attempt::Done(Put { revision, bytes }))
            }
            Attempt::Stale(found) => Ok(Attempt::Stale(found)),
        }
    }

    /// Deletes an object if it has not changed, and takes back what it held.
    async fn remove(&self, target: &Target<'_>, old: &Current) -> Result<Attempt<Revision>, Status> {
        let key = target.key();
        let delete = Op::Delete(KeyRange::key(key.clone()));
        let freed = self.services.freed(target.def, &old.value, self.store.is_shared());
        let attempt = self.compare_and(target.def, key, old.revision, delete, &freed).await?;
        if matches!(attempt, Attempt::Done(_)) {
            self.services.release(target.def, &old.value);
        }
        Ok(attempt)
    }

    async fn compare_and(
        &self,
        def: &ResourceDef,
        key: Bytes,
        expected: Revision,
        then: Op,
        claims: &Claims,
    ) -> Result<Attempt<Revision>, Status> {
        let operation = match &then {
            Op::Delete(_) => "delete",
            _ if expected == 0 => "create",
            _ => "update",
        };
        let unchanged = Compare::ModRevision(key.clone(), expected);
        let compare = [unchanged].into_iter().chain(claims.conditions()).collect();
        let now = if claims.taken.is_empty() { String::new() } else { self.now() };
        let then = [then].into_iter().chain(claims.ops(&key, &now)).collect();
        let otherwise = vec![Op::Get(KeyRange::key(key.clone()))];
        let began = Instant::now();
        let result = self.store.txn(Txn { compare, then, otherwise }).await;
        if let Some(observer) = self.observer.get() {
            let (group, resource) = (&*def.storage.group, &*def.storage.resource);
            let (took, failed) = (began.elapsed(), result.is_err());
            observer(&StoreRequest { operation, group, resource, took, failed });
        }
        let mut result = result.map_err(store_status)?;
        if result.succeeded {
            return Ok(Attempt::Done(result.revision));
        }
        let found = result.results.pop().and_then(|mut kvs| kvs.pop());
        found.map(|kv| self.parse_current(kv)).transpose().map(Attempt::Stale)
    }

    fn parse_current(&self, kv: KeyValue) -> Result<Current, Status> {
        let kv = self.cache.shared.canonical(kv).map_err(Status::internal)?;
        let mut value: Value = serde_json::from_slice(&kv.value).map_err(Status::internal)?;
        set_revision(&mut value, kv.mod_revision);
        Ok(Current { value: Arc::new(value), revision: kv.mod_revision })
    }

    /// Gives a Service its addresses and ports. A no is looked at again.
    async fn allocate(
        &self,
        target: &Target<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Allocation, Status> {
        if !is_service(target.def) {
            return Ok(Allocation::default());
        }
        let ranges = || self.cache.shared.resource("/registry/servicecidrs").map(|ranges| ranges.snapshot());
        match self.services.allocate(object, old, ranges().as_deref()) {
            // A new range may have been missed, and where others write too what they gave back.
            Err(_) => {
                match self.store.is_shared() {
                    true => self.refill_services().await?,
                    false => drop(self.reach_newest().await?),
                }
                self.services.allocate(object, old, ranges().as_deref())
            }
            allocated => allocated,
        }
    }

    async fn refill_services(&self) -> Result<(), Status> {
        self.reach_newest().await?;
        if let Some(services) = self.cache.shared.resource("/registry/services/specs") {
            self.services.refill(&services.snapshot());
        }
        Ok(())
    }

    /// The lease of what does not live for ever: events.
    async fn lease_for(&self, def: &ResourceDef) -> Result<LeaseId, Status> {
        if def.storage.resource != "events" || !matches!(&*def.storage.group, "" | "events.k8s.io") {
            return Ok(0);
        }
        self.event_leases.current(&*self.store).await.map_err(store_status)
    }

    /// Runs the mutating plugins over an object in the version of the request.
    async fn admit(
        &self,
        target: &Target<'_>,
        operation: Operation,
        object: Value,
        old: Option<&Arc<Value>>,
    ) -> Result<Value, Status> {
        let mut attributes = attributes(target, operation, Some(object), old);
        let admitted = target.by.admission.mutate(&mut attributes).await;
        // A refusal may come with warnings too.
        attributes.warnings.drain(..).for_each(|warning| target.by.warn(warning));
        admitted?;
        attributes.object.ok_or_else(|| Status::internal("a mutating plugin took the object away"))
    }

    /// Runs the validating plugins; `object` is nothing for a deletion.
    async fn judge(
        &self,
        target: &Target<'_>,
        operation: Operation,
        object: Option<Value>,
        old: Option<&Arc<Value>>,
    ) -> Result<Option<Value>, Status> {
        let mut attributes = attributes(target, operation, object, old);
        let judged = target.by.admission.validate(&mut attributes).await;
        attributes.warnings.drain(..).for_each(|warning| target.by.warn(warning));
        judged?;
        Ok(attributes.object)
    }
}

impl Registry {
    /// Runs the validating plugins over an object in the stored form, and gives it back.
    async fn judge_stored(
        &self,
        target: &Target<'_>,
        operation: Operation,
        stored: Value,
        old: Option<&Arc<Value>>,
    ) -> Result<Value, Status> {
        if !target.is_stored_version() {
            self.judge(target, operation, Some(target.shown(&stored)), old).await?;
            return Ok(stored);
        }
        let judged = self.judge(target, operation, Some(stored), old).await?;
        judged.ok_or_else(|| Status::internal("a validating plugin took the object away"))
    }
}

/// The text that the client gave the kind's verbatim field, if its value is still that of the object.
fn verbatim<'a>(target: &Target<'a>, object: &Value) -> Option<(&'a str, &'a RawValue)> {
    let (field, text) = (target.def.strategy.verbatim_field()?, target.by.verbatim?);
    let value: Value = serde_json::from_str(text.get()).ok()?;
    (target.sub.is_empty() && value == object[field]).then_some((field, text))
}

fn manager<'a>(target: &Target<'a>, api_version: &'a str, time: &'a str) -> Manager<'a> {
    Manager { name: target.by.field_manager, api_version, time, subresource: target.sub }
}

fn attributes<'a>(
    target: &Target<'a>,
    operation: Operation,
    object: Option<Value>,
    old: Option<&Arc<Value>>,
) -> Attributes<'a> {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => "ConnectOptions",
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if target.by.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if operation != Operation::Delete && !target.by.field_manager.is_empty() {
        options["fieldManager"] = target.by.field_manager.into();
    }
    Attributes {
        operation,
        def: target.def,
        subresource: target.sub,
        namespace: target.ns,
        name: target.name,
        user: target.by.user,
        dry_run: target.by.dry_run,
        object,
        old_object: old.cloned(),
        options,
        warnings: Vec::new(),
        audit: target.by.audit,
    }
}
