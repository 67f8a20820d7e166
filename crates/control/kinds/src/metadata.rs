//! Validation of object metadata, the same for all kinds.

use crate::{strategy::NameRule, tree};
use pintle_types::field::{ErrorList, FieldError, Path};
use serde_json::Value;

/// What is wrong with a new object's metadata.
pub(crate) fn validate_new(rule: NameRule, _namespaced: bool, object: &Value) -> ErrorList {
    let path = Path::new("metadata");
    let metadata = &object["metadata"];
    let mut errors = ErrorList::new();
    let name = tree::text(metadata, "name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    }
    for why in rule.check(name, false) {
        errors.push(FieldError::invalid(&path.child("name"), name, &why));
    }
    errors
}

/// What is wrong with an update of an object's metadata.
pub fn validate_metadata_update(_new: &Value, _old: &Value) -> ErrorList {
    ErrorList::new()
}
