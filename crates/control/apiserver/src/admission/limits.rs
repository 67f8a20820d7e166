//! What is stored here but not acted upon yet: rules in CEL. Whoever writes it is told so.

use crate::custom;
use pintle_registry::{Attributes, Operation};
use serde_json::Value;

pub(super) fn tell(attributes: &mut Attributes<'_>) {
    if !matches!(attributes.operation, Operation::Create | Operation::Update) || !attributes.subresource.is_empty() {
        return;
    }
    let versions = attributes.object.as_ref().map(|o| &o["spec"]["versions"]);
    if custom::defines(attributes.def) && versions.is_some_and(has_rules) {
        attributes.warnings.push("x-kubernetes-validations are stored but not evaluated by this server".into());
    }
}

fn has_rules(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(key, v)| key == "x-kubernetes-validations" || has_rules(v)),
        Value::Array(items) => items.iter().any(has_rules),
        _ => false,
    }
}
