//! What the server knows of one resource in one version, and the generic work around its strategy.

use crate::{metadata, strategy::StrategyRef, tree};
use pintle_types::{field::ErrorList, names::GroupVersionKind};
use serde_json::Value;
use std::sync::Arc;

/// A resource of one version, built in or made from a CustomResourceDefinition.
#[derive(Clone)]
pub struct ResourceDef {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    /// The plural name in paths.
    pub resource: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// In alphabetical order, as discovery shows them.
    pub verbs: Vec<&'static str>,
    pub subresources: Vec<Subresource>,
    /// What all versions of the resource share.
    pub storage: Arc<StorageDef>,
    /// In the order of upstream; `metadata.name` (and `metadata.namespace`) come first.
    pub selectable_fields: Vec<SelectableField>,
    /// Where the `scale` subresource finds its numbers, if there is one.
    pub scale: Option<ScalePaths>,
    /// The name of the schema's definition, such as `io.k8s.api.core.v1.Pod`; for custom resources, which bring a
    /// schema of their own, empty.
    pub definition: String,
    /// The schema of a custom resource; built-in kinds are found by `definition`.
    pub schema: Option<pintle_schema::TypeHandle>,
    pub strategy: StrategyRef,
}

/// How and where a resource is stored, whichever version it was written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageDef {
    pub group: String,
    /// The version whose form is stored.
    pub version: String,
    pub kind: String,
    /// The resource whose objects these are: `events` of the core group for both groups that serve events.
    pub resource: String,
    /// Begins the keys of all objects, without a slash at the end: `/registry/deployments`. A namespaced object's key
    /// is `<prefix>/<namespace>/<name>`.
    pub key_prefix: String,
    /// Discovery's `storageVersionHash`; empty for resources that aren't stored.
    pub version_hash: String,
}

impl StorageDef {
    /// The key of an object; the namespace of cluster-scoped objects is empty.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let prefix = &self.key_prefix;
        if namespace.is_empty() { format!("{prefix}/{name}") } else { format!("{prefix}/{namespace}/{name}") }
    }

    /// The `apiVersion` of what is stored.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }
}

/// A part of a resource with a path of its own, such as `pods/log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: String,
    /// The kind of its body. `None`: the kind of the resource itself.
    pub body: Option<GroupVersionKind>,
    /// Whether discovery tells the body's group and version (they differ from the resource's).
    pub foreign: bool,
    pub verbs: Vec<&'static str>,
}

/// Where an object keeps the numbers of its `scale` subresource: dotted paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// A label selector, a map of labels or (custom resources) a text.
    pub selector: Option<String>,
}

/// A field by which lists and watches can be filtered.
#[derive(Clone)]
pub struct SelectableField {
    /// As requests name it: `spec.nodeName`.
    pub path: String,
    /// Its text in an object (of the storage version's form).
    pub extract: Extract,
}

/// How the text of a selectable field is found.
#[derive(Clone)]
pub enum Extract {
    /// The value at the dotted path itself; when absent: empty text.
    Text,
    /// The same for another dotted path.
    At(&'static str),
    /// A boolean that is false when absent.
    Flag,
    /// A number that is 0 when absent.
    Number(&'static str),
    Custom(fn(&Value) -> String),
}

impl SelectableField {
    pub fn text(&self, object: &Value) -> String {
        match self.extract {
            Extract::Text => scalar_text(tree::at(object, &self.path), ""),
            Extract::At(path) => scalar_text(tree::at(object, path), ""),
            Extract::Flag => scalar_text(tree::at(object, &self.path), "false"),
            Extract::Number(path) => scalar_text(tree::at(object, path), "0"),
            Extract::Custom(extract) => extract(object),
        }
    }
}

fn scalar_text(value: &Value, absent: &str) -> String {
    match value {
        Value::Null => absent.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl ResourceDef {
    /// The `apiVersion` of objects of this version.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&*self.group, &*self.version, &*self.kind)
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    pub fn selectable(&self, path: &str) -> Option<&SelectableField> {
        self.selectable_fields.iter().find(|field| field.path == path)
    }

    /// The type of this version's objects.
    pub fn type_ref(&self) -> Option<pintle_schema::TypeRef<'_>> {
        match &self.schema {
            Some(handle) => Some(handle.get()),
            None => pintle_schema::Schema::builtin().kind(&self.group, &self.version, &self.kind),
        }
    }

    /// Fills in what the client left out, in this version's form.
    pub fn default_object(&self, object: &mut Value) {
        self.strategy.default(&self.api_version(), object);
    }

    /// Turns an object of this version into the form that is stored, unless a converter does that on its way there.
    pub fn to_storage(&self, object: &mut Value) {
        if self.strategy.converter().is_some() {
            return;
        }
        let own = self.api_version();
        self.strategy.to_storage(&own, object);
        tree::set(object, "apiVersion", self.storage.api_version());
        tree::set(object, "kind", self.storage.kind.as_str());
    }

    /// Turns a stored object into this version's form, unless a converter did.
    pub fn from_storage(&self, object: &mut Value) {
        if self.strategy.converter().is_some() {
            return;
        }
        let own = self.api_version();
        self.strategy.from_storage(&own, object);
        tree::set(object, "apiVersion", own);
        tree::set(object, "kind", self.kind.as_str());
    }

    /// Clears and sets what clients don't decide in a new object, which already has its name, UID and time.
    pub fn prepare_create(&self, object: &mut Value) {
        if self.strategy.separates_status() && self.subresource("status").is_some() {
            tree::remove(object, "status");
        }
        if !self.strategy.generation_fields().is_empty()
            && let Some(metadata) = tree::child(object, "metadata")
        {
            tree::set(metadata, "generation", 1);
        }
        self.strategy.prepare_create(object);
    }

    /// The same in an update of the main resource.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.strategy.separates_status() && self.subresource("status").is_some() {
            tree::copy(new, old, "status");
        }
        // Only the server counts.
        if let Some(metadata) = tree::child(new, "metadata") {
            tree::copy(metadata, &old["metadata"], "generation");
        }
        self.strategy.prepare_update(new, old);
        self.count_generation(new, old);
    }

    fn count_generation(&self, new: &mut Value, old: &Value) {
        let fields = self.strategy.generation_fields();
        if fields.is_empty() {
            return;
        }
        let before = tree::int(&old["metadata"], "generation");
        let changed = match fields {
            ["*"] => self.differs(new, old),
            fields => fields.iter().any(|field| tree::at(new, field) != tree::at(old, field)),
        };
        let deleted =
            tree::has(&new["metadata"], "deletionTimestamp") && !tree::has(&old["metadata"], "deletionTimestamp");
        if let Some(metadata) = tree::child(new, "metadata") {
            tree::set(metadata, "generation", before + i64::from(changed || deleted));
        }
    }

    /// Whether anything but the metadata differs, and the status where that is separate.
    fn differs(&self, new: &Value, old: &Value) -> bool {
        let separate = self.strategy.separates_status();
        let is_apart =
            |name: &str| matches!(name, "apiVersion" | "kind" | "metadata") || (separate && name == "status");
        let names = |object: &'_ Value| -> Vec<String> {
            object
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.clone())
                .filter(|name| !is_apart(name))
                .collect()
        };
        names(new).into_iter().chain(names(old)).any(|name| new.get(&name) != old.get(&name))
    }

    /// The same in an update through a subresource whose body is the object: `status`, and what the strategy knows.
    pub fn prepare_subresource_update(&self, subresource: &str, new: &mut Value, old: &Value) {
        if subresource == "status" {
            keep_all_but_status(new, old);
        }
        if let Some(metadata) = tree::child(new, "metadata") {
            tree::copy(metadata, &old["metadata"], "generation");
        }
        self.strategy.prepare_subresource_update(subresource, new, old);
        // Parts of the spec that have a path of their own count as the spec does.
        if subresource != "status" {
            self.count_generation(new, old);
        }
    }

    /// What is wrong with a new object (of the storage version's form), in upstream's order: metadata first, then the
    /// kind's own fields. Called on the definition of the request's version.
    pub fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = metadata::validate_new(self.strategy.name_rule(), self.namespaced, object);
        errors.extend(self.strategy.validate(object));
        errors.extend(self.strategy.validate_request(&self.api_version(), object));
        errors
    }

    /// What is wrong with an update of the main resource.
    pub fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate_metadata_update(new, old);
        errors.extend(self.strategy.validate_update(new, old));
        errors.extend(self.strategy.validate_request_update(&self.api_version(), new, old));
        errors
    }

    /// What is wrong with an update through a subresource.
    pub fn validate_subresource_update(&self, subresource: &str, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate_metadata_update(new, old);
        errors.extend(self.strategy.validate_subresource_update(subresource, new, old));
        errors
    }
}

/// What a status update may change: the status, and metadata other than labels and owners.
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let status = tree::remove(new, "status");
    let metadata = tree::remove(new, "metadata");
    let mut kept = old.clone();
    tree::remove(&mut kept, "status");
    if let Some(mut metadata) = metadata {
        for key in ["labels", "ownerReferences", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            tree::copy(&mut metadata, &old["metadata"], key);
        }
        tree::set(&mut kept, "metadata", metadata);
    }
    if let Some(status) = status {
        tree::set(&mut kept, "status", status);
    }
    *new = kept;
}
