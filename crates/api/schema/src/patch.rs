//! The three patches that are no apply: JSON patch, JSON merge patch, strategic merge patch.

use crate::TypeRef;
use serde_json::Value;

mod convert;
mod json;
mod strategic;

/// Why a patch can't be applied. A failed patch may have changed the target in part: drop it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Not a patch document: 400 `BadRequest`.
    #[error("{0}")]
    Malformed(String),
    /// More operations than are allowed: 413 `RequestEntityTooLarge`.
    #[error("The allowed maximum operations in a JSON patch is {limit}, got {got}")]
    TooLarge { got: usize, limit: usize },
    /// An operation of a JSON patch does not fit the object. Upstream answers 422 `Invalid` with the generic message
    /// `the server rejected our request due to an error in our request` and empty details; this is for the log.
    #[error("{0}")]
    Rejected(String),
    /// The patched object is of wrong types: 422 `Invalid` with an empty kind and name and one cause
    /// `FieldValueInvalid` of the field `patch`, whose message is this text.
    #[error("Invalid value: {shown:?}: {detail}")]
    Invalid { shown: String, detail: String },
    /// The patch contradicts itself or the object's lists: upstream answers 500 without a reason.
    #[error("{0}")]
    Internal(String),
}

/// The most operations in one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;

/// Applies a JSON patch (RFC 6902).
pub fn json(target: &mut Value, operations: &Value) -> Result<(), PatchError> {
    json::apply(target, operations)
}

/// Applies a JSON merge patch (RFC 7386).
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        let kind = crate::check::json_kind(patch);
        let message = format!(
            "error decoding patch: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        );
        return Err(PatchError::Malformed(message));
    }
    merge_value(target, patch);
    Ok(())
}

fn merge_value(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(map) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge_value(map.entry(key.as_str()).or_insert(Value::Null), value);
        }
    }
}

/// Applies a strategic merge patch with all its directives. Custom resources have none: upstream answers 415.
///
/// Directives: `$patch: replace|delete` in objects and list items, `$retainKeys`, `$setElementOrder/list`,
/// `$deleteFromPrimitiveList/list`.
pub fn strategic(ty: TypeRef<'_>, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let Value::Object(map) = patch else {
        return Err(PatchError::Malformed("invalid JSON document".into()));
    };
    strategic::merge_object(strategic::Context::of(ty), target, map.clone())?;
    convert::check(ty, target).map_err(|detail| PatchError::Invalid { shown: shown(patch), detail })
}

/// The Go type that JSON of any shape is decoded into.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go prints it with `%v`: `map[a:1 b:[x y]]`.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
