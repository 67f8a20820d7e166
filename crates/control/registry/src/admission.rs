//! The hook through which the API server changes and judges every write before it is stored.

use crate::request::UserInfo;
use async_trait::async_trait;
use pintle_kinds::ResourceDef;
use pintle_types::Status;
use serde_json::Value;
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
}

/// Mutating plugins run before the object is validated, validating ones after it, each time on the very object
/// that would be stored. Both may run more than once for one request, when another write came between.
#[async_trait]
pub trait Admission: Send + Sync {
    async fn mutate(&self, _attributes: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    async fn validate(&self, _attributes: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}

/// Admits everything as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdmitAll;

impl Admission for AdmitAll {}
