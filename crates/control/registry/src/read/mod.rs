//! The reading verbs: get, list and watch, answered from the cache.

mod continuation;
mod list;
mod version;
mod watch;

use crate::cache::{FieldPlace, Resource, Selection};
use crate::object::Object;
use crate::registry::Registry;
use crate::request::GetOptions;
use pintle_kinds::ResourceDef;
use pintle_store::{KeyRange, Revision, StoreError};
use pintle_types::Status;
use pintle_types::selector::{FieldSelector, LabelSelector};
use std::sync::Arc;

impl Registry {
    pub async fn get(&self, def: &ResourceDef, ns: &str, name: &str, options: &GetOptions) -> Result<Object, Status> {
        match version::parse(&options.resource_version).map_err(Status::plain_internal)? {
            None => self.reach_newest().await?,
            Some(revision) => self.reach(revision).await?,
        };
        let entry = self.entry(def, ns, name)?;
        let entry = entry.ok_or_else(|| Status::not_found(&def.group, &def.resource, name))?;
        if def.strategy.converter().is_none() {
            return Ok(show(def, Object::Stored(entry)));
        }
        let mut shown = Box::pin(crate::convert::shown(def, vec![Object::Stored(entry)])).await?;
        shown.pop().ok_or_else(|| Status::internal("an object was lost on its way"))
    }

    /// The cached entry of an object.
    pub(crate) fn entry(
        &self,
        def: &ResourceDef,
        ns: &str,
        name: &str,
    ) -> Result<Option<Arc<crate::cache::Entry>>, Status> {
        Ok(self.resource(def)?.snapshot().get(def.storage.key(ns, name).as_bytes()).cloned())
    }

    pub(crate) fn resource(&self, def: &ResourceDef) -> Result<Arc<Resource>, Status> {
        self.cache.shared.resource(&def.storage.key_prefix).ok_or_else(Status::no_such_resource)
    }

    /// Waits until everything is in the cache that was written before now, by whomever.
    pub(crate) async fn reach_newest(&self) -> Result<Revision, Status> {
        let revision = self.store.revision().await.map_err(store_status)?;
        self.reach(revision).await
    }

    /// Waits until the cache has come to a revision.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<Revision, Status> {
        if self.cache.shared.reached() >= revision || self.cache.shared.wait_for(revision).await {
            return Ok(self.cache.shared.reached());
        }
        Err(version::too_large(revision, self.cache.shared.reached()))
    }

    /// What a reader of a namespace with selectors wants of a resource.
    pub(crate) fn selection(
        &self,
        def: &ResourceDef,
        resource: &Resource,
        ns: &str,
        labels: &LabelSelector,
        fields: &FieldSelector,
    ) -> Result<Selection, Status> {
        let range = KeyRange::prefix(below(def, ns));
        let place = |path: &str| place(def, resource, path);
        let selection = Selection::new(range, labels.clone(), fields, place);
        let mut selection = selection.map_err(|field| unsupported_field(def, &field))?;
        let namespace = if def.namespaced && ns.is_empty() {
            selection.exact(FieldPlace::Namespace).unwrap_or_default()
        } else {
            ns
        };
        // One object can be looked up; one namespace is a part of the range.
        selection.range = match selection.exact(FieldPlace::Name) {
            Some(name) if !name.is_empty() && (!def.namespaced || !namespace.is_empty()) => {
                KeyRange::key(def.storage.key(namespace, name))
            }
            _ => KeyRange::prefix(below(def, namespace)),
        };
        Ok(selection)
    }
}

/// The prefix of the keys of a namespace, or of all.
pub(crate) fn below(def: &ResourceDef, ns: &str) -> String {
    let prefix = &def.storage.key_prefix;
    if ns.is_empty() { format!("{prefix}/") } else { format!("{prefix}/{ns}/") }
}

fn place(def: &ResourceDef, resource: &Resource, path: &str) -> Option<FieldPlace> {
    match path {
        "metadata.name" => Some(FieldPlace::Name),
        "metadata.namespace" => Some(FieldPlace::Namespace),
        _ => {
            def.selectable(path)?;
            resource.spec.selectable.iter().position(|field| field.path == path).map(FieldPlace::Selected)
        }
    }
}

fn unsupported_field(def: &ResourceDef, field: &str) -> Status {
    let own = def.selectable_fields.iter().any(|known| !known.path.starts_with("metadata."));
    if own || def.schema.is_some() {
        return Status::bad_request(format!("field label not supported: {field}"));
    }
    Status::bad_request(format!(
        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    ))
}

/// A stored object in the version of `def`.
pub(crate) fn show(def: &ResourceDef, object: Object) -> Object {
    if def.version == def.storage.version && def.group == def.storage.group {
        return object;
    }
    let mut value = object.to_value();
    def.from_storage(&mut value);
    value.into()
}

/// The store's failures as the API reports them.
pub(crate) fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::Unwritable(_) | StoreError::Unavailable(_) | StoreError::Closed => {
            tracing::error!(%error, "the store failed");
            Status::plain_internal(error.to_string())
        }
        StoreError::Compacted { asked, oldest } => version::too_old(asked, oldest),
        StoreError::FutureRevision { asked, newest } => version::too_large(asked, newest),
        error => Status::internal(error),
    }
}

/// Failures that upstream reports without a reason.
pub(crate) trait PlainStatus {
    fn plain_internal(message: String) -> Status;
}

impl PlainStatus for Status {
    fn plain_internal(message: String) -> Status {
        Status::failure(500, pintle_types::Reason::Unknown, message)
    }
}
