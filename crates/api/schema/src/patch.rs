//! The three patches that are no apply: JSON patch, JSON merge patch, strategic merge patch.

use crate::TypeRef;
use serde_json::Value;

/// Why a patch can't be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// Not a patch document: 400.
    #[error("{0}")]
    Malformed(String),
    /// A patch that does not fit the object: 422 Invalid.
    #[error("{0}")]
    Unprocessable(String),
    /// Upstream answers 500 for these.
    #[error("{0}")]
    Internal(String),
}

/// Applies a JSON patch (RFC 6902).
pub fn json(_target: &mut Value, _operations: &Value) -> Result<(), PatchError> {
    Err(PatchError::Internal("JSON patches are not supported yet".into()))
}

/// Applies a JSON merge patch (RFC 7386).
pub fn merge(_target: &mut Value, _patch: &Value) -> Result<(), PatchError> {
    Err(PatchError::Internal("merge patches are not supported yet".into()))
}

/// Applies a strategic merge patch with all its directives.
pub fn strategic(_ty: TypeRef<'_>, _target: &mut Value, _patch: &Value) -> Result<(), PatchError> {
    Err(PatchError::Internal("strategic merge patches are not supported yet".into()))
}
