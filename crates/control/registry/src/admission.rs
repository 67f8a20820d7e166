//! The hook through which the API server changes and judges every write before it is stored.

use crate::request::UserInfo;
use async_trait::async_trait;
use parking_lot::Mutex;
use pintle_kinds::ResourceDef;
use pintle_types::Status;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// The word in messages and in webhook requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// One write, as admission sees it.
pub struct Attributes<'a> {
    pub operation: Operation,
    pub def: &'a ResourceDef,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty while the name is still to be generated.
    pub name: &'a str,
    pub user: &'a UserInfo,
    pub dry_run: bool,
    /// The object in the version of the request (for `binding` and the like: the body); nothing when deleting.
    pub object: Option<Value>,
    /// What is stored; nothing when creating.
    pub old_object: Option<Arc<Value>>,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions`.
    pub options: Value,
    pub warnings: Vec<String>,
    /// Where what is noted for the audit log goes; nothing while requests are not audited.
    pub audit: Option<&'a AuditAnnotations>,
}

impl Attributes<'_> {
    /// Notes something for the audit log. A key that has a value already keeps it, as upstream does.
    pub fn annotate(&self, key: &str, value: impl Into<String>) {
        if let Some(audit) = self.audit {
            audit.add(key, value);
        }
    }
}

/// What admission (and whoever else acts on a request) notes about it for the audit log.
#[derive(Debug, Default)]
pub struct AuditAnnotations(Mutex<BTreeMap<String, String>>);

impl AuditAnnotations {
    /// Keys are qualified by the plugin's name (`pod-security.kubernetes.io/audit-violations`). The first value of a key stays.
    pub fn add(&self, key: &str, value: impl Into<String>) {
        self.0.lock().entry(key.to_owned()).or_insert_with(|| value.into());
    }

    /// All that was noted.
    pub fn take(&self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.0.lock())
    }

    /// All that was noted so far.
    pub fn snapshot(&self) -> BTreeMap<String, String> {
        self.0.lock().clone()
    }
}

/// Mutating plugins run before the object is validated, validating ones after it, each time on the very object
/// that would be stored. Both may run more than once for one request, when another write came between.
#[async_trait]
pub trait Admission: Send + Sync {
    async fn mutate(&self, _attributes: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    async fn validate(&self, _attributes: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}

/// Admits everything as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitAll;

impl Admission for AdmitAll {}
