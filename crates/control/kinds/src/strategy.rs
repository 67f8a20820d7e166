//! What a kind may do differently from all others. Every hook defaults to nothing.

use crate::column::{self, Column};
use jiff::Timestamp;
use pintle_types::{Status, field::ErrorList, names};
use serde_json::Value;
use std::{ops::Deref, sync::Arc};

/// Which names the objects of a kind may have.
#[derive(Clone, Copy)]
pub enum NameRule {
    /// Dot-separated lower-case labels, at most 253 bytes.
    Subdomain,
    /// One lower-case label, at most 63 bytes.
    Label,
    /// A label that starts with a letter.
    Label1035,
    /// Anything that can be one segment of a path.
    PathSegment,
    /// A rule of the kind's own; gets the name and answers what is wrong.
    Custom(fn(&str) -> Vec<String>),
}

impl NameRule {
    /// What is wrong with a name. A `prefix` (of a generated name) may end in a dash.
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        let masked;
        let name = match prefix && name.ends_with('-') {
            true => {
                masked = format!("{}a", name.trim_end_matches('-'));
                &masked
            }
            false => name,
        };
        match self {
            Self::Subdomain => names::dns1123_subdomain_errors(name),
            Self::Label => names::dns1123_label_errors(name),
            Self::Label1035 => names::dns1035_label_errors(name),
            Self::PathSegment => names::path_segment_errors(name, prefix),
            Self::Custom(rule) => rule(name),
        }
    }
}

/// Turns objects from one version's form into another's by asking somebody.
#[async_trait::async_trait]
pub trait Converter: Send + Sync {
    /// The same objects in the same order, in the form of `api_version`. Those that have it already are not given.
    async fn convert(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, Status>;
}

/// The particulars of one kind.
///
/// `default`, `to_storage` and `from_storage` see objects in the form of a version; all other hooks see the form of the
/// storage version. Generic work (object metadata, generation, resetting of status) is done by
/// [`ResourceDef`](crate::ResourceDef) around these hooks.
pub trait Strategy: Send + Sync {
    /// Which names are allowed.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Fills in what the client left out. `api_version` says in which version's form the object is.
    fn default(&self, _api_version: &str, _object: &mut Value) {}

    /// Whether [`Strategy::default`] must not run again after admission, because it would fill in what the client
    /// emptied on purpose.
    fn defaults_once(&self) -> bool {
        false
    }

    /// What upstream adds when it reads back what it stored: fields that depend on what was generated before. Called
    /// after validation, with the storage version's form.
    fn read_back(&self, _object: &mut Value) {}

    /// Turns an object of `api_version` into the storage version's form (`apiVersion` itself is set by the caller).
    fn to_storage(&self, _api_version: &str, _object: &mut Value) {}

    /// Turns a stored object into the form of `api_version`.
    // It is the other half of `to_storage` and reads so.
    #[allow(clippy::wrong_self_convention)]
    fn from_storage(&self, _api_version: &str, _object: &mut Value) {}

    /// Who converts between versions, where [`Strategy::to_storage`] and [`Strategy::from_storage`] can't. Hooks then see
    /// the form of the request's version.
    fn converter(&self) -> Option<&dyn Converter> {
        None
    }

    /// Whether objects are looked at when they are read from the store: see [`Strategy::refresh`].
    fn refreshes(&self) -> bool {
        false
    }

    /// Brings a stored object in line with a schema that may have changed since. Answers whether it changed.
    fn refresh(&self, _stored: &mut Value) -> bool {
        false
    }

    /// Clears and sets what clients don't decide, before a new object is validated.
    fn prepare_create(&self, _object: &mut Value) {}

    /// The same before an update by the main resource; generic code has already kept the old status.
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// The same before an update by a subresource such as `status`; generic code has already kept everything that the
    /// status subresource doesn't change.
    fn prepare_subresource_update(&self, _subresource: &str, _new: &mut Value, _old: &Value) {}

    /// Notes when something changed, once a creation (there is no `old` then) or an update by a subresource, or by none,
    /// was prepared.
    fn stamp(&self, _subresource: &str, _new: &mut Value, _old: Option<&Value>, _now: Timestamp) {}

    /// What is wrong with a new object, beyond its metadata.
    fn validate(&self, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// What the version of the request (`api_version`) asks for beyond [`Strategy::validate`], of a new object.
    fn validate_request(&self, _api_version: &str, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// What is wrong with an update, beyond metadata. By default: what is wrong with the new object.
    fn validate_update(&self, new: &Value, _old: &Value) -> ErrorList {
        self.validate(new)
    }

    /// What the version of the request asks for beyond [`Strategy::validate_update`], of an update.
    fn validate_request_update(&self, _api_version: &str, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// What is wrong with an update by a subresource.
    fn validate_subresource_update(&self, _subresource: &str, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    /// Texts for `Warning` headers about an object that is created, or about an update when there is an old one.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// The same about an update by a subresource such as `status`.
    fn subresource_warnings(&self, _subresource: &str, _new: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Whether deleting waits: the seconds to wait for, 0 for none. Nothing: the kind knows no grace period.
    fn graceful_delete(&self, _object: &Value, _requested_seconds: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether a PUT to a name that doesn't exist creates the object.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without a resourceVersion is allowed.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Whether dependents are orphaned when a delete doesn't say what to do with them.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// What to tell who deletes without saying what to do with dependents.
    fn warning_of_orphans(&self) -> Option<&'static str> {
        None
    }

    /// What every request for the kind is told, because it is on its way out.
    fn deprecation(&self) -> Option<&str> {
        None
    }

    /// Fields (dotted paths) that a server-side apply through the main resource (`""`) or a subresource doesn't own.
    fn reset_fields(&self, _subresource: &str) -> &'static [&'static str] {
        &[]
    }

    /// The top-level fields whose change counts in `metadata.generation`. Empty: the kind has no generation. `*`: all but
    /// the metadata, and the status where that is separate.
    fn generation_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The top-level field, if any, whose text counts beyond its value: it is stored as a client wrote it, white space
    /// included, and an update that writes it differently changes it. Upstream keeps the bytes of raw extensions.
    fn verbatim_field(&self) -> Option<&'static str> {
        None
    }

    /// Whether `status` is dropped from new objects and kept by updates of the main resource.
    fn separates_status(&self) -> bool {
        true
    }

    /// What `kubectl get` shows.
    fn columns(&self) -> &[Column] {
        column::GENERIC
    }

    /// One cell for each of [`Strategy::columns`].
    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        column::generic_cells(object)
    }
}

/// A strategy of a built-in kind, or one made at run time.
#[derive(Clone)]
pub enum StrategyRef {
    Static(&'static dyn Strategy),
    Shared(Arc<dyn Strategy>),
}

impl Deref for StrategyRef {
    type Target = dyn Strategy;
    fn deref(&self) -> &Self::Target {
        match self {
            Self::Static(strategy) => *strategy,
            Self::Shared(strategy) => &**strategy,
        }
    }
}

/// The strategy of kinds that have nothing particular.
pub struct Plain;

impl Strategy for Plain {}
