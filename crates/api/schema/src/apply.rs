//! Server-side apply and `metadata.managedFields`.

use crate::TypeRef;
use serde_json::Value;

/// Who writes, how and when: the identity of a `managedFields` entry.
#[derive(Clone, Copy, Debug)]
pub struct Manager<'a> {
    pub name: &'a str,
    /// `apps/v1`
    pub api_version: &'a str,
    /// RFC 3339, now
    pub time: &'a str,
    /// "" for the main resource
    pub subresource: &'a str,
}

/// A field that another manager owns with a different value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `"kubectl" using apps/v1`, with the quotes
    pub manager: String,
    /// `.spec.replicas`
    pub field: String,
}

/// Why an apply configuration was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// 409 with a cause (reason `FieldManagerConflict`, message `conflict with …`) for each.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// 400
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the schema: upstream answers 500.
    #[error("{0}")]
    Typed(String),
}

/// `Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas`
fn conflict_message(conflicts: &[Conflict]) -> String {
    format!("Apply failed with {} conflicts", conflicts.len())
}

/// Records in `new.metadata.managedFields` which fields an ordinary write (create, update, patch) changed.
///
/// `old` is what was stored; `reset` are fields that the endpoint ignores, such as `["status"]` (paths with dots).
pub fn update_managers(_ty: TypeRef<'_>, _old: Option<&Value>, _new: &mut Value, _by: Manager<'_>, _reset: &[&str]) {}

/// Merges an apply configuration into the live object (none: it is created) and records who owns what.
pub fn apply(
    _ty: TypeRef<'_>,
    _live: Option<&Value>,
    _config: Value,
    _by: Manager<'_>,
    _force: bool,
    _reset: &[&str],
) -> Result<Value, ApplyError> {
    Err(ApplyError::BadRequest("server-side apply is not supported yet".into()))
}
