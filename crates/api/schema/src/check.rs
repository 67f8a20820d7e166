//! Do the fields of a tree exist, and have they the right types?

use crate::TypeRef;
use serde_json::Value;

/// Removes the fields that the type lacks and names them in upstream's words: `unknown field "spec.foo"`.
pub fn unknown_fields(_ty: TypeRef<'_>, _value: &mut Value) -> Vec<String> {
    Vec::new()
}

/// The first value of a wrong type, in upstream's words, such as
/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub fn types(_ty: TypeRef<'_>, _value: &Value) -> Result<(), String> {
    Ok(())
}
